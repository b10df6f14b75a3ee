//! A request as the values expressions read.
//!
//! Built once per decision and borrowed by every evaluation. What is not known is absent here; reading it is an evaluation
//! error, which an allow rule turns into "does not match" and a deny rule into "denies". CEL's own `&&` and `||` absorb the
//! error where the unknown value could not change the result.

use crate::expression::{Constant, Engine};
use crate::guard::{Fact, Owner};
use crate::request::{MAX_COMMAND_BYTES, MAX_FACT_BYTES, MAX_LIST_ITEMS, MAX_TOPIC_BYTES, MqttFacts, Request};
use cel_interpreter::ExecutionError;
use cel_interpreter::common::traits::{Container, Indexer, Iterable, Iterator as Cursor, Sizer};
use cel_interpreter::common::types::{CelBool, CelInt, CelList, CelString, MAP_TYPE, Type};
use cel_interpreter::common::value::{CowVal, Val};
use cel_interpreter::context::VariableResolver;
use fairlead_identity::name::Protocol;
use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

/// The facts of one request.
pub(crate) struct Facts<'r> {
    caller_name: CelString<'r>,
    caller_kind: CelString<'r>,
    caller_groups: CelList<'r>,
    group_names: &'r [String],
    caller_labels: Labels<'r>,
    caller_site: CelString<'r>,
    agent_name: CelString<'r>,
    agent_site: CelString<'r>,
    agent_labels: Labels<'r>,
    endpoint_url: CelString<'r>,
    endpoint_host: CelString<'r>,
    endpoint_port: CelInt,
    /// As guards compare it.
    port_text: String,
    endpoint_protocol: CelString<'r>,
    client_ip: CelString<'r>,
    client_port: CelInt,
    tls: Option<[CelString<'r>; 2]>,
    started: Option<Box<dyn Val>>,
    now: Option<Box<dyn Val>>,
    ssh_user: Option<CelString<'r>>,
    ssh_command: Option<CelString<'r>>,
    postgres: Option<[CelString<'r>; 3]>,
    mqtt: Option<Mqtt<'r>>,
    protocol: Protocol,
}

/// What an MQTT client has said.
struct Mqtt<'r> {
    client_id: CelString<'r>,
    username: CelString<'r>,
    act: Option<(CelString<'r>, CelInt, CelBool)>,
}

impl<'r> Facts<'r> {
    /// `None` when the request is beyond the bounds that expressions are evaluated within.
    pub(crate) fn of(request: &'r Request, engine: &Engine) -> Option<Self> {
        let Request {
            caller,
            agent,
            endpoint,
            conn,
            ssh,
            postgres,
            mqtt,
            ..
        } = request;
        if !within_bounds(request) {
            return None;
        }
        let groups = caller
            .groups
            .iter()
            .map(|g| Box::new(CelString::from(g.as_str())) as Box<dyn Val + 'r>);
        Some(Self {
            caller_name: caller.name.as_str().into(),
            caller_kind: caller.kind.as_str().into(),
            caller_groups: CelList::from(groups.collect::<Vec<_>>()),
            group_names: &caller.groups,
            caller_labels: Labels::of(&caller.labels),
            caller_site: caller.site.as_deref().unwrap_or("").into(),
            agent_name: agent.name.as_str().into(),
            agent_site: agent.site.as_str().into(),
            agent_labels: Labels::of(&agent.labels),
            endpoint_url: endpoint.to_string().into(),
            endpoint_host: endpoint.host.as_str().into(),
            endpoint_port: i64::from(endpoint.port).into(),
            port_text: endpoint.port.to_string(),
            endpoint_protocol: endpoint.protocol.as_str().into(),
            client_ip: conn.client_ip.to_canonical().to_string().into(),
            client_port: i64::from(conn.client_port).into(),
            tls: conn
                .tls
                .as_ref()
                .map(|tls| [&tls.sni, &tls.version].map(|text| text.as_str().into())),
            started: engine.timestamp(seconds(conn.started)),
            now: engine.timestamp(seconds(request.now)),
            ssh_user: ssh.as_ref().map(|s| s.user.as_str().into()),
            postgres: postgres
                .as_ref()
                .map(|p| [&p.user, &p.database, &p.application_name].map(|text| text.as_str().into())),
            mqtt: mqtt.as_ref().map(Mqtt::of),
            ssh_command: ssh.as_ref().map(|s| s.command.as_str().into()),
            protocol: endpoint.protocol,
        })
    }

    /// A fact as guards compare it; the same value that expressions read.
    pub(crate) fn text(&self, fact: Fact) -> &str {
        match fact {
            Fact::CallerName => self.caller_name.inner(),
            Fact::CallerKind => self.caller_kind.inner(),
            Fact::CallerSite => self.caller_site.inner(),
            Fact::AgentName => self.agent_name.inner(),
            Fact::AgentSite => self.agent_site.inner(),
            Fact::Url => self.endpoint_url.inner(),
            Fact::Host => self.endpoint_host.inner(),
            Fact::Port => &self.port_text,
            Fact::Protocol => self.endpoint_protocol.inner(),
            Fact::ClientIp => self.client_ip.inner(),
        }
    }

    /// The caller's groups.
    pub(crate) fn groups(&self) -> &'r [String] {
        self.group_names
    }

    /// One label, when it is there.
    pub(crate) fn label(&self, owner: Owner, key: &str) -> Option<&str> {
        self.labels_of(owner).find(key).map(CelString::inner)
    }

    /// All labels, by name.
    pub(crate) fn labels(&self, owner: Owner) -> impl Iterator<Item = (&str, &str)> {
        let entries = self.labels_of(owner).entries.iter();
        entries.map(|(key, value)| (key.inner(), value.inner()))
    }

    fn labels_of(&self, owner: Owner) -> &Labels<'r> {
        match owner {
            Owner::Caller => &self.caller_labels,
            Owner::Agent => &self.agent_labels,
        }
    }

    pub(crate) fn read<'b>(&'b self, name: &str, act: Option<&'b CelString<'b>>) -> Option<&'b (dyn Val + 'b)> {
        let value: &'b (dyn Val + 'b) = match name {
            "caller.name" => &self.caller_name,
            "caller.kind" => &self.caller_kind,
            "caller.groups" => &self.caller_groups,
            "caller.labels" => &self.caller_labels,
            "caller.site" => &self.caller_site,
            "agent.name" => &self.agent_name,
            "agent.site" => &self.agent_site,
            "agent.labels" => &self.agent_labels,
            "endpoint.url" => &self.endpoint_url,
            "endpoint.host" => &self.endpoint_host,
            "endpoint.port" => &self.endpoint_port,
            "endpoint.protocol" => &self.endpoint_protocol,
            "conn.client_ip" => &self.client_ip,
            "conn.client_port" => &self.client_port,
            "conn.tls.sni" => &self.tls.as_ref()?[0],
            "conn.tls.version" => &self.tls.as_ref()?[1],
            "conn.ts.start" => self.started.as_deref()?,
            "time.now" => self.now.as_deref()?,
            "ssh.user" => self.ssh_user.as_ref()?,
            "ssh.command" => self.ssh_command.as_ref()?,
            "postgres.user" => &self.postgres.as_ref()?[0],
            "postgres.database" => &self.postgres.as_ref()?[1],
            "postgres.application_name" => &self.postgres.as_ref()?[2],
            "mqtt.client_id" => &self.mqtt.as_ref()?.client_id,
            "mqtt.username" => &self.mqtt.as_ref()?.username,
            "mqtt.topic" => &self.mqtt.as_ref()?.act.as_ref()?.0,
            "mqtt.qos" => &self.mqtt.as_ref()?.act.as_ref()?.1,
            "mqtt.retain" => &self.mqtt.as_ref()?.act.as_ref()?.2,
            "ssh.action" if self.protocol == Protocol::Ssh => act?,
            "mqtt.action" if self.protocol == Protocol::Mqtt => act?,
            _ => return None,
        };
        Some(value)
    }
}

