//! What the gateway must still know after a restart: agents, hosts, endpoints, tokens, callers and their keys.
//!
//! The room exists so that the engine stays a detail: everything above it sees the [`Store`] trait, its row types and
//! its errors. One implementation stands today, SQLite in one file ([`SqliteStore`]), run on its own thread by
//! [`StoreHandle`] because its calls block.
//!
//! Deliberately not in here: any decision (the gate's), who is online (the roster's), certificates and secrets
//! themselves (only digests, serial numbers and public keys are kept), and any clock: times are arguments, unix seconds.
//!
//! INVARIANT: whatever concerns an agent is addressed by an [`AgentId`], which cannot be written without a site, and the
//! site is part of each primary and foreign key below it. Lists take a [`SiteScope`], never an optional filter.

mod agents;
pub mod backup;
mod callers;
mod columns;
mod endpoints;
mod error;
mod fleet;
mod handle;
mod host_keys;
mod hosts;
mod pattern;
mod rename;
mod row;
mod schema;
mod sqlite;
mod tokens;

#[cfg(test)]
mod tests;

pub use error::{RedeemError, StoreError};
pub use handle::StoreHandle;
pub use pattern::NamePattern;
pub use row::{
    AgentId, AgentRow, CallerKeyRow, CallerKind, CallerName, CallerRow, Candidate, CertificateRecord, Claim,
    EndpointPlace, EndpointRow, Holder, HostKeyNews, HostKeyRow, HostRow, Issuer, KeyKind, KeyLines, Labels, Mode,
    Names, NewAgent, NewCaller, NewCallerKey, NewToken, OwnedEndpoint, Proposal, Redeemed, ReportedHostKeys, SiteScope,
    Terms, TokenGrant, TokenKind, WaitingToken,
};
pub use sqlite::SqliteStore;
use std::collections::BTreeMap;

/// Join strings which may wait to be redeemed at the same time; one more is refused with [`StoreError::Limit`].
pub const MAX_WAITING_TOKENS: u32 = 10_000;
/// Agents that may be known; one more is refused with [`StoreError::Limit`].
pub const MAX_AGENTS: u32 = 100_000;
/// Users and workloads that may be known; one more is refused with [`StoreError::Limit`].
pub const MAX_CALLERS: u32 = 100_000;
/// Keys one caller may have; one more is refused with [`StoreError::Limit`].
pub const MAX_KEYS_PER_CALLER: u32 = 64;
/// Agents one host may be bound to, and hosts that may be bound to one agent.
pub const MAX_BINDINGS: u32 = 256;
/// Agents in one import; one more is refused with [`StoreError::Limit`].
pub const MAX_IMPORT: u32 = 10_000;
/// Endpoints one agent may offer.
pub const MAX_ENDPOINTS_PER_AGENT: usize = 256;

/// The gateway's memory. Each method is one transaction: it happens whole or not at all.
///
/// Methods block on the disk; call them through [`StoreHandle::run`]. Times are unix seconds. Names are labels
/// (`[a-z0-9-]`, 1 to 30 characters), groups what an SSH certificate can carry; anything else is [`StoreError::Invalid`].
pub trait Store: Send {
    /// Keeps a join string's digest and what it grants.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when that agent already has a key (or, for [`Terms::Replace`], has none), when its name is
    /// a bound host, or when the user exists in another site or is disabled; [`StoreError::Limit`] beyond
    /// [`MAX_WAITING_TOKENS`].
    fn create_token(&mut self, token: &NewToken) -> Result<(), StoreError>;

