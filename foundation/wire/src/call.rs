//! The caller's conversation: what a user or workload with a certificate asks the gateway, ALPN [`crate::version::ALPN_CALL`].
//!
//! One bidirectional stream per request: one [`CallRequest`], then one or more [`CallAnswer`]s until the stream ends. Who
//! asks stands in the certificate of the connection, never here. [`ConnectRequest`] is the one that is more than a
//! question: after [`Connected`] the stream carries the session's bytes.

use std::fmt;

use crate::check::{self, CheckError, Checker, Problem};
use crate::control::Mode;
use crate::id::{IdError, SessionId};
use crate::mqtt::Supposed;
use crate::refusal::Refused;
use crate::version::MQTT_FACTS;

/// Most endpoints of one [`EndpointPage`]: a page fits a frame whatever its URLs are.
pub const MAX_PAGE: usize = 128;

/// Longest routing token in bytes; RDP clients send it in a line of at most 240.
pub const MAX_ROUTING_TOKEN_BYTES: usize = 128;

/// One question of a caller. Since 1.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct CallRequest {
    /// Oldest wire version the caller speaks, at least 1.
    #[prost(uint32, tag = "1")]
    pub version_min: u32,
    /// Newest wire version the caller speaks, at least `version_min`.
    #[prost(uint32, tag = "2")]
    pub version_max: u32,
    /// Features without which the caller does not want an answer; at most 32 names.
    #[prost(string, repeated, tag = "3")]
    pub requires: Vec<String>,
    /// The question; `None` is one of a newer caller, to be refused as `unsupported`.
    #[prost(oneof = "Question", tags = "4, 5, 6, 7, 8")]
    pub question: Option<Question>,
}

/// The kinds of [`CallRequest`].
#[derive(Clone, PartialEq, Eq, Hash, prost::Oneof)]
pub enum Question {
    /// Which endpoints the caller may reach; answered by [`EndpointPage`]s.
    #[prost(message, tag = "4")]
    Endpoints(EndpointsRequest),
    /// The SSH host keys of one endpoint; answered by [`HostKeys`].
    #[prost(message, tag = "5")]
    HostKeys(HostKeysRequest),
    /// Whether the caller would be let in; answered by one [`Foreseen`].
    #[prost(message, tag = "6")]
    Explain(ExplainRequest),
    /// A session; answered by [`Connected`], after which both directions of the stream are the session's.
    #[prost(message, tag = "7")]
    Connect(ConnectRequest),
    /// A routing token for one endpoint; answered by [`RoutingToken`].
    #[prost(message, tag = "8")]
    RoutingToken(RoutingTokenRequest),
}

/// Asks for every endpoint that the caller may reach. Since 1.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct EndpointsRequest {
    /// Only endpoints of this site; empty for all. At most 128 bytes.
    #[prost(string, tag = "1")]
    pub site: String,
}

/// Asks for the SSH host keys of the endpoint that a host and a port name. Since 1.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct HostKeysRequest {
    /// The host as the caller writes it, such as `pump-7.plant-7.internal`; at most 253 bytes.
    #[prost(string, tag = "1")]
    pub host: String,
    /// The port, 1 to 65535.
    #[prost(uint32, tag = "2")]
    pub port: u32,
}

/// Asks whether a request of the caller for an endpoint would be permitted now. Since 1.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct ExplainRequest {
    /// The endpoint's URL; at most 256 bytes.
    #[prost(string, tag = "1")]
    pub url: String,
    /// One act by name; empty for any. At most 128 bytes.
    #[prost(string, tag = "2")]
    pub act: String,
    /// What an MQTT client is supposed to say: set together with the requirement [`MQTT_FACTS`]; about a topic only beside
    /// an act.
    #[prost(message, optional, tag = "3")]
    pub mqtt: Option<Supposed>,
}

/// Asks for a session. Since 1.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct ConnectRequest {
    /// The endpoint's URL; at most 256 bytes.
    #[prost(string, tag = "1")]
    pub url: String,
}

/// Asks for a token by which a client that can present no certificate is led to one endpoint. Since 1.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct RoutingTokenRequest {
    /// The endpoint's URL, of a protocol whose clients can send a token (rdp); at most 256 bytes.
    #[prost(string, tag = "1")]
    pub url: String,
}

/// One answer to a [`CallRequest`]. Since 1.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct CallAnswer {
    /// The answer; `None` is one of a newer gateway, and none that this build can use.
    #[prost(oneof = "Body", tags = "1, 2, 3, 4, 5, 6")]
    pub body: Option<Body>,
}