impl<'r> Mqtt<'r> {
    fn of(facts: &'r MqttFacts) -> Self {
        Self {
            client_id: facts.client_id.as_str().into(),
            username: facts.username.as_str().into(),
            act: facts
                .act
                .as_ref()
                .map(|act| (act.topic.as_str().into(), i64::from(act.qos).into(), act.retain.into())),
        }
    }
}

fn within_bounds(request: &Request) -> bool {
    let Request {
        caller,
        agent,
        conn,
        ssh,
        ..
    } = request;
    let short = |text: &String| text.len() <= MAX_FACT_BYTES;
    let labels = |labels: &BTreeMap<String, String>| {
        labels.len() <= MAX_LIST_ITEMS && labels.iter().all(|(key, value)| short(key) && short(value))
    };
    caller.groups.len() <= MAX_LIST_ITEMS
        && caller
            .groups
            .iter()
            .chain([&caller.name, &agent.name, &agent.site])
            .chain(&caller.site)
            .all(short)
        && labels(&caller.labels)
        && labels(&agent.labels)
        && ssh
            .as_ref()
            .is_none_or(|s| short(&s.user) && short(&s.action) && s.command.len() <= MAX_COMMAND_BYTES)
        && request
            .postgres
            .as_ref()
            .is_none_or(|p| [&p.user, &p.database, &p.application_name].into_iter().all(short))
        && conn
            .tls
            .as_ref()
            .is_none_or(|tls| short(&tls.sni) && short(&tls.version))
        && request.mqtt.as_ref().is_none_or(|m| {
            let topic = m.act.iter().map(|act| &act.topic);
            topic
                .chain([&m.client_id, &m.username])
                .all(|text| text.len() <= MAX_TOPIC_BYTES)
        })
}

