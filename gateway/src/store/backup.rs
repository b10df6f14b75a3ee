//! The state file as a whole: copied as it is at one moment, and made fit to go on elsewhere.

use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use super::sqlite::BUSY_LIMIT;
use super::{SqliteStore, StoreError};

/// Copies the state file to `copy`, which must not exist and must lie where only this user looks. A running gateway goes
/// on meanwhile; what it writes after the first moment is not in the copy.
///
/// # Errors
/// [`StoreError::Open`] when there is no state file, else those of the engine.
pub fn copy(database: &Path, copy: &Path) -> Result<(), StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(database, flags).map_err(|source| StoreError::Open {
        path: database.to_owned(),
        source: Box::new(source),
    })?;
    connection.busy_timeout(BUSY_LIMIT)?;
    connection.execute("VACUUM INTO ?1", [copy.to_string_lossy()])?;
    Ok(())
}

impl SqliteStore {
    /// Ends every join string at `now` (unix seconds): nobody who has not used it can use it any more. Gives how many
    /// were still good.
    ///
    /// # Errors
    /// Those of the engine; nothing is changed then.
    pub fn end_tokens(&mut self, now: i64) -> Result<u64, StoreError> {
        let ended = self.durable(|db| {
            db.execute(
                "UPDATE tokens SET expires = ?1 WHERE expires > ?1 AND used < uses",
                [now],
            )
        })?;
        Ok(ended.try_into().unwrap_or(u64::MAX))
    }
}
