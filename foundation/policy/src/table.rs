//! Every name a rule may use: variables, functions and acts, as data.
//!
//! A new protocol adds rows here and nothing else in this crate. `docs/policy.md` lists the same names; a test compares.

use fairlead_identity::name::Protocol;

/// The type of a value in an expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Type {
    /// The element of an empty list: fits everywhere.
    Any,
    Bool,
    Int,
    Uint,
    Double,
    Text,
    Bytes,
    Timestamp,
    Duration,
    List(Box<Type>),
    Map(Box<Type>, Box<Type>),
    /// Text by text, in which an absent key reads as `''`.
    Labels,
}

/// What [`Variable`] and [`Function`] rows are written with: [`Type`] without heap parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Is {
    Bool,
    Int,
    Uint,
    Double,
    Text,
    Bytes,
    Timestamp,
    Duration,
    Texts,
    Labels,
    /// Any list, as a parameter.
    List,
    /// Any map, as a parameter.
    Map,
    /// Text that must be written out, because it is compiled when the policy is loaded.
    Pattern,
    /// Text holding an address.
    Address,
    /// Text holding an address range; compiled at load when written out.
    Network,
    /// Text holding an MQTT topic filter; checked at load when written out.
    TopicFilter,
    /// Text holding a time zone: `Europe/Berlin` or `+02:00`.
    Zone,
}

/// One variable.
#[derive(Debug)]
pub(crate) struct Variable {
    /// The whole dotted name.
    pub(crate) name: &'static str,
    pub(crate) is: Is,
    /// The only values it can have, when they are few: comparing with another is a mistake.
    pub(crate) values: &'static [&'static str],
}

const fn variable(name: &'static str, is: Is) -> Variable {
    Variable { name, is, values: &[] }
}

