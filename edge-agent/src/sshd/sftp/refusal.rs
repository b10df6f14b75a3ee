//! Why a request is not done, in the protocol's few codes and in words.

use std::io;

use russh_sftp::protocol::{Packet, StatusCode};

/// A refusal of one request.
#[derive(Debug)]
pub(super) struct Refusal {
    code: StatusCode,
    text: String,
}

impl Refusal {
    pub(super) fn new(code: StatusCode, text: &str) -> Self {
        Self {
            code,
            text: text.to_owned(),
        }
    }

    pub(super) fn unsupported(what: &str) -> Self {
        Self::new(StatusCode::OpUnsupported, &format!("{what} is not supported"))
    }

    /// Nothing more to read.
    pub(super) fn end() -> Self {
        Self::new(StatusCode::Eof, "End of file")
    }

    pub(super) fn reply(&self, id: u32) -> Packet {
        Packet::status(id, self.code, &self.text, "")
    }
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        use io::ErrorKind::{NotADirectory, NotFound, PermissionDenied, Unsupported};
        let code = match error.kind() {
            NotFound | NotADirectory => StatusCode::NoSuchFile,
            PermissionDenied => StatusCode::PermissionDenied,
            Unsupported => StatusCode::OpUnsupported,
            _ => StatusCode::Failure,
        };
        Self {
            code,
            text: error.to_string(),
        }
    }
}

impl From<nix::Error> for Refusal {
    fn from(error: nix::Error) -> Self {
        io::Error::from(error).into()
    }
}
