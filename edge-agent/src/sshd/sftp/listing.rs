//! Directories in pages, each entry with its attributes and a line as `ls -l` prints it: clients show that line.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, Metadata, ReadDir};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use nix::unistd::{Gid, Group, Uid, User};
use russh_sftp::protocol::{File, FileAttributes};
use time::OffsetDateTime;

use super::refusal::Refusal;

/// Entries in one reply: with names of 255 bytes, twice each, well within a packet.
const PAGE: usize = 100;
/// Half a year: up to there the line shows the time of day, beyond the year.
const RECENT: i64 = 182 * 24 * 60 * 60;

/// An open directory.
pub(super) struct Listing {
    directory: PathBuf,
    entries: ReadDir,
    owners: Owners,
}

/// Names of users and groups, looked up once each.
#[derive(Default)]
struct Owners {
    users: BTreeMap<u32, String>,
    groups: BTreeMap<u32, String>,
}

/// Opens a directory.
pub(super) fn open(path: PathBuf) -> Result<Listing, Refusal> {
    let entries = fs::read_dir(&path)?;
    Ok(Listing {
        directory: path,
        entries,
        owners: Owners::default(),
    })
}

/// The next entries; refused as [`Refusal::end`] after the last.
pub(super) fn next_page(listing: &mut Listing) -> Result<Vec<File>, Refusal> {
    let Listing {
        directory,
        entries,
        owners,
    } = listing;
    let now = seconds(SystemTime::now());
    let mut page = Vec::new();
    for entry in entries.take(PAGE) {
        let name = entry?.file_name();
        page.push(describe(directory, &name, owners, now));
    }
    if page.is_empty() { Err(Refusal::end()) } else { Ok(page) }
}

fn describe(directory: &Path, name: &OsStr, owners: &mut Owners, now: i64) -> File {
    let filename = name.to_string_lossy().into_owned();
    match fs::symlink_metadata(directory.join(name)) {
        Ok(metadata) => {
            let longname = line(&filename, &metadata, owners, now);
            File {
                filename,
                longname,
                attrs: attributes(&metadata),
            }
        }
        // It vanished meanwhile, or may not be looked at: the name alone is what there is to say.
        Err(_) => File {
            longname: filename.clone(),
            filename,
            attrs: FileAttributes::default(),
        },
    }
}

/// What the protocol tells about a file. Times end in 2106, as version 3 counts them.
pub(super) fn attributes(metadata: &Metadata) -> FileAttributes {
    let time = |seconds: i64| u32::try_from(seconds.max(0)).unwrap_or(u32::MAX);
    FileAttributes {
        size: Some(metadata.size()),
        uid: Some(metadata.uid()),
        gid: Some(metadata.gid()),
        permissions: Some(metadata.mode()),
        atime: Some(time(metadata.atime())),
        mtime: Some(time(metadata.mtime())),
        user: None,
        group: None,
    }
}

/// One line of `ls -l`, with times in UTC.
fn line(name: &str, metadata: &Metadata, owners: &mut Owners, now: i64) -> String {
    let Owners { users, groups } = owners;
    let user = users.entry(metadata.uid()).or_insert_with_key(|uid| user_name(*uid));
    let group = groups.entry(metadata.gid()).or_insert_with_key(|gid| group_name(*gid));
    format!(
        "{}{} {:>4} {user:<8} {group:<8} {:>8} {} {name}",
        kind(metadata),
        rights(metadata.mode()),
        metadata.nlink(),
        metadata.size(),
        when(metadata.mtime(), now),
    )
}

fn kind(metadata: &Metadata) -> char {
    let kind = metadata.file_type();
    match () {
        () if kind.is_dir() => 'd',
        () if kind.is_symlink() => 'l',
        () if kind.is_char_device() => 'c',
        () if kind.is_block_device() => 'b',
        () if kind.is_fifo() => 'p',
        () if kind.is_socket() => 's',
        () => '-',
    }
}

/// `rwxr-xr-x`, with the letters for set-id and sticky bits in the places of `x`.
fn rights(mode: u32) -> String {
    let mut text = String::with_capacity(9);
    for (shift, special, with, without) in [(6, 0o4000, 's', 'S'), (3, 0o2000, 's', 'S'), (0, 0o1000, 't', 'T')] {
        let bits = mode >> shift;
        text.push(if bits & 4 == 0 { '-' } else { 'r' });
        text.push(if bits & 2 == 0 { '-' } else { 'w' });
        text.push(match (mode & special != 0, bits & 1 != 0) {
            (true, true) => with,
            (true, false) => without,
            (false, true) => 'x',
            (false, false) => '-',
        });
    }
    text
}

fn when(modified: i64, now: i64) -> String {
    let Ok(at) = OffsetDateTime::from_unix_timestamp(modified) else {
        return "?".to_owned();
    };
    let month = at.month().to_string();
    let month = month.get(..3).unwrap_or(&month);
    if (now - RECENT..=now + 60).contains(&modified) {
        format!("{month} {:>2} {:02}:{:02}", at.day(), at.hour(), at.minute())
    } else {
        format!("{month} {:>2} {:>5}", at.day(), at.year())
    }
}

fn seconds(time: SystemTime) -> i64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}

fn user_name(uid: u32) -> String {
    User::from_uid(Uid::from_raw(uid))
        .ok()
        .flatten()
        .map_or_else(|| uid.to_string(), |user| user.name)
}

fn group_name(gid: u32) -> String {
    Group::from_gid(Gid::from_raw(gid))
        .ok()
        .flatten()
        .map_or_else(|| gid.to_string(), |group| group.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_are_written_as_ls_writes_them() {
        for (mode, text) in [
            (0o755, "rwxr-xr-x"),
            (0o4711, "rws--x--x"),
            (0o2640, "rw-r-S---"),
            (0o1777, "rwxrwxrwt"),
            (0o1000, "--------T"),
        ] {
            assert_eq!(rights(mode), text);
        }
    }

    #[test]
    fn recent_times_show_the_hour_and_others_the_year() {
        let now = 1_800_000_000;
        assert_eq!(when(now - 60, now), "Jan 15 07:59");
        assert_eq!(when(now - RECENT - 1, now), "Jul 17  2026");
        assert_eq!(when(now + 3600, now), "Jan 15  2027");
        assert_eq!(when(0, now), "Jan  1  1970");
        assert_eq!(when(i64::MAX, now), "?");
    }
}
