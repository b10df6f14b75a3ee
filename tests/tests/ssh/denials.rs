//! Who is told no, in which words, and what each side writes about it. Unknown and forbidden look the same.

use fairlead_tests::clients::{Finished, run, run_with};
use fairlead_tests::lab::{DOMAIN, Lab, Person};
use fairlead_tests::upstream::{Canary, Echo, Refusing};

use crate::stage::{AGENT, DEVICE, ENDPOINT, device};

on_both_servers! {
    without_a_rule_ssh_itself_says_denied_and_one_line_is_written(stage) {
        let mallory = stage.lab.user("mallory", &["strangers"]).await;
        let refused = run(mallory.ssh(&[&stage.device, "true"])).await;
        let session = refused.refused_as("denied");
        assert_eq!(refused.text(), "");
        let lines = stage.lab.gateway_audit().of(&session);
        assert_eq!(lines.len(), 1, "{lines:?}");
        for (field, value) in [
            ("event", "session.refuse"),
            ("caller", "mallory"),
            ("client_ip", "127.0.0.1"),
            ("agent", "pump-7"),
            ("site", "default"),
            ("endpoint", "ssh://pump-7.default.internal"),
            ("decision", "deny"),
            ("reason", "no-rule"),
        ] {
            assert_eq!(lines[0].text(field), value, "{field}");
        }
        assert!(stage.lab.agent_audit("pump-7").sessions().is_empty(), "the agent was not asked");
        stage.strike().await;
    }

    every_client_of_the_family_is_told_the_same(stage) {
        let mallory = stage.lab.user("mallory", &["strangers"]).await;
        let remote = format!("{}:/etc/hostname", stage.device);
        let local = stage.lab.path("people/never").display().to_string();
        run(mallory.ssh(&[&stage.device])).await.refused_as("denied");
        run(mallory.ssh(&["-tt", &stage.device, "sh"])).await.refused_as("denied");
        run(mallory.scp(&[&remote, &local])).await.refused_as("denied");
        run(mallory.sftp("pwd\n", &stage.device)).await.refused_as("denied");
        let rsync = run(mallory.rsync(&[&remote, &local])).await;
        assert!(rsync.last_word().is_some_and(|(reason, _)| reason == "denied"), "{}", rsync.stderr);
        assert!(!std::fs::exists(&local).unwrap());
        assert!(stage.lab.agent_audit("pump-7").sessions().is_empty());
        stage.strike().await;
    }

    a_deny_rule_beats_every_allow(stage) {
        let rule = |effect: &str, name: &str| format!("  - {{ name: {name}, sites: ['*'], effect: {effect}, expressions: [\"'field' in caller.groups\"] }}\n");
        let policy = format!("version: 1\nrules:\n{}{}{}", rule("allow", "first"), rule("deny", "second"), rule("allow", "third"));
        stage.lab.policy(&policy).await;
        let session = run(stage.ssh(&["true"])).await.refused_as("denied");
        let lines = stage.lab.gateway_audit().of(&session);
        assert!(lines.len() == 1 && lines[0].text("rule").starts_with("second ("), "{lines:?}");
        stage.strike().await;
    }

    a_policy_that_no_longer_allows_is_asked_at_the_next_session(stage) {
        run(stage.ssh(&["true"])).await.succeeded();
        stage.lab.policy("version: 1\nrules: []\n").await;
        run(stage.ssh(&["true"])).await.refused_as("denied");
        stage.lab.policy(fairlead_tests::lab::FIELD_POLICY).await;
        run(stage.ssh(&["true"])).await.succeeded();
        stage.strike().await;
    }
}

