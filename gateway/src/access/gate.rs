//! The gate: request in, permit or denial out, and the audit line first.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use bytes::Bytes;
use fairlead_identity::name::{EndpointUrl, Label, Protocol};
use fairlead_policy::{
    self as policy, AccessPolicy, Decision, Denied, DenyReason, Enforcement, MqttAct, MqttFacts, PostgresFacts,
    TlsFacts,
};
use fairlead_wire::id::SessionId;
use fairlead_wire::refusal::Reason;

use super::acts::Acts;
use super::caller::Caller;
use super::permit::{Denial, Given, Lost, Permit, Standing};
use super::trail::Trail;

/// Acts that `builtin:ssh` can tell apart and enforce.
pub(crate) const BUILTIN_SSH_ACTS: &[&str] = &["shell", "exec", "sftp"];

/// What somebody asks for: everything the decision may look at.
#[derive(Debug)]
pub struct AccessRequest {
    /// Fresh id, made by the face.
    pub session: SessionId,
    /// Who asks.
    pub caller: Arc<Caller>,
    /// What was asked for in the caller's words, for the audit; bounded by the face.
    pub asked: String,
    /// The endpoint behind those words; `None` when there is no such endpoint, which looks like a denial.
    pub target: Option<Target>,
    /// Where the caller connects from.
    pub client: SocketAddr,
    /// The moment of asking.
    pub now: SystemTime,
    /// How many changes of policy, callers and agents had been noted when the facts of this request were begun to be
    /// read. A session that enters at a higher count is decided again at once: nothing changes in between unseen.
    pub as_of: u64,
    /// What the caller's protocol has said first.
    pub spoken: Spoken,
}

/// What a caller's protocol says first, where the face has read it; empty for everything else.
#[derive(Clone, Default)]
pub struct Spoken {
    /// What a Postgres client asks for.
    pub postgres: Option<PostgresFacts>,
    /// What an MQTT client says of itself.
    pub mqtt: Option<MqttFacts>,
    /// The message that an MQTT client leaves with the broker.
    pub will: Option<MqttAct>,
    /// The TLS that the caller speaks; empty for one who speaks none.
    pub tls: TlsFacts,
    /// The bytes themselves, which the agent reads before it decides by its own rules.
    pub first_bytes: Bytes,
}

impl std::fmt::Debug for Spoken {
    /// Without the bytes: a password may be among them.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Spoken")
            .field("postgres", &self.postgres)
            .field("mqtt", &self.mqtt)
            .field("will", &self.will)
            .finish_non_exhaustive()
    }
}

impl Spoken {
    /// The question with what was said.
    fn beside(&self, mut asked: policy::Request) -> policy::Request {
        asked.postgres.clone_from(&self.postgres);
        asked.mqtt.clone_from(&self.mqtt);
        asked.conn.tls = Some(self.tls.clone());
        asked
    }
}

/// What a caller asks about before there is a client: see [`Gate::outlook`].
#[derive(Clone, Debug, Default)]
pub struct Inquiry {
    /// One act; any unless given.
    pub act: Option<String>,
    /// What an MQTT client is supposed to say.
    pub mqtt: Option<MqttFacts>,
}

/// What a caller could expect of a request; see [`Gate::outlook`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outlook {
    /// A permit.
    Allowed,
    /// A permit or none, by what the client says first.
    Depends,
    /// None.
    Denied,
}

/// What the store says of a live session at this moment.
#[derive(Clone, Debug)]
pub struct Present {
    /// The caller; `None` when what they proved no longer lets them in.
    pub caller: Option<Arc<Caller>>,
    /// The endpoint; `None` when the agent no longer owns it.
    pub target: Option<Target>,
}

