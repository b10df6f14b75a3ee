//! The one driver: look up, decide, open. No face has another way to a session.

use std::net::SocketAddr;
use std::sync::Arc;

use fairlead_identity::name::{self, Label};
use fairlead_runtime::audit::Record;
use fairlead_runtime::clock::Clock;
use fairlead_wire::id::SessionId;

use super::{Answer, Callers};
use crate::access::{AccessRequest, Caller, Denial, Gate, Target};
use crate::session::{Session, Sessions};

/// The longest part of a caller's words that goes into the audit.
const ASKED_LIMIT: usize = 200;

/// Finds endpoints by what callers name: a host, its site and a port.
pub trait Directory: Send + Sync + 'static {
    /// The endpoint of HOST.SITE at `port` and the agent that owns it, whether or not the agent is online.
    fn find<'a>(&'a self, host: &'a Label, site: &'a Label, port: u16) -> Answer<'a, Option<Target>>;
}

/// Leads authenticated callers to sessions.
pub struct Door {
    gate: Arc<Gate>,
    callers: Arc<dyn Callers>,
    directory: Arc<dyn Directory>,
    sessions: Sessions,
    clock: Arc<dyn Clock>,
    domain: String,
}

impl Door {
    /// A door to `sessions` through `gate`.
    pub fn new(
        gate: Arc<Gate>,
        callers: Arc<dyn Callers>,
        directory: Arc<dyn Directory>,
        sessions: Sessions,
        clock: Arc<dyn Clock>,
        domain: String,
    ) -> Self {
        Self {
            gate,
            callers,
            directory,
            sessions,
            clock,
            domain,
        }
    }

    /// Opens a session for `caller` to the endpoint that `host` and `port` name in the caller's own words.
    ///
    /// `caller` is who they were at their login; what counts is what the store says of them now.
    ///
    /// # Errors
    /// A [`Denial`] that is safe to show to the caller. A name that is no endpoint, not even a valid one, is denied the
    /// same way as a forbidden one. Who was shut out since the login is told `revoked`.
    pub async fn enter(
        &self,
        caller: &Arc<Caller>,
        host: &str,
        port: u16,
        client: SocketAddr,
    ) -> Result<Session, Denial> {
        // Before anything is looked up, so that no change in between goes unseen.
        let as_of = self.sessions.changes_noted();
        let shown: String = host.chars().filter(|c| !c.is_control()).take(ASKED_LIMIT).collect();
        let asked = format!("{shown}:{port}");
        let Some(present) = self.present(caller).await else {
            let request = self.request(caller, asked, None, client, as_of);
            return Err(self.gate.shut_out(&request));
        };
        let target = match name::parse_host(host, &self.domain) {
            Ok((host, site)) => self.directory.find(&host, &site, port).await,
            Err(_) => None,
        };
        let request = self.request(&Arc::new(present), asked, target, client, as_of);
        let permit = self.gate.decide(&request)?;
        self.sessions.open(permit).await
    }

    /// The caller as the store knows them now; `None` once they are shut out, or what they proved at their login no longer
    /// lets them in. A connection may live for days after it.
    pub async fn present(&self, caller: &Caller) -> Option<Caller> {
        self.callers.present(&caller.id(), &caller.by).await
    }

    /// Refuses something that is no endpoint at all (a shell on the gateway, a forward to a socket), with its audit line.
    pub fn turn_away(&self, caller: &Arc<Caller>, asked: &str, client: SocketAddr) -> Denial {
        let request = self.request(caller, asked.to_owned(), None, client, 0);
        match self.gate.decide(&request) {
            Err(denial) => denial,
            // Without a target there is nothing that the gate could permit.
            Ok(permit) => Denial {
                session: permit.session(),
                told: fairlead_wire::refusal::Reason::Denied,
            },
        }
    }

    /// Notes that somebody tried to log in and did not get in, for the reason with the stable name `why`; `shut_out` when
    /// that brought its source a penalty.
    pub fn login_failed(&self, login: &str, why: &'static str, shut_out: bool, client: SocketAddr) {
        let mut record = Record::new("auth.fail");
        record.client_ip = Some(client.ip().to_string());
        record.fact("login", login);
        if shut_out {
            record.fact("shut_out", true);
        }
        self.gate.trail().stranger(record, client.ip(), why);
    }

    fn request(
        &self,
        caller: &Arc<Caller>,
        asked: String,
        target: Option<Target>,
        client: SocketAddr,
        as_of: u64,
    ) -> AccessRequest {
        AccessRequest {
            session: SessionId::from_bytes(uuid::Uuid::now_v7().into_bytes()),
            caller: Arc::clone(caller),
            asked,
            target,
            client,
            now: self.clock.now(),
            as_of,
        }
    }
}
