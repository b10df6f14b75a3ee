//! The last good addresses of gateways, kept on disk: a name server that is broken when a device boots must not strand it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use fairlead_runtime::config_file::write_private;

/// Addresses kept; the oldest go first.
const MOST: usize = 4;
/// Longer than any file that this room writes.
const LONGEST: usize = 1024;

/// The addresses at which gateways were last found good, the newest first.
#[derive(Debug)]
pub struct AddressBook {
    file: PathBuf,
    known: Mutex<Vec<SocketAddr>>,
}

impl AddressBook {
    /// What `file` says; a file that is absent or damaged says nothing.
    pub fn read(file: PathBuf) -> Self {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        let known = text.get(..text.len().min(LONGEST)).unwrap_or_default().lines();
        Self {
            known: Mutex::new(known.filter_map(|line| line.parse().ok()).take(MOST).collect()),
            file,
        }
    }

    /// The addresses, the newest first.
    pub(super) fn known(&self) -> Vec<SocketAddr> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A gateway was good at this address. Written only when that is news.
    pub(super) fn keep(&self, address: SocketAddr) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.contains(&address) {
            return;
        }
        known.insert(0, address);
        known.truncate(MOST);
        let lines: Vec<String> = known.iter().map(|address| format!("{address}\n")).collect();
        // Without it a device that boots while names are not answered waits for them.
        if let Err(error) = write_private(&self.file, lines.concat().as_bytes(), 0o600) {
            tracing::warn!(%error, "the gateway's address is not kept");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_good_addresses_outlive_the_process() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("gateway_addresses");
        let book = AddressBook::read(file.clone());
        assert!(book.known().is_empty());
        for last in 1..=6 {
            book.keep(SocketAddr::from(([192, 0, 2, last], 443)));
        }
        let again = AddressBook::read(file.clone());
        assert_eq!(again.known(), book.known());
        assert_eq!(again.known().len(), MOST);
        assert_eq!(again.known()[0], SocketAddr::from(([192, 0, 2, 6], 443)));
        std::fs::write(&file, "nonsense\n192.0.2.1:443\n").unwrap();
        assert_eq!(
            AddressBook::read(file).known(),
            [SocketAddr::from(([192, 0, 2, 1], 443))]
        );
    }
}
