//! `fairlead hosts`: names beside its own on which an agent may offer endpoints.

use clap::{Args, Subcommand};
use fairlead_identity::name::Label;
use hyper::Method;

use crate::admin_client::api::{BindHost, Host, Hosts};
use crate::admin_client::{AdminClient, Administration};
use crate::command::{CommandError, Context, label, site_and_name};
use crate::output::{self, Table};

/// Bind hosts to agents.
#[derive(Clone, Debug, Args)]
pub struct HostsArgs {
    #[command(flatten)]
    admin: Administration,
    #[command(subcommand)]
    act: HostsAct,
}

#[derive(Clone, Debug, Subcommand)]
enum HostsAct {
    /// Let agents offer endpoints on a host of their site
    #[command(after_help = "Example:
  fairlead hosts bind billing.clinic1 agent-1 agent-2")]
    Bind {
        /// HOST.SITE
        host: String,
        /// Agents of that site
        #[arg(required = true)]
        agents: Vec<String>,
    },
    /// Take a binding away; its endpoints are lost at once
    Unbind {
        /// HOST.SITE
        host: String,
        /// Agents of that site
        #[arg(required = true)]
        agents: Vec<String>,
    },
    /// List bindings
    List {
        /// Only hosts of this site
        #[arg(long, value_parser = label)]
        site: Option<Label>,
    },
}

/// Runs the command.
///
/// # Errors
/// Those of the gateway and of the way to it.
pub async fn run(args: HostsArgs, context: &Context) -> Result<(), CommandError> {
    let client = AdminClient::new(&args.admin, context);
    let hosts = match args.act {
        HostsAct::Bind { host, agents } => {
            let (site, host) = site_and_name(&host)?;
            let agents = agents
                .iter()
                .map(|agent| agent_in(&site, agent))
                .collect::<Result<_, _>>()?;
            let body = BindHost {
                host: host.to_string(),
                site: site.to_string(),
                agents,
            };
            let host: Host = client.send(Method::POST, "/v1/hosts", &body).await?;
            Hosts { hosts: vec![host] }
        }
        HostsAct::Unbind { host, agents } => {
            let (site, host) = site_and_name(&host)?;
            for agent in &agents {
                let agent = agent_in(&site, agent)?;
                client.delete(&format!("/v1/hosts/{site}/{host}/{agent}")).await?;
                context.note(&format!("Host {host} in site {site} is no longer bound to {agent}."))?;
            }
            return Ok(());
        }
        HostsAct::List { site } => {
            let query = site.map_or_else(String::new, |site| format!("?site={site}"));
            client.get(&format!("/v1/hosts{query}")).await?
        }
    };
    if args.admin.json {
        output::json(context, &hosts)
    } else {
        context.print(&table(&hosts))
    }
}

/// An agent as it is named beside a host: NAME, or NAME.SITE with the host's own site.
fn agent_in(site: &Label, text: &str) -> Result<String, CommandError> {
    if !text.contains('.') {
        return label(text).map(|name| name.to_string()).map_err(CommandError::usage);
    }
    let (own, name) = site_and_name(text)?;
    if own == *site {
        return Ok(name.to_string());
    }
    Err(CommandError::usage(format!(
        "agent {text} is not in site {site}: a host belongs to agents of its own site"
    )))
}

fn table(hosts: &Hosts) -> String {
    let mut table = Table::new(&["HOST", "SITE", "AGENTS"]);
    for host in &hosts.hosts {
        table.row([host.host.clone(), host.site.clone(), output::names(&host.agents)]);
    }
    table.to_text()
}
