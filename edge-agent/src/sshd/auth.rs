//! Who is let in: decided only over a proven signature, never over a key that was merely offered.

use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use fairlead_identity::ssh::verify_user_certificate;
use russh::keys::{Certificate, PublicKey};

use super::{Ended, Login, Settings};

/// What a proven signature is worth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The caller, under a user name that may be used here.
    Admitted,
    /// The caller, under a user name that is not this account's: told so in words, then disconnected.
    WrongUser(String),
    /// Not the caller; the text is for our log, the client learns nothing from it.
    Refused(String),
}

/// Judges a bare key whose possession was proven: it must be one registered for the caller.
pub(super) fn judge_key(settings: &Settings, login: &Login, user: &str, key: &PublicKey) -> Verdict {
    // By key material alone: comments are whatever the owner wrote.
    if login
        .registered_keys
        .iter()
        .any(|registered| registered.key_data() == key.key_data())
    {
        judge_user(settings, login, user)
    } else {
        Verdict::Refused("the key is not registered for the caller".to_owned())
    }
}

/// Judges a certificate whose key's possession was proven: issued by a user CA for the caller by name, in time, from here.
pub(super) fn judge_certificate(
    settings: &Settings,
    login: &Login,
    user: &str,
    certificate: &Certificate,
    now: SystemTime,
) -> Verdict {
    match verify_user_certificate(certificate, &settings.user_cas, &login.caller, login.client_ip, now) {
        Ok(_) => judge_user(settings, login, user),
        Err(error) => Verdict::Refused(error.to_string()),
    }
}

fn judge_user(settings: &Settings, login: &Login, user: &str) -> Verdict {
    let account = &settings.account.name;
    if user == account || user == login.caller {
        return Verdict::Admitted;
    }
    Verdict::WrongUser(format!(
        "fairlead: denied: this device logs everybody in as '{account}': connect as {account}@ or {}@ instead (session {})",
        login.caller, login.session
    ))
}

/// How far a connection has come in proving its caller; shared by russh's task and [`super::serve`].
#[derive(Default)]
pub(super) struct Standing(Mutex<Option<Verdict>>);

impl Standing {
    /// Notes the latest verdict. Admission is final: what comes later cannot undo it, nor a failure be undone by an offer.
    pub(super) fn note(&self, verdict: &Verdict) {
        let mut latest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if *latest != Some(Verdict::Admitted) {
            *latest = Some(verdict.clone());
        }
    }

    fn latest(&self) -> Option<Verdict> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Never resolves once a caller is admitted; resolves at once before.
    pub(super) async fn stay_if_admitted(&self) {
        if self.latest() == Some(Verdict::Admitted) {
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
            (Some(Verdict::Admitted), Ok(()) | Err(russh::Error::HUP | russh::Error::Disconnect)) => Ended::Finished,
            (Some(Verdict::Admitted), Err(russh::Error::IO(error))) if is_gone(&error) => Ended::Finished,
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
