//! What links ask: may this agent link, are these endpoints its own, certify its host key.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use fairlead_identity::keys;
use fairlead_identity::name::{EndpointUrl, Protocol};
use fairlead_identity::verify::{self, Authenticated, Usage, VerifyError};
use fairlead_runtime::audit::Record;
use fairlead_wire::control::{
    HostCertificate, HostKeyReport, Mode as WireMode, Offer, OfferAnswer, OfferedEndpoint, RefusedOffer, Renewed,
    Welcome,
};
use fairlead_wire::enroll::{EnrollAnswer, EnrollRequest};
use fairlead_wire::refusal::Reason;
use rustls::pki_types::CertificateDer;

use super::{Registry, hex};
use crate::link::{AgentKey, Answer, Conflict, Registrar};
use crate::store::{AgentId, EndpointRow, Mode, Names, Store, StoreError};

/// Life of a host certificate; the agent renews it at a third of it.
const HOST_CERTIFICATE_LIFE: Duration = Duration::from_secs(14 * 24 * 3600);

/// Waits between attempts to note an agent's roots while the store's queue is full.
const ROOTS_AGAIN: [Duration; 4] = [
    Duration::from_secs(1),
    Duration::from_secs(4),
    Duration::from_secs(16),
    Duration::from_secs(30),
];

/// Why an agent with its old name in its certificate is refused: it is to come back with the new one.
const RENAMED: &str = "renamed";

