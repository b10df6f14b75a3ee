//! What is asked of the customer's file, in this room's types: an `Open`, and what the caller's own bytes say.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use fairlead_identity::name::{EndpointUrl, Protocol};
use fairlead_policy::{self as policy, Enforcement, MqttAct, MqttFacts};
use fairlead_protocol::mqtt::guard::Hello;
use fairlead_protocol::postgres::{CancelKey, Startup};
use fairlead_wire::id::SessionId;
use fairlead_wire::open::Open;
use fairlead_wire::refusal::Reason;

use super::refusal::Refusal;

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
    /// When it was asked, by the agent's clock.
    pub at: SystemTime,
    /// Only what the file says is asked for, at this moment; nothing is to be opened.
    pub question: Option<SystemTime>,
    /// What the live session of this id does is to be cancelled, by this key; nothing is to be opened.
    pub cancel: Option<CancelKey>,
    /// What a Postgres client asks for, read by the agent itself from the client's own bytes.
    pub postgres: Option<Startup>,
    /// The same of an MQTT client.
    pub mqtt: Option<MqttSaid>,
    /// What a question supposes that an MQTT client says; never in a session.
    pub supposed: Option<MqttFacts>,
}

/// An MQTT client's CONNECT.
#[derive(Clone)]
pub struct MqttSaid {
    /// What it says of the client.
    pub hello: Hello,
    /// The packet as it goes on.
    pub packet: Bytes,
}

impl std::fmt::Debug for MqttSaid {
    /// Without the packet: a password may be in it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MqttSaid")
            .field("hello", &self.hello)
            .finish_non_exhaustive()
    }
}

impl Asked {
    /// Reads an `Open` that came `at` this time.
    ///
    /// # Errors
    /// A refusal as malformed when a field is out of bounds or no name.
    pub fn read(open: &Open, at: SystemTime) -> Result<Self, Refusal> {
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
            at,
            question: open.is_question().then(|| asked_about(open.started_unix_ms)),
            cancel: open.cancel.as_ref().map(|key| CancelKey {
                process: key.process,
                secret: key.secret.clone(),
            }),
            postgres: None,
            mqtt: None,
            supposed: supposed(open)?,
        })
    }
}

/// What a question about MQTT supposes, as rules read it.
fn supposed(open: &Open) -> Result<Option<MqttFacts>, Refusal> {
    let Some(supposed) = &open.mqtt else { return Ok(None) };
    let no_act = || Refusal::new(Reason::Malformed, "a topic is beside no act of MQTT");
    let act = supposed.about.as_ref().map(|about| {
        let known = Enforcement::acts_of(Protocol::Mqtt);
        let action = known.iter().find(|known| open.acts.iter().any(|act| act == *known));
        Ok(MqttAct {
            action: action.ok_or_else(no_act)?,
            topic: about.topic.clone(),
            qos: u8::try_from(about.qos).unwrap_or(u8::MAX),
            retain: about.retain,
        })
    });
    Ok(Some(MqttFacts {
        client_id: supposed.client_id.clone(),
        username: supposed.username.clone(),
        act: act.transpose()?,
    }))
}

fn asked_about(unix_ms: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH
        .checked_add(Duration::from_millis(unix_ms))
        .unwrap_or(SystemTime::UNIX_EPOCH)
}

impl Asked {
    /// The act that a question is about, where it is about one.
    pub(super) fn one_act(&self) -> Option<Enforcement> {
        let act = self.acts.first()?;
        let is_about_one = self.question.is_some() && self.acts.len() == 1;
        is_about_one.then(|| Enforcement::one(self.endpoint.protocol, act))?
    }

    /// The user that the caller's own bytes ask for, where the agent has read them, or a question supposes.
    pub fn requested_user(&self) -> Option<&str> {
        let of_mqtt = || Some(self.mqtt.as_ref()?.hello.username.as_deref().unwrap_or_default());
        let supposed = || Some(self.supposed.as_ref()?.username.as_str());
        self.postgres
            .as_ref()
            .map(Startup::user)
            .or_else(of_mqtt)
            .or_else(supposed)
    }
}
