//! The two outcomes of a decision.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::SystemTime;

use fairlead_identity::name::EndpointUrl;
use fairlead_policy::{Limits, RuleRef};
use fairlead_runtime::stop::Lapse;
use fairlead_wire::id::SessionId;
use fairlead_wire::refusal::Reason;

use super::caller::Caller;
use super::gate::{AccessRequest, Target};

/// Leave to open one session. Exists only as the product of [`super::Gate::decide`]; cannot be cloned.
///
/// INVARIANT: an audit line `session.permit` with this session id was written before the value existed.
#[derive(Debug)]
pub struct Permit {
    session: SessionId,
    caller: Arc<Caller>,
    target: Target,
    client: std::net::SocketAddr,
    started: SystemTime,
    acts: BTreeSet<String>,
    rule: RuleRef,
    limits: Limits,
    lapse: Lapse<Reason>,
}

impl Permit {
    pub(super) fn new(request: &AccessRequest, target: Target, allowed: fairlead_policy::Allowed) -> Self {
        Self {
            session: request.session,
            caller: Arc::clone(&request.caller),
            target,
            client: request.client,
            started: request.now,
            acts: allowed.acts,
            rule: allowed.rule,
            limits: allowed.limits,
            lapse: Lapse::new(),
        }
    }

    /// The session this permit is for; the same id at both ends.
    pub fn session(&self) -> SessionId {
        self.session
    }

    /// Who may use it.
    pub fn caller(&self) -> &Arc<Caller> {
        &self.caller
    }

    /// The endpoint and the agent that owns it.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// The endpoint's canonical URL.
    pub fn endpoint(&self) -> &EndpointUrl {
        &self.target.endpoint
    }

    /// The address the caller came from.
    pub fn client(&self) -> std::net::SocketAddr {
        self.client
    }

    /// When the caller asked.
    pub fn started(&self) -> SystemTime {
        self.started
    }

    /// The acts that the agent may let happen (`builtin:ssh`); empty for a tunnel, whose acts nobody here can see.
    pub fn acts(&self) -> &BTreeSet<String> {
        &self.acts
    }

    /// The rule that allowed it.
    pub fn rule(&self) -> &RuleRef {
        &self.rule
    }

    /// How long, how idle and how many at a time.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Ends everything done under this permit, with the reason the caller is told. The first reason wins.
    pub fn lapse(&self) -> &Lapse<Reason> {
        &self.lapse
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
