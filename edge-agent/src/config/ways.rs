//! `transport`, `proxy` and `proxy_password_file`: by which ways the gateway is reached.

use std::path::PathBuf;

use secrecy::SecretString;
use serde::Deserialize;
use serde_yaml::Spanned;

use super::{Checker, Secrets, Written};
use crate::link::{Choice, Proxies, Proxy, Ways};

/// `transport:` as it is written.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum WrittenTransport {
    #[default]
    Auto,
    Quic,
    WebSocket,
}

/// What of it an agent keeps for its life, to be compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaysAsWritten {
    /// Which transports.
    pub choice: Choice,
    /// `proxy`.
    pub proxy: Option<String>,
    /// `proxy_password_file`.
    pub password_file: Option<PathBuf>,
}

impl Checker<'_> {
    pub(super) fn ways(&mut self, written: &Written) -> (Ways, WaysAsWritten) {
        let choice = match written.transport {
            WrittenTransport::Auto => Choice::Auto,
            WrittenTransport::Quic => Choice::Quic,
            WrittenTransport::WebSocket => Choice::WebSocket,
        };
        let password = self.proxy_password(written);
        let proxies = match &written.proxy {
            Some(url) => match Proxy::parse(&url.value, password) {
                Ok(proxy) => Proxies::always(proxy),
                Err(error) => {
                    self.at(url, error.to_string());
                    Proxies::default()
                }
            },
            // Not in the file: the environment's, whose mistakes stand in no line of it.
            None => Proxies::from_environment().unwrap_or_else(|error| {
                tracing::warn!(%error, "HTTPS_PROXY is not used");
                Proxies::default()
            }),
        };
        let as_written = WaysAsWritten {
            choice,
            proxy: written.proxy.as_ref().map(|url| url.value.clone()),
            password_file: written.proxy_password_file.as_ref().map(|file| file.value.clone()),
        };
        (Ways::new(choice, proxies), as_written)
    }

    fn proxy_password(&mut self, written: &Written) -> Option<SecretString> {
        let file: &Spanned<PathBuf> = written.proxy_password_file.as_ref()?;
        let user = written.proxy.as_ref().is_some_and(|url| url.value.contains('@'));
        if !user {
            self.at(file, "a password needs its user: `proxy: http://USER@host:port`");
            return None;
        }
        if self.secrets == Secrets::LeftAlone {
            return None;
        }
        match super::credentials::password(&file.value) {
            Ok(password) => Some(password),
            Err(told) => {
                self.at(file, told);
                None
            }
        }
    }
}
