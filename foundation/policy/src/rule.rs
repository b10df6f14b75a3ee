//! One rule, compiled: its scope worked out and its expressions ready to evaluate.

use crate::document::{Rule, Side};
use crate::expression::{Engine, Expression, Outcome};
use crate::facts::Facts;
use crate::fields::Word;
use crate::guard::{self, Attribute, Fact, Guard};
use crate::mistake::{At, Report};
use crate::request::{Effect, Limits, RuleRef};
use crate::suggest;
use crate::table::{ACTS, VARIABLES, Variable};
use cel_interpreter::common::types::CelString;
use fairlead_identity::name::{Label, Protocol};
use std::collections::BTreeSet;

/// A rule that can be decided on.
pub(crate) struct CompiledRule {
    pub(crate) reference: RuleRef,
    pub(crate) effect: Effect,
    pub(crate) enforce: bool,
    pub(crate) limits: Limits,
    pub(crate) sites: Sites,
    /// The acts it names; `None` when it names none.
    actions: Option<Vec<String>>,
    /// The protocols it is about; empty for all.
    protocols: Vec<Protocol>,
    /// It names acts or reads what only the protocol's bytes tell: a tunnel cannot honour it.
    pub(crate) needs_acts: bool,
    /// Its expressions read the act: they are evaluated for each.
    pub(crate) reads_act: bool,
    pub(crate) reads_time: bool,
    expressions: Vec<Expression>,
    /// All must hold, else the rule is out of scope or false.
    guards: Vec<Guard>,
}

/// Where a rule holds.
pub(crate) enum Sites {
    All,
    These(BTreeSet<String>),
}

impl CompiledRule {
    /// Compiles one rule; `None` when the report got a mistake for it.
    pub(crate) fn compile(
        written: Rule,
        file: &str,
        engine: &Engine,
        side: Side,
        report: &mut Report<'_>,
    ) -> Option<Self> {
        let sites = match side {
            Side::Gateway => written
                .sites
                .as_deref()
                .and_then(|words| sites(words, written.at, report)),
            Side::Agent => Some(Sites::All),
        };
        let actions = written.actions.as_deref().map(|words| acts(words, written.at, report));
        let expressions: Vec<Option<Expression>> = written
            .expressions
            .iter()
            .map(|word| engine.compile(&word.text, word.at, report))
            .collect();
        let expressions = expressions.into_iter().collect::<Option<Vec<Expression>>>()?;
        let read: Vec<&Variable> = expressions
            .iter()
            .flat_map(|e| &e.reads)
            .filter_map(|index| VARIABLES.get(*index))
            .collect();
        let protocols = protocols(&written, &read, report)?;
        let sites = sites?;
        let mut guards: Vec<Guard> = expressions.iter().flat_map(|e| guard::guards(e.tree())).collect();
        if let Sites::These(names) = &sites {
            let names = names.iter().cloned().collect();
            guards.push(Guard::of(Attribute::Is(Fact::AgentSite), names));
        }
        if !protocols.is_empty() {
            let names = protocols.iter().map(|p| p.as_str().to_owned()).collect();
            guards.push(Guard::of(Attribute::Is(Fact::Protocol), names));
        }
        let rule = Self {
            effect: written.effect?,
            enforce: written.enforce,
            limits: written.limits,
            sites,
            needs_acts: written.actions.is_some() || read.iter().any(|v| v.protocol().is_some()),
            actions: match actions {
                None => None,
                Some(known) => Some(known?),
            },
            protocols,
            reads_act: read.iter().any(|v| v.is_act()),
            reads_time: read.iter().any(|v| v.is_time()),
            expressions,
            guards,
            reference: RuleRef {
                name: written.name?.text,
                file: file.to_owned(),
                line: written.at.line,
            },
        };
        warn(&rule, &read, written.at, report);
        Some(rule)
    }

    /// Whether the rule is about this protocol at all.
    pub(crate) fn is_about(&self, protocol: Protocol) -> bool {
        self.protocols.is_empty() || self.protocols.contains(&protocol)
    }

    /// Whether the rule holds at this site at all.
    pub(crate) fn is_at(&self, site: &str) -> bool {
        match &self.sites {
            Sites::All => true,
            Sites::These(names) => names.contains(site),
        }
    }

    pub(crate) fn expressions(&self) -> &[Expression] {
        &self.expressions
    }

    /// What must hold for the rule to be in scope and true.
    pub(crate) fn guards(&self) -> &[Guard] {
        &self.guards
    }

    /// Whether an expression reads the time or the caller's connection.
    pub(crate) fn reads_circumstances(&self) -> bool {
        let read = self.expressions.iter().flat_map(|e| &e.reads);
        let names = read.filter_map(|index| VARIABLES.get(*index)).map(|v| v.name);
        self.reads_time || names.into_iter().any(|name| name.starts_with("conn."))
    }

