//! What `explain` says: the deciding rule with file and line, the part that was not true, the values it saw.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

use fairlead_policy::{
    AccessPolicy, AgentFacts, Caller, CallerKind, Conn, Decision, DenyReason, Enforcement, Explanation,
    MAX_EXPLAINED_RULES, Request, RuleExplained, Said, Source,
};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::{Duration, UNIX_EPOCH};

const FIELD: &str = "\
version: 1
rules:
  - name: field-ssh
    sites: [plant-7]
    effect: allow
    expressions:
      - \"'field' in caller.groups\"
      - \"endpoint.protocol == 'ssh' && agent.labels['tier'] == 'edge'\"
  - { name: suspended, sites: ['*'], effect: deny, expressions: [\"'suspended' in caller.groups\"] }
  - { name: badge, sites: ['*'], effect: deny, expressions: [\"'guests' in caller.groups && int(caller.labels['badge']) < 100\"] }
";
const NIGHT: &str = "\
version: 1
rules:
  - { name: shells, sites: [plant-8], effect: allow, actions: [shell], expressions: [\"'ops' in caller.groups\"] }
  - name: not at night
    sites: [plant-8]
    effect: deny
    expressions: [\"time.now.getHours('Europe/Berlin') < 6\"]
  - { name: etl, sites: [plant-9], effect: allow, expressions: [\"caller.name == 'etl' && endpoint.port in [5432, 5433]\"] }
  - { name: no root, sites: [plant-9], effect: deny, expressions: [\"ssh.user == 'root'\"] }
  - { name: office, sites: [plant-9], effect: deny, expressions: [\"!inCidrRange(conn.client_ip, '10.0.0.0/8')\", \"caller.name == 'far'\"] }
";

fn policy() -> AccessPolicy {
    let source = |name: &str, text: &str| Source {
        name: name.to_owned(),
        text: text.to_owned(),
    };
    let compiled = AccessPolicy::compile(&[source("field.yaml", FIELD), source("night.yaml", NIGHT)]);
    compiled.unwrap_or_else(|mistakes| panic!("{}", mistakes[0])).0
}

struct Ask {
    caller: &'static str,
    groups: &'static [&'static str],
    labels: &'static [(&'static str, &'static str)],
    tier: &'static str,
    to: &'static str,
    act: Option<&'static str>,
    hour: u64,
}

const ALICE: Ask = Ask {
    caller: "alice",
    groups: &["field"],
    labels: &[],
    tier: "edge",
    to: "ssh://pump-7.plant-7",
    act: None,
    hour: 12,
};

fn request(ask: &Ask) -> Request {
    let now = UNIX_EPOCH + Duration::from_secs(1_767_225_600 + ask.hour * 3600);
    let endpoint: fairlead_identity::name::EndpointUrl = ask.to.parse().unwrap();
    let text = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    Request {
        caller: Caller {
            name: ask.caller.to_owned(),
            kind: CallerKind::User,
            groups: ask.groups.iter().map(|g| (*g).to_owned()).collect(),
            labels: ask.labels.iter().map(text).collect(),
            site: None,
        },
        agent: AgentFacts {
            name: endpoint.host.to_string(),
            site: endpoint.site.to_string(),
            labels: BTreeMap::from([("tier".to_owned(), ask.tier.to_owned())]),
        },
        conn: Conn {
            client_ip: "192.0.2.1".parse().unwrap(),
            client_port: 1,
            started: now,
            tls: None,
        },
        now,
        enforce: ask.act.map_or(Enforcement::Tunnel, |act| {
            Enforcement::one(endpoint.protocol, act).unwrap()
        }),
        endpoint,
        ssh: None,
        postgres: None,
        mqtt: None,
    }
}

/// The answer, and `file:line` of the first rule told about.
fn first(explanation: &Explanation) -> (Option<DenyReason>, String, &RuleExplained) {
    let reason = match &explanation.decision {
        Decision::Allow(_) => None,
        Decision::Deny(denied) => Some(denied.reason),
    };
    let rule = &explanation.rules[0];
    (reason, format!("{}:{}", rule.rule.file, rule.rule.line), rule)
}

#[test]
fn ten_denials_name_their_rule_file_and_line() {
    let policy = policy();
    // The request, the reason, where the rule stands, what it said, the part, and a value it saw.
    let chosen: [(Ask, DenyReason, &str, Said, &str, &str); 10] = [
        (
            Ask {
                groups: &["fields"],
                ..ALICE
            },
            DenyReason::NoRule,
            "field.yaml:3",
            Said::False,
            "'field' in caller.groups",
            "caller.groups = ['fields']",
        ),
        (
            Ask { tier: "core", ..ALICE },
            DenyReason::NoRule,
            "field.yaml:3",
            Said::False,
            "agent.labels['tier'] == 'edge'",
            "agent.labels['tier'] = 'core'",
        ),
        (
            Ask {
                to: "tcp://pump-7.plant-7:80",
                ..ALICE
            },
            DenyReason::NoRule,
            "field.yaml:3",
            Said::False,
            "endpoint.protocol == 'ssh'",
            "endpoint.protocol = 'tcp'",
        ),
        (
            Ask {
                groups: &["field", "suspended"],
                ..ALICE
            },
            DenyReason::DenyRule,
            "field.yaml:9",
            Said::Matches,
            "",
            "caller.groups = ['field', 'suspended']",
        ),
        (
            Ask {
                groups: &["field", "guests"],
                labels: &[("badge", "x")],
                ..ALICE
            },
            DenyReason::EvaluationFailed,
            "field.yaml:10",
            Said::Failed,
            "int(caller.labels['badge']) < 100",
            "caller.labels['badge'] = 'x'",
        ),
        (
            Ask {
                groups: &["field", "guests"],
                labels: &[("badge", "7")],
                ..ALICE
            },
            DenyReason::DenyRule,
            "field.yaml:10",
            Said::Matches,
            "",
            "caller.labels['badge'] = '7'",
        ),
        (
            Ask {
                groups: &["ops"],
                to: "ssh://p.plant-8",
                ..ALICE
            },
            DenyReason::NeedsTerminated,
            "night.yaml:3",
            Said::Matches,
            "",
            "caller.groups = ['ops']",
        ),
        (
            Ask {
                groups: &["ops"],
                to: "ssh://p.plant-8",
                act: Some("shell"),
                hour: 2,
                ..ALICE
            },
            DenyReason::DenyRule,
            "night.yaml:4",
            Said::Matches,
            "",
            "time.now = 2026-01-01T02:00:00Z",
        ),
        (
            Ask {
                caller: "etl",
                to: "postgres://db.plant-9:5444",
                ..ALICE
            },
            DenyReason::NoRule,
            "night.yaml:8",
            Said::False,
            "endpoint.port in [5432, 5433]",
            "endpoint.port = 5444",
        ),
        (
            Ask {
                caller: "far",
                to: "postgres://db.plant-9",
                ..ALICE
            },
            DenyReason::DenyRule,
            "night.yaml:10",
            Said::Matches,
            "",
            "conn.client_ip = '192.0.2.1'",
        ),
    ];
    for (ask, reason, place, said, part, value) in &chosen {
        let explanation = policy.explain(&request(ask));
        let shown = format!("{explanation:#?}");
        assert_eq!(explanation.decision, policy.decide(&request(ask)));
        let (got, at, rule) = first(&explanation);
        assert_eq!((got, at.as_str(), rule.said), (Some(*reason), *place, *said), "{shown}");
        assert_eq!(rule.decides, *reason != DenyReason::NoRule, "{shown}");
        assert_eq!(rule.parts.first().map_or("", |p| p.text.as_str()), *part, "{shown}");
        let saw: Vec<String> = rule.saw.iter().map(|s| format!("{} = {}", s.name, s.value)).collect();
        assert!(saw.iter().any(|s| s == value), "{value} is not in {saw:?}");
    }
}

#[test]
fn why_a_part_failed_is_said() {
    let policy = policy();
    let guest = Ask {
        groups: &["field", "guests"],
        labels: &[("badge", "x")],
        ..ALICE
    };
    let explanation = policy.explain(&request(&guest));
    let part = &explanation.rules[0].parts[0];
    assert_eq!(part.said, Said::Failed);
    assert!(part.why.is_some(), "{part:?}");
    let root = Ask {
        to: "ssh://p.plant-9",
        act: Some("shell"),
        ..ALICE
    };
    let explanation = policy.explain(&request(&root));
    let rule = &explanation.rules[0];
    assert_eq!((rule.said, rule.hidden), (Said::Unknown, false));
    assert_eq!(rule.parts[0].why.as_deref(), Some("`ssh.user` is not known here"));
    assert_eq!(rule.saw[0].value, "not known here");
}

#[test]
fn a_caller_of_another_site_is_told_without_a_rule() {
    let mut request = request(&ALICE);
    request.caller.site = Some("plant-8".to_owned());
    let explanation = policy().explain(&request);
    assert!(explanation.rules.is_empty());
    assert_eq!(explanation.saw[0].value, "'plant-8'");
}

#[test]
fn the_nearest_of_many_rules_are_told() {
    let mut text = String::from("version: 1\nrules:\n");
    for number in 0..200 {
        let _ = writeln!(
            text,
            "- {{name: r{number}, sites: [plant-7], effect: allow, expressions: [\"caller.name == 'nobody' && endpoint.port == {number}\"]}}"
        );
    }
    let source = Source {
        name: "many.yaml".to_owned(),
        text,
    };
    let policy = AccessPolicy::compile(&[source]).unwrap().0;
    let explanation = policy.explain(&request(&ALICE));
    assert_eq!((explanation.rules.len(), explanation.more), (MAX_EXPLAINED_RULES, 150));
    assert_eq!(
        explanation.rules[0].rule.name, "r22",
        "the port is right, only the name is not"
    );
    assert_eq!(explanation.elsewhere, 0);
}
