//! `fairlead agents`: what the gateway knows of its agents.

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use fairlead_identity::name::Label;
use hyper::Method;

use crate::admin_client::api::{Agent, AgentDetail, Agents, ChangeAgent, Conflict};
use crate::admin_client::{AdminClient, Administration};
use crate::command::{CommandError, Context, label, site_and_name};
use crate::output::{self, Table};

/// List, show, label and delete agents.
#[derive(Clone, Debug, Args)]
pub struct AgentsArgs {
    #[command(flatten)]
    admin: Administration,
    #[command(subcommand)]
    act: AgentsAct,
}

#[derive(Clone, Debug, Subcommand)]
enum AgentsAct {
    /// List agents, online or not
    List {
        /// Only agents of this site
        #[arg(long, value_parser = label)]
        site: Option<Label>,
    },
    /// Show one agent with its hosts and endpoints
    Show {
        /// NAME.SITE; NAME alone is in site default
        agent: String,
    },
    /// Set labels, or take them away with KEY-
    #[command(after_help = "Example:
  fairlead agents label pump-7.plant-7 tier=edge row-")]
    Label {
        /// NAME.SITE; NAME alone is in site default
        agent: String,
        /// KEY=VALUE or KEY-
        #[arg(required = true, value_parser = label_change)]
        changes: Vec<(String, Option<String>)>,
    },
    /// Delete an agent: its link and sessions end, its certificate is good no longer, its name is free again
    Delete {
        /// NAME.SITE; NAME alone is in site default
        agent: String,
    },
}

/// Runs the command.
///
/// # Errors
/// Those of the gateway and of the way to it.
pub async fn run(args: AgentsArgs, context: &Context) -> Result<(), CommandError> {
    let client = AdminClient::new(&args.admin, context);
    let json = args.admin.json;
    match args.act {
        AgentsAct::List { site } => {
            let query = site.map_or_else(String::new, |site| format!("?site={site}"));
            let agents: Agents = client.get(&format!("/v1/agents{query}")).await?;
            if json {
                output::json(context, &agents)
            } else {
                context.print(&table(&agents.agents))
            }
        }
        AgentsAct::Show { agent } => {
            let detail: AgentDetail = client.get(&path(&agent)?).await?;
            if json {
                output::json(context, &detail)
            } else {
                context.print(&sheet(&detail))
            }
        }
        AgentsAct::Label { agent, changes } => {
            let body = ChangeAgent {
                labels: changes.into_iter().collect::<BTreeMap<_, _>>(),
            };
            let agent: Agent = client.send(Method::PATCH, &path(&agent)?, &body).await?;
            if json {
                output::json(context, &agent)
            } else {
                context.print(&table(&[agent]))
            }
        }
        AgentsAct::Delete { agent } => {
            client.delete(&path(&agent)?).await?;
            context.note(&format!("Agent {agent} is deleted; its name is free again."))
        }
    }
}

fn path(agent: &str) -> Result<String, CommandError> {
    let (site, name) = site_and_name(agent)?;
    Ok(format!("/v1/agents/{site}/{name}"))
}

fn label_change(text: &str) -> Result<(String, Option<String>), String> {
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

fn table(agents: &[Agent]) -> String {
    let mut table = Table::new(&["NAME", "SITE", "STATE", "SINCE", "ADDRESS", "LABELS"]);
    for agent in agents {
        let (state, since, address) = state(agent);
        table.row([
            agent.name.clone(),
            agent.site.clone(),
            state,
            since,
            address,
            output::labels(&agent.labels),
        ]);
    }
    table.to_text()
}

/// State, since when, and from where.
fn state(agent: &Agent) -> (String, String, String) {
    let conflict = if agent.conflict.is_some() { ", CONFLICT" } else { "" };
    match &agent.online {
        Some(link) => (
            format!("online ({}){conflict}", link.transport),
            output::moment(Some(link.since)),
            link.address.clone(),
        ),
        None if agent.disabled => ("disabled".into(), output::moment(agent.last_seen), String::new()),
        None => (
            format!("offline{conflict}"),
            output::moment(agent.last_seen),
            String::new(),
        ),
    }
}

/// What has to be known to choose, and how to.
fn in_conflict(agent: &Agent, conflict: &Conflict) -> String {
    format!(
        "two machines have this agent's key: {} serves, {} was turned away {} times (first {}, last {}). To choose, enrol \
         the right one anew: fairlead token create --agent {}.{} --replace",
        conflict.serving,
        conflict.other,
        conflict.tries,
        output::moment(Some(conflict.since)),
        output::moment(Some(conflict.last)),
        agent.name,
        agent.site,
    )
}

fn sheet(detail: &AgentDetail) -> String {
    let agent = &detail.agent;
    let (state, since, address) = state(agent);
    let mut table = Table::new(&["AGENT", &format!("{}.{}", agent.name, agent.site)]);
    table.row(["state".into(), state]);
    table.row(["since".into(), since]);
    table.row(["address".into(), address]);
    if let Some(conflict) = &agent.conflict {
        table.row(["CONFLICT".into(), in_conflict(agent, conflict)]);
    }
    table.row(["labels".into(), output::labels(&agent.labels)]);
    table.row(["hosts".into(), output::names(&detail.hosts)]);
    table.row(["enrolled".into(), output::moment(agent.enrolled_at)]);
    table.row([
        "certificate".into(),
        agent.certificate_serial.clone().unwrap_or_default(),
    ]);
    table.row(["good until".into(), output::moment(agent.certificate_not_after)]);
    for (key, value) in &agent.reported {
        table.row([format!("reported.{key}"), value.clone()]);
    }
    for endpoint in &detail.endpoints {
        let url = format!(
            "{}://{}.{}.internal:{}",
            endpoint.protocol, endpoint.host, agent.site, endpoint.port
        );
        table.row(["endpoint".into(), format!("{url} ({})", endpoint.mode)]);
    }
    table.to_text()
}
