//! Where packets begin and end (section 2.1).

use super::Broken;

/// What a packet is, by the first four bits (section 2.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A client's first packet.
    Connect,
    /// The server's answer to it.
    ConnAck,
    /// A message.
    Publish,
    /// Ends a message of QoS 1.
    PubAck,
    /// QoS 2, second of four.
    PubRec,
    /// QoS 2, third of four.
    PubRel,
    /// QoS 2, last of four.
    PubComp,
    /// Asks for messages.
    Subscribe,
    /// The server's answer to it.
    SubAck,
    /// Asks for no more messages.
    Unsubscribe,
    /// The server's answer to it.
    UnsubAck,
    /// A client's sign of life.
    PingReq,
    /// The server's answer to it.
    PingResp,
    /// The last packet of a connection; in version 5 of either side.
    Disconnect,
    /// More of a login (version 5).
    Auth,
}

/// The beginning of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the packet is.
    pub kind: Kind,
    /// The low four bits of the first byte, which only PUBLISH uses freely.
    pub flags: u8,
    /// Bytes before the body, 2 to 5.
    pub length: usize,
    /// Bytes of the body, at most 268,435,455.
    pub body: usize,
}

impl Header {
    /// Bytes of the whole packet.
    #[must_use]
    pub fn packet(&self) -> usize {
        self.length.saturating_add(self.body)
    }
}

/// Reads the header at the beginning of `bytes`; `None` where bytes are missing. Nothing is kept or reserved by the length
/// that a peer claims.
///
/// # Errors
/// When no further byte can make it a packet.
pub fn header(bytes: &[u8]) -> Result<Option<Header>, Broken> {
    let Some((first, rest)) = bytes.split_first() else {
        return Ok(None);
    };
    let kind = kind(first >> 4)?;
    let flags = first & 0x0f;
    let expected = match kind {
        Kind::Publish => flags,
        Kind::PubRel | Kind::Subscribe | Kind::Unsubscribe => 2,
        _ => 0,
    };
    if flags != expected {
        return Err(Broken::Malformed("reserved bits in the first byte"));
    }
    let Some((body, digits)) = length(rest)? else {
        return Ok(None);
    };
    Ok(Some(Header {
        kind,
        flags,
        length: digits.saturating_add(1),
        body,
    }))
}

fn kind(number: u8) -> Result<Kind, Broken> {
    Ok(match number {
        1 => Kind::Connect,
        2 => Kind::ConnAck,
        3 => Kind::Publish,
        4 => Kind::PubAck,
        5 => Kind::PubRec,
        6 => Kind::PubRel,
        7 => Kind::PubComp,
        8 => Kind::Subscribe,
        9 => Kind::SubAck,
        10 => Kind::Unsubscribe,
        11 => Kind::UnsubAck,
        12 => Kind::PingReq,
        13 => Kind::PingResp,
        14 => Kind::Disconnect,
        15 => Kind::Auth,
        _ => return Err(Broken::Malformed("packet type 0")),
    })
}

/// A Variable Byte Integer (section 1.5.5): its value and how many bytes it takes, `None` where bytes are missing.
pub(super) fn length(bytes: &[u8]) -> Result<Option<(usize, usize)>, Broken> {
    let mut value = 0_usize;
    for (index, byte) in bytes.iter().take(4).enumerate() {
        value |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            // The shortest spelling only, so that two readers cannot differ.
            if *byte == 0 && index > 0 {
                return Err(Broken::Malformed("a length that is not spelt shortest"));
            }
            return Ok(Some((value, index.saturating_add(1))));
        }
    }
    if bytes.len() >= 4 {
        return Err(Broken::Malformed("a length of more than four bytes"));
    }
    Ok(None)
}

/// Writes a packet: its first byte, its length and its body. A body beyond what a length can say does not occur: callers
/// write at most a little more than they have read.
pub(super) fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(body.len().saturating_add(5));
    bytes.push(first);
    write_length(&mut bytes, body.len());
    bytes.extend_from_slice(body);
    bytes
}

pub(super) fn write_length(bytes: &mut Vec<u8>, mut length: usize) {
    loop {
        let digit = u8::try_from(length & 0x7f).unwrap_or(0x7f);
        length >>= 7;
        if length == 0 {
            return bytes.push(digit);
        }
        bytes.push(digit | 0x80);
    }
}