    /// Spends a join string for the key with this SPKI digest, and writes the agent or user it is for.
    ///
    /// So many keys win as the string has uses; each counts once. A winner may ask again within the string's life and gets
    /// the same answer, so that an enrolment cut short by a crash can be repeated; what a key of a fleet holds it may also
    /// collect afterwards.
    ///
    /// # Errors
    /// See [`RedeemError`].
    fn redeem_as(&mut self, claim: &Claim<'_>, now: i64) -> Result<Redeemed, RedeemError>;

    /// As [`Self::redeem_as`], for a device that says nothing of itself.
    ///
    /// # Errors
    /// See [`RedeemError`].
    fn redeem(&mut self, secret_sha256: &[u8; 32], spki: &[u8; 32], now: i64) -> Result<Redeemed, RedeemError> {
        let proposal = &Proposal::default();
        let claim = Claim {
            secret_sha256,
            spki,
            proposal,
        };
        self.redeem_as(&claim, now)
    }

    /// Approves names that devices of a fleet hold: all of them or none. One that is approved already is no error.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    fn approve_agents(&mut self, agents: &[AgentId]) -> Result<(), StoreError>;

    /// Registers agents that have no key yet: all of them or none.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when one is known already or its name is a bound host, [`StoreError::Limit`] beyond
    /// [`MAX_IMPORT`] or [`MAX_AGENTS`], [`StoreError::Invalid`].
    fn import_agents(&mut self, agents: &[NewAgent]) -> Result<(), StoreError>;

    /// Notes a certificate that was issued; for an agent also as its present one.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when the holder is gone, [`StoreError::Conflict`] when the agent's key is another one.
    fn record_certificate(&mut self, holder: &Holder, record: &CertificateRecord, now: i64) -> Result<(), StoreError>;

    /// One agent, or `None`.
    ///
    /// # Errors
    /// Those of the engine.
    fn agent(&self, id: &AgentId) -> Result<Option<AgentRow>, StoreError>;

    /// The agents of a scope: those that wait for approval first, then by site and name.
    ///
    /// # Errors
    /// Those of the engine.
    fn agents(&self, scope: &SiteScope) -> Result<Vec<AgentRow>, StoreError>;

    /// Gives an agent another name in its site; its bindings, endpoints, join strings and certificates follow, and the old
    /// name stays bound to it as a host.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::Invalid`], [`StoreError::Conflict`] when the name is another agent's or host.
    fn rename_agent(&mut self, id: &AgentId, to: &str) -> Result<(), StoreError>;

    /// Replaces an agent's labels.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::Invalid`].
    fn set_agent_labels(&mut self, id: &AgentId, labels: &Labels) -> Result<(), StoreError>;

    /// Disables an agent (its endpoints are no longer found) or enables it again.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    fn set_agent_disabled(&mut self, id: &AgentId, disabled: bool) -> Result<(), StoreError>;

    /// Forgets an agent with its bindings, its endpoints and every join string made for it; its name is free again.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    fn delete_agent(&mut self, id: &AgentId) -> Result<(), StoreError>;

    /// Notes that an agent was heard at `now`, and what it reported.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::Invalid`].
    fn touch(&mut self, id: &AgentId, reported: &Labels, now: i64) -> Result<(), StoreError>;

    /// Notes which roots an agent says it trusts, SHA-256 of each in hex.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] beyond 8 of them.
    fn note_roots(&mut self, id: &AgentId, roots: &Names) -> Result<(), StoreError>;

    /// How many certificates that are good at `now` each issuing authority has signed, by its number.
    ///
    /// # Errors
    /// Those of the engine.
    fn certificates_by_issuer(&self, now: i64) -> Result<BTreeMap<u32, u64>, StoreError>;

    /// The join strings that are good at `now`, by their end.
    ///
    /// # Errors
    /// Those of the engine.
    fn waiting_tokens(&self, now: i64) -> Result<Vec<WaitingToken>, StoreError>;

    /// Ends the one good join string whose id begins so. Whoever tries it is told that it has expired; what was enrolled by
    /// it stays, and a device of a fleet that waits for approval may still collect its certificate.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when there is none, [`StoreError::Conflict`] when there are several.
    fn withdraw_token(&mut self, beginning: &str, now: i64) -> Result<WaitingToken, StoreError>;

    /// Binds a host of the agent's own site to the agent. Binding twice is no error.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for an unknown agent, [`StoreError::Conflict`] when the host is another agent's name,
    /// [`StoreError::Limit`] beyond [`MAX_BINDINGS`].
    fn bind_host(&mut self, agent: &AgentId, host: &str) -> Result<(), StoreError>;

    /// Takes a binding away; `false` when there was none.
    ///
    /// # Errors
    /// Those of the engine.
    fn unbind_host(&mut self, agent: &AgentId, host: &str) -> Result<bool, StoreError>;

    /// The hosts an agent may offer endpoints on beside its own name.
    ///
    /// # Errors
    /// Those of the engine.
    fn hosts_of(&self, agent: &AgentId) -> Result<Names, StoreError>;

    /// Every binding of a scope, by site, host and agent.
    ///
    /// # Errors
    /// Those of the engine.
    fn hosts(&self, scope: &SiteScope) -> Result<Vec<HostRow>, StoreError>;

    /// Replaces what an agent offers, so that it is known while the agent is away and after a restart.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::Limit`] beyond [`MAX_ENDPOINTS_PER_AGENT`], [`StoreError::Invalid`].
    fn replace_endpoints(&mut self, agent: &AgentId, endpoints: &[EndpointRow], now: i64) -> Result<(), StoreError>;

    /// What an agent offered last.
    ///
    /// # Errors
    /// Those of the engine.
    fn endpoints_of(&self, agent: &AgentId) -> Result<Vec<EndpointRow>, StoreError>;

    /// Who offers this host and port. Agents that are disabled, or that the host is not (any longer) bound to, are left
    /// out here too, whatever they once offered.
    ///
    /// # Errors
    /// Those of the engine.
    fn endpoint_owner(&self, site: &str, host: &str, port: u16) -> Result<Vec<Candidate>, StoreError>;

    /// Every endpoint with an owner, by site, host, port and agent; at most `at_most`. Left out is what
    /// [`Self::endpoint_owner`] leaves out.
    ///
    /// # Errors
    /// Those of the engine.
    fn owned_endpoints(&self, at_most: usize) -> Result<Vec<OwnedEndpoint>, StoreError>;

    /// Everything that is offered at a host, by port, as [`Store::endpoint_owner`] gives it for one.
    ///
    /// # Errors
    /// Those of the engine.
    fn endpoints_at(&self, site: &str, host: &str) -> Result<Vec<(u16, Candidate)>, StoreError>;

    /// One caller, or `None`.
    ///
    /// # Errors
    /// Those of the engine.
    fn caller(&self, id: &CallerName) -> Result<Option<CallerRow>, StoreError>;

    /// The callers of a kind and scope, by name. Callers without a site belong to [`SiteScope::Every`] only.
    ///
    /// # Errors
    /// Those of the engine.
    fn callers(&self, kind: CallerKind, scope: &SiteScope) -> Result<Vec<CallerRow>, StoreError>;

    /// Adds a caller with its first keys.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when the name is taken, by a caller of either kind, or the issuer and URI are another
    /// workload's; [`StoreError::Limit`], [`StoreError::Invalid`].
    fn add_caller(&mut self, caller: &NewCaller) -> Result<(), StoreError>;

    /// Replaces a caller's groups.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::Invalid`].
    fn set_caller_groups(&mut self, id: &CallerName, groups: &Names) -> Result<(), StoreError>;

    /// Replaces a caller's labels.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::Invalid`].
    fn set_caller_labels(&mut self, id: &CallerName, labels: &Labels) -> Result<(), StoreError>;

    /// Disables a caller (nothing they prove lets them in) or enables the caller again.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    fn set_caller_disabled(&mut self, id: &CallerName, disabled: bool) -> Result<(), StoreError>;

    /// Disables a caller, forgets the login keys and withdraws every join string made for them, so that nothing of before
    /// is good when they are enabled again.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    fn revoke_caller(&mut self, id: &CallerName) -> Result<(), StoreError>;

    /// Disables an agent and withdraws the join strings made for it. It stays known, and its name taken.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    fn revoke_agent(&mut self, id: &AgentId) -> Result<(), StoreError>;

    /// Forgets a caller with the keys and every join string made for them; the name is free again.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    fn delete_caller(&mut self, id: &CallerName) -> Result<(), StoreError>;

    /// Adds a key to a caller, or renews the one with the same fingerprint.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for an unknown caller, [`StoreError::Limit`] beyond [`MAX_KEYS_PER_CALLER`].
    fn add_caller_key(&mut self, id: &CallerName, key: &NewCallerKey) -> Result<(), StoreError>;

    /// Takes a key away, and the join string that a login key came by; `false` when there was none.
    ///
    /// # Errors
    /// Those of the engine.
    fn remove_caller_key(&mut self, id: &CallerName, fingerprint: &str) -> Result<bool, StoreError>;

    /// Sets when a login key ends to be good; `false` when there is none.
    ///
    /// # Errors
    /// Those of the engine.
    fn extend_login_key(&mut self, id: &CallerName, fingerprint: &str, expires: i64) -> Result<bool, StoreError>;

    /// A caller's keys, the expired ones included.
    ///
    /// # Errors
    /// Those of the engine.
    fn caller_keys(&self, id: &CallerName) -> Result<Vec<CallerKeyRow>, StoreError>;

    /// At most `limit` keys of any caller whose fingerprint begins so.
    ///
    /// # Errors
    /// Those of the engine.
    fn keys_from(&self, prefix: &str, limit: u32) -> Result<Vec<CallerKeyRow>, StoreError>;

    /// The workloads whose own issuer names them by this URI.
    ///
    /// # Errors
    /// Those of the engine.
    fn workloads_with_uri(&self, san_uri: &str) -> Result<Vec<CallerRow>, StoreError>;

    /// The agent that enrolled with the key of this SPKI digest, disabled or not; `None` when no agent has it.
    ///
    /// # Errors
    /// Those of the engine.
    fn agent_with_key(&self, spki: &[u8; 32]) -> Result<Option<AgentRow>, StoreError>;

    /// Whether a certificate was ever issued to an agent of this name with this key; also of one that is deleted, for 90
    /// days after the certificate's end.
    ///
    /// # Errors
    /// Those of the engine.
    fn agent_had_key(&self, id: &AgentId, spki: &[u8; 32]) -> Result<bool, StoreError>;

    /// The caller whose login key has this fingerprint, when the key has not expired and the caller is not disabled. A key
    /// of two callers is nobody's.
    ///
    /// # Errors
    /// Those of the engine.
    fn login_key_owner(&self, fingerprint: &str, now: i64) -> Result<Option<CallerRow>, StoreError>;

    /// A small fact about this gateway (for instance the digest of the last good access policy).
    ///
    /// # Errors
    /// Those of the engine.
    fn meta(&self, key: &str) -> Result<Option<String>, StoreError>;

    /// Writes such a fact.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] above 64 characters of key or 64 KiB of value.
    fn set_meta(&mut self, key: &str, value: &str) -> Result<(), StoreError>;

    /// At most `limit` endpoints after a place of the list, by site, host, port, protocol and agent; those that
    /// [`Store::endpoint_owner`] would find, and no others.
    ///
    /// # Errors
    /// Those of the engine.
    fn endpoints_after(
        &self,
        scope: &SiteScope,
        after: &EndpointPlace,
        limit: usize,
    ) -> Result<Vec<OwnedEndpoint>, StoreError>;

    /// Takes a report of host keys for an endpoint of the agent that has this key. Whether the endpoint is the agent's is
    /// the caller's to check.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when the agent has another key, [`StoreError::Invalid`], [`StoreError::Limit`] beyond
    /// [`MAX_ENDPOINTS_PER_AGENT`] endpoints with host keys.
    fn report_host_keys(
        &mut self,
        agent: &AgentId,
        spki: &[u8; 32],
        report: &ReportedHostKeys,
        now: i64,
    ) -> Result<HostKeyNews, StoreError>;

    /// The host keys of an agent's endpoints, by host and port.
    ///
    /// # Errors
    /// Those of the engine.
    fn host_keys_of(&self, agent: &AgentId) -> Result<Vec<HostKeyRow>, StoreError>;

    /// The host keys that callers of one endpoint of the agent are given; none where none was reported.
    ///
    /// # Errors
    /// Those of the engine.
    fn trusted_host_keys(&self, agent: &AgentId, host: &str, port: u16) -> Result<KeyLines, StoreError>;

    /// Trusts what is held, in place of what was trusted. Returns the endpoints concerned as they were.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    fn trust_host_keys(&mut self, agent: &AgentId) -> Result<Vec<HostKeyRow>, StoreError>;
}
