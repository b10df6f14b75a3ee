//! What a good file may still not mean.

use super::{Config, Endpoint, Upstream, UpstreamTls};

impl Config {
    /// Warnings for the customer, one line each, with the line of the file.
    pub fn warnings(&self) -> Vec<String> {
        let all = self.endpoints.iter().flat_map(|endpoint| {
            let place = format!("{}:{}: {}", self.file.display(), endpoint.line, endpoint.url);
            [
                login_in_the_open(endpoint),
                statements_written(endpoint),
                self.anybody_becomes_anybody(endpoint),
            ]
            .into_iter()
            .flatten()
            .map(move |text| format!("{place}: {text}"))
        });
        all.collect()
    }

    fn anybody_becomes_anybody(&self, endpoint: &Endpoint) -> Option<&'static str> {
        let is_switched = endpoint.upstream == Upstream::BuiltinSsh && !self.builtin_ssh.users.is_empty();
        (is_switched && endpoint.rules.is_none()).then_some(
            "no rules: every caller that the gateway lets in may be any user of builtin_ssh.users; rules that read ssh.user \
             say who may be whom",
        )
    }
}

fn login_in_the_open(endpoint: &Endpoint) -> Option<&'static str> {
    let Upstream::Tcp(upstream) = &endpoint.upstream else {
        return None;
    };
    let is_proven = upstream.tls.as_ref().is_some_and(UpstreamTls::proves);
    let is_own = upstream
        .literal()
        .is_some_and(|address| address.to_canonical().is_loopback());
    (!endpoint.credentials.is_empty() && !is_proven && !is_own).then_some(
        "the agent logs in to a database that does not prove itself (tls: { mode: verify-full, ca_file: … }): scram-sha-256 \
         still works, md5 and password logins are refused, and what is said afterwards can be read and changed on the way",
    )
}

fn statements_written(endpoint: &Endpoint) -> Option<&'static str> {
    endpoint.statement_log.as_ref().map(
        |_| "statement_log holds whatever callers write, data and passwords among it: keep it as you keep the database",
    )
}
