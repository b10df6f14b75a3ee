//! What a backup holds, packed as a tar file: `age -d FILE | tar t` lists it without our program.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Component, Path};
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};

/// Bytes of all files together, at most.
const MAX_BYTES: u64 = 2 * 1024 * 1024 * 1024;
/// Files, at most.
const MAX_FILES: usize = 4_096;
/// The file that says what this is; the first of an archive.
const LABEL: &str = "fairlead-gateway-backup";
/// The kind of archive that this program writes and reads.
const VERSION: &str = "1";

/// Files by their names, all in memory: a gateway of 10,000 agents has some ten MiB. It holds keys, so it does not print.
pub struct Archive {
    files: BTreeMap<String, Vec<u8>>,
    made: SystemTime,
}

impl Archive {
    /// An empty one, made `now`.
    pub(super) fn new(now: SystemTime) -> Self {
        Self {
            files: BTreeMap::new(),
            made: now,
        }
    }

    /// Adds a file.
    ///
    /// # Errors
    /// When there is one of that name, or the name leads elsewhere.
    pub(super) fn add(&mut self, name: &str, bytes: Vec<u8>) -> anyhow::Result<()> {
        let is_plain = Path::new(name)
            .components()
            .all(|part| matches!(part, Component::Normal(_)));
        if !is_plain || name.is_empty() || name.ends_with('/') || name.contains('\0') {
            bail!("{name:?} is no name for a file of a backup");
        }
        if self.files.insert(name.to_owned(), bytes).is_some() {
            bail!("two files are called {name}; give them different names");
        }
        Ok(())
    }

    /// The names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(String::as_str)
    }

    /// When it was made.
    pub fn made(&self) -> SystemTime {
        self.made
    }

    /// A file.
    pub(super) fn get(&self, name: &str) -> Option<&[u8]> {
        self.files.get(name).map(Vec::as_slice)
    }

    /// As one tar file.
    ///
    /// # Errors
    /// When a name is too long for one.
    pub fn pack(&self) -> anyhow::Result<Vec<u8>> {
        let mut builder = tar::Builder::new(Vec::new());
        let seconds = self
            .made
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs();
        let mut append = |name: &str, bytes: &[u8]| {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o600);
            header.set_mtime(seconds);
            builder.append_data(&mut header, name, bytes)
        };
        append(LABEL, VERSION.as_bytes())?;
        for (name, bytes) in &self.files {
            append(name, bytes)?;
        }
        Ok(builder.into_inner()?)
    }

    /// Reads what [`Archive::pack`] made. Nothing is written anywhere.
    ///
    /// # Errors
    /// When it is something else, of a later kind, or too much.
    pub fn unpack(packed: &[u8]) -> anyhow::Result<Self> {
        let mut archive = Self::new(SystemTime::UNIX_EPOCH);
        let mut is_labelled = false;
        let mut left = MAX_BYTES;
        for entry in tar::Archive::new(packed).entries()? {
            let entry = entry.context("this is no backup of a gateway")?;
            let name = entry
                .path()?
                .to_str()
                .context("a name in the backup is no text")?
                .to_owned();
            if entry.header().entry_type() != tar::EntryType::Regular {
                bail!("{name} in the backup is no file");
            }
            let mut bytes = Vec::new();
            let seconds = entry.header().mtime()?;
            entry.take(left.saturating_add(1)).read_to_end(&mut bytes)?;
            left = left
                .checked_sub(bytes.len() as u64)
                .context("the backup holds more than 2 GiB")?;
            if !is_labelled {
                let version = String::from_utf8_lossy(&bytes).into_owned();
                match name == LABEL {
                    true if version == VERSION => is_labelled = true,
                    true => bail!("the backup is of kind {version}, made by a later release; restore it with that one"),
                    false => bail!("this is no backup of a gateway"),
                }
                archive.made = SystemTime::UNIX_EPOCH
                    .checked_add(Duration::from_secs(seconds))
                    .unwrap_or(SystemTime::UNIX_EPOCH);
                continue;
            }
            if archive.files.len() >= MAX_FILES {
                bail!("the backup holds more than {MAX_FILES} files");
            }
            archive.add(&name, bytes)?;
        }
        if !is_labelled {
            bail!("this is no backup of a gateway");
        }
        Ok(archive)
    }
}
