//! The sftp subsystem (draft-ietf-secsh-filexfer-02, version 3, with OpenSSH's extensions), served in this process as the
//! agent's own user, or in one of its own as another ([`stdio`]): rooted nowhere, because a shell would not be either; the operating system says what may be touched.
//!
//! russh-sftp gives the packets; the loop around them is ours, because requests must be framed within a limit, replies must
//! wait for the client's window, and the end must be the channel's. Requests are answered one after the other, each on a
//! thread where files may block.
//!
//! Names which are not UTF-8 cannot be expressed in russh-sftp's packets: they are listed with replacement characters and
//! cannot be opened. Use a command (`tar`) for those. Changing owners is not offered.

mod extensions;
mod files;
mod handles;
mod listing;
mod refusal;
mod stdio;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use bytes::{Buf, Bytes, BytesMut};
use fairlead_runtime::tasks::TaskGroup;
use russh_sftp::protocol::{
    Attrs, Data, File, FileAttributes, Handle, Name, Packet, Status, StatusCode, VERSION, Version,
};

use super::channels::Ending;
use super::outlet::{Closed, Exit, Outlet};
use fairlead_runtime::channel::Intake;
use handles::Handles;
use listing::attributes;
use refusal::Refusal;
pub use stdio::serve_stdio;

/// Longest request, in bytes without its length.
const MAX_REQUEST: usize = 256 * 1024;
/// Most data in one read or write: what fits into such a packet, as OpenSSH counts it.
const MAX_DATA: u32 = 255 * 1024;
/// Files and directories open at once on one channel.
const MAX_HANDLES: usize = 256;
/// Longest path, in bytes (Linux's own limit).
const MAX_PATH: usize = 4096;

/// Serves one channel until the client closes it, breaks the protocol, or `ending`.
pub(super) async fn run(intake: &Intake, outlet: Outlet, ending: &Ending, home: PathBuf, blocking: TaskGroup) {
    let exit = tokio::select! {
        biased; // a channel that has ended needs no more answers
        reason = ending.ended() => Err(reason),
        exit = serve(intake, &outlet, home, &blocking) => exit.map_err(|Closed| None),
    };
    outlet.conclude(exit, ending).await;
}

async fn serve(intake: &Intake, outlet: &Outlet, home: PathBuf, blocking: &TaskGroup) -> Result<Exit, Closed> {
    let mut requests = Requests {
        intake,
        gathered: BytesMut::new(),
    };
    let mut service = Service::at(home);
    loop {
        let request = match requests.next().await {
            Ok(Some(request)) => request,
            Ok(None) => return Ok(Exit::Status(0)),
            Err(Unframed(text)) => {
                outlet.stderr(Bytes::from_static(text.as_bytes())).await?;
                return Ok(Exit::Status(1));
            }
        };
        // The service goes to the thread and comes back with the answer.
        let work = move || {
            let reply = Bytes::try_from(service.answer(request));
            (service, reply)
        };
        let reply = match blocking.blocking("sftp request", work).await {
            Ok((same, Ok(reply))) => {
                service = same;
                reply
            }
            Ok((_, Err(error))) => {
                tracing::warn!(%error, "an sftp reply could not be written down");
                return Ok(Exit::Status(1));
            }
            Err(error) => {
                tracing::warn!(%error, "an sftp session was lost");
                return Ok(Exit::Status(1));
            }
        };
        outlet.data(reply).await?;
    }
}

/// Cuts what the client sends into requests.
struct Requests<'a> {
    intake: &'a Intake,
    gathered: BytesMut,
}

/// What comes is no sftp, or not within our limits.
struct Unframed(&'static str);

impl Requests<'_> {
    /// The next request, from its type on; `None` after the last.
    async fn next(&mut self) -> Result<Option<Bytes>, Unframed> {
        loop {
            if let Some(request) = cut(&mut self.gathered)? {
                return Ok(Some(request));
            }
            match self.intake.take().await {
                Some(piece) => self.gathered.extend_from_slice(&piece),
                None if self.gathered.is_empty() => return Ok(None),
                None => return Err(HALF),
            }
        }
    }
}

/// What is left when the client's stream ends is no whole request.
const HALF: Unframed = Unframed("fairlead: the sftp stream ended within a packet\r\n");

/// Takes the first request out of what was gathered, from its type on; `None` while it is not whole.
fn cut(gathered: &mut BytesMut) -> Result<Option<Bytes>, Unframed> {
    let Some(mut head) = gathered.get(..4) else {
        return Ok(None);
    };
    let length = head.get_u32() as usize;
    // The length is judged before anything is kept for it.
    if length > MAX_REQUEST {
        return Err(Unframed("fairlead: an sftp packet is longer than 256 KiB\r\n"));
    }
    if gathered.len() < 4 + length {
        return Ok(None);
    }
    gathered.advance(4);
    Ok(Some(gathered.split_to(length).freeze()))
}

/// One client's sftp session.
struct Service {
    home: PathBuf,
    handles: Handles,
    greeted: bool,
}

impl Service {
    fn at(home: PathBuf) -> Self {
        Self {
            home,
            handles: Handles::default(),
            greeted: false,
        }
    }

    /// Answers one request; every request gets exactly one answer.
    fn answer(&mut self, mut request: Bytes) -> Packet {
        let (kind, id) = peek(&request);
        let reply = match Packet::try_from(&mut request) {
            Ok(packet) => self.perform(packet),
            // Numbers that version 3 does not know end up here as well as malformed requests.
            Err(_) if is_request(kind) => Err(Refusal::new(StatusCode::BadMessage, "the request is malformed")),
            Err(_) => Err(Refusal::unsupported("this request")),
        };
        reply.unwrap_or_else(|refusal| refusal.reply(id))
    }

