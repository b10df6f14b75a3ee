//! A gateway's machine is lost; a backup brings everybody back on another one.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests fail by panicking"
)]

use std::os::unix::fs::PermissionsExt;

use fairlead_tests::clients::run;
use fairlead_tests::programs::{AgentHome, DEVICE, GatewayHome, PATIENCE, ended_with, throw_away};

#[tokio::test]
async fn a_backup_on_an_empty_machine_brings_agents_back_keeps_who_was_shut_out_and_ends_join_strings() {
    let dir = throw_away();
    let old = GatewayHome::set_up(&dir.path().join("old")).await;
    let gateway = old.start().await;
    let device = old
        .agent(&dir.path().join("device"), DEVICE, &AgentHome::builtin(DEVICE))
        .await;
    let agent = device.start();
    old.linked(1).await;
    let alice = old.user(&dir.path().join("alice"), "alice", "field").await;
    let mallory = old.user(&dir.path().join("mallory"), "mallory", "field").await;
    alice.reaches(DEVICE, PATIENCE).await;
    old.fairlead(&["revoke", "user", "mallory"]).await.succeeded();
    let unused = dir.path().join("unused.join");
    old.token(&unused, &["--agent", "pump-9"]).await;

    // While it runs.
    let (passphrase, backup) = (dir.path().join("passphrase"), dir.path().join("gw.backup"));
    std::fs::write(&passphrase, "correct horse battery staple\n").unwrap();
    std::fs::set_permissions(&passphrase, PermissionsExt::from_mode(0o600)).unwrap();
    let taking = || {
        let mut taking = old.command("backup");
        taking
            .arg("--out")
            .arg(&backup)
            .arg("--passphrase-file")
            .arg(&passphrase);
        taking
    };
    run(taking()).await.succeeded();
    assert_eq!(backup.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    ended_with(&run(taking()).await, 1, &["is there already"]);

    // The machine is gone with all it had.
    drop(gateway);
    std::fs::remove_dir_all(dir.path().join("old")).unwrap();
    let mut new = GatewayHome::plan(&dir.path().join("new"));
    new.port = old.port;
    new.announce.clone_from(&old.announce);
    new.write();
    let restoring = || {
        let mut restoring = new.command("restore");
        restoring.arg(&backup).arg("--passphrase-file").arg(&passphrase);
        restoring
    };
    let restored = run(restoring()).await;
    ended_with(&restored, 0, &["1 join strings that were good then are void"]);
    ended_with(&run(restoring()).await, 1, &["is not empty"]);

    let _gateway = new.start().await;
    new.linked(1).await;
    alice.reaches(DEVICE, PATIENCE).await;
    let shut_out = mallory.on(DEVICE, "true").await;
    assert!(!shut_out.status.success(), "{}", shut_out.stderr);
    let late = AgentHome::plan(&dir.path().join("late"), "");
    ended_with(&late.enroll(&unused).await, 77, &["refuses"]);
    drop(agent);
}
