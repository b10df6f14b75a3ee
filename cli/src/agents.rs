//! `fairlead agents`: what the gateway knows of its agents.

mod import;

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use fairlead_identity::name::Label;
use hyper::Method;

use crate::admin_client::api::{
    Agent, AgentDetail, AgentName, Agents, ApproveAgents, ChangeAgent, Conflict, HostKeysTrusted, MAX_APPROVALS,
    RenameAgent,
};
use crate::admin_client::{AdminClient, Administration};
use crate::command::{CommandError, Context, label, label_change, site_and_name};
use crate::output::{self, Table};

/// List, show, approve, import, label, rename and delete agents.
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
    /// Approve names that devices of a fleet hold, so that they get their certificates
    #[command(after_help = "Examples:
  fairlead agents approve pump-7.plant-7 pump-8.plant-7
  fairlead agents approve --all --site plant-7

A name that is not to be approved is rejected with `fairlead agents delete`.")]
    Approve {
        /// NAME.SITE; NAME alone is in site default
        #[arg(required_unless_present = "all")]
        agents: Vec<String>,
        /// Every name of the site that waits
        #[arg(long, requires = "site", conflicts_with = "agents")]
        all: bool,
        /// The site of --all
        #[arg(long, value_parser = label, requires = "all")]
        site: Option<Label>,
    },
    /// Register agents before they enrol, from a CSV file; a fleet's devices get these names without approval
    #[command(
        after_help = "The first line says what the columns are: name, site, then one per label. An empty cell sets no label.

  name,site,tier,row
  pump-7,plant-7,edge,3

Either every line is taken or none; mistakes are told with their lines.

Examples:
  fairlead agents import pumps.csv
  fairlead agents import pumps.csv --out joins --ttl 2d     # and one join string per line, in joins/NAME.SITE.join"
    )]
    Import(import::ImportArgs),
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
    /// Trust the SSH host keys that the servers behind an agent show, in place of those before
    #[command(
        name = "trust-hostkey",
        after_help = "Example:
  fairlead agents show pump-7.plant-7             # compare with `ssh-keygen -lf` of the key files on the device
  fairlead agents trust-hostkey pump-7.plant-7"
    )]
    TrustHostkey {
        /// NAME.SITE; NAME alone is in site default
        agent: String,
    },
    /// Give an agent another name: its link ends and it comes back with the new one; the old name stays bound as a host
    #[command(after_help = "Example:
  fairlead agents rename pump-7.plant-7 pump-8

What the agent's file offers under the old name goes on. When the file says the new one:
  fairlead hosts unbind pump-7.plant-7 pump-8")]
    Rename {
        /// NAME.SITE; NAME alone is in site default
        agent: String,
        /// The new name, in the same site
        #[arg(value_parser = label)]
        to: Label,
    },
    /// Delete an agent, or reject a name that waits: link and sessions end, its key is worth nothing, its name is free
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
        AgentsAct::Approve { agents, site, .. } => {
            let waiting = match site {
                Some(site) => waiting(&client, &site).await?,
                None => agents.iter().map(|agent| named(agent)).collect::<Result<_, _>>()?,
            };
            let approved = approve(&client, &waiting).await?;
            if json {
                return output::json(context, &ApproveAgents { agents: approved });
            }
            context.note(&format!("Approved: {}", approved.len()))
        }
        AgentsAct::Import(args) => import::run(args, &client, json, context).await,
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
        AgentsAct::TrustHostkey { agent } => {
            let path = format!("{}/trust-hostkey", path(&agent)?);
            let trusted: HostKeysTrusted = client.send(Method::POST, &path, &()).await?;
            if json {
                output::json(context, &trusted)
            } else {
                context.print(&trusted_text(&trusted))
            }
        }
        AgentsAct::Rename { agent, to } => {
            let request = RenameAgent { to: to.to_string() };
            let path = format!("{}/rename", path(&agent)?);
            let renamed: Agent = client.send(Method::POST, &path, &request).await?;
            if json {
                return output::json(context, &renamed);
            }
            context.note(&format!(
                "Agent {agent} is {}.{}; its old name is bound to it as a host.",
                renamed.name, renamed.site
            ))
        }
        AgentsAct::Delete { agent } => {
            client.delete(&path(&agent)?).await?;
            context.note(&format!("Agent {agent} is deleted; its name is free again."))
        }
    }
}

fn named(agent: &str) -> Result<AgentName, CommandError> {
    let (site, name) = site_and_name(agent)?;
    Ok(AgentName {
        name: name.to_string(),
        site: site.to_string(),
    })
}

/// The names of a site that wait for approval.
async fn waiting(client: &AdminClient, site: &Label) -> Result<Vec<AgentName>, CommandError> {
    let listed: Agents = client.get(&format!("/v1/agents?site={site}")).await?;
    let pending = listed.agents.into_iter().filter(|agent| agent.pending);
    let named = pending.map(|Agent { name, site, .. }| AgentName { name, site });
    Ok(named.collect())
}

/// Approves exactly these, so that nobody slips in between the look and the word.
async fn approve(client: &AdminClient, agents: &[AgentName]) -> Result<Vec<AgentName>, CommandError> {
    let mut approved = Vec::new();
    for some in agents.chunks(MAX_APPROVALS) {
        let request = ApproveAgents { agents: some.to_vec() };
        let answer: ApproveAgents = client.send(Method::POST, "/v1/agents/approve", &request).await?;
        approved.extend(answer.agents);
    }
    Ok(approved)
}

fn path(agent: &str) -> Result<String, CommandError> {
    let (site, name) = site_and_name(agent)?;
    Ok(format!("/v1/agents/{site}/{name}"))
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
        None if agent.pending => ("pending".into(), output::moment(agent.enrolled_at), String::new()),
        None if agent.enrolled_at.is_none() => ("not enrolled".into(), output::moment(None), String::new()),
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

fn trusted_text(trusted: &HostKeysTrusted) -> String {
    if trusted.host_keys.is_empty() {
        return "nothing was held: callers have the keys that the servers show".to_owned();
    }
    let lines = trusted.host_keys.iter().map(|keys| {
        let held = keys.held.as_deref().unwrap_or_default().join(", ");
        format!("{}:{} trusted: {held}", keys.host, keys.port)
    });
    lines.collect::<Vec<_>>().join("\n")
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
    for keys in &detail.host_keys {
        let name = format!("host keys of {}:{}", keys.host, keys.port);
        table.row([name, keys.trusted.join(", ")]);
        if let Some(held) = &keys.held {
            let (held, since) = (held.join(", "), output::moment(keys.held_at));
            let how = format!("fairlead agents trust-hostkey {}.{}", agent.name, agent.site);
            let text = format!("{held} since {since}; callers are not given it before: {how}");
            table.row(["HELD, a key that was not there".into(), text]);
        }
    }
    table.to_text()
}
