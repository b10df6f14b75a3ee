//! `fairlead policy`: is it right, why does it answer as it does, who reaches what, and put it in force.

mod explain;
mod matrix;

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use fairlead_policy::{AccessPolicy, Document, MAX_FILES, Mistake, Source};
use fairlead_runtime::config_file::{self, MAX_BYTES};
use hyper::Method;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::admin_client::api::{PolicyReloaded, PolicyTried};
use crate::admin_client::{AdminClient, Administration};
use crate::command::{CommandError, Context, Exit};
use crate::output::{self, Table};

/// Check access policy, ask it why, and put it in force.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  fairlead policy check /etc/fairlead-gateway/access.d
  fairlead policy schema agent > agent.schema.json
  fairlead policy explain --as alice --to ssh://pump-7.plant-7.internal --act shell
  fairlead policy explain --as pump-7 --to mqtt://broker.plant-7.internal --act publish --topic pumps/7/state --retain
  fairlead policy matrix new.yaml --against /etc/fairlead-gateway/access.d
  fairlead policy reload --dry-run")]
pub struct PolicyArgs {
    #[command(flatten)]
    admin: Administration,
    #[command(subcommand)]
    act: PolicyAct,
}

#[derive(Clone, Debug, Subcommand)]
enum PolicyAct {
    /// Check files as one set and run their tests; needs no gateway
    Check {
        /// Files, or directories whose *.yaml and *.yml files are taken in order of name
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// Run the tests of files as one set; needs no gateway
    Test {
        /// Files, or directories whose *.yaml and *.yml files are taken in order of name
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// Print the JSON Schema of a kind of file, for editors; needs no gateway
    Schema {
        /// Which kind
        #[arg(value_enum, default_value_t = Kind::Access)]
        kind: Kind,
    },
    /// Say why the policy in force allows or denies, with the agent's own answer when it is online
    Explain(explain::Explain),
    /// Who reaches what, and what a change opens and closes
    Matrix(matrix::Matrix),
    /// Let the gateway read its policy anew
    Reload {
        /// Change nothing: list the live sessions that would be cut
        #[arg(long)]
        dry_run: bool,
    },
}

/// A kind of YAML file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// A file of access policy
    Access,
    /// agent.yaml
    Agent,
    /// gateway.yaml
    Gateway,
}

/// The moment and the address that a question is about.
#[derive(Clone, Debug, Args)]
struct Circumstances {
    /// When, as in 2026-01-31T23:00:00Z [default: now, by the gateway's clock]
    #[arg(long, value_name = "TIME", value_parser = moment)]
    at: Option<i64>,
    /// The caller's address [default: 192.0.2.1, which is nobody's]
    #[arg(long, value_name = "IP")]
    from: Option<IpAddr>,
}

/// Runs the command.
///
/// # Errors
/// [`Exit::BadConfiguration`] with every mistake; those of the gateway and of the way to it.
pub async fn run(args: PolicyArgs, context: &Context) -> Result<(), CommandError> {
    match args.act {
        PolicyAct::Check { files } => check(&files, args.admin.json, context),
        PolicyAct::Test { files } => test(&files, args.admin.json, context),
        PolicyAct::Schema { kind } => {
            let document = match kind {
                Kind::Access => Document::Access,
                Kind::Agent => Document::Agent,
                Kind::Gateway => Document::Gateway,
            };
            context.print(document.json_schema().trim_end())
        }
        PolicyAct::Explain(explain) => explain::run(explain, &args.admin, context).await,
        PolicyAct::Matrix(matrix) => matrix::run(matrix, &args.admin, context).await,
        PolicyAct::Reload { dry_run: true } => attempt(&args.admin, context).await,
        PolicyAct::Reload { dry_run: false } => {
            let client = AdminClient::new(&args.admin, context);
            let reloaded: PolicyReloaded = client.send(Method::POST, "/v1/policy/reload", &()).await?;
            if args.admin.json {
                return output::json(context, &reloaded);
            }
            warn(&reloaded.warnings, context)?;
            context.print(&format!("The policy is in force (digest {}).", reloaded.digest))
        }
    }
}

fn check(files: &[PathBuf], json: bool, context: &Context) -> Result<(), CommandError> {
    let (sources, policy, warnings) = compile(files)?;
    if json {
        let digest = policy.digest();
        return output::json(context, &PolicyReloaded { digest, warnings });
    }
    warnings.iter().try_for_each(|warning| context.note(warning))?;
    let files = count(sources.len(), "file");
    let rules = count(policy.rule_count(), "rule");
    context.print(&format!("{files} is right ({rules}, digest {}).", policy.digest()))
}

fn test(files: &[PathBuf], json: bool, context: &Context) -> Result<(), CommandError> {
    let (_, policy, _) = compile(files)?;
    let passed = policy.test_count();
    if json {
        return output::json(context, &serde_json::json!({ "passed": passed }));
    }
    context.print(&format!("{} passed.", count(passed, "test")))
}

async fn attempt(admin: &Administration, context: &Context) -> Result<(), CommandError> {
    let client = AdminClient::new(admin, context);
    let tried: PolicyTried = client.send(Method::POST, "/v1/policy/try", &()).await?;
    if admin.json {
        return output::json(context, &tried);
    }
    warn(&tried.warnings, context)?;
    let cut = count(tried.would_cut.len(), "live session");
    context.print(&format!(
        "A reload would cut {cut} (digest {}). Nothing was changed.",
        tried.digest
    ))?;
    if tried.would_cut.is_empty() {
        return Ok(());
    }
    let mut table = Table::new(&["SESSION", "CALLER", "ENDPOINT", "WHY", "RULE"]);
    for lost in tried.would_cut {
        let rule = lost.rule.map(|at| explain::place(&at)).unwrap_or_default();
        table.row([lost.id, lost.caller, lost.endpoint, lost.why, rule]);
    }
    context.print(&table.to_text())
}

fn warn(warnings: &[String], context: &Context) -> Result<(), CommandError> {
    let mut warnings = warnings.iter();
    warnings.try_for_each(|warning| context.note(&format!("warning: {warning}")))
}

/// Reads files and compiles them as one set.
fn compile(files: &[PathBuf]) -> Result<(Vec<Source>, AccessPolicy, Vec<String>), CommandError> {
    let sources = read(files)?;
    let (policy, warnings) = compile_sources(&sources)?;
    Ok((sources, policy, warnings))
}

fn compile_sources(sources: &[Source]) -> Result<(AccessPolicy, Vec<String>), CommandError> {
    match AccessPolicy::compile(sources) {
        Ok((policy, warnings)) => Ok((policy, warnings.iter().map(ToString::to_string).collect())),
        Err(mistakes) => {
            let shown = mistakes.iter().map(Mistake::to_string).collect::<Vec<_>>().join("\n");
            let summary = count(mistakes.len(), "mistake");
            Err(CommandError::text(
                Exit::BadConfiguration,
                format!("{summary} in the policy:\n{shown}"),
            ))
        }
    }
}

fn moment(text: &str) -> Result<i64, String> {
    let parsed = OffsetDateTime::parse(text, &Rfc3339);
    parsed
        .map(OffsetDateTime::unix_timestamp)
        .map_err(|_| "write a time such as 2026-01-31T23:00:00Z".to_owned())
}

fn read(files: &[PathBuf]) -> Result<Vec<Source>, CommandError> {
    let mut sources = Vec::new();
    for file in files {
        for path in paths(file)? {
            let text = config_file::read(&path, MAX_BYTES)
                .map_err(|error| CommandError::new(Exit::BadConfiguration, error))?;
            sources.push(Source {
                name: text.file(),
                text: text.text,
            });
        }
    }
    Ok(sources)
}

/// The file itself, or a directory's files as the gateway takes them.
fn paths(file: &Path) -> Result<Vec<PathBuf>, CommandError> {
    if !file.is_dir() {
        return Ok(vec![file.to_owned()]);
    }
    let unreadable = |error: std::io::Error| {
        CommandError::text(
            Exit::BadConfiguration,
            format!("{} cannot be read: {error}", file.display()),
        )
    };
    let entries = std::fs::read_dir(file).map_err(unreadable)?;
    let mut paths = Vec::new();
    for entry in entries.take(MAX_FILES.saturating_mul(4)) {
        let path = entry.map_err(unreadable)?.path();
        if path.extension().is_some_and(|end| end == "yaml" || end == "yml") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

fn count(number: usize, what: &str) -> String {
    if number == 1 {
        format!("1 {what}")
    } else {
        format!("{number} {what}s")
    }
}
