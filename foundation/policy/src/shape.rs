//! The shape of each YAML document, as data: which keys a map has and what they hold.
//!
//! The reader of access files and rules (document.rs, selftest.rs) takes its keys from here, and JSON Schema for editors
//! (schema.rs) is written from here. agent.yaml and gateway.yaml are read by their programs; their shapes stand here for the
//! schema, and so that every unknown key is told at once. A test compares them with what those programs read.

use crate::fields::MAX_NAME_BYTES;

/// A map with known keys.
#[derive(Debug)]
pub(crate) struct Shape {
    /// How a mistake names it.
    pub(crate) what: &'static str,
    pub(crate) keys: &'static [Key],
}

/// One key.
#[derive(Debug)]
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) required: bool,
    pub(crate) holds: Holds,
    /// For people, one line.
    pub(crate) about: &'static str,
}

/// What a key holds.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Holds {
    /// The number of the document's version.
    Version,
    Bool,
    Text,
    /// Text of at most so many bytes.
    Short(usize),
    OneOf(&'static [&'static str]),
    /// A whole number, at least this.
    Count(u32),
    /// A whole number from 0 to this.
    Upto(u32),
    /// `8h`, `30m`.
    Length,
    /// A list of words.
    Texts,
    /// A list of words that are known.
    SomeOf(&'static [&'static str]),
    /// Text by text.
    Labels,
    Map(&'static Shape),
    Maps(&'static Shape),
    /// One text or a list of them.
    TextOrTexts,
}

const fn key(name: &'static str, holds: Holds, about: &'static str) -> Key {
    Key {
        name,
        required: false,
        holds,
        about,
    }
}

const fn needed(name: &'static str, holds: Holds, about: &'static str) -> Key {
    Key {
        name,
        required: true,
        holds,
        about,
    }
}

impl Shape {
    /// The names of the keys, in order.
    pub(crate) fn names(&self) -> Vec<&'static str> {
        self.keys.iter().map(|key| key.name).collect()
    }
}

const NAME: Key = needed(
    "name",
    Holds::Short(MAX_NAME_BYTES),
    "unique; it appears in the audit log",
);
const EXPRESSIONS: Key = key("expressions", Holds::Texts, "CEL; all must be true; none means always");
const EFFECT: Key = needed(
    "effect",
    Holds::OneOf(&["allow", "deny"]),
    "a matching deny rule beats every allow",
);
const ACTIONS: Key = key(
    "actions",
    Holds::SomeOf(&["shell", "exec", "sftp", "publish", "subscribe"]),
    "only these acts; absent: every act that somebody can enforce",
);
const LIMITS_OF_RULE: Key = key("limits", Holds::Map(&LIMITS), "allow rules only");
const ENFORCE: Key = key("enforce", Holds::Bool, "false: counted and logged, not applied");

/// An access file.
pub(crate) const ACCESS: Shape = Shape {
    what: "the access policy",
    keys: &[
        needed("version", Holds::Version, "1"),
        key("rules", Holds::Maps(&RULE), "default deny; in file and line order"),
        key(
            "tests",
            Holds::Maps(&TEST),
            "run at every load; a failing one is a mistake at its line",
        ),
    ],
};

/// A rule of the gateway.
pub(crate) const RULE: Shape = Shape {
    what: "a rule",
    keys: &[
        NAME,
        needed("sites", Holds::Texts, "where it holds; ['*'] for all"),
        EXPRESSIONS,
        EFFECT,
        LIMITS_OF_RULE,
        ACTIONS,
        ENFORCE,
    ],
};

/// A rule of an agent.
pub(crate) const LOCAL_RULE: Shape = Shape {
    what: "a rule",
    keys: &[NAME, EXPRESSIONS, EFFECT, LIMITS_OF_RULE, ACTIONS, ENFORCE],
};

pub(crate) const LIMITS: Shape = Shape {
    what: "limits",
    keys: &[
        key("session", Holds::Length, "longest life of a session"),
        key("idle", Holds::Length, "longest silence in both directions"),
        key(
            "sessions_per_caller",
            Holds::Count(1),
            "sessions one caller may have at a time under this rule",
        ),
    ],
};

pub(crate) const TEST: Shape = Shape {
    what: "a test",
    keys: &[
        needed("name", Holds::Short(MAX_NAME_BYTES), "shown when it fails"),
        needed("caller", Holds::Map(&CALLER), "who asks"),
        key(
            "agent",
            Holds::Map(&AGENT_OF_TEST),
            "who would serve; else taken from the endpoint",
        ),
        needed("endpoint", Holds::Text, "URL, such as ssh://pump-7.plant-7.internal"),
        key(
            "act",
            Holds::Text,
            "else the question is about a tunnel, or a connection of MQTT",
        ),
        key("mqtt", Holds::Map(&MQTT_OF_TEST), "what an MQTT client says"),
        key("client_ip", Holds::Text, "else 192.0.2.1"),
        key("now", Holds::Text, "else 2026-01-01T12:00:00Z"),
        needed("expect", Holds::OneOf(&["allow", "deny"]), "the answer that is right"),
        key("rule", Holds::Text, "the rule that must decide"),
    ],
};

