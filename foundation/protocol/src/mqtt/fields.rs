//! The fields that packets are made of (section 1.5).

use super::Broken;
use super::frame::length;

/// Reads field after field from a packet's body.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

const SHORT: Broken = Broken::Malformed("a field goes beyond the packet");

impl<'a> Fields<'a> {
    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], Broken> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(SHORT)?;
        self.0 = rest;
        Ok(taken)
    }

    pub(super) fn byte(&mut self) -> Result<u8, Broken> {
        let (byte, rest) = self.0.split_first().ok_or(SHORT)?;
        self.0 = rest;
        Ok(*byte)
    }

    pub(super) fn two(&mut self) -> Result<u16, Broken> {
        let (bytes, rest) = self.0.split_first_chunk::<2>().ok_or(SHORT)?;
        self.0 = rest;
        Ok(u16::from_be_bytes(*bytes))
    }

    pub(super) fn four(&mut self) -> Result<u32, Broken> {
        let (bytes, rest) = self.0.split_first_chunk::<4>().ok_or(SHORT)?;
        self.0 = rest;
        Ok(u32::from_be_bytes(*bytes))
    }

    /// A Variable Byte Integer.
    pub(super) fn length(&mut self) -> Result<usize, Broken> {
        let (value, digits) = length(self.0)?.ok_or(SHORT)?;
        self.take(digits)?;
        Ok(value)
    }

    /// Binary Data, at most 65,535 bytes.
    pub(super) fn binary(&mut self) -> Result<&'a [u8], Broken> {
        let count = self.two()?;
        self.take(usize::from(count))
    }

    /// A UTF-8 Encoded String without U+0000 and other control characters, which section 1.5.4 lets a receiver refuse:
    /// texts end up in logs and in policy.
    pub(super) fn text(&mut self) -> Result<&'a str, Broken> {
        let text = std::str::from_utf8(self.binary()?).map_err(|_| Broken::Malformed("a text is not UTF-8"))?;
        if text.chars().any(char::is_control) {
            return Err(Broken::Malformed("a text has control characters"));
        }
        Ok(text)
    }

    /// A packet identifier, which is never 0.
    pub(super) fn packet_id(&mut self) -> Result<u16, Broken> {
        match self.two()? {
            0 => Err(Broken::Protocol("packet identifier 0")),
            id => Ok(id),
        }
    }

    pub(super) fn end(self) -> Result<(), Broken> {
        if self.0.is_empty() {
            return Ok(());
        }
        Err(Broken::Malformed("bytes behind the last field"))
    }
}

/// Writes Binary Data or a UTF-8 Encoded String; what is too long for its length is cut, which callers rule out.
pub(super) fn put(body: &mut Vec<u8>, bytes: &[u8]) {
    let count = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    body.extend_from_slice(&count.to_be_bytes());
    body.extend_from_slice(bytes.get(..usize::from(count)).unwrap_or(bytes));
}
