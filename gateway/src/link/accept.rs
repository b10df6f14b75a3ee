//! The UDP side of the one port: handshakes with slots and deadlines, then the room that the ALPN names.
//!
//! quinn cannot choose TLS settings by ALPN, so the handshake accepts peers without a certificate and the purpose is
//! checked here, before a stream is read: linking needs an agent's certificate, enrolling needs none.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fairlead_identity::principal::Kind;
use fairlead_identity::verify::{self, Authenticated, Roots, Usage};
use fairlead_runtime::stop::CancellationToken;
use fairlead_runtime::tasks::TaskGroup;
use fairlead_wire::refusal::Reason;
use fairlead_wire::version::{ALPN_ENROLL, ALPN_LINK};
use quinn::crypto::rustls::HandshakeData;
use quinn::{Connection, Incoming, VarInt};
use rustls::pki_types::CertificateDer;
use tokio::time::timeout;

use super::roster::Roster;
use super::{Registrar, agent, enrollment};
use crate::admission::Admission;

/// A handshake takes at most this long (SECURITY.md advisory 52).
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// Above this many handshakes in flight, an address must prove itself by a Retry round trip (SECURITY.md A6).
const RETRY_ABOVE: usize = 256;

/// What every connection of this port needs.
pub struct Acceptor {
    /// Roots that agents' certificates must lead to.
    pub roots: Roots,
    /// The trust domain in their names.
    pub trust_domain: String,
    /// Slots for strangers, shared with the TCP side.
    pub admission: Arc<Admission>,
    /// Who is online.
    pub roster: Arc<Roster>,
    /// The rooms that remember.
    pub registrar: Arc<dyn Registrar>,
}

/// [`Acceptor`] with the token that ends every link.
pub(super) struct Shared {
    pub(super) acceptor: Acceptor,
    pub(super) stop: CancellationToken,
}

impl std::ops::Deref for Shared {
    type Target = Acceptor;

    fn deref(&self) -> &Acceptor {
        &self.acceptor
    }
}

/// Accepts until `stop`; connections already accepted live on in `tasks` until their own end or `stop`.
pub async fn serve(endpoint: quinn::Endpoint, acceptor: Acceptor, tasks: TaskGroup, stop: CancellationToken) {
    let shared = Arc::new(Shared {
        acceptor,
        stop: stop.clone(),
    });
    loop {
        let incoming = tokio::select! {
            () = stop.cancelled() => return,
            incoming = endpoint.accept() => incoming,
        };
        let Some(incoming) = incoming else { return };
        if !incoming.remote_address_validated() && shared.admission.in_flight() > RETRY_ABOVE {
            let _expired = incoming.retry();
            continue;
        }
        let Some(slot) = shared.admission.try_enter(incoming.remote_address().ip()) else {
            // Ignored rather than refused: no packet goes out for a flood. Nor does it wait, as TCP connections do: its
            // address may be forged, and a peer that is there sends its first packet again after a second.
            incoming.ignore();
            continue;
        };
        let shared = Arc::clone(&shared);
        tasks.spawn("link", async move {
            let Some(connection) = handshake(incoming).await else {
                return;
            };
            let purpose = purpose(&shared, &connection);
            match purpose {
                // The enrolment exchange is anonymous to its end, so it keeps the slot.
                Purpose::Enroll => enrollment::serve(&shared, connection).await,
                Purpose::Link(who) => {
                    drop(slot);
                    agent::serve(&shared, connection, *who).await;
                }
                Purpose::None(reason, text) => connection.close(VarInt::from_u32(reason.code()), text.as_bytes()),
            }
        });
    }
}

async fn handshake(incoming: Incoming) -> Option<Connection> {
    let client = incoming.remote_address();
    match timeout(HANDSHAKE_LIMIT, async { incoming.accept()?.await }).await {
        Ok(Ok(connection)) => Some(connection),
        Ok(Err(error)) => {
            tracing::debug!(%client, %error, "QUIC handshake failed");
            None
        }
        Err(_) => {
            tracing::debug!(%client, "QUIC handshake did not end within 10 s");
            None
        }
    }
}

/// What a connection is for, once its ALPN and certificate have been looked at.
enum Purpose {
    Enroll,
    Link(Box<Authenticated>),
    None(Reason, String),
}

fn purpose(shared: &Shared, connection: &Connection) -> Purpose {
    let handshake = connection
        .handshake_data()
        .and_then(|data| data.downcast::<HandshakeData>().ok());
    let alpn = handshake.and_then(|data| data.protocol).unwrap_or_default();
    if alpn == ALPN_ENROLL {
        return Purpose::Enroll;
    }
    if alpn != ALPN_LINK {
        return Purpose::None(
            Reason::Unsupported,
            "this gateway does not know the application protocol".into(),
        );
    }
    let Some(chain) = connection
        .peer_identity()
        .and_then(|any| any.downcast::<Vec<CertificateDer<'static>>>().ok())
    else {
        return Purpose::None(Reason::Denied, "an agent must present its certificate".into());
    };
    match verify::authenticate(
        &chain,
        &shared.roots,
        Usage::Client,
        &shared.trust_domain,
        SystemTime::now(),
    ) {
        Ok(who) if who.principal().kind() == Kind::Agent => Purpose::Link(Box::new(who)),
        Ok(_) => Purpose::None(Reason::Denied, "only agents link".into()),
        Err(error) => Purpose::None(Reason::Denied, error.to_string()),
    }
}
