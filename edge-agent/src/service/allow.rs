//! The customer's list: what is not in it cannot be opened, whatever the gateway says.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::SystemTime;

use fairlead_identity::name::{EndpointUrl, Label, Protocol};
use fairlead_policy::{
    self as policy, Decision, Enforcement, Explanation, Limits, LocalRules, MqttAct, MqttFacts, PostgresFacts, RuleRef,
    SshFacts,
};
use fairlead_protocol::mqtt::guard::Act;
use fairlead_wire::open as wire;
use fairlead_wire::refusal::Reason;

use super::asked::Asked;
use super::refusal::Refusal;
use crate::config::{Credential, Endpoint, Upstream};

/// Characters of the file's name that a gateway is told; of four bytes at most.
const MAX_FILE_CHARS: usize = 128;
/// Acts that the agent's own SSH server enforces.
const BUILTIN_SSH_ACTS: &[&str] = &["shell", "exec", "sftp"];
/// Acts that the agent tells apart where it reads MQTT.
const MQTT_ACTS: Enforcement = Enforcement::Acts(&["publish", "subscribe"]);

/// The endpoints of the agent's file.
#[derive(Debug, Default)]
pub struct AllowList {
    endpoints: BTreeMap<EndpointUrl, Endpoint>,
    /// The agent's own name and site, as its certificate says; without them a question is about an agent of the endpoint's
    /// own name.
    own: Option<(Label, Label)>,
    digest: String,
}

/// A yes of the customer's file.
#[derive(Clone, Debug)]
pub struct Admission {
    /// What the file puts behind the endpoint.
    pub upstream: Upstream,
    /// The rule that allowed it; `None` where the endpoint has no rules.
    pub rule: Option<RuleRef>,
    /// Bounds that the rule gives.
    pub limits: Limits,
    /// Whom the agent logs in as for this caller; `None` where callers log in themselves.
    pub credential: Option<Credential>,
    /// Where the caller's statements are written.
    pub statement_log: Option<PathBuf>,
}

/// An answer with its reasons.
#[derive(Clone, Debug)]
pub struct Explained {
    /// The answer.
    pub verdict: Result<Admission, Refusal>,
    /// What the endpoint's rules said.
    pub why: Option<Explanation>,
}

/// Where the file logs in for callers, it does so for the users that it lists and for no others.
fn credential_for(endpoint: &Endpoint, asked: &Asked) -> Result<Option<Credential>, Refusal> {
    // A question about MQTT may name no user: what its client would say is not known then.
    let is_mere_question = endpoint.url.protocol == Protocol::Mqtt && asked.requested_user().is_none();
    if endpoint.credentials.is_empty() || is_mere_question {
        return Ok(None);
    }
    let text = "the agent's file has no credentials for this user";
    let Some(wanted) = asked.requested_user() else {
        // Sessions are never asked about without; a person may be.
        let detail = "callers are logged in by user: say which user is asked for";
        return Err(Refusal::new(Reason::Rule, text).but_here("no-credentials", detail));
    };
    let listed = match (wanted, endpoint.credentials.as_slice()) {
        // Clients of MQTT may leave the user out; then there must be no choice.
        ("", [only]) if endpoint.url.protocol == Protocol::Mqtt => Some(only),
        (wanted, all) => all.iter().find(|listed| listed.requested == wanted),
    };
    listed
        .cloned()
        .map(Some)
        .ok_or_else(|| Refusal::new(Reason::Rule, text).but_here("no-credentials", format!("{text}: {wanted}")))
}

impl AllowList {
    /// The list of a checked file with this digest, for the agent of this name and site.
    pub fn new(endpoints: Vec<Endpoint>, own: Option<(Label, Label)>, digest: &str) -> Self {
        Self {
            endpoints: endpoints
                .into_iter()
                .map(|endpoint| (endpoint.url.clone(), endpoint))
                .collect(),
            own,
            digest: digest.to_owned(),
        }
    }

