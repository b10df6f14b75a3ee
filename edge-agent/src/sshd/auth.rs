//! Who is let in: decided only over a proven signature, never over a key that was merely offered.

use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use fairlead_identity::ssh::verify_user_certificate;
use russh::keys::{Certificate, PublicKey};

use super::switching::RunAs;
use super::{Ended, Login, Settings};

/// What a proven signature is worth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The caller, under a user name that may be used here: as whom its programs run.
    Admitted(RunAs),
    /// The caller, under a user name that may not be used here: told so in words, then disconnected.
    WrongUser(String),
    /// Not the caller; the text is for our log, the client learns nothing from it.
    Refused(String),
}

/// Judges a bare key whose possession was proven: it must be one registered for the caller. The error is for our log.
pub(super) fn judge_key(login: &Login, key: &PublicKey) -> Result<(), String> {
    // By key material alone: comments are whatever the owner wrote.
    let is_registered = login
        .registered_keys
        .iter()
        .any(|registered| registered.key_data() == key.key_data());
    if is_registered {
        Ok(())
    } else {
        Err("the key is not registered for the caller".to_owned())
    }
}

/// Judges a certificate whose key's possession was proven: issued by a user CA for the caller by name, in time, from here.
/// The error is for our log.
pub(super) fn judge_certificate(
    settings: &Settings,
    login: &Login,
    certificate: &Certificate,
    now: SystemTime,
) -> Result<(), String> {
    verify_user_certificate(certificate, &settings.user_cas, &login.caller, login.client_ip, now)
        .map(|_| ())
        .map_err(|error| error.to_string())
}

/// How far a connection has come in proving its caller; shared by russh's task and [`super::serve`].
#[derive(Default)]
pub(super) struct Standing(Mutex<Option<Verdict>>);

impl Standing {
    /// Notes the latest verdict. Admission is final: what comes later cannot undo it, nor a failure be undone by an offer.
    pub(super) fn note(&self, verdict: &Verdict) {
        let mut latest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !matches!(*latest, Some(Verdict::Admitted(_))) {
            *latest = Some(verdict.clone());
        }
    }

    fn latest(&self) -> Option<Verdict> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Never resolves once a caller is admitted; resolves at once before.
    pub(super) async fn stay_if_admitted(&self) {
        if let Some(Verdict::Admitted(_)) = self.latest() {
            std::future::pending().await
        }
    }

    /// Puts the end of russh's task into words.
    pub(super) fn ending(&self, result: Result<(), russh::Error>) -> Ended {
        match (self.latest(), result) {
            (Some(Verdict::WrongUser(text) | Verdict::Refused(text)), _) => Ended::NotAdmitted(text),
            (None, Ok(()) | Err(russh::Error::HUP | russh::Error::Disconnect)) => {
                Ended::NotAdmitted("the client left without an attempt".to_owned())
            }
            (Some(Verdict::Admitted(_)), Ok(()) | Err(russh::Error::HUP | russh::Error::Disconnect)) => Ended::Finished,
            (Some(Verdict::Admitted(_)), Err(russh::Error::IO(error))) if is_gone(&error) => Ended::Finished,
            (_, Err(error)) => Ended::Failed(error.to_string()),
        }
    }
}

/// A client that vanished rather than said goodbye.
fn is_gone(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(
        error.kind(),
        UnexpectedEof | ConnectionReset | ConnectionAborted | BrokenPipe
    )
}
