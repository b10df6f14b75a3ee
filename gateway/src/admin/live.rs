//! What administration asks of the running gateway.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::SystemTime;

use fairlead_policy::{AccessPolicy, Request, Source};
use fairlead_runtime::audit::Record;
use fairlead_wire::id::SessionId;
use fairlead_wire::refusal::Reason;

use super::api::{AgentWord, PolicyTried};
use crate::store::{AgentId, CallerName};

/// A future that [`Live`] gives; boxed because the trait is used as an object.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The running gateway as administration sees it. Implemented by the composition root, which alone knows every room.
///
/// Methods without a future must not wait for a peer or a lock that is held across an await; they run on a worker thread.
pub trait Live: Send + Sync + 'static {
    /// The agents that are online.
    fn online(&self) -> Vec<OnlineAgent>;

    /// The agents whose key two machines use.
    fn conflicts(&self) -> Vec<IdentityConflict>;

    /// The live sessions.
    fn sessions(&self) -> Vec<LiveSession>;

    /// Ends one session; whether there was one. Its caller is told `reason`.
    fn end(&self, session: SessionId, reason: Reason) -> bool;

    /// Reads the access policy anew and puts it in force, or keeps the one that is.
    fn reload(&self) -> Answer<'_, Result<PolicyInForce, PolicyRefused>>;

    /// The policy in force.
    fn policy(&self) -> Arc<AccessPolicy>;

    /// The files that policy was compiled from, as they were then. Reads the disk.
    ///
    /// # Errors
    /// In words, when they could not be kept.
    fn policy_files(&self) -> Result<Vec<Source>, String>;

    /// Reads the access policy anew and tells what putting it in force would do; changes nothing.
    fn try_policy(&self) -> Answer<'_, Result<PolicyTried, PolicyRefused>>;

    /// Asks an agent what its own file says, by the way its sessions are opened; nothing is opened.
    fn ask_agent<'a>(&'a self, question: &'a AgentQuestion) -> Answer<'a, AgentWord>;

    /// Takes up the certificate authority as the files have it, or keeps the one that is in force and says why.
    fn reload_authority(&self) -> Answer<'_, Result<AuthorityTaken, String>>;

    /// The metrics in text form.
    ///
    /// # Errors
    /// What failed, for the log.
    fn metrics(&self) -> Result<String, String>;

    /// Whether new work is taken.
    ///
    /// # Errors
    /// Why not, for a person.
    fn ready(&self) -> Result<(), String>;

    /// Tells that the store now says something else: links and sessions are to be looked at again.
    fn changed(&self, change: &Change);

    /// Appends an audit line.
    ///
    /// # Errors
    /// [`NotAudited`]; then what the line announces does not happen.
    fn audit(&self, record: &Record) -> Result<(), NotAudited>;
}

/// What an agent is asked about.
#[derive(Clone, Debug)]
pub struct AgentQuestion {
    /// Which agent.
    pub agent: AgentId,
    /// The decision it is about, as the gateway's policy was asked.
    pub request: Request,
}

/// An agent that is online.
#[derive(Clone, Debug)]
pub struct OnlineAgent {
    /// Which agent.
    pub agent: AgentId,
    /// `quic` or `websocket`.
    pub transport: &'static str,
    /// Where its packets come from.
    pub address: std::net::SocketAddr,
    /// Since when.
    pub since: SystemTime,
}

/// Two machines use one agent's key.
#[derive(Clone, Debug)]
pub struct IdentityConflict {
    /// Which agent.
    pub agent: AgentId,
    /// Where the machine is that serves.
    pub serving: std::net::SocketAddr,
    /// Where the other one is.
    pub other: std::net::SocketAddr,
    /// When both were first seen.
    pub since: SystemTime,
    /// When the other one was heard last.
    pub last: SystemTime,
    /// How often it was turned away.
    pub tries: u64,
}

/// A live session.
#[derive(Clone, Debug)]
pub struct LiveSession {
    /// The id, the same at both ends.
    pub session: SessionId,
    /// The caller's name.
    pub caller: String,
    /// `user` or `workload`.
    pub kind: &'static str,
    /// The endpoint's URL.
    pub endpoint: String,
    /// The agent that serves it.
    pub agent: AgentId,
    /// The rule that allowed it.
    pub rule: String,
    /// Where the caller comes from.
    pub client_ip: String,
    /// What the caller proved: `key SHA256:…` or `certificate SHA256:…`.
    pub proved: String,
    /// The acts that were given; empty for a tunnel.
    pub acts: Vec<String>,
    /// Since when.
    pub started: SystemTime,
    /// Bytes towards the upstream so far.
    pub bytes_in: u64,
    /// Bytes towards the caller so far.
    pub bytes_out: u64,
}

/// The policy that was put in force.
#[derive(Clone, Debug)]
pub struct PolicyInForce {
    /// Its digest, as in audit lines.
    pub digest: String,
    /// What is allowed but looks like a slip.
    pub warnings: Vec<String>,
}

/// The authority that was taken up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuthorityTaken {
    /// The number of the issuing authority in force.
    pub number: u32,
    /// How many roots are trusted.
    pub roots: usize,
}

/// Why a policy was not put in force: every mistake, with its place.
#[derive(Clone, Debug)]
pub struct PolicyRefused {
    /// The mistakes as people read them.
    pub mistakes: Vec<String>,
}

/// What has changed in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// An agent's labels or hosts.
    Agent(AgentId),
    /// An agent was deleted: its link and its sessions end.
    AgentGone(AgentId),
    /// An agent has another name than this: its link and its sessions end, and it comes back with the new one.
    AgentRenamed(AgentId),
    /// A caller's groups, labels, keys or certificates' issuer, or that the caller is disabled or gone.
    Caller(CallerName),
}

/// The audit line could not be written; the cause is in the gateway's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the audit log cannot be written, so nothing was changed")]
pub struct NotAudited;
