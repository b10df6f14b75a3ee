//! The TCP side of links: the upgrade of a TLS connection that asked for the links' protocol, and what it is for.
//!
//! The same purposes as over UDP, named by the path instead of the ALPN, and a further one: a connection for a session of
//! a link that stands. Nothing here is for browsers: a request with an Origin is refused, and nothing is compressed.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use fairlead_identity::principal::Kind;
use fairlead_identity::tls;
use fairlead_identity::verify::Authenticated;
use fairlead_runtime::quic::{IDLE, SAVER_IDLE};
use fairlead_runtime::transport::Connection;
use fairlead_runtime::transport::websocket::{self, KeepAlive, Raw, WebSocket};
use fairlead_wire::refusal::Reason;
use fairlead_wire::upgrade::{self, Asked, LinkId};
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_rustls::StartHandshake;
use tokio_tungstenite::accept_hdr_async_with_config;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::{HeaderValue, Method, StatusCode};

use super::accept::{HANDSHAKE_LIMIT, Links, Purpose};
use super::head::Head;
use super::{CallerConnection, agent, enrollment};
use crate::admission::Slot;

/// The upgrade request must be complete this soon after TLS (SECURITY.md advisory 63).
const UPGRADE_LIMIT: Duration = Duration::from_secs(5);

/// A connection whose purpose and peer are known.
struct Arrived {
    raw: Raw,
    asked: Asked,
    chain: Option<Vec<CertificateDer<'static>>>,
    /// Where the request opens a link: the name that its further connections give.
    link: LinkId,
}

