//! The access policy of a running gateway: why it answers as it does, what a change would do, and files that are wrong.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

use fairlead::admin_client::api::{AccessExplained, ChangeUser, ExplainAccess, PolicyFiles, PolicyTried, User};
use fairlead_runtime::config_file::write_private;
use fairlead_tests::clients::{self, Running};
use fairlead_tests::lab::{DOMAIN, Lab};
use fairlead_tests::programs::account;
use hyper::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

/// The lines matter: the test names them.
const POLICY: &str = "version: 1
rules:
  - { name: field, sites: ['*'], effect: allow, expressions: [\"'field' in caller.groups && agent.labels['tier'] == 'edge'\"] }
  - { name: shells, sites: [default], effect: allow, actions: [shell], expressions: [\"'shells' in caller.groups\"] }
  - name: suspended
    sites: ['*']
    effect: deny
    expressions: [\"'suspended' in caller.groups\"]
  - { name: badge, sites: ['*'], effect: deny, expressions: [\"'guests' in caller.groups && int(caller.labels['badge']) < 100\"] }
  - { name: night, sites: ['*'], effect: deny, expressions: [\"'day' in caller.groups && time.now.getHours() < 6\"] }
  - { name: home, sites: ['*'], effect: deny, expressions: [\"'office' in caller.groups && !inCidrRange(conn.client_ip, '10.0.0.0/8')\"] }
  - { name: no files, sites: ['*'], effect: deny, actions: [sftp], expressions: [\"'limited' in caller.groups\"] }
";

fn device() -> String {
    format!("{}@pump-7.default.internal", account())
}

/// What Prometheus would read.
async fn metrics(lab: &Lab) -> String {
    let mut socket = UnixStream::connect(lab.path("run/admin.sock")).await.unwrap();
    let request = b"GET /metrics HTTP/1.1\r\nhost: gateway\r\nconnection: close\r\n\r\n";
    socket.write_all(request).await.unwrap();
    let mut text = String::new();
    socket.read_to_string(&mut text).await.unwrap();
    text
}

async fn explain(lab: &Lab, question: &ExplainAccess) -> AccessExplained {
    let answer: Result<AccessExplained, _> = lab.admin().send(Method::POST, "/v1/policy/explain", question).await;
    answer.unwrap_or_else(|error| panic!("{question:?}: {error}"))
}

async fn groups(lab: &Lab, name: &str, groups: &[&str]) {
    let change = ChangeUser {
        groups: Some(groups.iter().map(|group| (*group).to_owned()).collect()),
        ..Default::default()
    };
    let changed: Result<User, _> = lab
        .admin()
        .send(Method::PATCH, &format!("/v1/users/{name}"), &change)
        .await;
    changed.unwrap();
}

async fn two_devices() -> Lab {
    let mut lab = Lab::start().await;
    let edge = lab.agent("pump-7").label("tier", "edge");
    edge.endpoint("ssh://pump-7.default.internal", "builtin:ssh")
        .start()
        .await;
    let core = lab.agent("core-1").label("tier", "core");
    core.endpoint("tcp://core-1.default.internal:80", "tcp://127.0.0.1:9")
        .start()
        .await;
    lab
}

#[tokio::test]
async fn ten_denials_of_a_running_gateway_name_their_rule_file_and_line() {
    let lab = two_devices().await;
    lab.policy(POLICY).await;
    lab.user_with_key("alice", &["field"]).await;
    let (pump, core) = ("ssh://pump-7.default.internal", "tcp://core-1.default.internal:80");
    // Groups, endpoint, act, hour, address; then the reason, the line of the rule told first, and a value it saw.
    type Chosen = (
        &'static [&'static str],
        &'static str,
        Option<&'static str>,
        i64,
        &'static str,
        &'static str,
        u32,
        &'static str,
    );
    let chosen: [Chosen; 10] = [
        (&[], pump, None, 12, "10.0.0.1", "no-rule", 3, "caller.groups = []"),
        (
            &["field"],
            core,
            None,
            12,
            "10.0.0.1",
            "no-rule",
            3,
            "agent.labels['tier'] = 'core'",
        ),
        (
            &["field", "suspended"],
            pump,
            None,
            12,
            "10.0.0.1",
            "deny-rule",
            5,
            "'suspended'",
        ),
        (
            &["field", "guests"],
            pump,
            None,
            12,
            "10.0.0.1",
            "evaluation-failed",
            9,
            "caller.labels['badge'] = ''",
        ),
        (
            &["field", "day"],
            pump,
            None,
            5,
            "10.0.0.1",
            "deny-rule",
            10,
            "T05:00:00Z",
        ),
        (
            &["field", "office"],
            pump,
            None,
            12,
            "192.0.2.7",
            "deny-rule",
            11,
            "conn.client_ip = '192.0.2.7'",
        ),
        (
            &["shells"],
            pump,
            Some("exec"),
            12,
            "10.0.0.1",
            "no-rule",
            3,
            "caller.groups = ['shells']",
        ),
        (
            &["field", "limited"],
            pump,
            Some("sftp"),
            12,
            "10.0.0.1",
            "deny-rule",
            12,
            "'limited'",
        ),
        (
            &["shells", "suspended"],
            pump,
            Some("shell"),
            12,
            "10.0.0.1",
            "deny-rule",
            5,
            "'suspended'",
        ),
        (
            &["suspended"],
            core,
            None,
            12,
            "10.0.0.1",
            "deny-rule",
            5,
            "'suspended'",
        ),
    ];
    for (of, to, act, hour, from, reason, line, saw) in chosen {
        groups(&lab, "alice", of).await;
        let question = ExplainAccess {
            caller: "alice".into(),
            to: to.into(),
            act: act.map(str::to_owned),
            at: Some(1_767_225_600 + hour * 3600),
            client_ip: Some(from.into()),
            mqtt: None,
        };
        let answer = explain(&lab, &question).await;
        let shown = format!("{question:?}: {answer:#?}");
        assert!(!answer.allowed, "{shown}");
        assert_eq!(answer.reason.as_deref(), Some(reason), "{shown}");
        let first = &answer.rules[0];
        assert!(
            first.rule.file.ends_with("access.yaml") && first.rule.line == line,
            "{shown}"
        );
        assert_eq!(answer.rule.is_some(), reason != "no-rule", "{shown}");
        assert!(
            first
                .saw
                .iter()
                .any(|s| format!("{} = {}", s.name, s.value).contains(saw)),
            "{saw}: {shown}"
        );
    }
    lab.stop().await;
}

#[tokio::test]
async fn the_agents_own_verdict_is_asked_for_and_opens_nothing() {
    let mut lab = Lab::start().await;
    lab.policy(POLICY).await;
    let device = lab.agent("pump-7").label("tier", "edge");
    let device = device.endpoint("ssh://pump-7.default.internal", "builtin:ssh");
    let rules = "[ { name: alice looks, effect: allow, actions: [shell], expressions: [\"caller.name == 'alice'\"] }, { name: not at night, effect: deny, expressions: [\"time.now.getHours() < 6\"] } ]";
    device.rules(rules).start().await;
    lab.user_with_key("alice", &["field"]).await;
    lab.user_with_key("bob", &["field"]).await;
    let question = |caller: &str, act: Option<&str>, hour: i64| ExplainAccess {
        caller: caller.into(),
        to: "ssh://pump-7.default.internal".into(),
        act: act.map(str::to_owned),
        at: Some(1_767_225_600 + hour * 3600),
        client_ip: None,
        mqtt: None,
    };
    for (asked, allowed, reason, rule) in [
        (question("alice", None, 12), true, None, Some("alice looks")),
        (question("alice", Some("exec"), 12), false, Some("no-rule"), None),
        (
            question("alice", Some("shell"), 3),
            false,
            Some("deny-rule"),
            Some("not at night"),
        ),
        (question("bob", None, 12), false, Some("no-rule"), None),
    ] {
        let answer = explain(&lab, &asked).await;
        let word = &answer.agent_says;
        assert!(answer.allowed, "{asked:?}: {answer:#?}");
        assert_eq!(
            (word.allowed, word.reason.as_deref()),
            (Some(allowed), reason),
            "{asked:?}: {answer:#?}"
        );
        assert_eq!(word.rule.as_ref().map(|rule| rule.name.as_str()), rule, "{asked:?}");
        if let Some(rule) = &word.rule {
            assert!(rule.file.ends_with("agent.yaml") && rule.line > 0, "{rule:?}");
        }
    }
    let lines: Vec<String> = lab
        .agent_audit("pump-7")
        .lines()
        .iter()
        .map(|line| line.shown())
        .collect();
    let questions = lines.iter().filter(|line| line.starts_with("explain")).count();
    assert!(
        questions == 4 && !lines.iter().any(|line| line.starts_with("session")),
        "{lines:?}"
    );
    lab.stop_agent("pump-7").await;
    let answer = explain(&lab, &question("alice", None, 12)).await;
    assert_eq!(
        (answer.agent_says.allowed, answer.agent_says.reason.as_deref()),
        (None, Some("not asked (offline)"))
    );
    lab.stop().await;
}

#[tokio::test]
async fn audit_metric_and_explain_give_one_reason() {
    let lab = two_devices().await;
    lab.policy(POLICY).await;
    let alice = lab.user("alice", &["field", "suspended"]).await;
    let refused = clients::run(alice.ssh(&["-J", DOMAIN, &device(), "true"])).await;
    refused.refused_as("denied");
    let question = ExplainAccess {
        caller: "alice".into(),
        to: "ssh://pump-7.default.internal".into(),
        ..Default::default()
    };
    let answer = explain(&lab, &question).await;
    let lines = lab.gateway_audit().lines();
    let line = lines
        .iter()
        .find(|line| line.text("event") == "session.refuse")
        .unwrap();
    assert_eq!(Some(line.text("reason")), answer.reason.as_deref());
    let counted = format!("fairlead_denied_total{{reason=\"{}\"}} 1", line.text("reason"));
    assert!(metrics(&lab).await.contains(&counted), "{counted}");
    let rule = answer.rule.unwrap();
    assert_eq!(
        line.text("rule"),
        format!("{} ({}:{})", rule.name, rule.file, rule.line)
    );
    lab.stop().await;
}

#[tokio::test]
async fn a_dry_run_names_the_sessions_and_cuts_none() {
    let lab = two_devices().await;
    lab.policy(POLICY).await;
    let alice = lab.user("alice", &["field"]).await;
    let mut session = Running::start(alice.ssh(&["-J", DOMAIN, &device(), "echo up; sleep 60"]));
    assert_eq!(session.line().await.trim(), "up");
    let file = lab.path("gateway/access.yaml");
    write_private(&file, POLICY.replace("== 'edge'", "== 'core'").as_bytes(), 0o600).unwrap();
    let tried: PolicyTried = lab.admin().send(Method::POST, "/v1/policy/try", &()).await.unwrap();
    assert_eq!(tried.would_cut.len(), 1, "{tried:?}");
    let lost = &tried.would_cut[0];
    assert_eq!((lost.caller.as_str(), lost.why.as_str()), ("alice", "no-rule"));
    assert!(session.is_alive());
    let files: PolicyFiles = lab.admin().get("/v1/policy").await.unwrap();
    assert!(
        files.digest != tried.digest && files.files[0].text == POLICY,
        "the policy in force is the old one"
    );
    drop(session);
    lab.stop().await;
}

#[tokio::test]
async fn a_policy_whose_own_tests_fail_does_not_load() {
    let lab = two_devices().await;
    lab.policy(POLICY).await;
    let before: PolicyFiles = lab.admin().get("/v1/policy").await.unwrap();
    let tests = "tests:
  - { name: the field, caller: { name: a, groups: [field] }, agent: { labels: { tier: edge } }, endpoint: \"ssh://p\", expect: allow }
  - { name: guests stay out, caller: { name: g, groups: [field, guests], labels: { badge: '500' } }, agent: { labels: { tier: edge } }, endpoint: \"ssh://p\", expect: deny }
";
    let file = lab.path("gateway/access.yaml");
    write_private(&file, format!("{POLICY}{tests}").as_bytes(), 0o600).unwrap();
    let refused: Result<PolicyFiles, _> = lab.admin().send(Method::POST, "/v1/policy/reload", &()).await;
    let error = refused.unwrap_err();
    let text = error.to_string();
    assert_eq!(error.code(), 78);
    assert!(
        text.contains("access.yaml:15:5: test `guests stay out` failed: expected deny, got allowed"),
        "{text}"
    );
    assert!(
        text.contains("by rule `field` at") && !text.contains("`the field`"),
        "{text}"
    );
    let after: PolicyFiles = lab.admin().get("/v1/policy").await.unwrap();
    assert_eq!(before, after);
    lab.stop().await;
}
