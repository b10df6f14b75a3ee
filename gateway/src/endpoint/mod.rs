//! Faces: the gateway's side of each client protocol, and the one driver that all of them enter through.
//!
//! A kind says who asks and for what ([`Door::enter`] takes both), says no in its own protocol, and carries the session.
//! It never sees the policy, the store or the links: those are behind the [`Door`].
//! Adding a kind is one folder and one line in [`KINDS`].

mod accept;
mod ahead;
mod directory;
mod door;
mod handshake;
mod led;
mod mqtt;
mod own_site;
pub mod peer;
mod postgres;
mod rdp;
mod routing;
pub mod ssh;
mod stream;
mod tls;

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use fairlead_identity::name::{Label, Protocol};
use fairlead_identity::verify::{Authenticated, VerifyError};
use fairlead_protocol::first_bytes::FirstBytes;
use rustls::pki_types::CertificateDer;
use tokio::sync::watch;
use tokio_rustls::StartHandshake;

use crate::access::{Caller, CallerId, Credential};
use crate::admission::{Failures, Slot};

pub use accept::{Listener, serve};
pub use directory::{Directory, Keyed, Reachable, Wanted};
pub use door::{Approach, Door};
pub use handshake::{Handshake, TlsClient};
use routing::is_token;
pub use routing::{Stray, Unrouted};
pub use stream::ClientStream;

/// A future that a trait object of this room gives.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// One client protocol, as the demultiplexer knows it.
pub struct Kind {
    /// The protocol's name, as in endpoint URLs.
    pub name: &'static str,
    /// The protocols of the endpoints that this kind leads to by their host name alone (TLS), the preferred first; empty
    /// where callers name a port.
    pub leads_to: &'static [Protocol],
    /// How a client of this kind is told from others. No two kinds claim the same.
    pub claims: &'static [Claim],
    /// Whether clients may leave the server name out, because the endpoint can be named inside.
    pub names_inside: bool,
    /// Whether it can have a port of its own, where nothing else is spoken.
    pub is_dedicable: bool,
    /// The protocol of the endpoints whose bytes this kind reads whatever the way in, also inside an SSH channel or a
    /// stream of `fairlead connect`.
    pub reads: Option<Protocol>,
    /// Makes the face.
    pub open: fn(&Parts) -> anyhow::Result<Arc<dyn Face>>,
}

/// What tells a client's protocol on the one port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// A client that says nothing for 2 s: its server may speak first.
    Silence,
    /// The first bytes of the connection.
    FirstBytes(FirstBytes),
    /// TLS to the gateway's own name.
    OwnName,
    /// TLS to any other name, with this protocol (ALPN, RFC 7301) among those that the client offers.
    Alpn(&'static [u8]),
    /// TLS to any other name, with no protocol that a kind claims.
    AnyTls,
}

/// Every kind that this gateway has a face for: the one table of who claims which first bytes, server name and ALPN.
pub const KINDS: &[Kind] = &[
    ssh::KIND,
    postgres::KIND,
    mqtt::KIND,
    rdp::KIND,
    tls::KIND,
    own_site::KIND,
];

impl Kind {
    /// Whether this kind claims it.
    pub fn claims(&self, claim: Claim) -> bool {
        self.claims.contains(&claim)
    }

    /// The protocols that this kind negotiates inside TLS.
    fn alpns(&self) -> impl Iterator<Item = &'static [u8]> {
        let own_name = self.claims(Claim::OwnName).then_some(b"http/1.1".as_slice());
        self.alpns_claimed().chain(own_name)
    }

    fn alpns_claimed(&self) -> impl Iterator<Item = &'static [u8]> {
        self.claims.iter().filter_map(|claim| match claim {
            Claim::Alpn(alpn) => Some(*alpn),
            _ => None,
        })
    }
}

/// Whether a kind reads what goes to endpoints of this protocol.
fn is_read(protocol: Protocol) -> bool {
    KINDS.iter().any(|kind| kind.reads == Some(protocol))
}

/// What a face is made of.
pub struct Parts {
    /// The way to everything behind the face.
    pub door: Arc<Door>,
    /// Who callers are.
    pub callers: Arc<dyn Callers>,
    /// The gateway's domain, for host names in requests.
    pub domain: String,
    /// Which sources are shut out for failed logins.
    pub(crate) failures: Arc<Failures>,
    /// Keys of the SSH face, as they change.
    pub ssh: watch::Receiver<ssh::Keys>,
    /// TLS for callers.
    pub tls: Arc<Handshake>,
    /// Where TLS connections go that are none of a caller's protocol but a link's.
    pub uplinks: Arc<dyn Uplinks>,
    /// The certificates of the private authority that clients trust, PEM, as they are at the moment.
    pub ca_pem: Arc<dyn Fn() -> String + Send + Sync>,
    /// Owner of the tasks that connections need.
    pub tasks: fairlead_runtime::tasks::TaskGroup,
}

/// Serves connections of one client protocol.
pub trait Face: Send + Sync + 'static {
    /// Serves one connection to its end. `slot` is given back once the caller has proved who they are.
    fn serve<'a>(&'a self, arrival: Arrival, client: SocketAddr, slot: Slot) -> Answer<'a, ()>;
}

/// Takes over TLS connections whose client asked for the protocol of links, before any settings were chosen.
pub trait Uplinks: Send + Sync + 'static {
    /// Serves one as far as its purpose is known; `slot` is given back then.
    fn arrive(&self, begun: StartHandshake<ClientStream>, client: SocketAddr, slot: Slot) -> Answer<'_, ()>;
}

/// A connection that a kind has claimed.
pub enum Arrival {
    /// By its first bytes, which are still to be read.
    Plain(ClientStream),
    /// Inside TLS.
    Tls(Box<TlsClient>),
}

/// A certificate chain as a caller presented it, with the proof of its key behind it.
pub struct Presented {
    /// The end entity's certificate first; bounded by the handshake.
    pub chain: Vec<CertificateDer<'static>>,
    /// Whom it names, where our own authority issued it.
    pub who: Result<Authenticated, VerifyError>,
}

/// Who callers are, by the store. Every answer is of this moment: a user disabled a second ago is unknown.
pub trait Callers: Send + Sync + 'static {
    /// Whether this SSH key is registered for a caller of that name, or is a login key of theirs, which only certificates
    /// make good.
    fn knows_key<'a>(&'a self, name: &'a Label, fingerprint: &'a str) -> Answer<'a, bool>;
    /// Whom a certificate means and what it proves, one of our own authority or of a workload's own issuer; a stable reason
    /// where it means nobody who may call. Whether they are
    /// let in is [`Callers::present`]'s to say.
    fn identify<'a>(&'a self, presented: &'a Presented) -> Answer<'a, Result<(CallerId, Credential), &'static str>>;
    /// The caller as the store knows them, if what they proved lets them in: they are not shut out, and the key behind it
    /// is known and has not expired.
    fn present<'a>(&'a self, who: &'a CallerId, by: &'a Credential) -> Answer<'a, Option<Caller>>;
}
