//! The keys of the SSH face and the algorithms it offers.

use std::borrow::Cow;
use std::time::Duration;

use anyhow::Context;
use fairlead_runtime::channel::WINDOW;
use russh::keys::{Algorithm, Certificate, EcdsaCurve, PrivateKey, PublicKey};
use russh::server::Config;
use russh::{MethodKind, MethodSet, Preferred, SshId, cipher, compression, kex, mac};

/// Host key, its certificate, and the authorities whose user certificates are accepted; OpenSSH text forms.
#[derive(Clone)]
pub struct Keys {
    /// The host's private key, OpenSSH PEM.
    pub host_key: String,
    /// The host's certificate, one OpenSSH line.
    pub host_certificate: String,
    /// Public keys of the user CAs, OpenSSH lines.
    pub user_cas: Vec<String>,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys")
            .field("user_cas", &self.user_cas)
            .finish_non_exhaustive()
    }
}

impl Keys {
    pub(super) fn user_cas(&self) -> anyhow::Result<Vec<PublicKey>> {
        self.user_cas
            .iter()
            .map(|line| PublicKey::from_openssh(line).context("an SSH user CA key is damaged"))
            .collect()
    }

    /// Settings of the SSH server.
    ///
    /// Key exchange and ciphers are only those that strict key exchange protects (Terrapin, CVE-2023-48795); no
    /// compression (memory by a peer's choice); no rsa at all.
    pub(super) fn server_config(&self) -> anyhow::Result<Config> {
        let host_key = PrivateKey::from_openssh(&self.host_key).context("the SSH host key is damaged")?;
        let certificate =
            Certificate::from_openssh(&self.host_certificate).context("the SSH host certificate is damaged")?;
        Ok(Config {
            server_id: SshId::Standard(Cow::Borrowed("SSH-2.0-Fairlead")),
            methods: MethodSet::from([MethodKind::PublicKey].as_slice()),
            auth_rejection_time: Duration::from_millis(300),
            auth_rejection_time_initial: Some(Duration::ZERO),
            keys: vec![host_key],
            certificates: vec![certificate],
            max_auth_attempts: 6,
            inactivity_timeout: None,
            keepalive_interval: Some(Duration::from_secs(30)),
            keepalive_max: 3,
            nodelay: true,
            window_size: WINDOW,
            preferred: preferred(),
            ..Config::default()
        })
    }
}

fn preferred() -> Preferred {
    const KEX: &[kex::Name] = &[
        kex::MLKEM768X25519_SHA256,
        kex::CURVE25519,
        kex::CURVE25519_PRE_RFC_8731,
        kex::EXTENSION_SUPPORT_AS_SERVER,
        kex::EXTENSION_OPENSSH_STRICT_KEX_AS_SERVER,
    ];
    const KEY: &[Algorithm] = &[
        Algorithm::Ed25519,
        Algorithm::Ecdsa {
            curve: EcdsaCurve::NistP256,
        },
        Algorithm::Ecdsa {
            curve: EcdsaCurve::NistP384,
        },
        Algorithm::SkEd25519,
        Algorithm::SkEcdsaSha2NistP256,
    ];
    const CIPHER: &[cipher::Name] = &[cipher::AES_128_GCM, cipher::AES_256_GCM, cipher::CHACHA20_POLY1305];
    const MAC: &[mac::Name] = &[mac::HMAC_SHA256_ETM, mac::HMAC_SHA512_ETM];
    const NO_COMPRESSION: &[compression::Name] = &[compression::NONE];
    Preferred {
        kex: Cow::Borrowed(KEX),
        key: Cow::Borrowed(KEY),
        cipher: Cow::Borrowed(CIPHER),
        mac: Cow::Borrowed(MAC),
        compression: Cow::Borrowed(NO_COMPRESSION),
        ..Preferred::DEFAULT
    }
}
