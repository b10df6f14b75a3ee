//! PUBLISH (section 3.3).

use super::fields::{Fields, put};
use super::frame::{Header, packet, write_length};
use super::properties::{Place, Properties, without};
use super::{Broken, QoS, Version, topic};

/// A message, of either side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Publish<'a> {
    /// Whether it was sent before.
    pub again: bool,
    /// How surely.
    pub qos: QoS,
    /// Whether the broker keeps it.
    pub retain: bool,
    /// Where to, without wildcards; empty where an alias stands for it (version 5).
    pub topic: &'a str,
    /// Its number, from QoS 1 on.
    pub packet_id: Option<u16>,
    /// The number that stands for the topic from then on, or stands for it already; never 0.
    pub alias: Option<u16>,
    properties: Option<&'a [u8]>,
    payload: &'a [u8],
}

const TOPIC_ALIAS: u8 = 0x23;

impl<'a> Publish<'a> {
    /// Reads the body of a PUBLISH.
    ///
    /// # Errors
    /// One variant per cause.
    pub fn read(header: Header, body: &'a [u8], version: Version) -> Result<Self, Broken> {
        let mut fields = Fields(body);
        let (again, qos, retain) = (
            header.flags & 8 != 0,
            QoS::of((header.flags >> 1) & 3)?,
            header.flags & 1 != 0,
        );
        if again && qos == QoS::AtMostOnce {
            return Err(Broken::Malformed("a message of QoS 0 that was sent before"));
        }
        let name = fields.text()?;
        let packet_id = if qos == QoS::AtMostOnce {
            None
        } else {
            Some(fields.packet_id()?)
        };
        let properties = match version {
            Version::V4 => None,
            Version::V5 => Some(Properties::read(&mut fields, Place::Publish)?),
        };
        let alias = properties.and_then(|list| list.topic_alias);
        if alias == Some(0) {
            return Err(Broken::Protocol("topic alias 0"));
        }
        if !(topic::is_name(name) || name.is_empty() && alias.is_some()) {
            return Err(Broken::Malformed("a topic that is no topic name"));
        }
        Ok(Self {
            again,
            qos,
            retain,
            topic: name,
            packet_id,
            alias,
            properties: properties.map(|list| list.raw),
            payload: fields.0,
        })
    }

    /// Bytes of the message itself.
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// The packet with its topic written out and no alias.
    #[must_use]
    pub fn to_bytes(&self, topic: &str) -> Vec<u8> {
        let mut body = Vec::with_capacity(self.payload.len().saturating_add(topic.len()).saturating_add(16));
        put(&mut body, topic.as_bytes());
        if let Some(id) = self.packet_id {
            body.extend_from_slice(&id.to_be_bytes());
        }
        if let Some(raw) = self.properties {
            let kept = without(raw, Place::Publish, &[TOPIC_ALIAS]);
            write_length(&mut body, kept.len());
            body.extend_from_slice(&kept);
        }
        body.extend_from_slice(self.payload);
        packet(
            0x30 | u8::from(self.again) << 3 | self.qos.number() << 1 | u8::from(self.retain),
            &body,
        )
    }
}