pub(crate) const CALLER: Shape = Shape {
    what: "caller",
    keys: &[
        needed("name", Holds::Text, "the user's or workload's name"),
        key(
            "kind",
            Holds::OneOf(&["user", "workload", "unidentified"]),
            "user unless given",
        ),
        key("groups", Holds::Texts, ""),
        key("labels", Holds::Labels, ""),
        key("site", Holds::Text, "the site the caller never leaves"),
    ],
};

pub(crate) const MQTT_OF_TEST: Shape = Shape {
    what: "mqtt",
    keys: &[
        key("client_id", Holds::Text, "'' unless given"),
        key("username", Holds::Text, "'' unless given"),
        key(
            "topic",
            Holds::Text,
            "of the message or filter of `act`; else the question is about CONNECT",
        ),
        key("qos", Holds::Upto(2), "0 unless given"),
        key("retain", Holds::Bool, "false unless given"),
    ],
};

pub(crate) const AGENT_OF_TEST: Shape = Shape {
    what: "agent",
    keys: &[
        key("name", Holds::Text, ""),
        key("site", Holds::Text, ""),
        key("labels", Holds::Labels, ""),
    ],
};

/// agent.yaml.
pub(crate) const AGENT: Shape = Shape {
    what: "this file",
    keys: &[
        needed("version", Holds::Version, "1"),
        key(
            "gateway",
            Holds::TextOrTexts,
            "host:port, at most four; those of the enrolment unless given",
        ),
        key("state_dir", Holds::Text, "key, certificate and roots; 0700"),
        key(
            "transport",
            Holds::OneOf(&["auto", "quic", "websocket"]),
            "auto: QUIC where UDP passes, WebSocket over TLS where it does not",
        ),
        key(
            "proxy",
            Holds::Text,
            "for TCP: http://[user@]host:port or socks5://[user@]host:port",
        ),
        key("proxy_password_file", Holds::Text, "the password of the proxy's user"),
        key(
            "endpoints",
            Holds::Maps(&ENDPOINT),
            "what is not listed cannot be reached, whatever the gateway says",
        ),
        key("audit", Holds::Map(&AUDIT), "the customer's own audit log"),
        key("data_saver", Holds::Bool, "fewer keep-alives, slower to notice a loss"),
        key("control_socket", Holds::Text, "for status, sessions, cut and pause"),
        key("builtin_ssh", Holds::Map(&BUILTIN_SSH), "the agent's own SSH server"),
    ],
};

const ENDPOINT: Shape = Shape {
    what: "an endpoint",
    keys: &[
        needed("url", Holds::Text, "such as ssh://pump-7.plant-7.internal"),
        needed("upstream", Holds::Map(&UPSTREAM), "what is dialled for it"),
        key("pooling_enabled", Holds::Bool, "other agents may offer the same URL"),
        key(
            "rules",
            Holds::Maps(&LOCAL_RULE),
            "absent: every permitted caller; present: default deny",
        ),
        key(
            "credentials",
            Holds::Maps(&CREDENTIAL),
            "postgres and mqtt: the agent logs in for callers; needs rules",
        ),
        key(
            "statement_log",
            Holds::Text,
            "postgres only: callers' statements, with the data in them",
        ),
        key(
            "transport",
            Holds::OneOf(&["auto", "websocket"]),
            "websocket: its sessions go over TCP, for bulk",
        ),
        key(
            "health_check",
            Holds::Map(&HEALTH_CHECK),
            "the upstream is looked after; a member of a pool that is unwell is asked last",
        ),
    ],
};

const CREDENTIAL: Shape = Shape {
    what: "a credential",
    keys: &[
        needed("as", Holds::Text, "the user that a caller asks for"),
        needed("user", Holds::Text, "the user that the upstream sees"),
        needed("password_file", Holds::Text, "readable by its owner and group only"),
    ],
};

const UPSTREAM: Shape = Shape {
    what: "upstream",
    keys: &[
        needed("url", Holds::Text, "tcp://HOST:PORT or builtin:ssh"),
        key("allow_cidrs", Holds::Texts, "addresses that HOST may have"),
        key("tls", Holds::Map(&UPSTREAM_TLS), "how the upstream is spoken to"),
    ],
};

const UPSTREAM_TLS: Shape = Shape {
    what: "tls",
    keys: &[
        needed(
            "mode",
            Holds::OneOf(&["verify-full", "verify-ca", "require"]),
            "how much the upstream must prove",
        ),
        key(
            "ca_file",
            Holds::Text,
            "whom to trust; required unless the mode is require",
        ),
    ],
};

