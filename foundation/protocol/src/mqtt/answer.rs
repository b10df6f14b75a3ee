//! Refusals in the protocol's own codes (sections 2.4, 3.2, 3.4, 3.5, 3.9, 3.14).

use super::Version;
use super::fields::put;
use super::frame::{packet, write_length};
use super::properties::REASON_STRING;

/// A reason in both versions' numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// A packet that cannot be read.
    Malformed,
    /// A packet that must not come.
    Protocol,
    /// A version that is not spoken here.
    Version,
    /// A client's name that it may not have.
    ClientId,
    /// Not allowed.
    NotAuthorized,
    /// What stands behind is not there.
    Unavailable,
    /// Enhanced authentication by a method nobody has here.
    AuthenticationMethod,
    /// Too many messages that were not acknowledged.
    ReceiveMaximum,
    /// An alias beyond what was agreed.
    TopicAlias,
    /// A packet beyond what was agreed.
    PacketTooLarge,
    /// More than somebody's share.
    Quota,
    /// More messages in a time than allowed.
    MessageRate,
    /// Ended by an administrator.
    Administrative,
    /// This side stops.
    ShuttingDown,
    /// Silent for too long, or in the middle of a packet.
    KeepAlive,
    /// Connected for as long as allowed.
    ConnectTime,
}

impl Reason {
    /// The reason code of version 5.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Malformed => 0x81,
            Self::Protocol => 0x82,
            Self::Version => 0x84,
            Self::ClientId => 0x85,
            Self::NotAuthorized => 0x87,
            Self::Unavailable => 0x88,
            Self::ShuttingDown => 0x8b,
            Self::AuthenticationMethod => 0x8c,
            Self::KeepAlive => 0x8d,
            Self::ReceiveMaximum => 0x93,
            Self::TopicAlias => 0x94,
            Self::PacketTooLarge => 0x95,
            Self::MessageRate => 0x96,
            Self::Quota => 0x97,
            Self::Administrative => 0x98,
            Self::ConnectTime => 0xa0,
        }
    }

    /// The same in a CONNACK, which does not have all of them (section 3.2.2.2).
    fn at_connect(self) -> u8 {
        match self {
            Self::ReceiveMaximum | Self::TopicAlias | Self::MessageRate => Self::Quota.code(),
            Self::Administrative | Self::KeepAlive | Self::ConnectTime => Self::NotAuthorized.code(),
            Self::ShuttingDown => Self::Unavailable.code(),
            other => other.code(),
        }
    }

    /// The same in a DISCONNECT (section 3.14.2.1).
    fn at_end(self) -> u8 {
        match self {
            // Server busy: it may come back.
            Self::Unavailable => 0x89,
            Self::Version | Self::ClientId | Self::AuthenticationMethod => Self::Protocol.code(),
            other => other.code(),
        }
    }

    /// The return code of a CONNACK of 3.1.1 (its section 3.2.2.3).
    #[must_use]
    pub fn return_code(self) -> u8 {
        match self {
            Self::Version => 1,
            Self::ClientId => 2,
            Self::Unavailable | Self::ShuttingDown | Self::Quota => 3,
            _ => 5,
        }
    }
}

/// The code of a filter that is refused: 0x80 in 3.1.1, 0x87 (not authorized) in version 5.
#[must_use]
pub fn refused_filter(version: Version) -> u8 {
    match version {
        Version::V4 => 0x80,
        Version::V5 => Reason::NotAuthorized.code(),
    }
}

/// CONNACK that refuses. `text` is for people, and only version 5 carries it.
#[must_use]
pub fn connack(version: Version, reason: Reason, text: &str) -> Vec<u8> {
    match version {
        Version::V4 => packet(0x20, &[0, reason.return_code()]),
        Version::V5 => packet(0x20, &with_text(vec![0, reason.at_connect()], text)),
    }
}

/// DISCONNECT with a reason; 3.1.1 has none from a server, and no bytes are sent.
#[must_use]
pub fn disconnect(version: Version, reason: Reason, text: &str) -> Option<Vec<u8>> {
    match version {
        Version::V4 => None,
        Version::V5 => Some(packet(0xe0, &with_text(vec![reason.at_end()], text))),
    }
}

/// PUBACK (QoS 1) or PUBREC (QoS 2) that refuses a message; either ends it (section 4.3). Only version 5 has such.
#[must_use]
pub fn unpublished(exactly_once: bool, packet_id: u16, text: &str) -> Vec<u8> {
    let [high, low] = packet_id.to_be_bytes();
    let body = with_text(vec![high, low, Reason::NotAuthorized.code()], text);
    packet(if exactly_once { 0x50 } else { 0x40 }, &body)
}

/// SUBACK made here, for a SUBSCRIBE of which nothing is left.
#[must_use]
pub fn suback(version: Version, packet_id: u16, codes: &[u8], text: &str) -> Vec<u8> {
    let mut body = packet_id.to_be_bytes().to_vec();
    if version == Version::V5 {
        body = with_text(body, text);
    }
    body.extend_from_slice(codes);
    packet(0x90, &body)
}

fn with_text(mut body: Vec<u8>, text: &str) -> Vec<u8> {
    let mut list = Vec::with_capacity(text.len().saturating_add(3));
    if !text.is_empty() {
        list.push(REASON_STRING);
        put(&mut list, text.as_bytes());
    }
    write_length(&mut body, list.len());
    body.extend_from_slice(&list);
    body
}
