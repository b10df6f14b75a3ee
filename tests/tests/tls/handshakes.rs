//! Who gets through the handshake, and what the others are told.

use fairlead_tests::clients::{Finished, run_with};
use fairlead_tests::lab::{DOMAIN, Lab, Person};
use fairlead_tests::upstream::Echo;

async fn stage() -> (Lab, Echo, Person) {
    let mut lab = Lab::start().await;
    let echo = Echo::start().await;
    let upstream = format!("tcp://{}", echo.address);
    lab.agent("pump-7")
        .endpoint("tls://pump-7:7000", &upstream)
        .start()
        .await;
    let alice = lab.user("alice", &["field"]).await;
    (lab, echo, alice)
}

fn name() -> String {
    format!("pump-7.default.{DOMAIN}")
}

#[track_caller]
fn alert(said: &Finished, words: &str) {
    assert!(said.stderr.contains(words), "{words}: {}{}", said.stderr, said.text());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_versions_of_tls_carry_and_refuse() {
    let (lab, _echo, alice) = stage().await;
    let bob = lab.user("bob", &[]).await;
    for version in ["-tls1_2", "-tls1_3"] {
        for suite in [
            ["-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"],
            ["-cipher", "ECDHE-ECDSA-CHACHA20-POLY1305"],
        ] {
            let mut command = alice.s_client(&lab, &name(), &[version, suite[0], suite[1]]);
            command.stdin(std::process::Stdio::piped());
            let mut client = fairlead_tests::clients::Running::start(command);
            let stdin = client.stdin.as_mut().unwrap();
            tokio::io::AsyncWriteExt::write_all(stdin, b"over TLS\n").await.unwrap();
            assert_eq!(client.line().await, "over TLS");
            drop(client);
            let said = run_with(bob.s_client(&lab, &name(), &[version, suite[0], suite[1]]), b"").await;
            alert(&said, "alert access denied");
        }
    }
    let said = run_with(
        alice.s_client(&lab, &name(), &["-tls1_1", "-cipher", "ALL@SECLEVEL=0"]),
        b"",
    )
    .await;
    alert(&said, " alert ");
    let refused = lab.gateway_audit().awaited("session.refuse", None).await;
    assert_eq!((refused.text("caller"), refused.text("reason")), ("bob", "no-rule"));
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_withheld_certificate_is_asked_for_and_an_agents_is_nobodys() {
    let (lab, _echo, alice) = stage().await;
    let mut command = fairlead_tests::clients::stock("openssl");
    command
        .args(["s_client", "-quiet", "-servername", &name(), "-CAfile"])
        .arg(alice.path("ca.pem"))
        .args(["-verify_return_error", "-connect"])
        .arg(lab.address().to_string());
    alert(&run_with(command, b"").await, "alert certificate required");
    let state = lab.path("agents/pump-7/state");
    let mut command = fairlead_tests::clients::stock("openssl");
    command
        .args(["s_client", "-quiet", "-servername", &name(), "-connect"])
        .arg(lab.address().to_string())
        .arg("-cert")
        .arg(state.join("chain.pem"))
        .arg("-cert_chain")
        .arg(state.join("chain.pem"))
        .arg("-key")
        .arg(state.join("key.pem"));
    alert(&run_with(command, b"").await, "alert access denied");
    let fails: Vec<String> = lab.gateway_audit().lines().iter().map(|line| line.shown()).collect();
    assert!(fails.contains(&"auth.fail no-certificate".to_owned()), "{fails:?}");
    assert!(fails.contains(&"auth.fail not-a-caller".to_owned()), "{fails:?}");
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_strangers_certificate_ends_the_handshake() {
    let (lab, _echo, alice) = stage().await;
    let other = Lab::start().await;
    let mallory = other.user("alice", &["field"]).await;
    let mut command = mallory.s_client(&lab, &name(), &[]);
    command.arg("-CAfile").arg(alice.path("ca.pem"));
    alert(&run_with(command, b"").await, "alert unknown ca");
    let line = lab.gateway_audit().awaited("auth.fail", None).await;
    assert_eq!(line.text("reason"), "wrong-ca");
    assert_eq!(line.fact("server_name"), name());
    other.stop().await;
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_caller_is_refused_at_once_and_cannot_resume() {
    let (lab, _echo, alice) = stage().await;
    let session = lab.path("session.pem");
    let save = ["-sess_out", session.to_str().unwrap()];
    let mut command = alice.s_client(&lab, &name(), &save);
    command.stdin(std::process::Stdio::piped());
    let mut client = fairlead_tests::clients::Running::start(command);
    tokio::io::AsyncWriteExt::write_all(client.stdin.as_mut().unwrap(), b"hello\n")
        .await
        .unwrap();
    assert_eq!(client.line().await, "hello");
    lab.disable_user("alice", true).await;
    alert(&client.finish().await, "alert certificate revoked");
    // TLS 1.3 hands out no ticket, so that there is nothing to come back with.
    assert!(!session.exists() || std::fs::read(&session).unwrap().is_empty());
    let said = run_with(alice.s_client(&lab, &name(), &[]), b"").await;
    alert(&said, "alert certificate revoked");
    lab.stop().await;
}
