//! The `tests:` of an access file: requests with the answer their author expects, run whenever the file is loaded.

mod mqtt;

use crate::decide::RuleSet;
use crate::fields::{Fields, Word, name, word, words};
use crate::mistake::{At, Report};
use crate::request::{AgentFacts, Caller, CallerKind, Conn, Decision, Effect, Enforcement, Request};
use crate::shape;
use crate::suggest;
use crate::yaml::{Data, Node};
use fairlead_identity::name::{EndpointUrl, Protocol};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Most evaluations of rules by all tests of a set: tests times rules. Beyond it a load would take longer than an operator
/// waits.
const MAX_EVALUATIONS: usize = 1_000_000;
/// `now` of a test that does not say: 2026-01-01T12:00:00Z, a Thursday.
const DEFAULT_NOW: Duration = Duration::from_secs(1_767_268_800);
/// `client_ip` of a test that does not say; an address reserved for documentation (RFC 5737).
const DEFAULT_CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

/// One test.
pub(crate) struct Test {
    at: At,
    name: String,
    request: Request,
    expect: Effect,
    rule: Option<Word>,
}

impl Test {
    pub(crate) fn read(node: &Node, report: &mut Report<'_>) -> Option<Self> {
        let mut fields = Fields::of(node, &shape::TEST, report)?;
        let name = fields.required("name", report).and_then(|n| name(n, report));
        let expect = fields.required("expect", report).and_then(|n| expectation(n, report));
        let endpoint = fields
            .required("endpoint", report)
            .and_then(|n| parsed::<EndpointUrl>(n, "endpoint", report));
        let caller = fields.required("caller", report).and_then(|n| caller(n, report));
        let agent = fields.optional("agent");
        let agent = endpoint.as_ref().and_then(|e| agent_of(agent, e, report));
        let client_ip = fields
            .optional("client_ip")
            .map_or(Some(DEFAULT_CLIENT), |n| parsed(n, "client_ip", report))?;
        let now = fields
            .optional("now")
            .map_or(Some(UNIX_EPOCH + DEFAULT_NOW), |n| moment(n, report))?;
        let act = fields.optional("act");
        let enforce = endpoint.as_ref().and_then(|e| enforcement(act, e.protocol, report));
        let said = fields.optional("mqtt");
        let mqtt = match (&endpoint, enforce) {
            (Some(endpoint), Some(enforce)) => mqtt::facts(said, endpoint.protocol, enforce, report),
            _ => None,
        };
        let rule = fields.optional("rule").and_then(|n| word(n, "rule", report));
        let request = Request {
            caller: caller?,
            agent: agent?,
            endpoint: endpoint?,
            conn: Conn {
                client_ip,
                client_port: 40_000,
                started: now,
                tls: None,
            },
            now,
            enforce: enforce?,
            ssh: None,
            postgres: None,
            mqtt: mqtt?,
        };
        Some(Self {
            at: node.at,
            name: name?.text,
            request,
            expect: expect?,
            rule,
        })
    }
}