    fn perform(&mut self, packet: Packet) -> Result<Packet, Refusal> {
        let id = packet.get_request_id();
        if !self.greeted && !matches!(packet, Packet::Init(_)) {
            return Err(Refusal::new(StatusCode::BadMessage, "sftp starts with a version"));
        }
        match packet {
            Packet::Init(_) => {
                self.greeted = true;
                Ok(greeting())
            }
            Packet::Open(open) => {
                let path = self.path(&open.filename)?;
                self.handles.check_room()?;
                let file = files::open(&path, open.pflags, &open.attrs)?;
                Ok(Packet::Handle(Handle {
                    id,
                    handle: self.handles.add_file(file)?,
                }))
            }
            Packet::OpenDir(open) => {
                let path = self.path(&open.path)?;
                self.handles.check_room()?;
                let listing = listing::open(path)?;
                Ok(Packet::Handle(Handle {
                    id,
                    handle: self.handles.add_listing(listing)?,
                }))
            }
            Packet::Close(close) => done(id, self.handles.close(&close.handle)),
            Packet::Read(read) => {
                let data = files::read(self.handles.file(&read.handle)?, read.offset, read.len.min(MAX_DATA))?;
                Ok(Packet::Data(Data { id, data }))
            }
            Packet::Write(write) => done(
                id,
                files::write(self.handles.file(&write.handle)?, write.offset, &write.data),
            ),
            Packet::ReadDir(read) => {
                let files = listing::next_page(self.handles.listing(&read.handle)?)?;
                Ok(Packet::Name(Name { id, files }))
            }
            Packet::Stat(stat) => Ok(attrs(id, files::stat(&self.path(&stat.path)?)?)),
            Packet::Lstat(stat) => Ok(attrs(id, files::lstat(&self.path(&stat.path)?)?)),
            Packet::Fstat(stat) => Ok(attrs(id, files::fstat(self.handles.file(&stat.handle)?)?)),
            Packet::SetStat(set) => done(id, files::set(&self.path(&set.path)?, &set.attrs)),
            Packet::FSetStat(set) => done(id, files::fset(self.handles.file(&set.handle)?, &set.attrs)),
            Packet::MkDir(make) => done(id, files::make_directory(&self.path(&make.path)?, &make.attrs)),
            Packet::RmDir(remove) => done(id, files::remove_directory(&self.path(&remove.path)?)),
            Packet::Remove(remove) => done(id, files::remove(&self.path(&remove.filename)?)),
            Packet::Rename(rename) => done(
                id,
                files::rename(&self.path(&rename.oldpath)?, &self.path(&rename.newpath)?),
            ),
            // OpenSSH's order, which every client follows: the link's content first, then where the link goes.
            Packet::Symlink(link) => {
                bounded(&link.linkpath)?;
                done(
                    id,
                    files::symlink(Path::new(&link.linkpath), &self.path(&link.targetpath)?),
                )
            }
            Packet::ReadLink(link) => Ok(name(id, &files::read_link(&self.path(&link.path)?)?)),
            Packet::RealPath(real) => Ok(name(id, &files::real_path(&self.path(&real.path)?)?)),
            Packet::Extended(extended) => extensions::perform(self, id, &extended.request, extended.data.into()),
            _ => Err(Refusal::unsupported("this packet")),
        }
    }

    /// A path as the client means it: relative ones start at home.
    fn path(&self, path: &str) -> Result<PathBuf, Refusal> {
        bounded(path)?;
        Ok(if path.is_empty() {
            self.home.clone()
        } else {
            self.home.join(path)
        })
    }
}

fn bounded(path: &str) -> Result<(), Refusal> {
    if path.len() > MAX_PATH {
        return Err(Refusal::new(StatusCode::Failure, "the path is longer than 4096 bytes"));
    }
    Ok(())
}

fn greeting() -> Packet {
    let extensions = extensions::OFFERED
        .iter()
        .map(|(name, version)| ((*name).to_owned(), (*version).to_owned()));
    Packet::Version(Version {
        version: VERSION,
        extensions: extensions.collect::<HashMap<_, _>>(),
    })
}

fn done(id: u32, result: Result<(), Refusal>) -> Result<Packet, Refusal> {
    result.map(|()| {
        Packet::Status(Status {
            id,
            status_code: StatusCode::Ok,
            error_message: "Success".to_owned(),
            language_tag: String::new(),
        })
    })
}

fn attrs(id: u32, metadata: std::fs::Metadata) -> Packet {
    Packet::Attrs(Attrs {
        id,
        attrs: attributes(&metadata),
    })
}

/// A single name without attributes, as `realpath` and its like answer.
fn name(id: u32, path: &Path) -> Packet {
    let text = path.to_string_lossy().into_owned();
    let file = File {
        filename: text.clone(),
        longname: text,
        attrs: FileAttributes::default(),
    };
    Packet::Name(Name { id, files: vec![file] })
}

/// A request's type and number, for an answer even where the rest is unreadable.
fn peek(mut request: &[u8]) -> (u8, u32) {
    let kind = request.try_get_u8().unwrap_or_default();
    (kind, request.try_get_u32().unwrap_or_default())
}

/// Whether version 3 knows a request by this number.
fn is_request(kind: u8) -> bool {
    matches!(kind, 1 | 3..=20 | 200)
}
