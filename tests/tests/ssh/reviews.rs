//! Live sessions are decided again: a label, a group, a rule or the clock takes the answer of one session away, and the
//! others notice nothing.

use std::process::Stdio;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use fairlead::output;
use fairlead_tests::clients::Running;
use fairlead_tests::lab::{Lab, Line, Person, until};
use hyper::Method;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use crate::stage::{AGENT, ENDPOINT, account};

/// How soon a session that has lost its answer is over for its caller.
const CUT_LIMIT: Duration = Duration::from_secs(5);

/// Somebody's shell on a device, which answers what it is told.
pub(crate) struct Shell {
    pub(crate) ssh: Running,
    pub(crate) session: String,
}

impl Shell {
    pub(crate) async fn open(lab: &Lab, person: &Person, host: &str) -> Self {
        let known: Vec<String> = lab.sessions().await.into_iter().map(|session| session.id).collect();
        let mut command = person.ssh(&[
            &format!("{}@{host}.default.internal", account()),
            "echo begun; exec cat",
        ]);
        command.stdin(Stdio::piped());
        let mut ssh = Running::start(command);
        assert_eq!(ssh.line().await, "begun");
        let new = lab
            .sessions()
            .await
            .into_iter()
            .find(|session| !known.contains(&session.id));
        Self {
            ssh,
            session: new.expect("a session more").id,
        }
    }

    pub(crate) async fn answers(&mut self) {
        self.ssh
            .stdin
            .as_mut()
            .unwrap()
            .write_all(b"still there\n")
            .await
            .unwrap();
        assert_eq!(self.ssh.line().await, "still there");
    }

    /// Waits for the end, which must come in time after `cause` and be told; gives the line of the audit.
    pub(crate) async fn ends_cut(self, lab: &Lab, reason: &str, cause: Instant) -> Line {
        let said = self.ssh.finish().await;
        assert_eq!(said.refused_as(reason), self.session);
        let took = cause.elapsed();
        assert!(took < CUT_LIMIT, "the end took {took:?}");
        let end = lab.gateway_audit().awaited("session.end", Some(&self.session)).await;
        assert_eq!(end.text("reason"), reason);
        end
    }
}

fn rules(rules: &[&str]) -> String {
    format!(
        "version: 1\nrules:\n{}",
        rules.iter().map(|rule| format!("  - {rule}\n")).collect::<String>()
    )
}

fn group(group: &str, more: &str) -> String {
    format!("{{ name: {group}, sites: ['*'], effect: allow, expressions: [\"'{group}' in caller.groups{more}\"] }}")
}

async fn change(lab: &Lab, path: &str, body: &Value) {
    let changed: Result<Value, _> = lab.admin().send(Method::PATCH, path, body).await;
    changed.unwrap_or_else(|error| panic!("{path}: {error}"));
}

