//! Looks after upstreams whose endpoints ask for it (`health_check`): one that cannot be connected to is told to the gateway,
//! which asks this agent last where there are others (docs/operations.md, Pools).
//!
//! A check is a connection, with TLS where the file says so, to the addresses that were checked as for a session, and
//! nothing is said on it. While the agent is paused nobody is asked.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fairlead_identity::name::EndpointUrl;
use fairlead_wire::control::Offer;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::config::{TcpUpstream, Upstream};
use crate::service::{self, dial};
use crate::session::Services;

/// All addresses of an upstream together.
const DIAL_LIMIT: Duration = Duration::from_secs(5);
/// How often the file is looked at for endpoints that ask for checks.
const LOOK: Duration = Duration::from_secs(1);

/// Keeps what `offers` say of upstreams true until the task is ended.
pub(crate) async fn watch(services: Arc<Services>, offers: Arc<watch::Sender<Offer>>) {
    let mut due: BTreeMap<EndpointUrl, Instant> = BTreeMap::new();
    loop {
        let list = services.list();
        let asked = list.endpoints().filter_map(|endpoint| match &endpoint.upstream {
            Upstream::Tcp(upstream) => Some((&endpoint.url, upstream, endpoint.check_every?)),
            Upstream::BuiltinSsh => None,
        });
        let asked: Vec<(&EndpointUrl, &TcpUpstream, Duration)> = asked.collect();
        due.retain(|url, _| asked.iter().any(|(listed, ..)| *listed == url));
        for (url, upstream, every) in asked {
            if services.pause.is_on() || due.get(url).is_some_and(|due| *due > Instant::now()) {
                continue;
            }
            let found = look(&services, url, upstream).await;
            tell(&offers, url, found);
            due.insert(url.clone(), Instant::now() + every);
        }
        let next = due.values().min().copied();
        sleep_until(next.unwrap_or_else(|| Instant::now() + LOOK).min(Instant::now() + LOOK)).await;
    }
}

async fn look(services: &Services, url: &EndpointUrl, upstream: &TcpUpstream) -> Result<(), String> {
    let near = || services.near.look();
    let addresses = service::resolve(upstream, services.resolver.as_ref(), near).await;
    let addresses = addresses.map_err(|error| error.to_string())?;
    let dialled = dial(upstream, url.protocol, &addresses, Instant::now() + DIAL_LIMIT).await;
    dialled.map(drop).map_err(|error| error.to_string())
}

/// A change goes to the gateway; nothing else does.
fn tell(offers: &watch::Sender<Offer>, url: &EndpointUrl, found: Result<(), String>) {
    let name = url.to_string();
    let changed = offers.send_if_modified(|offer| {
        let mut offered = offer.endpoints.iter_mut();
        let Some(endpoint) = offered.find(|endpoint| endpoint.url == name) else {
            return false;
        };
        let is_news = endpoint.unwell == found.is_ok();
        endpoint.unwell = found.is_err();
        is_news
    });
    match (changed, found) {
        (true, Err(why)) => {
            tracing::warn!("an upstream does not answer its health check");
            tracing::debug!(%url, why, "the endpoint and what was found");
        }
        (true, Ok(())) => {
            tracing::info!("an upstream answers its health check again");
            tracing::debug!(%url, "the endpoint");
        }
        (false, _) => {}
    }
}

/// What is known of upstreams stays known when the file is read again, until the next check.
pub(crate) fn keep_known(before: &Offer, after: &mut Offer) {
    for endpoint in &mut after.endpoints {
        endpoint.unwell = before
            .endpoints
            .iter()
            .any(|known| known.unwell && known.url == endpoint.url);
    }
}

#[cfg(test)]
mod tests {
    use fairlead_wire::control::OfferedEndpoint;

    use super::*;

    fn offered(url: &str) -> Offer {
        Offer {
            endpoints: vec![OfferedEndpoint {
                url: url.into(),
                ..OfferedEndpoint::default()
            }],
        }
    }

    #[test]
    fn only_a_change_is_told_and_it_outlives_a_reload() {
        let url: EndpointUrl = "tcp://db.plant-7.internal:5432".parse().unwrap();
        let (offers, mut told) = watch::channel(offered(&url.to_string()));
        tell(&offers, &url, Ok(()));
        assert!(!told.has_changed().unwrap(), "it was well");
        tell(&offers, &url, Err("refused".into()));
        assert!(told.has_changed().unwrap() && told.borrow_and_update().endpoints[0].unwell);
        tell(&offers, &url, Err("refused".into()));
        assert!(!told.has_changed().unwrap());
        let mut again = offered(&url.to_string());
        keep_known(&offers.borrow(), &mut again);
        assert!(again.endpoints[0].unwell);
        tell(&offers, &url, Ok(()));
        assert!(!told.borrow_and_update().endpoints[0].unwell);
    }
}