const AUDIT: Shape = Shape {
    what: "audit",
    keys: &[key("file", Holds::Text, "in state_dir unless given")],
};

const BUILTIN_SSH: Shape = Shape {
    what: "builtin_ssh",
    keys: &[
        key(
            "allow_service_account",
            Holds::Bool,
            "run as the agent's own user even where that is root, a service or nobody",
        ),
        key(
            "users",
            Holds::Texts,
            "local users that callers may become; needs user-switching.conf",
        ),
    ],
};

/// gateway.yaml.
pub(crate) const GATEWAY: Shape = Shape {
    what: "this file",
    keys: &[
        needed("version", Holds::Version, "1"),
        needed("domain", Holds::Text, "under which callers name endpoints"),
        key("trust_domain", Holds::Text, "in every certificate; fixed at init"),
        key("listen", Holds::Text, "the one port"),
        key("announce", Holds::Texts, "what join strings name, host:port"),
        key("state_dir", Holds::Text, "database, CA and host keys; 0700"),
        key("access", Holds::Texts, "files or directories of access policy"),
        key("admin", Holds::Map(&ADMIN), "where administration listens"),
        key("limits", Holds::Map(&GATEWAY_LIMITS), ""),
        key(
            "drain",
            Holds::Length,
            "how long sessions may go on when the gateway stops",
        ),
        key("certificates", Holds::Map(&CERTIFICATES), "how long each kind is good"),
        key("tls", Holds::Map(&CALLERS_TLS), "TLS for callers"),
        key("listeners", Holds::Maps(&LISTENER), "ports beside the one port"),
        key("events", Holds::Maps(&EVENTS), "brokers that are told what happens"),
    ],
};

const EVENTS: Shape = Shape {
    what: "an entry of events",
    keys: &[needed("mqtt", Holds::Map(&EVENTS_BROKER), "a broker of MQTT")],
};

const EVENTS_BROKER: Shape = Shape {
    what: "a broker",
    keys: &[
        needed("url", Holds::Text, "mqtt://HOST:PORT"),
        key("topic_prefix", Holds::Text, "what every topic begins with"),
        key("client_id", Holds::Text, "how the gateway calls itself there"),
        key("username", Holds::Text, "as whom it logs in"),
        key("password_file", Holds::Text, "where the password is; private"),
    ],
};

const HEALTH_CHECK: Shape = Shape {
    what: "health_check",
    keys: &[needed("interval", Holds::Length, "from one look to the next, 1s to 1h")],
};

const CALLERS_TLS: Shape = Shape {
    what: "tls",
    keys: &[key(
        "certificates",
        Holds::Maps(&CERTIFICATE_FILES),
        "shown for the names in them; every other name gets one of the private CA",
    )],
};

const CERTIFICATE_FILES: Shape = Shape {
    what: "a certificate",
    keys: &[
        needed("cert_file", Holds::Text, "the chain in PEM, the server's own first"),
        needed("key_file", Holds::Text, "its private key in PEM"),
    ],
};

const LISTENER: Shape = Shape {
    what: "a listener",
    keys: &[
        needed(
            "protocol",
            Holds::OneOf(&["ssh", "postgres", "mqtt", "rdp", "tls"]),
            "the only one spoken there",
        ),
        needed("listen", Holds::Text, "address and port"),
    ],
};

const ADMIN: Shape = Shape {
    what: "admin",
    keys: &[
        key("socket", Holds::Text, "the unix socket"),
        key(
            "metrics_listen",
            Holds::Text,
            "address and port of /metrics, /healthz and /readyz",
        ),
    ],
};

const GATEWAY_LIMITS: Shape = Shape {
    what: "limits",
    keys: &[
        key("links", Holds::Count(0), "agents at a time"),
        key("sessions", Holds::Count(0), "sessions at a time"),
        key("sessions_per_caller", Holds::Map(&PER_CALLER), ""),
        key("handshakes_in_flight", Holds::Count(0), "beyond it, newcomers wait"),
        key("handshakes_per_source", Holds::Count(0), "beyond it, newcomers wait"),
        key(
            "login_failures_per_source",
            Holds::Count(0),
            "beyond it, the source is shut out for a while",
        ),
    ],
};

const PER_CALLER: Shape = Shape {
    what: "sessions_per_caller",
    keys: &[key("user", Holds::Count(0), ""), key("workload", Holds::Count(0), "")],
};

const CERTIFICATES: Shape = Shape {
    what: "certificates",
    keys: &[
        key("agent", Holds::Length, ""),
        key("user", Holds::Length, ""),
        key("workload", Holds::Length, ""),
        key("absent", Holds::Length, "how long an agent may be away and still renew"),
    ],
};
