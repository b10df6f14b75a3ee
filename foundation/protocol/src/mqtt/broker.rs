//! What is read of a broker's answers: CONNACK and SUBACK, and the number of whatever has one.

use super::fields::Fields;
use super::frame::{Kind, packet, write_length};
use super::properties::{MAXIMUM_PACKET_SIZE, Place, Properties, RECEIVE_MAXIMUM, TOPIC_ALIAS_MAXIMUM, without};
use super::{Broken, Version};

/// A broker's answer to CONNECT (section 3.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnAck<'a> {
    /// Whether the broker still has the client's session.
    pub session_present: bool,
    /// 0 for yes.
    pub reason: u8,
    /// How many aliases the broker takes (version 5; 0 where it says nothing).
    pub topic_alias_maximum: u16,
    /// How many messages it takes before it acknowledges them.
    pub receive_maximum: u16,
    /// The longest packet it takes, where it says so.
    pub maximum_packet_size: Option<u32>,
    /// The name that it gave a client without one (version 5).
    pub assigned_client_id: Option<&'a str>,
    properties: Option<&'a [u8]>,
}

/// What a client is told at most, however much the broker would take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ceilings {
    /// Aliases.
    pub topic_alias_maximum: u16,
    /// Messages not acknowledged, not 0.
    pub receive_maximum: u16,
    /// Bytes of a packet, not 0.
    pub maximum_packet_size: u32,
}

impl<'a> ConnAck<'a> {
    /// Reads the body of a CONNACK.
    ///
    /// # Errors
    /// One variant per cause.
    pub fn read(body: &'a [u8], version: Version) -> Result<Self, Broken> {
        let mut fields = Fields(body);
        let (flags, reason) = (fields.byte()?, fields.byte()?);
        if flags > 1 {
            return Err(Broken::Malformed("reserved flags of CONNACK"));
        }
        // A broker that refuses the version answers in the words of 3.1.1.
        let list = match version {
            Version::V5 if !fields.0.is_empty() => Some(Properties::read(&mut fields, Place::ConnAck)?),
            _ => None,
        };
        fields.end()?;
        let said = list.unwrap_or_default();
        Ok(Self {
            session_present: flags == 1,
            reason,
            topic_alias_maximum: said.topic_alias_maximum.unwrap_or(0),
            receive_maximum: said.receive_maximum.unwrap_or(u16::MAX),
            maximum_packet_size: said.maximum_packet_size,
            assigned_client_id: said.assigned_client_id,
            properties: list.map(|list| list.raw),
        })
    }

    /// The packet with each promise brought down to its ceiling. One of 3.1.1 makes no promises.
    #[must_use]
    pub fn within(&self, ceilings: Ceilings) -> Vec<u8> {
        let mut body = vec![u8::from(self.session_present), self.reason];
        if let Some(raw) = self.properties {
            let ours = [RECEIVE_MAXIMUM, TOPIC_ALIAS_MAXIMUM, MAXIMUM_PACKET_SIZE];
            let mut list = without(raw, Place::ConnAck, &ours);
            if self.reason == 0 {
                let put = |list: &mut Vec<u8>, id: u8, value: &[u8]| {
                    list.push(id);
                    list.extend_from_slice(value);
                };
                let receive = self.receive_maximum.min(ceilings.receive_maximum);
                let aliases = self.topic_alias_maximum.min(ceilings.topic_alias_maximum);
                let size = self
                    .maximum_packet_size
                    .unwrap_or(u32::MAX)
                    .min(ceilings.maximum_packet_size);
                put(&mut list, RECEIVE_MAXIMUM, &receive.to_be_bytes());
                put(&mut list, TOPIC_ALIAS_MAXIMUM, &aliases.to_be_bytes());
                put(&mut list, MAXIMUM_PACKET_SIZE, &size.to_be_bytes());
            }
            write_length(&mut body, list.len());
            body.extend_from_slice(&list);
        }
        packet(0x20, &body)
    }
}

/// A broker's answer to SUBSCRIBE (section 3.9).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubAck<'a> {
    /// The number of the SUBSCRIBE.
    pub packet_id: u16,
    /// One code for each filter, in their order.
    pub codes: &'a [u8],
    properties: Option<&'a [u8]>,
}

impl<'a> SubAck<'a> {
    /// Reads the body of a SUBACK.
    ///
    /// # Errors
    /// One variant per cause.
    pub fn read(body: &'a [u8], version: Version) -> Result<Self, Broken> {
        let mut fields = Fields(body);
        let packet_id = fields.packet_id()?;
        let properties = match version {
            Version::V4 => None,
            Version::V5 => Some(Properties::read(&mut fields, Place::Answer)?.raw),
        };
        Ok(Self {
            packet_id,
            codes: fields.0,
            properties,
        })
    }

    /// The packet with other codes.
    #[must_use]
    pub fn with(&self, codes: &[u8]) -> Vec<u8> {
        let mut body = self.packet_id.to_be_bytes().to_vec();
        if let Some(raw) = self.properties {
            write_length(&mut body, raw.len());
            body.extend_from_slice(raw);
        }
        body.extend_from_slice(codes);
        packet(0x90, &body)
    }
}

/// The number of an acknowledgement, and whether its reason is a failure (0x80 and above; version 5). `None` for packets
/// that have no number at their beginning.
///
/// # Errors
/// When the number is missing or 0.
pub fn packet_id_of(kind: Kind, body: &[u8]) -> Result<Option<(u16, bool)>, Broken> {
    match kind {
        Kind::PubAck | Kind::PubRec | Kind::PubRel | Kind::PubComp => {
            let mut fields = Fields(body);
            let id = fields.packet_id()?;
            Ok(Some((id, fields.0.first().is_some_and(|reason| *reason >= 0x80))))
        }
        _ => Ok(None),
    }
}
