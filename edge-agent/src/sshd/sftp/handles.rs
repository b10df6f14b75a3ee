//! What a client holds open: bounded, and looked up by names that are only given out here.

use std::collections::BTreeMap;
use std::fs::File;

use russh_sftp::protocol::StatusCode;

use super::MAX_HANDLES;
use super::listing::Listing;
use super::refusal::Refusal;

/// The open files and directories of one sftp session.
#[derive(Default)]
pub(super) struct Handles {
    open: BTreeMap<u64, Open>,
    next: u64,
}

enum Open {
    File(File),
    Listing(Listing),
}

impl Handles {
    /// Refuses when there is no room for one more.
    pub(super) fn check_room(&self) -> Result<(), Refusal> {
        if self.open.len() >= MAX_HANDLES {
            return Err(Refusal::new(StatusCode::Failure, "256 files are open: close one first"));
        }
        Ok(())
    }

    pub(super) fn add_file(&mut self, file: File) -> Result<String, Refusal> {
        self.add(Open::File(file))
    }

    pub(super) fn add_listing(&mut self, listing: Listing) -> Result<String, Refusal> {
        self.add(Open::Listing(listing))
    }

    /// An open file.
    pub(super) fn file(&self, handle: &str) -> Result<&File, Refusal> {
        match number(handle).and_then(|number| self.open.get(&number)) {
            Some(Open::File(file)) => Ok(file),
            _ => Err(unknown()),
        }
    }

    /// An open directory.
    pub(super) fn listing(&mut self, handle: &str) -> Result<&mut Listing, Refusal> {
        match number(handle).and_then(|number| self.open.get_mut(&number)) {
            Some(Open::Listing(listing)) => Ok(listing),
            _ => Err(unknown()),
        }
    }

    pub(super) fn close(&mut self, handle: &str) -> Result<(), Refusal> {
        number(handle)
            .and_then(|number| self.open.remove(&number))
            .map(|_| ())
            .ok_or_else(unknown)
    }

    fn add(&mut self, open: Open) -> Result<String, Refusal> {
        self.check_room()?;
        let number = self.next;
        self.next += 1; // never reused: a handle kept after its close finds nothing
        self.open.insert(number, open);
        Ok(number.to_string())
    }
}

fn number(handle: &str) -> Option<u64> {
    handle.parse().ok()
}

fn unknown() -> Refusal {
    Refusal::new(StatusCode::Failure, "no such handle")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_are_bounded_and_never_reused() {
        let mut handles = Handles::default();
        let file = || File::open("/dev/null").unwrap();
        let first = handles.add_file(file()).unwrap();
        for _ in 1..MAX_HANDLES {
            handles.add_file(file()).unwrap();
        }
        assert!(handles.add_file(file()).is_err());
        handles.close(&first).unwrap();
        let next = handles.add_file(file()).unwrap();
        assert_ne!(first, next);
        assert!(handles.file(&first).is_err());
        assert!(handles.close(&first).is_err());
        assert!(handles.listing(&next).is_err());
        for wrong in ["", "-1", "+1x", "99999999999999999999"] {
            assert!(handles.file(wrong).is_err(), "{wrong}");
        }
    }
}
