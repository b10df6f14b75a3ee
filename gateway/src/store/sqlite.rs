//! The store in one SQLite file. What each operation does stands in the files beside, one per table.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};

use super::row::{
    AgentId, AgentRow, CallerKeyRow, CallerKind, CallerName, CallerRow, Candidate, CertificateRecord, Claim,
    EndpointPlace, EndpointRow, Holder, HostKeyNews, HostKeyRow, HostRow, KeyLines, Labels, Names, NewAgent, NewCaller,
    NewCallerKey, NewToken, OwnedEndpoint, Redeemed, ReportedHostKeys, SiteScope, WaitingToken,
};
use super::{
    RedeemError, Store, StoreError, agents, callers, endpoints, fleet, host_keys, hosts, rename, schema, tokens,
};

/// How long a statement waits for another program that holds the file (a backup, `sqlite3`) before it fails.
pub(super) const BUSY_LIMIT: Duration = Duration::from_secs(5);

/// Prepared statements that are kept; there are fewer different ones.
const STATEMENTS: usize = 64;

/// The [`Store`] in one SQLite file with a write-ahead log.
#[derive(Debug)]
pub struct SqliteStore {
    connection: Connection,
    durable: bool,
}

impl SqliteStore {
    /// Opens the state file, makes it (0600 from the first byte) when there is none, and brings it to the present schema.
    ///
    /// # Errors
    /// [`StoreError::Open`], [`StoreError::NewerSchema`], [`StoreError::Foreign`]. Nothing is written in these cases.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        make_private(path).map_err(|source| StoreError::Open {
            path: path.to_owned(),
            source: Box::new(source),
        })?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let opened = Connection::open_with_flags(path, flags).map_err(StoreError::from);
        opened
            .and_then(|connection| Self::prepare(connection, path))
            .map_err(|error| match error {
                StoreError::Engine(source) => StoreError::Open {
                    path: path.to_owned(),
                    source: Box::new(source),
                },
                other => other,
            })
    }

    /// A store that lives in memory and ends with this value: for tests and throw-away gateways.
    ///
    /// # Errors
    /// Those of the engine.
    pub fn in_memory() -> Result<Self, StoreError> {
        Self::prepare(Connection::open_in_memory()?, Path::new(":memory:"))
    }

    fn prepare(mut connection: Connection, path: &Path) -> Result<Self, StoreError> {
        connection.busy_timeout(BUSY_LIMIT)?;
        schema::migrate(&mut connection, path)?;
        write_ahead(&connection)?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "foreign_keys", true)?;
        // All of them, and planned once: parsing costs more than most of what they ask, and without the planner's guarantee of
        // stability SQLite parses each again whenever a parameter has another value.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS);
        connection.pragma_update(None, "trusted_schema", false)?;
        Ok(Self {
            connection,
            durable: true,
        })
    }

    /// One transaction that is on the disk when this returns: identities, tokens, keys, bindings.
    pub(super) fn durable<T, E: From<rusqlite::Error>>(
        &mut self,
        act: impl FnOnce(&Transaction<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        self.transaction(true, act)
    }

    /// One transaction that a power cut may undo, but never tear: what agents tell anew with their next link.
    fn relaxed<T, E: From<rusqlite::Error>>(
        &mut self,
        act: impl FnOnce(&Transaction<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        self.transaction(false, act)
    }

    /// Immediate, so that what is read inside still holds when it is written.
    fn transaction<T, E: From<rusqlite::Error>>(
        &mut self,
        durable: bool,
        act: impl FnOnce(&Transaction<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        if self.durable != durable {
            self.connection
                .pragma_update(None, "synchronous", if durable { "FULL" } else { "NORMAL" })?;
            self.durable = durable;
        }
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        let done = act(&transaction)?;
        transaction.commit()?;
        Ok(done)
    }
}

impl Store for SqliteStore {
    fn create_token(&mut self, token: &NewToken) -> Result<(), StoreError> {
        self.durable(|db| tokens::create(db, token))
    }

    fn redeem_as(&mut self, claim: &Claim<'_>, now: i64) -> Result<Redeemed, RedeemError> {
        self.durable(|db| tokens::redeem(db, claim, now))
    }

    fn approve_agents(&mut self, agents: &[AgentId]) -> Result<(), StoreError> {
        self.durable(|db| agents.iter().try_for_each(|id| fleet::approve(db, id)))
    }

    fn import_agents(&mut self, agents: &[NewAgent]) -> Result<(), StoreError> {
        self.durable(|db| fleet::import(db, agents))
    }

    fn record_certificate(&mut self, holder: &Holder, record: &CertificateRecord, now: i64) -> Result<(), StoreError> {
        self.durable(|db| agents::record_certificate(db, holder, record, now))
    }

    fn agent(&self, id: &AgentId) -> Result<Option<AgentRow>, StoreError> {
        agents::get(&self.connection, id)
    }

    fn agent_with_key(&self, spki: &[u8; 32]) -> Result<Option<AgentRow>, StoreError> {
        agents::with_key(&self.connection, spki)
    }

    fn agent_had_key(&self, id: &AgentId, spki: &[u8; 32]) -> Result<bool, StoreError> {
        agents::had_key(&self.connection, id, spki)
    }

    fn login_key_owner(&self, fingerprint: &str, now: i64) -> Result<Option<CallerRow>, StoreError> {
        callers::login_key_owner(&self.connection, fingerprint, now)
    }

    fn agents(&self, scope: &SiteScope) -> Result<Vec<AgentRow>, StoreError> {
        agents::list(&self.connection, scope)
    }

    fn rename_agent(&mut self, id: &AgentId, to: &str) -> Result<(), StoreError> {
        self.durable(|db| rename::agent(db, id, to))
    }

    fn set_agent_labels(&mut self, id: &AgentId, labels: &Labels) -> Result<(), StoreError> {
        self.durable(|db| agents::set_labels(db, id, labels))
    }

    fn set_agent_disabled(&mut self, id: &AgentId, disabled: bool) -> Result<(), StoreError> {
        self.durable(|db| agents::set_disabled(db, id, disabled))
    }

    fn delete_agent(&mut self, id: &AgentId) -> Result<(), StoreError> {
        self.durable(|db| agents::delete(db, id))
    }

    fn touch(&mut self, id: &AgentId, reported: &Labels, now: i64) -> Result<(), StoreError> {
        self.relaxed(|db| agents::touch(db, id, reported, now))
    }

    fn note_roots(&mut self, id: &AgentId, roots: &Names) -> Result<(), StoreError> {
        self.relaxed(|db| agents::note_roots(db, id, roots))
    }

    fn certificates_by_issuer(&self, now: i64) -> Result<BTreeMap<u32, u64>, StoreError> {
        agents::certificates_by_issuer(&self.connection, now)
    }

    fn waiting_tokens(&self, now: i64) -> Result<Vec<WaitingToken>, StoreError> {
        tokens::waiting(&self.connection, now)
    }

    fn withdraw_token(&mut self, beginning: &str, now: i64) -> Result<WaitingToken, StoreError> {
        self.durable(|db| tokens::withdraw_one(db, beginning, now))
    }

    fn bind_host(&mut self, agent: &AgentId, host: &str) -> Result<(), StoreError> {
        self.durable(|db| hosts::bind(db, agent, host))
    }

    fn unbind_host(&mut self, agent: &AgentId, host: &str) -> Result<bool, StoreError> {
        self.durable(|db| hosts::unbind(db, agent, host))
    }

    fn hosts_of(&self, agent: &AgentId) -> Result<Names, StoreError> {
        hosts::of(&self.connection, agent)
    }

    fn hosts(&self, scope: &SiteScope) -> Result<Vec<HostRow>, StoreError> {
        hosts::list(&self.connection, scope)
    }

    fn replace_endpoints(&mut self, agent: &AgentId, endpoints: &[EndpointRow], now: i64) -> Result<(), StoreError> {
        self.relaxed(|db| endpoints::replace(db, agent, endpoints, now))
    }

    fn endpoints_of(&self, agent: &AgentId) -> Result<Vec<EndpointRow>, StoreError> {
        endpoints::of(&self.connection, agent)
    }

    fn endpoint_owner(&self, site: &str, host: &str, port: u16) -> Result<Vec<Candidate>, StoreError> {
        endpoints::owner(&self.connection, site, host, port)
    }

    fn owned_endpoints(&self, at_most: usize) -> Result<Vec<OwnedEndpoint>, StoreError> {
        endpoints::owned(&self.connection, at_most)
    }

    fn endpoints_at(&self, site: &str, host: &str) -> Result<Vec<(u16, Candidate)>, StoreError> {
        endpoints::at(&self.connection, site, host, None)
    }

    fn caller(&self, id: &CallerName) -> Result<Option<CallerRow>, StoreError> {
        callers::get(&self.connection, id)
    }

    fn callers(&self, kind: CallerKind, scope: &SiteScope) -> Result<Vec<CallerRow>, StoreError> {
        callers::list(&self.connection, kind, scope)
    }

    fn add_caller(&mut self, caller: &NewCaller) -> Result<(), StoreError> {
        self.durable(|db| callers::add(db, caller))
    }

    fn set_caller_groups(&mut self, id: &CallerName, groups: &Names) -> Result<(), StoreError> {
        self.durable(|db| callers::set_groups(db, id, groups))
    }

    fn set_caller_labels(&mut self, id: &CallerName, labels: &Labels) -> Result<(), StoreError> {
        self.durable(|db| callers::set_labels(db, id, labels))
    }

    fn set_caller_disabled(&mut self, id: &CallerName, disabled: bool) -> Result<(), StoreError> {
        self.durable(|db| callers::set_disabled(db, id, disabled))
    }

    fn revoke_caller(&mut self, id: &CallerName) -> Result<(), StoreError> {
        self.durable(|db| callers::shut_out(db, id))
    }

    fn revoke_agent(&mut self, id: &AgentId) -> Result<(), StoreError> {
        self.durable(|db| agents::shut_out(db, id))
    }

    fn delete_caller(&mut self, id: &CallerName) -> Result<(), StoreError> {
        self.durable(|db| callers::delete(db, id))
    }

    fn add_caller_key(&mut self, id: &CallerName, key: &NewCallerKey) -> Result<(), StoreError> {
        self.durable(|db| callers::add_key(db, id, key))
    }

    fn remove_caller_key(&mut self, id: &CallerName, fingerprint: &str) -> Result<bool, StoreError> {
        self.durable(|db| callers::remove_key(db, id, fingerprint))
    }

    fn extend_login_key(&mut self, id: &CallerName, fingerprint: &str, expires: i64) -> Result<bool, StoreError> {
        self.durable(|db| callers::extend_key(db, id, fingerprint, expires))
    }

    fn caller_keys(&self, id: &CallerName) -> Result<Vec<CallerKeyRow>, StoreError> {
        callers::keys(&self.connection, id)
    }

    fn keys_from(&self, prefix: &str, limit: u32) -> Result<Vec<CallerKeyRow>, StoreError> {
        callers::keys_from(&self.connection, prefix, limit)
    }

    fn workloads_with_uri(&self, san_uri: &str) -> Result<Vec<CallerRow>, StoreError> {
        callers::with_uri(&self.connection, san_uri)
    }

    fn meta(&self, key: &str) -> Result<Option<String>, StoreError> {
        callers::optional(
            self.connection
                .query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| row.get(0)),
        )
    }

    fn set_meta(&mut self, key: &str, value: &str) -> Result<(), StoreError> {
        if key.is_empty() || key.len() > 64 || value.len() > 64 * 1024 {
            return Err(StoreError::Invalid {
                what: "meta",
                why: "a key of 1 to 64 bytes and a value of at most 64 KiB",
            });
        }
        let statement =
            "INSERT INTO meta (key, value) VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = excluded.value";
        self.durable(|db| db.execute(statement, [key, value]).map(drop).map_err(StoreError::from))
    }

    fn endpoints_after(
        &self,
        scope: &SiteScope,
        after: &EndpointPlace,
        limit: usize,
    ) -> Result<Vec<OwnedEndpoint>, StoreError> {
        endpoints::after(&self.connection, scope, after, limit)
    }

    fn report_host_keys(
        &mut self,
        agent: &AgentId,
        spki: &[u8; 32],
        report: &ReportedHostKeys,
        now: i64,
    ) -> Result<HostKeyNews, StoreError> {
        self.durable(|db| host_keys::report(db, agent, spki, report, now))
    }

    fn host_keys_of(&self, agent: &AgentId) -> Result<Vec<HostKeyRow>, StoreError> {
        host_keys::of(&self.connection, agent)
    }

    fn trusted_host_keys(&self, agent: &AgentId, host: &str, port: u16) -> Result<KeyLines, StoreError> {
        host_keys::trusted(&self.connection, agent, host, port)
    }

    fn trust_host_keys(&mut self, agent: &AgentId) -> Result<Vec<HostKeyRow>, StoreError> {
        self.durable(|db| host_keys::trust(db, agent))
    }
}

/// Switches to the write-ahead log. SQLite's busy handler does not cover this step while another program opens the same
/// file; an empty exclusive transaction waits in its stead.
fn write_ahead(connection: &Connection) -> rusqlite::Result<()> {
    let started = Instant::now();
    loop {
        match connection.pragma_update(None, "journal_mode", "WAL") {
            Err(error) if is_busy(&error) && started.elapsed() < BUSY_LIMIT => {
                connection.execute_batch("BEGIN EXCLUSIVE; ROLLBACK")?;
            }
            other => return other,
        }
    }
}

fn is_busy(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy)
}

/// SQLite makes files with the process's umask; so the file is made here first. Its log and index files take its mode.
fn make_private(path: &Path) -> std::io::Result<()> {
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        other => other.map(drop),
    }
}