/// The kinds of [`CallAnswer`].
#[derive(Clone, PartialEq, Eq, Hash, prost::Oneof)]
pub enum Body {
    /// Some of the endpoints; further pages follow until the stream ends.
    #[prost(message, tag = "1")]
    Endpoints(EndpointPage),
    /// The host keys of the endpoint.
    #[prost(message, tag = "2")]
    HostKeys(HostKeys),
    /// No answer, or no further one; the stream ends after this frame.
    #[prost(message, tag = "3")]
    Refused(Refused),
    /// Whether the caller would be let in.
    #[prost(message, tag = "4")]
    Foreseen(Foreseen),
    /// The session's bytes follow.
    #[prost(message, tag = "5")]
    Connected(Connected),
    /// The token that was asked for.
    #[prost(message, tag = "6")]
    RoutingToken(RoutingToken),
}

/// Endpoints that the caller may reach. Since 1.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct EndpointPage {
    /// At most 128; none is a valid page.
    #[prost(message, repeated, tag = "1")]
    pub endpoints: Vec<ReachableEndpoint>,
}

/// One endpoint of an [`EndpointPage`]. Since 1.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct ReachableEndpoint {
    /// The endpoint's canonical URL; at most 256 bytes.
    #[prost(string, tag = "1")]
    pub url: String,
    /// Who reads the protocol.
    #[prost(enumeration = "Mode", tag = "2")]
    pub mode: i32,
    /// Whether an agent that offers it is linked.
    #[prost(bool, tag = "3")]
    pub online: bool,
}

/// The SSH host keys that the gateway vouches for. Since 1.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct HostKeys {
    /// OpenSSH public key lines of at most 2 KiB; at most 16. None where the host presents a certificate instead, or has
    /// not been asked for its keys yet.
    #[prost(string, repeated, tag = "1")]
    pub public_keys: Vec<String>,
}

/// What a caller may hear of an endpoint that they asked about. Since 1.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Foreseen {
    /// The word.
    #[prost(enumeration = "Outlook", tag = "1")]
    pub outlook: i32,
}

/// The word of [`Foreseen`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum Outlook {
    /// Not said, or a word of a newer gateway.
    Unspecified = 0,
    /// Permitted, and an agent that offers it is linked.
    Allowed = 1,
    /// Not permitted, or there is no such endpoint.
    Denied = 2,
    /// Permitted, and no agent that offers it is linked.
    Offline = 3,
    /// Some of what the endpoint's protocol may ask for is permitted: it depends on what the client says first.
    Depends = 4,
}

/// The session is there. Raw bytes follow, both ways, until both directions have ended. Since 1.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Connected {
    /// The session's id, 16 bytes: what is said of its end goes by it.
    #[prost(bytes = "vec", tag = "1")]
    pub session: Vec<u8>,
}

/// A routing token: whoever shows it in time stands for the caller. Since 1.
///
/// `Debug` does not print the token.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
#[prost(skip_debug)]
pub struct RoutingToken {
    /// The token, printable ASCII without spaces; at most 128 bytes.
    #[prost(string, tag = "1")]
    pub token: String,
    /// For so many seconds it can be used for the first time.
    #[prost(uint32, tag = "2")]
    pub valid_for_s: u32,
}

impl CallRequest {
    /// Bounds every field. A question that this build does not know passes, to be refused.
    ///
    /// # Errors
    /// [`CheckError`] naming the first field out of bounds.
    pub fn check(&self) -> Result<(), CheckError> {
        let fields = Checker::of("CallRequest");
        fields.versions(self.version_min, self.version_max)?;
        fields.requires(&self.requires)?;
        match &self.question {
            None => Ok(()),
            Some(Question::Endpoints(request)) => request.check(),
            Some(Question::HostKeys(request)) => request.check(),
            Some(Question::Explain(request)) => {
                let demanded = self.requires.iter().any(|name| name == MQTT_FACTS);
                let expected = "set where `mqtt-facts` is required, and only there";
                fields.holds("mqtt", request.mqtt.is_some() == demanded, expected)?;
                request.check()
            }
            Some(Question::Connect(request)) => request.check(),
            Some(Question::RoutingToken(request)) => request.check(),
        }
    }
}

impl EndpointsRequest {
    /// Bounds every field.
    ///
    /// # Errors
    /// [`CheckError`] naming the first field out of bounds.
    pub fn check(&self) -> Result<(), CheckError> {
        Checker::of("EndpointsRequest").text("site", &self.site, check::MAX_NAME_BYTES)
    }
}

impl HostKeysRequest {
    /// The port as a type.
    ///
    /// # Errors
    /// [`CheckError`] when it is 0 or above 65535.
    pub fn port(&self) -> Result<u16, CheckError> {
        let port = u16::try_from(self.port).ok().filter(|port| *port != 0);
        let expected = "1 to 65535";
        port.ok_or_else(|| Checker::of("HostKeysRequest").error("port", Problem::Value { expected }))
    }

