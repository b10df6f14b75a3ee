//! The bounds of every field, and the error that names the field which breaks one.
//!
//! The codec bounds a frame; this bounds what is inside, so that a receiver's tables, logs and screens have known sizes.
//! Text may hold no control characters anywhere: it ends up in logs and on terminals. What a text *means* is judged by
//! the receiver's own types, not here.

use std::collections::BTreeMap;

use crate::refusal::Reason;

mod checker;

pub(crate) use checker::Checker;

/// Longest name in bytes: callers, agents, sites, groups, label keys and values, features.
pub const MAX_NAME_BYTES: usize = 128;
/// Longest endpoint URL in bytes.
pub const MAX_URL_BYTES: usize = 256;
/// Longest DNS name in bytes (RFC 1035 section 2.3.4, as text).
pub const MAX_DOMAIN_BYTES: usize = 253;
/// Longest `host:port` in bytes.
pub const MAX_ADDRESS_BYTES: usize = 272;
/// Longest SPIFFE URI in bytes.
pub const MAX_PRINCIPAL_BYTES: usize = 512;
/// Longest program name and version in bytes.
pub const MAX_SOFTWARE_BYTES: usize = 64;
/// Longest detail of a refusal in bytes.
pub const MAX_DETAIL_BYTES: usize = 512;
/// Longest OpenSSH public key line in bytes.
pub const MAX_SSH_KEY_BYTES: usize = 2048;
/// Longest OpenSSH certificate line in bytes.
pub const MAX_SSH_CERTIFICATE_BYTES: usize = 8192;
/// Longest certificate signing request in bytes of DER.
pub const MAX_CSR_BYTES: usize = 4096;
/// Longest proof of key in bytes; an ECDSA signature on P-256 has at most 72.
pub const MAX_PROOF_BYTES: usize = 128;
/// Longest certificate in bytes of DER.
pub const MAX_CERTIFICATE_BYTES: usize = 4096;
/// Longest value that an agent reports about itself in bytes.
pub const MAX_REPORTED_BYTES: usize = 256;

/// Most entries of a list that has no smaller bound: endpoints, groups, labels.
pub const MAX_LIST: usize = 256;
/// Most features in a `requires` list.
pub const MAX_REQUIRES: usize = 32;
/// Most facts that an agent reports about itself.
pub const MAX_REPORTED: usize = 64;
/// Most acts in an `Open`.
pub const MAX_ACTS: usize = 32;
/// Most registered SSH keys of one caller.
pub const MAX_SSH_KEYS: usize = 64;
/// Most SSH certificate authorities, and most gateway addresses.
pub const MAX_FEW: usize = 16;
/// Most endpoints of one report of host keys.
pub const MAX_REPORT: usize = 32;
/// Most host keys of one endpoint.
pub const MAX_HOST_KEYS: usize = 8;
/// Longest host key line in bytes.
pub const MAX_HOST_KEY_BYTES: usize = 1024;
/// Shortest secret of a cancel key in bytes.
pub const MIN_CANCEL_SECRET: usize = 4;
/// Longest secret of a cancel key in bytes (PostgreSQL, protocol 3.2).
pub const MAX_CANCEL_SECRET: usize = 256;
/// Most certificates in a chain, leaf and root included.
pub const MAX_CHAIN: usize = 4;
/// Most root certificates that are trusted at once.
pub const MAX_ROOTS: usize = 8;
/// Highest number of an agent's link: it has at most four, for a time a second one to the same gateway for each, and a side
/// link beside each of the four.
pub const MAX_LINK: usize = 15;
/// The lowest number of a side link, which carries what asks for its transport.
pub const FIRST_SIDE_LINK: u32 = 8;
/// Bytes of a SHA-256 digest.
pub const DIGEST_BYTES: usize = 32;
/// Bytes of a join string's secret.
pub const SECRET_BYTES: usize = 32;
/// Last moment that a message may name: the end of the year 9999, in milliseconds since 1970.
pub const MAX_UNIX_MS: u64 = 253_402_300_799_999;