impl Registrar for Registry {
    fn authenticate(&self, chain: &[CertificateDer<'_>]) -> Result<Authenticated, VerifyError> {
        let in_force = self.authorities.x509();
        let (roots, now) = (&in_force.roots, self.clock.now());
        verify::authenticate(chain, roots, Usage::Client, &self.trust_domain, now)
    }

    fn admit<'a>(
        &'a self,
        who: &'a Authenticated,
        client: IpAddr,
        reported: Vec<(String, String)>,
    ) -> Answer<'a, Result<AgentKey, Reason>> {
        Box::pin(async move {
            let Some(site) = who.principal().site() else {
                return Err(Reason::Denied);
            };
            let key = AgentKey {
                site: site.clone(),
                name: who.principal().name().clone(),
            };
            let (id, spki, now) = (id_of(&key), *who.spki_sha256(), self.unix_now());
            let refused = self.store.run(move |store| {
                let refused = standing(store, &id, spki)?;
                if refused.is_none() {
                    store.touch(&id, &reported.into_iter().collect(), now)?;
                }
                Ok(refused)
            });
            let refused: Result<Option<&'static str>, StoreError> = refused.await;
            match refused {
                Ok(None) => Ok(key),
                Ok(Some(why)) => {
                    let mut record = about(&key, client, "auth.fail");
                    record.fact("serial", who.serial_hex());
                    self.trail.stranger(record, client, why);
                    Err(if why == RENAMED {
                        Reason::Renamed
                    } else {
                        Reason::Revoked
                    })
                }
                Err(error) => Err(internal(&error)),
            }
        })
    }

    fn still_admitted<'a>(&'a self, agent: &'a AgentKey, spki: [u8; 32]) -> Answer<'a, Result<(), Reason>> {
        Box::pin(async move {
            let id = id_of(agent);
            let held: Result<bool, StoreError> = self.store.run(move |store| holds(store, &id, spki)).await;
            match held {
                Ok(true) => Ok(()),
                Ok(false) => Err(Reason::Revoked),
                Err(error) => Err(internal(&error)),
            }
        })
    }

    fn conflict(&self, agent: &AgentKey, conflict: &Conflict) {
        self.trail.meters().identity_conflicts.inc();
        if conflict.to_be_told {
            let mut record = of_two_machines(agent, conflict, "identity.conflict");
            record.decision = Some("deny".into());
            record.reason = Some(Reason::Conflict.name().into());
            // The newcomer is refused either way; a failure to log it is in the gateway's log.
            let _unlogged = self.trail.event(&record);
        }
    }

    fn machine_changed(&self, agent: &AgentKey, conflict: &Conflict) {
        // The link is what it is; a failure to log it is in the gateway's log.
        let _unlogged = self.trail.event(&of_two_machines(agent, conflict, "identity.switch"));
    }

    fn stranger(&self, client: IpAddr, why: &'static str) {
        let mut record = Record::new("auth.fail");
        record.client_ip = Some(client.to_string());
        self.trail.stranger(record, client, why);
    }

    fn welcome(&self, version: u32) -> Welcome {
        Welcome {
            version,
            requires: Vec::new(),
            gateway: self.domain.clone(),
            ssh_user_ca: self.ssh_user_cas(),
            domain: self.domain.clone(),
            ..Welcome::default()
        }
    }

    fn roots_kept<'a>(&'a self, agent: &'a AgentKey, spki: [u8; 32], roots: Vec<Vec<u8>>) -> Answer<'a, ()> {
        let roots: Names = roots.iter().map(|root| hex(root)).collect();
        Box::pin(async move {
            for wait in ROOTS_AGAIN {
                let (id, roots) = (id_of(agent), roots.clone());
                let noted = self.store.run(move |store| {
                    if holds(store, &id, spki)? {
                        store.note_roots(&id, &roots)?;
                    }
                    Ok(())
                });
                match noted.await {
                    Ok(()) => return,
                    // A fleet answers at once when the authority changes.
                    Err(StoreError::Busy { .. }) => {
                        tokio::time::sleep(wait.mul_f64(0.5 + rand::random::<f64>())).await;
                    }
                    Err(error) => return tracing::warn!(%error, "the roots of an agent were not noted"),
                }
            }
            tracing::warn!("the roots of an agent were not noted: the store was busy for too long");
        })
    }

    fn offer<'a>(
        &'a self,
        agent: &'a AgentKey,
        spki: [u8; 32],
        offer: Offer,
    ) -> Answer<'a, Result<OfferAnswer, Reason>> {
        Box::pin(async move {
            let (id, now) = (id_of(agent), self.unix_now());
            let sorted = self.store.run({
                let (id, agent) = (id.clone(), agent.clone());
                move |store| {
                    if !holds(store, &id, spki)? {
                        return Ok(None);
                    }
                    let bound = store.hosts_of(&id)?;
                    let others = offered_by_others(store, &id, &bound)?;
                    let (rows, answer) = sort_out(&agent, &bound, &others, offer);
                    store.replace_endpoints(&id, &rows, now)?;
                    Ok(Some(answer))
                }
            });
            let sorted: Result<Option<OfferAnswer>, StoreError> = sorted.await;
            let answer = sorted.map_err(|error| internal(&error))?.ok_or(Reason::Revoked)?;
            self.record_refused_offer(agent, &answer);
            Ok(answer)
        })
    }

    fn host_keys<'a>(
        &'a self,
        agent: &'a AgentKey,
        spki: [u8; 32],
        report: HostKeyReport,
        tell_refused: bool,
    ) -> Answer<'a, Result<usize, Reason>> {
        Box::pin(self.take_host_keys(agent, spki, report, tell_refused))
    }

    fn certify_host_key<'a>(
        &'a self,
        agent: &'a AgentKey,
        spki: [u8; 32],
        public_key: String,
    ) -> Answer<'a, Result<HostCertificate, Reason>> {
        Box::pin(async move {
            let id = id_of(agent);
            let bound = self.store.run(move |store| {
                if !holds(store, &id, spki)? {
                    return Ok(None);
                }
                store.hosts_of(&id).map(Some)
            });
            let bound: Result<Option<Names>, StoreError> = bound.await;
            let bound = bound.map_err(|error| internal(&error))?.ok_or(Reason::Revoked)?;
            let own = std::iter::once(agent.name.to_string());
            let names: Vec<String> = own
                .chain(bound)
                .flat_map(|host| self.host_names(&host, &agent.site))
                .collect();
            let serial = serial().map_err(|error| internal(&error))?;
            let (now, life) = (self.clock.now(), HOST_CERTIFICATE_LIFE);
            match self
                .authorities
                .ssh
                .issue_host_certificate(&public_key, &names, life, now, serial)
            {
                Ok(certificate) => Ok(HostCertificate {
                    certificate,
                    valid_seconds: life.as_secs(),
                }),
                Err(error) => {
                    tracing::warn!(%error, "host key not certified");
                    tracing::debug!(%agent, "its agent");
                    Err(Reason::Malformed)
                }
            }
        })
    }

    fn link_changed<'a>(&'a self, agent: &'a AgentKey, client: IpAddr, up: bool, why: String) -> Answer<'a, ()> {
        Box::pin(async move {
            let mut record = about(agent, client, if up { "link.up" } else { "link.down" });
            if !why.is_empty() {
                record.fact("why", why);
            }
            // The link is what it is; a failure to log it is in the gateway's log.
            let _unlogged = self.trail.event(&record);
            let (id, now) = (id_of(agent), self.unix_now());
            let seen = self.store.run(move |store| {
                let reported = store.agent(&id)?.map(|agent| agent.reported).unwrap_or_default();
                store.touch(&id, &reported, now)
            });
            if let Err(error) = seen.await {
                let error: StoreError = error;
                tracing::debug!(%agent, %error, "last-seen time not kept");
            }
        })
    }

    fn renew<'a>(
        &'a self,
        agent: &'a AgentKey,
        spki: [u8; 32],
        csr_der: Vec<u8>,
    ) -> Answer<'a, Result<Renewed, Reason>> {
        Box::pin(async move {
            match self.renew_linked(agent, spki, &csr_der).await {
                Ok(certificate_chain) => Ok(Renewed { certificate_chain }),
                Err((reason, text)) => {
                    tracing::warn!(%reason, text, "certificate not renewed");
                    tracing::debug!(%agent, "its agent");
                    Err(reason)
                }
            }
        })
    }

    fn enroll<'a>(&'a self, request: EnrollRequest, exporter: [u8; 32], client: IpAddr) -> Answer<'a, EnrollAnswer> {
        Box::pin(self.redeem(request, exporter, client))
    }
}

