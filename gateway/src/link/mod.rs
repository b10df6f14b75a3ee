//! Live connections from agents: accepting them, knowing who is online, opening streams to them.
//!
//! What the store knows of agents and what enrolment issues is asked through [`Registrar`], which the composition root
//! implements; this room decides nothing about access (opening a stream takes a [`crate::access::Permit`]).

mod accept;
mod agent;
mod cancel;
mod enrollment;
mod head;
mod quic;
mod rivals;
mod roster;
mod standing;
mod state;
mod websocket;

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;

use fairlead_identity::name::Label;
use fairlead_identity::verify::{Authenticated, VerifyError};
use fairlead_runtime::transport::Connection;
use fairlead_wire::control::{HostCertificate, HostKeyReport, Offer, OfferAnswer, Renewed, Welcome};
use fairlead_wire::enroll::{EnrollAnswer, EnrollRequest};
use fairlead_wire::refusal::Reason;
use rustls::pki_types::CertificateDer;

use crate::admission::Slot;

pub use accept::{Acceptor, Links, serve};
pub use quic::{ResetKey, adopt, bind, settings, with_tls};
pub use rivals::Conflict;
pub use roster::{AgentStream, OnlineAgent, OpenError, Question, Roster};

/// A future that a [`Registrar`] gives; boxed because the trait is used as an object.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// An agent's name within its site; the key of everything the gateway knows of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AgentKey {
    /// The site, an isolation border.
    pub site: Label,
    /// The agent's name, unique in the site.
    pub name: Label,
}

impl std::fmt::Display for AgentKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.name, self.site)
    }
}

/// What links need from the rooms that remember: the store, the authority, the audit.
pub trait Registrar: Send + Sync + 'static {
    /// Whose certificate this is, by the roots and the time of the moment.
    ///
    /// # Errors
    /// As [`fairlead_identity::verify::authenticate`].
    fn authenticate(&self, chain: &[CertificateDer<'_>]) -> Result<Authenticated, VerifyError>;
    /// Whether this certificate's holder may link: known, not deleted, same key. A refusal has its audit line, as for a
    /// stranger. `reported` is what the agent says of itself.
    fn admit<'a>(
        &'a self,
        who: &'a Authenticated,
        client: IpAddr,
        reported: Vec<(String, String)>,
    ) -> Answer<'a, Result<AgentKey, Reason>>;
    /// Whether the agent's row still stands with this key. [`Registrar::admit`] is asked before the link is on the
    /// roster, this after: a deletion in between found no link to end.
    fn still_admitted<'a>(&'a self, agent: &'a AgentKey, spki: [u8; 32]) -> Answer<'a, Result<(), Reason>>;
    /// Another machine with the agent's key was turned away; counted, and told for the audit where that is due.
    fn conflict(&self, agent: &AgentKey, conflict: &Conflict);
    /// Of two machines with the agent's key, the other one serves from now on; told for the audit.
    fn machine_changed(&self, agent: &AgentKey, conflict: &Conflict);
    /// A peer was refused before it was anybody; told for the audit, which may leave it out in a flood. `why` is a stable
    /// name.
    fn stranger(&self, client: IpAddr, why: &'static str);
    /// What a linked agent is told first.
    fn welcome(&self, version: u32) -> Welcome;
    /// Remembers which roots an agent says it trusts, SHA-256 of each.
    fn roots_kept<'a>(&'a self, agent: &'a AgentKey, spki: [u8; 32], roots: Vec<Vec<u8>>) -> Answer<'a, ()>;
    /// Which of the offered endpoints are the agent's to offer; remembers the accepted ones. An error ends the link:
    /// `revoked` when the agent's row has another key than the link's by now.
    fn offer<'a>(
        &'a self,
        agent: &'a AgentKey,
        spki: [u8; 32],
        offer: Offer,
    ) -> Answer<'a, Result<OfferAnswer, Reason>>;
    /// What the servers behind the agent's endpoints show. Returns how many of them are not the agent's own to report,
    /// which `tell_refused` has told for the audit; an error is `revoked` as for an offer.
    fn host_keys<'a>(
        &'a self,
        agent: &'a AgentKey,
        spki: [u8; 32],
        report: HostKeyReport,
        tell_refused: bool,
    ) -> Answer<'a, Result<usize, Reason>>;
    /// A certificate for the SSH host key of the agent's own server; `revoked` as for an offer.
    fn certify_host_key<'a>(
        &'a self,
        agent: &'a AgentKey,
        spki: [u8; 32],
        public_key: String,
    ) -> Answer<'a, Result<HostCertificate, Reason>>;
    /// A link came up or went down, for the audit and the last-seen time.
    fn link_changed<'a>(&'a self, agent: &'a AgentKey, client: IpAddr, up: bool, why: String) -> Answer<'a, ()>;
    /// A new certificate for the agent of a running link; the key must be the one it linked with.
    fn renew<'a>(
        &'a self,
        agent: &'a AgentKey,
        spki: [u8; 32],
        csr_der: Vec<u8>,
    ) -> Answer<'a, Result<Renewed, Reason>>;
    /// Redeems a join string, or renews by proof of key; `exporter` is what such a proof is bound to.
    fn enroll<'a>(&'a self, request: EnrollRequest, exporter: [u8; 32], client: IpAddr) -> Answer<'a, EnrollAnswer>;
}

/// A caller's connection as the handshake left it: the key behind the chain is proven.
pub struct CallerConnection {
    /// The connection.
    pub connection: Connection,
    /// What the caller presented, the end entity's certificate first; bounded by the handshake.
    pub chain: Vec<CertificateDer<'static>>,
    /// Whom it names, where our own authority issued it.
    pub who: Result<Authenticated, VerifyError>,
}

/// Where callers go who come in by the port of the links.
pub trait Conversation: Send + Sync + 'static {
    /// Serves a caller to the end. `slot` is given back once it is known who they are; an error is the stable name of why
    /// nobody was let in.
    fn converse(&self, caller: CallerConnection, slot: Slot) -> Answer<'_, Result<(), &'static str>>;
}

#[cfg(test)]
mod tests;
