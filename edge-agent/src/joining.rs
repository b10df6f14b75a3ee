//! Enrolments that go on until they are done: for a person who waits for approval, and for a device that was made from an
//! image and finds a join file.
//!
//! One exchange is [`crate::enroll`]'s; here is only how often to ask, and what to say meanwhile.

use std::path::{Path, PathBuf};
use std::time::Duration;

use fairlead_identity::join::{JoinError, JoinString};
use fairlead_identity::name::Label;
use fairlead_runtime::config_file::{self, ReadError};
use fairlead_wire::refusal::Reason;
use rand::RngExt;
use secrecy::ExposeSecret;

use crate::enroll::{self, EnrollError};
use crate::identity_files::{Enrolled, IdentityFiles};
use crate::link::Ways;

/// The first wait, and the shortest.
const SHORTEST: Duration = Duration::from_secs(5);
/// No wait is longer while asking again may help by itself.
const LONGEST: Duration = Duration::from_secs(60);
/// About how long to wait after a refusal that only people can mend: a new join string, another name.
const AFTER_REFUSAL: Duration = Duration::from_secs(300);

/// Enrols, and waits for as long as the name is not approved.
///
/// `say` gets the words for the person who watches. A gateway that is away ends it only before the name is held.
///
/// # Errors
/// Those of [`enroll::enroll_agent_as`], but for `pending`.
pub async fn until_approved(
    join: &JoinString,
    state_dir: &Path,
    name: Option<&Label>,
    ways: &Ways,
    say: impl Fn(&str),
) -> anyhow::Result<Enrolled> {
    let mut waits = Waits::default();
    let mut is_held = false;
    loop {
        let error = match enroll::enroll_agent_as(join, state_dir, name, ways).await {
            Ok(enrolled) => return Ok(enrolled),
            Err(error) => error,
        };
        match Obstacle::of(&error) {
            Obstacle::Pending => {
                if !is_held {
                    say(&format!(
                        "{error}\nThis keeps asking with the same key until then; ended and begun again it goes on where it was."
                    ));
                }
                is_held = true;
            }
            Obstacle::Passing if is_held => tracing::info!(%error, "asking again"),
            _ => return Err(error),
        }
        tokio::time::sleep(waits.next()).await;
    }
}

/// Enrols by a join file, however long it takes. The file is read again each time, so that a new one heals a refusal.
///
/// # Errors
/// Only when the state directory must be put right first; nothing that the network or the gateway does ends it.
pub async fn by_file(join_file: &Path, state_dir: &Path, ways: &Ways) -> anyhow::Result<Enrolled> {
    let mut waits = Waits::default();
    let mut told = String::new();
    loop {
        let error = match attempt(join_file, state_dir, ways).await {
            Ok(enrolled) => return Ok(enrolled),
            Err(error) => error,
        };
        let obstacle = Obstacle::of(&error);
        let wait = match obstacle {
            Obstacle::State => return Err(error),
            Obstacle::Refusal => waits.long(),
            Obstacle::Pending | Obstacle::Passing => waits.next(),
        };
        let why = format!("{error:#}");
        // Once for each new state: a device may wait for weeks.
        if told == why {
            tracing::debug!(why, "still not enrolled");
        } else if obstacle == Obstacle::Refusal {
            tracing::error!(file = %join_file.display(), why, "the join file does not enrol this device; trying again every 5 minutes");
        } else {
            tracing::warn!(file = %join_file.display(), why, "not enrolled yet; asking again with the same key");
        }
        told = why;
        tokio::time::sleep(wait).await;
    }
}

async fn attempt(join_file: &Path, state_dir: &Path, ways: &Ways) -> anyhow::Result<Enrolled> {
    let text = config_file::read_secret(join_file)?;
    let join = JoinString::parse(text.expose_secret())?;
    enroll::enroll_agent_as(&join, state_dir, None, ways).await
}

