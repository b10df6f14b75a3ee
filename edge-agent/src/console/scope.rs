//! `scope`: everything that the file makes reachable, and the file's digest, for an auditor.

use std::fmt::Write as _;

use fairlead_policy::{Effect, RuleOutline};
use fairlead_runtime::config_file::HumanDuration;
use serde_json::{Value, json};

use super::explain::behind;
use super::{Shown, in_force, running};
use crate::config::{Config, Credential, Endpoint, TcpUpstream, Upstream, UpstreamTls};

pub(super) fn show(config: &Config, as_json: bool) -> Shown {
    if as_json {
        let scope = scope_json(config);
        return Shown::good(format!("{scope:#}\n"));
    }
    let mut text = format!(
        "{}\nsha256 {}\n{}\n",
        config.file.display(),
        config.digest,
        in_force(config)
    );
    if config.endpoints.is_empty() {
        text.push_str("\nno endpoints: nothing can be reached through this agent\n");
    }
    for endpoint in &config.endpoints {
        let _infallible = writeln!(text, "\n{}  (line {})", endpoint.url, endpoint.line);
        let _infallible = writeln!(text, "  upstream     {}", behind(&endpoint.upstream));
        if endpoint.credentials.is_empty() {
            text.push_str("  credentials  none injected\n");
        }
        for credential in &endpoint.credentials {
            let _infallible = writeln!(text, "  credentials  {}", injected(credential));
        }
        if let Some(log) = &endpoint.statement_log {
            let _infallible = writeln!(
                text,
                "  statements   written to {}, with the data in them",
                log.display()
            );
        }
        match &endpoint.rules {
            None => text.push_str("  callers      every caller that the gateway permits (no rules)\n"),
            Some(rules) if rules.outline().is_empty() => text.push_str("  callers      nobody (`rules: []`)\n"),
            Some(rules) => rules.outline().iter().for_each(|rule| text.push_str(&rule_text(rule))),
        }
    }
    let _infallible = writeln!(
        text,
        "\nnothing else can be dialled, whatever the gateway says; audit: {}",
        config.audit_file.display()
    );
    Shown::good(text)
}

fn rule_text(rule: &RuleOutline) -> String {
    let shadow = if rule.enforce { "" } else { ", in shadow: not applied" };
    let mut text = format!(
        "  {:<11}  {} (line {}{shadow})\n",
        effect(rule.effect),
        rule.name,
        rule.line
    );
    if let Some(actions) = &rule.actions {
        let _infallible = writeln!(text, "               acts: {}", actions.join(", "));
    }
    for expression in &rule.expressions {
        let _infallible = writeln!(text, "               if {}", expression.trim());
    }
    for (name, limit) in limits(rule) {
        let _infallible = writeln!(
            text,
            "               {name}: {}",
            limit.as_str().unwrap_or(&limit.to_string())
        );
    }
    text
}

fn scope_json(config: &Config) -> Value {
    let agent = running(config);
    let running = match &agent {
        Ok(status) => json!({
            "sha256": status.sha256,
            "same": status.sha256 == config.digest,
            "paused": status.paused.is_some(),
            "after_restart": status.after_restart,
        }),
        Err(why) => json!({ "sha256": null, "why": why }),
    };
    json!({
        "file": config.file,
        "sha256": config.digest,
        "running": running,
        "gateways": config.gateways,
        "audit_file": config.audit_file,
        "endpoints": config.endpoints.iter().map(endpoint_json).collect::<Vec<_>>(),
    })
}

fn endpoint_json(endpoint: &Endpoint) -> Value {
    let (literal, ranges, tls) = match &endpoint.upstream {
        Upstream::BuiltinSsh => (None, None, None),
        Upstream::Tcp(tcp) => (tcp.literal(), Some(&tcp.allow_cidrs), tcp.tls.as_ref()),
    };
    let rules = endpoint.rules.as_ref().map(|rules| rules.outline());
    json!({
        "url": endpoint.url.to_string(),
        "line": endpoint.line,
        "upstream": endpoint.upstream.to_string(),
        "tls": tls.map(UpstreamTls::mode_name),
        "literal_address": literal,
        "allow_cidrs": ranges.map(|ranges| ranges.iter().map(ToString::to_string).collect::<Vec<_>>()),
        "pooling_enabled": endpoint.pooling_enabled,
        "credentials": endpoint.credentials.iter().map(credential_json).collect::<Vec<_>>(),
        "statement_log": endpoint.statement_log,
        "rules": rules.map(|rules| rules.iter().map(rule_json).collect::<Vec<_>>()),
    })
}

/// Names only.
pub(super) fn injected(credential: &Credential) -> String {
    let Credential { requested, user, .. } = credential;
    let file = credential.password_file.display();
    format!("as {requested}: the agent logs in as {user}, password of {file}")
}

fn credential_json(credential: &Credential) -> Value {
    json!({
        "as": credential.requested,
        "user": credential.user,
        "password_file": credential.password_file,
    })
}

fn rule_json(rule: &RuleOutline) -> Value {
    json!({
        "name": rule.name,
        "line": rule.line,
        "effect": effect(rule.effect),
        "enforce": rule.enforce,
        "actions": rule.actions,
        "expressions": rule.expressions,
        "limits": limits(rule).into_iter().collect::<serde_json::Map<_, _>>(),
    })
}

fn limits(rule: &RuleOutline) -> Vec<(String, Value)> {
    let duration = |limit| Value::from(HumanDuration(limit).to_string());
    let limits = &rule.limits;
    let all = [
        ("session", limits.session.map(duration)),
        ("idle", limits.idle.map(duration)),
        ("sessions_per_caller", limits.sessions_per_caller.map(Value::from)),
    ];
    let given = all
        .into_iter()
        .filter_map(|(name, limit)| Some((name.to_owned(), limit?)));
    given.collect()
}

fn effect(effect: Effect) -> &'static str {
    match effect {
        Effect::Allow => "allow",
        Effect::Deny => "deny",
    }
}

/// Which addresses an upstream may be.
pub(super) fn addresses(upstream: &TcpUpstream) -> String {
    if upstream.literal().is_some() {
        return "exactly this address".into();
    }
    let ranges: Vec<String> = upstream.allow_cidrs.iter().map(ToString::to_string).collect();
    let special = "never this host, its links, the gateway or a metadata service";
    match ranges.as_slice() {
        [] => format!("at any address its name gives; {special}"),
        ranges => format!("at addresses in {}; {special}", ranges.join(", ")),
    }
}
