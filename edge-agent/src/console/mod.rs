//! What people type at an agent's machine: questions about the file alone (`explain`, `scope`) and to the running agent
//! (`status`, `sessions`, `cut`, `pause`, `resume`).
//!
//! Each gives a text and an exit code; printing belongs to `main`.

mod explain;
mod live;
mod scope;

use std::path::Path;
use std::time::SystemTime;

use clap::Subcommand;
use fairlead_runtime::config_file::Mistake;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::config::{self, Config};
use crate::control::{self, Answer, AskError, Question, StatusShown};

pub use explain::Explain;

/// The questions and orders.
#[derive(Debug, Subcommand)]
pub enum Console {
    /// Says whether the file permits a caller an endpoint, and which rule decides.
    Explain(Box<Explain>),
    /// Lists everything that the file makes reachable, for an auditor.
    Scope {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// How the running agent stands: its link, its file, its pause.
    Status {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// The sessions that live now.
    Sessions {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Ends a session.
    Cut {
        /// Its id, as `sessions` lists it.
        session: String,
    },
    /// Refuses all sessions and ends those that live, until `resume`, also over restarts of the agent.
    Pause,
    /// Ends a pause.
    Resume,
}

/// What is printed, and how the program ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// For standard output.
    pub text: String,
    /// For standard error; empty when there is nothing to add.
    pub note: String,
    /// The exit code.
    pub code: u8,
}

impl Shown {
    fn good(text: String) -> Self {
        Self {
            text,
            note: String::new(),
            code: 0,
        }
    }

    fn failed(note: impl Into<String>, code: u8) -> Self {
        Self {
            text: String::new(),
            note: note.into(),
            code,
        }
    }
}

impl Console {
    /// Carries it out. Waits for files and for the agent's answer.
    pub fn run(self, file: &Path) -> Shown {
        let config = match config::look(file) {
            Ok(config) => config,
            Err(mistakes) => return bad_file(&mistakes),
        };
        match self {
            Self::Explain(question) => question.answer(config, SystemTime::now()),
            Self::Scope { json } => scope::show(&config, json),
            Self::Status { json } => live::status(&config, json),
            Self::Sessions { json } => live::sessions(&config, json),
            Self::Cut { session } => live::order(&config, &Question::Cut { session }),
            Self::Pause => live::order(&config, &Question::Pause),
            Self::Resume => live::order(&config, &Question::Resume),
        }
    }
}

fn bad_file(mistakes: &[Mistake]) -> Shown {
    let told: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
    Shown::failed(told.join("\n"), 78)
}

/// What the running agent says of itself; the reason where there is none to ask.
fn running(config: &Config) -> Result<StatusShown, String> {
    match control::ask(&config.control_socket.path, &Question::Status) {
        Ok(Answer::Status(status)) => Ok(*status),
        Ok(_) => Err("the running agent gave another answer".into()),
        Err(AskError::NotRunning { .. }) => Err("no agent is running".into()),
        Err(error) => Err(error.to_string()),
    }
}

/// One line on whether the running agent has this file in force.
fn in_force(config: &Config) -> String {
    match running(config) {
        Ok(status) if status.sha256 != config.digest => format!(
            "the running agent has ANOTHER file in force (sha256 {}): reload it with SIGHUP, or restart it",
            status.sha256
        ),
        Ok(status) if status.paused.is_some() => "in force in the running agent, which is paused".into(),
        Ok(_) => "in force in the running agent".into(),
        Err(why) => format!("not compared with a running agent: {why}"),
    }
}

fn moment(seconds: u64) -> String {
    let at = i64::try_from(seconds)
        .ok()
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok());
    at.and_then(|at| at.format(&Rfc3339).ok()).unwrap_or_default()
}
