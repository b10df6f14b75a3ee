//! `fairlead audit`: reads the audit file of a gateway or an agent. Works on the file, so that it works without either.

use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use fairlead_runtime::audit::{self, Head, MAX_LINE};
use serde::Deserialize;
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::command::{CommandError, Context, Exit};
use crate::output::Table;

/// Most lines that `tail` shows at once.
const MOST_LINES: usize = 10_000;
/// How often `--follow` looks.
const LOOK: Duration = Duration::from_millis(300);

/// Show, verify and export the audit.
#[derive(Clone, Debug, Args)]
pub struct AuditArgs {
    /// The audit file; an agent's is /var/log/fairlead-agent/audit.jsonl
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        default_value = "/var/lib/fairlead-gateway/audit.jsonl"
    )]
    file: PathBuf,
    #[command(subcommand)]
    act: AuditAct,
}

#[derive(Clone, Debug, Subcommand)]
enum AuditAct {
    /// Show the last records
    #[command(after_help = "Example:
  fairlead audit tail --follow --event session.refuse")]
    Tail {
        /// How many
        #[arg(short = 'n', long, default_value_t = 20, value_name = "NUMBER")]
        lines: usize,
        /// Go on showing what is added
        #[arg(short, long)]
        follow: bool,
        /// The lines as they are in the file
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        only: Only,
    },
    /// Find the first record that was changed, removed, added or exchanged
    #[command(
        after_help = "It prints the last record as SEQ:HASH. Keep that elsewhere: with it, the next check also finds
that the end of the file was cut off or that the whole file was replaced.

Example:
  fairlead audit verify --seen 4711:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
    )]
    Verify {
        /// The last record of an earlier check
        #[arg(long, value_name = "SEQ:HASH")]
        seen: Option<Head>,
    },
    /// Write the records of a time or a person as JSON lines
    #[command(after_help = "Example:
  fairlead audit export --since 2026-11-01T00:00:00Z --caller alice > november.jsonl")]
    Export {
        /// From this moment on, RFC 3339
        #[arg(long, value_parser = moment, value_name = "TIME")]
        since: Option<OffsetDateTime>,
        /// Before this moment, RFC 3339
        #[arg(long, value_parser = moment, value_name = "TIME")]
        until: Option<OffsetDateTime>,
        #[command(flatten)]
        only: Only,
    },
}

/// Which records.
#[derive(Clone, Debug, Args)]
struct Only {
    /// Only this event, such as session.permit; `session` stands for all that begin so
    #[arg(long)]
    event: Option<String>,
    /// Only this session
    #[arg(long, value_name = "ID")]
    session: Option<String>,
    /// Only this caller
    #[arg(long, value_name = "NAME")]
    caller: Option<String>,
    /// Only this agent
    #[arg(long, value_name = "NAME")]
    agent: Option<String>,
}

/// What is looked at in a line; other fields are shown as they are in `--json` and `export`.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Seen {
    ts: String,
    event: String,
    session: String,
    caller: String,
    agent: String,
    site: String,
    endpoint: String,
    act: String,
    reason: String,
    rule: String,
    client_ip: String,
}

/// Runs the command.
///
/// # Errors
/// [`Exit::Failed`] when the file cannot be read or its chain does not hold.
pub async fn run(args: AuditArgs, context: &Context) -> Result<(), CommandError> {
    match args.act {
        AuditAct::Tail {
            lines,
            follow,
            json,
            only,
        } => tail(&args.file, lines, follow, json, &only, context).await,
        AuditAct::Verify { seen } => verify(&args.file, seen.as_ref(), context),
        AuditAct::Export { since, until, only } => {
            let wanted = |line: &str| {
                let at = seen(line).and_then(|seen| moment(&seen.ts).ok());
                let inside =
                    at.is_some_and(|at| since.is_none_or(|since| since <= at) && until.is_none_or(|until| at < until));
                (since.is_none() && until.is_none() || inside) && only.takes(line)
            };
            let mut reader = BufReader::new(open(&args.file)?);
            while let Some(line) = next_line(&mut reader, &args.file)? {
                if wanted(&line) {
                    context.print(&line)?;
                }
            }
            Ok(())
        }
    }
}

fn verify(file: &Path, seen: Option<&Head>, context: &Context) -> Result<(), CommandError> {
    let reader = open(file)?;
    let verified = match seen {
        Some(seen) => audit::verify_since(reader, seen),
        None => audit::verify(reader),
    };
    let verified = verified.map_err(|bad| CommandError::text(Exit::Failed, format!("{}: {bad}", file.display())))?;
    if verified.first_seq > 1 {
        context.note(&format!(
            "The first record is {}: verify the older file too.",
            verified.first_seq
        ))?;
    }
    context.note(&format!(
        "{}: {} records, the chain holds. The last one:",
        file.display(),
        verified.count
    ))?;
    context.print(&verified.head.to_string())
}