    /// Whether the rule is about this act at all.
    pub(crate) fn names(&self, act: &str) -> bool {
        self.actions.as_ref().is_none_or(|acts| acts.iter().any(|a| a == act))
    }

    /// All expressions joined as `&&` joins them: one that is false decides, whatever the others came to.
    pub(crate) fn evaluate(&self, engine: &Engine, facts: &Facts<'_>, act: Option<&CelString<'_>>) -> Outcome {
        let mut all = Outcome::True;
        for expression in &self.expressions {
            match (expression.evaluate(engine, facts, act), all) {
                (Outcome::False, _) => return Outcome::False,
                (Outcome::Failed, _) | (_, Outcome::Failed) => all = Outcome::Failed,
                (Outcome::Unknown, _) => all = Outcome::Unknown,
                (Outcome::True, _) => {}
            }
        }
        all
    }
}

fn sites(words: &[Word], at: At, report: &mut Report<'_>) -> Option<Sites> {
    if words.is_empty() {
        report.mistake(
            at,
            "`sites` is empty: the rule would hold nowhere",
            Some("write ['*'] for all sites".to_owned()),
        );
        return None;
    }
    if let Some(star) = words.iter().find(|w| w.text == "*") {
        if words.len() > 1 {
            report.mistake(
                star.at,
                "'*' already means all sites",
                Some("write either '*' or names".to_owned()),
            );
        }
        return Some(Sites::All);
    }
    let mut names = BTreeSet::new();
    for word in words {
        match word.text.parse::<Label>() {
            Ok(label) => {
                names.insert(label.to_string());
            }
            Err(error) => report.mistake(word.at, error.to_string(), None),
        }
    }
    Some(Sites::These(names))
}

fn acts(words: &[Word], at: At, report: &mut Report<'_>) -> Option<Vec<String>> {
    if words.is_empty() {
        let help = Some("remove `actions` to mean every act, or name some".to_owned());
        report.mistake(at, "`actions` is empty: the rule would be about nothing", help);
        return None;
    }
    let known: Vec<&str> = ACTS.iter().flat_map(|(_, acts)| acts.iter().copied()).collect();
    for word in words.iter().filter(|w| !known.contains(&w.text.as_str())) {
        report.mistake(
            word.at,
            format!("unknown act `{}`", word.text),
            Some(suggest::help(&word.text, &known)),
        );
    }
    Some(words.iter().map(|w| w.text.clone()).collect())
}

/// The protocols a rule is about: that of the variables it reads, else those of the acts it names.
fn protocols(rule: &Rule, read: &[&Variable], report: &mut Report<'_>) -> Option<Vec<Protocol>> {
    let of_variables: BTreeSet<Protocol> = read.iter().filter_map(|v| v.protocol()).collect();
    let named = |acts: &[&str]| rule.actions.iter().flatten().any(|w| acts.contains(&w.text.as_str()));
    let of_acts: BTreeSet<Protocol> = ACTS.iter().filter(|(_, acts)| named(acts)).map(|(p, _)| *p).collect();
    let help = || Some("write one rule for each protocol".to_owned());
    if of_variables.len() > 1 {
        let names: Vec<&str> = of_variables.iter().map(|p| p.as_str()).collect();
        report.mistake(
            rule.at,
            format!(
                "the rule reads variables of {}: no session has both",
                names.join(" and ")
            ),
            help(),
        );
        return None;
    }
    if let (Some(reads), false) = (of_variables.first(), of_acts.is_subset(&of_variables))
        && !of_acts.is_empty()
    {
        report.mistake(
            rule.at,
            format!("the rule reads variables of {reads} and names acts of another protocol"),
            help(),
        );
        return None;
    }
    Some(
        if of_variables.is_empty() { of_acts } else { of_variables }
            .into_iter()
            .collect(),
    )
}

fn warn(rule: &CompiledRule, read: &[&Variable], at: At, report: &mut Report<'_>) {
    let name = &rule.reference.name;
    if let Some(variable) = read.iter().find(|v| !v.is_told()) {
        let consequence = match rule.effect {
            Effect::Allow => "never match where it matters",
            Effect::Deny => "deny where it matters",
        };
        let message = format!(
            "nothing in this version tells `{}`: rule `{name}` will {consequence}",
            variable.name
        );
        report.warning(at, message, None);
    } else if rule.needs_acts && !matches!(rule.protocols[..], [Protocol::Postgres | Protocol::Mqtt]) {
        let consequence = match rule.effect {
            Effect::Allow => "never allows a tunnel",
            Effect::Deny => "refuses every tunnel it matches",
        };
        let help = Some("tunnels (an sshd behind the agent) hide their acts; builtin:ssh enforces them".to_owned());
        report.warning(
            at,
            format!("rule `{name}` names acts or reads the protocol: it {consequence}"),
            help,
        );
    }
}
