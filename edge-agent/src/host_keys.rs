//! The SSH host keys of the servers behind the agent's endpoints, read from the servers themselves and told to the
//! gateway, which gives them to callers (docs/operations.md, Host keys).
//!
//! A server is asked when the agent starts, when its file is read again, after a session to it has begun, and every half
//! hour. Asked are only upstreams that the file lists, at addresses that were checked as for a session; while the agent is
//! paused nobody is. A server that does not answer is reported as it was last.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fairlead_identity::name::Protocol;
use fairlead_wire::check::MAX_REPORT;
use fairlead_wire::control::{EndpointHostKeys, HostKeyReport, Offer};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, sleep_until};

use crate::config::{TcpUpstream, Upstream};
use crate::service::{self, Dialled, dial};
use crate::session::Services;
use crate::sshd::{Family, shown_key};

/// How often a server is asked without a cause.
const NOW_AND_THEN: Duration = Duration::from_secs(30 * 60);
/// Sessions are a cause at most this often: each question is a line in the server's log.
const AFTER_A_SESSION: Duration = Duration::from_secs(15);
/// All addresses of a server together.
const DIAL_LIMIT: Duration = Duration::from_secs(8);

/// What the gateway is told, in messages of at most 32 endpoints.
pub(crate) type Reports = Vec<HostKeyReport>;

/// Keeps `reports` true until the task is ended. `used` tells that a session to an SSH server began.
pub(crate) async fn watch(
    services: Arc<Services>,
    used: Arc<Notify>,
    mut offers: watch::Receiver<Offer>,
    reports: watch::Sender<Reports>,
) {
    let mut known = BTreeMap::new();
    loop {
        let next = Instant::now() + NOW_AND_THEN;
        look(&services, &mut known).await;
        let told = told(&known);
        reports.send_if_modified(|before| {
            let is_news = *before != told;
            *before = told;
            is_news
        });
        let earliest = Instant::now() + AFTER_A_SESSION;
        let use_again = async {
            sleep_until(earliest).await;
            used.notified().await;
            // The session's own greeting goes first: a server may take one connection at a time.
            sleep(Duration::from_millis(200)).await;
        };
        tokio::select! {
            () = sleep_until(next) => {}
            () = use_again => {}
            Ok(()) = offers.changed() => {}
        }
    }
}

/// Asks every listed server. Endpoints that are listed no longer are forgotten.
async fn look(services: &Services, known: &mut BTreeMap<String, Vec<String>>) {
    let list = services.list();
    let servers: Vec<(String, &TcpUpstream)> = list
        .endpoints()
        .filter(|endpoint| endpoint.url.protocol == Protocol::Ssh)
        .filter_map(|endpoint| match &endpoint.upstream {
            Upstream::Tcp(upstream) => Some((endpoint.url.to_string(), upstream)),
            Upstream::BuiltinSsh => None,
        })
        .collect();
    known.retain(|url, _| servers.iter().any(|(listed, _)| listed == url));
    for (url, upstream) in servers {
        if services.pause.is_on() {
            return;
        }
        match ask(services, upstream).await {
            Ok(keys) if keys.is_empty() => tracing::debug!(url, "the SSH server has no host key that can be reported"),
            Ok(keys) => drop(known.insert(url, keys)),
            Err(error) => tracing::debug!(url, error, "the SSH server's host keys are not known"),
        }
    }
}

/// Every key of one server, or why not all are known.
async fn ask(services: &Services, upstream: &TcpUpstream) -> Result<Vec<String>, String> {
    let mut keys = Vec::new();
    for family in Family::ALL {
        let near = || services.near.look();
        let addresses = service::resolve(upstream, services.resolver.as_ref(), near).await;
        let addresses = addresses.map_err(|error| error.to_string())?;
        let dialled = dial(upstream, Protocol::Ssh, &addresses, Instant::now() + DIAL_LIMIT).await;
        keys.extend(match dialled.map_err(|error| error.to_string())? {
            Dialled::Plain(stream) => shown_key(stream, family).await?,
            Dialled::Tls(stream) => shown_key(stream, family).await?,
        });
    }
    Ok(keys)
}

fn told(known: &BTreeMap<String, Vec<String>>) -> Reports {
    let all: Vec<EndpointHostKeys> = known
        .iter()
        .map(|(url, keys)| EndpointHostKeys {
            url: url.clone(),
            public_keys: keys.clone(),
        })
        .collect();
    all.chunks(MAX_REPORT)
        .map(|some| HostKeyReport {
            endpoints: some.to_vec(),
        })
        .collect()
}