async fn tail(
    file: &Path,
    lines: usize,
    follow: bool,
    json: bool,
    only: &Only,
    context: &Context,
) -> Result<(), CommandError> {
    if lines > MOST_LINES {
        return Err(CommandError::usage(format!(
            "at most {MOST_LINES} lines; `fairlead audit export` gives all"
        )));
    }
    let mut reader = BufReader::new(open(file)?);
    let mut last = std::collections::VecDeque::new();
    while let Some(line) = next_line(&mut reader, file)? {
        if only.takes(&line) {
            last.push_back(line);
            if last.len() > lines {
                last.pop_front();
            }
        }
    }
    show(last.make_contiguous(), json, context)?;
    if follow {
        follow_file(reader, file, json, only, context).await
    } else {
        Ok(())
    }
}

/// Shows what is added, until the process is ended or the file cannot be read.
async fn follow_file(
    mut reader: BufReader<File>,
    file: &Path,
    json: bool,
    only: &Only,
    context: &Context,
) -> Result<(), CommandError> {
    loop {
        tokio::time::sleep(LOOK).await;
        // Renamed by log rotation: what was written before is read to its end, then the new file.
        let renamed = std::fs::metadata(file)
            .is_ok_and(|now| reader.get_ref().metadata().is_ok_and(|own| own.ino() != now.ino()));
        while let Some(line) = next_line(&mut reader, file)? {
            if only.takes(&line) {
                show(&[line], json, context)?;
            }
        }
        if renamed {
            reader = BufReader::new(open(file)?);
        }
    }
}

fn show(lines: &[String], json: bool, context: &Context) -> Result<(), CommandError> {
    if lines.is_empty() {
        return Ok(());
    }
    if json {
        return lines.iter().try_for_each(|line| context.print(line));
    }
    let mut table = Table::new(&[]);
    for line in lines {
        let Some(Seen {
            ts,
            event,
            session,
            caller,
            agent,
            site,
            endpoint,
            act,
            reason,
            rule,
            client_ip,
        }) = seen(line)
        else {
            context.note("a line of the file is not an audit record; run `fairlead audit verify`")?;
            continue;
        };
        let agent = if site.is_empty() {
            agent
        } else {
            format!("{agent}.{site}")
        };
        table.row([
            ts, event, session, caller, client_ip, agent, endpoint, act, reason, rule,
        ]);
    }
    context.print(&table.to_text())
}

impl Only {
    fn takes(&self, line: &str) -> bool {
        let Some(seen) = seen(line) else { return false };
        let is = |wanted: &Option<String>, found: &str| wanted.as_deref().is_none_or(|wanted| wanted == found);
        let event = self.event.as_deref().is_none_or(|wanted| {
            seen.event
                .strip_prefix(wanted)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        });
        event && is(&self.session, &seen.session) && is(&self.caller, &seen.caller) && is(&self.agent, &seen.agent)
    }
}

/// `None` for what is no record. A field that is not a text, as of a newer program, reads as absent.
fn seen(line: &str) -> Option<Seen> {
    let Value::Object(mut fields) = serde_json::from_str(line).ok()? else {
        return None;
    };
    fields.retain(|_, value| value.is_string());
    serde_json::from_value(Value::Object(fields)).ok()
}

fn open(file: &Path) -> Result<File, CommandError> {
    let help = "; the audit belongs to the account of the program that writes it";
    Ok(File::open(file).with_context(|| format!("cannot read {}{help}", file.display()))?)
}

/// The next whole line without its break; a piece of one is left for the next call.
fn next_line(reader: &mut BufReader<File>, file: &Path) -> Result<Option<String>, CommandError> {
    let failed = || format!("cannot read {}", file.display());
    let mut bytes = Vec::new();
    let most = u64::try_from(MAX_LINE).unwrap_or(u64::MAX);
    let read = std::io::Read::take(&mut *reader, most)
        .read_until(b'\n', &mut bytes)
        .with_context(failed)?;
    if bytes.pop().is_some_and(|end| end == b'\n') {
        return Ok(Some(String::from_utf8_lossy(&bytes).into_owned()));
    }
    if read == MAX_LINE {
        let text = format!(
            "{} has a line of more than {MAX_LINE} bytes; run `fairlead audit verify`",
            file.display()
        );
        return Err(CommandError::text(Exit::Failed, text));
    }
    reader
        .seek(SeekFrom::Current(-i64::try_from(read).unwrap_or(0)))
        .with_context(failed)?;
    Ok(None)
}

fn moment(text: &str) -> Result<OffsetDateTime, String> {
    OffsetDateTime::parse(text, &Rfc3339).map_err(|_| "write a time as 2026-11-22T08:00:00Z".to_owned())
}
