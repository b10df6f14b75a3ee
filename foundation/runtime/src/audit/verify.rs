//! Reads an audit file and finds the first place where its chain does not hold.

use std::fmt;
use std::io::{self, BufRead, Read};

use serde::Deserialize;

use super::{Head, MAX_LINE, NO_PREVIOUS, VERSION, hash};

/// A file whose chain holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// How many records.
    pub count: u64,
    /// The first record's number; above 1 where an older file came before (log rotation).
    pub first_seq: u64,
    /// The hash the first record holds of its predecessor; [`NO_PREVIOUS`] where there is none.
    pub first_prev: String,
    /// The last record, to be compared with a checkpoint: the chain alone cannot tell that its end is missing.
    pub head: Head,
}

/// The first place where the chain does not hold.
#[derive(Debug)]
pub struct FirstBad {
    /// The line in the file, from 1.
    pub line: u64,
    /// The record's number, as the chain counts.
    pub seq: Option<u64>,
    /// What is wrong there.
    pub why: BadLine,
}

/// What is wrong with a line.
#[derive(Debug)]
pub enum BadLine {
    /// It was changed: its successor holds another hash. Or the successor was changed.
    Altered,
    /// Another number was due: records were removed, added or exchanged.
    OutOfOrder {
        /// The number the line has.
        found: u64,
    },
    /// It is not an audit record of a version this program knows.
    NotARecord,
    /// It does not end with a line break.
    Torn,
    /// It is longer than a line may be.
    TooLong,
    /// It cannot be read.
    Unreadable(io::Error),
    /// A record that was there once is not in the file, or is another one.
    Gone,
}

impl fmt::Display for FirstBad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}", self.line)?;
        if let Some(seq) = self.seq {
            write!(f, " (record {seq})")?;
        }
        match &self.why {
            BadLine::Altered => write!(f, " was changed after it was written, or the one after it was"),
            BadLine::OutOfOrder { found } => {
                write!(f, " has the number {found}: records were removed, added or exchanged")
            }
            BadLine::NotARecord => write!(f, " is not an audit record"),
            BadLine::Torn => write!(f, " ends in the middle"),
            BadLine::TooLong => write!(f, " is longer than {MAX_LINE} bytes"),
            BadLine::Unreadable(error) => write!(f, " cannot be read: {error}"),
            BadLine::Gone => write!(
                f,
                " is not the record that an earlier check saw: the file was cut off or replaced"
            ),
        }
    }
}

impl std::error::Error for FirstBad {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.why {
            BadLine::Unreadable(error) => Some(error),
            _ => None,
        }
    }
}

/// The fields that make the chain.
#[derive(Deserialize)]
pub(super) struct Link {
    v: u32,
    pub(super) seq: u64,
    prev: String,
}

/// Reads one line (without its break) as a link of the chain.
pub(super) fn link(line: &[u8]) -> Option<Link> {
    serde_json::from_slice(line)
        .ok()
        .filter(|link: &Link| link.v == VERSION)
}

/// Verifies a whole file; memory is bounded by one line. An empty file verifies, with no records.
///
/// # Errors
/// [`FirstBad`].
pub fn verify(reader: impl Read) -> Result<Verified, FirstBad> {
    walk(reader, None)
}

/// Verifies a whole file, and that it still holds what an earlier check saw as its last record (kept elsewhere): the chain
/// alone cannot tell that its end is missing.
///
/// # Errors
/// [`FirstBad`].
pub fn verify_since(reader: impl Read, seen: &Head) -> Result<Verified, FirstBad> {
    walk(reader, Some(seen))
}

fn walk(reader: impl Read, seen: Option<&Head>) -> Result<Verified, FirstBad> {
    let mut reader = io::BufReader::new(reader);
    let mut met = seen.is_none_or(|seen| seen.seq == 0);
    let mut bytes = Vec::new();
    let mut verified = Verified {
        count: 0,
        first_seq: 1,
        first_prev: NO_PREVIOUS.to_owned(),
        head: Head {
            seq: 0,
            hash: NO_PREVIOUS.to_owned(),
        },
    };
    loop {
        let line = verified.count.saturating_add(1);
        let due = (verified.count > 0).then(|| verified.head.seq.saturating_add(1));
        let bad = |why| FirstBad { line, seq: due, why };
        if !next_line(&mut reader, &mut bytes).map_err(bad)? {
            return if met { Ok(verified) } else { Err(gone(line, seen)) };
        }
        let link = link(&bytes).ok_or_else(|| bad(BadLine::NotARecord))?;
        match due {
            None => {
                verified.first_seq = link.seq;
                verified.first_prev.clone_from(&link.prev);
                if link.seq == 1 && link.prev != NO_PREVIOUS {
                    return Err(FirstBad {
                        line,
                        seq: Some(1),
                        why: BadLine::Altered,
                    });
                }
            }
            Some(due) if link.seq != due => return Err(bad(BadLine::OutOfOrder { found: link.seq })),
            Some(_) if link.prev != verified.head.hash => {
                let before = FirstBad {
                    line: verified.count,
                    seq: Some(verified.head.seq),
                    why: BadLine::Altered,
                };
                return Err(before);
            }
            Some(_) => {}
        }
        verified.count = line;
        verified.head = Head {
            seq: link.seq,
            hash: hash(&bytes),
        };
        if let Some(seen) = seen {
            // Where an older file came before, the first line holds the hash of what was seen there.
            let before = line == 1 && link.seq == seen.seq.saturating_add(1) && link.prev == seen.hash;
            met |= before || verified.head == *seen;
            if link.seq == seen.seq && !met {
                return Err(gone(line, Some(seen)));
            }
        }
    }
}

fn gone(line: u64, seen: Option<&Head>) -> FirstBad {
    FirstBad {
        line,
        seq: seen.map(|seen| seen.seq),
        why: BadLine::Gone,
    }
}

/// Reads a line without its break; false at the end of the file.
fn next_line(reader: &mut impl BufRead, bytes: &mut Vec<u8>) -> Result<bool, BadLine> {
    bytes.clear();
    let limit = u64::try_from(MAX_LINE).unwrap_or(u64::MAX);
    let read = reader
        .by_ref()
        .take(limit)
        .read_until(b'\n', bytes)
        .map_err(BadLine::Unreadable)?;
    match bytes.pop() {
        None => Ok(false),
        Some(b'\n') => Ok(true),
        Some(_) if read == MAX_LINE => Err(BadLine::TooLong),
        Some(_) => Err(BadLine::Torn),
    }
}
