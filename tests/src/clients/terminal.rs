//! A program on a terminal of its own, with somebody who types.

use std::ffi::OsStr;
use std::time::Duration;

use pty_process::{OwnedReadPty, OwnedWritePty, Size};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Child;
use tokio::time::timeout;

use super::RUN_LIMIT;

/// Time for the program to end once its terminal has nothing more to say.
const END_LIMIT: Duration = Duration::from_secs(30);

/// A program with a terminal.
pub struct Terminal {
    child: Child,
    read: OwnedReadPty,
    write: OwnedWritePty,
    seen: String,
}

impl Terminal {
    /// Starts a program on a terminal of this size.
    pub fn start<S: AsRef<OsStr>>(
        program: &str,
        arguments: impl IntoIterator<Item = S>,
        rows: u16,
        columns: u16,
    ) -> Self {
        let (pty, pts) = pty_process::open().expect("a terminal");
        pty.resize(Size::new(rows, columns)).expect("its size");
        let command = pty_process::Command::new(program)
            .args(arguments)
            .env("TERM", "xterm")
            .env("LC_ALL", "C");
        let command = command.env_remove("SSH_AUTH_SOCK").kill_on_drop(true);
        let child = command
            .spawn(pts)
            .unwrap_or_else(|error| panic!("cannot run {program}: {error}"));
        let (read, write) = pty.into_split();
        Self {
            child,
            read,
            write,
            seen: String::new(),
        }
    }

    /// Reads until the terminal has shown `text`.
    pub async fn shows(&mut self, text: &str) {
        while !self.seen.contains(text) {
            assert!(
                self.read_some().await,
                "the program ended without {text:?}: {}",
                self.seen
            );
        }
    }

    /// Types.
    pub async fn types(&mut self, text: &str) {
        self.write
            .write_all(text.as_bytes())
            .await
            .expect("the terminal takes input");
    }

    /// Gives the terminal another size.
    pub fn resize(&self, rows: u16, columns: u16) {
        self.write
            .resize(Size::new(rows, columns))
            .expect("the terminal takes a size");
    }

    /// Waits for the program's end: its exit code and everything that was shown.
    pub async fn finish(mut self) -> (Option<i32>, String) {
        while self.read_some().await {}
        let status = timeout(END_LIMIT, self.child.wait())
            .await
            .expect("the program ends")
            .expect("its status");
        (status.code(), self.seen)
    }

    /// False at the end: a terminal whose program has gone fails to read (EIO on Linux).
    async fn read_some(&mut self) -> bool {
        let mut bytes = [0; 4096];
        let read = timeout(RUN_LIMIT, self.read.read(&mut bytes)).await;
        let read = read
            .unwrap_or_else(|_| panic!("the terminal says nothing more: {}", self.seen))
            .unwrap_or(0);
        self.seen.push_str(&String::from_utf8_lossy(&bytes[..read]));
        read > 0
    }
}
