//! What a question supposes that an MQTT client says: part of [`ExplainRequest`](crate::call::ExplainRequest) and of an
//! [`Open`](crate::open::Open) that asks what an agent's file says.
//!
//! Real clients are read from their own bytes; nothing of this is in their sessions.

use crate::check::{CheckError, Checker};

/// Longest text in bytes: topics, filters, names of clients and users. Policies evaluate no longer ones.
pub const MAX_TEXT_BYTES: usize = 4096;

/// What CONNECT says, and what the client wants then. Since 1, together with the requirement
/// [`MQTT_FACTS`](crate::version::MQTT_FACTS).
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Supposed {
    /// The client's name; empty where the broker shall choose one.
    #[prost(string, tag = "1")]
    pub client_id: String,
    /// The user name; empty where none is sent.
    #[prost(string, tag = "2")]
    pub username: String,
    /// What the act that is named beside is about; without it the question is about the connection.
    #[prost(message, optional, tag = "3")]
    pub about: Option<About>,
}

/// A message or a subscription. Since 1.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct About {
    /// The topic of a message, the filter of a subscription.
    #[prost(string, tag = "1")]
    pub topic: String,
    /// 0, 1 or 2.
    #[prost(uint32, tag = "2")]
    pub qos: u32,
    /// Whether the broker keeps the message.
    #[prost(bool, tag = "3")]
    pub retain: bool,
}

impl Supposed {
    /// Bounds every field.
    ///
    /// # Errors
    /// [`CheckError`] naming the first field out of bounds.
    pub fn check(&self) -> Result<(), CheckError> {
        let fields = Checker::of("Supposed");
        fields.text("client_id", &self.client_id, MAX_TEXT_BYTES)?;
        fields.text("username", &self.username, MAX_TEXT_BYTES)?;
        self.about.as_ref().map_or(Ok(()), About::check)
    }
}

impl About {
    fn check(&self) -> Result<(), CheckError> {
        let fields = Checker::of("About");
        fields.full_text("topic", &self.topic, MAX_TEXT_BYTES)?;
        fields.holds("qos", self.qos <= 2, "0, 1 or 2")
    }
}