const fn one_of(name: &'static str, values: &'static [&'static str]) -> Variable {
    Variable {
        name,
        is: Is::Text,
        values,
    }
}

/// The acts of `ssh` that somebody can enforce.
const SSH_ACTS: &[&str] = &["shell", "exec", "sftp"];
/// The acts of `mqtt`.
const MQTT_ACTS: &[&str] = &["publish", "subscribe"];

/// Which acts exist, by protocol: the values of `actions:`.
pub(crate) const ACTS: &[(Protocol, &[&str])] = &[(Protocol::Ssh, SSH_ACTS), (Protocol::Mqtt, MQTT_ACTS)];

/// Every variable. Those under a protocol's name are known only where somebody reads that protocol.
pub(crate) const VARIABLES: &[Variable] = &[
    variable("caller.name", Is::Text),
    one_of("caller.kind", &["user", "workload", "unidentified"]),
    variable("caller.groups", Is::Texts),
    variable("caller.labels", Is::Labels),
    variable("caller.site", Is::Text),
    variable("agent.name", Is::Text),
    variable("agent.site", Is::Text),
    variable("agent.labels", Is::Labels),
    variable("endpoint.url", Is::Text),
    variable("endpoint.host", Is::Text),
    variable("endpoint.port", Is::Int),
    one_of(
        "endpoint.protocol",
        &["ssh", "postgres", "mysql", "mqtt", "rdp", "tcp", "tls", "http"],
    ),
    variable("conn.client_ip", Is::Text),
    variable("conn.client_port", Is::Int),
    variable("conn.tls.sni", Is::Text),
    variable("conn.tls.version", Is::Text),
    variable("conn.ts.start", Is::Timestamp),
    variable("time.now", Is::Timestamp),
    variable("ssh.user", Is::Text),
    one_of("ssh.action", SSH_ACTS),
    variable("ssh.command", Is::Text),
    variable("postgres.user", Is::Text),
    variable("postgres.database", Is::Text),
    variable("postgres.application_name", Is::Text),
    variable("mysql.user", Is::Text),
    variable("mysql.database", Is::Text),
    one_of("mqtt.action", MQTT_ACTS),
    variable("mqtt.client_id", Is::Text),
    variable("mqtt.username", Is::Text),
    variable("mqtt.topic", Is::Text),
    variable("mqtt.qos", Is::Int),
    variable("mqtt.retain", Is::Bool),
];

impl Variable {
    /// The protocol whose bytes tell this variable, if one does.
    pub(crate) fn protocol(&self) -> Option<Protocol> {
        let (root, _) = self.name.split_once('.')?;
        Protocol::ALL.into_iter().find(|p| p.as_str() == root)
    }

    /// Whether any part of this version tells its value; rules with the others load with a warning.
    pub(crate) fn is_told(&self) -> bool {
        self.protocol()
            .is_none_or(|p| matches!(p, Protocol::Ssh | Protocol::Postgres | Protocol::Mqtt))
    }

    /// Whether its value changes while a session lives.
    pub(crate) fn is_time(&self) -> bool {
        self.name == "time.now"
    }

    /// Whether it is bound to each act in turn.
    pub(crate) fn is_act(&self) -> bool {
        matches!(self.name, "ssh.action" | "mqtt.action")
    }
}

/// One overload of a function. `target` is what it is called on: `target.name(params)`.
#[derive(Debug)]
pub(crate) struct Function {
    pub(crate) name: &'static str,
    pub(crate) target: Option<Is>,
    pub(crate) params: &'static [Is],
    pub(crate) gives: Is,
}

const fn call(name: &'static str, params: &'static [Is], gives: Is) -> Function {
    Function {
        name,
        target: None,
        params,
        gives,
    }
}

const fn method(target: Is, name: &'static str, params: &'static [Is], gives: Is) -> Function {
    Function {
        name,
        target: Some(target),
        params,
        gives,
    }
}

/// Every function, one row per overload. Operators and the macros (`has`, `all`, `exists`, `exists_one`, `map`, `filter`)
/// are typed in check.rs.
pub(crate) const FUNCTIONS: &[Function] = &[
    call("inCidrRange", &[Is::Address, Is::Network], Is::Bool),
    call("inTopicFilter", &[Is::Text, Is::TopicFilter], Is::Bool),
    call("touchesTopicFilter", &[Is::Text, Is::TopicFilter], Is::Bool),
    method(Is::Text, "matches", &[Is::Pattern], Is::Bool),
    call("matches", &[Is::Text, Is::Pattern], Is::Bool),
    method(Is::Text, "contains", &[Is::Text], Is::Bool),
    method(Is::Text, "startsWith", &[Is::Text], Is::Bool),
    method(Is::Text, "endsWith", &[Is::Text], Is::Bool),
    call("size", &[Is::Text], Is::Int),
    call("size", &[Is::Bytes], Is::Int),
    call("size", &[Is::List], Is::Int),
    call("size", &[Is::Map], Is::Int),
    method(Is::Text, "size", &[], Is::Int),
    method(Is::Bytes, "size", &[], Is::Int),
    method(Is::List, "size", &[], Is::Int),
    method(Is::Map, "size", &[], Is::Int),
    call("string", &[Is::Text], Is::Text),
    call("string", &[Is::Bool], Is::Text),
    call("string", &[Is::Int], Is::Text),
    call("string", &[Is::Uint], Is::Text),
    call("string", &[Is::Double], Is::Text),
    call("string", &[Is::Bytes], Is::Text),
    call("string", &[Is::Timestamp], Is::Text),
    call("string", &[Is::Duration], Is::Text),
    call("bytes", &[Is::Text], Is::Bytes),
    call("bool", &[Is::Text], Is::Bool),
    call("bool", &[Is::Bool], Is::Bool),
    call("int", &[Is::Int], Is::Int),
    call("int", &[Is::Uint], Is::Int),
    call("int", &[Is::Double], Is::Int),
    call("int", &[Is::Text], Is::Int),
    call("int", &[Is::Timestamp], Is::Int),
    call("uint", &[Is::Uint], Is::Uint),
    call("uint", &[Is::Int], Is::Uint),
    call("uint", &[Is::Double], Is::Uint),
    call("uint", &[Is::Text], Is::Uint),
    call("double", &[Is::Double], Is::Double),
    call("double", &[Is::Int], Is::Double),
    call("double", &[Is::Uint], Is::Double),
    call("double", &[Is::Text], Is::Double),
    call("timestamp", &[Is::Text], Is::Timestamp),
    call("timestamp", &[Is::Int], Is::Timestamp),
    call("duration", &[Is::Text], Is::Duration),
    method(Is::Timestamp, "getFullYear", &[], Is::Int),
    method(Is::Timestamp, "getFullYear", &[Is::Zone], Is::Int),
    method(Is::Timestamp, "getMonth", &[], Is::Int),
    method(Is::Timestamp, "getMonth", &[Is::Zone], Is::Int),
    method(Is::Timestamp, "getDayOfYear", &[], Is::Int),
    method(Is::Timestamp, "getDayOfYear", &[Is::Zone], Is::Int),
    method(Is::Timestamp, "getDayOfMonth", &[], Is::Int),
    method(Is::Timestamp, "getDayOfMonth", &[Is::Zone], Is::Int),
    method(Is::Timestamp, "getDate", &[], Is::Int),
    method(Is::Timestamp, "getDate", &[Is::Zone], Is::Int),
    method(Is::Timestamp, "getDayOfWeek", &[], Is::Int),
    method(Is::Timestamp, "getDayOfWeek", &[Is::Zone], Is::Int),
    method(Is::Timestamp, "getHours", &[], Is::Int),
    method(Is::Timestamp, "getHours", &[Is::Zone], Is::Int),
    method(Is::Timestamp, "getMinutes", &[], Is::Int),
    method(Is::Timestamp, "getMinutes", &[Is::Zone], Is::Int),
    method(Is::Timestamp, "getSeconds", &[], Is::Int),
    method(Is::Timestamp, "getSeconds", &[Is::Zone], Is::Int),
    method(Is::Duration, "getHours", &[], Is::Int),
    method(Is::Duration, "getMinutes", &[], Is::Int),
    method(Is::Duration, "getSeconds", &[], Is::Int),
    method(Is::Duration, "getMilliseconds", &[], Is::Int),
];

impl From<Is> for Type {
    fn from(is: Is) -> Self {
        match is {
            Is::Bool => Self::Bool,
            Is::Int => Self::Int,
            Is::Uint => Self::Uint,
            Is::Double => Self::Double,
            Is::Text | Is::Pattern | Is::Address | Is::Network | Is::TopicFilter | Is::Zone => Self::Text,
            Is::Bytes => Self::Bytes,
            Is::Timestamp => Self::Timestamp,
            Is::Duration => Self::Duration,
            Is::Texts => Self::List(Box::new(Self::Text)),
            Is::Labels => Self::Labels,
            Is::List => Self::List(Box::new(Self::Any)),
            Is::Map => Self::Map(Box::new(Self::Any), Box::new(Self::Any)),
        }
    }
}

impl Is {
    /// Whether a value of type `of` can stand for this parameter.
    pub(crate) fn takes(self, of: &Type) -> bool {
        match (self, of) {
            (_, Type::Any) => true,
            (Self::List, Type::List(_)) | (Self::Map, Type::Map(..) | Type::Labels) => true,
            _ => Type::from(self) == *of,
        }
    }
}

impl std::fmt::Display for Type {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Any => f.write_str("anything"),
            Self::Bool => f.write_str("bool"),
            Self::Int => f.write_str("int"),
            Self::Uint => f.write_str("uint"),
            Self::Double => f.write_str("double"),
            Self::Text => f.write_str("string"),
            Self::Bytes => f.write_str("bytes"),
            Self::Timestamp => f.write_str("timestamp"),
            Self::Duration => f.write_str("duration"),
            Self::List(of) => write!(f, "list of {of}"),
            Self::Map(..) => f.write_str("map"),
            Self::Labels => f.write_str("labels"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_agree_with_the_protocols() {
        let protocol = VARIABLES.iter().find(|v| v.name == "endpoint.protocol").unwrap();
        let known: Vec<&str> = Protocol::ALL.iter().map(|p| p.as_str()).collect();
        assert_eq!(protocol.values, known);
        for variable in VARIABLES {
            let root = variable.name.split_once('.').unwrap().0;
            let ours = ["caller", "agent", "endpoint", "conn", "time"].contains(&root);
            assert!(ours != variable.protocol().is_some(), "{}", variable.name);
        }
    }

    #[test]
    fn the_page_names_everything() {
        let page = include_str!("../../../docs/policy.md");
        let names = VARIABLES.iter().map(|v| v.name).chain(FUNCTIONS.iter().map(|f| f.name));
        let values = VARIABLES.iter().flat_map(|v| v.values.iter().copied());
        for name in names.chain(values) {
            assert!(page.contains(name), "docs/policy.md lacks {name}");
        }
    }
}
