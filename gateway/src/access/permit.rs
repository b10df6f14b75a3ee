//! The two outcomes of a decision.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use fairlead_identity::name::EndpointUrl;
use fairlead_policy::{Limits, MqttAct, RuleRef};
use fairlead_runtime::stop::Lapse;
use fairlead_wire::id::SessionId;
use fairlead_wire::refusal::Reason;

use super::caller::Caller;
use super::gate::{AccessRequest, Spoken, Target};

/// Leave to open one session. Exists only as the product of [`super::Gate::decide`]; cannot be cloned.
///
/// INVARIANT: an audit line `session.permit` with this session id was written before the value existed.
#[derive(Debug)]
pub struct Permit {
    given: Arc<Given>,
    limits: Limits,
    as_of: u64,
}

/// What a permit was given for and on: enough to ask again. Holding it is no leave to open anything.
#[derive(Debug)]
pub struct Given {
    /// The session the permit is for; the same id at both ends.
    pub session: SessionId,
    /// Who may use it, as they stood when it was given.
    pub caller: Arc<Caller>,
    /// The endpoint and the agent that owns it, as they stood.
    pub target: Target,
    /// The address the caller came from.
    pub client: std::net::SocketAddr,
    /// When the caller asked.
    pub started: SystemTime,
    /// The acts that were given.
    pub acts: BTreeSet<String>,
    /// The rule that allowed it.
    pub rule: RuleRef,
    /// What the caller's protocol had said first.
    pub spoken: Spoken,
    /// Ends everything done under the permit, with the reason the caller is told. The first reason wins.
    pub lapse: Lapse<Reason>,
    lost: OnceLock<Lost>,
    standing: ArcSwap<Standing>,
    held: Mutex<BTreeSet<MqttAct>>,
}

/// Caller and endpoint as the store knew them when the session was last decided.
#[derive(Debug)]
pub(super) struct Standing {
    pub(super) caller: Arc<Caller>,
    pub(super) target: Target,
}

/// Why a live session lost its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// For the caller and both audits: `revoked` when the caller is shut out, else `policy-changed`.
    pub reason: Reason,
    /// What the gate would say to somebody who asks now, as in `session.refuse`.
    pub why: &'static str,
    /// The rule behind it, where there is one.
    pub rule: Option<RuleRef>,
    /// The digest of the policy that decided.
    pub policy: String,
}

impl Given {
    /// Cuts the session for a decision. The first cut stands, with what was decided then.
    pub fn cut(&self, lost: Lost) {
        let reason = lost.reason;
        // Before the lapse: whoever it wakes reads this.
        let _earlier_stands = self.lost.set(lost);
        self.lapse.cancel(reason);
    }

    pub(super) fn standing(&self) -> Arc<Standing> {
        self.standing.load_full()
    }

    /// Notes how caller and endpoint stand now, for the acts that are still to come.
    pub(super) fn note(&self, caller: &Arc<Caller>, target: &Target) {
        self.standing.store(Arc::new(Standing {
            caller: Arc::clone(caller),
            target: target.clone(),
        }));
    }

    /// Notes the acts that the session holds on to, its will aside.
    pub(super) fn hold(&self, acts: BTreeSet<MqttAct>) {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = acts;
    }

    /// The acts that the session holds on to, its will among them.
    pub(super) fn held(&self) -> Vec<MqttAct> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.iter().chain(&self.spoken.will).cloned().collect()
    }

    /// The decision that cut it, if one did.
    pub fn lost(&self) -> Option<&Lost> {
        self.lost.get().filter(|lost| self.lapse.reason() == Some(lost.reason))
    }
}

impl Permit {
    pub(super) fn new(request: &AccessRequest, target: Target, allowed: fairlead_policy::Allowed) -> Self {
        let standing = ArcSwap::from_pointee(Standing {
            caller: Arc::clone(&request.caller),
            target: target.clone(),
        });
        let given = Given {
            session: request.session,
            caller: Arc::clone(&request.caller),
            target,
            client: request.client,
            started: request.now,
            acts: allowed.acts,
            rule: allowed.rule,
            spoken: request.spoken.clone(),
            lapse: Lapse::new(),
            lost: OnceLock::new(),
            standing,
            held: Mutex::default(),
        };
        Self {
            given: Arc::new(given),
            limits: allowed.limits,
            as_of: request.as_of,
        }
    }

    /// What it was given for, to ask again.
    pub fn given(&self) -> &Arc<Given> {
        &self.given
    }

    /// The count of changes at which the facts of the decision were read, see [`AccessRequest::as_of`].
    pub fn as_of(&self) -> u64 {
        self.as_of
    }

    /// The session this permit is for; the same id at both ends.
    pub fn session(&self) -> SessionId {
        self.given.session
    }

    /// Who may use it.
    pub fn caller(&self) -> &Arc<Caller> {
        &self.given.caller
    }

    /// The endpoint and the agent that owns it.
    pub fn target(&self) -> &Target {
        &self.given.target
    }

    /// The endpoint's canonical URL.
    pub fn endpoint(&self) -> &EndpointUrl {
        &self.given.target.endpoint
    }

    /// The address the caller came from.
    pub fn client(&self) -> std::net::SocketAddr {
        self.given.client
    }

    /// When the caller asked.
    pub fn started(&self) -> SystemTime {
        self.given.started
    }

    /// The acts that the agent may let happen (`builtin:ssh`); empty for a tunnel, whose acts nobody here can see.
    pub fn acts(&self) -> &BTreeSet<String> {
        &self.given.acts
    }

    /// The rule that allowed it.
    pub fn rule(&self) -> &RuleRef {
        &self.given.rule
    }

    /// How long, how idle and how many at a time.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Ends everything done under this permit, with the reason the caller is told. The first reason wins.
    pub fn lapse(&self) -> &Lapse<Reason> {
        &self.given.lapse
    }
}

/// A refusal with the words for each side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Denial {
    /// The session id under which the audit has the detail.
    pub session: SessionId,
    /// What the caller may be told.
    pub told: Reason,
}

impl std::fmt::Display for Denial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "fairlead: {} (session {})", self.told, self.session)
    }
}
