//! Asks a running agent, from a program that does nothing else meanwhile.

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::api::{Answer, Question};

/// An agent that does not answer by then is stuck.
const ANSWER_LIMIT: Duration = Duration::from_secs(15);
/// Largest answer: a thousand sessions are a fraction of it.
const MAX_ANSWER: u64 = 4 * 1024 * 1024;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody listens there.
    #[error("no agent answers on {}: {source}; is it running, and is `control_socket` the same in its file?", path.display())]
    NotRunning {
        /// The socket.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The socket may not be opened, or the agent does not answer this user.
    #[error("the agent on {} answers root and its own user only", path.display())]
    NotPermitted {
        /// The socket.
        path: PathBuf,
    },
    /// What came is no answer.
    #[error("the agent on {} gave no usable answer: {why}", path.display())]
    NoAnswer {
        /// The socket.
        path: PathBuf,
        /// What was wrong.
        why: String,
    },
}

/// Asks the agent that listens at `socket`.
///
/// # Errors
/// [`AskError`]. An agent's own refusal is an [`Answer`].
pub fn ask(socket: &Path, question: &Question) -> Result<Answer, AskError> {
    let path = || socket.to_owned();
    let stream = UnixStream::connect(socket).map_err(|source| match source.kind() {
        ErrorKind::PermissionDenied => AskError::NotPermitted { path: path() },
        _ => AskError::NotRunning { path: path(), source },
    })?;
    let answer = exchange(stream, question).map_err(|error| AskError::NoAnswer {
        path: path(),
        why: error.to_string(),
    })?;
    if answer.is_empty() {
        // It hangs up on strangers without a word.
        return Err(AskError::NotPermitted { path: path() });
    }
    serde_json::from_slice(&answer).map_err(|error| AskError::NoAnswer {
        path: path(),
        why: error.to_string(),
    })
}

fn exchange(mut stream: UnixStream, question: &Question) -> io::Result<Vec<u8>> {
    stream.set_read_timeout(Some(ANSWER_LIMIT))?;
    stream.set_write_timeout(Some(ANSWER_LIMIT))?;
    let mut line = serde_json::to_vec(question)?;
    line.push(b'\n');
    match stream.write_all(&line) {
        // Hung up on already; what it has said is read all the same.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
        other => other?,
    }
    let mut answer = Vec::new();
    match stream.take(MAX_ANSWER).read_to_end(&mut answer) {
        Err(error) if error.kind() != ErrorKind::ConnectionReset => Err(error),
        _ => Ok(answer),
    }
}
