//! A gateway that goes away and comes back, and a certificate that ends while the program runs.

use std::time::Duration;

use fairlead::profile::Profile;
use fairlead_tests::lab::Lab;
use fairlead_tests::postgres::Postgres;
use fairlead_tests::programs::{PATIENCE, Scene, until};
use fairlead_tests::upstream::Echo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::stage::Connect;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_restart_of_the_gateway_new_connections_are_served_and_those_made_meanwhile_wait() {
    let postgres = Postgres::start().await;
    let endpoint = format!(
        "  - {{ url: postgres://pump-7.default.internal, upstream: {{ url: \"{}\" }} }}\n",
        postgres.upstream()
    );
    let mut scene = Scene::with_endpoints(&endpoint).await;
    let connect = Connect::start(scene.alice.dir(), "postgres://pump-7").await;
    connect.query("dbname=postgres", "select 1").await.succeeded();
    scene.gateway.kill().await;
    let meanwhile = connect.query("dbname=postgres", "select 6 * 7");
    let back = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        scene.gateway = scene.home.start().await;
    };
    let (said, ()) = tokio::join!(meanwhile, back);
    assert_eq!(said.succeeded().text().trim(), "42");
    connect.query("dbname=postgres", "select 1").await.succeeded();
    scene.is_sound().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_does_not_come_back_is_waited_for_so_long_and_no_longer() {
    let mut scene = Scene::set().await;
    let connect = Connect::start(scene.alice.dir(), "ssh://pump-7").await;
    scene.gateway.kill().await;
    let mut stream = connect.dial().await;
    let ended = tokio::time::timeout(Duration::from_secs(60), stream.read_u8()).await;
    assert!(ended.expect("an end").is_err());
    connect.says("the gateway was not reached within 30 s").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_certificate_is_renewed_while_the_program_runs() {
    let mut lab = Lab::configured("certificates: { agent: 10s, user: 10s }\n").await;
    let echo = Echo::start().await;
    let upstream = format!("tcp://{}", echo.address);
    lab.agent("echo").endpoint("tcp://echo:7000", &upstream).start().await;
    lab.policy("version: 1\nrules: [ { name: all, sites: ['*'], effect: allow } ]\n")
        .await;
    let app = lab.user("app", &[]).await;
    let profile = Profile::at(app.path(""));
    let ends = || profile.good_until(std::time::SystemTime::UNIX_EPOCH.max(std::time::SystemTime::now()));
    let first = ends().unwrap();
    let connect = Connect::of(&app, "tcp://echo:7000").await;
    until("another certificate", PATIENCE, async || {
        ends().ok().filter(|end| *end > first)
    })
    .await;
    let left = first.duration_since(std::time::SystemTime::now()).unwrap_or_default();
    tokio::time::sleep(left + Duration::from_secs(1)).await;
    let mut stream = connect.dial().await;
    stream.write_all(b"ping").await.unwrap();
    stream.read_exact(&mut [0; 4]).await.unwrap();
    assert!(ends().is_ok(), "and it is good now");
    lab.stop().await;
}
