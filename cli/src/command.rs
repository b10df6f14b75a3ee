//! What every command has in common: where it writes, and how it ends.

use std::fmt;
use std::io::{self, ErrorKind, Write};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use fairlead_identity::name::{Label, parse_host};

/// How a command ends when it does not succeed; the number is the process's exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It was tried and did not work.
    Failed = 1,
    /// It was asked for in a way that cannot be meant.
    Usage = 64,
    /// The gateway does not answer.
    Unreachable = 69,
    /// It is not allowed.
    Denied = 77,
    /// A file is wrong.
    BadConfiguration = 78,
}

/// Why a command did not succeed. Prints in words for the person who typed it.
#[derive(Debug)]
pub struct CommandError {
    exit: Exit,
    cause: anyhow::Error,
}

impl CommandError {
    /// An error with its exit code.
    pub fn new(exit: Exit, cause: impl Into<anyhow::Error>) -> Self {
        Self {
            exit,
            cause: cause.into(),
        }
    }

    /// An error that is a text.
    pub fn text(exit: Exit, text: impl fmt::Display) -> Self {
        Self {
            exit,
            cause: anyhow::Error::msg(text.to_string()),
        }
    }

    /// It was tried and did not work.
    pub fn failed(cause: impl Into<anyhow::Error>) -> Self {
        Self::new(Exit::Failed, cause)
    }

    /// It is not allowed.
    pub fn denied(cause: impl Into<anyhow::Error>) -> Self {
        Self::new(Exit::Denied, cause)
    }

    /// What was typed cannot be meant.
    pub fn usage(text: impl fmt::Display) -> Self {
        Self::text(Exit::Usage, text)
    }

    /// How the process ends.
    pub fn exit(&self) -> Exit {
        self.exit
    }

    /// The process's exit code.
    pub fn code(&self) -> u8 {
        self.exit as u8
    }
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#}", self.cause)
    }
}

impl From<anyhow::Error> for CommandError {
    fn from(cause: anyhow::Error) -> Self {
        Self {
            exit: Exit::Failed,
            cause,
        }
    }
}

/// Where a command writes and what it takes from the environment; tests put other things in their place.
pub struct Context {
    out: Mutex<Box<dyn Write + Send>>,
    notes: Mutex<Box<dyn Write + Send>>,
    admin_socket: Option<PathBuf>,
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("admin_socket", &self.admin_socket)
            .finish_non_exhaustive()
    }
}

impl Context {
    /// The process's own: standard output, standard error, `FAIRLEAD_ADMIN_SOCKET`.
    pub fn of_process() -> Self {
        let admin_socket = std::env::var_os("FAIRLEAD_ADMIN_SOCKET").filter(|path| !path.is_empty());
        Self::new(io::stdout(), io::stderr(), admin_socket.map(PathBuf::from))
    }

    /// A context with the given ends. `out` gets results, `notes` gets what is said about them.
    pub fn new(
        out: impl Write + Send + 'static,
        notes: impl Write + Send + 'static,
        admin_socket: Option<PathBuf>,
    ) -> Self {
        Self {
            out: Mutex::new(Box::new(out)),
            notes: Mutex::new(Box::new(notes)),
            admin_socket,
        }
    }

    /// The administration socket named by the environment.
    pub fn admin_socket(&self) -> Option<&PathBuf> {
        self.admin_socket.as_ref()
    }

    /// Writes a result and a line break. A reader that has gone (`| head`) is no error.
    ///
    /// # Errors
    /// The system's, when the text cannot be written.
    pub fn print(&self, text: &str) -> Result<(), CommandError> {
        write_line(&self.out, text)
    }

    /// Writes a remark for the person, apart from the result.
    ///
    /// # Errors
    /// The system's, when the text cannot be written.
    pub fn note(&self, text: &str) -> Result<(), CommandError> {
        write_line(&self.notes, text)
    }
}

fn write_line(end: &Mutex<Box<dyn Write + Send>>, text: &str) -> Result<(), CommandError> {
    let mut end = end.lock().unwrap_or_else(PoisonError::into_inner);
    let written = writeln!(end, "{}", text.trim_end_matches('\n')).and_then(|()| end.flush());
    match written {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(anyhow::Error::new(error).context("the result cannot be written").into())
        }
        _ => Ok(()),
    }
}

/// Reads KEY=VALUE, which sets a label, or KEY-, which takes it away.
///
/// # Errors
/// Anything else, in words for clap.
pub fn label_change(text: &str) -> Result<(String, Option<String>), String> {
    if let Some((key, value)) = text.split_once('=')
        && !key.is_empty()
    {
        return Ok((key.to_owned(), Some(value.to_owned())));
    }
    match text.strip_suffix('-') {
        Some(key) if !key.is_empty() => Ok((key.to_owned(), None)),
        _ => Err("write KEY=VALUE to set, KEY- to take away".to_owned()),
    }
}

/// Reads NAME, NAME.SITE or NAME.SITE.internal into site and name; one label alone means the site `default`.
///
/// # Errors
/// [`Exit::Usage`] for everything else.
pub fn site_and_name(text: &str) -> Result<(Label, Label), CommandError> {
    let (name, site) = parse_host(text, "").map_err(|error| CommandError::new(Exit::Usage, error))?;
    Ok((site, name))
}

/// Reads `KEY=VALUE`, for command lines.
pub(crate) fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write KEY=VALUE, for instance tier=edge".to_owned()),
    }
}

/// Reads a site or another single name, for command lines.
pub(crate) fn label(text: &str) -> Result<Label, String> {
    text.parse()
        .map_err(|error: fairlead_identity::name::NameError| error.to_string())
}
