//! What a file says was begun and never ended, because the process died in between.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use super::{MAX_LINE, Record};

/// How far back is looked, in bytes: some 100,000 sessions. What began before that stays without its end.
const LOOK_BACK: u64 = 64 * 1024 * 1024;
/// Sessions that may be without an end, at most.
const MOST: usize = 100_000;
/// Cheap to look for: a line without it is not parsed.
const OF_A_SESSION: &[u8] = b"\"event\":\"session.";

/// The records of sessions with an event `began` that have no event `ended`, by session, in the order of the file.
///
/// # Errors
/// The operating system's, of reading. Lines that are no records are passed over: whether the file is whole is asked of
/// [`super::verify`].
pub fn unended(path: &Path, began: &str, ended: &str) -> io::Result<Vec<Record>> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let skipped = length.saturating_sub(LOOK_BACK);
    file.seek(SeekFrom::Start(skipped))?;
    let mut reader = BufReader::with_capacity(MAX_LINE, file);
    let mut line = Vec::new();
    if skipped > 0 {
        // The rest of a line whose beginning is not read.
        next_line(&mut reader, &mut line)?;
    }
    let mut open = BTreeMap::new();
    let mut number = 0_u64;
    while next_line(&mut reader, &mut line)? {
        number = number.saturating_add(1);
        if !line.windows(OF_A_SESSION.len()).any(|bytes| bytes == OF_A_SESSION) {
            continue;
        }
        let Ok(record) = serde_json::from_slice::<Record>(&line) else {
            continue;
        };
        let Some(session) = record.session.clone() else {
            continue;
        };
        if record.event == ended {
            open.remove(&session);
        } else if record.event == began && open.len() < MOST {
            open.insert(session, (number, record));
        }
    }
    let mut left: Vec<_> = open.into_values().collect();
    left.sort_by_key(|(number, _)| *number);
    Ok(left.into_iter().map(|(_, record)| record).collect())
}

/// Reads a line, of a longer one its first [`MAX_LINE`] bytes at a time; false at the end.
fn next_line(reader: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    let most = u64::try_from(MAX_LINE).unwrap_or(u64::MAX);
    Ok(reader.by_ref().take(most).read_until(b'\n', line)? > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::AuditLog;

    fn of(event: &'static str, session: &str) -> Record {
        let mut record = Record::new(event);
        record.session = Some(session.to_owned());
        record.caller = Some("alice".to_owned());
        record
    }

    #[test]
    fn what_began_and_never_ended_is_found_in_its_order() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.jsonl");
        let log = AuditLog::open(&path, "gw").unwrap();
        for (event, session) in [
            ("session.permit", "b"),
            ("session.permit", "a"),
            ("session.refuse", "r"),
            ("session.permit", "c"),
            ("session.end", "a"),
        ] {
            log.append(&of(event, session)).unwrap();
        }
        log.append(&Record::new("link.up")).unwrap();
        let left = unended(&path, "session.permit", "session.end").unwrap();
        assert_eq!(left, [of("session.permit", "b"), of("session.permit", "c")]);
    }
}