/// A field of a decoded message is out of its bounds.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}.{field}: {problem}")]
pub struct CheckError {
    /// The message's name as in docs/wire.md.
    pub message: &'static str,
    /// The field's name as in docs/wire.md.
    pub field: &'static str,
    /// What is wrong with it.
    pub problem: Problem,
}

impl CheckError {
    /// The refusal that the peer is told for a message with this error.
    #[must_use]
    pub fn reason(&self) -> Reason {
        Reason::Malformed
    }
}

/// What can be wrong with a field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Must be set and is not.
    #[error("is missing")]
    Missing,
    /// Text or bytes beyond the bound.
    #[error("has {bytes} bytes, at most {max} are allowed")]
    TooLong {
        /// Bytes received.
        bytes: usize,
        /// The bound in bytes.
        max: usize,
    },
    /// A list or map beyond the bound.
    #[error("has {count} entries, at most {max} are allowed")]
    TooMany {
        /// Entries received.
        count: usize,
        /// The bound.
        max: usize,
    },
    /// Bytes of a fixed length with another length.
    #[error("has {bytes} bytes instead of {expected}")]
    WrongLength {
        /// Bytes received.
        bytes: usize,
        /// The one right length in bytes.
        expected: usize,
    },
    /// Text with control characters.
    #[error("contains control characters")]
    ControlCharacter,
    /// A value outside of what the field can mean.
    #[error("must be {expected}")]
    Value {
        /// What would be right, in words.
        expected: &'static str,
    },
}

/// Makes text fit for a field: control characters become spaces and the end is cut at a character border, so that the
/// result has at most `max_bytes` bytes.
#[must_use]
pub fn one_line(text: &str, max_bytes: usize) -> String {
    let mut line = String::with_capacity(text.len().min(max_bytes));
    for character in text.chars() {
        let character = if character.is_control() { ' ' } else { character };
        if line.len() + character.len_utf8() > max_bytes {
            break;
        }
        line.push(character);
    }
    line
}

/// Makes the `reported` map of a message out of facts about this machine: each value fit for its field, facts without a
/// key or value left out, at most [`MAX_REPORTED`] of them.
#[must_use]
pub fn reported<K: AsRef<str>, V: AsRef<str>>(facts: impl IntoIterator<Item = (K, V)>) -> BTreeMap<String, String> {
    facts
        .into_iter()
        .map(|(key, value)| {
            (
                one_line(key.as_ref(), MAX_NAME_BYTES),
                one_line(value.as_ref(), MAX_REPORTED_BYTES),
            )
        })
        .filter(|(key, value)| !key.is_empty() && !value.is_empty())
        .take(MAX_REPORTED)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_cut_between_characters() {
        assert_eq!(one_line("aé", 2), "a");
        assert_eq!(one_line("aé", 3), "aé");
        assert_eq!(one_line("a\r\nb\u{85}", 64), "a  b ");
        assert_eq!(one_line("abc", 0), "");
    }

    #[test]
    fn reported_facts_always_pass_their_check() {
        let many = (0..500).map(|n| (format!("fact{n:03}\n"), format!("{}\t", "é".repeat(n))));
        let map = reported(many.chain([(String::new(), "x".to_owned()), ("k".to_owned(), String::new())]));
        assert_eq!(map.len(), MAX_REPORTED);
        assert_eq!(Checker::of("Hello").reported(&map), Ok(()));
    }

    #[test]
    fn the_error_names_message_field_and_bound() {
        let error = Checker::of("Hello").text("software", &"x".repeat(65), 64).unwrap_err();
        assert_eq!(
            error.to_string(),
            "Hello.software: has 65 bytes, at most 64 are allowed"
        );
        assert_eq!(error.reason(), Reason::Malformed);
    }
}
