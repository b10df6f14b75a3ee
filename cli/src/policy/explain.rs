//! `fairlead policy explain`: both halves of an answer and what made them.

use clap::Args;
use hyper::Method;

use super::Circumstances;
use crate::admin_client::api::{AccessExplained, AgentWord, ExplainAccess, FactSeen, MqttSupposed, RuleAt, RuleSaid};
use crate::admin_client::{AdminClient, Administration};
use crate::command::{CommandError, Context};
use crate::output::{self, moment, printable};
use crate::supposed::Supposed;

/// Say why.
#[derive(Clone, Debug, Args)]
pub(super) struct Explain {
    /// The caller's name
    #[arg(long = "as", value_name = "CALLER")]
    caller: String,
    /// The endpoint's URL, as in ssh://pump-7.plant-7.internal
    #[arg(long, value_name = "URL")]
    to: String,
    /// One act, such as shell; every act unless given
    #[arg(long)]
    act: Option<String>,
    #[command(flatten)]
    supposed: Supposed,
    #[command(flatten)]
    circumstances: Circumstances,
}

pub(super) async fn run(asked: Explain, admin: &Administration, context: &Context) -> Result<(), CommandError> {
    let request = ExplainAccess {
        caller: asked.caller.clone(),
        to: asked.to.clone(),
        act: asked.act,
        mqtt: asked.supposed.is_any().then(|| MqttSupposed {
            client_id: asked.supposed.client_id.unwrap_or_default(),
            username: asked.supposed.username.unwrap_or_default(),
            topic: asked.supposed.topic,
            qos: asked.supposed.qos.unwrap_or_default(),
            retain: asked.supposed.retain,
        }),
        at: asked.circumstances.at,
        client_ip: asked.circumstances.from.map(|ip| ip.to_string()),
    };
    let client = AdminClient::new(admin, context);
    let answer: AccessExplained = client.send(Method::POST, "/v1/policy/explain", &request).await?;
    if admin.json {
        return output::json(context, &answer);
    }
    context.print(&text(&asked.caller, &asked.to, &answer))
}

/// Where a rule stands: `name (file:line)`.
pub(super) fn place(at: &RuleAt) -> String {
    format!("{} ({}:{})", at.name, at.file, at.line)
}

fn text(caller: &str, to: &str, answer: &AccessExplained) -> String {
    let mut lines = vec![format!(
        "{}: {caller} to {to}, at {} from {}",
        verdict(answer.allowed, answer.reason.as_deref(), answer.rule.as_ref()),
        moment(Some(answer.at)),
        answer.client_ip
    )];
    if !answer.acts.is_empty() {
        lines.push(format!("  acts: {}", output::names(&answer.acts)));
    }
    lines.extend(answer.saw.iter().map(fact));
    lines.extend(answer.notes.iter().map(|note| format!("  note: {note}")));
    answer.rules.iter().for_each(|rule| lines.extend(said(rule)));
    lines.push(left_out(answer));
    lines.push(match &answer.agent {
        Some(agent) => format!("agent {agent}: {}", word(&answer.agent_says)),
        None => "agent: there is none to ask".to_owned(),
    });
    let lines: Vec<String> = lines.iter().map(|line| printable(line)).collect();
    lines.join("\n")
}

fn verdict(allowed: bool, reason: Option<&str>, rule: Option<&RuleAt>) -> String {
    let by = rule.map(|at| format!(" by {}", place(at))).unwrap_or_default();
    match (allowed, reason) {
        (true, _) => format!("allowed{by}"),
        (false, Some(reason)) => format!("denied ({reason}){by}"),
        (false, None) => format!("denied{by}"),
    }
}

fn word(agent: &AgentWord) -> String {
    match agent.allowed {
        Some(allowed) => verdict(allowed, agent.reason.as_deref(), agent.rule.as_ref()),
        None => agent.reason.clone().unwrap_or_default(),
    }
}

fn said(rule: &RuleSaid) -> Vec<String> {
    let shadow = if rule.enforce {
        ""
    } else {
        " (enforce: false, only counted)"
    };
    let word = match (rule.said.as_str(), rule.hidden) {
        ("matches", false) => "matches",
        (_, true) => "is about acts or facts that a tunnel hides",
        ("unknown", _) => "hangs on what is not known here",
        ("failed", _) => "could not be evaluated",
        ("other-acts", _) => "names other acts",
        ("other-protocol", _) => "is about another protocol",
        _ => "does not match",
    };
    let mark = if rule.decides { "=>" } else { "  " };
    let mut lines = vec![format!("{mark} {} {} {word}{shadow}", rule.effect, place(&rule.rule))];
    for part in &rule.parts {
        let why = part.why.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
        lines.push(format!(
            "       {}: {}{why}",
            part.said,
            part.text.split_whitespace().collect::<Vec<_>>().join(" ")
        ));
    }
    lines.extend(rule.saw.iter().map(|seen| format!("     {}", fact(seen))));
    lines
}

fn fact(seen: &FactSeen) -> String {
    format!("  {} = {}", seen.name, seen.value)
}

fn left_out(answer: &AccessExplained) -> String {
    format!(
        "   and {} more rules of this site, {} of others; policy {}",
        answer.more_rules, answer.rules_elsewhere, answer.policy
    )
}
