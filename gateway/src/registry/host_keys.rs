//! Reports of host keys: taken for endpoints that are the agent's own, pinned by the store, told in the audit.

use std::collections::BTreeSet;

use fairlead_identity::name::{EndpointUrl, Protocol};
use fairlead_identity::ssh;
use fairlead_runtime::audit::Record;
use fairlead_wire::control::{EndpointHostKeys, HostKeyReport};
use fairlead_wire::refusal::Reason;

use super::Registry;
use super::links::{holds, id_of, internal};
use crate::link::AgentKey;
use crate::store::{EndpointRow, HostKeyNews, KeyLines, Mode, ReportedHostKeys, StoreError};

/// What came of one endpoint of a report.
enum Came {
    /// The endpoint is not the agent's, or no SSH server of the customer's stands behind it.
    Refused(String),
    /// The keys are in the store.
    Taken(ReportedHostKeys, HostKeyNews),
}

impl Registry {
    pub(super) async fn take_host_keys(
        &self,
        agent: &AgentKey,
        spki: [u8; 32],
        report: HostKeyReport,
        tell_refused: bool,
    ) -> Result<usize, Reason> {
        let (id, now) = (id_of(agent), self.unix_now());
        let taken = self.store.run({
            let (id, site) = (id.clone(), agent.site.to_string());
            move |store| {
                if !holds(store, &id, spki)? {
                    return Ok(None);
                }
                let own = store.endpoints_of(&id)?;
                let mut came = Vec::new();
                for endpoint in report.endpoints {
                    came.push(match read(&own, &site, &endpoint) {
                        Some(keys) => {
                            let news = store.report_host_keys(&id, &spki, &keys, now)?;
                            Came::Taken(keys, news)
                        }
                        None => Came::Refused(endpoint.url),
                    });
                }
                Ok(Some(came))
            }
        });
        let taken: Result<_, StoreError> = taken.await;
        let came = taken.map_err(|error| internal(&error))?.ok_or(Reason::Revoked)?;
        Ok(self.record_host_keys(agent, &came, tell_refused))
    }

    /// One line for each endpoint that was pinned or changed, and one for all that were refused. Returns how many were.
    fn record_host_keys(&self, agent: &AgentKey, came: &[Came], tell_refused: bool) -> usize {
        let mut refused = came.iter().filter_map(|came| match came {
            Came::Refused(url) => Some(url),
            Came::Taken(..) => None,
        });
        let about = |event| {
            let mut record = Record::new(event);
            record.site = Some(agent.site.to_string());
            record.agent = Some(agent.name.to_string());
            record
        };
        if let (true, Some(first)) = (tell_refused, refused.next()) {
            let mut record = about("hostkey.refuse");
            record.endpoint = Some(first.clone());
            record.decision = Some("deny".into());
            record.reason = Some(Reason::NotBound.name().into());
            // Nothing was taken; the failure to log it is in the gateway's log.
            let _unlogged = self.trail.event(&record);
        }
        for came in came {
            let Came::Taken(keys, news) = came else { continue };
            let event = match news {
                HostKeyNews::Trusted => "hostkey.first",
                HostKeyNews::Held { tell: true } => "hostkey.changed",
                HostKeyNews::Held { tell: false } | HostKeyNews::Known => continue,
            };
            let mut record = about(event);
            record.endpoint = Some(format!("ssh://{}.{}.internal:{}", keys.host, agent.site, keys.port));
            record.fact("keys", fingerprints(&keys.keys));
            // What is held is not given to callers, logged or not.
            let _unlogged = self.trail.event(&record);
        }
        came.iter().filter(|came| matches!(came, Came::Refused(_))).count()
    }
}

/// The keys of an endpoint that the agent has offered and tunnels to, in the one spelling that the store compares.
fn read(own: &[EndpointRow], site: &str, reported: &EndpointHostKeys) -> Option<ReportedHostKeys> {
    let url: EndpointUrl = reported.url.parse().ok()?;
    let offered = |row: &&EndpointRow| row.host == url.host.as_str() && row.port == url.port;
    let row = own.iter().find(offered)?;
    let ssh = Protocol::Ssh;
    if url.site.as_str() != site || url.protocol != ssh || row.protocol != ssh.as_str() || row.mode != Mode::Tunnel {
        return None;
    }
    let line = |text: &String| {
        let key = ssh::parse_public_line(text).ok()?;
        ssh::ssh_key::PublicKey::new(key.key_data().clone(), "")
            .to_openssh()
            .ok()
    };
    let keys: Option<BTreeSet<String>> = reported.public_keys.iter().map(line).collect();
    Some(ReportedHostKeys {
        host: row.host.clone(),
        port: row.port,
        keys: keys?,
    })
}

/// The keys as OpenSSH prints their fingerprints.
pub(crate) fn fingerprints(keys: &KeyLines) -> Vec<String> {
    let key = |line: &String| ssh::parse_public_line(line).ok();
    keys.iter().filter_map(key).map(|key| ssh::fingerprint(&key)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJk2xL7LyGUG5mPJmRVhbQHhGgVk1nGCHqfXDLtYBlo0";

    fn offered(host: &str, port: u16, protocol: &str, mode: Mode) -> EndpointRow {
        EndpointRow {
            host: host.into(),
            protocol: protocol.into(),
            port,
            mode,
            pooling: false,
        }
    }

    #[test]
    fn keys_are_taken_of_offered_tunnels_to_ssh_servers_only() {
        let own = [
            offered("pump-7", 22, "ssh", Mode::Tunnel),
            offered("pump-7", 2222, "ssh", Mode::Builtin),
            offered("pump-7", 80, "tcp", Mode::Tunnel),
        ];
        let taken = |url: &str, key: &str| {
            let reported = EndpointHostKeys {
                url: url.into(),
                public_keys: vec![key.into()],
            };
            read(&own, "plant-7", &reported)
        };
        let commented = format!("{KEY} root@pump-7");
        let keys = taken("ssh://pump-7.plant-7.internal", &commented).unwrap();
        assert_eq!((keys.port, keys.keys), (22, BTreeSet::from([KEY.to_owned()])));
        for url in [
            "ssh://pump-8.plant-7.internal",
            "ssh://pump-7.plant-8.internal",
            "ssh://pump-7.plant-7.internal:2222",
            "tcp://pump-7.plant-7.internal:80",
            "ssh://pump-7.plant-7.internal:80",
            "ssh://pump-7.plant-7.internal:23",
            "nonsense",
        ] {
            assert_eq!(taken(url, KEY), None, "{url}");
        }
        for key in [
            "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAgQ==",
            "no key",
            "* ssh-ed25519 AAAA",
        ] {
            assert_eq!(taken("ssh://pump-7.plant-7.internal", key), None, "{key}");
        }
    }
}