/// Runs `ssh -W` and compares with what somebody without any right is told for a name that does not exist.
async fn looks_unknown(person: &Person, target: &str) -> Finished {
    let unknown = run_with(person.ssh(&["-W", "no-such-host.default.internal:22", DOMAIN]), b"").await;
    let forbidden = run_with(person.ssh(&["-W", target, DOMAIN]), b"").await;
    unknown.refused_as("denied");
    forbidden.refused_as("denied");
    assert_eq!(
        forbidden.stderr_without_session(),
        unknown.stderr_without_session(),
        "{target}"
    );
    assert_eq!((forbidden.text(), forbidden.code()), (unknown.text(), unknown.code()));
    forbidden
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unknown_forbidden_offline_and_broken_look_the_same_to_whoever_may_not() {
    let (echo, refusing) = (Echo::start().await, Refusing::bind());
    let mut lab = Lab::start().await;
    let plan = lab.agent(AGENT).endpoint(ENDPOINT, "builtin:ssh");
    let plan = plan.endpoint("tcp://pump-7:7007", &format!("tcp://{}", echo.address));
    let plan = plan.endpoint("tcp://pump-7:7008", &format!("tcp://{}", refusing.address));
    let plan = plan.endpoint("tcp://pump-7:7009", &format!("tcp://{}", echo.address));
    plan.rules("[{ name: nobody, effect: deny, expressions: ['true'] }]")
        .start()
        .await;
    lab.agent("away").endpoint("ssh://away", "builtin:ssh").start().await;
    lab.stop_agent("away").await;
    let mallory = lab.user("mallory", &["strangers"]).await;
    let long = format!("{}.default.internal:22", "x".repeat(300));
    let targets = [
        "pump-7.default.internal:22",
        "pump-7.default.internal:7007",
        "pump-7.default.internal:7008",
        "pump-7.default.internal:7009",
        "pump-7.default.internal:7010",
        "pump-7.default.internal:65535",
        "away.default.internal:22",
        "pump-7.plant-9.internal:22",
        "pump-7.gw.lab.test:22",
        "PUMP-7:22",
        "127.0.0.1:22",
        "not_a_name:22",
        "a--b.default.internal:22",
        "*:22",
        &long,
    ];
    for target in targets {
        let forbidden = looks_unknown(&mallory, target).await;
        let session = forbidden.refused_as("denied");
        let lines = lab.gateway_audit().shown(&session);
        assert!(
            lines == ["session.refuse no-rule"] || lines == ["session.refuse unknown-endpoint"],
            "{target}: {lines:?}"
        );
        assert!(lab.agent_audit(AGENT).of(&session).is_empty());
    }
    // And by the jump, where two ssh processes have their say.
    let unknown = run(mallory.ssh(&["nobody@no-such-host.default.internal", "true"])).await;
    let forbidden = run(mallory.ssh(&["nobody@pump-7.default.internal", "true"])).await;
    assert_eq!(forbidden.stderr_without_session(), unknown.stderr_without_session());
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rule_about_acts_never_allows_a_tunnel() {
    let echo = Echo::start().await;
    let mut lab = Lab::start().await;
    lab.agent(AGENT)
        .endpoint(ENDPOINT, &format!("tcp://{}", echo.address))
        .start()
        .await;
    let alice = lab.user("alice", &["field"]).await;
    let rules = [
        "{ name: acts, sites: ['*'], effect: allow, actions: [shell, exec, sftp] }",
        "{ name: facts, sites: ['*'], effect: allow, expressions: [\"ssh.command == 'uptime'\"] }",
    ];
    for rule in rules {
        lab.policy(&format!("version: 1\nrules:\n  - {rule}\n")).await;
        let session = run(alice.ssh(&[&device(), "true"])).await.refused_as("denied");
        assert_eq!(lab.gateway_audit().shown(&session), ["session.refuse needs-terminated"]);
    }
    lab.stop().await;
}

on_both_servers! {
    a_limit_is_told_to_the_permitted(stage) {
        stage.lab.policy(
            "version: 1\nrules:\n  - { name: one at a time, sites: ['*'], effect: allow, limits: { sessions_per_caller: 1 } }\n",
        ).await;
        let mut command = stage.ssh(&["echo in; cat"]);
        command.stdin(std::process::Stdio::piped());
        let mut first = fairlead_tests::clients::Running::start(command);
        assert_eq!(first.line().await, "in");
        let session = run(stage.ssh(&["true"])).await.refused_as("limit");
        assert_eq!(stage.lab.gateway_audit().shown(&session), ["session.permit", "session.end limit"]);
        assert!(stage.lab.agent_audit("pump-7").of(&session).is_empty());
        drop(first.stdin.take());
        first.finish().await.succeeded();
        let gateway = &stage.lab;
        fairlead_tests::lab::until("an empty table", async || gateway.sessions().await.is_empty().then_some(())).await;
        run(stage.ssh(&["true"])).await.succeeded();
        stage.strike().await;
    }
}

/// The customer's file has the last word, and their log has the line.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_agents_own_rules_refuse_whom_the_gateway_permits() {
    let canary = Canary::listen();
    let mut lab = Lab::start().await;
    let rules = "[{ name: bob only, effect: allow, expressions: [\"caller.name == 'bob'\"] }]";
    let plan = lab
        .agent(AGENT)
        .endpoint("tcp://pump-7:7007", &format!("tcp://{}", canary.address))
        .rules(rules);
    plan.endpoint(ENDPOINT, "builtin:ssh").rules(rules).start().await;
    let (alice, bob) = (lab.user("alice", &["field"]).await, lab.user("bob", &["field"]).await);
    let tunnel = run_with(alice.ssh(&["-W", &format!("{DEVICE}:7007"), DOMAIN]), b"").await;
    let builtin = run(alice.ssh(&[&device(), "true"])).await;
    for (said, endpoint) in [(tunnel, "tcp://pump-7.default.internal:7007"), (builtin, ENDPOINT)] {
        let session = said.refused_as("denied");
        assert_eq!(
            lab.gateway_audit().shown(&session),
            ["session.permit", "session.end rule"]
        );
        let lines = lab.agent_audit(AGENT).of(&session);
        assert_eq!(lines.len(), 1, "{lines:?}");
        for (field, value) in [
            ("event", "session.refuse"),
            ("reason", "rule"),
            ("caller", "alice"),
            ("endpoint", endpoint),
            ("decision", "deny"),
        ] {
            assert_eq!(lines[0].text(field), value, "{field}");
        }
    }
    canary.is_untouched();
    run(bob.ssh(&[&device(), "true"])).await.succeeded();
    lab.stop().await;
}

/// A caller cannot tell the customer's refusal from the gateway's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_by_the_agent_looks_like_one_by_the_gateway() {
    let echo = Echo::start().await;
    let mut lab = Lab::start().await;
    let plan = lab
        .agent(AGENT)
        .endpoint("tcp://pump-7:7007", &format!("tcp://{}", echo.address));
    plan.rules("[{ name: nobody, effect: deny, expressions: ['true'] }]")
        .start()
        .await;
    let alice = lab.user("alice", &["field"]).await;
    looks_unknown(&alice, "pump-7.default.internal:7007").await;
    lab.stop().await;
}
