//! A decision with its reasons: what each rule in scope said, which part of it decided that, and the values it saw.
//!
//! Slower than a decision and off the request path: every rule is evaluated, part by part. The answer itself is taken from
//! the same code that decides (decide.rs), so that an explanation can be incomplete but never another answer.

use crate::decide::RuleSet;
use crate::expression::{Expression, Outcome};
use crate::facts::Facts;
use crate::guard::{self, Owner};
use crate::request::{Decision, Denied, Effect, Enforcement, Request, RuleRef};
use crate::rule::CompiledRule;
use crate::table::VARIABLES;
use cel_interpreter::common::ast::{Expr, IdedExpr};
use cel_interpreter::common::types::{CelBool, CelInt, CelString};
use std::collections::BTreeMap;
use std::time::SystemTime;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

mod parts;

/// Most rules an explanation tells about; the rest is counted.
pub const MAX_EXPLAINED_RULES: usize = 50;
/// Characters of one value that is shown.
const MAX_VALUE_CHARS: usize = 200;
/// Values shown of one rule.
const MAX_VALUES: usize = 32;

/// A decision and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The answer, the same that [`AccessPolicy::decide`](crate::AccessPolicy::decide) gives.
    pub decision: Decision,
    /// What rules of this site said: the one that decided first, then those that had a say, then the others with those that
    /// missed by the least first. At most [`MAX_EXPLAINED_RULES`].
    pub rules: Vec<RuleExplained>,
    /// Rules of this site that are not in `rules`.
    pub more: usize,
    /// Rules of other sites.
    pub elsewhere: usize,
    /// Where no rule was asked: the facts that decided.
    pub saw: Vec<Seen>,
}

/// What one rule said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleExplained {
    /// Which rule.
    pub rule: RuleRef,
    /// What it does when it matches.
    pub effect: Effect,
    /// Whether it is applied.
    pub enforce: bool,
    /// Whether the decision names it.
    pub decides: bool,
    /// Its word.
    pub said: Said,
    /// It names acts or reads the protocol, and the request is a tunnel.
    pub hidden: bool,
    /// The parts of its expressions that were not true, in the order written.
    pub parts: Vec<PartExplained>,
    /// What the parts that decided read: all of them where the rule matches, else those in `parts`.
    pub saw: Vec<Seen>,
}

/// The word of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Said {
    /// All its expressions are true.
    Matches,
    /// It hangs on a fact that is not known here.
    Unknown,
    /// It could not be evaluated.
    Failed,
    /// One of its expressions is false.
    False,
    /// It names other acts.
    OtherActs,
    /// It is about another protocol.
    OtherProtocol,
}

impl Said {
    /// In kebab case: `matches`, `unknown`, `failed`, `false`, `other-acts`, `other-protocol`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Matches => "matches",
            Self::Unknown => "unknown",
            Self::Failed => "failed",
            Self::False => "false",
            Self::OtherActs => "other-acts",
            Self::OtherProtocol => "other-protocol",
        }
    }
}

/// One part of a rule that was not true.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartExplained {
    /// As written, or the whole expression where the part cannot be told apart.
    pub text: String,
    /// `False`, `Failed` or `Unknown`.
    pub said: Said,
    /// Why it failed, or what is not known.
    pub why: Option<String>,
}

/// A value that an expression read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seen {
    /// `caller.groups`, `agent.labels['tier']`.
    pub name: String,
    /// The value as CEL writes it, at most 200 characters; `not known here` where there is none.
    pub value: String,
}

