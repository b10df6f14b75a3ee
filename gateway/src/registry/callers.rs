//! Who callers are, and what endpoints their names mean.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::time::SystemTime;

use fairlead_identity::name::{EndpointUrl, Label, Protocol};
use fairlead_identity::principal::Kind;
use fairlead_identity::vendor::{self, VendorIssuer};
use rustls::pki_types::CertificateDer;

use super::Registry;
use crate::access::{Caller, CallerId, CallerKind, Credential, Given, Present, Target};
use crate::endpoint::{Answer, Callers, Directory, Keyed, Presented};
use crate::session::Facts;
use crate::store::{
    self, CallerKeyRow, CallerName, CallerRow, Candidate, EndpointPlace, KeyKind, KeyLines, Mode, OwnedEndpoint,
    SiteScope, Store, StoreError,
};

impl Callers for Registry {
    fn knows_key<'a>(&'a self, name: &'a Label, fingerprint: &'a str) -> Answer<'a, bool> {
        Box::pin(async move {
            let (name, fingerprint, now) = (name.to_string(), fingerprint.to_owned(), self.unix_now());
            let known = self.store.run(move |store| {
                for id in [CallerName::user(&name), CallerName::workload(&name)] {
                    let enabled = store.caller(&id)?.is_some_and(|caller| !caller.disabled);
                    let keys = if enabled { store.caller_keys(&id)? } else { Vec::new() };
                    if keys
                        .iter()
                        .any(|key| key.fingerprint == fingerprint && is_live(key, now))
                    {
                        return Ok(true);
                    }
                }
                Ok(false)
            });
            let known: Result<bool, StoreError> = known.await;
            known.unwrap_or_else(|error| {
                tracing::error!(%error, "a key could not be looked up");
                false
            })
        })
    }

    fn identify<'a>(&'a self, presented: &'a Presented) -> Answer<'a, Result<(CallerId, Credential), &'static str>> {
        Box::pin(async move {
            let who = match &presented.who {
                Ok(who) => who,
                // Not ours: perhaps of a workload's own issuer. Where it is nobody's, our own reason is the one that counts.
                Err(ours) => return self.vendored(&presented.chain).await.unwrap_or(Err(ours.reason())),
            };
            let kind = match who.principal().kind() {
                Kind::User => CallerKind::User,
                Kind::Workload => CallerKind::Workload,
                Kind::Agent | Kind::Gateway => return Err("not-a-caller"),
            };
            let name = who.principal().name().clone();
            let fingerprint = who.ssh_fingerprint().to_owned();
            Ok((CallerId { kind, name }, Credential::Certificate { fingerprint }))
        })
    }

    fn present<'a>(&'a self, who: &'a CallerId, by: &'a Credential) -> Answer<'a, Option<Caller>> {
        Box::pin(async move {
            let (who, by, now) = (who.clone(), by.clone(), self.unix_now());
            let found: Result<_, StoreError> = self.store.run(move |store| caller(store, &who, &by, now)).await;
            found.unwrap_or_else(|error| {
                tracing::error!(%error, "a caller could not be looked up");
                None
            })
        })
    }
}