/// An endpoint and the agent that owns it, online or not.
#[derive(Clone, Debug)]
pub struct Target {
    /// The endpoint's canonical URL.
    pub endpoint: EndpointUrl,
    /// The agent's name.
    pub agent: Label,
    /// The agent's site.
    pub site: Label,
    /// The agent's labels in the store.
    pub labels: BTreeMap<String, String>,
    /// Whether acts are enforced at the agent (`builtin:ssh`).
    pub builtin: bool,
}

/// Holds the current policy and decides.
#[derive(Debug)]
pub struct Gate {
    policy: Arc<ArcSwap<AccessPolicy>>,
    trail: Trail,
}

impl Gate {
    /// A gate with its first policy; use [`AccessPolicy::deny_all`] where none could be loaded.
    pub fn new(policy: AccessPolicy, trail: Trail) -> Self {
        Self {
            policy: Arc::new(ArcSwap::from_pointee(policy)),
            trail,
        }
    }

    /// Puts a new policy in place. Requests under way finish with the one they began with.
    pub fn replace_policy(&self, policy: AccessPolicy) {
        self.policy.store(Arc::new(policy));
    }

    /// Refuses somebody who was shut out since they logged in, with its audit line.
    pub fn shut_out(&self, request: &AccessRequest) -> Denial {
        let denied = Denied {
            reason: DenyReason::NoRule,
            rule: None,
        };
        // A denial stays a denial when it cannot be logged; the failure itself is logged by the trail.
        let _unlogged = self
            .trail
            .refuse(request, &denied, Reason::Revoked.name(), &[], &self.policy_digest());
        Denial {
            session: request.session,
            told: Reason::Revoked,
        }
    }

    /// Refuses a look-up that [`Gate::foresees`] no permit for, with its audit line. An endpoint that does not exist looks
    /// like one that is forbidden.
    pub fn refuse_look_up(&self, request: &AccessRequest) -> Denial {
        let policy = self.policy.load();
        let denied = Denied {
            reason: DenyReason::NoRule,
            rule: None,
        };
        let reason = reason_of(&denied, request);
        // A denial stays a denial when it cannot be logged; the failure itself is logged by the trail.
        let _unlogged = self.trail.refuse(request, &denied, reason, &[], &policy.digest());
        Denial {
            session: request.session,
            told: Reason::Denied,
        }
    }

    /// Whether a rule in force reads the time: then an answer can be lost without any change.
    pub fn reads_time(&self) -> bool {
        self.policy.load().reads_time()
    }

    /// Decides a live session again.
    ///
    /// # Errors
    /// What it lost its answer by: the caller shut out, the endpoint gone, the policy saying no, or fewer acts than it
    /// was given, among them one that it holds on to. Limits stay those of the permit.
    pub fn decide_again(&self, given: &Given, present: &Present, now: SystemTime) -> Result<(), Lost> {
        if let (Some(caller), Some(target)) = (&present.caller, &present.target) {
            // Before it is read what the session holds, see `Acts::hold`.
            given.note(caller, target);
        }
        decide_again_by(&self.policy.load(), given, present, now)
    }

    /// Decides the acts inside a session of MQTT.
    pub fn acts(&self, permit: &Permit) -> Acts {
        Acts::new(Arc::clone(permit.given()), Arc::clone(&self.policy), self.trail.clone())
    }

    /// The policy in force.
    pub fn policy(&self) -> Arc<AccessPolicy> {
        self.policy.load_full()
    }

    /// The digest of the policy in force.
    pub fn policy_digest(&self) -> String {
        self.policy.load().digest()
    }

    /// The audit of this gate, for the ends of sessions.
    pub fn trail(&self) -> &Trail {
        &self.trail
    }

    /// Whether a request of this caller for this endpoint would be permitted now, of a protocol that is read whether some
    /// request would be: for lists and look-ups, which carry no bytes. Gives no permit and writes no line.
    pub fn foresees(&self, caller: &Caller, target: &Target, client: SocketAddr, now: SystemTime) -> bool {
        let asked = question(caller.facts(), target, client, now, now);
        matches!(self.policy.load().decide_unspoken(&asked), Decision::Allow(_))
    }

