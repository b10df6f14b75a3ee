//! A middlebox that ends TLS itself, on a network that lets nothing but TCP pass (SECURITY.md P16): over WebSocket the agent
//! believes whom it believes over QUIC, and nobody else.

use std::path::Path;

use fairlead_tests::clients::stock;
use fairlead_tests::programs::{DOMAIN, Daemon, PATIENCE, Scene, until};
use tokio::net::TcpStream;

use super::forge::{Forge, Made, Recipe};

#[tokio::test]
async fn a_middlebox_that_ends_tls_is_refused_over_websocket_too() {
    let mut scene = Scene::set().await;
    let forge = Forge::new(scene.path("forge"), &scene.home).await;
    scene.agent.kill().await;
    scene.gateway.kill().await;
    scene.device.add("transport: websocket\n");

    let names = |dns: &str| format!("URI:spiffe://{DOMAIN}/gateway/gateway,DNS:{dns}");
    let leaf = |dns: &str| Recipe::leaf("serverAuth", &names(dns));
    let other = forge
        .make("m-other", &Recipe::authority("/CN=Middlebox", ""), None)
        .await;
    let cases: [(&str, Made, &Made); 3] = [
        (
            "wrong-ca",
            forge.make("m-wrong-ca", &leaf(DOMAIN), Some(&other)).await,
            &other,
        ),
        (
            "wrong-name",
            forge
                .make("m-wrong-name", &leaf("gw.other.test"), Some(&forge.issuing))
                .await,
            &forge.issuing,
        ),
        (
            "wrong-usage",
            forge
                .make(
                    "m-client",
                    &Recipe::leaf("clientAuth", &names(DOMAIN)),
                    Some(&forge.issuing),
                )
                .await,
            &forge.issuing,
        ),
    ];
    for (reason, leaf, issuer) in &cases {
        let log = told(&scene, leaf, &issuer.pem).await;
        assert!(log.contains(&format!("refused ({reason})")), "{reason}: {log}");
    }
    // The control: a good certificate is believed, and then what answers is no gateway.
    let good = forge.make("m-good", &leaf(DOMAIN), Some(&forge.issuing)).await;
    let log = told(&scene, &good, &forge.issuing.pem).await;
    assert!(!log.contains("refused ("), "{log}");

    scene.gateway = scene.home.start().await;
    scene.agent = scene.device.start();
    scene.alice.reaches(fairlead_tests::programs::DEVICE, PATIENCE).await;
}

/// What the agent says while openssl answers at its gateway's address with this certificate.
async fn told(scene: &Scene, leaf: &Made, chain: &Path) -> String {
    let mut server = stock("openssl");
    server
        .args(["s_server", "-quiet", "-tls1_3", "-alpn", "fairlead-ws/1", "-accept"])
        .arg(scene.address().to_string())
        .arg("-cert")
        .arg(&leaf.pem)
        .arg("-key")
        .arg(&leaf.key_pem)
        .arg("-cert_chain")
        .arg(chain);
    let mut server = Daemon::start(server, &scene.path("middlebox.log"));
    until("openssl listens", PATIENCE, async || {
        TcpStream::connect(scene.address()).await.ok().map(drop)
    })
    .await;
    let log_file = scene.path("agent-under-test.log");
    drop(std::fs::remove_file(&log_file));
    let mut agent = Daemon::start(scene.device.command("run"), &log_file);
    until("the agent says why", PATIENCE, async || {
        agent.log().contains("no link yet").then_some(())
    })
    .await;
    let log = agent.log();
    agent.kill().await;
    server.kill().await;
    log
}
