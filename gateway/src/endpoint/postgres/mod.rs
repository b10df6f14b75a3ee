//! The Postgres face: libpq, JDBC and every other client with an ordinary connection string and a client certificate.
//!
//! The certificate is the caller; the server name leads to the `postgres://` endpoint of that host, else
//! `options=-c fairlead.endpoint=HOST.SITE`, else the end of the user name (`app@HOST.SITE`). What the StartupMessage asks
//! for is the policy's to judge. A refusal is an ErrorResponse with SQLSTATE 28000, a cut one with 57P01, both with the
//! session's id. Login is between the client and the database, or the agent; queries are not read. A CancelRequest, in TLS or
//! in clear, reaches the database of the session whose key it shows, and is never answered. Clients whom another way in has
//! identified are led here too (`led`).

mod cancelling;
mod hello;
pub(super) mod led;
mod name;
mod outgoing;

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use fairlead_identity::name::Protocol;
use fairlead_policy::{PostgresFacts, TlsFacts};
use fairlead_protocol::first_bytes::FirstBytes;
use fairlead_protocol::postgres::{self, Startup};
use fairlead_runtime::relay;
use fairlead_wire::refusal::Reason;
use tokio_rustls::server::TlsStream;

use super::handshake::{Nobody, identify};
use super::{Answer, Arrival, Callers, Claim, ClientStream, Door, Face, Handshake, Kind, Parts, TlsClient, Wanted};
use crate::access::{Caller, Denial, Spoken};
use crate::admission::Slot;
use cancelling::Cancelling;
use hello::{Greeted, Wish};
pub(super) use outgoing::Outgoing;

/// The demultiplexer's entry for this kind.
pub(super) const KIND: Kind = Kind {
    name: "postgres",
    leads_to: &[Protocol::Postgres],
    claims: &[Claim::FirstBytes(FirstBytes::Postgres), Claim::Alpn(b"postgresql")],
    names_inside: true,
    is_dedicable: true,
    reads: Some(Protocol::Postgres),
    open: PostgresFace::open,
};

/// SQLSTATE of a refusal: `invalid_authorization_specification`.
const REFUSED: &str = "28000";
/// SQLSTATE of a cut: `admin_shutdown`.
const CUT: &str = "57P01";
/// SQLSTATE of bytes that are no proper opening: `protocol_violation`.
const VIOLATION: &str = "08P01";

struct PostgresFace {
    door: Arc<Door>,
    callers: Arc<dyn Callers>,
    tls: Arc<Handshake>,
    cancels: Cancelling,
    domain: String,
}

impl PostgresFace {
    fn open(parts: &Parts) -> anyhow::Result<Arc<dyn Face>> {
        Ok(Arc::new(Self {
            door: Arc::clone(&parts.door),
            callers: Arc::clone(&parts.callers),
            tls: Arc::clone(&parts.tls),
            cancels: Cancelling::new(Arc::clone(&parts.door)),
            domain: parts.domain.clone(),
        }))
    }

    async fn run(&self, arrival: Arrival, client: SocketAddr, slot: Slot) {
        let met = match arrival {
            Arrival::Tls(met) => *met,
            Arrival::Plain(stream) => match slot
                .pass()
                .run(hello::greet(stream, &self.tls, KIND.name, client))
                .await
            {
                Greeted::Tls(met) => *met,
                Greeted::Cancel(key, stream) => {
                    self.cancels.cancel(&key, None, client).await;
                    return hello::close(stream).await;
                }
                Greeted::Gone => return,
            },
        };
        let TlsClient {
            mut stream,
            server_name,
            facts,
            presented,
        } = met;
        let caller = match &presented {
            Some(presented) => identify(self.callers.as_ref(), presented).await,
            None => Err(Nobody {
                why: "no-certificate",
                told: Reason::Denied,
            }),
        };
        let mut startup = match hello::wish(&mut stream).await {
            Ok(Some(Wish::Session(startup))) => startup,
            Ok(Some(Wish::Cancel(key))) => {
                // Whoever presents a certificate that lets nobody in proves nothing by it.
                self.cancels.cancel(&key, caller.as_ref().ok(), client).await;
                return hello::close(stream).await;
            }
            Ok(None) => return,
            Err(error) => return hello::refuse(stream, VIOLATION, &format!("fairlead: {error}"), "").await,
        };
        match caller {
            Ok(caller) => {
                drop(slot);
                let host = name::endpoint(server_name.as_deref(), &self.domain, &mut startup);
                let spoken = spoken(&startup, facts);
                let caller = Arc::new(caller);
                Box::pin(self.serve_caller(stream, &caller, &host, spoken, client)).await;
            }
            Err(Nobody { why, told }) => {
                self.door.not_identified(why, server_name.as_deref(), client);
                let (message, hint) = match presented {
                    None => (
                        "fairlead: a client certificate is required".to_owned(),
                        "set sslcert and sslkey",
                    ),
                    Some(_) => (format!("fairlead: {told} ({why})"), "log in again: fairlead login"),
                };
                hello::refuse(stream, REFUSED, &message, hint).await;
            }
        }
    }

    async fn serve_caller(
        &self,
        stream: TlsStream<ClientStream>,
        caller: &Arc<Caller>,
        host: &str,
        spoken: Spoken,
        client: SocketAddr,
    ) {
        let wanted = Wanted::Speaking(host, KIND.leads_to);
        // On the heap: what only leads to a session shall not take room in it for as long as it lives.
        let session = match Box::pin(self.door.enter_saying(caller, wanted, spoken, client)).await {
            Ok(session) => session,
            Err(denial) => return Box::pin(hello::refuse(stream, REFUSED, &denial.to_string(), hint(denial))).await,
        };
        let lapse = session.permit().lapse().clone();
        let (mut source, sink) = relay::split(stream);
        let mut sink = Outgoing::new(sink, session.cancel_seat(), lapse);
        let carried = session.carry((&mut source, &mut sink)).await;
        let (sink, may_speak) = sink.into_inner();
        let stream = source.0.unsplit(sink.0);
        match carried.reason {
            None | Some(Reason::CallerGone) => {}
            Some(_) if may_speak => Box::pin(hello::refuse(stream, CUT, &carried.denial.to_string(), "")).await,
            // In the middle of a message nothing can be said; the cut itself must do.
            Some(_) => {}
        }
    }
}

/// What the policy may read, and what the agent does.
fn spoken(startup: &Startup, tls: TlsFacts) -> Spoken {
    Spoken {
        postgres: Some(PostgresFacts {
            user: startup.user().to_owned(),
            database: startup.database().to_owned(),
            application_name: startup.parameter("application_name").to_owned(),
        }),
        tls,
        first_bytes: Bytes::from(startup.to_bytes()),
        ..Spoken::default()
    }
}

fn hint(denial: Denial) -> &'static str {
    match denial.told {
        Reason::Denied => "the access policy does not allow this user and database, or there is no such endpoint",
        Reason::Offline => "the agent that serves this database is not connected",
        Reason::UpstreamFailed => "the agent cannot reach this database",
        Reason::Limit => "too many sessions at a time",
        _ => "",
    }
}

/// The bytes that refuse a client which speaks without TLS.
fn tls_required() -> Vec<u8> {
    let hint = "set sslmode=verify-full, sslrootcert, sslcert and sslkey";
    postgres::fatal(REFUSED, "fairlead: TLS with a client certificate is required", hint)
}

impl Face for PostgresFace {
    fn serve<'a>(&'a self, arrival: Arrival, client: SocketAddr, slot: Slot) -> Answer<'a, ()> {
        Box::pin(self.run(arrival, client, slot))
    }
}
