//! The tables, and how an older file becomes a present one.
//!
//! A migration is never edited once released: a new one is appended, and [`KNOWN`] grows by itself.

use std::path::Path;

use rusqlite::{Connection, TransactionBehavior};

use super::StoreError;

/// Written into the file's header, so that another program's database is not taken for ours: "FLGW".
const APPLICATION_ID: i64 = 0x464c_4757;

/// Each entry brings a file from its index to its index + 1.
const MIGRATIONS: &[&str] = &[FIRST];

/// The schema this program writes.
pub(super) const KNOWN: u32 = MIGRATIONS.len() as u32;

// Sites come first in every key that concerns agents, so that no statement can address a row of another site by accident.
const FIRST: &str = "
CREATE TABLE agents (
    site        TEXT NOT NULL CHECK (length(site) BETWEEN 1 AND 30),
    name        TEXT NOT NULL CHECK (length(name) BETWEEN 1 AND 30),
    labels      TEXT NOT NULL DEFAULT '{}',
    spki        BLOB CHECK (spki IS NULL OR length(spki) = 32),
    serial      TEXT,
    not_after   INTEGER,
    enrolled_at INTEGER,
    last_seen   INTEGER,
    reported    TEXT NOT NULL DEFAULT '{}',
    disabled    INTEGER NOT NULL DEFAULT 0 CHECK (disabled IN (0, 1)),
    pending     INTEGER NOT NULL DEFAULT 0 CHECK (pending IN (0, 1)),
    roots       TEXT NOT NULL DEFAULT '[]',
    PRIMARY KEY (site, name)
) STRICT, WITHOUT ROWID;
CREATE INDEX agents_by_key ON agents (spki);

CREATE TABLE hosts (
    site  TEXT NOT NULL,
    host  TEXT NOT NULL CHECK (length(host) BETWEEN 1 AND 30),
    agent TEXT NOT NULL,
    PRIMARY KEY (site, host, agent),
    FOREIGN KEY (site, agent) REFERENCES agents (site, name) ON DELETE CASCADE ON UPDATE CASCADE
) STRICT, WITHOUT ROWID;
CREATE INDEX hosts_by_agent ON hosts (site, agent);

CREATE TABLE endpoints (
    site       TEXT NOT NULL,
    host       TEXT NOT NULL,
    port       INTEGER NOT NULL CHECK (port BETWEEN 1 AND 65535),
    protocol   TEXT NOT NULL,
    agent      TEXT NOT NULL,
    mode       TEXT NOT NULL CHECK (mode IN ('tunnel', 'builtin')),
    pooling    INTEGER NOT NULL CHECK (pooling IN (0, 1)),
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (site, host, port, protocol, agent),
    FOREIGN KEY (site, agent) REFERENCES agents (site, name) ON DELETE CASCADE ON UPDATE CASCADE
) STRICT, WITHOUT ROWID;
CREATE INDEX endpoints_by_agent ON endpoints (site, agent);

CREATE TABLE tokens (
    secret_sha256 BLOB NOT NULL PRIMARY KEY CHECK (length(secret_sha256) = 32),
    kind          TEXT NOT NULL CHECK (kind IN ('agent', 'user', 'workload')),
    site          TEXT,
    name          TEXT NOT NULL,
    labels        TEXT NOT NULL,
    groups        TEXT NOT NULL,
    hosts         TEXT NOT NULL,
    created       INTEGER NOT NULL,
    expires       INTEGER NOT NULL,
    terms         TEXT NOT NULL CHECK (terms IN ('once', 'replace', 'fleet', 'fleet-approved')),
    uses          INTEGER NOT NULL CHECK (uses >= 1),
    used          INTEGER NOT NULL DEFAULT 0 CHECK (used BETWEEN 0 AND uses),
    CHECK (kind <> 'agent' OR site IS NOT NULL)
) STRICT, WITHOUT ROWID;
CREATE INDEX tokens_by_name ON tokens (kind, site, name);
CREATE INDEX tokens_by_expiry ON tokens (expires);

CREATE TABLE token_uses (
    secret_sha256 BLOB NOT NULL REFERENCES tokens (secret_sha256) ON DELETE CASCADE,
    spki          BLOB NOT NULL CHECK (length(spki) = 32),
    name          TEXT NOT NULL,
    used_at       INTEGER NOT NULL,
    PRIMARY KEY (secret_sha256, spki)
) STRICT, WITHOUT ROWID;

