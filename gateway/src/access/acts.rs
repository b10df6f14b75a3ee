//! The acts inside one MQTT session, decided as they are asked for.
//!
//! Every one is decided by the policy in force and by what the store says of caller and agent now; answers are remembered
//! for as long as both stay. What a session holds on to (subscriptions, a will) stands in its [`Given`], where the review
//! finds it: a session that holds something that is no longer allowed loses its answer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use fairlead_policy::{AccessPolicy, Decision, Denied, MqttAct};
use tokio::time::Instant;

use super::gate::{Present, decide_act, decide_again_by};
use super::permit::{Given, Standing};
use super::trail::Trail;

/// Topics that answers are remembered for.
const REMEMBERED: usize = 64;
/// The longest of them, in bytes.
const REMEMBERED_BYTES: usize = 256;
/// Refused acts of one session that get a line of their own in a minute; all are counted.
const LINES: u32 = 20;
const MINUTE: Duration = Duration::from_secs(60);

/// Decides the acts of one session.
#[derive(Debug)]
pub struct Acts {
    given: Arc<Given>,
    policy: Arc<ArcSwap<AccessPolicy>>,
    trail: Trail,
    remembered: BTreeMap<String, [Option<bool>; 12]>,
    /// What the answers were decided by.
    by: (Arc<AccessPolicy>, Arc<Standing>),
    lines: u32,
    since: Instant,
}

impl Acts {
    pub(super) fn new(given: Arc<Given>, policy: Arc<ArcSwap<AccessPolicy>>, trail: Trail) -> Self {
        let by = (policy.load_full(), given.standing());
        Self {
            given,
            policy,
            trail,
            remembered: BTreeMap::new(),
            by,
            lines: 0,
            since: Instant::now(),
        }
    }

    /// Whether the act is allowed now. A refusal is counted, and its line is in the audit unless the session has had many
    /// of late.
    pub fn allows(&mut self, act: &MqttAct, now: SystemTime) -> bool {
        self.keep_up();
        let place = place(act);
        let known = self.remembered.get(&act.topic).and_then(|answers| *answers.get(place)?);
        if known == Some(true) {
            return true;
        }
        let denied = match decide_act(&self.by.0, &self.given, &self.by.1, act, now) {
            Decision::Allow(_) => None,
            Decision::Deny(denied) => Some(denied),
        };
        if denied.is_none() && !self.by.0.reads_time() {
            self.remember(&act.topic, place);
        }
        if let Some(denied) = &denied {
            self.refused(act, denied);
        }
        denied.is_none()
    }

    /// Notes what the session holds on to from now on, its will aside, which it holds from the beginning.
    pub fn hold(&mut self, acts: BTreeSet<MqttAct>, now: SystemTime) {
        self.given.hold(acts);
        // INVARIANT: a change is noted before its review reads what is held, and read here after that was written: either
        // the review has seen these acts, or they are decided again now.
        let (policy, standing) = (self.policy.load_full(), self.given.standing());
        if Arc::ptr_eq(&policy, &self.by.0) && Arc::ptr_eq(&standing, &self.by.1) {
            return;
        }
        let present = Present {
            caller: Some(Arc::clone(&standing.caller)),
            target: Some(standing.target.clone()),
        };
        if let Err(lost) = decide_again_by(&policy, &self.given, &present, now) {
            self.given.cut(lost);
        }
    }

    fn remember(&mut self, topic: &str, place: usize) {
        if topic.len() > REMEMBERED_BYTES {
            return;
        }
        if self.remembered.len() >= REMEMBERED {
            self.remembered.clear();
        }
        let answers = self.remembered.entry(topic.to_owned()).or_default();
        if let Some(answer) = answers.get_mut(place) {
            *answer = Some(true);
        }
    }

    /// Forgets what was decided by something else than what is in force.
    fn keep_up(&mut self) {
        let (policy, standing) = (self.policy.load(), self.given.standing());
        if !Arc::ptr_eq(&policy, &self.by.0) || !Arc::ptr_eq(&standing, &self.by.1) {
            self.by = (Arc::clone(&policy), standing);
            self.remembered.clear();
        }
    }

    fn refused(&mut self, act: &MqttAct, denied: &Denied) {
        if self.since.elapsed() >= MINUTE {
            (self.lines, self.since) = (0, Instant::now());
        }
        let has_line = self.lines < LINES;
        self.lines = self.lines.saturating_add(1);
        let policy = has_line.then(|| self.by.0.digest());
        // A refusal stays one when it cannot be logged; the failure itself is logged by the trail.
        let _unlogged = self.trail.refuse_act(&self.given, act, denied, policy);
    }
}

/// Where an act's answer stands among those of its topic.
fn place(act: &MqttAct) -> usize {
    let action = usize::from(act.action == "subscribe");
    let qos = usize::from(act.qos.min(2));
    action * 6 + qos * 2 + usize::from(act.retain)
}
