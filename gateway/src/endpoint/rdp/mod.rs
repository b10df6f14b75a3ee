//! The RDP face: mstsc, xfreerdp and every other client that sends a routing token (`Cookie: msts=`).
//!
//! Such clients cannot present a certificate, so the token is the caller and the endpoint: `fairlead rdp` asks for one and writes it
//! into an .rdp file. Only the X.224 Connection Request is read; TLS, NLA and everything in them are between the client and
//! the desktop, which never sees the token. A refusal is a negotiation failure; after that the protocol has no words
//! that the gateway could say, and a cut is the end of the connection. Clients whom another way in has identified are led
//! here too (`led`).

mod hello;
pub(super) mod led;

use std::net::SocketAddr;
use std::sync::Arc;

use fairlead_identity::name::Protocol;
use fairlead_protocol::first_bytes::FirstBytes;
use fairlead_protocol::rdp::{Failure, Request};
use fairlead_wire::refusal::Reason;

use super::ahead::Ahead;
use super::{Answer, Arrival, Claim, ClientStream, Door, Face, Kind, Parts, Stray};
use crate::admission::{Failures, Slot};
use crate::session::Session;

/// The demultiplexer's entry for this kind.
pub(super) const KIND: Kind = Kind {
    name: "rdp",
    leads_to: &[],
    claims: &[Claim::FirstBytes(FirstBytes::Rdp)],
    names_inside: false,
    is_dedicable: true,
    reads: Some(Protocol::Rdp),
    open: RdpFace::open,
};

struct RdpFace {
    door: Arc<Door>,
    failures: Arc<Failures>,
}

impl RdpFace {
    fn open(parts: &Parts) -> anyhow::Result<Arc<dyn Face>> {
        Ok(Arc::new(Self {
            door: Arc::clone(&parts.door),
            failures: Arc::clone(&parts.failures),
        }))
    }

    async fn run(&self, stream: ClientStream, client: SocketAddr, slot: Slot) {
        let (read_already, socket) = stream.into_parts();
        let (source, sink) = socket.into_split();
        let mut source = Ahead::new(source, read_already);
        let request = match hello::request(&mut source).await {
            Ok(request) => request,
            // Whoever speaks no RDP would not understand an answer either.
            Err(error) => return tracing::debug!(%client, %error, "no RDP connection request"),
        };
        // On the heap: what only leads to a session shall not take room in it for as long as it lives.
        let entered = Box::pin(self.enter(&request, client)).await;
        drop(slot);
        let session = match entered {
            Ok(session) => session,
            Err(failure) => return Box::pin(hello::refuse(&request, failure, source, sink)).await,
        };
        source.put_back(&request.without_text());
        session.carry((source, sink)).await;
    }

    async fn enter(&self, request: &Request, client: SocketAddr) -> Result<Session, Failure> {
        if let Some(penalty) = self.failures.penalty(client.ip()) {
            tracing::debug!(%client, left = ?penalty.left, "too many failed logins; the token is not looked at");
            return Err(Failure::UserRequired);
        }
        let Some(token) = request.token() else {
            self.door.not_identified("no-routing-token", None, client);
            return Err(Failure::UserRequired);
        };
        let entered = self.door.enter_by_token(token, client).await;
        match entered {
            Err(Stray::Stale { is_guess: true }) => {
                if self.failures.failed(client.ip()) {
                    tracing::debug!(%client, "shut out for failed logins");
                }
            }
            // A token that somebody was given is no guess, also when it comes too late.
            Err(Stray::Stale { is_guess: false }) => {}
            Err(Stray::Denied(_)) | Ok(_) => self.failures.succeeded(client.ip()),
        }
        entered.map_err(|stray| match stray {
            Stray::Stale { .. } => Failure::UserRequired,
            Stray::Denied(denial) => failure(denial.told),
        })
    }
}

/// The failure that says a reason, as far as RDP has words: one for whoever may not, one for what does not work now.
fn failure(told: Reason) -> Failure {
    match told {
        Reason::Denied | Reason::Revoked | Reason::Expired => Failure::UserRequired,
        _ => Failure::NoCertificate,
    }
}

impl Face for RdpFace {
    fn serve<'a>(&'a self, arrival: Arrival, client: SocketAddr, slot: Slot) -> Answer<'a, ()> {
        Box::pin(async move {
            if let Arrival::Plain(stream) = arrival {
                self.run(stream, client, slot).await;
            }
        })
    }
}