    /// Bounds every field.
    ///
    /// # Errors
    /// [`CheckError`] naming the first field out of bounds.
    pub fn check(&self) -> Result<(), CheckError> {
        Checker::of("HostKeysRequest").full_text("host", &self.host, check::MAX_DOMAIN_BYTES)?;
        self.port().map(drop)
    }
}

impl ExplainRequest {
    /// Bounds every field.
    ///
    /// # Errors
    /// [`CheckError`] naming the first field out of bounds.
    pub fn check(&self) -> Result<(), CheckError> {
        let fields = Checker::of("ExplainRequest");
        fields.full_text("url", &self.url, check::MAX_URL_BYTES)?;
        fields.text("act", &self.act, check::MAX_NAME_BYTES)?;
        let about = self.mqtt.as_ref().and_then(|supposed| supposed.about.as_ref());
        fields.present("act", about.is_none() || !self.act.is_empty())?;
        self.mqtt.as_ref().map_or(Ok(()), Supposed::check)
    }
}

impl ConnectRequest {
    /// Bounds every field.
    ///
    /// # Errors
    /// [`CheckError`] naming the first field out of bounds.
    pub fn check(&self) -> Result<(), CheckError> {
        Checker::of("ConnectRequest").full_text("url", &self.url, check::MAX_URL_BYTES)
    }
}

impl RoutingTokenRequest {
    /// Bounds every field.
    ///
    /// # Errors
    /// [`CheckError`] naming the first field out of bounds.
    pub fn check(&self) -> Result<(), CheckError> {
        Checker::of("RoutingTokenRequest").full_text("url", &self.url, check::MAX_URL_BYTES)
    }
}

impl RoutingToken {
    /// Bounds every field.
    ///
    /// # Errors
    /// [`CheckError`] naming the first field out of bounds.
    pub fn check(&self) -> Result<(), CheckError> {
        let fields = Checker::of("RoutingToken");
        fields.full_text("token", &self.token, MAX_ROUTING_TOKEN_BYTES)?;
        // It goes into a line of somebody else's protocol, and into a file with one setting a line.
        let is_word = self.token.bytes().all(|byte| byte.is_ascii_graphic());
        fields.holds("token", is_word, "printable ASCII without spaces")
    }
}

impl fmt::Debug for RoutingToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RoutingToken")
            .field("valid_for_s", &self.valid_for_s)
            .finish_non_exhaustive()
    }
}

impl Connected {
    /// The session as a type.
    ///
    /// # Errors
    /// [`IdError`] when it is not 16 bytes.
    pub fn session_id(&self) -> Result<SessionId, IdError> {
        SessionId::try_from(self.session.as_slice())
    }

    /// Bounds every field.
    ///
    /// # Errors
    /// [`CheckError`] naming the first field out of bounds.
    pub fn check(&self) -> Result<(), CheckError> {
        Checker::of("Connected").exactly("session", &self.session, 16)
    }
}

impl CallAnswer {
    /// The answer that there is none.
    #[must_use]
    pub const fn refused(refused: Refused) -> Self {
        Self {
            body: Some(Body::Refused(refused)),
        }
    }

    /// Bounds every field.
    ///
    /// # Errors
    /// [`CheckError`] naming the first field out of bounds, or `body` when there is no known answer.
    pub fn check(&self) -> Result<(), CheckError> {
        match &self.body {
            None => Err(Checker::of("CallAnswer").error("body", Problem::Missing)),
            Some(Body::Endpoints(page)) => page.check(),
            Some(Body::HostKeys(keys)) => keys.check(),
            Some(Body::Refused(refused)) => refused.check(),
            Some(Body::Foreseen(_)) => Ok(()),
            Some(Body::Connected(connected)) => connected.check(),
            Some(Body::RoutingToken(token)) => token.check(),
        }
    }
}

impl EndpointPage {
    /// Bounds the page and every endpoint on it.
    ///
    /// # Errors
    /// [`CheckError`] naming the first field out of bounds.
    pub fn check(&self) -> Result<(), CheckError> {
        Checker::of("EndpointPage").count("endpoints", self.endpoints.len(), MAX_PAGE)?;
        self.endpoints.iter().try_for_each(ReachableEndpoint::check)
    }
}

impl ReachableEndpoint {
    /// Bounds every field.
    ///
    /// # Errors
    /// [`CheckError`] naming the first field out of bounds.
    pub fn check(&self) -> Result<(), CheckError> {
        Checker::of("ReachableEndpoint").full_text("url", &self.url, check::MAX_URL_BYTES)
    }
}

impl HostKeys {
    /// Bounds every field.
    ///
    /// # Errors
    /// [`CheckError`] naming the first field out of bounds.
    pub fn check(&self) -> Result<(), CheckError> {
        let fields = Checker::of("HostKeys");
        fields.texts(
            "public_keys",
            &self.public_keys,
            check::MAX_FEW,
            check::MAX_SSH_KEY_BYTES,
        )
    }
}

#[cfg(test)]
mod tests;
