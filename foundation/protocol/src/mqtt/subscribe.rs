//! SUBSCRIBE and UNSUBSCRIBE (sections 3.8 and 3.10).

use super::fields::{Fields, put};
use super::frame::{packet, write_length};
use super::properties::{Place, Properties};
use super::{Broken, QoS, Version, topic};

/// Most filters in one packet.
pub const MAX_FILTERS: usize = 128;

/// What a client asks to receive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscribe<'a> {
    /// Its number.
    pub packet_id: u16,
    /// 1 to [`MAX_FILTERS`] filters.
    pub filters: Vec<Filter<'a>>,
    properties: Option<&'a [u8]>,
}

/// One filter of a SUBSCRIBE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filter<'a> {
    /// As sent, `$share/GROUP/` included.
    pub text: &'a str,
    /// The most that messages are delivered with.
    pub qos: QoS,
    options: u8,
}

impl<'a> Subscribe<'a> {
    /// Reads the body of a SUBSCRIBE.
    ///
    /// # Errors
    /// One variant per cause.
    pub fn read(body: &'a [u8], version: Version) -> Result<Self, Broken> {
        let mut fields = Fields(body);
        let packet_id = fields.packet_id()?;
        let properties = match version {
            Version::V4 => None,
            Version::V5 => Some(Properties::read(&mut fields, Place::Subscribe)?.raw),
        };
        let mut filters = Vec::new();
        while !fields.0.is_empty() {
            if filters.len() >= MAX_FILTERS {
                return Err(Broken::Protocol("more than 128 filters in one SUBSCRIBE"));
            }
            let (text, options) = (filter(&mut fields)?, fields.byte()?);
            let reserved = match version {
                Version::V4 => options & 0b1111_1100,
                Version::V5 => options & 0b1100_0000,
            };
            if reserved != 0 || (options >> 4) & 3 == 3 {
                return Err(Broken::Malformed("reserved bits in a subscription's options"));
            }
            if options & 4 != 0 && topic::shared(text).is_some() {
                return Err(Broken::Protocol("`no local` on a shared subscription"));
            }
            let qos = QoS::of(options & 3)?;
            filters.push(Filter { text, qos, options });
        }
        if filters.is_empty() {
            return Err(Broken::Protocol("a SUBSCRIBE without filters"));
        }
        Ok(Self {
            packet_id,
            filters,
            properties,
        })
    }

    /// The packet with those filters alone that `keep` names by their place; `None` where none is left, which is no packet.
    #[must_use]
    pub fn only(&self, keep: impl Fn(usize) -> bool) -> Option<Vec<u8>> {
        let mut body = Vec::with_capacity(256);
        body.extend_from_slice(&self.packet_id.to_be_bytes());
        if let Some(raw) = self.properties {
            write_length(&mut body, raw.len());
            body.extend_from_slice(raw);
        }
        let before = body.len();
        for (_, filter) in self.filters.iter().enumerate().filter(|(place, _)| keep(*place)) {
            put(&mut body, filter.text.as_bytes());
            body.push(filter.options);
        }
        (body.len() > before).then(|| packet(0x82, &body))
    }
}

/// What a client asks to receive no longer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsubscribe<'a> {
    /// Its number.
    pub packet_id: u16,
    /// 1 to [`MAX_FILTERS`] filters.
    pub filters: Vec<&'a str>,
}

impl<'a> Unsubscribe<'a> {
    /// Reads the body of an UNSUBSCRIBE.
    ///
    /// # Errors
    /// One variant per cause.
    pub fn read(body: &'a [u8], version: Version) -> Result<Self, Broken> {
        let mut fields = Fields(body);
        let packet_id = fields.packet_id()?;
        if version == Version::V5 {
            Properties::read(&mut fields, Place::Unsubscribe)?;
        }
        let mut filters = Vec::new();
        while !fields.0.is_empty() {
            if filters.len() >= MAX_FILTERS {
                return Err(Broken::Protocol("more than 128 filters in one UNSUBSCRIBE"));
            }
            filters.push(filter(&mut fields)?);
        }
        if filters.is_empty() {
            return Err(Broken::Protocol("an UNSUBSCRIBE without filters"));
        }
        Ok(Self { packet_id, filters })
    }
}

fn filter<'a>(fields: &mut Fields<'a>) -> Result<&'a str, Broken> {
    let text = fields.text()?;
    if topic::is_filter(text) {
        return Ok(text);
    }
    Err(Broken::Malformed("a topic filter that is none"))
}
