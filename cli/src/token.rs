//! `fairlead token`: join strings.

use std::time::Duration;

use clap::{ArgGroup, Args, Subcommand};
use fairlead_identity::name::Label;
use fairlead_runtime::config_file::parse_duration;
use hyper::Method;

use crate::admin_client::api::{CreateToken, TokenCreated, Tokens};
use crate::admin_client::{AdminClient, Administration};
use crate::command::{CommandError, Context, key_value, label, site_and_name};
use crate::output::{self, Table};

/// Make and list join strings; `fairlead revoke token ID` withdraws one.
#[derive(Clone, Debug, Args)]
pub struct TokenArgs {
    #[command(flatten)]
    admin: Administration,
    #[command(subcommand)]
    act: TokenAct,
}

#[derive(Clone, Debug, Subcommand)]
enum TokenAct {
    /// Make one join string: for one use, or with --agents for a fleet
    #[command(after_help = "Examples:
  fairlead token create --agent pump-7 --site plant-7 --label tier=edge
  fairlead token create --agent pump-7.plant-7 --replace
  fairlead token create --agents 'pump-*' --site plant-7 --uses 3000 --ttl 180d > fleet.join
  fairlead token create --user alice --group field > alice.join
  fairlead token create --workload etl --label app=billing > etl.join

A pattern of --agents fits a name as a whole; * stands for any run of characters, none included: 'pump-*' fits
pump-7 and pump-a-1, not old-pump-7.")]
    Create(Box<CreateArgs>),
    /// List join strings that are good and not used up, by their ids: the strings themselves are kept nowhere
    List,
}

#[derive(Clone, Debug, Args)]
#[command(group(ArgGroup::new("whom").required(true).args(["agent", "agents", "user", "workload"])))]
struct CreateArgs {
    /// The agent to enrol: NAME, or NAME.SITE
    #[arg(long, value_name = "NAME")]
    agent: Option<String>,
    /// Agents that propose their names themselves: a pattern such as 'pump-*'. Names wait for `fairlead agents approve`
    #[arg(long, value_name = "PATTERN")]
    agents: Option<String>,
    /// How many devices may use the string
    #[arg(long, value_name = "N", requires = "agents", value_parser = clap::value_parser!(u32).range(1..))]
    uses: Option<u32>,
    /// Take the fleet's names as they come, without approval
    #[arg(long, requires = "agents")]
    no_approval: bool,
    /// Give an enrolled agent a new key; the old one is worth nothing once the string is used
    #[arg(long, requires = "agent", conflicts_with_all = ["labels", "hosts"])]
    replace: bool,
    /// The user whose machine may log in
    #[arg(long, value_name = "NAME", value_parser = label)]
    user: Option<Label>,
    /// The workload that may log in
    #[arg(long, value_name = "NAME", value_parser = label)]
    workload: Option<Label>,
    /// Site of the agent, or the one site the user or workload never leaves [default for agents: default]
    #[arg(long, value_parser = label)]
    site: Option<Label>,
    /// Label for policy; may be repeated
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = key_value)]
    labels: Vec<(String, String)>,
    /// A group of the user or workload; may be repeated
    #[arg(long = "group", value_name = "GROUP", conflicts_with_all = ["agent", "agents"])]
    groups: Vec<String>,
    /// A host to bind to the agent; may be repeated
    #[arg(long = "host", value_name = "HOST", value_parser = label, conflicts_with_all = ["user", "workload"])]
    hosts: Vec<Label>,
    /// How long the string is good, for instance 15m or 2d
    #[arg(long, default_value = "15m", value_parser = parse_duration)]
    ttl: Duration,
}

/// Runs the command.
///
/// # Errors
/// Those of the gateway and of the way to it.
pub async fn run(args: TokenArgs, context: &Context) -> Result<(), CommandError> {
    let client = AdminClient::new(&args.admin, context);
    let create = match args.act {
        TokenAct::Create(create) => create,
        TokenAct::List => {
            let listed: Tokens = client.get("/v1/tokens").await?;
            return match args.admin.json {
                true => output::json(context, &listed),
                false => context.print(&table(&listed)),
            };
        }
    };
    let request = request(*create)?;
    let created: TokenCreated = client.send(Method::POST, "/v1/tokens", &request).await?;
    if args.admin.json {
        return output::json(context, &created);
    }
    context.note(&remark(&created))?;
    context.print(&created.join)
}

fn request(args: CreateArgs) -> Result<CreateToken, CommandError> {
    let (agent, site) = match (args.agent, args.site) {
        (Some(agent), None) => {
            let (site, name) = site_and_name(&agent)?;
            (Some(name.to_string()), Some(site))
        }
        (Some(agent), Some(site)) => match label(&agent) {
            Ok(name) => (Some(name.to_string()), Some(site)),
            Err(why) => return Err(CommandError::usage(format!("--agent: {why} (with --site, NAME alone)"))),
        },
        (None, site) => (None, site),
    };
    Ok(CreateToken {
        agent,
        agents: args.agents,
        uses: args.uses,
        no_approval: args.no_approval,
        replace: args.replace,
        user: args.user.map(|user| user.to_string()),
        workload: args.workload.map(|workload| workload.to_string()),
        site: site.map(|site| site.to_string()),
        labels: args.labels.into_iter().collect(),
        groups: args.groups.into_iter().collect(),
        hosts: args.hosts.iter().map(ToString::to_string).collect(),
        ttl_seconds: Some(args.ttl.as_secs()),
    })
}

fn table(listed: &Tokens) -> String {
    let mut table = Table::new(&["ID", "FOR", "NAME", "SITE", "USED", "GOOD UNTIL"]);
    for token in &listed.tokens {
        table.row([
            token.id.clone(),
            token.kind.clone(),
            output::printable(&token.name),
            token.site.clone().unwrap_or_default(),
            format!("{} of {}", token.used, token.uses),
            output::moment(Some(token.expires)),
        ]);
    }
    table.to_text()
}

/// What the person should know; apart from the string, so that the string can be piped.
fn remark(created: &TokenCreated) -> String {
    let site = created.site.as_deref().unwrap_or_default();
    let whom = match site {
        "" => format!("{} {}", created.kind, created.name),
        site => format!("{} {} in site {site}", created.kind, created.name),
    };
    let program = if created.kind == "agent" {
        "fairlead-agent enroll"
    } else {
        "fairlead login"
    };
    let until = output::moment(Some(created.expires));
    let uses = match created.uses {
        1 => "one use".to_owned(),
        uses => format!("{uses} uses"),
    };
    let approval = match created.approval {
        true => format!("\nNames wait for: fairlead agents approve NAME.{site}, or --all --site {site}."),
        false => String::new(),
    };
    format!(
        "Join string for {whom}: {uses}, until {until}. It is a secret and is not shown again.\nThere: {program} --token-file - (then paste it), or --token-file FILE.{approval}\nTo withdraw it: fairlead revoke token {id}.",
        id = created.id,
    )
}