impl Links {
    /// Serves a TLS connection whose client asked for the links' protocol; links go on after this has returned. `slot` is
    /// given back once it is known who the peer is.
    pub async fn arrive<S>(self: Arc<Self>, begun: StartHandshake<S>, client: SocketAddr, slot: Slot)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let pass = slot.pass();
        match timeout(HANDSHAKE_LIMIT, pass.run(self.meet(begun, client))).await {
            Ok(Ok(arrived)) => self.lead(arrived, client, slot).await,
            Ok(Err(Some(why))) => self.registrar.stranger(client.ip(), why),
            Ok(Err(None)) => {}
            Err(_) => tracing::debug!(%client, "TLS and WebSocket handshake did not end within 10 s"),
        }
    }

    /// The handshakes; an error is the stable name of why the peer was refused, `None` where it went away.
    async fn meet<S>(&self, begun: StartHandshake<S>, client: SocketAddr) -> Result<Arrived, Option<&'static str>>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let settings = Arc::clone(&self.tls.borrow());
        let tls = begun.into_stream(settings).await.map_err(|error| {
            tracing::debug!(%client, %error, "TLS handshake of a link failed");
            (error.kind() == io::ErrorKind::InvalidData).then(|| tls::handshake_refusal(&error.to_string()))
        })?;
        let chain = tls.get_ref().1.peer_certificates();
        let chain = chain.map(|chain| chain.iter().map(|der| der.clone().into_owned()).collect());
        let head = timeout(UPGRADE_LIMIT, Head::read(tls)).await.map_err(|_| None)?;
        let head = head.map_err(|error| {
            tracing::debug!(%client, %error, "no upgrade request");
            (error.kind() == io::ErrorKind::InvalidData).then_some("not-an-upgrade")
        })?;
        let link = LinkId::from_bytes(rand::random());
        let mut asked = None;
        #[expect(clippy::result_large_err, reason = "the library's own type")]
        let callback = |request: &Request, response: Response| answer(request, response, link, &mut asked);
        let carrier: Box<dyn websocket::Carrier> = Box::new(head);
        let accepted = accept_hdr_async_with_config(carrier, callback, Some(websocket::limits())).await;
        let raw = accepted.map_err(|error| {
            tracing::debug!(%client, %error, "the upgrade was refused");
            Some("not-an-upgrade")
        })?;
        let asked = asked.ok_or(None)?;
        Ok(Arrived {
            raw,
            asked,
            chain,
            link,
        })
    }

    /// Leads a connection to the room that its path names.
    async fn lead(self: &Arc<Self>, arrived: Arrived, client: SocketAddr, slot: Slot) {
        let Arrived {
            raw,
            asked,
            chain,
            link,
        } = arrived;
        let alpn = match asked {
            Asked::Session { link, number } => return self.park(raw, link, number, chain.as_deref(), client),
            Asked::Purpose { alpn, .. } => alpn,
        };
        match self.purpose(alpn, chain) {
            // The enrolment exchange is anonymous to its end, so it keeps the slot.
            Purpose::Enroll => enrollment::serve(self, WebSocket::one(raw, client).into()).await,
            Purpose::Link(who) => {
                drop(slot);
                let idle = match asked {
                    Asked::Purpose { idle: Some(idle), .. } => idle.clamp(IDLE, SAVER_IDLE),
                    _ => IDLE,
                };
                self.begin(raw, link, idle, *who, client);
            }
            Purpose::Call(chain, who) => {
                let connection = WebSocket::one(raw, client).into();
                self.converse(
                    CallerConnection {
                        connection,
                        chain,
                        who: *who,
                    },
                    client.ip(),
                    slot,
                )
                .await;
            }
            Purpose::None(reason, why, text) => {
                self.registrar.stranger(client.ip(), why);
                Connection::from(WebSocket::one(raw, client)).close(reason.code(), &text);
            }
        }
    }

    /// A link, from here on a task of its own.
    fn begin(self: &Arc<Self>, raw: Raw, id: LinkId, idle: Duration, who: Authenticated, client: SocketAddr) {
        let connection = WebSocket::serving(raw, client, KeepAlive { idle, every: None });
        self.standing.enter(id, *who.spki_sha256(), connection.clone());
        let links = Arc::clone(self);
        self.tasks.spawn("link", async move {
            agent::serve(&links, connection.into(), who).await;
            links.standing.leave(id);
        });
    }

    /// A further connection of a link: only the key that the link stands by may bring one.
    fn park(&self, raw: Raw, link: LinkId, number: u64, chain: Option<&[CertificateDer<'static>]>, client: SocketAddr) {
        let refuse = |raw: Raw, reason: Reason, why: &'static str| {
            self.registrar.stranger(client.ip(), why);
            Connection::from(WebSocket::one(raw, client)).close(reason.code(), why);
        };
        let Some(chain) = chain else {
            return refuse(raw, Reason::Denied, "no-certificate");
        };
        let who = match self.registrar.authenticate(chain) {
            Ok(who) if who.principal().kind() == Kind::Agent => who,
            Ok(_) => return refuse(raw, Reason::Denied, "not-an-agent"),
            Err(error) => return refuse(raw, Reason::Denied, error.reason()),
        };
        match self.standing.find(link, who.spki_sha256()) {
            Some(connection) => connection.park(raw, number),
            // The link has ended a moment ago; its agent is told by that.
            None => Connection::from(WebSocket::one(raw, client)).close(Reason::Offline.code(), "no such link"),
        }
    }
}

/// What the request asks for, and the answer to it. Refused here is only what no program of ours sends.
#[expect(clippy::result_large_err, reason = "the library's own type")]
fn answer(
    request: &Request,
    mut response: Response,
    link: LinkId,
    asked: &mut Option<Asked>,
) -> Result<Response, ErrorResponse> {
    let refused = |status: StatusCode| {
        let mut response = ErrorResponse::new(None);
        *response.status_mut() = status;
        Err(response)
    };
    let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
    if request.headers().contains_key("origin") {
        return refused(StatusCode::FORBIDDEN);
    }
    if request.method() != Method::GET || request.uri().query().is_some() {
        return refused(StatusCode::BAD_REQUEST);
    }
    match Asked::read(request.uri().path(), header) {
        Some(read) => {
            if matches!(read, Asked::Purpose { .. })
                && let Ok(value) = HeaderValue::from_str(&link.to_string())
            {
                response.headers_mut().insert(upgrade::LINK, value);
            }
            *asked = Some(read);
            Ok(response)
        }
        None => refused(StatusCode::NOT_FOUND),
    }
}
