//! The YAML documents as written: every mistake of shape found, nothing else decided.
//!
//! Two types hold what was read. [`AccessDocument`] is a whole access file of the gateway. [`RuleAsWritten`] is one entry of a
//! list of rules and can sit inside another program's configuration (`rules:` in agent.yaml): deserialising it accepts any
//! value and keeps its places, so that [`LocalRules::compile`](crate::LocalRules::compile) can report everything at once.

use crate::duration;
use crate::fields::{Fields, Word, boolean, list, name, word, words};
use crate::mistake::{At, Mistake, Report};
use crate::request::{Effect, Limits};
use crate::shape;
use crate::suggest;
use crate::yaml::{self, Data, Node};
use serde::de::{Deserialize, Deserializer};
use std::time::Duration;

/// An access file, as written.
#[derive(Clone, Debug)]
pub struct AccessDocument {
    /// The entries of `rules:`.
    pub rules: Vec<RuleAsWritten>,
    /// The entries of `tests:`.
    pub(crate) tests: Vec<Node>,
}

/// One rule, as written; deserialises from any YAML value.
///
/// Only the reader of this workspace (`serde_yaml`, that is serde-saphyr) gives places; other formats leave mistakes without.
#[derive(Clone, Debug)]
pub struct RuleAsWritten(pub(crate) Node);

impl<'de> Deserialize<'de> for RuleAsWritten {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Node::deserialize(deserializer).map(Self)
    }
}

impl RuleAsWritten {
    /// The line the entry starts on, from 1; 0 when unknown.
    #[must_use]
    pub fn line(&self) -> u32 {
        self.0.at.line
    }
}

impl AccessDocument {
    /// Reads one access file without looking into its rules.
    ///
    /// # Errors
    /// Everything wrong with the shape of the file: syntax, keys, version.
    pub fn read(file: &str, text: &str) -> Result<Self, Vec<Mistake>> {
        let mut report = Report::new(file, text);
        match Self::from_text(&mut report) {
            Some(document) if report.is_clean() => Ok(document),
            _ => Err(report.finish().0),
        }
    }

    /// As far as it can be read; `None` when the YAML itself is broken.
    pub(crate) fn from_text(report: &mut Report<'_>) -> Option<Self> {
        let node = yaml::parse(report)?;
        if matches!(node.data, Data::Null) {
            report.mistake(
                At {
                    line: 1,
                    column: 1,
                    offset: Some(0),
                },
                "the file is empty",
                Some("write `version: 1` and `rules:`".into()),
            );
            return None;
        }
        let mut fields = Fields::of(&node, &shape::ACCESS, report)?;
        match fields.required("version", report).map(|v| (v.at, &v.data)) {
            Some((_, Data::Int(1))) | None => {}
            Some((at, _)) => report.mistake(at, "this version reads access policies of version 1", None),
        }
        let rules = fields
            .optional("rules")
            .map(|n| list(n, "rules", report))
            .unwrap_or_default();
        let tests = fields
            .optional("tests")
            .map(|n| list(n, "tests", report))
            .unwrap_or_default();
        Some(Self {
            rules: rules.iter().cloned().map(RuleAsWritten).collect(),
            tests: tests.to_vec(),
        })
    }
}

/// Whose rules are read: the gateway's name sites, an agent's are about itself.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Gateway,
    Agent,
}

impl RuleAsWritten {
    pub(crate) fn read(&self, side: Side, report: &mut Report<'_>) -> Option<Rule> {
        let shape = match side {
            Side::Gateway => &shape::RULE,
            Side::Agent => &shape::LOCAL_RULE,
        };
        let mut fields = Fields::of(&self.0, shape, report)?;
        let name = fields.required("name", report).and_then(|n| name(n, report));
        let sites = if side == Side::Gateway {
            fields.required("sites", report).and_then(|n| words(n, "sites", report))
        } else {
            None
        };
        let expressions = fields
            .optional("expressions")
            .and_then(|n| words(n, "expressions", report))
            .unwrap_or_default();
        let effect = fields.required("effect", report).and_then(|n| effect(n, report));
        let actions = fields.optional("actions").and_then(|n| words(n, "actions", report));
        let limits = fields
            .optional("limits")
            .map(|n| limits(n, effect, report))
            .unwrap_or_default();
        let enforce = fields
            .optional("enforce")
            .is_none_or(|n| boolean(n, "enforce", report).unwrap_or(true));
        Some(Rule {
            at: self.0.at,
            name,
            sites,
            expressions,
            effect,
            actions,
            limits,
            enforce,
        })
    }
}

