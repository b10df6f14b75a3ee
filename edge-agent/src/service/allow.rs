//! The customer's list: what is not in it cannot be opened, whatever the gateway says.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::SystemTime;

use fairlead_identity::name::{EndpointUrl, Label};
use fairlead_policy::{self as policy, Decision, Enforcement, RuleRef, SshFacts};
use fairlead_wire::id::SessionId;
use fairlead_wire::open::Open;
use fairlead_wire::refusal::Reason;

use crate::config::{Endpoint, Upstream};

/// Acts that the agent's own SSH server enforces.
const BUILTIN_SSH_ACTS: &[&str] = &["shell", "exec", "sftp"];

/// The endpoints of the agent's file.
#[derive(Debug, Default)]
pub struct AllowList {
    endpoints: BTreeMap<EndpointUrl, Endpoint>,
    /// The agent's own name and site, as its certificate says.
    own: Option<(Label, Label)>,
}

/// What the gateway asks for, in this room's types.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The session's id, the same at both ends.
    pub session: SessionId,
    /// The endpoint.
    pub endpoint: EndpointUrl,
    /// The caller as the gateway names them.
    pub caller: policy::Caller,
    /// Keys registered for the caller, OpenSSH lines.
    pub ssh_keys: Vec<String>,
    /// Where the caller comes from.
    pub client_ip: IpAddr,
    /// The port there.
    pub client_port: u16,
    /// Acts the gateway permits (`builtin:ssh`).
    pub acts: BTreeSet<String>,
}

/// A no of the customer's file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The numbered reason, told to the gateway.
    pub reason: Reason,
    /// Detail for both audits; names no upstream.
    pub detail: String,
    /// The rule that decided, if one did.
    pub rule: Option<RuleRef>,
}

impl Refusal {
    fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self {
            reason,
            detail: detail.into(),
            rule: None,
        }
    }
}

impl Asked {
    /// Reads an `Open`.
    ///
    /// # Errors
    /// A refusal as malformed when a field is out of bounds or no name.
    pub fn read(open: &Open) -> Result<Self, Refusal> {
        let malformed = |what: &dyn std::fmt::Display| Refusal::new(Reason::Malformed, what.to_string());
        open.check().map_err(|error| malformed(&error))?;
        fairlead_wire::version::check_required(&open.requires)
            .map_err(|error| Refusal::new(Reason::Unsupported, error.to_string()))?;
        let caller = open.caller().map_err(|error| malformed(&error))?;
        let kind = policy::CallerKind::from_name(&caller.kind)
            .ok_or_else(|| Refusal::new(Reason::Malformed, "unknown kind of caller"))?;
        Ok(Self {
            session: open.session_id().map_err(|error| malformed(&error))?,
            endpoint: open
                .endpoint_url
                .parse()
                .map_err(|error: fairlead_identity::name::NameError| malformed(&error))?,
            caller: policy::Caller {
                name: caller.name.clone(),
                kind,
                groups: caller.groups.clone(),
                labels: caller.labels.clone(),
                site: (!caller.site.is_empty()).then(|| caller.site.clone()),
            },
            ssh_keys: caller.ssh_keys.clone(),
            client_ip: open.client_ip().map_err(|error| malformed(&error))?,
            client_port: open.client_port().map_err(|error| malformed(&error))?,
            acts: open.acts.iter().cloned().collect(),
        })
    }
}

impl AllowList {
    /// The list of a checked file, for the agent of this name and site.
    pub fn new(endpoints: Vec<Endpoint>, own: (Label, Label)) -> Self {
        Self {
            endpoints: endpoints
                .into_iter()
                .map(|endpoint| (endpoint.url.clone(), endpoint))
                .collect(),
            own: Some(own),
        }
    }

    /// The endpoint, if the file lists it and its rules, where it has any, let this caller in.
    ///
    /// # Errors
    /// `not-listed`, or `rule` with the rule that said no.
    pub fn admit(&self, asked: &Asked, now: SystemTime) -> Result<(&Endpoint, Option<RuleRef>), Refusal> {
        let endpoint = self
            .endpoints
            .get(&asked.endpoint)
            .ok_or_else(|| Refusal::new(Reason::NotListed, "the agent's file does not list this endpoint"))?;
        let Some(rules) = &endpoint.rules else {
            return Ok((endpoint, None));
        };
        let decision = match endpoint.upstream {
            // What a caller does there is asked about act by act.
            Upstream::BuiltinSsh => {
                rules.decide_opening(&self.question(asked, now, Enforcement::Acts(BUILTIN_SSH_ACTS), None))
            }
            Upstream::Tcp(_) => rules.decide(&self.question(asked, now, Enforcement::Tunnel, None)),
        };
        match decision {
            Decision::Allow(allowed) => Ok((endpoint, Some(allowed.rule))),
            Decision::Deny(denied) => Err(Refusal {
                reason: Reason::Rule,
                detail: format!("the agent's own rules: {}", denied.reason),
                rule: denied.rule,
            }),
        }
    }

    /// Whether the endpoint's rules, where it has any, let this act happen.
    ///
    /// # Errors
    /// `rule` with the rule that said no.
    pub fn admit_act(&self, asked: &Asked, act: SshFacts, now: SystemTime) -> Result<Option<RuleRef>, Refusal> {
        let endpoint = self
            .endpoints
            .get(&asked.endpoint)
            .ok_or_else(|| Refusal::new(Reason::NotListed, "the agent's file does not list this endpoint"))?;
        let Some(rules) = &endpoint.rules else { return Ok(None) };
        match rules.decide(&self.question(asked, now, Enforcement::Acts(BUILTIN_SSH_ACTS), Some(act))) {
            Decision::Allow(allowed) => Ok(Some(allowed.rule)),
            Decision::Deny(denied) => Err(Refusal {
                reason: Reason::Rule,
                detail: format!("the agent's own rules: {}", denied.reason),
                rule: denied.rule,
            }),
        }
    }

    fn question(&self, asked: &Asked, now: SystemTime, enforce: Enforcement, ssh: Option<SshFacts>) -> policy::Request {
        let (name, site) = self
            .own
            .as_ref()
            .map(|(name, site)| (name.to_string(), site.to_string()))
            .unwrap_or_default();
        policy::Request {
            caller: asked.caller.clone(),
            // The gateway's labels of this agent are not the customer's facts and are not sent.
            agent: policy::AgentFacts {
                name,
                site,
                labels: BTreeMap::new(),
            },
            endpoint: asked.endpoint.clone(),
            conn: policy::Conn {
                client_ip: asked.client_ip,
                client_port: asked.client_port,
                started: now,
            },
            now,
            enforce,
            ssh,
        }
    }
}
