//! The customer's pause: a mark in the state directory, so that a paused agent stays paused when it starts again.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use fairlead_runtime::config_file::{PrivateError, write_private};
use serde::{Deserialize, Serialize};

/// The mark's name in the state directory.
const MARK: &str = "paused.json";

/// Since when, and by whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paused {
    /// Seconds since 1970; 0 where the mark does not tell.
    pub since: u64,
    /// The user id of whoever asked; `None` where the mark does not tell.
    pub uid: Option<u32>,
}

/// Whether the agent is paused.
#[derive(Debug)]
pub(crate) struct Pause {
    mark: PathBuf,
    state: Mutex<Option<Paused>>,
}

impl Pause {
    /// Reads the mark. One that cannot be read still counts: whoever paused the agent expects it to stay so.
    pub(crate) fn read(state_dir: &Path) -> Self {
        let mark = state_dir.join(MARK);
        let state = match std::fs::read(&mark) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                tracing::warn!(%error, mark = %mark.display(), "the mark of a pause cannot be read: the agent is paused");
                Some(Paused { since: 0, uid: None })
            }
            Ok(bytes) => Some(serde_json::from_slice(&bytes).unwrap_or(Paused { since: 0, uid: None })),
        };
        Self {
            mark,
            state: Mutex::new(state),
        }
    }

    pub(crate) fn is_on(&self) -> bool {
        self.state().is_some()
    }

    /// Since when and by whom, while it is on.
    pub(crate) fn state(&self) -> Option<Paused> {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Turns it on; the mark is on the disk when this returns.
    ///
    /// # Errors
    /// When the mark cannot be written. The pause holds all the same until the process ends.
    pub(crate) fn turn_on(&self, uid: u32, now: SystemTime) -> Result<(), PrivateError> {
        let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let paused = Paused { since, uid: Some(uid) };
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = Some(paused);
        // Two numbers: their JSON cannot fail.
        let text = serde_json::to_vec(&paused).unwrap_or_default();
        write_private(&self.mark, &text, 0o600)
    }

    /// Turns it off: the mark goes first, so that a failure leaves the agent paused.
    ///
    /// # Errors
    /// When the mark cannot be removed.
    pub(crate) fn turn_off(&self) -> io::Result<()> {
        match std::fs::remove_file(&self.mark) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = None;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_pause_outlives_the_process_and_a_resume_too() {
        let dir = tempfile::tempdir().unwrap();
        let pause = Pause::read(dir.path());
        assert!(!pause.is_on());
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(77);
        pause.turn_on(1000, now).unwrap();
        let again = Pause::read(dir.path());
        assert_eq!(
            again.state(),
            Some(Paused {
                since: 77,
                uid: Some(1000)
            })
        );
        again.turn_off().unwrap();
        again.turn_off().unwrap();
        assert!(!Pause::read(dir.path()).is_on());
    }

    #[test]
    fn a_damaged_mark_is_a_pause() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(MARK), "?").unwrap();
        assert!(Pause::read(dir.path()).is_on());
        std::fs::remove_file(dir.path().join(MARK)).unwrap();
        std::fs::create_dir(dir.path().join(MARK)).unwrap();
        assert!(Pause::read(dir.path()).is_on());
    }
}