/// A rule with its shape checked. What is absent or wrong is `None`, and then the report holds the reason.
pub(crate) struct Rule {
    pub(crate) at: At,
    pub(crate) name: Option<Word>,
    /// Also `None` on the agent's side.
    pub(crate) sites: Option<Vec<Word>>,
    pub(crate) expressions: Vec<Word>,
    pub(crate) effect: Option<Effect>,
    pub(crate) actions: Option<Vec<Word>>,
    pub(crate) limits: Limits,
    pub(crate) enforce: bool,
}

fn effect(node: &Node, report: &mut Report<'_>) -> Option<Effect> {
    let written = word(node, "effect", report)?;
    match written.text.as_str() {
        "allow" => Some(Effect::Allow),
        "deny" => Some(Effect::Deny),
        other => {
            report.mistake(
                node.at,
                format!("`{other}` is not an effect"),
                Some(suggest::help(other, &["allow", "deny"])),
            );
            None
        }
    }
}

fn limits(node: &Node, effect: Option<Effect>, report: &mut Report<'_>) -> Limits {
    if effect == Some(Effect::Deny) {
        report.mistake(
            node.at,
            "a deny rule has no limits: it permits nothing",
            Some("remove them".to_owned()),
        );
    }
    let Some(mut fields) = Fields::of(node, &shape::LIMITS, report) else {
        return Limits::default();
    };
    let mut length =
        |key: &'static str, report: &mut Report<'_>| fields.optional(key).and_then(|n| length_of(n, key, report));
    let (session, idle) = (length("session", report), length("idle", report));
    let sessions_per_caller = fields
        .optional("sessions_per_caller")
        .and_then(|n| count(n, "sessions_per_caller", report));
    Limits {
        session,
        idle,
        sessions_per_caller,
    }
}

fn length_of(node: &Node, key: &str, report: &mut Report<'_>) -> Option<Duration> {
    let written = match &node.data {
        // 30 alone says neither minutes nor seconds.
        Data::Int(number) => number.to_string(),
        _ => word(node, key, report)?.text,
    };
    duration::parse(&written)
        .map_err(|why| {
            report.mistake(
                node.at,
                format!("`{written}` is not a duration for `{key}`"),
                Some(why.to_owned()),
            )
        })
        .ok()
}

fn count(node: &Node, key: &str, report: &mut Report<'_>) -> Option<u32> {
    let (number, found) = match &node.data {
        Data::Int(number) => (u32::try_from(*number).ok().filter(|n| *n > 0), number.to_string()),
        _ => (None, node.kind().to_owned()),
    };
    if number.is_none() {
        let message = format!("`{key}` is a whole number from 1 to {}, not {found}", u32::MAX);
        report.mistake(node.at, message, None);
    }
    number
}

/// A rule in words, for whoever shows a file to people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleOutline {
    /// The line its entry starts on, from 1; 0 when unknown.
    pub line: u32,
    /// Its name.
    pub name: String,
    /// Whether it allows or denies.
    pub effect: Effect,
    /// Whether it is applied; `false` is a rule in shadow.
    pub enforce: bool,
    /// The acts it names; `None` where it names none.
    pub actions: Option<Vec<String>>,
    /// Its expressions, as written; all must be true.
    pub expressions: Vec<String>,
    /// Its limits.
    pub limits: Limits,
}

impl RuleOutline {
    /// The outline of a rule whose shape is right; `None` of one that does not compile either.
    pub(crate) fn of(rule: &Rule) -> Option<Self> {
        let texts = |words: &[Word]| words.iter().map(|word| word.text.clone()).collect();
        Some(Self {
            line: rule.at.line,
            name: rule.name.as_ref()?.text.clone(),
            effect: rule.effect?,
            enforce: rule.enforce,
            actions: rule.actions.as_deref().map(texts),
            expressions: texts(&rule.expressions),
            limits: rule.limits,
        })
    }
}