    /// SHA-256 of the file, hex.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The endpoints, by URL.
    pub fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        self.endpoints.values()
    }

    /// Whether an answer can change by the passing of time alone.
    pub fn reads_time(&self) -> bool {
        self.endpoints()
            .any(|endpoint| endpoint.rules.as_ref().is_some_and(LocalRules::reads_time))
    }

    /// What the file says of this caller and endpoint: yes, if it lists the endpoint and its rules, where it has any, let
    /// the caller in.
    ///
    /// # Errors
    /// `not-listed`, or `rule` with the rule that said no.
    pub fn admit(&self, asked: &Asked, now: SystemTime) -> Result<Admission, Refusal> {
        let endpoint = self.listed(asked)?;
        let admission = |rule, limits, credential| Admission {
            upstream: endpoint.upstream.clone(),
            rule,
            limits,
            credential,
            statement_log: endpoint.statement_log.clone(),
        };
        let Some(rules) = &endpoint.rules else {
            return Ok(admission(None, Limits::default(), None));
        };
        match self.begins(asked, endpoint, rules, now) {
            Decision::Allow(allowed) => {
                let credential = credential_for(endpoint, asked)?;
                Ok(admission(Some(allowed.rule), allowed.limits, credential))
            }
            Decision::Deny(denied) => Err(Refusal::by_rule(denied)),
        }
    }

    /// What the rules say of the beginning of a session.
    fn begins(&self, asked: &Asked, endpoint: &Endpoint, rules: &LocalRules, now: SystemTime) -> Decision {
        match endpoint.upstream {
            // What a caller does there is asked about act by act. A question may be about one of them.
            Upstream::BuiltinSsh => {
                let acts = asked.one_act().unwrap_or(Enforcement::Acts(BUILTIN_SSH_ACTS));
                rules.decide_opening(&self.question(asked, now, acts, None))
            }
            Upstream::Tcp(_) if endpoint.url.protocol == Protocol::Mqtt => self.begins_mqtt(asked, rules, now),
            Upstream::Tcp(_) => rules.decide(&self.question(asked, now, Enforcement::Tunnel, None)),
        }
    }

    /// Of MQTT the agent reads every packet where there are rules: what is not known yet is asked about then. A will is an
    /// act of the beginning.
    fn begins_mqtt(&self, asked: &Asked, rules: &LocalRules, now: SystemTime) -> Decision {
        let acts = asked.one_act().unwrap_or(MQTT_ACTS);
        let question = self.question(asked, now, acts, None);
        if asked.supposed.as_ref().is_some_and(|supposed| supposed.act.is_some()) {
            return rules.decide(&question);
        }
        let begins = rules.decide_opening(&question);
        let will = asked.mqtt.as_ref().and_then(|said| said.hello.will());
        match will.filter(|_| begins.is_allowed()) {
            None => begins,
            Some(will) => match rules.decide(&about(question, packet(will))) {
                Decision::Allow(_) => begins,
                denied @ Decision::Deny(_) => denied,
            },
        }
    }

    /// Whether the endpoint's rules, where it has any, let this act of MQTT happen.
    ///
    /// # Errors
    /// `not-listed`, or `rule` with the rule that said no.
    pub fn admit_packet(&self, asked: &Asked, act: &MqttAct, now: SystemTime) -> Result<(), Refusal> {
        let Some(rules) = &self.listed(asked)?.rules else {
            return Ok(());
        };
        match rules.decide(&about(self.question(asked, now, MQTT_ACTS, None), act.clone())) {
            Decision::Allow(_) => Ok(()),
            Decision::Deny(denied) => Err(Refusal::by_rule(denied)),
        }
    }

    /// The answer to a gateway's question: the verdict with its rule, and nothing of what a rule says or what is dialled.
    pub fn answer(&self, asked: &Asked, now: SystemTime) -> wire::Explained {
        let told = |allowed, reason: &str, rule: Option<RuleRef>| {
            let rule = rule.unwrap_or(RuleRef {
                name: String::new(),
                file: String::new(),
                line: 0,
            });
            wire::Explained {
                allowed,
                reason: reason.to_owned(),
                rule: rule.name,
                file: rule.file.chars().take(MAX_FILE_CHARS).collect(),
                line: rule.line,
            }
        };
        let Ok(endpoint) = self.listed(asked) else {
            return told(false, Reason::NotListed.name(), None);
        };
        let Some(rules) = &endpoint.rules else {
            return told(true, "", None);
        };
        match self.begins(asked, endpoint, rules, now) {
            Decision::Allow(allowed) => told(true, "", Some(allowed.rule)),
            Decision::Deny(denied) => told(false, denied.reason.as_str(), denied.rule),
        }
    }

    /// Whether the endpoint's rules, where it has any, let this act happen.
    ///
    /// # Errors
    /// `not-listed`, or `rule` with the rule that said no.
    pub fn admit_act(&self, asked: &Asked, act: SshFacts, now: SystemTime) -> Result<Option<RuleRef>, Refusal> {
        let Some(rules) = &self.listed(asked)?.rules else {
            return Ok(None);
        };
        match rules.decide(&self.question(asked, now, Enforcement::Acts(BUILTIN_SSH_ACTS), Some(act))) {
            Decision::Allow(allowed) => Ok(Some(allowed.rule)),
            Decision::Deny(denied) => Err(Refusal::by_rule(denied)),
        }
    }

    /// The same answer as [`Self::admit`] and, for an act, [`Self::admit_act`], with what the rules said and saw; nothing
    /// of the latter where no rule was asked.
    pub fn explain(&self, asked: &Asked, act: Option<SshFacts>, now: SystemTime) -> Explained {
        let admitted = self.admit(asked, now);
        let endpoint = self.endpoints.get(&asked.endpoint);
        let verdict = match (&act, admitted) {
            (Some(act), Ok(admission)) => {
                let decided = self.admit_act(asked, act.clone(), now);
                decided.map(|rule| Admission { rule, ..admission })
            }
            (_, admitted) => admitted,
        };
        let why = endpoint.and_then(|endpoint| {
            let enforce = match endpoint.upstream {
                Upstream::BuiltinSsh => Enforcement::Acts(BUILTIN_SSH_ACTS),
                Upstream::Tcp(_) if asked.endpoint.protocol == Protocol::Mqtt => MQTT_ACTS,
                Upstream::Tcp(_) => Enforcement::Tunnel,
            };
            let rules = endpoint.rules.as_ref()?;
            Some(rules.explain(&self.question(asked, now, enforce, act)))
        });
        Explained { verdict, why }
    }

    /// Whether what a Postgres client says first is to be read: the endpoint's rules may ask about it, or its statements are
    /// written down.
    pub fn reads_startup(&self, asked: &Asked) -> bool {
        let listed = self.endpoints.get(&asked.endpoint);
        asked.endpoint.protocol == Protocol::Postgres
            && listed.is_some_and(|endpoint| endpoint.rules.is_some() || endpoint.statement_log.is_some())
    }

    /// Whether an MQTT client's packets are to be read: the endpoint's rules may ask about them. Without rules the gateway
    /// alone reads.
    pub fn reads_packets(&self, asked: &Asked) -> bool {
        let listed = self.endpoints.get(&asked.endpoint);
        asked.endpoint.protocol == Protocol::Mqtt && listed.is_some_and(|endpoint| endpoint.rules.is_some())
    }

    fn listed(&self, asked: &Asked) -> Result<&Endpoint, Refusal> {
        let endpoint = self.endpoints.get(&asked.endpoint);
        endpoint.ok_or_else(|| Refusal::new(Reason::NotListed, "the agent's file does not list this endpoint"))
    }

    fn question(&self, asked: &Asked, now: SystemTime, enforce: Enforcement, ssh: Option<SshFacts>) -> policy::Request {
        let url = &asked.endpoint;
        let (name, site) = match &self.own {
            Some((name, site)) => (name, site),
            None => (&url.host, &url.site),
        };
        policy::Request {
            caller: asked.caller.clone(),
            // The gateway's labels of this agent are not the customer's facts and are not sent.
            agent: policy::AgentFacts {
                name: name.to_string(),
                site: site.to_string(),
                labels: BTreeMap::new(),
            },
            endpoint: asked.endpoint.clone(),
            conn: policy::Conn {
                client_ip: asked.client_ip,
                client_port: asked.client_port,
                started: asked.at,
                tls: None,
            },
            now,
            enforce,
            ssh,
            postgres: asked.postgres.as_ref().map(|startup| PostgresFacts {
                user: startup.user().to_owned(),
                database: startup.database().to_owned(),
                application_name: startup.parameter("application_name").to_owned(),
            }),
            mqtt: asked
                .mqtt
                .as_ref()
                .map(|said| MqttFacts {
                    client_id: said.hello.client_id.clone(),
                    username: said.hello.username.clone().unwrap_or_default(),
                    act: None,
                })
                .or_else(|| asked.supposed.clone()),
        }
    }
}

/// The question about one act.
fn about(mut question: policy::Request, act: MqttAct) -> policy::Request {
    if let Some(said) = &mut question.mqtt {
        said.act = Some(act);
    }
    question
}

/// An act in the words of rules.
pub fn packet(act: Act<'_>) -> MqttAct {
    match act {
        Act::Publish { topic, qos, retain } => MqttAct {
            action: "publish",
            topic: topic.to_owned(),
            qos: qos.number(),
            retain,
        },
        Act::Subscribe { filter, qos } => MqttAct {
            action: "subscribe",
            topic: filter.to_owned(),
            qos: qos.number(),
            retain: false,
        },
    }
}
