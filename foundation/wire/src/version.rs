//! Which wire versions and features this build speaks, and how two peers settle on one.
//!
//! ALPN carries only the purpose of a connection; the version is a number range inside the first message, so a new
//! version needs no new ALPN and a peer that is too old gets a refusal it can show, not a failed handshake.

/// ALPN of a link between agent and gateway; both ends hold certificates.
pub const ALPN_LINK: &[u8] = b"fairlead/1";

/// ALPN of an enrolment: the client has a join string and no certificate yet.
pub const ALPN_ENROLL: &[u8] = b"fairlead-enroll/1";

/// ALPN of a caller's conversation: users and workloads with their certificate.
pub const ALPN_CALL: &[u8] = b"fairlead-call/1";

/// Oldest wire version this build speaks.
pub const VERSION_MIN: u32 = 1;

/// Newest wire version this build speaks.
pub const VERSION_MAX: u32 = 1;

/// Features that a peer may demand by name in a `requires` list. Sorted.
///
/// A name is added here together with the code that honours it, never before.
pub const FEATURES: &[&str] = &[CANCEL, EXPLAIN, MQTT_FACTS];

/// In the `requires` list of an [`Open`](crate::open::Open): nothing is to be opened, only to be answered what the agent's
/// own file says. An agent that does not know it refuses, so that a question never opens anything.
pub const EXPLAIN: &str = "explain";

/// In the `requires` list of an [`Open`](crate::open::Open): nothing is to be opened, only what a live session does is to be
/// cancelled. An agent that does not know it refuses, so that such an `Open` never opens anything.
pub const CANCEL: &str = "cancel";

/// In the `requires` list of a [`CallRequest`](crate::call::CallRequest) or an [`Open`](crate::open::Open) that asks whether
/// something would be let in: the question supposes what an MQTT client says. A peer that does not know it refuses, so that
/// no answer leaves out what was asked about.
pub const MQTT_FACTS: &str = "mqtt-facts";

/// Picks the highest version that both peers speak.
///
/// # Errors
/// [`VersionMismatch`] when the ranges do not meet, or when the peer's range is empty (`theirs_min > theirs_max`).
pub fn negotiate(theirs_min: u32, theirs_max: u32) -> Result<u32, VersionMismatch> {
    let lowest = theirs_min.max(VERSION_MIN);
    let highest = theirs_max.min(VERSION_MAX);
    if theirs_min > theirs_max || lowest > highest {
        return Err(VersionMismatch { theirs_min, theirs_max });
    }
    Ok(highest)
}

/// Accepts a peer's `requires` list when this build knows every name in it ([`FEATURES`]).
///
/// # Errors
/// [`UnknownRequirement`] naming the first feature this build does not know.
pub fn check_required(requires: &[String]) -> Result<(), UnknownRequirement> {
    check_required_of(FEATURES, requires)
}

fn check_required_of(known: &[&str], requires: &[String]) -> Result<(), UnknownRequirement> {
    match requires.iter().find(|name| !known.contains(&name.as_str())) {
        None => Ok(()),
        Some(name) => Err(UnknownRequirement { name: name.clone() }),
    }
}

/// The two peers have no wire version in common.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "no common wire version: the peer speaks {theirs_min} to {theirs_max}, this program {VERSION_MIN} to {VERSION_MAX}; update {}",
    self.side_to_update()
)]
pub struct VersionMismatch {
    /// Oldest version the peer offered.
    pub theirs_min: u32,
    /// Newest version the peer offered.
    pub theirs_max: u32,
}

impl VersionMismatch {
    /// Tells which side is behind, in words for a person: "the peer" or "this program".
    #[must_use]
    pub fn side_to_update(&self) -> &'static str {
        if self.theirs_min > VERSION_MAX && self.theirs_min <= self.theirs_max {
            "this program"
        } else {
            "the peer"
        }
    }
}

/// The peer demands a feature that this build does not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the peer requires the feature {name:?}, which this program does not know; update this program")]
pub struct UnknownRequirement {
    /// The feature's name as the peer wrote it; untrusted text, printed quoted and escaped.
    pub name: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_common_version_is_chosen() {
        assert_eq!(negotiate(1, 1), Ok(1));
        assert_eq!(negotiate(0, 900), Ok(VERSION_MAX));
    }

    #[test]
    fn a_newer_peer_tells_us_to_update() {
        let error = negotiate(VERSION_MAX + 1, u32::MAX).unwrap_err();
        assert_eq!(error.side_to_update(), "this program");
        assert!(error.to_string().contains("update this program"), "{error}");
    }

    #[test]
    fn an_older_or_nonsensical_peer_is_refused() {
        assert_eq!(negotiate(0, 0).unwrap_err().side_to_update(), "the peer");
        assert_eq!(negotiate(2, 1).unwrap_err().side_to_update(), "the peer");
        assert_eq!(negotiate(u32::MAX, 0).unwrap_err().side_to_update(), "the peer");
    }

    #[test]
    fn an_unknown_requirement_is_refused_by_name() {
        assert_eq!(check_required(&[]), Ok(()));
        let asked = ["a".to_owned(), "time-travel".to_owned()];
        let error = check_required_of(&["a", "b"], &asked).unwrap_err();
        assert_eq!(error.name, "time-travel");
        assert_eq!(check_required_of(&["a", "b"], &asked[..1]), Ok(()));
        assert!(check_required(&asked).is_err());
    }

    #[test]
    fn hostile_requirement_names_are_printed_escaped() {
        let error = check_required(&["\u{1b}[2J".to_owned()]).unwrap_err();
        assert!(!error.to_string().contains('\u{1b}'));
    }

    #[test]
    fn features_are_sorted_and_unique() {
        assert!(FEATURES.windows(2).all(|pair| pair[0] < pair[1]));
    }
}
