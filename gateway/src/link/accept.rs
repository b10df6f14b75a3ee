//! The UDP side of the one port: handshakes with slots and deadlines, then the room that the ALPN names.
//!
//! quinn cannot choose TLS settings by ALPN, so the handshake accepts peers without a certificate and the purpose is
//! checked here, before a stream is read: linking needs an agent's certificate, asking a caller's, enrolling none.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use fairlead_identity::principal::Kind;
use fairlead_identity::tls;
use fairlead_identity::verify::{Authenticated, VerifyError};
use fairlead_runtime::stop::CancellationToken;
use fairlead_runtime::tasks::TaskGroup;
use fairlead_runtime::transport;
use fairlead_wire::control::Authority;
use fairlead_wire::refusal::Reason;
use fairlead_wire::version::{ALPN_CALL, ALPN_ENROLL, ALPN_LINK};
use quinn::crypto::rustls::HandshakeData;
use quinn::{Connection, ConnectionError, Incoming};
use rustls::pki_types::CertificateDer;
use tokio::sync::watch;
use tokio::time::timeout;

use super::roster::Roster;
use super::standing::Standing;
use super::{CallerConnection, Conversation, Registrar, agent, enrollment};
use crate::admission::{Admission, Slot};

/// A handshake takes at most this long (SECURITY.md advisory 52).
pub(super) const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// Above this many handshakes in flight, an address must prove itself by a Retry round trip (SECURITY.md A6).
const RETRY_ABOVE: usize = 256;

/// What every connection of this port needs.
pub struct Acceptor {
    /// What agents are told of the authority, as it changes.
    pub authority: watch::Receiver<Authority>,
    /// Slots for strangers, shared with the TCP side.
    pub admission: Arc<Admission>,
    /// Who is online.
    pub roster: Arc<Roster>,
    /// The rooms that remember.
    pub registrar: Arc<dyn Registrar>,
    /// Where callers go.
    pub callers: Arc<dyn Conversation>,
}

/// Both sides of the one port, as far as links, enrolments and callers' conversations come in there.
pub struct Links {
    acceptor: Acceptor,
    /// TLS of the TCP side, as it is renewed.
    pub(super) tls: watch::Receiver<Arc<rustls::ServerConfig>>,
    pub(super) standing: Standing,
    /// Owner of the links.
    pub(super) tasks: TaskGroup,
    pub(super) stop: CancellationToken,
}

impl Links {
    /// Links live in `tasks` until their own end or `stop`. `tls` is for the TCP side.
    pub fn new(
        acceptor: Acceptor,
        tls: watch::Receiver<Arc<rustls::ServerConfig>>,
        tasks: TaskGroup,
        stop: CancellationToken,
    ) -> Arc<Self> {
        Arc::new(Self {
            acceptor,
            tls,
            standing: Standing::default(),
            tasks,
            stop,
        })
    }
}

impl std::ops::Deref for Links {
    type Target = Acceptor;

    fn deref(&self) -> &Acceptor {
        &self.acceptor
    }
}

/// Accepts over UDP until the links are stopped; connections already accepted live on until their own end.
///
/// An address that has not proved itself gets a slot while there are plenty, and else a Retry (RFC 9000 section 8.1.2):
/// a packet smaller than its own, and nothing is kept. One that has proved itself waits for a slot like a TCP
/// connection, so that a fleet behind one address comes back in the order in which it came.
pub async fn serve(endpoint: quinn::Endpoint, shared: Arc<Links>) {
    let (tasks, stop) = (shared.tasks.clone(), shared.stop.clone());
    loop {
        let incoming = tokio::select! {
            () = stop.cancelled() => return,
            incoming = endpoint.accept() => incoming,
        };
        let Some(incoming) = incoming else { return };
        let address = incoming.remote_address().ip();
        if incoming.remote_address_validated() {
            let shared = Arc::clone(&shared);
            tasks.spawn("link", async move {
                match shared.admission.enter(address).await {
                    Some(slot) => meet(&shared, incoming, slot).await,
                    // Ignored rather than refused: a peer that is there sends its first packet again after a second.
                    None => incoming.ignore(),
                }
            });
            continue;
        }
        let crowded = shared.admission.in_flight() > RETRY_ABOVE;
        match (!crowded).then(|| shared.admission.try_enter(address)).flatten() {
            Some(slot) => {
                let shared = Arc::clone(&shared);
                tasks.spawn("link", async move { meet(&shared, incoming, slot).await });
            }
            None => drop(incoming.retry()),
        }
    }
}

