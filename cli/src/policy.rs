//! `fairlead policy`: is it right, and put it in force.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use fairlead_policy::{AccessPolicy, MAX_FILES, Mistake, Source};
use fairlead_runtime::config_file::{self, MAX_BYTES};
use hyper::Method;

use crate::admin_client::api::PolicyReloaded;
use crate::admin_client::{AdminClient, Administration};
use crate::command::{CommandError, Context, Exit};
use crate::output;

/// Check access policy and put it in force.
#[derive(Clone, Debug, Args)]
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
    /// Let the gateway read its policy anew
    Reload,
}

/// Runs the command.
///
/// # Errors
/// [`Exit::BadConfiguration`] with every mistake; those of the gateway and of the way to it.
pub async fn run(args: PolicyArgs, context: &Context) -> Result<(), CommandError> {
    match args.act {
        PolicyAct::Check { files } => check(&files, args.admin.json, context),
        PolicyAct::Reload => {
            let client = AdminClient::new(&args.admin, context);
            let reloaded: PolicyReloaded = client.send(Method::POST, "/v1/policy/reload", &()).await?;
            if args.admin.json {
                return output::json(context, &reloaded);
            }
            reloaded
                .warnings
                .iter()
                .try_for_each(|warning| context.note(&format!("warning: {warning}")))?;
            context.print(&format!("The policy is in force (digest {}).", reloaded.digest))
        }
    }
}

fn check(files: &[PathBuf], json: bool, context: &Context) -> Result<(), CommandError> {
    let sources = read(files)?;
    match AccessPolicy::compile(&sources) {
        Ok((policy, warnings)) => {
            let warnings: Vec<_> = warnings.iter().map(ToString::to_string).collect();
            if json {
                return output::json(
                    context,
                    &PolicyReloaded {
                        digest: policy.digest().to_owned(),
                        warnings,
                    },
                );
            }
            warnings.iter().try_for_each(|warning| context.note(warning))?;
            context.print(&format!(
                "{} is right (digest {}).",
                count(sources.len(), "file"),
                policy.digest()
            ))
        }
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
