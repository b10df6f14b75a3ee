//! `fairlead-gateway ca` as people type it and read it.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::SystemTime;

use anyhow::Context;
use clap::{Args, Subcommand};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::book::State;
use super::command::{self, Plan, Prepared, Status, Stranded};
use crate::config::Config;
use crate::store::WaitingToken;

/// Most names of one list that are printed; the count says how many there are.
const MAX_NAMES: usize = 200;

/// Arguments of `fairlead-gateway ca`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  fairlead-gateway ca status
  fairlead-gateway ca issue --root-key-file /media/usb/root-1.key.pem
  fairlead-gateway ca issue --root
  fairlead-gateway ca rotate --dry-run

Run it as the user who runs the gateway. A gateway that runs takes the change up at once; no link and no session is cut.")]
pub struct Ca {
    #[command(subcommand)]
    act: Act,
}

#[derive(Subcommand, Debug)]
enum Act {
    /// Lists roots and issuing authorities, and how many certificates that are good now each has signed.
    Status {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Prepares the next issuing authority; `rotate` puts it in force.
    Issue {
        /// Under a new root, which agents learn over their links before it is used.
        #[arg(long)]
        root: bool,
        /// The root's private key where it is kept elsewhere: read from there, with --root written there.
        #[arg(long)]
        root_key_file: Option<PathBuf>,
    },
    /// Puts the next issuing authority in force. Refuses when agents or join strings would be left behind.
    Rotate {
        /// Only says what would happen.
        #[arg(long)]
        dry_run: bool,
        /// Leaves behind whoever would be.
        #[arg(long)]
        force: bool,
    },
}

/// What a command came to: what to print, and whether it did what was asked.
#[derive(Debug)]
pub struct Outcome {
    /// For standard output.
    pub text: String,
    /// False when it refused.
    pub is_done: bool,
}

impl Outcome {
    fn done(text: String) -> Self {
        Self { text, is_done: true }
    }
}

/// Runs a command.
///
/// # Errors
/// What kept it from being done, in words.
pub async fn run(ca: Ca, config: &Config, now: SystemTime) -> anyhow::Result<Outcome> {
    match ca.act {
        Act::Status { json } => {
            let status = command::status(config, now)?;
            Ok(Outcome::done(if json {
                serde_json::to_string_pretty(&status).context("the status cannot be written")?
            } else {
                status_text(&status)
            }))
        }
        Act::Issue { root, root_key_file } => {
            let prepared = command::issue(config, root, root_key_file.as_deref(), now).await?;
            Ok(Outcome::done(prepared_text(&prepared)))
        }
        Act::Rotate { dry_run, force } => {
            let plan = command::plan(config, now)?;
            let mut text = plan_text(&plan);
            if dry_run {
                return Ok(Outcome::done(text));
            }
            if !plan.is_harmless() && !force {
                text.push_str("\nnothing was changed: wait until they have come back, or give --force");
                return Ok(Outcome { text, is_done: false });
            }
            let is_running = command::rotate(config, &plan, now).await?;
            let _ = write!(
                text,
                "\nissuing authority {} is in force{}",
                plan.to,
                taken_up(is_running, "agents renew within the hour")
            );
            Ok(Outcome::done(text))
        }
    }
}

fn status_text(status: &Status) -> String {
    let mut text = String::from("ISSUING  STATE    ROOT  UNTIL                 CERTIFICATES  SHA-256\n");
    for one in &status.issuing {
        let state = match one.state {
            State::Active => "active",
            State::Next => "next",
            State::Retired => "retired",
        };
        let _ = writeln!(
            text,
            "{:<8} {state:<8} {:<5} {:<21} {:<13} {}",
            one.number,
            one.root,
            date(one.not_after),
            one.certificates,
            short(&one.sha256)
        );
    }
    text.push_str("\nROOT  UNTIL                 TRUSTED  AGENTS  KEY      SHA-256\n");
    for root in &status.roots {
        let key = if root.key_is_here { "here" } else { "offline" };
        let trusted = if root.trusted { "yes" } else { "no" };
        let _ = writeln!(
            text,
            "{:<5} {:<21} {trusted:<8} {:<7} {key:<8} {}",
            root.number,
            date(root.not_after),
            root.agents,
            short(&root.sha256)
        );
    }
    text.trim_end().to_owned()
}

fn prepared_text(prepared: &Prepared) -> String {
    let mut text = format!(
        "issuing authority {} is prepared under root {}{}",
        prepared.number,
        prepared.root,
        taken_up(prepared.is_running, "agents that are linked learn its root")
    );
    if let Some(key) = &prepared.new_root_key {
        let _ = write!(
            text,
            "\nthe key of the new root is in {}: move it to where nobody reaches it",
            key.display()
        );
    }
    text.push_str("\nnext: fairlead-gateway ca rotate --dry-run");
    text
}

fn taken_up(is_running: bool, then: &str) -> String {
    if is_running {
        format!("; the running gateway has taken it up, {then}")
    } else {
        "; no gateway runs here, it is taken up at the next start".to_owned()
    }
}

fn plan_text(plan: &Plan) -> String {
    let mut text = format!("issuing authority {} would take the place of {}", plan.to, plan.from);
    match plan.new_root {
        None => {
            text.push_str(", under the same root: nobody is left behind");
            return text;
        }
        Some(root) => {
            let _ = write!(text, ", under the new root {root}");
        }
    }
    list(
        &mut text,
        "agents that do not trust it yet, and could not link any more",
        &plan.stranded,
        agent,
    );
    list(
        &mut text,
        "join strings that pin the old root, and would be worth nothing",
        &plan.join_strings,
        join_string,
    );
    list(
        &mut text,
        "agents that were away for too long and must be enrolled anew in any case",
        &plan.lost,
        agent,
    );
    if plan.is_harmless() {
        text.push_str("\nno agent and no join string is left behind");
    }
    text.push_str(
        "\npeople learn the new root when they log in; whoever has not since it was made needs a join string",
    );
    text
}

fn list<T>(text: &mut String, what: &str, names: &[T], name: impl Fn(&T) -> String) {
    if names.is_empty() {
        return;
    }
    let _ = write!(text, "\n{} {what}:", names.len());
    for one in names.iter().take(MAX_NAMES) {
        let _ = write!(text, "\n  {}", name(one));
    }
    if names.len() > MAX_NAMES {
        text.push_str("\n  …");
    }
}

fn agent(agent: &Stranded) -> String {
    let seen = agent
        .last_seen
        .map_or_else(|| "never linked".to_owned(), |at| format!("last seen {}", date(at)));
    format!("{}  {seen}", agent.agent)
}

fn join_string(token: &WaitingToken) -> String {
    let site = token.site.as_deref().map(|site| format!(".{site}")).unwrap_or_default();
    format!(
        "{} {}{site}  good until {}",
        token.kind,
        token.name,
        date(token.expires)
    )
}

fn date(at: i64) -> String {
    let date = OffsetDateTime::from_unix_timestamp(at).ok();
    date.and_then(|date| date.format(&Rfc3339).ok())
        .unwrap_or_else(|| "an unknown time".to_owned())
}

fn short(sha256: &str) -> &str {
    sha256.get(..16).unwrap_or(sha256)
}
