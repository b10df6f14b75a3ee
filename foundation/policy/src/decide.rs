//! The decision: which rules are in scope, what each says, and how their voices add up.
//!
//! Default deny. A matching deny rule beats every allow; so does one that cannot be evaluated. An allow rule that cannot be
//! evaluated does not match. Rules that cannot match are not looked at (index.rs), nor are those whose word could change
//! nothing any more; the rest are evaluated one by one.

use crate::expression::{Engine, Outcome};
use crate::facts::Facts;
use crate::index::Index;
use crate::request::{Allowed, Decision, Denied, DenyReason, Effect, Enforcement, Request, RuleRef, ShadowMatch};
use crate::rule::CompiledRule;
use cel_interpreter::common::types::CelString;

/// Compiled rules in file and line order.
pub(crate) struct RuleSet {
    engine: Engine,
    rules: Vec<CompiledRule>,
    index: Index,
}

impl RuleSet {
    pub(crate) fn new(engine: Engine, rules: Vec<CompiledRule>) -> Self {
        Self {
            engine,
            index: Index::of(rules.iter().map(CompiledRule::guards)),
            rules,
        }
    }

    /// Whether a decision can change by the passing of time alone.
    pub(crate) fn reads_time(&self) -> bool {
        self.rules.iter().any(|rule| rule.reads_time)
    }

    pub(crate) fn rules(&self) -> &[CompiledRule] {
        &self.rules
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    pub(crate) fn len(&self) -> usize {
        self.rules.len()
    }

    pub(crate) fn decide(&self, request: &Request) -> Decision {
        self.hear(request, Stage::of(request), Shadow::Skipped).0
    }

    /// As [`decide`](Self::decide), for a session that is about to be opened.
    pub(crate) fn decide_opening(&self, request: &Request) -> Decision {
        self.hear(request, Stage::Opening, Shadow::Skipped).0
    }

    /// As [`decide_opening`](Self::decide_opening), where the client's first message will be read and decided on.
    pub(crate) fn decide_unspoken(&self, request: &Request) -> Decision {
        self.hear(request, Stage::Unspoken, Shadow::Skipped).0
    }

    pub(crate) fn decide_with_shadow(&self, request: &Request) -> (Decision, Vec<ShadowMatch>) {
        self.hear(request, Stage::of(request), Shadow::Heard)
    }

    fn hear(&self, request: &Request, stage: Stage, shadow: Shadow) -> (Decision, Vec<ShadowMatch>) {
        let facts = match self.facts(request) {
            Ok(facts) => facts,
            Err(reason) => return (deny(reason, None), Vec::new()),
        };
        let mut tally = Tally::of(request, stage, shadow);
        for number in self.index.candidates(&facts) {
            if let Some(rule) = self.rules.get(number)
                && tally.waits_for(rule)
                && rule.guards().iter().all(|guard| guard.holds(&facts))
            {
                tally.hear(number, rule, &self.engine, &facts);
            }
        }
        tally.verdict()
    }

    /// What rules may look at, or why none is asked.
    pub(crate) fn facts<'r>(&self, request: &'r Request) -> Result<Facts<'r>, DenyReason> {
        let site = request.agent.site.as_str();
        let at_home = request.caller.site.as_deref().is_none_or(|own| own == site);
        if !at_home || request.endpoint.site != *site {
            return Err(DenyReason::OtherSite);
        }
        Facts::of(request, &self.engine).ok_or(DenyReason::EvaluationFailed)
    }
}

/// Whether rules with `enforce: false` are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shadow {
    Heard,
    Skipped,
}

/// Whether what is not known yet will be asked about again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The session is about to be opened; each act is decided when it is asked for.
    Opening,
    /// As [`Stage::Opening`], for a protocol that is read although it has no acts (Postgres): what its client says first is
    /// decided on when it has come.
    Unspoken,
    /// Nobody asks again.
    Final,
}

impl Stage {
    /// An MQTT client whose CONNECT is all that was heard will be asked about again, act by act.
    fn of(request: &Request) -> Self {
        match &request.mqtt {
            Some(said) if said.act.is_none() => Self::Opening,
            _ => Self::Final,
        }
    }
}

/// What has been said about one act, or about the tunnel.
#[derive(Default)]
struct Voice<'r> {
    /// `None` for a tunnel.
    act: Option<(&'static str, CelString<'static>)>,
    /// What the protocol tells has been read, although there are no acts to enforce (Postgres).
    has_read: bool,
    /// The first rule that allows, and its place among the rules heard.
    allowed: Option<(usize, &'r CompiledRule)>,
    /// The first rule that denies.
    denied: Option<(usize, DenyReason, &'r CompiledRule)>,
    /// The first rule that would allow if somebody could enforce acts.
    hampered: Option<&'r CompiledRule>,
}

struct Tally<'r> {
    stage: Stage,
    wanted: Shadow,
    voices: Vec<Voice<'r>>,
    shadow: Vec<ShadowMatch>,
}

