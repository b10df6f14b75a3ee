//! Who callers are, and what endpoints their names mean.

use fairlead_identity::name::{EndpointUrl, Label};

use super::Registry;
use crate::access::{Caller, CallerKind, Target};
use crate::endpoint::{Answer, Callers, Directory};
use crate::store::{Candidate, KeyKind, Mode, StoreError, UserKeyRow, UserRow};

impl Callers for Registry {
    fn certified<'a>(&'a self, name: &'a Label) -> Answer<'a, Option<Caller>> {
        Box::pin(async move {
            let name = name.to_string();
            let found = self.store.run(move |store| {
                let Some(user) = store.user(&name)?.filter(|user| !user.disabled) else {
                    return Ok(None);
                };
                let keys = store.user_keys(&name)?;
                Ok(Some((user, keys)))
            });
            self.caller(found.await)
        })
    }

    fn knows_key<'a>(&'a self, name: &'a Label, fingerprint: &'a str) -> Answer<'a, bool> {
        Box::pin(async move {
            let (name, fingerprint, now) = (name.to_string(), fingerprint.to_owned(), self.unix_now());
            let known = self.store.run(move |store| {
                let enabled = store.user(&name)?.is_some_and(|user| !user.disabled);
                let keys = if enabled { store.user_keys(&name)? } else { Vec::new() };
                let live = |key: &UserKeyRow| key.expires.is_none_or(|expires| expires > now);
                Ok(keys.iter().any(|key| key.fingerprint == fingerprint && live(key)))
            });
            let known: Result<bool, StoreError> = known.await;
            known.unwrap_or_else(|error| {
                tracing::error!(%error, "a key could not be looked up");
                false
            })
        })
    }

    fn by_key<'a>(&'a self, name: &'a Label, fingerprint: &'a str) -> Answer<'a, Option<Caller>> {
        Box::pin(async move {
            let (name, fingerprint, now) = (name.to_string(), fingerprint.to_owned(), self.unix_now());
            let found = self.store.run(move |store| {
                let Some(user) = store.user_key_matches(&name, &fingerprint, now)? else {
                    return Ok(None);
                };
                let keys = store.user_keys(&name)?;
                Ok(Some((user, keys)))
            });
            self.caller(found.await)
        })
    }
}

impl Registry {
    fn caller(&self, found: Result<Option<(UserRow, Vec<UserKeyRow>)>, StoreError>) -> Option<Caller> {
        let (user, keys) = match found {
            Ok(found) => found?,
            Err(error) => {
                tracing::error!(%error, "a user could not be looked up");
                return None;
            }
        };
        let now = self.unix_now();
        let live = keys
            .into_iter()
            .filter(|key| key.kind == KeyKind::Registered && key.expires.is_none_or(|expires| expires > now));
        Some(Caller {
            name: user.name.parse().ok()?,
            kind: CallerKind::User,
            groups: user.groups.into_iter().collect(),
            labels: user.labels,
            // A site that is no label would lift the border, so such a row is nobody.
            site: user.site.map(|site| site.parse::<Label>()).transpose().ok()?,
            ssh_keys: live.map(|key| key.public_key).collect(),
        })
    }
}

impl Directory for Registry {
    fn find<'a>(&'a self, host: &'a Label, site: &'a Label, port: u16) -> Answer<'a, Option<Target>> {
        Box::pin(async move {
            let (site_name, host_name) = (site.to_string(), host.to_string());
            let owners = self
                .store
                .run(move |store| store.endpoint_owner(&site_name, &host_name, port))
                .await;
            match owners {
                Ok(owners) => owners.into_iter().find_map(|owner| target(owner, host, site, port)),
                Err(error) => {
                    let error: StoreError = error;
                    tracing::error!(%error, "an endpoint could not be looked up");
                    None
                }
            }
        })
    }
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