/// Whether this key is the agent's. Deleted agents, names that wait for approval, and keys that a later enrolment replaced
/// hold nothing: asked in the same turn of the store as what depends on it.
pub(super) fn holds(store: &mut dyn Store, id: &AgentId, spki: [u8; 32]) -> Result<bool, StoreError> {
    Ok(standing(store, id, spki)?.is_none())
}

/// Why the holder of a certificate that is good in itself is not this agent, as a stable name for the audit; `None` when
/// it is.
fn standing(store: &mut dyn Store, id: &AgentId, spki: [u8; 32]) -> Result<Option<&'static str>, StoreError> {
    let stranger = match store.agent(id)? {
        None => "unknown-agent",
        Some(agent) if agent.disabled => return Ok(Some("revoked")),
        Some(agent) if agent.pending => return Ok(Some("pending")),
        Some(agent) if agent.spki != Some(spki) => "other-key",
        Some(_) => return Ok(None),
    };
    let now = store.agent_with_key(&spki)?;
    if now.is_some_and(|now| now.id.site == id.site && !now.disabled && !now.pending) {
        return Ok(Some(RENAMED));
    }
    // Once it was: deleted since, or its key was replaced.
    let revoked = store.agent_had_key(id, &spki)?;
    Ok(Some(if revoked { "revoked" } else { stranger }))
}

fn about(agent: &AgentKey, client: IpAddr, event: &'static str) -> Record {
    let mut record = Record::new(event);
    record.site = Some(agent.site.to_string());
    record.agent = Some(agent.name.to_string());
    record.client_ip = Some(client.to_string());
    record
}

/// An event of two machines with one identity; `client_ip` is the newcomer's.
fn of_two_machines(agent: &AgentKey, conflict: &Conflict, event: &'static str) -> Record {
    let newcomer = match event {
        "identity.switch" => conflict.serving,
        _ => conflict.rival,
    };
    let mut record = about(agent, newcomer.ip(), event);
    record.fact("serving", conflict.serving.to_string());
    record.fact("other", conflict.rival.to_string());
    record.fact("tries", conflict.tries);
    record
}