    /// As [`Gate::foresees`], about one act where one is named and the endpoint's acts are enforced, and told apart from
    /// what depends on the client's first message.
    pub fn outlook(
        &self,
        caller: &Caller,
        target: &Target,
        wanted: &Inquiry,
        client: SocketAddr,
        now: SystemTime,
    ) -> Outlook {
        let mut asked = question(caller.facts(), target, client, now, now);
        asked.mqtt.clone_from(&wanted.mqtt);
        let act = wanted.act.as_deref();
        let policy = self.policy.load();
        let told_apart = asked.enforce != Enforcement::Tunnel;
        let has_act = |allowed: &policy::Allowed| !told_apart || act.is_none_or(|act| allowed.acts.contains(act));
        match (policy.decide(&asked), policy.decide_unspoken(&asked)) {
            (Decision::Allow(allowed), _) if has_act(&allowed) => Outlook::Allowed,
            (Decision::Deny(_), Decision::Allow(_)) => Outlook::Depends,
            _ => Outlook::Denied,
        }
    }

    /// Whether it is worth hearing what the client of a protocol that is read says first; [`Gate::decide`] has the last
    /// word then. Gives no permit, and writes a line only where it refuses.
    ///
    /// # Errors
    /// A [`Denial`] when no rule could allow, whatever the client says, or the endpoint does not exist.
    pub fn may_speak(&self, request: &AccessRequest) -> Result<(), Denial> {
        let policy = self.policy.load();
        let verdict = match &request.target {
            Some(target) => {
                let asked = question(request.caller.facts(), target, request.client, request.now, request.now);
                policy.decide_unspoken(&request.spoken.beside(asked))
            }
            None => Decision::Deny(Denied {
                reason: DenyReason::NoRule,
                rule: None,
            }),
        };
        let Decision::Deny(denied) = verdict else {
            return Ok(());
        };
        let reason = reason_of(&denied, request);
        // A denial stays a denial when it cannot be logged; the failure itself is logged by the trail.
        let _unlogged = self.trail.refuse(request, &denied, reason, &[], &policy.digest());
        Err(Denial {
            session: request.session,
            told: Reason::Denied,
        })
    }

    /// Decides, writes the audit line, then answers.
    ///
    /// Unknown and forbidden endpoints take the same path and give the same answer; only the audit tells them apart.
    ///
    /// # Errors
    /// A [`Denial`] when no rule allows, when a rule denies, when the endpoint does not exist, or when the audit line
    /// could not be written (nothing is permitted unlogged).
    pub fn decide(&self, request: &AccessRequest) -> Result<Permit, Denial> {
        let policy = self.policy.load();
        let mut shadow = Vec::new();
        let verdict = match &request.target {
            Some(target) => {
                let asked = question(request.caller.facts(), target, request.client, request.now, request.now);
                let asked = request.spoken.beside(asked);
                let (decision, matched) = policy.decide_with_shadow(&asked);
                shadow = matched;
                match (decision, will_denied(&policy, asked, &request.spoken)) {
                    (Decision::Allow(allowed), None) => Ok((target.clone(), allowed)),
                    (Decision::Deny(denied), _) | (_, Some(denied)) => Err(denied),
                }
            }
            None => Err(Denied {
                reason: DenyReason::NoRule,
                rule: None,
            }),
        };
        match verdict {
            Ok((target, allowed)) => {
                self.trail
                    .permit(request, &target, &allowed, &shadow, &policy.digest())
                    .map_err(|_| Denial {
                        session: request.session,
                        told: Reason::AuditFailed,
                    })?;
                Ok(Permit::new(request, target, allowed))
            }
            Err(denied) => {
                let reason = reason_of(&denied, request);
                // A denial stays a denial when it cannot be logged; the failure itself is logged by the trail.
                let _unlogged = self.trail.refuse(request, &denied, reason, &shadow, &policy.digest());
                Err(Denial {
                    session: request.session,
                    told: Reason::Denied,
                })
            }
        }
    }
}