/// Serves one connection to its end, or until its slot is needed more by somebody else.
async fn meet(shared: &Links, incoming: Incoming, slot: Slot) {
    let (evicted, client) = (slot.evicted(), incoming.remote_address());
    tokio::select! {
        () = slot.pass().run(admit(shared, incoming, slot)) => {}
        () = evicted.cancelled() => tracing::debug!(%client, "a QUIC handshake gave way to another address"),
    }
}

async fn admit(shared: &Links, incoming: Incoming, slot: Slot) {
    let client = incoming.remote_address().ip();
    let connection = match handshake(incoming).await {
        Ok(connection) => connection,
        Err(Some(why)) => return shared.registrar.stranger(client, why),
        Err(None) => return,
    };
    let purpose = shared.purpose(&alpn(&connection), presented(&connection));
    let connection = transport::Connection::from(connection);
    match purpose {
        // The enrolment exchange is anonymous to its end, so it keeps the slot.
        Purpose::Enroll => enrollment::serve(shared, connection).await,
        Purpose::Link(who) => {
            drop(slot);
            agent::serve(shared, connection, *who).await;
        }
        Purpose::Call(chain, who) => {
            let who = *who;
            shared
                .converse(CallerConnection { connection, chain, who }, client, slot)
                .await;
        }
        Purpose::None(reason, why, text) => {
            shared.registrar.stranger(client, why);
            connection.close(reason.code(), &text);
        }
    }
}

/// The connection, or the stable name of why it was refused; `None` when the peer went away, or was never there.
async fn handshake(incoming: Incoming) -> Result<Connection, Option<&'static str>> {
    let client = incoming.remote_address();
    match timeout(HANDSHAKE_LIMIT, async { incoming.accept()?.await }).await {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(error)) => {
            tracing::debug!(%client, %error, "QUIC handshake failed");
            Err(match &error {
                // Ours: the peer's certificate or its TLS is not what it must be.
                ConnectionError::TransportError(found) => Some(tls::handshake_refusal(&found.reason)),
                _ => None,
            })
        }
        Err(_) => {
            tracing::debug!(%client, "QUIC handshake did not end within 10 s");
            Err(None)
        }
    }
}

fn alpn(connection: &Connection) -> Vec<u8> {
    let handshake = connection
        .handshake_data()
        .and_then(|data| data.downcast::<HandshakeData>().ok());
    handshake.and_then(|data| data.protocol).unwrap_or_default()
}

fn presented(connection: &Connection) -> Option<Vec<CertificateDer<'static>>> {
    let any = connection.peer_identity()?;
    any.downcast::<Vec<CertificateDer<'static>>>().ok().map(|chain| *chain)
}

/// What a connection is for, once its ALPN and certificate have been looked at.
pub(super) enum Purpose {
    Enroll,
    Link(Box<Authenticated>),
    Call(Vec<CertificateDer<'static>>, Box<Result<Authenticated, VerifyError>>),
    /// Nothing: what the peer is told, its stable name for the audit, and the words.
    None(Reason, &'static str, String),
}

impl Links {
    /// The one place where it is decided whom a purpose is open to, over either transport.
    pub(super) fn purpose(&self, alpn: &[u8], chain: Option<Vec<CertificateDer<'static>>>) -> Purpose {
        if alpn == ALPN_ENROLL {
            return Purpose::Enroll;
        }
        if alpn != ALPN_LINK && alpn != ALPN_CALL {
            return Purpose::None(
                Reason::Unsupported,
                "unknown-protocol",
                "this gateway does not know the application protocol".into(),
            );
        }
        let Some(chain) = chain else {
            return Purpose::None(
                Reason::Denied,
                "no-certificate",
                "agents and callers must present their certificate".into(),
            );
        };
        let who = self.registrar.authenticate(&chain);
        if alpn == ALPN_CALL {
            return Purpose::Call(chain, Box::new(who));
        }
        match who {
            Ok(who) if who.principal().kind() == Kind::Agent => Purpose::Link(Box::new(who)),
            Ok(_) => Purpose::None(Reason::Denied, "not-an-agent", "only agents link".into()),
            Err(error) => Purpose::None(Reason::Denied, error.reason(), error.to_string()),
        }
    }

    /// A caller's conversation to its end.
    pub(super) async fn converse(&self, caller: CallerConnection, client: IpAddr, slot: Slot) {
        let conversed = tokio::select! {
            conversed = self.callers.converse(caller, slot) => conversed,
            () = self.stop.cancelled() => Ok(()),
        };
        if let Err(why) = conversed {
            self.registrar.stranger(client, why);
        }
    }
}