impl<'r> Tally<'r> {
    fn of(request: &Request, stage: Stage, wanted: Shadow) -> Self {
        let voice = |act: &'static str| Voice {
            act: Some((act, CelString::from(act))),
            ..Voice::default()
        };
        let voices = match request.enforce {
            Enforcement::Tunnel => vec![Voice {
                has_read: request.postgres.is_some() || stage == Stage::Unspoken,
                ..Voice::default()
            }],
            // With facts the question is about the one act they name.
            Enforcement::Acts(acts) => acts
                .iter()
                .filter(|act| request.act().is_none_or(|asked| asked == **act))
                .map(|act| voice(act))
                .collect(),
        };
        Self {
            stage,
            wanted,
            voices,
            shadow: Vec::new(),
        }
    }

    /// Whether the rule's word could still change the answer.
    fn waits_for(&self, rule: &CompiledRule) -> bool {
        if rule.enforce {
            self.voices.iter().any(|voice| voice.waits_for(rule))
        } else {
            self.wanted == Shadow::Heard
        }
    }

    fn hear(&mut self, place: usize, rule: &'r CompiledRule, engine: &Engine, facts: &Facts<'_>) {
        let mut same_for_all = None;
        let mut in_shadow = false;
        for voice in &mut self.voices {
            if !voice.names(rule) || (rule.enforce && !voice.waits_for(rule)) {
                continue;
            }
            let act = voice.act.as_ref().map(|(_, value)| value);
            let outcome = match same_for_all {
                Some(outcome) if !rule.reads_act => outcome,
                _ => *same_for_all.insert(rule.evaluate(engine, facts, act)),
            };
            if rule.enforce {
                voice.hear(place, rule, outcome, self.stage);
            } else {
                in_shadow |= matches!(
                    (rule.effect, outcome),
                    (_, Outcome::True) | (Effect::Deny, Outcome::Unknown | Outcome::Failed)
                );
            }
        }
        if in_shadow {
            self.shadow.push(ShadowMatch {
                rule: rule.reference.clone(),
                effect: rule.effect,
            });
        }
    }

    fn verdict(self) -> (Decision, Vec<ShadowMatch>) {
        let Self { voices, shadow, .. } = self;
        let open = |voice: &&Voice<'r>| voice.denied.is_none() && voice.allowed.is_some();
        let first = voices
            .iter()
            .filter(open)
            .filter_map(|v| v.allowed)
            .min_by_key(|(place, _)| *place);
        let decision = match first {
            Some((_, rule)) => Decision::Allow(Allowed {
                rule: rule.reference.clone(),
                acts: voices
                    .iter()
                    .filter(open)
                    .filter_map(|v| v.act.as_ref())
                    .map(|(act, _)| (*act).to_owned())
                    .collect(),
                limits: rule.limits,
            }),
            None => Self::refusal(&voices),
        };
        (decision, shadow)
    }

    fn refusal(voices: &[Voice<'r>]) -> Decision {
        // A rule that took away what another had allowed says more than one that denied what nobody allowed.
        let denials = voices
            .iter()
            .filter_map(|v| v.denied.map(|denied| (v.allowed.is_none(), denied)));
        if let Some((_, (_, reason, rule))) = denials.min_by_key(|(idle, (place, ..))| (*idle, *place)) {
            return deny(reason, Some(rule.reference.clone()));
        }
        match voices.iter().find_map(|v| v.hampered) {
            Some(rule) => deny(DenyReason::NeedsTerminated, Some(rule.reference.clone())),
            None => deny(DenyReason::NoRule, None),
        }
    }
}

impl<'r> Voice<'r> {
    fn names(&self, rule: &CompiledRule) -> bool {
        self.act.as_ref().is_none_or(|(act, _)| rule.names(act))
    }

    /// Only the first rule that allows and the first that denies count; [`hear`](Self::hear) ignores the others.
    fn waits_for(&self, rule: &CompiledRule) -> bool {
        let unheard = match rule.effect {
            Effect::Allow => self.allowed.is_none(),
            Effect::Deny => self.denied.is_none(),
        };
        unheard && self.names(rule)
    }

    fn hear(&mut self, place: usize, rule: &'r CompiledRule, outcome: Outcome, stage: Stage) {
        let blind = self.act.is_none() && rule.needs_acts && !self.has_read;
        let open = stage != Stage::Final && !blind;
        match (rule.effect, outcome) {
            (_, Outcome::False) | (Effect::Allow, Outcome::Failed) => {}
            (Effect::Allow, Outcome::True | Outcome::Unknown) if blind => {
                self.hampered.get_or_insert(rule);
            }
            // The act itself is asked about once it is known; until then it may come to be allowed.
            (Effect::Deny, Outcome::Unknown) if open => {}
            (Effect::Allow, Outcome::Unknown) if open => {
                self.allowed.get_or_insert((place, rule));
            }
            (Effect::Allow, Outcome::True) => {
                self.allowed.get_or_insert((place, rule));
            }
            (Effect::Allow, Outcome::Unknown) => {}
            (Effect::Deny, Outcome::True) => self.deny(place, DenyReason::DenyRule, rule),
            // What a tunnel hides, the rule might have refused.
            (Effect::Deny, Outcome::Unknown) if blind => self.deny(place, DenyReason::DenyRule, rule),
            (Effect::Deny, Outcome::Unknown | Outcome::Failed) => self.deny(place, DenyReason::EvaluationFailed, rule),
        }
    }

    fn deny(&mut self, place: usize, reason: DenyReason, rule: &'r CompiledRule) {
        self.denied.get_or_insert((place, reason, rule));
    }
}

fn deny(reason: DenyReason, rule: Option<RuleRef>) -> Decision {
    Decision::Deny(Denied { reason, rule })
}

#[cfg(test)]
mod tests;
