//! What is sent to an agent about a session, out of what the gate gave.

use std::time::SystemTime;

use fairlead_identity::name::EndpointUrl;
use fairlead_wire::mqtt::Supposed;
use fairlead_wire::open::{self, Open};
use fairlead_wire::version::{EXPLAIN, MQTT_FACTS};

use crate::access::Permit;

/// What an agent is asked about; see [`super::Roster::ask`].
#[derive(Clone, Debug)]
pub struct Question {
    /// The caller's facts.
    pub caller: open::Caller,
    /// The endpoint.
    pub endpoint: EndpointUrl,
    /// Where the caller would come from.
    pub client: std::net::SocketAddr,
    /// The acts asked about; none for a tunnel.
    pub acts: Vec<String>,
    /// What an MQTT client is supposed to say; about a topic only beside one act.
    pub mqtt: Option<Supposed>,
    /// The moment asked about.
    pub at: SystemTime,
}

impl Question {
    pub(super) fn message(self) -> Open {
        let supposes = self.mqtt.as_ref().map(|_| MQTT_FACTS);
        Open {
            // INVARIANT: with the first an agent opens nothing, and one that does not know them refuses.
            requires: [EXPLAIN].into_iter().chain(supposes).map(str::to_owned).collect(),
            session: rand::random::<[u8; 16]>().to_vec(),
            endpoint_url: self.endpoint.to_string(),
            caller: Some(self.caller),
            client_ip: self.client.ip().to_string(),
            client_port: u32::from(self.client.port()),
            acts: self.acts,
            started_unix_ms: unix_ms(self.at),
            cancel: None,
            mqtt: self.mqtt,
        }
    }
}

fn unix_ms(time: SystemTime) -> u64 {
    super::drain::millis(time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
}

/// What an agent is told of a permitted session.
pub(in crate::link) fn open_message(permit: &Permit) -> Open {
    let caller = permit.caller();
    Open {
        requires: Vec::new(),
        session: permit.session().as_bytes().to_vec(),
        endpoint_url: permit.endpoint().to_string(),
        caller: Some(open::Caller {
            name: caller.name.to_string(),
            kind: caller.kind.as_str().to_owned(),
            groups: caller.groups.clone(),
            labels: caller.labels.clone(),
            site: caller.site.as_ref().map(ToString::to_string).unwrap_or_default(),
            ssh_keys: caller.ssh_keys.clone(),
        }),
        client_ip: permit.client().ip().to_string(),
        client_port: u32::from(permit.client().port()),
        acts: permit.acts().iter().cloned().collect(),
        started_unix_ms: unix_ms(permit.started()),
        cancel: None,
        mqtt: None,
    }
}
