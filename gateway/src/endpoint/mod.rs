//! Faces: the gateway's side of each client protocol, and the one driver that all of them enter through.
//!
//! A kind says who asks and for what ([`Door::enter`] takes both), says no in its own protocol, and carries the session.
//! It never sees the policy, the store or the links: those are behind the [`Door`].
//! Adding a kind is one folder and one line in [`KINDS`].

mod accept;
mod door;
pub mod peer;
pub mod ssh;
mod stream;

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use fairlead_identity::name::Label;
use fairlead_identity::verify::{Authenticated, VerifyError};
use fairlead_protocol::first_bytes::FirstBytes;
use rustls::pki_types::CertificateDer;
use tokio::sync::watch;

use crate::access::{Caller, CallerId, Credential};
use crate::admission::{Failures, Slot};

pub use accept::{Listener, serve};
pub use door::{Directory, Door, Keyed, Reachable};
pub use stream::ClientStream;

/// A future that a trait object of this room gives.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// One client protocol, as the demultiplexer knows it.
pub struct Kind {
    /// The protocol's name in endpoint URLs.
    pub name: &'static str,
    /// The first bytes that are this kind's.
    pub claims: FirstBytes,
    /// Whether a client that says nothing for 2 s is greeted by this kind (its server may speak first).
    pub greets_silence: bool,
    /// Makes the face.
    pub open: fn(&Parts) -> anyhow::Result<Arc<dyn Face>>,
}

/// Every kind that this gateway has a face for.
pub const KINDS: &[Kind] = &[ssh::KIND];

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
    /// Owner of the tasks that connections need.
    pub tasks: fairlead_runtime::tasks::TaskGroup,
}

/// Serves connections of one client protocol.
pub trait Face: Send + Sync + 'static {
    /// Serves one connection to its end. `slot` is given back once the caller has proved who they are.
    fn serve<'a>(&'a self, stream: ClientStream, client: SocketAddr, slot: Slot) -> Answer<'a, ()>;
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
    /// Whom a certificate means and what it proves; a stable reason where it means nobody who may call. Whether they are
    /// let in is [`Callers::present`]'s to say.
    fn identify<'a>(&'a self, presented: &'a Presented) -> Answer<'a, Result<(CallerId, Credential), &'static str>>;
    /// The caller as the store knows them, if what they proved lets them in: they are not shut out, and the key behind it
    /// is known and has not expired.
    fn present<'a>(&'a self, who: &'a CallerId, by: &'a Credential) -> Answer<'a, Option<Caller>>;
}
