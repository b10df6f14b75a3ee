//! What can go wrong in the store, in words for whoever can put it right.

use std::path::PathBuf;

use super::AgentId;

/// Why the store could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file could not be opened or made.
    #[error(
        "cannot open the state file {path}: {source}; check that its directory exists and belongs to the user who runs the gateway"
    )]
    Open {
        /// The state file.
        path: PathBuf,
        /// What the system or SQLite said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The file was written by a later release.
    #[error(
        "the state file {path} was written by a newer Fairlead (schema {found}; this program knows up to {known}): install that release again, or restore a backup made by this one"
    )]
    NewerSchema {
        /// The state file.
        path: PathBuf,
        /// The schema number in the file.
        found: u32,
        /// The newest schema number this program knows.
        known: u32,
    },
    /// The file is an SQLite database of another program.
    #[error("{path} is a database, but not Fairlead's: choose another state_dir")]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// The queue of the store's thread is full.
    #[error(
        "the state store has {waiting} operations waiting and takes no more: the disk is too slow for the load, try again shortly"
    )]
    Busy {
        /// Length of the queue.
        waiting: usize,
    },
    /// The operation did not end in time; it may still be carried out.
    #[error(
        "the state store did not answer within {seconds} s; it may still do what was asked: look before asking again"
    )]
    TimedOut {
        /// How long was waited.
        seconds: u64,
    },
    /// The store's thread is gone: the gateway is stopping.
    #[error("the state store is closed: the gateway is stopping")]
    Closed,
    /// The operation panicked; its transaction was rolled back.
    #[error(
        "the state store failed inside an operation, which was rolled back; please report this with the gateway's log"
    )]
    Panicked,
    /// No such row.
    #[error("there is no {what}")]
    NotFound {
        /// For instance `agent pump-7 in site plant-7`.
        what: String,
    },
    /// The request contradicts what is known.
    #[error("{what}; {help}")]
    Conflict {
        /// What stands against it.
        what: String,
        /// What to do instead.
        help: String,
    },
    /// A table or list is full.
    #[error("there may be at most {limit} {what}")]
    Limit {
        /// What there may be so many of.
        what: &'static str,
        /// The limit.
        limit: u32,
    },
    /// A value is not of the form it must have.
    #[error("{what} is not valid: {why}")]
    Invalid {
        /// Which value.
        what: &'static str,
        /// The form it must have.
        why: &'static str,
    },
    /// A row holds what this program never writes.
    #[error("the state file is damaged: {column} of a row cannot be read; restore a backup")]
    Damaged {
        /// Table and column.
        column: &'static str,
    },
    /// SQLite failed.
    #[error("the state store failed: {0}")]
    Engine(#[from] rusqlite::Error),
}

/// Why a join string was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum RedeemError {
    /// No such string was ever made here, or it was withdrawn.
    #[error("this join string is not known here; make a new one with `fairlead token create`")]
    Unknown,
    /// Its life is over.
    #[error("this join string has expired; make a new one with `fairlead token create`")]
    Expired,
    /// Another key has spent it.
    #[error(
        "this join string was already used with another key; if that was not you, delete what it enrolled, and make a new one"
    )]
    Spent,
    /// A fleet's string that so many keys have used.
    #[error(
        "this join string was used {uses} times and is good for no more; make a new one with `fairlead token create`"
    )]
    UsedUp {
        /// How many.
        uses: u32,
    },
    /// A fleet's string that does not allow the name that the device proposes.
    #[error("this join string is for names such as {pattern}, {}; propose one with `--name`",
        if name.is_empty() { "and none was proposed".to_owned() } else { format!("not for {name}") })]
    BadName {
        /// What was proposed.
        name: String,
        /// What is allowed.
        pattern: String,
    },
    /// What this key held was deleted, or belongs to another key.
    #[error("agent {} in site {} is not this key's (any longer): it was rejected, deleted or enrolled anew; move the state \
             directory away to enrol with a new key", id.name, id.site)]
    Rejected {
        /// What it held.
        id: AgentId,
    },
    /// The agent has a key, the name is taken or the user is disabled: what is known has changed since the string was made.
    #[error("{what}; {help}")]
    Conflict {
        /// What stands against it.
        what: String,
        /// What to do instead.
        help: String,
    },
    /// The store failed; asking again may help.
    #[error(transparent)]
    Store(StoreError),
}

impl From<StoreError> for RedeemError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Conflict { what, help } => Self::Conflict { what, help },
            other => Self::Store(other),
        }
    }
}

impl From<rusqlite::Error> for RedeemError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Store(StoreError::Engine(error))
    }
}
