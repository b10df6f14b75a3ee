//! TLS to an upstream: `tls: { mode, ca_file }`, as written and as checked.

use std::path::PathBuf;
use std::sync::Arc;

use fairlead_identity::tls::{self, UpstreamTrust};
use fairlead_runtime::config_file;
use rustls::ClientConfig;
use serde::Deserialize;
use serde_yaml::Spanned;

/// Longest CA file, in bytes: a bundle of a whole system fits.
const MAX_CA_BYTES: u64 = 1024 * 1024;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenTls {
    pub(super) mode: Spanned<Mode>,
    pub(super) ca_file: Option<Spanned<PathBuf>>,
}

/// How much an upstream must prove, in libpq's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// A chain to the CA file, and the name in the upstream's URL.
    VerifyFull,
    /// A chain to the CA file.
    VerifyCa,
    /// Nothing; encrypted only.
    Require,
}

/// TLS to an upstream, ready to be used.
#[derive(Clone)]
pub struct UpstreamTls {
    mode: Mode,
    /// The text of the CA file, so that a changed file is a changed configuration.
    ca_pem: Option<String>,
    settings: Arc<ClientConfig>,
}

impl UpstreamTls {
    /// Reads the CA file and makes the settings.
    ///
    /// # Errors
    /// In words for the customer, and whether the CA file is what they are about.
    pub(super) fn check(written: &WrittenTls) -> Result<Self, (bool, String)> {
        let mode = written.mode.value;
        let ca_pem = match (&written.ca_file, mode) {
            (Some(_), Mode::Require) => {
                return Err((
                    true,
                    "ca_file has no meaning with mode require, which verifies nothing".into(),
                ));
            }
            (None, Mode::VerifyFull | Mode::VerifyCa) => {
                let text = "verify-full and verify-ca need ca_file: the system's authorities are not consulted";
                return Err((false, text.into()));
            }
            (None, Mode::Require) => None,
            (Some(file), _) => {
                let read = config_file::read(&file.value, MAX_CA_BYTES);
                Some(read.map_err(|error| (true, error.to_string()))?.text)
            }
        };
        let trust = match (mode, ca_pem.as_deref()) {
            (Mode::VerifyFull, Some(pem)) => UpstreamTrust::Full(pem),
            (Mode::VerifyCa, Some(pem)) => UpstreamTrust::Authority(pem),
            _ => UpstreamTrust::Nothing,
        };
        let settings = tls::upstream(trust, &[]).map_err(|error| (true, error.to_string()))?;
        Ok(Self { mode, ca_pem, settings })
    }

    /// The mode, as the file writes it.
    pub fn mode_name(&self) -> &'static str {
        match self.mode {
            Mode::VerifyFull => "verify-full",
            Mode::VerifyCa => "verify-ca",
            Mode::Require => "require",
        }
    }

    /// Whether whoever answers has proven something.
    pub(crate) fn proves(&self) -> bool {
        self.mode != Mode::Require
    }

    /// The settings for a handshake.
    pub(crate) fn settings(&self) -> &Arc<ClientConfig> {
        &self.settings
    }
}

impl PartialEq for UpstreamTls {
    fn eq(&self, other: &Self) -> bool {
        (self.mode, &self.ca_pem) == (other.mode, &other.ca_pem)
    }
}

impl Eq for UpstreamTls {}

impl std::fmt::Debug for UpstreamTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UpstreamTls")
            .field("mode", &self.mode)
            .finish_non_exhaustive()
    }
}