impl Registry {
    async fn vendored(&self, chain: &[CertificateDer<'static>]) -> Option<Vendored> {
        let (chain, domain, now) = (chain.to_vec(), self.trust_domain.clone(), self.clock.now());
        let found: Result<_, StoreError> = self.store.run(move |store| vendors(store, &chain, &domain, now)).await;
        found.unwrap_or_else(|error| {
            tracing::error!(%error, "a workload could not be looked up");
            None
        })
    }
}

/// Whose the chain of a vendor's own issuer is, or the stable name of why it is nobody's.
type Vendored = Result<(CallerId, Credential), &'static str>;

/// Which workload a chain of its vendor's own issuer stands for; `None` where none is registered for its name. The URI it
/// claims only finds the registrations to try; the certificate is verified against the authority of each.
fn vendors(
    store: &mut dyn Store,
    chain: &[CertificateDer<'_>],
    trust_domain: &str,
    now: SystemTime,
) -> Result<Option<Vendored>, StoreError> {
    let Some(uri) = vendor::claimed_uri(chain) else {
        return Ok(None);
    };
    let mut refused = None;
    for row in store.workloads_with_uri(&uri)? {
        let Some(issuer) = &row.issuer else { continue };
        let Ok(trusted) = VendorIssuer::new(&issuer.ca_pem, &issuer.san_uri, trust_domain) else {
            continue;
        };
        match trusted.verify(chain, now) {
            Ok(_) => {
                let Some(who) = named(&row.id) else { continue };
                let by = Credential::Vendor { issuer: issuer.digest };
                return Ok(Some(Ok((who, by))));
            }
            // What is said of the first: several stand for one name only while one replaces the other.
            Err(error) => refused = refused.or(Some(Err(error.reason()))),
        }
    }
    Ok(refused)
}

/// Looks each caller and each endpoint of the batch up once, in one turn of the store.
impl Facts for Registry {
    fn present<'a>(&'a self, given: &'a [Arc<Given>]) -> Answer<'a, Result<Vec<Present>, String>> {
        Box::pin(async move {
            let (given, now) = (given.to_vec(), self.unix_now());
            let found: Result<_, StoreError> = self.store.run(move |store| look_up(store, &given, now)).await;
            found.map_err(|error| error.to_string())
        })
    }
}

fn look_up(store: &mut dyn Store, given: &[Arc<Given>], now: i64) -> Result<Vec<Present>, StoreError> {
    let (mut callers, mut targets) = (BTreeMap::new(), BTreeMap::new());
    let mut present = Vec::with_capacity(given.len());
    for given in given {
        let (who, by) = (given.caller.id(), given.caller.by.clone());
        let caller = match callers.entry((who, by)) {
            Entry::Occupied(known) => Option::clone(known.get()),
            Entry::Vacant(unknown) => {
                let (who, by) = unknown.key();
                let found = caller(store, who, by, now)?.map(Arc::new);
                unknown.insert(found).clone()
            }
        };
        let was = &given.target;
        let target = match targets.entry((was.endpoint.to_string(), was.agent.clone())) {
            Entry::Occupied(known) => Option::clone(known.get()),
            Entry::Vacant(unknown) => unknown.insert(same_target(store, was)?).clone(),
        };
        present.push(Present { caller, target });
    }
    Ok(present)
}

/// The endpoint, if the agent that serves it still owns it.
fn same_target(store: &mut dyn Store, was: &Target) -> Result<Option<Target>, StoreError> {
    let EndpointUrl { host, site, port, .. } = &was.endpoint;
    let owners = store.endpoint_owner(site.as_str(), host.as_str(), *port)?;
    let mut found = owners.into_iter().filter_map(|owner| target(owner, host, site, *port));
    Ok(found.find(|is| is.agent == was.agent && is.endpoint == was.endpoint))
}

/// The caller, if what they proved still lets them in.
fn caller(store: &mut dyn Store, who: &CallerId, by: &Credential, now: i64) -> Result<Option<Caller>, StoreError> {
    let Some(id) = stored(who) else { return Ok(None) };
    let Some(row) = store.caller(&id)?.filter(|row| !row.disabled) else {
        return Ok(None);
    };
    let keys = store.caller_keys(&id)?.into_iter().filter(|key| is_live(key, now));
    let keys: Vec<CallerKeyRow> = keys.collect();
    if !is_good(by, &row, &keys) {
        return Ok(None);
    }
    // A site that is no label would lift the border, so such a row is nobody.
    let Ok(site) = row.site.map(|site| site.parse::<Label>()).transpose() else {
        return Ok(None);
    };
    let registered = keys.into_iter().filter(|key| key.kind == KeyKind::Registered);
    Ok(Some(Caller {
        name: who.name.clone(),
        kind: who.kind,
        groups: row.groups.into_iter().collect(),
        labels: row.labels,
        site,
        by: by.clone(),
        ssh_keys: registered.map(|key| key.public_key).collect(),
    }))
}

/// Whether what was proved is still the caller's. `keys` are those that have not expired.
fn is_good(by: &Credential, row: &CallerRow, keys: &[CallerKeyRow]) -> bool {
    match by {
        Credential::Key { fingerprint } => keys
            .iter()
            .any(|key| key.kind == KeyKind::Registered && key.fingerprint == *fingerprint),
        Credential::Certificate { fingerprint } => keys.iter().any(|key| key.fingerprint == *fingerprint),
        Credential::Vendor { issuer } => row.issuer.as_ref().is_some_and(|own| own.digest == *issuer),
    }
}

/// The caller's name as the store has it.
pub(crate) fn stored(who: &CallerId) -> Option<CallerName> {
    let kind = match who.kind {
        CallerKind::User => store::CallerKind::User,
        CallerKind::Workload => store::CallerKind::Workload,
        CallerKind::Unidentified => return None,
    };
    Some(CallerName::new(kind, who.name.as_str()))
}

/// The other way about; `None` for a row that is damaged.
pub(crate) fn named(id: &CallerName) -> Option<CallerId> {
    let kind = match id.kind {
        store::CallerKind::User => CallerKind::User,
        store::CallerKind::Workload => CallerKind::Workload,
    };
    let name = id.name.parse().ok()?;
    Some(CallerId { kind, name })
}

fn is_live(key: &CallerKeyRow, now: i64) -> bool {
    key.expires.is_none_or(|expires| expires > now)
}

impl Directory for Registry {
    fn find<'a>(&'a self, host: &'a Label, site: &'a Label, port: u16) -> Answer<'a, Vec<Target>> {
        Box::pin(async move {
            let (site_name, host_name) = (site.to_string(), host.to_string());
            let owners = self
                .store
                .run(move |store| store.endpoint_owner(&site_name, &host_name, port))
                .await;
            match owners {
                Ok(owners) => members(owners, host, site, port),
                Err(error) => {
                    let error: StoreError = error;
                    tracing::error!(%error, "an endpoint could not be looked up");
                    Vec::new()
                }
            }
        })
    }

