//! `fairlead endpoints`: what this person may reach.

use clap::Args;
use fairlead_identity::name::Label;
use fairlead_wire::call::{Body, EndpointsRequest, Question, ReachableEndpoint};
use fairlead_wire::control::Mode;
use serde::Serialize;

use crate::call::Call;
use crate::command::{CommandError, Context, label};
use crate::output::{self, Table};
use crate::profile::Profile;

/// Arguments of `fairlead endpoints`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  fairlead endpoints
  fairlead endpoints --site plant-7 --json")]
pub struct Endpoints {
    /// Only endpoints of this site
    #[arg(long, value_parser = label)]
    site: Option<Label>,
    /// JSON instead of a table
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct List {
    endpoints: Vec<Listed>,
}

/// One endpoint of [`List`].
#[derive(Debug, Serialize)]
struct Listed {
    /// Its URL.
    url: String,
    /// `tunnel` or `builtin`.
    mode: &'static str,
    /// Whether an agent that offers it is linked.
    online: bool,
}

/// Runs the command.
///
/// # Errors
/// 69 when the gateway cannot be reached, 77 when it refuses, 1 otherwise.
pub async fn run(endpoints: Endpoints, context: &Context) -> Result<(), CommandError> {
    let profile = Profile::locate().map_err(CommandError::failed)?;
    let call = Call::open(&profile, context).await?;
    let site = endpoints.site.map_or_else(String::new, |site| site.to_string());
    let pages = call.ask(Question::Endpoints(EndpointsRequest { site })).await?;
    let found = pages.into_iter().flat_map(|page| match page {
        Body::Endpoints(page) => page.endpoints,
        _ => Vec::new(),
    });
    let list = List {
        endpoints: found.map(listed).collect(),
    };
    if endpoints.json {
        return output::json(context, &list);
    }
    let mut table = Table::new(&["URL", "MODE", "STATE"]);
    for endpoint in list.endpoints {
        let state = if endpoint.online { "online" } else { "offline" };
        table.row([endpoint.url, endpoint.mode.into(), state.into()]);
    }
    context.print(&table.to_text())
}

fn listed(endpoint: ReachableEndpoint) -> Listed {
    let mode = match endpoint.mode() {
        Mode::Builtin => "builtin",
        Mode::Tunnel => "tunnel",
        Mode::Unspecified => "other",
    };
    Listed {
        online: endpoint.online,
        url: endpoint.url,
        mode,
    }
}