/// Whole seconds since 1970, negative before.
fn seconds(time: SystemTime) -> i64 {
    let whole = |d: std::time::Duration| i64::try_from(d.as_secs()).unwrap_or(i64::MAX);
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => whole(after),
        Err(before) => whole(before.duration()).saturating_neg(),
    }
}

/// What one evaluation sees: the facts, the act it is about, and the expression's own compiled constants.
pub(crate) struct View<'v> {
    pub(crate) facts: Option<&'v Facts<'v>>,
    pub(crate) act: Option<&'v CelString<'v>>,
    pub(crate) constants: &'v [Constant],
}

impl VariableResolver for View<'_> {
    fn resolve<'b>(&'b self, name: &str) -> Option<CowVal<'b, 'b>> {
        let value = match name.strip_prefix('@') {
            Some(index) => self.constants.get(index.parse::<usize>().ok()?)?.value(),
            None => self.facts?.read(name, self.act)?,
        };
        Some(CowVal::Borrowed(value))
    }
}

/// Labels: a map of text in which an absent key reads as `''`, while `in` and iteration see only what is there.
#[derive(Clone, Debug)]
struct Labels<'r> {
    /// Sorted by key.
    entries: Vec<(CelString<'r>, CelString<'r>)>,
    absent: CelString<'r>,
}

impl<'r> Labels<'r> {
    fn of(labels: &'r BTreeMap<String, String>) -> Self {
        let entry = |(key, value): (&'r String, &'r String)| (key.as_str().into(), value.as_str().into());
        Self {
            entries: labels.iter().map(entry).collect(),
            absent: "".into(),
        }
    }

    fn find(&self, key: &str) -> Option<&CelString<'r>> {
        let index = self.entries.binary_search_by(|(k, _)| k.inner().cmp(key)).ok()?;
        self.entries.get(index).map(|(_, value)| value)
    }

    fn key(key: &dyn Val) -> Result<&str, ExecutionError> {
        key.downcast_ref::<CelString<'_>>()
            .map(CelString::inner)
            .ok_or_else(|| ExecutionError::function_error("labels", "a label's key is text"))
    }
}

impl<'r> Val for Labels<'r> {
    fn get_type(&self) -> &Type {
        <Self as Val>::cel_type()
    }

    fn cel_type() -> &'static Type {
        &MAP_TYPE
    }

    fn as_container(&self) -> Option<&dyn Container> {
        Some(self)
    }

    fn as_indexer<'b, 'v>(&'b self) -> Option<&'b (dyn Indexer + 'v)>
    where
        Self: 'v,
    {
        Some(self)
    }

    fn as_iterable<'b, 'v>(&'b self) -> Option<&'b (dyn Iterable + 'v)>
    where
        Self: 'v,
    {
        Some(self)
    }

    fn as_sizer(&self) -> Option<&dyn Sizer> {
        Some(self)
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v>
    where
        Self: 'v,
    {
        Box::new(self.clone())
    }
}

impl Container for Labels<'_> {
    fn contains(&self, key: &dyn Val) -> Result<bool, ExecutionError> {
        Ok(self.find(Self::key(key)?).is_some())
    }
}

impl Indexer for Labels<'_> {
    fn get<'b, 'v>(&'b self, key: &dyn Val) -> Result<CowVal<'b, 'v>, ExecutionError>
    where
        Self: 'v,
    {
        Ok(CowVal::Borrowed(self.find(Self::key(key)?).unwrap_or(&self.absent)))
    }

    fn steal<'v>(self: Box<Self>, key: &dyn Val) -> Result<Box<dyn Val + 'v>, ExecutionError>
    where
        Self: 'v,
    {
        self.get(key).map(CowVal::into_owned)
    }
}

impl Sizer for Labels<'_> {
    fn size(&self) -> CelInt {
        i64::try_from(self.entries.len()).unwrap_or(i64::MAX).into()
    }
}

impl Iterable for Labels<'_> {
    fn iter<'b, 'v>(&'b self) -> Box<dyn Cursor<'b, 'v> + 'b>
    where
        Self: 'v,
    {
        Box::new(Keys(self.entries.iter()))
    }
}

struct Keys<'b, 'r>(std::slice::Iter<'b, (CelString<'r>, CelString<'r>)>);

impl<'b, 'r: 'v, 'v> Cursor<'b, 'v> for Keys<'b, 'r> {
    fn next(&mut self) -> Option<&'b (dyn Val + 'v)> {
        self.0.next().map(|(key, _)| key as &'b (dyn Val + 'v))
    }
}
