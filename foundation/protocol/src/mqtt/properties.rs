//! Properties of version 5 (section 2.2.2): read once, each by its own rules, and kept as the bytes they are.

use super::Broken;
use super::fields::Fields;

/// Where properties stand, which says which of them may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Connect,
    Will,
    ConnAck,
    Publish,
    Subscribe,
    Unsubscribe,
    /// SUBACK and other answers.
    Answer,
}

/// What somebody here reads of a list of properties.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Properties<'a> {
    /// The list as it was sent, without its length.
    pub(super) raw: &'a [u8],
    pub(super) topic_alias: Option<u16>,
    pub(super) topic_alias_maximum: Option<u16>,
    pub(super) receive_maximum: Option<u16>,
    pub(super) maximum_packet_size: Option<u32>,
    pub(super) assigned_client_id: Option<&'a str>,
    pub(super) authentication: bool,
    /// Request Problem Information is 0.
    pub(super) wordless: bool,
}

pub(super) const RECEIVE_MAXIMUM: u8 = 0x21;
pub(super) const TOPIC_ALIAS_MAXIMUM: u8 = 0x22;
pub(super) const MAXIMUM_PACKET_SIZE: u8 = 0x27;
pub(super) const REASON_STRING: u8 = 0x1f;
const USER_PROPERTY: u8 = 0x26;
const SUBSCRIPTION_ID: u8 = 0x0b;

const NOT_HERE: Broken = Broken::Protocol("a property that this packet does not have");

/// Most user properties in one list; others occur once.
const MAX_USER_PROPERTIES: u32 = 64;

impl<'a> Properties<'a> {
    /// Reads a list with its length.
    ///
    /// # Errors
    /// On a property that does not belong there, comes twice or cannot be read.
    pub(super) fn read(fields: &mut Fields<'a>, place: Place) -> Result<Self, Broken> {
        let count = fields.length()?;
        let raw = fields.take(count)?;
        let mut list = Self { raw, ..Self::default() };
        let (mut rest, mut seen, mut users) = (Fields(raw), 0_u64, 0_u32);
        while !rest.0.is_empty() {
            let id = rest.byte()?;
            if !belongs(id, place) {
                return Err(NOT_HERE);
            }
            let bit = 1_u64 << (id & 0x3f);
            if id == USER_PROPERTY {
                users = users.saturating_add(1);
                if users > MAX_USER_PROPERTIES {
                    return Err(Broken::Protocol("more than 64 user properties"));
                }
            } else if seen & bit != 0 && !(id == SUBSCRIPTION_ID && place == Place::Publish) {
                return Err(Broken::Protocol("a property that comes twice"));
            }
            seen |= bit;
            list.property(id, &mut rest)?;
        }
        Ok(list)
    }

    fn property(&mut self, id: u8, rest: &mut Fields<'a>) -> Result<(), Broken> {
        match id {
            0x17 => match rest.byte()? {
                0 => self.wordless = true,
                1 => {}
                _ => return Err(Broken::Protocol("a property that is neither 0 nor 1")),
            },
            // Payload format, request response information, maximum QoS, retain, wildcard,
            // subscription identifiers and shared subscriptions available.
            0x01 | 0x19 | 0x24 | 0x25 | 0x28 | 0x29 | 0x2a => {
                if rest.byte()? > 1 {
                    return Err(Broken::Protocol("a property that is neither 0 nor 1"));
                }
            }
            // Message expiry, session expiry, will delay.
            0x02 | 0x11 | 0x18 => drop(rest.four()?),
            // Content type, response topic, response information, server reference, reason string.
            0x03 | 0x08 | 0x1a | 0x1c | REASON_STRING => drop(rest.text()?),
            // Correlation data.
            0x09 => drop(rest.binary()?),
            SUBSCRIPTION_ID => {
                if rest.length()? == 0 {
                    return Err(Broken::Protocol("subscription identifier 0"));
                }
            }
            0x12 => self.assigned_client_id = Some(rest.text()?),
            // Server keep alive.
            0x13 => drop(rest.two()?),
            // Authentication method and data.
            0x15 => {
                rest.text()?;
                self.authentication = true;
            }
            0x16 => {
                rest.binary()?;
                self.authentication = true;
            }
            RECEIVE_MAXIMUM => self.receive_maximum = Some(not_zero(rest.two()?)?),
            TOPIC_ALIAS_MAXIMUM => self.topic_alias_maximum = Some(rest.two()?),
            0x23 => self.topic_alias = Some(rest.two()?),
            USER_PROPERTY => {
                rest.text()?;
                rest.text()?;
            }
            MAXIMUM_PACKET_SIZE => match rest.four()? {
                0 => return Err(Broken::Protocol("a maximum packet size of 0")),
                size => self.maximum_packet_size = Some(size),
            },
            _ => return Err(NOT_HERE),
        }
        Ok(())
    }
}

fn not_zero(value: u16) -> Result<u16, Broken> {
    if value == 0 {
        Err(Broken::Protocol("a receive maximum of 0"))
    } else {
        Ok(value)
    }
}

/// Table 2-4.
fn belongs(id: u8, place: Place) -> bool {
    match place {
        Place::Connect => matches!(id, 0x11 | 0x15 | 0x16 | 0x17 | 0x19 | 0x21 | 0x22 | 0x26 | 0x27),
        Place::Will => matches!(id, 0x01 | 0x02 | 0x03 | 0x08 | 0x09 | 0x18 | 0x26),
        Place::ConnAck => matches!(
            id,
            0x11 | 0x12
                | 0x13
                | 0x15
                | 0x16
                | 0x1a
                | 0x1c
                | 0x1f
                | 0x21
                | 0x22
                | 0x24
                | 0x25
                | 0x26
                | 0x27
                | 0x28
                | 0x29
                | 0x2a
        ),
        Place::Publish => matches!(id, 0x01 | 0x02 | 0x03 | 0x08 | 0x09 | 0x0b | 0x23 | 0x26),
        Place::Subscribe => matches!(id, 0x0b | 0x26),
        Place::Unsubscribe => id == USER_PROPERTY,
        Place::Answer => matches!(id, REASON_STRING | USER_PROPERTY),
    }
}

/// The list `raw` without the properties `taken_out`. `raw` was read by [`Properties::read`].
pub(super) fn without(raw: &[u8], place: Place, taken_out: &[u8]) -> Vec<u8> {
    let (mut rest, mut kept) = (Fields(raw), Vec::with_capacity(raw.len()));
    while let Some(id) = rest.0.first().copied() {
        let before = rest.0;
        let _id = rest.byte();
        if !belongs(id, place) || Properties::default().property(id, &mut rest).is_err() {
            return kept;
        }
        let used = before.len().saturating_sub(rest.0.len());
        if !taken_out.contains(&id) {
            kept.extend_from_slice(before.get(..used).unwrap_or_default());
        }
    }
    kept
}
