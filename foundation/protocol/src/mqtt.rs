//! MQTT as a policy sees it: 3.1.1 and 5 (OASIS Standards, sections are of version 5 unless said).
//!
//! What a client asks for is read strictly (CONNECT, PUBLISH, SUBSCRIBE, UNSUBSCRIBE), of everything else only where it
//! ends and what its first fields say. Packets that are allowed travel as the very bytes that were read; the parts that
//! are refused are answered in the protocol's own codes ([`answer`]). Deliberately not here: who may do what, state that
//! lives as long as a connection, and any waiting.
//!
//! rumqttc's codecs read packets too, but not all that real peers send (an empty DISCONNECT of version 5, properties after
//! a subscription identifier, AUTH), and let pass what policy must not see twice (duplicate properties, bytes behind the
//! last field). They are the second opinion of this module's tests instead.

pub mod answer;
mod broker;
mod connect;
mod fields;
mod frame;
pub mod guard;
mod properties;
mod publish;
mod subscribe;
pub mod topic;

pub use broker::{Ceilings, ConnAck, SubAck, packet_id_of};
pub use connect::{Connect, Login, Will};
pub use frame::{Header, Kind, header};
pub use publish::Publish;
pub use subscribe::{Filter, MAX_FILTERS, Subscribe, Unsubscribe};

use thiserror::Error;

/// The version of the protocol that a CONNECT chose for its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// 3.1.1, protocol level 4.
    V4,
    /// 5.0, protocol level 5.
    V5,
}

/// How surely a message is delivered (section 4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum QoS {
    /// At most once, 0.
    AtMostOnce,
    /// At least once, 1.
    AtLeastOnce,
    /// Exactly once, 2.
    ExactlyOnce,
}

impl QoS {
    /// By its number; 3 is none.
    pub(crate) fn of(number: u8) -> Result<Self, Broken> {
        match number {
            0 => Ok(Self::AtMostOnce),
            1 => Ok(Self::AtLeastOnce),
            2 => Ok(Self::ExactlyOnce),
            _ => Err(Broken::Malformed("a quality of service of 3")),
        }
    }

    /// Its number, 0 to 2.
    #[must_use]
    pub fn number(self) -> u8 {
        self as u8
    }
}

/// Why a packet ends its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Broken {
    /// Its bytes are not what the protocol says (reason 0x81).
    #[error("malformed packet: {0}")]
    Malformed(&'static str),
    /// Its bytes are well formed, but must not come here (reason 0x82).
    #[error("protocol error: {0}")]
    Protocol(&'static str),
    /// It speaks a version that is not spoken here (reason 0x84, in 3.1.1 return code 1).
    #[error("protocol level {0} is not spoken here; 3.1.1 (4) and 5 are")]
    Version(u8),
    /// It is longer than what was agreed (reason 0x95).
    #[error("a packet of {0} bytes is longer than this endpoint takes")]
    TooLong(usize),
}

#[cfg(test)]
mod tests;
