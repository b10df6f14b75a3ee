//! `fairlead workloads`: programs that call.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use fairlead_identity::name::Label;
use fairlead_runtime::config_file::{self, MAX_BYTES};
use hyper::Method;

use crate::admin_client::api::{AddWorkload, ChangeUser, Workload, Workloads};
use crate::admin_client::{AdminClient, Administration};
use crate::command::{CommandError, Context, Exit, key_value, label, label_change};
use crate::output::{self, Table};
use crate::users::disabled;

/// Add, list and change workloads.
#[derive(Clone, Debug, Args)]
pub struct WorkloadsArgs {
    #[command(flatten)]
    admin: Administration,
    #[command(subcommand)]
    act: WorkloadsAct,
}

#[derive(Clone, Debug, Subcommand)]
enum WorkloadsAct {
    /// Add a workload that has certificates of its vendor's own issuer (SPIRE, cert-manager)
    #[command(after_help = "Example:
  fairlead workloads add etl --ca vendor-ca.pem --san spiffe://vendor.example/etl --label app=billing

Accepted: clientAuth certificates with exactly one URI, the one given; keys on P-256 or P-384; authorities that sign
with ECDSA (P-256, P-384) or RSA (2048 bits or more), SHA-256 or better. A workload without an issuer of its own comes
by `fairlead token create --workload NAME`.")]
    Add(Box<AddArgs>),
    /// List workloads
    List {
        /// Only workloads of this site
        #[arg(long, value_parser = label)]
        site: Option<Label>,
    },
    /// Show one workload
    Show {
        /// The workload
        #[arg(value_parser = label)]
        name: Label,
    },
    /// Set labels, or take them away with KEY-
    Label {
        /// The workload
        #[arg(value_parser = label)]
        name: Label,
        /// KEY=VALUE or KEY-
        #[arg(required = true, value_parser = label_change)]
        changes: Vec<(String, Option<String>)>,
    },
    /// Keep a workload out until it is enabled
    Disable {
        /// The workload
        #[arg(value_parser = label)]
        name: Label,
    },
    /// Let a disabled workload in again
    Enable {
        /// The workload
        #[arg(value_parser = label)]
        name: Label,
    },
    /// Delete a workload: sessions end, its certificates are good no longer, the name is free again
    Delete {
        /// The workload
        #[arg(value_parser = label)]
        name: Label,
    },
}

#[derive(Clone, Debug, Args)]
struct AddArgs {
    /// The name
    #[arg(value_parser = label)]
    name: Label,
    /// File with the issuer's certificates in PEM, trusted for this URI and nothing else
    #[arg(long, value_name = "FILE")]
    ca: PathBuf,
    /// The URI in the workload's certificates
    #[arg(long, value_name = "URI")]
    san: String,
    /// The one site the workload never leaves
    #[arg(long, value_parser = label)]
    site: Option<Label>,
    /// A group of the workload; may be repeated
    #[arg(long = "group", value_name = "GROUP")]
    groups: Vec<String>,
    /// Label for policy; may be repeated
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = key_value)]
    labels: Vec<(String, String)>,
}

/// Runs the command.
///
/// # Errors
/// Those of the gateway and of the way to it; [`Exit::BadConfiguration`] for a file that cannot be read.
pub async fn run(args: WorkloadsArgs, context: &Context) -> Result<(), CommandError> {
    let client = AdminClient::new(&args.admin, context);
    let json = args.admin.json;
    let workload: Workload = match args.act {
        WorkloadsAct::Add(add) => client.send(Method::POST, "/v1/workloads", &request(*add)?).await?,
        WorkloadsAct::List { site } => {
            let query = site.map_or_else(String::new, |site| format!("?site={site}"));
            let listed: Workloads = client.get(&format!("/v1/workloads{query}")).await?;
            return show(context, json, &listed, &listed.workloads);
        }
        WorkloadsAct::Show { name } => client.get(&format!("/v1/workloads/{name}")).await?,
        WorkloadsAct::Label { name, changes } => {
            let body = ChangeUser {
                labels: changes.into_iter().collect(),
                ..ChangeUser::default()
            };
            change(&client, &name, &body).await?
        }
        WorkloadsAct::Disable { name } => change(&client, &name, &disabled(true)).await?,
        WorkloadsAct::Enable { name } => change(&client, &name, &disabled(false)).await?,
        WorkloadsAct::Delete { name } => {
            client.delete(&format!("/v1/workloads/{name}")).await?;
            return context.note(&format!("Workload {name} is deleted; the name is free again."));
        }
    };
    show(context, json, &workload, std::slice::from_ref(&workload))
}

async fn change(client: &AdminClient, name: &Label, body: &ChangeUser) -> Result<Workload, CommandError> {
    client.send(Method::PATCH, &format!("/v1/workloads/{name}"), body).await
}

fn request(args: AddArgs) -> Result<AddWorkload, CommandError> {
    let ca = config_file::read(&args.ca, MAX_BYTES);
    let ca = ca.map_err(|error| CommandError::new(Exit::BadConfiguration, error))?;
    Ok(AddWorkload {
        name: args.name.to_string(),
        ca_pem: ca.text,
        san_uri: args.san,
        site: args.site.map(|site| site.to_string()),
        groups: args.groups.into_iter().collect(),
        labels: args.labels.into_iter().collect(),
    })
}

fn show(
    context: &Context,
    json: bool,
    answer: &impl serde::Serialize,
    workloads: &[Workload],
) -> Result<(), CommandError> {
    if json {
        return output::json(context, answer);
    }
    let mut table = Table::new(&["NAME", "SITE", "GROUPS", "LABELS", "STATE", "SINCE", "CERTIFIED AS"]);
    for Workload { caller, san_uri } in workloads {
        let state = if caller.disabled { "disabled" } else { "enabled" };
        table.row([
            caller.name.clone(),
            caller.site.clone().unwrap_or_default(),
            output::names(&caller.groups),
            output::labels(&caller.labels),
            state.to_owned(),
            output::moment(Some(caller.created)),
            san_uri.clone().unwrap_or_default(),
        ]);
    }
    context.print(&table.to_text())
}
