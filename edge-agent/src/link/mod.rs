//! The link to the gateway: dialling, the control conversation, and streams that the gateway opens on it.
//!
//! `state` decides without input or output, `shell` carries out. What a stream asks for is handed to a [`Sessions`]
//! implementation; this room knows neither the customer's list nor any upstream.

mod backoff;
mod board;
mod book;
mod course;
mod dial;
mod roam;
mod seek;
mod several;
mod shell;
mod side;
mod state;

use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use fairlead_runtime::stop::CancellationToken;
use fairlead_runtime::transport::{Receiver, Sender};
use fairlead_wire::control::{Authority, HostKeyReport, Offer};
use fairlead_wire::refusal::Reason;
use tokio::sync::watch;

pub use backoff::Backoff;
pub use board::{LinkStatus, Status, StatusSender};
pub use book::AddressBook;
pub use dial::{Choice, DialError, Proxies, Proxy, ProxyError, Ways, dial, dial_by};
pub use roam::watch_network;
pub use several::run;
pub use state::Introduction;

/// One data stream as the gateway opened it.
#[derive(Debug)]
pub struct GatewayStream {
    /// From the caller.
    pub from_caller: Receiver,
    /// To the caller.
    pub to_caller: Sender,
    /// Kept as long as the session lives: a link that is left is closed once nobody uses it.
    pub in_use: InUse,
}

/// A session's hold on its link.
#[derive(Clone, Debug, Default)]
pub struct InUse(Arc<()>);

impl InUse {
    /// How many others there are.
    fn others(&self) -> usize {
        Arc::strong_count(&self.0).saturating_sub(1)
    }
}

/// What the link does with streams and news.
pub trait Sessions: Send + Sync + 'static {
    /// How many streams the gateway may have open.
    fn at_once(&self) -> u32;
    /// Takes over a stream; must not block.
    fn begin(self: Arc<Self>, stream: GatewayStream);
    /// Refuses a stream for a reason of the link's; must not block.
    fn turn_away(self: Arc<Self>, stream: GatewayStream, reason: Reason);
    /// The gateway was dialled at this address.
    fn gateway_is_at(&self, address: IpAddr);
    /// SSH user CAs to trust from now on, OpenSSH lines.
    fn trust_user_cas(&self, lines: &[String]);
    /// The host certificate to present from now on, an OpenSSH line.
    fn present_host_certificate(&self, line: &str);
}

/// A future that [`Credentials`] gives; boxed because the trait is used as an object.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The agent's key and certificate, as the link uses and renews them.
pub trait Credentials: Send + Sync + 'static {
    /// TLS with the certificate of the moment.
    fn tls(&self) -> Arc<rustls::ClientConfig>;
    /// SHA-256 of each trusted root.
    fn roots_sha256(&self) -> Vec<Vec<u8>>;
    /// Takes over what the gateway of this link says of the authority. Returns the digests of the roots when they are
    /// others than before, and kept.
    ///
    /// # Errors
    /// Why they are not taken, in words for the log; those before stay.
    fn trust(&self, authority: &Authority) -> Result<Option<Vec<Vec<u8>>>, String>;
    /// From now until the certificate should be renewed; zero when that is due.
    fn renew_in(&self) -> Duration;
    /// Whether the certificate has ended, so that no link can be made with it.
    fn expired(&self) -> bool;
    /// A signing request for the key.
    ///
    /// # Errors
    /// In words for the log.
    fn signing_request(&self) -> Result<Vec<u8>, String>;
    /// Keeps a new certificate; the next dial uses it.
    ///
    /// # Errors
    /// Why it is not usable, in words for the log; the present one stays.
    fn keep(&self, chain: Vec<Vec<u8>>) -> Result<(), String>;
    /// Renews by proof of the key, after the certificate has ended.
    fn renew_by_proof(&self) -> Answer<'_, Result<(), String>>;
}

/// What a link needs to run.
#[derive(Clone)]
pub struct Settings {
    /// `host:port` of the gateway; resolved anew at every dial.
    pub gateways: Vec<String>,
    /// The name in the gateway's certificate.
    pub domain: String,
    /// The agent's certificate, which changes while the agent runs.
    pub credentials: Arc<dyn Credentials>,
    /// By which transports and proxies.
    pub ways: Ways,
    /// Fewer keep-alives.
    pub data_saver: bool,
    /// What the agent says of itself.
    pub introduction: Introduction,
    /// What the agent offers from now on, whenever its file is read again.
    pub offers: watch::Receiver<Offer>,
    /// The host keys of SSH servers behind the endpoints, in messages as they are sent, whenever they are read anew.
    pub host_keys: watch::Receiver<Vec<HostKeyReport>>,
    /// Changes whenever this machine's network does ([`watch_network`]).
    pub network: watch::Receiver<u64>,
    /// The last good addresses of gateways.
    pub book: Arc<AddressBook>,
    /// Seed of the waits between dials.
    pub seed: u64,
}

impl Settings {
    /// The same for another of the agent's links, which goes to one address.
    fn numbered(&self, number: u32, address: SocketAddr) -> Self {
        let mut settings = self.clone();
        settings.gateways = vec![address.to_string()];
        settings.introduction.hello.link = number;
        settings.seed = settings.seed.wrapping_add(u64::from(number));
        settings
    }
}

/// Ends the link.
pub type Stop = CancellationToken;
