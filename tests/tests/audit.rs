//! `fairlead audit` on the files of running programs: shows, follows, exports, and finds what was done to them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

use std::path::Path;

use fairlead_tests::clients::{Finished, Running, run};
use fairlead_tests::programs::{DEVICE, PATIENCE, Scene, command, ended_with, until};

#[tokio::test]
async fn both_audits_are_shown_exported_and_verified() {
    let scene = Scene::set().await;
    scene.alice.on(DEVICE, "true").await.succeeded();
    for file in [
        scene.home.path("state/audit.jsonl"),
        scene.device.path("state/audit.jsonl"),
    ] {
        // The client is gone a moment before both ends have written so.
        let shown = until("the session's end in the audit", PATIENCE, async || {
            let shown = audit(&file, &["tail", "--event", "session", "--caller", "alice"]).await;
            let shown = shown.succeeded().text();
            shown.contains("session.end").then_some(shown)
        })
        .await;
        assert!(
            shown.contains("session.permit") && !shown.contains("link.up"),
            "{shown}"
        );
        let session = shown
            .split_whitespace()
            .find(|word| word.len() == 36)
            .expect("a session id")
            .to_owned();
        let exported = audit(
            &file,
            &["export", "--since", "2020-01-01T00:00:00Z", "--session", &session],
        )
        .await
        .succeeded()
        .text();
        assert!(exported.lines().count() >= 2, "{exported}");
        for line in exported.lines() {
            let line: serde_json::Value = serde_json::from_str(line).expect("a JSON line");
            assert_eq!(line["session"], session.as_str());
        }
        let none = audit(&file, &["export", "--until", "2020-01-01T00:00:00Z"])
            .await
            .succeeded()
            .text();
        assert_eq!(none, "");
        let verified = audit(&file, &["verify"]).await.succeeded();
        assert!(verified.stderr.contains("the chain holds"), "{}", verified.stderr);
        audit(&file, &["verify", "--seen", verified.text().trim()])
            .await
            .succeeded();
    }
}

#[tokio::test]
async fn a_line_that_was_changed_or_cut_off_is_named() {
    let scene = Scene::set().await;
    scene.alice.on(DEVICE, "true").await.succeeded();
    let file = scene.home.path("state/audit.jsonl");
    let head = audit(&file, &["verify"]).await.succeeded().text();
    let text = std::fs::read_to_string(&file).unwrap();
    let copy = scene.path("copy.jsonl");

    std::fs::write(&copy, text.replacen("alice", "mallory", 1)).unwrap();
    let changed = text.lines().position(|line| line.contains("alice")).unwrap() + 1;
    ended_with(
        &audit(&copy, &["verify"]).await,
        1,
        &[&format!("line {changed} "), "was changed"],
    );

    let cut = text.lines().take(3).map(|line| format!("{line}\n")).collect::<String>();
    std::fs::write(&copy, cut).unwrap();
    audit(&copy, &["verify"]).await.succeeded();
    ended_with(
        &audit(&copy, &["verify", "--seen", head.trim()]).await,
        1,
        &["cut off or replaced"],
    );
    ended_with(
        &audit(&copy, &["verify", "--seen", "nonsense"]).await,
        64,
        &["SEQ:HASH"],
    );
    ended_with(&audit(&scene.path("absent"), &["verify"]).await, 1, &["cannot read"]);
}

#[tokio::test]
async fn what_happens_is_followed() {
    let scene = Scene::set().await;
    let mut follow = command(
        "fairlead",
        [
            "audit",
            "tail",
            "-n",
            "0",
            "--follow",
            "--json",
            "--event",
            "session.permit",
            "--file",
        ],
    );
    follow.arg(scene.home.path("state/audit.jsonl"));
    let mut follow = Running::start(follow);
    // It has begun when it shows the first; more than one may be needed until then.
    let line = {
        let shown = follow.line();
        let work = async {
            loop {
                scene.alice.on(DEVICE, "true").await.succeeded();
            }
        };
        tokio::select! {
            line = shown => line,
            () = work => unreachable!("it loops"),
        }
    };
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(
        (&line["event"], &line["caller"]),
        (&"session.permit".into(), &"alice".into())
    );
}

async fn audit(file: &Path, arguments: &[&str]) -> Finished {
    let mut audit = command("fairlead", ["audit"]);
    audit.args(arguments).arg("--file").arg(file);
    run(audit).await
}
