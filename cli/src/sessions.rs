//! `fairlead sessions`: who is connected now.

use clap::{Args, Subcommand};
use fairlead_identity::name::Label;
use fairlead_wire::id::SessionId;

use crate::admin_client::api::{Session, Sessions};
use crate::admin_client::{AdminClient, Administration};
use crate::command::{CommandError, Context, label};
use crate::output::{self, Table};

/// List and end live sessions.
#[derive(Clone, Debug, Args)]
pub struct SessionsArgs {
    #[command(flatten)]
    admin: Administration,
    #[command(subcommand)]
    act: SessionsAct,
}

#[derive(Clone, Debug, Subcommand)]
enum SessionsAct {
    /// List live sessions
    List {
        /// Only sessions to agents of this site
        #[arg(long, value_parser = label)]
        site: Option<Label>,
    },
    /// Show one session
    Show {
        /// The session's id
        #[arg(value_parser = session)]
        id: SessionId,
    },
    /// End a session at once
    Kill {
        /// The session's id
        #[arg(value_parser = session)]
        id: SessionId,
    },
}

/// Runs the command.
///
/// # Errors
/// Those of the gateway and of the way to it.
pub async fn run(args: SessionsArgs, context: &Context) -> Result<(), CommandError> {
    let client = AdminClient::new(&args.admin, context);
    match args.act {
        SessionsAct::List { site } => {
            let query = site.map_or_else(String::new, |site| format!("?site={site}"));
            let sessions: Sessions = client.get(&format!("/v1/sessions{query}")).await?;
            if args.admin.json {
                output::json(context, &sessions)
            } else {
                context.print(&table(&sessions))
            }
        }
        SessionsAct::Show { id } => {
            let session: Session = client.get(&format!("/v1/sessions/{id}")).await?;
            if args.admin.json {
                output::json(context, &session)
            } else {
                context.print(&sheet(&session))
            }
        }
        SessionsAct::Kill { id } => {
            client.delete(&format!("/v1/sessions/{id}")).await?;
            context.note(&format!("Session {id} is ended."))
        }
    }
}

/// Reads a session's id.
pub(crate) fn session(text: &str) -> Result<SessionId, String> {
    text.parse()
        .map_err(|_| "not a session id; copy it from `fairlead sessions list` or from a refusal".to_owned())
}

fn sheet(session: &Session) -> String {
    let mut table = Table::new(&["SESSION", &session.id]);
    table.row(["caller".into(), format!("{} {}", session.kind, session.caller)]);
    table.row(["by".into(), session.proved.clone()]);
    table.row(["from".into(), session.client_ip.clone()]);
    table.row(["endpoint".into(), session.endpoint.clone()]);
    table.row(["agent".into(), format!("{}.{}", session.agent, session.site)]);
    table.row(["rule".into(), session.rule.clone()]);
    table.row(["acts".into(), output::names(&session.acts)]);
    table.row(["since".into(), output::moment(Some(session.started))]);
    table.row(["bytes in".into(), session.bytes_in.to_string()]);
    table.row(["bytes out".into(), session.bytes_out.to_string()]);
    table.to_text()
}

fn table(sessions: &Sessions) -> String {
    let mut table = Table::new(&[
        "SESSION", "CALLER", "FROM", "ENDPOINT", "AGENT", "RULE", "SINCE", "IN", "OUT",
    ]);
    for session in &sessions.sessions {
        table.row([
            session.id.clone(),
            session.caller.clone(),
            session.client_ip.clone(),
            session.endpoint.clone(),
            format!("{}.{}", session.agent, session.site),
            session.rule.clone(),
            output::moment(Some(session.started)),
            session.bytes_in.to_string(),
            session.bytes_out.to_string(),
        ]);
    }
    table.to_text()
}
