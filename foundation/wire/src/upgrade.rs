//! What an HTTP upgrade request of the WebSocket transport says: paths and header fields. Pure.
//!
//! The purposes are those of the ALPNs over QUIC and have the same names, so that one name means one thing on both.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::version::{ALPN_CALL, ALPN_ENROLL, ALPN_LINK};

/// ALPN of every WebSocket of ours on TCP; the path says what for.
pub const ALPN_WEBSOCKET: &[u8] = b"fairlead-ws/1";

/// Header of the answer to a link's request, and of the requests for its further connections: a [`LinkId`].
pub const LINK: &str = "fairlead-link";
/// Header of a further connection: its number within the link, decimal.
pub const NUMBER: &str = "fairlead-number";
/// Header of a link's request: after how many seconds of silence the agent gives it up, decimal.
pub const IDLE: &str = "fairlead-idle";

/// Path of a further connection of a link, for a session to come.
pub const SESSION_PATH: &str = "/fairlead/1/session";

/// Names a link among those of one gateway; drawn by the gateway, worth nothing without the agent's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId([u8; 16]);

impl LinkId {
    /// Of 16 bytes, which should be random.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for LinkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Not 32 lower-case hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a link is named by 32 lower-case hexadecimal digits")]
pub struct NoLinkId;

impl FromStr for LinkId {
    type Err = NoLinkId;

    fn from_str(text: &str) -> Result<Self, NoLinkId> {
        let plain = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if text.len() != 32 || !plain {
            return Err(NoLinkId);
        }
        let number = u128::from_str_radix(text, 16).map_err(|_| NoLinkId)?;
        Ok(Self(number.to_be_bytes()))
    }
}

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// What the ALPN of this name means over QUIC.
    Purpose {
        /// The ALPN.
        alpn: &'static [u8],
        /// After which silence the client gives the connection up.
        idle: Option<Duration>,
    },
    /// A connection for a session to come.
    Session {
        /// Of which link.
        link: LinkId,
        /// Its number within the link.
        number: u64,
    },
}

impl Asked {
    /// Reads a request by its path and headers; `None` for one that is none of ours.
    #[must_use]
    pub fn read<'a>(path: &str, header: impl Fn(&str) -> Option<&'a str>) -> Option<Self> {
        if path == SESSION_PATH {
            return Some(Self::Session {
                link: header(LINK)?.parse().ok()?,
                number: decimal(header(NUMBER)?)?,
            });
        }
        let name = path.strip_prefix('/')?;
        let alpn = [ALPN_LINK, ALPN_ENROLL, ALPN_CALL]
            .into_iter()
            .find(|alpn| *alpn == name.as_bytes())?;
        let idle = match header(IDLE) {
            Some(text) => Some(Duration::from_secs(u64::from(decimal::<u32>(text)?))),
            None => None,
        };
        Some(Self::Purpose { alpn, idle })
    }
}

/// The path of an ALPN's purpose.
#[must_use]
pub fn path_of(alpn: &[u8]) -> String {
    format!("/{}", String::from_utf8_lossy(alpn))
}

fn decimal<T: FromStr>(text: &str) -> Option<T> {
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(path: &str, headers: &[(&str, &'static str)]) -> Option<Asked> {
        Asked::read(path, |name| {
            headers.iter().find(|(of, _)| *of == name).map(|(_, value)| *value)
        })
    }

    #[test]
    fn each_purpose_has_the_name_that_it_has_over_quic() {
        for alpn in [ALPN_LINK, ALPN_ENROLL, ALPN_CALL] {
            assert_eq!(read(&path_of(alpn), &[]), Some(Asked::Purpose { alpn, idle: None }));
        }
        assert_eq!(path_of(ALPN_LINK), "/fairlead/1");
        let idle = Some(Duration::from_secs(12));
        let asked = Asked::Purpose { alpn: ALPN_LINK, idle };
        assert_eq!(read("/fairlead/1", &[(IDLE, "12")]), Some(asked));
        for path in [
            "",
            "/",
            "fairlead/1",
            "/fairlead/1/",
            "/fairlead/2",
            "/fairlead-ws/1",
            "/Fairlead/1",
        ] {
            assert_eq!(read(path, &[]), None, "{path}");
        }
        for idle in ["", "-1", "+1", "1.5", "99999999999"] {
            assert_eq!(read("/fairlead/1", &[(IDLE, idle)]), None, "{idle}");
        }
    }

    #[test]
    fn a_session_names_its_link_and_its_number() {
        let name = "000102030405060708090a0b0c0d0e0f";
        let link = LinkId::from_bytes([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);
        assert_eq!(link.to_string(), name);
        let asked = read(SESSION_PATH, &[(LINK, name), (NUMBER, "7")]);
        assert_eq!(asked, Some(Asked::Session { link, number: 7 }));
        assert_eq!(read(SESSION_PATH, &[(LINK, name)]), None);
        assert_eq!(read(SESSION_PATH, &[(NUMBER, "7")]), None);
        for bad in [
            "",
            "00",
            "000102030405060708090A0B0C0D0E0F",
            "000102030405060708090a0b0c0d0e0g",
            "+00102030405060708090a0b0c0d0e0f",
            "000102030405060708090a0b0c0d0e0f0",
        ] {
            assert_eq!(bad.parse::<LinkId>(), Err(NoLinkId), "{bad}");
        }
    }
}