/// Runs the tests of each file and reports the failed ones there.
pub(crate) fn run(rules: &RuleSet, tests: &[Vec<Test>], reports: &mut [Report<'_>]) {
    let count: usize = tests.iter().map(Vec::len).sum();
    let cost = count.saturating_mul(rules.len());
    for (tests, report) in tests.iter().zip(reports) {
        if let Some(first) = tests.first().filter(|_| cost > MAX_EVALUATIONS) {
            let message = format!(
                "{count} tests on {} rules are more than {MAX_EVALUATIONS} evaluations",
                rules.len()
            );
            report.mistake(
                first.at,
                message,
                Some("keep tests beside a part of the rules, or write fewer".to_owned()),
            );
            continue;
        }
        for test in tests {
            if let Some((message, help)) = failure(test, &rules.decide(&test.request)) {
                report.mistake(test.at, format!("test `{}` failed: {message}", test.name), help);
            }
        }
    }
}

fn failure(test: &Test, decision: &Decision) -> Option<(String, Option<String>)> {
    let (effect, rule, got) = match decision {
        Decision::Allow(allowed) => (Effect::Allow, Some(&allowed.rule), "allowed".to_owned()),
        Decision::Deny(denied) => (
            Effect::Deny,
            denied.rule.as_ref(),
            format!("denied ({})", denied.reason),
        ),
    };
    let by = rule.map(|r| format!("by rule `{}` at {}:{}", r.name, r.file, r.line));
    if effect != test.expect {
        let expected = if test.expect == Effect::Allow { "allow" } else { "deny" };
        return Some((format!("expected {expected}, got {got}"), by));
    }
    let expected = test.rule.as_ref()?;
    let right = rule.is_some_and(|r| r.name == expected.text);
    (!right).then(|| (format!("{got} as expected, but not by rule `{}`", expected.text), by))
}

fn expectation(node: &Node, report: &mut Report<'_>) -> Option<Effect> {
    let written = word(node, "expect", report)?;
    let effect = match written.text.as_str() {
        "allow" => Some(Effect::Allow),
        "deny" => Some(Effect::Deny),
        _ => None,
    };
    if effect.is_none() {
        report.mistake(
            node.at,
            "`expect` is allow or deny",
            Some(suggest::help(&written.text, &["allow", "deny"])),
        );
    }
    effect
}

fn caller(node: &Node, report: &mut Report<'_>) -> Option<Caller> {
    let mut fields = Fields::of(node, &shape::CALLER, report)?;
    let kind = match fields.optional("kind").and_then(|n| word(n, "kind", report)) {
        None => CallerKind::User,
        Some(written) => CallerKind::from_name(&written.text).unwrap_or_else(|| {
            let help = suggest::help(&written.text, &["user", "workload", "unidentified"]);
            report.mistake(written.at, "no such kind of caller", Some(help));
            CallerKind::User
        }),
    };
    let name = fields.required("name", report).and_then(|n| word(n, "name", report));
    let groups = fields
        .optional("groups")
        .and_then(|n| words(n, "groups", report))
        .unwrap_or_default();
    let labels = fields.optional("labels").map(|n| labels(n, report)).unwrap_or_default();
    let site = fields
        .optional("site")
        .and_then(|n| word(n, "site", report))
        .map(|w| w.text);
    Some(Caller {
        name: name?.text,
        kind,
        groups: groups.into_iter().map(|w| w.text).collect(),
        labels,
        site,
    })
}

/// The agent as written; what is not written comes from the endpoint.
fn agent_of(node: Option<&Node>, endpoint: &EndpointUrl, report: &mut Report<'_>) -> Option<AgentFacts> {
    let mut agent = AgentFacts {
        name: endpoint.host.to_string(),
        site: endpoint.site.to_string(),
        labels: BTreeMap::new(),
    };
    let Some(node) = node else { return Some(agent) };
    let mut fields = Fields::of(node, &shape::AGENT_OF_TEST, report)?;
    if let Some(written) = fields.optional("name") {
        agent.name = word(written, "name", report)?.text;
    }
    if let Some(written) = fields.optional("site") {
        agent.site = word(written, "site", report)?.text;
    }
    agent.labels = fields.optional("labels").map(|n| labels(n, report)).unwrap_or_default();
    Some(agent)
}

fn labels(node: &Node, report: &mut Report<'_>) -> BTreeMap<String, String> {
    let Data::Map(entries) = &node.data else {
        report.mistake(node.at, format!("`labels` is a map, not {}", node.kind()), None);
        return BTreeMap::new();
    };
    let mut labels = BTreeMap::new();
    for (key, value) in entries {
        if let (Some(key), Some(value)) = (word(key, "labels", report), word(value, "labels", report))
            && labels.insert(key.text.clone(), value.text).is_some()
        {
            report.mistake(key.at, format!("`{}` is written twice in labels", key.text), None);
        }
    }
    labels
}

/// A tunnel, unless the test names an act; of MQTT every act is told apart.
fn enforcement(node: Option<&Node>, protocol: Protocol, report: &mut Report<'_>) -> Option<Enforcement> {
    let Some(node) = node else {
        return Some(match protocol {
            Protocol::Mqtt => Enforcement::Acts(Enforcement::acts_of(protocol)),
            _ => Enforcement::Tunnel,
        });
    };
    let written = word(node, "act", report)?;
    let one = Enforcement::one(protocol, &written.text);
    if one.is_none() {
        report.mistake(
            node.at,
            format!("{protocol} has no act `{}`", written.text),
            Some(suggest::help(&written.text, Enforcement::acts_of(protocol))),
        );
    }
    one
}

fn moment(node: &Node, report: &mut Report<'_>) -> Option<SystemTime> {
    let written = word(node, "now", report)?;
    match OffsetDateTime::parse(&written.text, &Rfc3339) {
        Ok(moment) => Some(moment.into()),
        Err(_) => {
            report.mistake(node.at, "`now` is a time such as \"2026-01-31T23:00:00Z\"", None);
            None
        }
    }
}

fn parsed<T: std::str::FromStr>(node: &Node, key: &str, report: &mut Report<'_>) -> Option<T>
where
    T::Err: std::fmt::Display,
{
    let written = word(node, key, report)?;
    written
        .text
        .parse()
        .map_err(|error: T::Err| report.mistake(node.at, error.to_string(), None))
        .ok()
}
