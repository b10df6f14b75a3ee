//! One session on standard input and output.

use std::fs::OpenOptions;
use std::io;

use bytes::Bytes;
use fairlead_runtime::relay::{Reader, Sink};
use fairlead_runtime::stop::CancellationToken;
use tokio::io::{AsyncWriteExt, Stdout};

use super::carry;
use super::link::Link;
use crate::command::CommandError;

/// Opens the session and carries it to its end.
pub(super) async fn run(link: Link, url: String, stop: CancellationToken) -> Result<(), CommandError> {
    let opened = link.open(&url).await?;
    let (source, sink) = (Reader(tokio::io::stdin()), Output(tokio::io::stdout()));
    carry::carry(opened, source, sink, &stop).await
}

/// Standard output, whose end can be said while standard input is still read.
struct Output(Stdout);

impl Sink for Output {
    async fn send(&mut self, bytes: Bytes) -> io::Result<()> {
        self.0.write_all(&bytes).await?;
        self.0.flush().await
    }

    async fn finish(&mut self) -> io::Result<()> {
        self.0.flush().await?;
        // The reader sees the end when nobody holds the pipe; the descriptor stays valid for whoever prints later.
        let nowhere = OpenOptions::new().write(true).open("/dev/null")?;
        nix::unistd::dup2_stdout(nowhere).map_err(io::Error::from)
    }
}
