//! `fairlead explain`: what a caller may hear before they try.

use fairlead_tests::clients::{Finished, run};
use fairlead_tests::lab::{Lab, Person};
use fairlead_tests::programs::command;

async fn explain(person: &Person, arguments: &[&str]) -> Finished {
    let mut explain = command("fairlead", [&["explain"], arguments].concat());
    explain.env("FAIRLEAD_HOME", person.path(""));
    run(explain).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_hears_allowed_denied_or_offline_and_no_more() {
    let mut lab = Lab::start().await;
    lab.policy(
        "version: 1
rules:
  - { name: shells, sites: ['*'], effect: allow, expressions: [\"'field' in caller.groups\"], actions: [shell] }
  - { name: billing, sites: ['*'], effect: allow, expressions: [\"'field' in caller.groups && postgres.database == 'billing'\"] }
",
    )
    .await;
    lab.agent("pump-7")
        .endpoint("ssh://pump-7", "builtin:ssh")
        .start()
        .await;
    lab.agent("pump-8")
        .endpoint("ssh://pump-8", "builtin:ssh")
        .start()
        .await;
    lab.agent("db")
        .endpoint("postgres://db", "tcp://127.0.0.1:1")
        .start()
        .await;
    lab.stop_agent("pump-8").await;
    lab.wait_offline("pump-8").await;
    let alice = lab.user("alice", &["field"]).await;
    let bob = lab.user("bob", &["office"]).await;
    for (person, arguments, word, code) in [
        (&alice, &["ssh://pump-7"][..], "allowed", 0),
        (&alice, &["ssh://pump-7", "--act", "shell"], "allowed", 0),
        (&alice, &["ssh://pump-7", "--act", "sftp"], "denied", 77),
        (&alice, &["ssh://pump-8"], "offline", 0),
        (&alice, &["postgres://db"], "depends", 0),
        (&alice, &["ssh://nowhere"], "denied", 77),
        (&bob, &["ssh://pump-7"], "denied", 77),
        (&bob, &["ssh://pump-8"], "denied", 77),
        (&bob, &["postgres://db"], "denied", 77),
    ] {
        let said = explain(person, arguments).await;
        let shown = format!("{} {arguments:?}: {} {}", person.name, said.text(), said.stderr);
        assert_eq!((said.text().trim(), said.code()), (word, Some(code)), "{shown}");
    }
    let forbidden = explain(&bob, &["ssh://pump-7.default.internal"]).await.stderr;
    let absent = explain(&bob, &["ssh://nowhere.default.internal"]).await.stderr;
    assert_eq!(forbidden.replace("pump-7", "X"), absent.replace("nowhere", "X"));
    assert_eq!(
        explain(&alice, &["ssh://pump-7", "--act", "dance"]).await.code(),
        Some(64)
    );
    // What is read by a face is listed where it can be reached in some way.
    let mut listed = command("fairlead", ["endpoints", "--json"]);
    listed.env("FAIRLEAD_HOME", alice.path(""));
    assert!(
        run(listed)
            .await
            .succeeded()
            .text()
            .contains("postgres://db.default.internal")
    );
    lab.stop().await;
}
