//! `endpoints:` of `agent.yaml`: what callers may reach, and by whose leave.

use std::path::PathBuf;

use fairlead_identity::name::{EndpointUrl, Protocol};
use fairlead_policy::{LocalRules, RuleAsWritten};
use fairlead_runtime::config_file::Mistake;
use serde::Deserialize;
use serde_yaml::Spanned;

use super::Checker;
use super::credentials::{Credential, WrittenCredential};
use super::upstream::{Upstream, WrittenUpstream};

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
        })
    }

    fn check_url(&mut self, url: &EndpointUrl, place: &Spanned<String>) {
        if !matches!(url.protocol.as_str(), "ssh" | "tcp" | "tls" | "postgres") {
            self.at(
                place,
                format!(
                    "this release serves ssh://, tcp://, tls:// and postgres:// endpoints; {}:// comes later",
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
