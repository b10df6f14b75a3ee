//! TLS on the one port: the client's first flight tells the kind, the handshake proves the caller's key.
//!
//! Server name and ALPN are read before anything is promised, and choose among settings that were made at the start;
//! nothing that a client says makes new ones. Who the certificate names, and whether they are still welcome, is asked
//! after every handshake ([`identify`]): there is nothing to resume.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use fairlead_identity::tls::{self, Alert, CallerChains, Leaves, Unnamed};
use fairlead_policy::TlsFacts;
use fairlead_runtime::clock::Clock;
use fairlead_wire::refusal::Reason;
use fairlead_wire::upgrade::ALPN_WEBSOCKET;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::{ProtocolVersion, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;
use tokio_rustls::{LazyConfigAcceptor, StartHandshake};

use super::{Callers, Claim, ClientStream, Door, KINDS, Kind, Presented};
use crate::access::Caller;

/// How long the last alert may take to leave, and the client to hear it.
const FAREWELL: Duration = Duration::from_secs(2);
/// Bytes that a client which is being parted with may still send.
const FAREWELL_BYTES: usize = 64 * 1024;

/// Meets clients in TLS.
pub struct Handshake {
    domain: String,
    door: Arc<Door>,
    chains: Arc<dyn CallerChains>,
    clock: Arc<dyn Clock>,
    settings: Vec<(&'static Kind, Arc<ServerConfig>)>,
}

/// A client whose handshake is done. The chain, where there is one, was accepted and its key proven; whom it names is
/// not known yet.
pub struct TlsClient {
    /// The connection, at its first byte of payload.
    pub stream: TlsStream<ClientStream>,
    /// The name that the client asked for.
    pub server_name: Option<String>,
    /// The same for rules, with the version.
    pub facts: TlsFacts,
    /// What it presented; `None` where it presented nothing.
    pub presented: Option<Presented>,
}

/// What came of a client's first flight.
pub(super) enum Met {
    /// A client of this kind.
    Client(&'static str, Box<TlsClient>),
    /// Somebody who wants a link, still to be answered.
    Uplink(Box<StartHandshake<ClientStream>>),
}

async fn begin(stream: ClientStream, client: SocketAddr) -> Option<StartHandshake<ClientStream>> {
    let begun = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), stream).await;
    begun
        .map_err(|error| tracing::debug!(%client, %error, "no TLS client hello"))
        .ok()
}

impl Handshake {
    /// Makes the settings of every kind that is reached inside TLS.
    ///
    /// # Errors
    /// When the TLS library cannot do what is asked of it.
    pub fn new(
        domain: &str,
        door: Arc<Door>,
        chains: &Arc<dyn CallerChains>,
        leaves: &Arc<Leaves>,
        clock: Arc<dyn Clock>,
    ) -> anyhow::Result<Self> {
        let mut settings = Vec::new();
        let tls_clock = Arc::clone(&clock);
        let tls_clock = tls::clock(move || tls_clock.now());
        for kind in KINDS {
            let certificates: Arc<dyn ResolvesServerCert> = if kind.names_inside {
                Arc::new(Unnamed(Arc::clone(leaves)))
            } else {
                Arc::clone(leaves) as Arc<dyn ResolvesServerCert>
            };
            let alpns: Vec<&[u8]> = kind.alpns().collect();
            let made = tls::callers(Arc::clone(chains), certificates, &alpns, Arc::clone(&tls_clock));
            settings.push((kind, made.context("TLS for callers cannot be set up")?));
        }
        Ok(Self {
            domain: domain.to_ascii_lowercase(),
            door,
            chains: Arc::clone(chains),
            clock,
            settings,
        })
    }

    /// Meets a client whose first bytes are TLS: the kind that its first flight belongs to, and the client; or somebody who
    /// asks for the protocol of links, whose settings are not of this room.
    pub(super) async fn meet(&self, stream: ClientStream, client: SocketAddr) -> Option<Met> {
        let begun = begin(stream, client).await?;
        let asks_for_a_link = {
            let hello = begun.client_hello();
            let mut offered = hello.alpn().into_iter().flatten();
            offered.any(|alpn| alpn == ALPN_WEBSOCKET)
        };
        if asks_for_a_link {
            return Some(Met::Uplink(Box::new(begun)));
        }
        let kind = self.kind_of(&begun.client_hello())?;
        let met = self.complete(begun, kind, client).await?;
        Some(Met::Client(kind.name, Box::new(met)))
    }

    /// Meets a client that has asked for TLS in the protocol of the kind called `name`.
    pub(super) async fn meet_inside(&self, name: &str, stream: ClientStream, client: SocketAddr) -> Option<TlsClient> {
        let kind = KINDS.iter().find(|kind| kind.name == name)?;
        self.complete(begin(stream, client).await?, kind, client).await
    }

    async fn complete(
        &self,
        begun: StartHandshake<ClientStream>,
        kind: &'static Kind,
        client: SocketAddr,
    ) -> Option<TlsClient> {
        let (_, settings) = self.settings.iter().find(|(of, _)| of.name == kind.name)?;
        let name = begun.client_hello().server_name().map(str::to_owned);
        let met = begun.into_stream(Arc::clone(settings)).await;
        let refused = |error: io::Error| {
            let why = tls::handshake_refusal(&error.to_string());
            tracing::debug!(%client, %error, why, "TLS handshake failed");
            // Somebody who merely went away, or mistook the port, is no event.
            if error.kind() == io::ErrorKind::InvalidData {
                self.door.not_identified(why, name.as_deref(), client);
            }
        };
        let stream = met.map_err(refused).ok()?;
        let (_, connection) = stream.get_ref();
        let presented = connection.peer_certificates().map(|chain| Presented {
            chain: chain.iter().map(|der| der.clone().into_owned()).collect(),
            who: self.chains.who(chain, self.clock.now()),
        });
        Some(TlsClient {
            facts: facts(connection),
            server_name: connection.server_name().map(str::to_owned),
            presented,
            stream,
        })
    }

    fn kind_of(&self, hello: &ClientHello<'_>) -> Option<&'static Kind> {
        let claimed = |claim| KINDS.iter().find(|kind| kind.claims(claim));
        if hello
            .server_name()
            .is_some_and(|name| name.eq_ignore_ascii_case(&self.domain))
        {
            return claimed(Claim::OwnName);
        }
        let mut offered = hello.alpn().into_iter().flatten();
        let by_alpn = offered.find_map(|alpn| KINDS.iter().find(|kind| kind.alpns_claimed().any(|own| own == alpn)));
        by_alpn.or_else(|| claimed(Claim::AnyTls))
    }
}

impl std::fmt::Debug for Handshake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handshake")
            .field("domain", &self.domain)
            .finish_non_exhaustive()
    }
}