impl Registry {
    /// One audit line however many endpoints were refused: a hostile agent must not fill the log.
    fn record_refused_offer(&self, agent: &AgentKey, answer: &OfferAnswer) {
        let Some(first) = answer.refused.first() else { return };
        let mut record = Record::new("offer.refuse");
        record.site = Some(agent.site.to_string());
        record.agent = Some(agent.name.to_string());
        record.endpoint = Some(first.url.clone());
        record.decision = Some("deny".into());
        record.reason = Reason::from_code(first.reason).map(|reason| reason.name().into());
        record.fact("refused", answer.refused.len());
        // Nothing was given; the failure to log it is in the gateway's log.
        let _unlogged = self.trail.event(&record);
    }
}

/// Host, protocol and port of endpoints.
type Places = BTreeSet<(String, String, u16)>;

/// What other agents offer on the hosts bound to this one.
fn offered_by_others(store: &mut dyn Store, id: &AgentId, bound: &Names) -> Result<Places, StoreError> {
    let mut others = Places::new();
    for host in bound {
        let there = store.endpoints_at(&id.site, host)?.into_iter();
        let theirs = there.filter(|(_, candidate)| candidate.agent != *id);
        others.extend(theirs.map(|(port, candidate)| (host.clone(), candidate.protocol, port)));
    }
    Ok(others)
}

/// Whether callers name an endpoint of this protocol by its host alone (the server name in TLS), so that a host can have
/// only one. Several `tcp://` are told apart by their ports, over SSH.
fn is_named_by_host(protocol: &str) -> bool {
    matches!(protocol, "tls" | "postgres" | "mqtt")
}

/// Sorts an offer into what is the agent's to offer and what is not.
fn sort_out(agent: &AgentKey, bound: &Names, others: &Places, offer: Offer) -> (Vec<EndpointRow>, OfferAnswer) {
    let (mut rows, mut answer) = (Vec::<EndpointRow>::new(), OfferAnswer::default());
    let clash = |row: &EndpointRow, host: &str, protocol: &str, port: u16| {
        host == row.host && port != row.port && protocol == row.protocol && is_named_by_host(protocol)
    };
    for offered in offer.endpoints {
        match own_endpoint(agent, bound, &offered) {
            // One endpoint per host and port: callers name them so.
            Ok(row)
                if rows.iter().any(|earlier| {
                    (&earlier.host, earlier.port) == (&row.host, row.port)
                        || clash(&row, &earlier.host, &earlier.protocol, earlier.port)
                }) || others
                    .iter()
                    .any(|(host, protocol, port)| clash(&row, host, protocol, *port)) =>
            {
                answer.refused.push(RefusedOffer {
                    url: offered.url,
                    reason: Reason::Conflict.code(),
                });
            }
            Ok(row) => {
                rows.push(row);
                answer.accepted.push(offered.url);
            }
            Err(reason) => answer.refused.push(RefusedOffer {
                url: offered.url,
                reason: reason.code(),
            }),
        }
    }
    (rows, answer)
}

fn own_endpoint(agent: &AgentKey, bound: &Names, offered: &OfferedEndpoint) -> Result<EndpointRow, Reason> {
    let url: EndpointUrl = offered.url.parse().map_err(|_| Reason::Malformed)?;
    if url.site != agent.site || (url.host != agent.name && !bound.contains(url.host.as_str())) {
        return Err(Reason::NotBound);
    }
    let mode = match offered.mode() {
        WireMode::Tunnel => Mode::Tunnel,
        WireMode::Builtin if url.protocol == Protocol::Ssh => Mode::Builtin,
        _ => return Err(Reason::Unsupported),
    };
    if !matches!(
        url.protocol.as_str(),
        "ssh" | "tcp" | "tls" | "postgres" | "mqtt" | "rdp"
    ) {
        return Err(Reason::Unsupported);
    }
    Ok(EndpointRow {
        host: url.host.to_string(),
        protocol: url.protocol.to_string(),
        port: url.port,
        mode,
        pooling: offered.pooling_enabled,
    })
}

pub(super) fn id_of(agent: &AgentKey) -> AgentId {
    AgentId::new(agent.site.as_str(), agent.name.as_str())
}

pub(super) fn internal(error: &dyn std::fmt::Display) -> Reason {
    tracing::error!(%error, "a request of an agent could not be answered");
    Reason::Internal
}

pub(super) fn serial() -> Result<u64, keys::KeyError> {
    Ok(u64::from_be_bytes(*keys::random::<8>()?))
}

#[cfg(test)]
mod tests;
