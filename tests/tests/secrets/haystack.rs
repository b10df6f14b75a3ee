//! Everything that the programs said, keep, show and leave behind.

use std::collections::BTreeMap;
use std::path::Path;

use fairlead_tests::clients::Finished;

use crate::canary::Canary;

/// Named places with their bytes.
#[derive(Default)]
pub(crate) struct Haystack {
    places: BTreeMap<String, Vec<u8>>,
}

impl Haystack {
    pub(crate) fn add(&mut self, place: &str, bytes: Vec<u8>) {
        self.places.entry(place.to_owned()).or_default().extend(bytes);
    }

    /// What a program said.
    pub(crate) fn said(&mut self, what: &str, finished: Finished) {
        self.add(&format!("stdout of {what}"), finished.stdout);
        self.add(&format!("stderr of {what}"), finished.stderr.into_bytes());
    }

    /// Arguments and environment of a process; one that has ended by now has neither.
    pub(crate) fn process(&mut self, id: u32) {
        for part in ["cmdline", "environ"] {
            let bytes = std::fs::read(format!("/proc/{id}/{part}")).unwrap_or_default();
            self.add(&format!("{part} of process {id}"), bytes);
        }
    }

    /// Every file below a directory.
    pub(crate) fn tree(&mut self, dir: &Path) {
        for entry in std::fs::read_dir(dir).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                self.tree(&path);
            } else if path.is_file() {
                self.add(&path.display().to_string(), std::fs::read(&path).expect("a file"));
            }
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.places.values().map(Vec::len).sum()
    }

    /// The places where a secret is found in any spelling, line breaks or not.
    pub(crate) fn find(&self, canary: &Canary) -> Vec<String> {
        let spellings = canary.spellings();
        let holds = |bytes: &[u8]| spellings.iter().any(|spelling| contains(bytes, spelling));
        let found = self
            .places
            .iter()
            .filter(|(_, bytes)| holds(bytes) || holds(&unbroken(bytes)));
        found.map(|(place, _)| place.clone()).collect()
    }
}

/// Without line breaks, also written ones: PEM breaks base64 into lines.
fn unbroken(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((first, tail)) = rest.split_first() {
        rest = match (first, tail) {
            (b'\n' | b'\r', _) => tail,
            (b'\\', [b'n' | b'r', tail @ ..]) => tail,
            _ => {
                out.push(*first);
                tail
            }
        };
    }
    out
}

/// Looks for the rarest thing first: the spelling's first byte, then the rest.
fn contains(hay: &[u8], needle: &[u8]) -> bool {
    let Some(first) = needle.first() else { return false };
    let mut rest = hay;
    while let Some(at) = rest.iter().position(|byte| byte == first) {
        if rest[at..].starts_with(needle) {
            return true;
        }
        rest = &rest[at + 1..];
    }
    false
}

/// A process and all that it has started, directly or not.
pub(crate) fn descendants(root: u32) -> Vec<u32> {
    let mut found = vec![root];
    let mut next = 0;
    while let Some(id) = found.get(next).copied() {
        next += 1;
        let tasks = std::fs::read_dir(format!("/proc/{id}/task"))
            .into_iter()
            .flatten()
            .flatten();
        for task in tasks {
            let children = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
            found.extend(
                children
                    .split_whitespace()
                    .filter_map(|child| child.parse::<u32>().ok()),
            );
        }
    }
    found
}

#[test]
fn what_is_hidden_is_found() {
    assert!(contains(b"abcabd", b"abd") && !contains(b"abcab", b"abd"));
    assert_eq!(unbroken(b"ab\ncd\\ne\r\n"), b"abcde");
}