/// The join file that belongs to a configuration file: `join` beside `agent.yaml`, `NAME.join` beside `NAME.yaml`.
pub fn join_file(config: &Path) -> PathBuf {
    match config.file_stem() {
        Some(stem) if stem != "agent" => config.with_file_name(stem).with_extension("join"),
        _ => config.with_file_name("join"),
    }
}

/// Whether `run` is to enrol by this file first.
///
/// # Errors
/// When the state directory must be put right first.
pub fn is_wanted(join_file: &Path, state_dir: &Path) -> anyhow::Result<bool> {
    Ok(join_file.exists() && !IdentityFiles::look(state_dir)?.is_enrolled())
}

/// The name that a device proposes unless told another: its host name up to the first dot, as a label.
pub(crate) fn label_of(hostname: &str) -> Option<Label> {
    let first = hostname.split('.').next().unwrap_or_default().to_ascii_lowercase();
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let words: Vec<&str> = first.split(|c| !allowed(c)).filter(|word| !word.is_empty()).collect();
    let label: String = words.join("-").chars().take(30).collect();
    label.trim_end_matches('-').parse().ok()
}

/// What stands in the way of an enrolment, by what helps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Obstacle {
    /// An administrator's approval.
    Pending,
    /// Time.
    Passing,
    /// A new join string, or another name.
    Refusal,
    /// A person at the device.
    State,
}

impl Obstacle {
    fn of(error: &anyhow::Error) -> Self {
        use Reason::{AuditFailed, GatewayStopping, Internal, Limit};
        match error.downcast_ref() {
            Some(EnrollError::Pending(_)) => Self::Pending,
            Some(EnrollError::Unreachable(_)) => Self::Passing,
            Some(EnrollError::Refused {
                reason: AuditFailed | GatewayStopping | Internal | Limit,
                ..
            }) => Self::Passing,
            Some(_) => Self::Refusal,
            None if error.is::<JoinError>() || error.is::<ReadError>() => Self::Refusal,
            None => Self::State,
        }
    }
}

/// Decorrelated jitter as between links, but slower: a fleet that waits for approval must not be a load.
#[derive(Debug, Default)]
struct Waits {
    last: Duration,
}

impl Waits {
    fn next(&mut self) -> Duration {
        let ceiling = self.last.saturating_mul(3).clamp(SHORTEST.saturating_mul(2), LONGEST);
        self.last = rand::rng().random_range(SHORTEST..=ceiling);
        self.last
    }

    fn long(&mut self) -> Duration {
        AFTER_REFUSAL.mul_f64(rand::rng().random_range(0.8..=1.2))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_name_becomes_a_label() {
        for (hostname, label) in [
            ("pump-7", "pump-7"),
            ("Pump_7.plant.example", "pump-7"),
            ("--a__b--", "a-b"),
            ("raspberry pi", "raspberry-pi"),
            ("abcdefghij-abcdefghij-abcdefgh-jklm", "abcdefghij-abcdefghij-abcdefgh"),
        ] {
            assert_eq!(label_of(hostname).unwrap().as_str(), label);
        }
        for none in ["", ".local", "日本", "---"] {
            assert!(label_of(none).is_none(), "{none}");
        }
    }

    #[test]
    fn waits_lie_between_five_seconds_and_a_minute() {
        let mut waits = Waits::default();
        let drawn: Vec<_> = (0..200).map(|_| waits.next()).collect();
        assert!(
            drawn.iter().all(|wait| (SHORTEST..=LONGEST).contains(wait)),
            "{drawn:?}"
        );
        assert!(drawn.iter().any(|wait| *wait > LONGEST / 2), "waits grow");
    }

    #[test]
    fn the_join_file_lies_beside_the_configuration() {
        let of = |config: &str| join_file(Path::new(config)).display().to_string();
        assert_eq!(of("/etc/fairlead-agent/agent.yaml"), "/etc/fairlead-agent/join");
        assert_eq!(of("/etc/fairlead-agent/clinic.yaml"), "/etc/fairlead-agent/clinic.join");
    }
}
