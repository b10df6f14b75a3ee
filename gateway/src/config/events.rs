//! `events:` of gateway.yaml: brokers that are told what happens.

use std::net::IpAddr;
use std::path::PathBuf;

use fairlead_runtime::config_file;
use secrecy::SecretString;
use serde::Deserialize;
use serde_yaml::Spanned;

use super::Mistakes;
use crate::events::Broker;

/// Most of `events`.
const MAX_BROKERS: usize = 4;
/// The port of MQTT.
const PORT: u16 = 1883;
/// The longest prefix of topics and the longest client id, in bytes.
const MAX_NAME: usize = 256;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenEvents {
    mqtt: WrittenBroker,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenBroker {
    url: Spanned<String>,
    topic_prefix: Option<Spanned<String>>,
    client_id: Option<Spanned<String>>,
    username: Option<Spanned<String>>,
    password_file: Option<Spanned<PathBuf>>,
}

impl Mistakes<'_> {
    pub(super) fn events(&mut self, written: &[WrittenEvents], domain: &str) -> Vec<Broker> {
        if let Some(beyond) = written.get(MAX_BROKERS) {
            self.at(&beyond.mqtt.url, format!("at most {MAX_BROKERS} brokers are told"));
        }
        written
            .iter()
            .filter_map(|one| self.broker(&one.mqtt, domain))
            .collect()
    }

    fn broker(&mut self, written: &WrittenBroker, domain: &str) -> Option<Broker> {
        let address = address(&written.url.value);
        if address.is_none() {
            let help = "a broker such as `mqtt://127.0.0.1:1883`; one that wants TLS is reached by `fairlead connect`";
            self.at(&written.url, help);
        }
        let is_near = address.as_ref().is_none_or(|(host, _)| is_loopback(host));
        let login = self.login(written, is_near);
        let prefix = match &written.topic_prefix {
            None => format!("fairlead/{domain}"),
            Some(prefix) => {
                if !is_prefix(&prefix.value) {
                    self.at(
                        prefix,
                        "topics begin with words such as `fairlead/plant`: no wildcards, no `/` at either end",
                    );
                }
                prefix.value.clone()
            }
        };
        let client_id = match &written.client_id {
            None => format!("fairlead-{domain}"),
            Some(id) => {
                if id.value.is_empty() || id.value.len() > MAX_NAME || id.value.chars().any(char::is_control) {
                    self.at(id, format!("a client id has 1 to {MAX_NAME} bytes"));
                }
                id.value.clone()
            }
        };
        let (host, port) = address?;
        Some(Broker {
            host,
            port,
            prefix,
            client_id,
            login,
        })
    }

    /// User and password; in clear they go no further than this machine.
    fn login(&mut self, written: &WrittenBroker, is_near: bool) -> Option<(String, SecretString)> {
        match (&written.username, &written.password_file) {
            (None, None) => None,
            (Some(user), _) if !is_near => {
                self.at(
                    user,
                    "a password goes to a broker on loopback only, since it goes in clear",
                );
                None
            }
            (Some(user), Some(file)) => match config_file::read_secret(&file.value) {
                Ok(password) => Some((user.value.clone(), password)),
                Err(error) => {
                    self.at(file, error.to_string());
                    None
                }
            },
            (Some(user), None) => {
                self.at(user, "a user needs password_file");
                None
            }
            (None, Some(file)) => {
                self.at(file, "a password needs username");
                None
            }
        }
    }
}

fn is_prefix(text: &str) -> bool {
    (1..=MAX_NAME).contains(&text.len())
        && !text.starts_with(['/', '$'])
        && !text.ends_with('/')
        && !text.chars().any(|c| matches!(c, '+' | '#') || c.is_control())
}

/// Host and port of `mqtt://HOST[:PORT]`.
fn address(url: &str) -> Option<(String, u16)> {
    let rest = url.strip_prefix("mqtt://")?;
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) if !rest.ends_with(']') => (host, port.parse().ok().filter(|port| *port > 0)?),
        _ => (rest, PORT),
    };
    let is_literal = host.starts_with('[') && host.ends_with(']');
    let host = host.trim_matches(['[', ']']);
    let is_host = !host.is_empty() && !host.contains(['/', '@', '?', '#', ' ']) && is_literal == host.contains(':');
    is_host.then(|| (host.to_owned(), port))
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}