/// As [`Gate::decide_again`], by a policy that need not be in force.
///
/// # Errors
/// As [`Gate::decide_again`].
pub fn decide_again_by(policy: &AccessPolicy, given: &Given, present: &Present, now: SystemTime) -> Result<(), Lost> {
    let lost = |reason, why, rule| {
        let policy = policy.digest();
        Err(Lost {
            reason,
            why,
            rule,
            policy,
        })
    };
    let Some(caller) = &present.caller else {
        return lost(Reason::Revoked, "shut-out", None);
    };
    let Some(target) = &present.target else {
        return lost(Reason::PolicyChanged, "unknown-endpoint", None);
    };
    let asked = given
        .spoken
        .beside(question(caller.facts(), target, given.client, given.started, now));
    match policy.decide(&asked) {
        Decision::Allow(allowed) if allowed.acts.is_superset(&given.acts) => {}
        Decision::Allow(allowed) => return lost(Reason::PolicyChanged, "fewer-acts", Some(allowed.rule)),
        Decision::Deny(denied) => return lost(Reason::PolicyChanged, denied.reason.as_str(), denied.rule),
    }
    let held = given
        .held()
        .into_iter()
        .map(|act| policy.decide(&about(asked.clone(), act)));
    match held.into_iter().find_map(denial) {
        Some(denied) => lost(Reason::PolicyChanged, denied.reason.as_str(), denied.rule),
        None => Ok(()),
    }
}

/// Decides one act of a live session of MQTT.
pub(super) fn decide_act(
    policy: &AccessPolicy,
    given: &Given,
    standing: &Standing,
    act: &MqttAct,
    now: SystemTime,
) -> Decision {
    let Standing { caller, target } = standing;
    let asked = question(caller.facts(), target, given.client, given.started, now);
    policy.decide(&about(given.spoken.beside(asked), act.clone()))
}

/// Why an MQTT client may not leave the will that it has, if it may not.
fn will_denied(policy: &AccessPolicy, asked: policy::Request, spoken: &Spoken) -> Option<Denied> {
    let will = spoken.will.clone()?;
    denial(policy.decide(&about(asked, will)))
}

fn denial(decision: Decision) -> Option<Denied> {
    match decision {
        Decision::Allow(_) => None,
        Decision::Deny(denied) => Some(denied),
    }
}

/// The question about one act.
fn about(mut asked: policy::Request, act: MqttAct) -> policy::Request {
    if let Some(said) = &mut asked.mqtt {
        said.act = Some(act);
    }
    asked
}

/// The detailed reason for the audit; the caller hears `denied`.
fn reason_of(denied: &Denied, request: &AccessRequest) -> &'static str {
    if request.target.is_none() {
        return "unknown-endpoint";
    }
    denied.reason.as_str()
}

/// The question that a policy decides, for every way of asking it.
pub fn question(
    caller: policy::Caller,
    target: &Target,
    client: SocketAddr,
    started: SystemTime,
    now: SystemTime,
) -> policy::Request {
    policy::Request {
        caller,
        agent: policy::AgentFacts {
            name: target.agent.to_string(),
            site: target.site.to_string(),
            labels: target.labels.clone(),
        },
        endpoint: target.endpoint.clone(),
        conn: policy::Conn {
            client_ip: client.ip(),
            client_port: client.port(),
            started,
            tls: None,
        },
        now,
        enforce: match target.endpoint.protocol {
            _ if target.builtin => Enforcement::Acts(BUILTIN_SSH_ACTS),
            // Whatever the way in, its face reads every packet.
            Protocol::Mqtt => Enforcement::Acts(Enforcement::acts_of(Protocol::Mqtt)),
            _ => Enforcement::Tunnel,
        },
        ssh: None,
        postgres: None,
        mqtt: None,
    }
}
