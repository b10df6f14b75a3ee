//! Which host key another SSH server shows: a key exchange and nothing after it.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use russh::keys::{Algorithm, EcdsaCurve, PublicKeyOrCertificate};
use russh::{AlgorithmKind, Error, client};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

/// One key exchange with a server.
const EXCHANGE_LIMIT: Duration = Duration::from_secs(10);

/// A family of host keys. A server has at most one key of each in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// ssh-ed25519.
    Ed25519,
    /// ecdsa-sha2-nistp256, -384 and -521.
    Ecdsa,
}

impl Family {
    /// Every family that is asked for. RSA is not: this build has no RSA code (SECURITY.md advisory 73).
    pub const ALL: [Self; 2] = [Self::Ed25519, Self::Ecdsa];

    fn algorithms(self) -> &'static [Algorithm] {
        const ECDSA: &[Algorithm] = &[
            Algorithm::Ecdsa {
                curve: EcdsaCurve::NistP256,
            },
            Algorithm::Ecdsa {
                curve: EcdsaCurve::NistP384,
            },
            Algorithm::Ecdsa {
                curve: EcdsaCurve::NistP521,
            },
        ];
        match self {
            Self::Ed25519 => &[Algorithm::Ed25519],
            Self::Ecdsa => ECDSA,
        }
    }
}

/// The server behind `stream` shows its key of this family, proven by its signature: an OpenSSH line without a comment.
/// `None` when it has none.
///
/// # Errors
/// Why it is not known, in words for the log: no SSH server, no answer within 10 s.
pub async fn shown_key<S>(stream: S, family: Family) -> Result<Option<String>, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut config = client::Config::default();
    config.preferred.key = Cow::Borrowed(family.algorithms());
    let witness = Witness::default();
    let exchange = client::connect_stream(Arc::new(config), stream, witness.clone());
    // The exchange ends with our refusal of the key, whatever the key is: nobody logs in.
    let outcome = timeout(EXCHANGE_LIMIT, exchange).await;
    if let Some(line) = witness.seen.lock().unwrap_or_else(PoisonError::into_inner).take() {
        return Ok(Some(line));
    }
    match outcome {
        Ok(Err(Error::NoCommonAlgo {
            kind: AlgorithmKind::Key,
            ..
        })) => Ok(None),
        Ok(Err(error)) => Err(error.to_string()),
        Ok(Ok(_)) => Err("the server showed no key".into()),
        Err(_) => Err("no key exchange within 10 s".into()),
    }
}

/// Sees a key and refuses it.
#[derive(Clone, Default)]
struct Witness {
    seen: Arc<Mutex<Option<String>>>,
}

impl client::Handler for Witness {
    type Error = Error;

    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, Error> {
        if let PublicKeyOrCertificate::PublicKey { key, .. } = shown {
            let bare = russh::keys::PublicKey::new(key.key_data().clone(), "");
            *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = bare.to_openssh().ok();
        }
        Ok(false)
    }
}
