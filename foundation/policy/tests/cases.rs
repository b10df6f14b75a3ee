//! The tables of cases/: requests and the decisions they must get, also shown in docs/policy.md.
//!
//! Files with `both: true` are decided by the gateway's engine and by the agent's, which must agree in everything but the
//! file of the rule. After changing a table, `FAIRLEAD_WRITE_DOCS=1 cargo nextest run -p fairlead-policy` renews the page.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]
#![expect(
    clippy::disallowed_methods,
    reason = "reads what these tests themselves write; the reader of configuration files is no dependency of this crate"
)]

use fairlead_policy::{
    AccessPolicy, AgentFacts, Caller, CallerKind, Conn, Decision, Enforcement, LocalRules, MqttAct, MqttFacts, Request,
    RuleAsWritten, ShadowMatch, Source, SshFacts,
};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    about: String,
    #[serde(default)]
    both: bool,
    policy: String,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    #[serde(rename = "as")]
    caller: AsWritten,
    agent: Option<AgentWritten>,
    to: String,
    acts: Option<Vec<String>>,
    ip: Option<String>,
    now: Option<String>,
    started: Option<String>,
    ssh: Option<SshWritten>,
    mqtt: Option<MqttWritten>,
    expect: String,
    reason: Option<String>,
    rule: Option<String>,
    allowed: Option<Vec<String>>,
    shadow: Option<Vec<String>>,
    session: Option<String>,
    idle: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AsWritten {
    name: String,
    kind: Option<String>,
    #[serde(default)]
    groups: Vec<String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    site: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct AgentWritten {
    name: Option<String>,
    site: Option<String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SshWritten {
    user: String,
    action: String,
    #[serde(default)]
    command: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MqttWritten {
    #[serde(default)]
    client_id: String,
    #[serde(default)]
    username: String,
    publish: Option<String>,
    subscribe: Option<String>,
    #[serde(default)]
    qos: u8,
    #[serde(default)]
    retain: bool,
}

impl MqttWritten {
    fn facts(&self) -> MqttFacts {
        let topic = |topic: &Option<String>, action| topic.clone().map(|topic| (action, topic));
        let asked = topic(&self.publish, "publish").or_else(|| topic(&self.subscribe, "subscribe"));
        MqttFacts {
            client_id: self.client_id.clone(),
            username: self.username.clone(),
            act: asked.map(|(action, topic)| MqttAct {
                action,
                topic,
                qos: self.qos,
                retain: self.retain,
            }),
        }
    }
}

#[derive(Deserialize)]
struct RulesOnly {
    rules: Vec<RuleAsWritten>,
}

const SSH_ALL: &[&str] = &["shell", "exec", "sftp"];
const MQTT_ALL: &[&str] = &["publish", "subscribe"];

fn request(case: &Case) -> Request {
    let endpoint: fairlead_identity::name::EndpointUrl = case.to.parse().unwrap();
    let written = case.agent.as_ref();
    let agent = AgentFacts {
        name: written
            .and_then(|a| a.name.clone())
            .unwrap_or_else(|| endpoint.host.to_string()),
        site: written
            .and_then(|a| a.site.clone())
            .unwrap_or_else(|| endpoint.site.to_string()),
        labels: written.map(|a| a.labels.clone()).unwrap_or_default(),
    };
    let caller = Caller {
        name: case.caller.name.clone(),
        kind: CallerKind::from_name(case.caller.kind.as_deref().unwrap_or("user")).unwrap(),
        groups: case.caller.groups.clone(),
        labels: case.caller.labels.clone(),
        site: case.caller.site.clone(),
    };
    let now = moment(case.now.as_deref().unwrap_or("2026-01-01T12:00:00Z"));
    Request {
        caller,
        agent,
        endpoint,
        conn: Conn {
            client_ip: case.ip.as_deref().unwrap_or("192.0.2.1").parse().unwrap(),
            client_port: 40_000,
            started: case.started.as_deref().map_or(now, moment),
            tls: None,
        },
        now,
        enforce: enforcement(case.acts.as_deref()),
        ssh: case.ssh.as_ref().map(|s| SshFacts {
            user: s.user.clone(),
            action: s.action.clone(),
            command: s.command.clone(),
        }),
        postgres: None,
        mqtt: case.mqtt.as_ref().map(MqttWritten::facts),
    }
}

fn enforcement(acts: Option<&[String]>) -> Enforcement {
    let Some(acts) = acts else { return Enforcement::Tunnel };
    let all = [SSH_ALL, MQTT_ALL, &["shell"], &["sftp"]];
    let same = all.into_iter().find(|all| *all == acts);
    Enforcement::Acts(same.unwrap_or_else(|| panic!("add {acts:?} to the test")))
}

fn moment(text: &str) -> SystemTime {
    OffsetDateTime::parse(text, &Rfc3339).unwrap().into()
}

/// What is wrong with a decision, if anything.
fn wrong(case: &Case, decision: &Decision, shadow: &[ShadowMatch]) -> Option<String> {
    let (effect, reason, rule) = match decision {
        Decision::Allow(a) => ("allow", None, Some(a.rule.name.clone())),
        Decision::Deny(d) => (
            "deny",
            Some(d.reason.to_string()),
            d.rule.as_ref().map(|r| r.name.clone()),
        ),
    };
    let mut right = effect == case.expect;
    // A denial always names its reason, and no rule where it says none.
    right &= effect == "allow" || (reason == case.reason && rule == case.rule);
    right &= case.rule.is_none() || rule == case.rule;
    if let Decision::Allow(allowed) = decision {
        let acts: Vec<String> = allowed.acts.iter().cloned().collect();
        right &= case.allowed.as_ref().is_none_or(|expected| *expected == acts);
        right &= case.acts.is_some() != acts.is_empty();
        right &= case
            .session
            .as_deref()
            .is_none_or(|s| allowed.limits.session == Some(hours_or_minutes(s)));
        right &= case
            .idle
            .as_deref()
            .is_none_or(|s| allowed.limits.idle == Some(hours_or_minutes(s)));
    }
    let names: Vec<&str> = shadow.iter().map(|s| s.rule.name.as_str()).collect();
    right &= case
        .shadow
        .as_ref()
        .map_or(names.is_empty(), |expected| *expected == names);
    (!right).then(|| format!("{decision:?}, shadow {names:?}"))
}

fn hours_or_minutes(text: &str) -> Duration {
    let (number, unit) = text.split_at(text.len() - 1);
    let unit = if unit == "h" { 3600 } else { 60 };
    Duration::from_secs(number.parse::<u64>().unwrap() * unit)
}

fn room() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn tables() -> Vec<(String, Table)> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(room().join("cases"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files
        .iter()
        .map(|path| {
            (
                stem(path),
                serde_yaml::from_str(&std::fs::read_to_string(path).unwrap()).unwrap(),
            )
        })
        .collect()
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap().to_string_lossy().into_owned()
}

/// The decision with the parts that differ between the two ends made equal.
fn comparable(mut decision: Decision) -> Decision {
    let rule = match &mut decision {
        Decision::Allow(allowed) => Some(&mut allowed.rule),
        Decision::Deny(denied) => denied.rule.as_mut(),
    };
    if let Some(rule) = rule {
        rule.file.clear();
        rule.line = 0;
    }
    decision
}

#[test]
fn every_case_gets_its_decision() {
    let (mut failures, mut count) = (String::new(), 0);
    for (file, table) in tables() {
        let source = Source {
            name: file.clone(),
            text: table.policy.clone(),
        };
        let (policy, _) = AccessPolicy::compile(&[source]).unwrap_or_else(|mistakes| {
            panic!(
                "{file}: {}",
                mistakes.iter().map(|m| format!("{m}\n")).collect::<String>()
            )
        });
        let local = table.both.then(|| {
            let text = table.policy.replace("sites: ['*'], ", "");
            let rules: RulesOnly = serde_yaml::from_str(&text).unwrap();
            LocalRules::compile(&file, &text, &rules.rules).unwrap()
        });
        for case in &table.cases {
            count += 1;
            let request = request(case);
            let (decision, shadow) = policy.decide_with_shadow(&request);
            if let Some(got) = wrong(case, &decision, &shadow) {
                let _ = writeln!(failures, "{file}: {}: {got}", case.name);
            }
            if let Some(local) = &local {
                let (other, other_shadow) = local.decide_with_shadow(&request);
                assert_eq!(comparable(decision), comparable(other), "{file}: {}", case.name);
                assert_eq!(shadow.len(), other_shadow.len(), "{file}: {}", case.name);
            }
        }
    }
    assert!(failures.is_empty(), "\n{failures}");
    assert!(count >= 80, "only {count} cases");
}

#[test]
fn the_page_shows_the_cases() {
    let page = room().join("../../docs/policy.md");
    let written = std::fs::read_to_string(&page).unwrap();
    let (begin, end) = ("<!-- cases: written by tests/cases.rs -->\n", "<!-- end of cases -->");
    let (before, rest) = written.split_once(begin).unwrap();
    let (_, after) = rest.split_once(end).unwrap();
    let renewed = format!("{before}{begin}{}{end}{after}", shown());
    if std::env::var_os("FAIRLEAD_WRITE_DOCS").is_some() {
        std::fs::write(&page, &renewed).unwrap();
    }
    assert!(
        written == renewed,
        "docs/policy.md does not show the cases as they are; see the head of this file"
    );
}

#[test]
fn the_example_of_the_page_loads() {
    let page = std::fs::read_to_string(room().join("../../docs/policy.md")).unwrap();
    let example = page
        .split("```yaml\n")
        .nth(1)
        .and_then(|rest| rest.split("```").next())
        .unwrap();
    let source = Source {
        name: "policy.md".to_owned(),
        text: example.to_owned(),
    };
    let (policy, _) = AccessPolicy::compile(&[source]).unwrap_or_else(|mistakes| panic!("{}", mistakes[0]));
    assert_eq!(policy.rule_count(), 1);
}

fn shown() -> String {
    let mut page = String::new();
    for (file, table) in tables() {
        let rules: String = table
            .policy
            .lines()
            .skip(2)
            .map(|line| format!("{}\n", line.trim_start()))
            .collect();
        let _ = write!(
            page,
            "\n### {file}\n{}\n\n```yaml\n{rules}```\n\n| case | decision |\n|---|---|\n",
            table.about
        );
        for case in &table.cases {
            let detail = case
                .allowed
                .as_ref()
                .map(|acts| acts.join(", "))
                .or(case.reason.clone());
            let rule = case.rule.as_ref().map(|rule| format!(" by *{rule}*"));
            let detail = detail.map(|d| format!(" ({d})"));
            let _ = writeln!(
                page,
                "| {} | {}{}{} |",
                case.name,
                case.expect,
                detail.unwrap_or_default(),
                rule.unwrap_or_default()
            );
        }
    }
    page.push('\n');
    page
}
