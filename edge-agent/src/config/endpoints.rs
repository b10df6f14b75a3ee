//! `endpoints:` of `agent.yaml`: what callers may reach, and by whose leave.

use std::path::PathBuf;
use std::time::Duration;

use fairlead_identity::name::{EndpointUrl, Protocol};
use fairlead_policy::{LocalRules, RuleAsWritten};
use fairlead_runtime::config_file::{HumanDuration, Mistake};
use serde::Deserialize;
use serde_yaml::Spanned;

use super::Checker;
use super::credentials::{Credential, WrittenCredential};
use super::upstream::{Upstream, WrittenUpstream};

/// How often an upstream may be looked after.
const CHECK_EVERY: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3600);

/// One endpoint of the file.
#[derive(Debug)]
pub struct Endpoint {
    /// Its URL.
    pub url: EndpointUrl,
    /// The line of the file it stands on.
    pub line: u32,
    /// What the agent dials for it.
    pub upstream: Upstream,
    /// Other agents may offer the same URL.
    pub pooling_enabled: bool,
    /// Who may use it, in the customer's words; `None`: every caller that the gateway permits.
    pub rules: Option<LocalRules>,
    /// Whom the agent logs in as for callers; empty: callers log in themselves.
    pub credentials: Vec<Credential>,
    /// Where the statements of callers are written.
    pub statement_log: Option<PathBuf>,
    /// Its sessions go over WebSocket where that can be had.
    pub over_websocket: bool,
    /// How often the upstream is looked after; `None`: never.
    pub check_every: Option<Duration>,
}

/// `transport:` of one endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum WrittenTransport {
    #[default]
    Auto,
    WebSocket,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenHealthCheck {
    interval: Spanned<HumanDuration>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenEndpoint {
    pub(super) url: Spanned<String>,
    pub(super) upstream: WrittenUpstream,
    #[serde(default)]
    pub(super) pooling_enabled: bool,
    pub(super) rules: Option<Vec<RuleAsWritten>>,
    credentials: Option<Spanned<Vec<WrittenCredential>>>,
    statement_log: Option<Spanned<PathBuf>>,
    #[serde(default)]
    transport: WrittenTransport,
    health_check: Option<WrittenHealthCheck>,
}

impl Checker<'_> {
    pub(super) fn endpoint(&mut self, written: WrittenEndpoint) -> Option<Endpoint> {
        let url = match written.url.value.parse::<EndpointUrl>() {
            Ok(url) => Some(url),
            Err(error) => {
                self.at(&written.url, error.to_string());
                None
            }
        };
        if let Some(url) = &url {
            self.check_url(url, &written.url);
        }
        let upstream = self.upstream(&written.upstream, url.as_ref());
        let credentials = match &written.credentials {
            Some(list) => self.credentials(list, url.as_ref(), written.rules.is_some()),
            None => Vec::new(),
        };
        if let (Some(log), Some(url)) = (&written.statement_log, &url)
            && url.protocol != Protocol::Postgres
        {
            self.at(log, "statement_log is for postgres:// endpoints");
        }
        let check_every = written.health_check.map(|check| check.interval);
        if let Some(interval) = &check_every {
            self.check_interval(interval, upstream.as_ref());
        }
        let rules = match written
            .rules
            .map(|rules| LocalRules::compile(self.file, self.text, &rules))
        {
            Some(Ok(rules)) => Some(rules),
            Some(Err(mistakes)) => {
                // The policy room reports in its own type with the same fields.
                self.mistakes.extend(mistakes.into_iter().map(of_policy));
                None
            }
            None => None,
        };
        Some(Endpoint {
            url: url?,
            line: u32::try_from(written.url.referenced.line()).unwrap_or(0),
            upstream: upstream?,
            pooling_enabled: written.pooling_enabled,
            rules,
            credentials,
            statement_log: written.statement_log.map(|log| log.value),
            over_websocket: written.transport == WrittenTransport::WebSocket,
            check_every: check_every.map(|interval| interval.value.get()),
        })
    }

    fn check_interval(&mut self, interval: &Spanned<HumanDuration>, upstream: Option<&Upstream>) {
        if !CHECK_EVERY.contains(&interval.value.get()) {
            self.at(interval, "an upstream is looked after every 1s to every 1h");
        }
        if upstream == Some(&Upstream::BuiltinSsh) {
            self.at(
                interval,
                "`builtin:ssh` is the agent itself: there is nothing to look after",
            );
        }
    }

    fn check_url(&mut self, url: &EndpointUrl, place: &Spanned<String>) {
        if !matches!(
            url.protocol.as_str(),
            "ssh" | "tcp" | "tls" | "postgres" | "mqtt" | "rdp"
        ) {
            self.at(
                place,
                format!(
                    "this release serves ssh://, tcp://, tls://, postgres://, mqtt:// and rdp:// endpoints; {}:// comes later",
                    url.protocol
                ),
            );
        }
        if let Some(first) = self.seen.insert(url.clone(), place.referenced.line()) {
            self.at(place, format!("{url} is listed twice; the first is on line {first}"));
        }
    }
}

fn of_policy(mistake: fairlead_policy::Mistake) -> Mistake {
    let fairlead_policy::Mistake {
        file,
        line,
        column,
        message,
        snippet,
        help,
    } = mistake;
    Mistake {
        file,
        line,
        column,
        message,
        snippet,
        help,
    }
}
