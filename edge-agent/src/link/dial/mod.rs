//! Reaching a gateway: every address of every name, over UDP and over TCP, a moment apart; the first that completes a
//! handshake wins ("happy eyeballs", RFC 8305, with real handshakes in place of bare connections).
//!
//! Which transport comes first is what worked last; the other follows a second later, so that a network that swallows UDP
//! costs that second and not a timeout.

mod proxy;
mod quic;
mod socks;
mod tcp;
mod websocket;

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fairlead_runtime::quic::Role;
use fairlead_runtime::transport::{Connection, Kind};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use rustls::AlertDescription;
use tokio::time::{sleep, timeout};

pub use proxy::{Proxies, Proxy, ProxyError};
use tcp::Target;

/// One handshake with one address.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(5);
/// Looking up one name.
const LOOKUP_LIMIT: Duration = Duration::from_secs(5);
/// Addresses tried of one name.
const ADDRESSES_PER_NAME: usize = 8;
/// Names tried.
const NAMES: usize = 4;
/// From one address to the next.
const STAGGER: Duration = Duration::from_millis(250);
/// From the transport that is tried first to the other.
const SECOND_CHOICE: Duration = Duration::from_secs(1);

/// Which transports may be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// QUIC where it passes, WebSocket where it does not.
    #[default]
    Auto,
    /// QUIC alone.
    Quic,
    /// WebSocket alone.
    WebSocket,
}

impl Choice {
    /// Whether it allows a transport.
    pub fn allows(self, kind: Kind) -> bool {
        match self {
            Self::Auto => true,
            Self::Quic => kind == Kind::Quic,
            Self::WebSocket => kind == Kind::WebSocket,
        }
    }
}

/// How gateways are reached from here, and what worked last. Clones share that memory.
#[derive(Clone, Debug, Default)]
pub struct Ways {
    /// Which transports.
    pub choice: Choice,
    /// The proxies that TCP goes through; UDP goes through none.
    pub proxies: Proxies,
    fell_back: Arc<AtomicBool>,
    except: Vec<SocketAddr>,
}

impl Ways {
    /// As the environment says: any transport, TCP through `HTTPS_PROXY` but for `NO_PROXY`.
    ///
    /// # Errors
    /// When `HTTPS_PROXY` is no proxy's URL.
    pub fn from_environment() -> Result<Self, ProxyError> {
        Ok(Self::new(Choice::Auto, Proxies::from_environment()?))
    }

    /// These and no others.
    pub fn new(choice: Choice, proxies: Proxies) -> Self {
        Self {
            choice,
            proxies,
            fell_back: Arc::default(),
            except: Vec::new(),
        }
    }

    /// The same ways and the same memory, to any address but these, which other links go to. A name behind a proxy leads where
    /// the proxy says.
    #[must_use]
    pub fn except(&self, addresses: Vec<SocketAddr>) -> Self {
        Self {
            except: addresses,
            ..self.clone()
        }
    }

    /// The same ways and the same memory, over this transport only.
    #[must_use]
    pub fn only(&self, kind: Kind) -> Self {
        Self {
            choice: match kind {
                Kind::Quic => Choice::Quic,
                Kind::WebSocket => Choice::WebSocket,
            },
            ..self.clone()
        }
    }

    /// Remembers which transport worked: it is tried first from now on.
    fn note(&self, kind: Kind) {
        self.fell_back.store(kind == Kind::WebSocket, Ordering::Relaxed);
    }

    /// How long a transport waits for the other to make it.
    fn head_start(&self, kind: Kind) -> Duration {
        let preferred = if self.fell_back.load(Ordering::Relaxed) {
            Kind::WebSocket
        } else {
            Kind::Quic
        };
        if self.choice == Choice::Auto && kind != preferred {
            SECOND_CHOICE
        } else {
            Duration::ZERO
        }
    }
}

