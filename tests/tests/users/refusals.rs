//! Who does not become whom, and what the caller reads.

use fairlead_tests::clients::Finished;
use fairlead_tests::netns;
use fairlead_tests::programs::{PATIENCE, until};
use nix::sys::signal::Signal;

use crate::stage::{LISTED, Stage};

/// The reason stands first, then words, then the session.
#[track_caller]
fn refused(finished: &Finished, reason: &str, word: &str) {
    let (said, session) = finished.last_word().unwrap_or_else(|| panic!("{}", finished.stderr));
    let words = said.strip_prefix(&format!("denied: {reason}: "));
    assert!(words.is_some_and(|words| words.contains(word)), "{}", finished.stderr);
    assert_eq!((session.len(), finished.code()), (36, Some(255)), "{}", finished.stderr);
    assert_eq!(finished.text(), "");
}

#[test]
fn nobody_becomes_who_is_not_listed_not_there_or_not_for_it() {
    netns::alone(
        "refusals::nobody_becomes_who_is_not_listed_not_there_or_not_for_it",
        async {
            let stage = Stage::set(LISTED, None).await;
            // The agent is root, so that its own account is a service's.
            for (user, reason, word) in [
                ("root", "root-not-enabled", "lets nobody become root"),
                ("toor", "root-not-enabled", "lets nobody become root"),
                ("gone", "user-unknown", "'gone'"),
                ("mate", "user-without-login", "'mate'"),
                ("daemon", "user-not-listed", "deckhand@"),
                ("alice", "user-not-listed", "deckhand@"),
                ("+0", "user-not-listed", "deckhand@"),
                ("deckhand=x", "user-not-listed", "deckhand@"),
            ] {
                let said = stage.on_as(user, "id -u").await;
                refused(&said, reason, word);
            }
            let denied = stage.device.audit(&["root-not-enabled"]);
            assert!(!denied.is_empty(), "the refusal is in the device's audit log");
            // What PAM says is the account's, and said by su.
            let late = stage.on_as("late", "id -u").await;
            assert!(late.stderr.contains("Your account has expired"), "{}", late.stderr);
            assert_eq!((late.code(), late.text().as_str()), (Some(1), ""));
            assert_eq!(stage.on_as("deckhand", "id -un").await.succeeded().text(), "deckhand\n");
        },
    );
}

#[test]
fn an_agent_without_the_privilege_says_so() {
    netns::alone("refusals::an_agent_without_the_privilege_says_so", async {
        let stage = Stage::set("users: [deckhand]", Some("setuid")).await;
        let said = stage.on_as("deckhand", "id -u").await;
        refused(&said, "switching-unprivileged", "user-switching.conf");
    });
}

#[test]
fn without_a_list_there_is_no_switching() {
    netns::alone("refusals::without_a_list_there_is_no_switching", async {
        let stage = Stage::set("allow_service_account: true, users: []", None).await;
        let said = stage.on_as("deckhand", "id -u").await;
        refused(&said, "switching-not-enabled", "connect as root@ or alice@");
        assert_eq!(stage.on_as("alice", "id -un").await.succeeded().text(), "root\n");
    });
}

#[test]
fn rules_say_who_becomes_whom() {
    netns::alone("refusals::rules_say_who_becomes_whom", async {
        let stage = Stage::set("users: [deckhand, root]", None).await;
        assert_eq!(stage.on_as("root", "id -un").await.succeeded().text(), "root\n");
        let rule = "upstream: { url: \"builtin:ssh\" }, rules: [ { name: deck, effect: allow, expressions: [\"ssh.user == 'deckhand'\"] } ]";
        stage.device.change("upstream: { url: \"builtin:ssh\" }", rule);
        stage.agent.signal(Signal::SIGHUP);
        until("the rule holds", PATIENCE, async || {
            (stage.on_as("root", "id -un").await.code() == Some(77)).then_some(())
        })
        .await;
        let said = stage.on_as("root", "id -un").await;
        assert!(
            said.stderr
                .contains("fairlead: denied: exec is not permitted by this device"),
            "{}",
            said.stderr
        );
        assert_eq!(stage.on_as("deckhand", "id -un").await.succeeded().text(), "deckhand\n");
        let allowed = stage.device.audit(&["session.act", "\"allow\"", "deckhand"]);
        assert!(!allowed.is_empty(), "the act is recorded with its user");
    });
}