/// What rules may read of a client's TLS.
fn facts(connection: &rustls::ServerConnection) -> TlsFacts {
    let version = match connection.protocol_version() {
        Some(ProtocolVersion::TLSv1_3) => "1.3",
        Some(ProtocolVersion::TLSv1_2) => "1.2",
        _ => "",
    };
    TlsFacts {
        sni: connection.server_name().unwrap_or_default().to_ascii_lowercase(),
        version: version.to_owned(),
    }
}

/// Why a client is nobody: for the audit, and what it may be told.
pub(super) struct Nobody {
    pub(super) why: &'static str,
    pub(super) told: Reason,
}

/// Who has presented this, as the store knows them now: asked after every handshake.
pub(super) async fn identify(callers: &dyn Callers, presented: &Presented) -> Result<Caller, Nobody> {
    let identified = callers.identify(presented).await;
    let (who, by) = identified.map_err(|why| Nobody {
        why,
        told: if why == Reason::Expired.name() {
            Reason::Expired
        } else {
            Reason::Denied
        },
    })?;
    callers.present(&who, &by).await.ok_or(Nobody {
        why: Reason::Revoked.name(),
        told: Reason::Revoked,
    })
}

/// The alert that says a reason, as far as TLS has words.
pub(super) fn alert_of(reason: Reason) -> Alert {
    match reason {
        Reason::Revoked => Alert::CertificateRevoked,
        Reason::Expired => Alert::CertificateExpired,
        Reason::Denied | Reason::NotListed | Reason::Rule | Reason::Killed | Reason::PolicyChanged => {
            Alert::AccessDenied
        }
        _ => Alert::InternalError,
    }
}

/// Ends a connection with an alert, and waits until the client has heard it: closing while the client still sends would
/// overtake it with a reset.
pub(super) async fn part(mut stream: TlsStream<ClientStream>, alert: Alert) {
    let said = async {
        stream.flush().await.ok()?;
        let (mut socket, connection) = stream.into_inner();
        socket.write_all(&tls::last_alert(connection, alert)?).await.ok()?;
        socket.shutdown().await.ok()?;
        let (mut heard, mut bytes) = (0, [0; 1024]);
        while heard < FAREWELL_BYTES {
            heard += socket.read(&mut bytes).await.ok().filter(|read| *read > 0)?;
        }
        Some(())
    };
    // Whoever does not listen is cut off.
    let _heard = timeout(FAREWELL, said).await;
}
