//! Which endpoint a name means, and what is refused when it is announced.

use fairlead_tests::clients::{Running, run_with};
use fairlead_tests::lab::{DOMAIN, Lab, until};
use fairlead_tests::upstream::{Canary, Echo};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_means_the_tls_endpoint_of_the_host_and_one_of_several_ports_is_not_guessed() {
    let mut lab = Lab::start().await;
    let (echo, canary) = (Echo::start().await, Canary::listen());
    let behind = |address: std::net::SocketAddr| format!("{{ url: \"tcp://{address}\" }}");
    lab.agent("both")
        .endpoint_behind("tcp://both:7001", &behind(canary.address))
        .endpoint_behind("tls://both:7002", &behind(echo.address))
        .start()
        .await;
    lab.agent("several")
        .endpoint_behind("tcp://several:7001", &behind(canary.address))
        .endpoint_behind("tcp://several:7002", &behind(canary.address))
        .start()
        .await;
    let alice = lab.user("alice", &["field"]).await;
    let mut command = alice.s_client(&lab, &format!("both.default.{DOMAIN}"), &[]);
    command.stdin(std::process::Stdio::piped());
    let mut client = Running::start(command);
    tokio::io::AsyncWriteExt::write_all(client.stdin.as_mut().unwrap(), b"ping\n")
        .await
        .unwrap();
    assert_eq!(client.line().await, "ping");
    drop(client);
    let said = run_with(
        alice.s_client(&lab, &format!("several.default.{DOMAIN}"), &[]),
        b"ping\n",
    )
    .await;
    assert!(said.stderr.contains("alert access denied"), "{}", said.stderr);
    let refused = lab.gateway_audit().awaited("session.refuse", None).await;
    assert_eq!(refused.text("reason"), "unknown-endpoint");
    canary.is_untouched();
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_tls_endpoint_of_a_host_is_refused_when_it_is_announced() {
    let mut lab = Lab::start().await;
    let echo = Echo::start().await;
    let behind = format!("{{ url: \"tcp://{}\" }}", echo.address);
    let status = lab
        .agent("twice")
        .endpoint_behind("tls://twice:7001", &behind)
        .endpoint_behind("tls://twice:7002", &behind)
        .start_refused()
        .await;
    assert_eq!(
        status,
        [("tls://twice.default.internal:7002".to_owned(), "conflict".to_owned())]
    );
    let line = lab.gateway_audit().awaited("offer.refuse", None).await;
    assert_eq!(line.text("reason"), "conflict");
    until("the first still serves", async || {
        let roster = lab.gateway().roster().online();
        (roster.len() == 1).then_some(())
    })
    .await;
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unknown_and_foreign_names_are_told_the_same() {
    let lab = Lab::start().await;
    let alice = lab.user("alice", &["field"]).await;
    let said = run_with(alice.s_client(&lab, &format!("nobody.default.{DOMAIN}"), &[]), b"").await;
    assert!(said.stderr.contains("alert access denied"), "{}", said.stderr);
    for foreign in [
        "nobody.example.com",
        &format!("too.many.labels.{DOMAIN}"),
        "nobody.default.internal",
    ] {
        let said = run_with(alice.s_client(&lab, foreign, &[]), b"").await;
        assert!(
            said.stderr.contains("alert access denied"),
            "{foreign}: {}",
            said.stderr
        );
    }
    let said = run_with(alice.s_client(&lab, "unused", &["-noservername"]), b"").await;
    assert!(!said.status.success(), "{}", said.text());
    lab.stop().await;
}
