//! Acts inside `builtin:ssh`: what the gateway's permit allows and the agent's own rules allow, and the audit of each.

use fairlead_tests::clients::{Finished, run};
use fairlead_tests::lab::{Lab, Person};

use crate::stage::{AGENT, ENDPOINT, account, device};

/// An act that is denied on a connection that stands: in words on standard error, with the exit code for that.
#[track_caller]
fn denied(said: &Finished, words: &str) -> String {
    assert_eq!(said.code(), Some(77), "{}", said.stderr);
    assert!(
        said.stderr.contains(&format!("fairlead: denied: {words} (session ")),
        "{}",
        said.stderr
    );
    assert_eq!(said.text(), "");
    said.last_word().unwrap().1
}

async fn lab(policy: &str, rules: Option<&str>) -> (Lab, Person) {
    let mut lab = Lab::start().await;
    let plan = lab.agent(AGENT).endpoint(ENDPOINT, "builtin:ssh");
    match rules {
        Some(rules) => plan.rules(rules).start().await,
        None => plan.start().await,
    }
    if !policy.is_empty() {
        lab.policy(policy).await;
    }
    let alice = lab.user("alice", &["field"]).await;
    (lab, alice)
}

/// The agent's lines about acts, as `ACT DECISION REASON`.
fn acts(lab: &Lab, session: &str) -> Vec<String> {
    let lines = lab
        .agent_audit(AGENT)
        .of(session)
        .into_iter()
        .filter(|line| line.text("event") == "session.act");
    lines
        .map(|line| {
            format!("{} {} {}", line.text("act"), line.text("decision"), line.text("reason"))
                .trim_end()
                .to_owned()
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_acts_that_a_rule_names_are_allowed() {
    let policy =
        |acts: &str| format!("version: 1\nrules:\n  - {{ name: r, sites: ['*'], effect: allow, actions: [{acts}] }}\n");
    let (lab, alice) = lab(&policy("sftp"), None).await;
    let exec = denied(
        &run(alice.ssh(&[&device(), "touch /tmp/never-by-exec"])).await,
        "exec is not permitted",
    );
    let shell = denied(&run(alice.ssh(&[&device()])).await, "shell is not permitted");
    let old_scp = run(alice.scp(&["-O", "/etc/hostname", &format!("{}:/tmp/never-by-scp", device())])).await;
    assert!(
        !old_scp.status.success() && old_scp.stderr.contains("exec is not permitted"),
        "{}",
        old_scp.stderr
    );
    run(alice.sftp("pwd\n", &device())).await.succeeded();
    assert!(!std::fs::exists("/tmp/never-by-exec").unwrap() && !std::fs::exists("/tmp/never-by-scp").unwrap());
    // Who denied an act wrote a line about it.
    assert_eq!(acts(&lab, &exec), ["exec deny denied"]);
    assert_eq!(acts(&lab, &shell), ["shell deny denied"]);
    lab.policy(&policy("exec")).await;
    run(alice.ssh(&[&device(), "true"])).await.succeeded();
    let sftp = run(alice.sftp("pwd\n", &device())).await;
    assert!(
        !sftp.status.success() && sftp.stderr.contains("sftp is not permitted"),
        "{}",
        sftp.stderr
    );
    denied(&run(alice.ssh(&["-tt", &device()])).await, "shell is not permitted");
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acts_of_several_rules_add_up_and_a_deny_rule_takes_one_away() {
    let policy = "version: 1
rules:
  - { name: commands, sites: ['*'], effect: allow, actions: [exec] }
  - { name: files, sites: ['*'], effect: allow, actions: [sftp, shell] }
  - { name: no shells, sites: ['*'], effect: deny, actions: [shell] }
";
    let (lab, alice) = lab(policy, None).await;
    run(alice.ssh(&[&device(), "true"])).await.succeeded();
    run(alice.sftp("pwd\n", &device())).await.succeeded();
    denied(&run(alice.ssh(&[&device()])).await, "shell is not permitted");
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_agents_rules_judge_each_command() {
    let rules =
        "[{ name: uptime only, effect: allow, expressions: [\"ssh.action == 'exec' && ssh.command == 'echo fine'\"] }]";
    let (lab, alice) = lab("", Some(rules)).await;
    let fine = run(alice.ssh(&[&device(), "echo fine"])).await.succeeded();
    assert_eq!(fine.text(), "fine\n");
    let session = lab.agent_audit(AGENT).awaited("session.act", None).await;
    assert_eq!(
        (session.fact("command"), session.fact("user")),
        ("echo fine", account().as_str())
    );
    for command in ["echo fine; id", "echo  fine", "echo fine\n id", "sh"] {
        let session = denied(
            &run(alice.ssh(&[&device(), command])).await,
            "exec is not permitted by this device",
        );
        assert_eq!(acts(&lab, &session), ["exec deny rule"]);
        assert_eq!(
            lab.agent_audit(AGENT)
                .awaited("session.act", Some(&session))
                .await
                .fact("command"),
            command
        );
    }
    let session = denied(
        &run(alice.ssh(&[&device()])).await,
        "shell is not permitted by this device",
    );
    assert_eq!(acts(&lab, &session), ["shell deny rule"]);
    let sftp = run(alice.sftp("pwd\n", &device())).await;
    assert!(
        sftp.stderr.contains("sftp is not permitted by this device"),
        "{}",
        sftp.stderr
    );
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_device_forwards_nothing_and_serves_no_other_subsystem() {
    let (lab, alice) = lab("", None).await;
    let canary = fairlead_tests::upstream::Canary::listen();
    let through =
        fairlead_tests::clients::run_with(alice.ssh(&["-W", &canary.address.to_string(), &device()]), b"x").await;
    assert_eq!(through.code(), Some(255), "{}", through.stderr);
    assert!(
        through.stderr.contains("administratively prohibited"),
        "{}",
        through.stderr
    );
    canary.is_untouched();
    let remote = run(alice.ssh(&[
        "-N",
        "-o",
        "ExitOnForwardFailure=yes",
        "-R",
        &format!("0:{}", canary.address),
        &device(),
    ]))
    .await;
    assert!(
        remote.code() == Some(255) && remote.stderr.contains("remote port forwarding failed"),
        "{}",
        remote.stderr
    );
    let agent = run(alice.ssh(&["-A", &device(), "echo ${SSH_AUTH_SOCK:-none} ${DISPLAY:-none}"]))
        .await
        .succeeded();
    assert_eq!(agent.text(), "none none\n");
    denied(
        &run(alice.ssh(&["-s", &device(), "netconf"])).await,
        "the subsystem is not served here",
    );
    lab.stop().await;
}