    fn find_speaking<'a>(
        &'a self,
        host: &'a Label,
        site: &'a Label,
        protocols: &'a [Protocol],
    ) -> Answer<'a, Vec<Target>> {
        Box::pin(async move {
            let (site_name, host_name) = (site.to_string(), host.to_string());
            let owned = self
                .store
                .run(move |store| store.endpoints_at(&site_name, &host_name))
                .await;
            let owned = owned.inspect_err(|error: &StoreError| {
                tracing::error!(%error, "an endpoint could not be looked up");
            });
            let Ok(owned) = owned else { return Vec::new() };
            let speaking = |protocol: &Protocol| -> Vec<(u16, Candidate)> {
                let speaks = |(_, owner): &&(u16, Candidate)| owner.protocol == protocol.as_str();
                owned.iter().filter(speaks).cloned().collect()
            };
            let found = protocols.iter().map(speaking).find(|found| !found.is_empty());
            let found = found.unwrap_or_default();
            // Several agents may stand for one port; several ports are several endpoints.
            let Some((port, _)) = found.first().cloned() else {
                return Vec::new();
            };
            if found.iter().any(|(other, _)| *other != port) {
                return Vec::new();
            }
            let owners = found.into_iter().map(|(_, owner)| owner).collect();
            members(owners, host, site, port)
        })
    }

    fn page<'a>(&'a self, site: Option<&'a Label>, after: Option<&'a Target>) -> Answer<'a, Option<Vec<Target>>> {
        Box::pin(async move {
            let scope = site.map_or(SiteScope::Every, |site| SiteScope::One(site.to_string()));
            let place = page_after(after);
            let found = self
                .store
                .run(move |store| store.endpoints_after(&scope, &place, PAGE))
                .await;
            let found = found.inspect_err(|error: &StoreError| {
                tracing::error!(%error, "the endpoints could not be listed");
            });
            Some(found.ok()?.into_iter().filter_map(listed).collect())
        })
    }

    fn keyed<'a>(&'a self, host: &'a Label, site: &'a Label, port: u16) -> Answer<'a, Vec<Keyed>> {
        Box::pin(async move {
            let (site_name, host_name) = (site.to_string(), host.to_string());
            let found: Result<Vec<(Candidate, KeyLines)>, StoreError> = self
                .store
                .run(move |store| {
                    let owners = store.endpoint_owner(&site_name, &host_name, port)?;
                    let keys = |owner: Candidate| {
                        let keys = match owner.mode {
                            Mode::Tunnel => store.trusted_host_keys(&owner.agent, &host_name, port)?,
                            Mode::Builtin => KeyLines::new(),
                        };
                        Ok((owner, keys))
                    };
                    owners.into_iter().map(keys).collect()
                })
                .await;
            let found = found.unwrap_or_else(|error| {
                tracing::error!(%error, "host keys could not be looked up");
                Vec::new()
            });
            let keyed = found.into_iter().filter_map(|(owner, keys)| {
                let target = target(owner, host, site, port)?;
                let keys = keys.into_iter().collect();
                Some(Keyed { target, keys })
            });
            keyed.collect()
        })
    }
}

/// Endpoints that one turn of the store looks up.
const PAGE: usize = 128;

fn page_after(after: Option<&Target>) -> EndpointPlace {
    after.map_or_else(EndpointPlace::default, |target| EndpointPlace {
        site: target.site.to_string(),
        host: target.endpoint.host.to_string(),
        port: target.endpoint.port,
        protocol: target.endpoint.protocol.to_string(),
        agent: target.agent.to_string(),
    })
}

fn listed(row: OwnedEndpoint) -> Option<Target> {
    let site = row.owner.agent.site.parse().ok()?;
    let host = row.host.parse().ok()?;
    target(row.owner, &host, &site, row.port)
}

/// The members of a pool, where every agent that offers the endpoint lets others stand beside it; else the first of them.
fn members(owners: Vec<Candidate>, host: &Label, site: &Label, port: u16) -> Vec<Target> {
    let Some(protocol) = owners.first().map(|first| first.protocol.clone()) else {
        return Vec::new();
    };
    let same: Vec<Candidate> = owners.into_iter().filter(|owner| owner.protocol == protocol).collect();
    let is_pool = same.iter().all(|owner| owner.pooling);
    let at_most = if is_pool { same.len() } else { 1 };
    let targets = same.into_iter().filter_map(|owner| target(owner, host, site, port));
    targets.take(at_most).collect()
}

fn target(owner: Candidate, host: &Label, site: &Label, port: u16) -> Option<Target> {
    let protocol = owner.protocol.parse().ok()?;
    Some(Target {
        endpoint: EndpointUrl {
            protocol,
            host: host.clone(),
            site: site.clone(),
            port,
        },
        agent: owner.agent.name.parse().ok()?,
        site: site.clone(),
        labels: owner.labels,
        builtin: owner.mode == Mode::Builtin,
    })
}

#[cfg(test)]
mod tests;