/// Why no gateway could be reached; says each address and what happened there.
#[derive(Debug, thiserror::Error)]
#[error("cannot reach the gateway: {tried}")]
pub struct DialError {
    /// Address, transport and reason, joined for one line.
    pub tried: String,
    /// Whether at least one gateway answered and refused us by its certificate or ours, so that retrying alone
    /// does not help.
    pub refused: bool,
    /// Whether one says that our certificate has ended.
    pub expired: bool,
    /// Whether a name led to no address.
    pub unresolved: bool,
}

/// As [`dial_by`], by any way that the environment allows.
///
/// # Errors
/// [`DialError`] when none did, or when `HTTPS_PROXY` is no proxy's URL.
pub async fn dial(
    gateways: &[String],
    domain: &str,
    settings: &Arc<rustls::ClientConfig>,
    role: Role,
) -> Result<Connection, DialError> {
    let ways = Ways::from_environment().map_err(|error| DialError {
        tried: error.to_string(),
        refused: false,
        expired: false,
        unresolved: false,
    })?;
    dial_by(&ways, gateways, domain, settings, role).await
}

/// Connects to the first of `gateways` (`host:port`) that completes a handshake as `domain`. The ALPN of `settings` is the
/// purpose, over either transport.
///
/// # Errors
/// [`DialError`] when none did.
pub async fn dial_by(
    ways: &Ways,
    gateways: &[String],
    domain: &str,
    settings: &Arc<rustls::ClientConfig>,
    role: Role,
) -> Result<Connection, DialError> {
    let race = Race {
        ways,
        domain,
        settings,
        role,
    };
    race.run(gateways).await
}

struct Race<'a> {
    ways: &'a Ways,
    domain: &'a str,
    settings: &'a Arc<rustls::ClientConfig>,
    role: Role,
}

/// One handshake under way, or one name being looked up.
type Running<'a> = Pin<Box<dyn Future<Output = Step> + Send + 'a>>;

enum Step {
    Resolved(String, Result<Vec<SocketAddr>, String>),
    Connected(Connection),
    Failed(String, Failure),
}

impl<'a> Race<'a> {
    async fn run(self, gateways: &[String]) -> Result<Connection, DialError> {
        let mut running: FuturesUnordered<Running<'_>> = FuturesUnordered::new();
        let mut error = DialError {
            tried: String::new(),
            refused: false,
            expired: false,
            unresolved: false,
        };
        for gateway in gateways.iter().take(NAMES) {
            let proxy = self.proxy_for(gateway);
            if let Some(proxy) = proxy {
                // The proxy looks the name up; a machine behind one may have no names of the world.
                let target = Target::behind(proxy.clone(), gateway);
                let wait = self.ways.head_start(Kind::WebSocket);
                running.push(self.websocket(target, wait));
            }
            if proxy.is_none() || self.ways.choice.allows(Kind::Quic) {
                running.push(resolve(gateway.clone()));
            }
        }
        while let Some(step) = running.next().await {
            match step {
                Step::Connected(connection) => {
                    self.ways.note(connection.kind());
                    return Ok(connection);
                }
                Step::Resolved(gateway, Ok(addresses)) => {
                    let mut wait = Duration::ZERO;
                    for address in addresses {
                        if self.ways.except.contains(&address) {
                            error.add(&address.to_string(), &Failure::plain(&"another link goes there"));
                            continue;
                        }
                        running.extend(self.contenders(&gateway, address, wait));
                        wait = wait.saturating_add(STAGGER);
                    }
                }
                Step::Resolved(gateway, Err(text)) => {
                    error.unresolved = true;
                    error.add(&gateway, &Failure::plain(&text));
                }
                Step::Failed(what, failure) => error.add(&what, &failure),
            }
        }
        if error.tried.is_empty() {
            error.tried = "no address is configured".into();
        }
        Err(error)
    }

