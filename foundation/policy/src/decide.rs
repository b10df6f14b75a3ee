//! The decision: which rules are in scope, what each says, and how their voices add up.
//!
//! Default deny. A matching deny rule beats every allow; so does one that cannot be evaluated. An allow rule that cannot be
//! evaluated does not match. Rules are found by site; within a site all of them are evaluated, so the cost is linear in the
//! rules of the site plus those of all sites.

use crate::expression::{Engine, Outcome};
use crate::facts::Facts;
use crate::request::{Allowed, Decision, Denied, DenyReason, Effect, Enforcement, Request, RuleRef, ShadowMatch};
use crate::rule::{CompiledRule, Sites};
use cel_interpreter::common::types::CelString;
use std::collections::BTreeMap;

/// Compiled rules in file and line order.
pub(crate) struct RuleSet {
    engine: Engine,
    rules: Vec<CompiledRule>,
    /// Indices of the rules that name the site, ascending.
    by_site: BTreeMap<String, Vec<usize>>,
    /// Indices of the rules of all sites, ascending.
    everywhere: Vec<usize>,
}

impl RuleSet {
    pub(crate) fn new(engine: Engine, rules: Vec<CompiledRule>) -> Self {
        let mut by_site: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        let mut everywhere = Vec::new();
        for (index, rule) in rules.iter().enumerate() {
            match &rule.sites {
                Sites::All => everywhere.push(index),
                Sites::These(names) => {
                    names
                        .iter()
                        .for_each(|site| by_site.entry(site.clone()).or_default().push(index));
                }
            }
        }
        Self {
            engine,
            rules,
            by_site,
            everywhere,
        }
    }

    /// Whether a decision can change by the passing of time alone.
    pub(crate) fn reads_time(&self) -> bool {
        self.rules.iter().any(|rule| rule.reads_time)
    }

    pub(crate) fn len(&self) -> usize {
        self.rules.len()
    }

    pub(crate) fn decide(&self, request: &Request) -> (Decision, Vec<ShadowMatch>) {
        self.decide_at(request, Stage::Final)
    }

    pub(crate) fn decide_at(&self, request: &Request, stage: Stage) -> (Decision, Vec<ShadowMatch>) {
        let site = request.agent.site.as_str();
        let at_home = request.caller.site.as_deref().is_none_or(|own| own == site);
        if !at_home || request.endpoint.site != *site {
            return (deny(DenyReason::OtherSite, None), Vec::new());
        }
        let Some(facts) = Facts::of(request, &self.engine) else {
            return (deny(DenyReason::EvaluationFailed, None), Vec::new());
        };
        let mut tally = Tally::of(request, stage);
        for rule in self
            .in_scope(site)
            .filter(|rule| rule.is_about(request.endpoint.protocol))
        {
            tally.hear(rule, &self.engine, &facts);
        }
        tally.verdict()
    }

    /// The rules of this site and of all sites, in order.
    fn in_scope(&self, site: &str) -> impl Iterator<Item = &CompiledRule> {
        let mut here = self
            .by_site
            .get(site)
            .map_or(&[][..], Vec::as_slice)
            .iter()
            .copied()
            .peekable();
        let mut everywhere = self.everywhere.iter().copied().peekable();
        let indices = std::iter::from_fn(move || match (here.peek(), everywhere.peek()) {
            (Some(a), Some(b)) if a < b => here.next(),
            (_, Some(_)) => everywhere.next(),
            (_, None) => here.next(),
        });
        indices.filter_map(|index| self.rules.get(index))
    }
}

/// Whether what is not known yet will be asked about again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The session is about to be opened; each act is decided when it is asked for.
    Opening,
    /// Nobody asks again.
    Final,
}

/// What has been said about one act, or about the tunnel.
#[derive(Default)]
struct Voice<'r> {
    /// `None` for a tunnel.
    act: Option<(&'static str, CelString<'static>)>,
    /// The first rule that allows, and its place among the rules heard.
    allowed: Option<(usize, &'r CompiledRule)>,
    /// The first rule that denies.
    denied: Option<(usize, DenyReason, &'r CompiledRule)>,
    /// The first rule that would allow if somebody could enforce acts.
    hampered: Option<&'r CompiledRule>,
}

struct Tally<'r> {
    stage: Stage,
    voices: Vec<Voice<'r>>,
    shadow: Vec<ShadowMatch>,
    heard: usize,
}

impl<'r> Tally<'r> {
    fn of(request: &Request, stage: Stage) -> Self {
        let voice = |act: &'static str| Voice {
            act: Some((act, CelString::from(act))),
            ..Voice::default()
        };
        let voices = match request.enforce {
            Enforcement::Tunnel => vec![Voice::default()],
            // With facts the question is about the one act they name.
            Enforcement::Acts(acts) => acts
                .iter()
                .filter(|act| request.ssh.as_ref().is_none_or(|ssh| ssh.action == **act))
                .map(|act| voice(act))
                .collect(),
        };
        Self {
            stage,
            voices,
            shadow: Vec::new(),
            heard: 0,
        }
    }

    fn hear(&mut self, rule: &'r CompiledRule, engine: &Engine, facts: &Facts<'_>) {
        self.heard += 1;
        let mut same_for_all = None;
        let mut in_shadow = false;
        for voice in &mut self.voices {
            if voice.act.as_ref().is_some_and(|(act, _)| !rule.names(act)) {
                continue;
            }
            let act = voice.act.as_ref().map(|(_, value)| value);
            let outcome = match same_for_all {
                Some(outcome) if !rule.reads_act => outcome,
                _ => *same_for_all.insert(rule.evaluate(engine, facts, act)),
            };
            if rule.enforce {
                voice.hear(self.heard, rule, outcome, self.stage);
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
    fn hear(&mut self, place: usize, rule: &'r CompiledRule, outcome: Outcome, stage: Stage) {
        let blind = self.act.is_none() && rule.needs_acts;
        let open = stage == Stage::Opening && !blind;
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
