//! `fairlead revoke`: shutting out, at once and for good.

use clap::{Args, Subcommand};
use fairlead_identity::name::Label;
use fairlead_wire::id::SessionId;
use hyper::Method;

use crate::admin_client::api::{Revoke, Revoked};
use crate::admin_client::{AdminClient, Administration};
use crate::command::{CommandError, Context, label, site_and_name};
use crate::output;
use crate::sessions::session;

/// Shut out an agent, a user, a workload, a login key, a session or a join string: what lives is cut within 2 s, nothing new is let in.
#[derive(Clone, Debug, Args)]
pub struct RevokeArgs {
    #[command(flatten)]
    admin: Administration,
    #[command(subcommand)]
    act: RevokeAct,
}

#[derive(Clone, Debug, Subcommand)]
#[command(after_help = "Examples:
  fairlead revoke user alice
  fairlead revoke agent pump-7.plant-7
  fairlead revoke login-key SHA256:q3v")]
enum RevokeAct {
    /// An agent: its link and sessions end, its key is good for nothing; it stays known until it is deleted or replaced
    Agent {
        /// NAME.SITE; NAME alone is in site default
        agent: String,
    },
    /// A user: disabled, login keys and join strings gone; registered keys are good again when the user is enabled
    User {
        /// The user
        #[arg(value_parser = label)]
        name: Label,
    },
    /// A workload: disabled, keys and join strings gone
    Workload {
        /// The workload
        #[arg(value_parser = label)]
        name: Label,
    },
    /// The login key of one machine; certificates that were issued to it are good no longer
    LoginKey {
        /// Its fingerprint, or an unmistakable beginning of it; see `fairlead users keys NAME`
        fingerprint: String,
    },
    /// A join string that was not used up; what was enrolled by it stays
    Token {
        /// Its id, or an unmistakable beginning of it; see `fairlead token list`
        id: String,
    },
    /// A live session
    Session {
        /// The session's id
        #[arg(value_parser = session)]
        id: SessionId,
    },
}

/// Runs the command.
///
/// # Errors
/// Those of the gateway and of the way to it.
pub async fn run(args: RevokeArgs, context: &Context) -> Result<(), CommandError> {
    let client = AdminClient::new(&args.admin, context);
    let revoked: Revoked = client
        .send(Method::POST, "/v1/revocations", &request(args.act)?)
        .await?;
    if args.admin.json {
        return output::json(context, &revoked);
    }
    let of = revoked.of.map_or_else(String::new, |of| format!(" of {of}"));
    let cut = match (revoked.kind.as_str(), revoked.sessions) {
        ("session" | "token", _) => String::new(),
        (_, 1) => "; 1 live session ends".to_owned(),
        (_, sessions) => format!("; {sessions} live sessions end"),
    };
    context.note(&format!("Revoked: {} {}{of}{cut}.", revoked.kind, revoked.id))
}

fn request(act: RevokeAct) -> Result<Revoke, CommandError> {
    let none = Revoke::default();
    Ok(match act {
        RevokeAct::Agent { agent } => {
            let (site, name) = site_and_name(&agent)?;
            let agent = Some(format!("{name}.{site}"));
            Revoke { agent, ..none }
        }
        RevokeAct::User { name } => Revoke {
            user: Some(name.to_string()),
            ..none
        },
        RevokeAct::Workload { name } => Revoke {
            workload: Some(name.to_string()),
            ..none
        },
        RevokeAct::LoginKey { fingerprint } => Revoke {
            login_key: Some(fingerprint),
            ..none
        },
        RevokeAct::Token { id } => Revoke {
            token: Some(id),
            ..none
        },
        RevokeAct::Session { id } => Revoke {
            session: Some(id.to_string()),
            ..none
        },
    })
}