impl RuleSet {
    pub(crate) fn explain(&self, request: &Request) -> Explanation {
        let decision = self.decide(request);
        let mut explanation = Explanation {
            rules: Vec::new(),
            more: 0,
            elsewhere: 0,
            saw: Vec::new(),
            decision,
        };
        let Ok(facts) = self.facts(request) else {
            explanation.saw = sites(request);
            return explanation;
        };
        let asked = Asked {
            set: self,
            request,
            facts: &facts,
        };
        let (here, elsewhere): (Vec<_>, Vec<_>) = self.rules().iter().partition(|rule| rule.is_at(&request.agent.site));
        let mut told: Vec<(Rank, &CompiledRule, Said, Option<&'static str>)> = here
            .into_iter()
            .enumerate()
            .map(|(place, rule)| {
                let (said, act) = asked.word(rule);
                let decides = names(&explanation.decision, &rule.reference);
                let misses = if said > Said::Matches {
                    asked.misses(rule, act)
                } else {
                    0
                };
                (Rank::of(rule, said, decides, misses, place), rule, said, act)
            })
            .collect();
        told.sort_by_key(|(rank, ..)| *rank);
        explanation.elsewhere = elsewhere.len();
        explanation.more = told.len().saturating_sub(MAX_EXPLAINED_RULES);
        explanation.rules = told
            .into_iter()
            .take(MAX_EXPLAINED_RULES)
            .map(|(rank, rule, said, act)| asked.explained(rule, said, act, rank.decides()))
            .collect();
        explanation
    }
}

/// Where a rule stands among those told about: smaller is earlier.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank(u8, usize, usize);

impl Rank {
    fn of(rule: &CompiledRule, said: Said, decides: bool, misses: usize, place: usize) -> Self {
        let says = said == Said::Matches || (rule.effect == Effect::Deny && said < Said::False);
        let class = match (decides, says, rule.effect) {
            (true, ..) => 0,
            (_, true, _) if rule.enforce => 1,
            (_, true, _) => 2,
            (.., Effect::Allow) if said < Said::OtherActs => 3,
            _ if said < Said::OtherActs => 4,
            _ => 5,
        };
        Self(class, misses, place)
    }

    fn decides(self) -> bool {
        self.0 == 0
    }
}

fn names(decision: &Decision, rule: &RuleRef) -> bool {
    match decision {
        Decision::Allow(allowed) => allowed.rule == *rule,
        Decision::Deny(Denied { rule: named, .. }) => named.as_ref() == Some(rule),
    }
}

/// One question, ready for every rule.
struct Asked<'a> {
    set: &'a RuleSet,
    request: &'a Request,
    facts: &'a Facts<'a>,
}