    fn proxy_for(&self, gateway: &str) -> Option<&'a Proxy> {
        let proxied = self.ways.choice.allows(Kind::WebSocket);
        proxied.then(|| self.ways.proxies.of(gateway)).flatten()
    }

    /// The handshakes with one address.
    fn contenders(&self, gateway: &str, address: SocketAddr, wait: Duration) -> Vec<Running<'a>> {
        let mut contenders = Vec::new();
        if self.ways.choice.allows(Kind::Quic) {
            let wait = wait.saturating_add(self.ways.head_start(Kind::Quic));
            contenders.push(self.quic(address, wait));
        }
        if self.ways.choice.allows(Kind::WebSocket) && self.proxy_for(gateway).is_none() {
            let wait = wait.saturating_add(self.ways.head_start(Kind::WebSocket));
            contenders.push(self.websocket(Target::Direct(address), wait));
        }
        contenders
    }

    fn quic(&self, address: SocketAddr, wait: Duration) -> Running<'a> {
        let (domain, settings, role) = (self.domain, self.settings, self.role);
        Box::pin(async move {
            sleep(wait).await;
            match within(quic::connect(address, domain, settings, role), "is UDP blocked?").await {
                Ok(connection) => Step::Connected(connection),
                Err(failure) => Step::Failed(format!("{address} over QUIC (UDP)"), failure),
            }
        })
    }

    fn websocket(&self, target: Target, wait: Duration) -> Running<'a> {
        let (domain, settings, role) = (self.domain, self.settings, self.role);
        Box::pin(async move {
            sleep(wait).await;
            let what = format!("{target} over WebSocket (TCP)");
            match within(websocket::connect(target, domain, settings, role), "is TCP blocked?").await {
                Ok(connection) => Step::Connected(connection),
                Err(failure) => Step::Failed(what, failure),
            }
        })
    }
}

fn resolve<'a>(gateway: String) -> Running<'a> {
    Box::pin(async move {
        let found = match timeout(LOOKUP_LIMIT, tokio::net::lookup_host(gateway.as_str())).await {
            Ok(Ok(addresses)) => Ok(addresses.take(ADDRESSES_PER_NAME).collect()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("the name was not resolved within 5 s".to_owned()),
        };
        Step::Resolved(gateway, found)
    })
}

async fn within(
    connecting: impl Future<Output = Result<Connection, Failure>>,
    question: &str,
) -> Result<Connection, Failure> {
    let limited = timeout(HANDSHAKE_LIMIT, connecting).await;
    limited.unwrap_or_else(|_| Err(Failure::plain(&format!("no answer within 5 s ({question})"))))
}

impl DialError {
    fn add(&mut self, what: &str, failure: &Failure) {
        if !self.tried.is_empty() {
            self.tried.push_str("; ");
        }
        self.tried.push_str(&format!("{what}: {}", failure.text));
        self.refused |= failure.by_certificate;
        self.expired |= failure.expired;
    }
}

/// Why one handshake did not come to its end.
struct Failure {
    text: String,
    by_certificate: bool,
    expired: bool,
}

impl Failure {
    fn plain(error: &dyn std::fmt::Display) -> Self {
        Self {
            text: error.to_string(),
            by_certificate: false,
            expired: false,
        }
    }

    /// A failure of TLS over TCP, with the stable name of the refusal where it is one.
    fn of_tls(error: &io::Error) -> Self {
        use fairlead_identity::tls::handshake_refusal;
        let found = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        match found {
            Some(rustls::Error::AlertReceived(_) | rustls::Error::InvalidCertificate(_)) => Self {
                text: format!("refused ({}): {error}", handshake_refusal(&error.to_string())),
                by_certificate: true,
                expired: matches!(
                    found,
                    Some(rustls::Error::AlertReceived(AlertDescription::CertificateExpired))
                ),
            },
            Some(rustls::Error::InvalidMessage(_)) => Self::plain(&"what answers there does not speak TLS"),
            _ => Self::plain(error),
        }
    }
}
