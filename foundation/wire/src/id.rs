//! The identifiers that travel on the wire, as types that parse and print.
//!
//! Sixteen bytes on the wire, hyphenated lower-case hex for people. Making a new one needs a clock and randomness and so
//! happens at the caller, who hands in the bytes of a UUID.

use std::fmt;
use std::str::FromStr;

/// Positions of the hyphens in the 36 characters of a printed UUID (RFC 9562 section 4).
const HYPHENS: [usize; 4] = [8, 13, 18, 23];

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 16]);

        impl $name {
            /// Takes the 16 bytes of a UUID, most significant byte first.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }

            /// The 16 bytes as they stand on the wire.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }
        }

        impl TryFrom<&[u8]> for $name {
            type Error = IdError;

            fn try_from(bytes: &[u8]) -> Result<Self, IdError> {
                <[u8; 16]>::try_from(bytes).map(Self).map_err(|_| IdError::Length { bytes: bytes.len() })
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            /// Accepts exactly what `Display` prints: 36 characters, lower case.
            fn from_str(text: &str) -> Result<Self, IdError> {
                parse(text).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                print(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                print(&self.0, f)
            }
        }
    };
}

uuid_id! {
    /// Names one session at both ends, in both audit logs and to the caller. Made from the bytes of a UUIDv7
    /// (RFC 9562 section 5.7), so ids of one gateway sort by the time of their start.
    SessionId
}

uuid_id! {
    /// Names one run of an agent's process. A new value on a link tells the gateway that the agent restarted and that
    /// sessions of the former run are gone.
    BootId
}

/// Bytes or text that are no id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// The bytes are not exactly 16.
    #[error("an id has 16 bytes, this has {bytes}")]
    Length {
        /// How many bytes there were.
        bytes: usize,
    },
    /// The text is not a hyphenated lower-case UUID.
    #[error("an id is written like 0190b5a4-7c3e-7d11-8a2b-5f6e7d8c9b0a: 36 characters, lower-case hex with hyphens")]
    Text,
}

fn parse(text: &str) -> Result<[u8; 16], IdError> {
    if text.len() != 36 {
        return Err(IdError::Text);
    }
    let mut bytes = [0_u8; 16];
    let mut digits = 0_usize;
    for (at, &character) in text.as_bytes().iter().enumerate() {
        if HYPHENS.contains(&at) {
            if character != b'-' {
                return Err(IdError::Text);
            }
            continue;
        }
        let value = match character {
            b'0'..=b'9' => character - b'0',
            b'a'..=b'f' => character - b'a' + 10,
            _ => return Err(IdError::Text),
        };
        let byte = bytes.get_mut(digits / 2).ok_or(IdError::Text)?;
        *byte = (*byte << 4) | value;
        digits += 1;
    }
    Ok(bytes)
}

fn print(bytes: &[u8; 16], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for (at, byte) in bytes.iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            f.write_str("-")?;
        }
        write!(f, "{byte:02x}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "0190b5a4-7c3e-7d11-8a2b-5f6e7d8c9b0a";

    #[test]
    fn an_id_prints_what_it_parsed() {
        let id: SessionId = TEXT.parse().unwrap();
        assert_eq!(id.to_string(), TEXT);
        assert_eq!(format!("{id:?}"), TEXT);
        assert_eq!(id.as_bytes()[..4], [0x01, 0x90, 0xb5, 0xa4]);
        assert_eq!(SessionId::from_bytes(*id.as_bytes()), id);
        assert_eq!(SessionId::try_from(id.as_bytes().as_slice()), Ok(id));
    }

    #[test]
    fn every_other_spelling_is_refused() {
        let braced = format!("{{{TEXT}}}");
        for text in [
            "",
            &TEXT[1..],
            &TEXT.to_uppercase(),
            &TEXT.replace('-', ""),
            &TEXT.replace('-', "0"),
            &TEXT.replacen("0190", "019-", 1),
            &TEXT.replacen("0190", "019é", 1),
            &TEXT.replacen("0190", "+190", 1),
            &braced,
        ] {
            assert_eq!(text.parse::<BootId>(), Err(IdError::Text), "{text}");
        }
    }

    #[test]
    fn only_sixteen_bytes_make_an_id() {
        for length in (0..64).filter(|&length| length != 16) {
            assert_eq!(
                SessionId::try_from(vec![0; length].as_slice()),
                Err(IdError::Length { bytes: length })
            );
        }
    }

    #[test]
    fn ids_of_later_times_sort_later() {
        let early = SessionId::from_bytes([1; 16]);
        let mut later = [1; 16];
        later[5] = 2;
        assert!(early < SessionId::from_bytes(later));
        assert!(early.to_string() < SessionId::from_bytes(later).to_string());
    }
}
