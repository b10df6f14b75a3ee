//! OpenSSH's extensions of the protocol (its file PROTOCOL, section 4) that clients profit from.

use std::path::PathBuf;

use bytes::Bytes;
use nix::sys::statvfs::{FsFlags, Statvfs as Measured, fstatvfs, statvfs};
use nix::unistd::User;
use russh_sftp::extensions::{
    ExpandPathExtension, FsyncExtension, HardlinkExtension, LimitsExtension, Statvfs, StatvfsExtension,
};
use russh_sftp::protocol::{ExtendedReply, FileAttributes, Packet, StatusCode};
use russh_sftp::{de, ser};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::files;
use super::refusal::Refusal;
use super::{MAX_DATA, MAX_HANDLES, MAX_REQUEST, Service, done, name};

/// What the greeting offers, each with its version.
pub(super) const OFFERED: &[(&str, &str)] = &[
    ("posix-rename@openssh.com", "1"),
    ("hardlink@openssh.com", "1"),
    ("fsync@openssh.com", "1"),
    ("lsetstat@openssh.com", "1"),
    ("statvfs@openssh.com", "2"),
    ("fstatvfs@openssh.com", "2"),
    ("limits@openssh.com", "1"),
    ("expand-path@openssh.com", "1"),
];

#[derive(Deserialize)]
struct LinkAttributes {
    path: String,
    attrs: FileAttributes,
}

/// Answers an extended request.
pub(super) fn perform(service: &Service, id: u32, request: &str, data: Bytes) -> Result<Packet, Refusal> {
    match request {
        "posix-rename@openssh.com" => {
            let HardlinkExtension { oldpath, newpath } = parse(data)?;
            done(id, files::replace(&service.path(&oldpath)?, &service.path(&newpath)?))
        }
        "hardlink@openssh.com" => {
            let HardlinkExtension { oldpath, newpath } = parse(data)?;
            done(id, files::hard_link(&service.path(&oldpath)?, &service.path(&newpath)?))
        }
        "fsync@openssh.com" => {
            let FsyncExtension { handle } = parse(data)?;
            done(id, files::sync(service.handles.file(&handle)?))
        }
        "lsetstat@openssh.com" => {
            let LinkAttributes { path, attrs } = parse(data)?;
            done(id, files::set_link(&service.path(&path)?, &attrs))
        }
        "statvfs@openssh.com" => {
            let path = service.path(&parse::<StatvfsExtension>(data)?.path)?;
            reply(id, &space(&statvfs(&path)?))
        }
        "fstatvfs@openssh.com" => {
            let file = service.handles.file(&parse::<FsyncExtension>(data)?.handle)?;
            reply(id, &space(&fstatvfs(file)?))
        }
        "limits@openssh.com" => reply(
            id,
            &LimitsExtension {
                max_packet_len: MAX_REQUEST as u64,
                max_read_len: MAX_DATA.into(),
                max_write_len: MAX_DATA.into(),
                max_open_handles: MAX_HANDLES as u64,
            },
        ),
        "expand-path@openssh.com" => {
            let path = expand(service, &parse::<ExpandPathExtension>(data)?.path)?;
            Ok(name(id, &files::real_path(&path)?))
        }
        _ => Err(Refusal::unsupported("this extension")),
    }
}

/// A path with `~` or `~user` at its start, as a shell reads it.
fn expand(service: &Service, path: &str) -> Result<PathBuf, Refusal> {
    let plain = service.path(path)?;
    let Some(rest) = path.strip_prefix('~') else {
        return Ok(plain);
    };
    let (user, rest) = rest.split_once('/').unwrap_or((rest, ""));
    if user.is_empty() {
        return Ok(service.home.join(rest));
    }
    match User::from_name(user)? {
        Some(user) => Ok(user.dir.join(rest)),
        None => Err(Refusal::new(StatusCode::NoSuchFile, "no such user")),
    }
}

#[allow(clippy::useless_conversion, reason = "the numbers are narrower on 32-bit machines")]
fn space(measured: &Measured) -> Statvfs {
    let flags = measured.flags();
    Statvfs {
        block_size: measured.block_size().into(),
        fragment_size: measured.fragment_size().into(),
        blocks: measured.blocks().into(),
        blocks_free: measured.blocks_free().into(),
        blocks_avail: measured.blocks_available().into(),
        inodes: measured.files().into(),
        inodes_free: measured.files_free().into(),
        inodes_avail: measured.files_available().into(),
        fs_id: measured.filesystem_id().into(),
        flags: u64::from(flags.contains(FsFlags::ST_RDONLY)) | u64::from(flags.contains(FsFlags::ST_NOSUID)) << 1,
        name_max: measured.name_max().into(),
    }
}

fn parse<T: DeserializeOwned>(mut data: Bytes) -> Result<T, Refusal> {
    de::from_bytes(&mut data).map_err(|_| Refusal::new(StatusCode::BadMessage, "the request is malformed"))
}

fn reply(id: u32, content: &impl Serialize) -> Result<Packet, Refusal> {
    match ser::to_bytes(content) {
        Ok(data) => Ok(Packet::ExtendedReply(ExtendedReply {
            id,
            data: data.to_vec(),
        })),
        Err(_) => Err(Refusal::new(StatusCode::Failure, "the reply could not be written down")),
    }
}
