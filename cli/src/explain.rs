//! `fairlead explain`: whether this person would be let in to one endpoint, in the words that a caller may hear.

use clap::Args;
use fairlead_identity::name::EndpointUrl;
use fairlead_policy::Enforcement;
use fairlead_wire::call::{Body, ExplainRequest, Outlook, Question};
use fairlead_wire::mqtt;
use serde::Serialize;

use crate::call::Call;
use crate::command::{CommandError, Context, Exit};
use crate::output;
use crate::profile::Profile;
use crate::supposed::Supposed;

/// Arguments of `fairlead explain`.
#[derive(Args, Debug)]
#[command(after_help = "Prints one word and exits with 0, or with 77 for `denied`:
  allowed   a session would be permitted now
  depends   on what the client asks for first (a database and its user, a topic)
  offline   permitted, but no agent that offers the endpoint is connected
  denied    not permitted, or there is no such endpoint
What the endpoint's own side allows beyond that shows when a session opens.

Examples:
  fairlead explain ssh://pump-7.plant-7 --act shell
  fairlead explain mqtt://broker.plant-7 --act publish --topic plant-7/pump-7/state --retain
  fairlead explain postgres://billing.clinic1 && psql -p 15432 -h 127.0.0.1")]
pub struct Explain {
    /// The endpoint, such as ssh://pump-7.plant-7.internal
    #[arg(value_name = "URL")]
    url: EndpointUrl,
    /// One act of the endpoint's protocol, such as shell, exec or sftp
    #[arg(long)]
    act: Option<String>,
    #[command(flatten)]
    supposed: Supposed,
    /// JSON instead of a word
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Answer {
    /// The endpoint's canonical URL.
    url: String,
    /// `allowed`, `depends`, `offline` or `denied`.
    answer: &'static str,
}

/// What is supposed, as it travels.
fn wire(supposed: Supposed) -> mqtt::Supposed {
    let Supposed {
        client_id,
        username,
        topic,
        qos,
        retain,
    } = supposed;
    mqtt::Supposed {
        client_id: client_id.unwrap_or_default(),
        username: username.unwrap_or_default(),
        about: topic.map(|topic| mqtt::About {
            topic,
            qos: u32::from(qos.unwrap_or_default()),
            retain,
        }),
    }
}

/// Runs the command.
///
/// # Errors
/// 77 when the answer is `denied` or the gateway refuses to give one, 69 when it cannot be reached, 64 for an act that
/// the protocol does not have, 1 otherwise.
pub async fn run(explain: Explain, context: &Context) -> Result<(), CommandError> {
    let Explain {
        url,
        act,
        supposed,
        json,
    } = explain;
    supposed.check(&url)?;
    if let Some(act) = &act
        && Enforcement::one(url.protocol, act).is_none()
    {
        let known = match Enforcement::acts_of(url.protocol) {
            [] => "none that can be named".to_owned(),
            acts => acts.join(", "),
        };
        let text = format!("{act} is no act of {}; its acts: {known}", url.protocol);
        return Err(CommandError::usage(text));
    }
    let profile = Profile::locate().map_err(CommandError::failed)?;
    let call = Call::open(&profile, context).await?;
    let request = ExplainRequest {
        url: url.to_string(),
        act: act.unwrap_or_default(),
        mqtt: supposed.is_any().then(|| wire(supposed)),
    };
    let answers = call.ask(Question::Explain(request)).await?;
    let said = answers.into_iter().find_map(|body| match body {
        Body::Foreseen(foreseen) => Some(foreseen.outlook()),
        _ => None,
    });
    let answer = match said.unwrap_or(Outlook::Unspecified) {
        Outlook::Allowed => "allowed",
        Outlook::Depends => "depends",
        Outlook::Offline => "offline",
        Outlook::Denied => "denied",
        Outlook::Unspecified => {
            return Err(CommandError::text(
                Exit::Failed,
                "the gateway gave an answer that this program does not know",
            ));
        }
    };
    if json {
        let url = url.to_string();
        output::json(context, &Answer { url, answer })?;
    } else {
        context.print(answer)?;
    }
    match answer {
        "denied" => Err(CommandError::text(
            Exit::Denied,
            format!("{url}: not permitted, or there is no such endpoint"),
        )),
        _ => Ok(()),
    }
}