/// A lab with two devices, and alice (field) and bob (office) who may use both.
async fn two_devices() -> (Lab, Person, Person) {
    let mut lab = Lab::start().await;
    for name in [AGENT, "pump-8"] {
        let plan = lab.agent(name).label("tier", "edge");
        plan.endpoint(&format!("ssh://{name}.default.internal"), "builtin:ssh")
            .start()
            .await;
    }
    lab.policy(&rules(&[&group("field", ""), &group("office", "")])).await;
    let (alice, bob) = (lab.user("alice", &["field"]).await, lab.user("bob", &["office"]).await);
    (lab, alice, bob)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_label_that_changes_cuts_the_sessions_it_allowed_and_no_others() {
    let (lab, alice, _) = two_devices().await;
    lab.policy(&rules(&[&group("field", " && agent.labels['tier'] == 'edge'")]))
        .await;
    let (lost, mut kept) = (
        Shell::open(&lab, &alice, AGENT).await,
        Shell::open(&lab, &alice, "pump-8").await,
    );
    // A label that no rule reads changes nothing.
    change(&lab, "/v1/agents/default/pump-8", &json!({ "labels": { "row": "3" } })).await;
    let cause = Instant::now();
    change(
        &lab,
        "/v1/agents/default/pump-7",
        &json!({ "labels": { "tier": "core" } }),
    )
    .await;
    let end = lost.ends_cut(&lab, "policy-changed", cause).await;
    assert_eq!(end.fact("decided"), "no-rule");
    kept.answers().await;
    drop(kept);
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groups_that_change_cut_the_user_and_nobody_else() {
    let (lab, alice, bob) = two_devices().await;
    let (mut kept, lost) = (
        Shell::open(&lab, &alice, AGENT).await,
        Shell::open(&lab, &bob, AGENT).await,
    );
    let cause = Instant::now();
    change(&lab, "/v1/users/bob", &json!({ "groups": ["guests"] })).await;
    lost.ends_cut(&lab, "policy-changed", cause).await;
    kept.answers().await;
    drop(kept);
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schedule_that_closes_cuts_whom_it_allowed_and_nobody_else() {
    let (lab, alice, bob) = two_devices().await;
    let closes = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + 6;
    let moment = output::moment(Some(i64::try_from(closes).unwrap()));
    let until_then = format!(" && time.now < timestamp('{moment}')");
    lab.policy(&rules(&[&group("field", ""), &group("office", &until_then)]))
        .await;
    let (mut kept, lost) = (
        Shell::open(&lab, &alice, AGENT).await,
        Shell::open(&lab, &bob, AGENT).await,
    );
    let wait = (UNIX_EPOCH + Duration::from_secs(closes)).duration_since(SystemTime::now());
    let closed = Instant::now() + wait.unwrap();
    lost.ends_cut(&lab, "policy-changed", closed).await;
    assert!(Instant::now() >= closed, "cut before it closed");
    kept.answers().await;
    drop(kept);
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_act_that_is_taken_back_cuts_sessions_that_had_it_and_one_that_is_added_does_not() {
    let (lab, alice, _) = two_devices().await;
    let acts = |acts: &str| {
        rules(&[&format!(
            "{{ name: acts, sites: ['*'], effect: allow, actions: [{acts}], expressions: [\"'field' in caller.groups\"] }}"
        )])
    };
    lab.policy(&acts("exec")).await;
    let mut shell = Shell::open(&lab, &alice, AGENT).await;
    lab.policy(&acts("exec, sftp")).await;
    let mut both = Shell::open(&lab, &alice, AGENT).await;
    shell.answers().await;
    both.answers().await;
    let cause = Instant::now();
    lab.policy(&acts("exec")).await;
    let end = both.ends_cut(&lab, "policy-changed", cause).await;
    assert_eq!(end.fact("decided"), "fewer-acts");
    shell.answers().await;
    drop(shell);
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_is_unbound_cuts_the_sessions_to_it() {
    let mut lab = Lab::start().await;
    let plan = lab.agent(AGENT).host("hmi").endpoint(ENDPOINT, "builtin:ssh");
    plan.endpoint("ssh://hmi.default.internal", "builtin:ssh").start().await;
    let alice = lab.user("alice", &["field"]).await;
    let (mut kept, lost) = (
        Shell::open(&lab, &alice, AGENT).await,
        Shell::open(&lab, &alice, "hmi").await,
    );
    let cause = Instant::now();
    lab.admin().delete("/v1/hosts/default/hmi/pump-7").await.unwrap();
    let end = lost.ends_cut(&lab, "policy-changed", cause).await;
    assert_eq!(end.fact("decided"), "unknown-endpoint");
    kept.answers().await;
    drop(kept);
    lab.stop().await;
}

on_both_servers! {
    a_rule_that_is_edited_cuts_and_the_audit_names_it(stage) {
        let mut command = stage.ssh(&["echo begun; exec cat"]);
        command.stdin(Stdio::piped());
        let mut ssh = Running::start(command);
        assert_eq!(ssh.line().await, "begun");
        let session = stage.live_session().await;
        let cause = Instant::now();
        let with_deny = rules(&[
            &group("field", ""),
            "{ name: out of service, sites: ['*'], effect: deny, expressions: [\"agent.name == 'pump-7'\"] }",
        ]);
        stage.lab.policy(&with_deny).await;
        let end = Shell { ssh, session: session.clone() }.ends_cut(&stage.lab, "policy-changed", cause).await;
        assert!(end.text("rule").starts_with("out of service ("), "{end:?}");
        assert!(end.text("rule").ends_with("access.yaml:4)"), "{end:?}");
        assert_eq!(end.fact("decided"), "deny-rule");
        let at_agent = stage.lab.agent_audit(AGENT).awaited("session.end", Some(&session)).await;
        assert_eq!(at_agent.text("reason"), "policy-changed");
        until("an empty table", async || stage.lab.sessions().await.is_empty().then_some(())).await;
        stage.strike().await;
    }
}
