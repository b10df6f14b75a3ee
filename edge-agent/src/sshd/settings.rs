//! What one connection is served with: keys, who may log in, and what russh is told to offer.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use russh::keys::{Algorithm, Certificate, EcdsaCurve, PrivateKey, PublicKey};
use russh::server::Config;
use russh::{MethodKind, MethodSet, Preferred, SshId, cipher, compression, kex, mac};

use super::{Account, Users};
use fairlead_runtime::channel::WINDOW;

/// What all connections of an agent have in common.
///
/// No `Debug`: it holds the host's private key.
#[derive(Clone)]
pub struct Settings {
    /// Proves this host to the client. Ed25519 or ECDSA.
    pub host_key: PrivateKey,
    /// Certifies `host_key`, so that clients need to know only the host CA. Offered ahead of the bare key.
    pub host_certificate: Option<Certificate>,
    /// Keys whose user certificates are accepted. A certificate among them is never trusted as a CA.
    pub user_cas: Vec<PublicKey>,
    /// The agent's own user.
    pub account: Account,
    /// Whether callers may be the agent's own user.
    pub own_login: bool,
    /// Whom else callers may become.
    pub users: Users,
}

/// Who may log in on one connection, as the gateway said when it opened the stream.
#[derive(Debug, Clone)]
pub struct Login {
    /// The caller's name: the principal which a certificate must carry.
    pub caller: String,
    /// Keys registered for the caller, accepted without a certificate.
    pub registered_keys: Vec<PublicKey>,
    /// The acts which the gateway permits: a subset of `shell`, `exec`, `sftp`.
    pub acts: BTreeSet<String>,
    /// Where the caller comes from, as the gateway saw it; certificates may be bound to it.
    pub client_ip: IpAddr,
    /// The session's id, shown in refusals so that both sides can be asked about it.
    pub session: String,
}

/// Something a client wants to start on a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Act<'a> {
    /// An interactive login shell.
    Shell,
    /// A command for the account's shell. Always valid UTF-8 without NUL, at most 64 KiB.
    Exec {
        /// The command, exactly as the shell will get it.
        command: &'a str,
    },
    /// File transfer.
    Sftp,
}

impl Act<'_> {
    /// The act's name in policies and audit: `shell`, `exec` or `sftp`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Shell => "shell",
            Self::Exec { .. } => "exec",
            Self::Sftp => "sftp",
        }
    }
}

/// Lives as long as an act does, for whoever must know which are going on.
pub type UnderWay = Box<dyn Send>;

/// The agent's own rules and audit, asked before each act that the gateway permits.
pub trait Acts: Send + Sync {
    /// Decides and records one act, before it starts. What is returned is dropped when the act has ended.
    ///
    /// `user` is the account it would run as. Runs on the connection's own task: it must not wait for the network.
    ///
    /// # Errors
    /// The refusal in words for the caller, without the session's id (it is added).
    fn begin(&self, act: Act<'_>, user: &str) -> Result<UnderWay, String>;

    /// Records an act that the gateway's permit does not cover and that is refused for this reason. As [`Acts::begin`]
    /// otherwise.
    fn refused(&self, act: Act<'_>, user: &str);
}

impl Settings {
    /// The same settings, presenting the host certificate of this OpenSSH line.
    ///
    /// # Errors
    /// When the line is no certificate, or certifies another key.
    pub fn with_host_certificate(self, line: &str) -> Result<Self, String> {
        let certificate = Certificate::from_openssh(line).map_err(|error| error.to_string())?;
        if !certificate.cert_type().is_host() {
            return Err("it certifies a user".into());
        }
        if certificate.public_key() != self.host_key.public_key().key_data() {
            return Err("it certifies another key".into());
        }
        Ok(Self {
            host_certificate: Some(certificate),
            ..self
        })
    }

    /// What russh offers: public keys only, AEAD ciphers, strict key exchange over curve25519 with and without ML-KEM.
    pub(super) fn protocol(&self) -> Config {
        Config {
            server_id: SshId::Standard(Cow::Borrowed(concat!("SSH-2.0-Fairlead_", env!("CARGO_PKG_VERSION")))),
            methods: MethodSet::from(&[MethodKind::PublicKey][..]),
            // The caller's name is no secret here, so failures need not take equally long; a little slows guessing.
            auth_rejection_time: Duration::from_millis(100),
            // The first `none` request is how clients ask for the methods.
            auth_rejection_time_initial: Some(Duration::ZERO),
            max_auth_attempts: 6,
            keys: vec![self.host_key.clone()],
            certificates: self.host_certificate.iter().cloned().collect(),
            preferred: preferred(),
            window_size: WINDOW,
            maximum_packet_size: 32 * 1024,
            // Bounds what programs have read but the connection has not sent: 16 packets of 32 KiB over all channels.
            event_buffer_size: 16,
            inactivity_timeout: None,
            keepalive_interval: Some(Duration::from_secs(30)),
            keepalive_max: 3,
            ..Config::default()
        }
    }
}

fn preferred() -> Preferred {
    Preferred {
        kex: Cow::Borrowed(&[
            kex::MLKEM768X25519_SHA256,
            kex::CURVE25519,
            kex::CURVE25519_PRE_RFC_8731,
            kex::EXTENSION_SUPPORT_AS_SERVER,
            kex::EXTENSION_OPENSSH_STRICT_KEX_AS_SERVER,
        ]),
        // RSA is missing on purpose: neither host nor user keys (docs: RSA user keys are refused).
        key: Cow::Borrowed(&[
            Algorithm::Ed25519,
            Algorithm::Ecdsa {
                curve: EcdsaCurve::NistP256,
            },
            Algorithm::Ecdsa {
                curve: EcdsaCurve::NistP384,
            },
            Algorithm::SkEd25519,
            Algorithm::SkEcdsaSha2NistP256,
        ]),
        host_key_certificates: Cow::Borrowed(&[]),
        cipher: Cow::Borrowed(&[cipher::AES_256_GCM, cipher::AES_128_GCM, cipher::CHACHA20_POLY1305]),
        // Negotiated by the protocol's letter, unused with AEAD ciphers.
        mac: Cow::Borrowed(&[mac::HMAC_SHA256_ETM, mac::HMAC_SHA512_ETM]),
        compression: Cow::Borrowed(&[compression::NONE]),
    }
}
