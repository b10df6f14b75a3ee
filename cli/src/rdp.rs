//! `fairlead rdp`: an .rdp file with a routing token, for the RDP client that is already there.

use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Args;
use fairlead_identity::name::{EndpointUrl, Protocol};
use fairlead_runtime::config_file::write_private;
use fairlead_runtime::transport::Kind;
use fairlead_wire::call::{Body, Question, RoutingToken, RoutingTokenRequest};

use crate::call::Call;
use crate::command::{CommandError, Context, Exit};
use crate::profile::Profile;

/// Programs that open an .rdp file, the first of them that is installed.
#[cfg(target_os = "macos")]
const CLIENTS: &[&str] = &["open"];
#[cfg(not(target_os = "macos"))]
const CLIENTS: &[&str] = &["xfreerdp3", "xfreerdp", "xdg-open"];

/// Arguments of `fairlead rdp`.
#[derive(Args, Debug)]
#[command(
    after_help = "Writes HOST.SITE.rdp, for mstsc, xfreerdp and other clients that read such files, and prints its name.
The token in it leads to this one endpoint as you: it must be used within a minute and is good for ten more
seconds then, from the address that used it first. Name and password are the desktop's own.

Examples:
  fairlead rdp hmi.plant-7 --open
  fairlead rdp hmi.plant-7 --open -- /u:operator /cert:tofu
  fairlead rdp hmi.plant-7:3390 --out hmi.rdp && xfreerdp hmi.rdp"
)]
pub struct Rdp {
    /// The desktop, HOST.SITE or HOST.SITE:PORT
    #[arg(value_name = "HOST.SITE", value_parser = desktop)]
    desktop: EndpointUrl,
    /// The file to write; HOST.SITE.rdp in this directory unless given
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Start this machine's RDP client with it
    #[arg(long)]
    open: bool,
    /// With --open: more arguments for the client
    #[arg(last = true, requires = "open")]
    arguments: Vec<String>,
}

/// Runs the command; with `--open` the client takes the place of this process.
///
/// # Errors
/// 77 when the gateway says no, 69 when it cannot be reached, 1 otherwise.
pub async fn run(rdp: Rdp, context: &Context) -> Result<(), CommandError> {
    let Rdp {
        desktop,
        out,
        open,
        arguments,
    } = rdp;
    let profile = Profile::locate().map_err(CommandError::failed)?;
    let call = Call::open(&profile, context).await?;
    let url = desktop.to_string();
    let answers = call.ask(Question::RoutingToken(RoutingTokenRequest { url })).await?;
    let token = answers.into_iter().find_map(|body| match body {
        Body::RoutingToken(token) => Some(token),
        _ => None,
    });
    let token = token.ok_or_else(|| {
        CommandError::text(
            Exit::Failed,
            "the gateway gave an answer that this program does not know",
        )
    })?;
    let gateway = gateway(&call, &profile)?;
    drop(call);
    let EndpointUrl { host, site, .. } = &desktop;
    let out = out.unwrap_or_else(|| PathBuf::from(format!("{host}.{site}.rdp")));
    write_private(&out, file(&gateway, &token).as_bytes(), 0o600).map_err(CommandError::failed)?;
    context.print(&out.display().to_string())?;
    if open {
        return Err(start(&out, &arguments));
    }
    context.note(&format!("open it within {} s", token.valid_for_s))
}

/// The gateway that knows the token: where the question went, unless only a proxy knows that.
fn gateway(call: &Call, profile: &Profile) -> Result<String, CommandError> {
    let (kind, remote) = call.peer();
    if kind == Kind::Quic {
        return Ok(SocketAddr::new(remote.ip().to_canonical(), remote.port()).to_string());
    }
    let facts = profile.facts().map_err(CommandError::failed)?;
    let none = || CommandError::text(Exit::Failed, "login kept no gateway address: log in again");
    facts.gateways.into_iter().next().ok_or_else(none)
}

/// The file's text, with the line ends of the system that it comes from.
fn file(gateway: &str, token: &RoutingToken) -> String {
    let token = &token.token;
    let lines = [
        format!("full address:s:{gateway}"),
        format!("loadbalanceinfo:s:Cookie: msts={token}"),
        // A token does not lead there again later.
        "autoreconnection enabled:i:0".to_owned(),
        "gatewayusagemethod:i:0".to_owned(),
        "prompt for credentials:i:0".to_owned(),
        "authentication level:i:2".to_owned(),
        "negotiate security layer:i:1".to_owned(),
    ];
    lines.iter().flat_map(|line| [line.as_str(), "\r\n"]).collect()
}

/// Replaces this process by the client; returns only when there is none.
fn start(file: &Path, arguments: &[String]) -> CommandError {
    for client in CLIENTS {
        let error = Command::new(client).arg(file).args(arguments).exec();
        if error.kind() != std::io::ErrorKind::NotFound {
            return CommandError::failed(anyhow::Error::new(error).context(format!("cannot run {client}")));
        }
    }
    let text = format!(
        "no RDP client is installed (on Debian: apt-get install freerdp2-x11); the file is {}",
        file.display()
    );
    CommandError::text(Exit::Failed, text)
}

/// Reads `HOST.SITE`, also as the URL that it stands for.
fn desktop(text: &str) -> Result<EndpointUrl, String> {
    let url = if text.contains("://") {
        text.to_owned()
    } else {
        format!("rdp://{text}")
    };
    let url: EndpointUrl = url
        .parse()
        .map_err(|error: fairlead_identity::name::NameError| error.to_string())?;
    match url.protocol {
        Protocol::Rdp => Ok(url),
        other => Err(format!("{other} is not RDP; `fairlead connect` leads to everything")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_desktop_is_named_with_or_without_its_protocol() {
        for text in ["hmi.plant-7", "rdp://hmi.plant-7.internal", "HMI.plant-7:3389"] {
            assert_eq!(
                desktop(text).unwrap().to_string(),
                "rdp://hmi.plant-7.internal",
                "{text}"
            );
        }
        assert_eq!(desktop("hmi.plant-7:3390").unwrap().port, 3390);
        for wrong in ["", "10.0.0.1", "tcp://hmi.plant-7:3389", "hmi_1.plant-7"] {
            assert!(desktop(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_file_leads_to_the_gateway_with_the_token() {
        let token = RoutingToken {
            token: "fl1-00".into(),
            valid_for_s: 60,
        };
        let text = file("192.0.2.1:443", &token);
        assert!(
            text.starts_with("full address:s:192.0.2.1:443\r\nloadbalanceinfo:s:Cookie: msts=fl1-00\r\n"),
            "{text}"
        );
    }
}
