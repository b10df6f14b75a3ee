//! Bytes through a local port: ends of one direction, clients that do not read, cuts, and what is on its way at a stop.

use std::time::Duration;

use fairlead_tests::clients::{run, run_with, stock};
use fairlead_tests::lab::Lab;
use fairlead_tests::programs::{PATIENCE, until};
use fairlead_tests::redis::Redis;
use fairlead_tests::upstream::{Count, Echo, Flood};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::stage::{Connect, lab, stdio};

async fn served(lab: &mut Lab, upstream: std::net::SocketAddr, host: &str) -> String {
    let url = format!("tcp://{host}.default.internal:7000");
    lab.agent(host)
        .endpoint(&url, &format!("tcp://{upstream}"))
        .start()
        .await;
    url
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_one_direction_leaves_the_other_open() {
    let mut lab = lab("true").await;
    let count = Count::start().await;
    let url = served(&mut lab, count.address, "count").await;
    let app = lab.user("app", &["apps"]).await;
    let connect = Connect::of(&app, &url).await;
    let sent = vec![7_u8; 3_000_000];
    let (mut read, mut write) = connect.dial().await.into_split();
    let sending = async {
        write.write_all(&sent).await.unwrap();
        write.shutdown().await.unwrap();
    };
    let mut answer = String::new();
    let reading = read.read_to_string(&mut answer);
    let ((), read) = timeout(PATIENCE, async { tokio::join!(sending, reading) })
        .await
        .unwrap();
    read.unwrap();
    assert_eq!(answer.trim(), "3000000 bytes");
    let said = run_with(stdio(&app, &url), &sent).await.succeeded();
    assert_eq!(said.text().trim(), "3000000 bytes", "and on standard input and output");
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_do_not_read_hold_up_no_other() {
    let mut lab = lab("true").await;
    let (flood, echo) = (Flood::start().await, Echo::start().await);
    let flooded = served(&mut lab, flood.address, "flood").await;
    let echoed = served(&mut lab, echo.address, "echo").await;
    let app = lab.user("app", &["apps"]).await;
    let connect = Connect::of(&app, &flooded).await;
    let other = Connect::of(&app, &echoed).await;
    let mut stalled = Vec::new();
    for _ in 0..6 {
        let mut stream = connect.dial().await;
        stream.read_u8().await.unwrap();
        stalled.push(stream);
    }
    // Longer than it takes to fill every buffer on the way.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let mut one_more = connect.dial().await;
    let mut bytes = vec![0; 4 * 1024 * 1024];
    timeout(PATIENCE, one_more.read_exact(&mut bytes))
        .await
        .unwrap()
        .unwrap();
    let mut stream = other.dial().await;
    stream.write_all(b"ping").await.unwrap();
    let mut pong = [0; 4];
    timeout(PATIENCE, stream.read_exact(&mut pong)).await.unwrap().unwrap();
    assert_eq!(&pong, b"ping");
    drop(stalled);
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_beyond_what_one_conversation_carries_is_told_at_once() {
    fairlead_runtime::process::raise_file_limit().unwrap();
    let mut lab =
        Lab::configured("limits: { login_failures_per_source: 0, sessions_per_caller: { user: 2000 } }").await;
    lab.policy("version: 1\nrules: [ { name: all, sites: ['*'], effect: allow } ]\n")
        .await;
    let echo = Echo::start().await;
    let url = served(&mut lab, echo.address, "echo").await;
    let app = lab.user("app", &["apps"]).await;
    let connect = Connect::of(&app, &url).await;
    let mut held = Vec::new();
    let refused = loop {
        assert!(held.len() < 700, "a conversation carries 512, and a seventh more");
        let mut stream = connect.dial().await;
        stream.write_all(b"x").await.unwrap();
        // Two seconds for one to end, and some for a busy machine.
        match timeout(Duration::from_secs(10), stream.read_u8()).await.unwrap() {
            Ok(_) => held.push(stream),
            Err(error) => break error,
        }
    };
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionReset);
    assert!(held.len() >= 512, "{}", held.len());
    connect.says("limit: the gateway lets no further session be open").await;
    held.truncate(500);
    until("another is served", PATIENCE, async || {
        let mut stream = connect.dial().await;
        stream.write_all(b"x").await.ok()?;
        stream.read_u8().await.ok()
    })
    .await;
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_is_no_clean_end_and_is_said_with_its_reason() {
    let mut lab = lab("true").await;
    let echo = Echo::start().await;
    let url = served(&mut lab, echo.address, "echo").await;
    let app = lab.user("app", &["apps"]).await;
    let connect = Connect::of(&app, &url).await;
    let mut stream = connect.dial().await;
    stream.write_all(b"ping").await.unwrap();
    stream.read_exact(&mut [0; 4]).await.unwrap();
    let session = lab.sessions().await.remove(0).id;
    lab.kill(&session).await;
    let error = timeout(PATIENCE, stream.read_u8()).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    connect.says(&format!("killed (session {session})")).await;
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_stops_lets_what_is_on_its_way_arrive() {
    let mut lab = lab("true").await;
    let count = Count::start().await;
    let url = served(&mut lab, count.address, "count").await;
    let app = lab.user("app", &["apps"]).await;
    let connect = Connect::of(&app, &url).await;
    let (mut read, mut write) = connect.dial().await.into_split();
    write.write_all(&[7; 100_000]).await.unwrap();
    fairlead_tests::lab::until("the session", async || (!lab.sessions().await.is_empty()).then_some(())).await;
    let sending = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        for _ in 0..20 {
            write.write_all(&[7; 100_000]).await.unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        write.shutdown().await.unwrap();
        let mut answer = String::new();
        read.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer.trim(), "2100000 bytes");
    };
    tokio::join!(lab.stop_gateway(Duration::from_secs(20)), sending);
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_that_is_told_to_stop_lets_its_connections_end_and_says_goodbye() {
    let mut lab = lab("true").await;
    let echo = Echo::start().await;
    let url = served(&mut lab, echo.address, "echo").await;
    let app = lab.user("app", &["apps"]).await;
    let mut connect = Connect::of(&app, &url).await;
    let mut stream = connect.dial().await;
    stream.write_all(b"ping").await.unwrap();
    stream.read_exact(&mut [0; 4]).await.unwrap();
    connect.program.signal(nix::sys::signal::Signal::SIGTERM);
    connect.says("1 connections are open").await;
    assert!(
        tokio::net::TcpStream::connect(connect.address).await.is_err(),
        "nobody new"
    );
    stream.write_all(b"pong").await.unwrap();
    stream.read_exact(&mut [0; 4]).await.unwrap();
    drop(stream);
    assert_eq!(connect.program.ended(Duration::from_secs(4)).await, Some(0));
    let end = lab.gateway_audit().awaited("session.end", None).await;
    assert_eq!(end.text("reason"), "finished");
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_cli_works_at_a_local_port() {
    let mut lab = lab("true").await;
    let redis = Redis::start(&lab.path("redis"), None).await;
    let upstream = ([127, 0, 0, 1], redis.port).into();
    let url = served(&mut lab, upstream, "cache").await;
    let app = lab.user("app", &["apps"]).await;
    let connect = Connect::of(&app, &url).await;
    let mut cli = stock("redis-cli");
    cli.args(["-p", &connect.address.port().to_string(), "ping"]);
    assert_eq!(run(cli).await.succeeded().text().trim(), "PONG");
    lab.stop().await;
}