CREATE TABLE callers (
    kind     TEXT NOT NULL CHECK (kind IN ('user', 'workload')),
    name     TEXT NOT NULL CHECK (length(name) BETWEEN 1 AND 30),
    site     TEXT,
    groups   TEXT NOT NULL DEFAULT '[]',
    labels   TEXT NOT NULL DEFAULT '{}',
    disabled INTEGER NOT NULL DEFAULT 0 CHECK (disabled IN (0, 1)),
    ca_pem   TEXT,
    san_uri  TEXT,
    issuer   BLOB UNIQUE CHECK (issuer IS NULL OR length(issuer) = 32),
    created  INTEGER NOT NULL,
    PRIMARY KEY (kind, name),
    CHECK ((ca_pem IS NULL) = (san_uri IS NULL) AND (ca_pem IS NULL) = (issuer IS NULL)),
    CHECK (san_uri IS NULL OR kind = 'workload')
) STRICT, WITHOUT ROWID;
CREATE INDEX callers_by_uri ON callers (san_uri);

CREATE TABLE caller_keys (
    caller_kind TEXT NOT NULL,
    caller      TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    kind        TEXT NOT NULL CHECK (kind IN ('registered', 'login')),
    public_key  TEXT NOT NULL,
    label       TEXT NOT NULL DEFAULT '',
    spki        BLOB CHECK (spki IS NULL OR length(spki) = 32),
    added       INTEGER NOT NULL,
    expires     INTEGER,
    PRIMARY KEY (caller_kind, caller, fingerprint),
    FOREIGN KEY (caller_kind, caller) REFERENCES callers (kind, name) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
CREATE INDEX caller_keys_by_fingerprint ON caller_keys (fingerprint);

CREATE TABLE certificates (
    kind      TEXT NOT NULL CHECK (kind IN ('agent', 'user', 'workload')),
    site      TEXT NOT NULL,
    name      TEXT NOT NULL,
    serial    TEXT NOT NULL,
    spki      BLOB NOT NULL CHECK (length(spki) = 32),
    issued_at INTEGER NOT NULL,
    not_after INTEGER NOT NULL,
    issuer    INTEGER NOT NULL,
    PRIMARY KEY (kind, site, name, serial)
) STRICT, WITHOUT ROWID;
CREATE INDEX certificates_by_end ON certificates (not_after);

CREATE TABLE host_keys (
    site    TEXT NOT NULL,
    agent   TEXT NOT NULL,
    host    TEXT NOT NULL,
    port    INTEGER NOT NULL CHECK (port BETWEEN 1 AND 65535),
    spki    BLOB NOT NULL CHECK (length(spki) = 32),
    trusted TEXT NOT NULL,
    held    TEXT,
    held_at INTEGER,
    told_at INTEGER,
    seen_at INTEGER NOT NULL,
    PRIMARY KEY (site, agent, host, port),
    FOREIGN KEY (site, agent) REFERENCES agents (site, name) ON DELETE CASCADE ON UPDATE CASCADE
) STRICT, WITHOUT ROWID;

CREATE TABLE meta (
    key   TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;
";

/// Brings the file to [`KNOWN`], in one transaction per step.
///
/// # Errors
/// [`StoreError::NewerSchema`] and [`StoreError::Foreign`] before anything is written.
pub(super) fn migrate(connection: &mut Connection, path: &Path) -> Result<(), StoreError> {
    loop {
        // Immediate, so that two programs which open a new file at once do the steps one after the other.
        let step = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let found: u32 = step.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        let owner: i64 = step.query_row("PRAGMA application_id", [], |row| row.get(0))?;
        let tables: i64 = step.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
        if owner != APPLICATION_ID && (owner != 0 || found != 0 || tables != 0) {
            return Err(StoreError::Foreign { path: path.to_owned() });
        }
        if found > KNOWN {
            return Err(StoreError::NewerSchema {
                path: path.to_owned(),
                found,
                known: KNOWN,
            });
        }
        let Some(migration) = MIGRATIONS.get(found as usize) else {
            return Ok(());
        };
        step.execute_batch(migration)?;
        step.pragma_update(None, "application_id", APPLICATION_ID)?;
        step.pragma_update(None, "user_version", found + 1)?;
        step.commit()?;
    }
}