impl Asked<'_> {
    /// The acts asked about; one `None` for a tunnel.
    fn acts(&self) -> Vec<Option<&'static str>> {
        match self.request.enforce {
            Enforcement::Tunnel => vec![None],
            Enforcement::Acts(acts) => {
                let asked = |act: &&&str| self.request.act().is_none_or(|asked| asked == **act);
                acts.iter().filter(asked).map(|act| Some(*act)).collect()
            }
        }
    }

    /// What a rule says at its best, and about which act.
    fn word(&self, rule: &CompiledRule) -> (Said, Option<&'static str>) {
        if !rule.is_about(self.request.endpoint.protocol) {
            return (Said::OtherProtocol, None);
        }
        let acts = self.acts();
        let named = acts.iter().filter(|act| act.is_none_or(|act| rule.names(act)));
        let said = named.map(|act| {
            let bound = act.map(CelString::from);
            (
                Said::from(rule.evaluate(self.set.engine(), self.facts, bound.as_ref())),
                *act,
            )
        });
        said.min_by_key(|(said, _)| *said).unwrap_or((Said::OtherActs, None))
    }

    /// How many parts of the rule are not true.
    fn misses(&self, rule: &CompiledRule, act: Option<&'static str>) -> usize {
        rule.expressions().iter().map(|e| self.not_true(e, act).len()).sum()
    }

    fn not_true<'e>(&self, expression: &'e Expression, act: Option<&str>) -> Vec<(usize, &'e IdedExpr, PartWord)> {
        let bound = act.map(CelString::from);
        let mut parts = Vec::new();
        guard::each_conjunct(expression.tree(), &mut |part| parts.push(part));
        let word = |part: &IdedExpr| expression.evaluate_part(part, self.set.engine(), self.facts, bound.as_ref());
        parts
            .into_iter()
            .enumerate()
            .map(|(place, part)| (place, part, word(part)))
            .filter(|(.., (outcome, _))| *outcome != Outcome::True)
            .collect()
    }

    fn explained(&self, rule: &CompiledRule, said: Said, act: Option<&'static str>, decides: bool) -> RuleExplained {
        let mut explained = RuleExplained {
            rule: rule.reference.clone(),
            effect: rule.effect,
            enforce: rule.enforce,
            decides,
            said,
            hidden: rule.needs_acts
                && self.request.enforce == Enforcement::Tunnel
                && self.request.postgres.is_none()
                && said <= Said::Failed,
            parts: Vec::new(),
            saw: Vec::new(),
        };
        if said > Said::False {
            return explained;
        }
        let mut saw = BTreeMap::new();
        for expression in rule.expressions() {
            let parts = self.not_true(expression, act);
            if said == Said::Matches {
                self.read(expression.tree(), act, &mut saw);
            }
            for (place, tree, (outcome, why)) in parts {
                self.read(tree, act, &mut saw);
                let text = parts::text(expression.text(), expression.tree(), place);
                let part = PartExplained {
                    text: text.to_owned(),
                    said: outcome.into(),
                    why,
                };
                if !explained.parts.contains(&part) {
                    explained.parts.push(part);
                }
            }
        }
        let seen = saw.into_iter().take(MAX_VALUES);
        explained.saw = seen.map(|(name, value)| Seen { name, value }).collect();
        explained
    }

    /// Notes what a part reads and the values.
    fn read(&self, tree: &IdedExpr, act: Option<&str>, saw: &mut BTreeMap<String, String>) {
        if let Some((owner, key)) = guard::label(tree) {
            let value = quoted(self.facts.label(owner, &key).unwrap_or(""));
            saw.insert(format!("{}['{key}']", labels_of(owner)), value);
        } else if let Some(name) = guard::variable(tree) {
            if VARIABLES.iter().any(|v| v.name == name) {
                saw.insert(name.to_owned(), self.value(name, act));
            }
        } else {
            parts::each_child(tree, &mut |child| self.read(child, act, saw));
        }
    }

    fn value(&self, name: &str, act: Option<&str>) -> String {
        let labels = |owner| {
            let labels = self
                .facts
                .labels(owner)
                .map(|(key, value)| format!("{}: {}", quoted(key), quoted(value)));
            format!("{{{}}}", labels.collect::<Vec<_>>().join(", "))
        };
        let value = match name {
            "caller.groups" => {
                let groups: Vec<String> = self.facts.groups().iter().map(|g| quoted(g)).collect();
                format!("[{}]", groups.join(", "))
            }
            "caller.labels" => labels(Owner::Caller),
            "agent.labels" => labels(Owner::Agent),
            "time.now" => moment(self.request.now),
            "conn.ts.start" => moment(self.request.conn.started),
            _ => {
                let act = act.map(CelString::from);
                let read = self.facts.read(name, act.as_ref());
                let text = read
                    .and_then(|v| v.downcast_ref::<CelString<'_>>())
                    .map(|t| quoted(t.inner()));
                let number = read
                    .and_then(|v| v.downcast_ref::<CelInt>())
                    .map(|n| n.inner().to_string());
                let truth = read
                    .and_then(|v| v.downcast_ref::<CelBool>())
                    .map(|b| b.inner().to_string());
                text.or(number).or(truth).unwrap_or_else(|| "not known here".to_owned())
            }
        };
        value.chars().take(MAX_VALUE_CHARS).collect()
    }
}

/// What one part came to, and why it failed or what is not known.
pub(crate) type PartWord = (Outcome, Option<String>);

impl From<Outcome> for Said {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::True => Self::Matches,
            Outcome::Unknown => Self::Unknown,
            Outcome::Failed => Self::Failed,
            Outcome::False => Self::False,
        }
    }
}

/// The facts behind `other-site`.
fn sites(request: &Request) -> Vec<Seen> {
    let seen = |name: &str, value: &str| Seen {
        name: name.to_owned(),
        value: quoted(value),
    };
    vec![
        seen("caller.site", request.caller.site.as_deref().unwrap_or("")),
        seen("agent.site", &request.agent.site),
        seen("endpoint.url", &request.endpoint.to_string()),
    ]
}

fn labels_of(owner: Owner) -> &'static str {
    match owner {
        Owner::Caller => "caller.labels",
        Owner::Agent => "agent.labels",
    }
}

fn quoted(text: &str) -> String {
    let shown: String = text
        .chars()
        .take(MAX_VALUE_CHARS)
        .flat_map(char::escape_debug)
        .collect();
    format!("'{shown}'")
}

fn moment(time: SystemTime) -> String {
    let time = OffsetDateTime::from(time).replace_nanosecond(0).ok();
    time.and_then(|time| time.format(&Rfc3339).ok())
        .unwrap_or_else(|| "not known here".to_owned())
}
