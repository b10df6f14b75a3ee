//! Clients and databases that keep to no rule: told why where the protocol has words, ended in time, and no other session
//! notices.

use std::process::Stdio;
use std::time::{Duration, Instant};

use fairlead_tests::clients::{Running, asks_for_all, run, run_with, stock};
use fairlead_tests::lab::{DOMAIN, Lab};
use fairlead_tests::upstream::Says;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::stage::{POLICY, Stage};

/// First bytes and TLS have 10 s each; the rest is for a busy machine.
const CLOSED_WITHIN: Duration = Duration::from_secs(14);
/// For as many names does the gateway keep leaves.
const LEAVES: usize = 1024;

fn packet(code: u32, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(8 + body.len()).unwrap();
    [&length.to_be_bytes(), &code.to_be_bytes(), body].concat()
}

/// What a client in direct TLS is told for its first bytes.
async fn told(stage: &Stage, bytes: &[u8]) -> String {
    let mut openssl = stage
        .app
        .s_client(&stage.lab, &format!("db.default.{DOMAIN}"), &["-alpn", "postgresql"]);
    openssl.stdin(Stdio::piped());
    run_with(openssl, bytes).await.text()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_packet_that_is_none_is_told_in_the_protocols_words() {
    let stage = Stage::set(None).await;
    for (bytes, words) in [
        (
            packet(0x0002_0000, b"user\0app\0\0"),
            "C08P01\0Mfairlead: protocol version 2.0 is not spoken here",
        ),
        (
            packet(0x0004_0000, b"user\0app\0\0"),
            "C08P01\0Mfairlead: protocol version 4.0 is not spoken here",
        ),
        (
            b"\xff\xff\xff\xff\0\x03\0\0".to_vec(),
            "C08P01\0Mfairlead: the first packet says it is 4294967295 bytes long",
        ),
        (
            b"\0\0\x27\x11\0\x03\0\0".to_vec(),
            "C08P01\0Mfairlead: the first packet says it is 10001 bytes long",
        ),
        (
            b"GET / HTTP/1.1\r\n\r\n".to_vec(),
            "C08P01\0Mfairlead: the first packet says it is ",
        ),
        (
            packet(0x0003_0000, b"database\0billing\0\0"),
            "C08P01\0Mfairlead: the startup packet's parameters",
        ),
        (
            packet(0x0003_0000, b"user\0a\x1b[2J\0\0"),
            "C08P01\0Mfairlead: the startup packet's parameters",
        ),
        (
            packet(0x0003_0000, b"user\0postgres\0user\0root\0\0"),
            "C08P01\0Mfairlead: the startup packet's parameters",
        ),
    ] {
        let said = told(&stage, &bytes).await;
        assert!(said.contains(words), "{bytes:?}: {said:?}");
    }
    assert_eq!(stage.query("", "select 1").await.succeeded().text().trim(), "1");
    stage.strike().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_clear_garbage_is_closed_and_slowness_ends_in_time_while_sessions_go_on() {
    let stage = Stage::set(None).await;
    let mut psql = stage.psql("", &[]);
    psql.stdin(Stdio::piped());
    let mut psql = Running::start(psql);
    let closed = async |bytes: Vec<u8>| {
        let mut stream = TcpStream::connect(stage.lab.address()).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        let mut answer = Vec::new();
        drop(
            timeout(CLOSED_WITHIN, stream.read_to_end(&mut answer))
                .await
                .expect("it is closed"),
        );
        answer
    };
    assert!(closed(packet(0x0002_0000, b"user\0app\0\0")).await.is_empty());
    assert!(closed(b"\0\0\0\x09\x04\xd2\x16\x2fx".to_vec()).await.is_empty());
    // A request for TLS in which something else follows at once is no handshake (CVE-2021-23222).
    let smuggled = [packet(80_877_103, b""), packet(0x0003_0000, b"user\0postgres\0\0")].concat();
    assert!(closed(smuggled).await.starts_with(b"S"));
    // One byte a second.
    let mut slow = TcpStream::connect(stage.lab.address()).await.unwrap();
    let since = Instant::now();
    let startup = packet(0x0003_0000, &[b"user\0".as_slice(), &[b'x'; 200], b"\0\0"].concat());
    for byte in startup {
        if slow.write_all(&[byte]).await.is_err() || since.elapsed() > 2 * CLOSED_WITHIN {
            break;
        }
        let mut answer = [0];
        if let Ok(Ok(0) | Err(_)) = timeout(Duration::from_secs(1), slow.read(&mut answer)).await {
            break;
        }
        psql.stdin
            .as_mut()
            .unwrap()
            .write_all(b"select 'meanwhile';\n")
            .await
            .unwrap();
        assert_eq!(psql.line().await, "meanwhile");
    }
    assert!(since.elapsed() < 2 * CLOSED_WITHIN, "{:?}", since.elapsed());
    drop(psql);
    stage.strike().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_names_no_endpoint_is_denied_in_the_protocols_words() {
    let stage = Stage::set(None).await;
    let said = stage.query("sslsni=0 sslmode=verify-ca", "select 1").await;
    assert!(
        said.stderr.contains("FATAL:  fairlead: denied (session "),
        "{}",
        said.stderr
    );
    let said = stage
        .query("sslsni=0 sslmode=verify-ca user=postgres@no-such.default", "select 1")
        .await;
    assert!(
        said.stderr.contains("FATAL:  fairlead: denied (session "),
        "{}",
        said.stderr
    );
    stage.strike().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unknown_names_by_the_thousand_cost_a_leaf_each_and_nothing_that_stays() {
    let stage = Stage::set(None).await;
    let names = if asks_for_all() { 5000 } else { LEAVES + 176 };
    let before = resident_kib();
    for number in 0..names {
        // Over TLS without a name that anybody has: denied, after a leaf was made for it.
        let stream = stage.app.tls(&stage.lab, &format!("x{number}.default.{DOMAIN}")).await;
        drop(stream);
    }
    let grown = resident_kib().saturating_sub(before);
    assert!(grown < 64 * 1024, "{names} names: {grown} KiB more");
    assert_eq!(stage.query("", "select 1").await.succeeded().text().trim(), "1");
    stage.strike().await;
}

/// Resident memory of this process, which holds the gateway and the agent.
fn resident_kib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_speaks_something_else_fails_its_own_session() {
    let mut lab = Lab::start().await;
    lab.policy(POLICY).await;
    let hostile: Vec<(&str, Says)> = vec![
        ("http", Says::start(b"HTTP/1.1 400 Bad Request\r\n\r\n", false).await),
        ("huge", Says::start(b"R\xff\xff\xff\xff", false).await),
        (
            "key",
            Says::start(&[b"K\0\0\x01\x30".as_slice(), &[0; 300]].concat(), false).await,
        ),
        (
            "endless",
            Says::start(&[b"N\0\0\x0f\xff".as_slice(), &[b'x'; 4091]].concat(), true).await,
        ),
    ];
    for (name, says) in &hostile {
        let upstream = format!("tcp://{}", says.address);
        lab.agent(name)
            .endpoint(&format!("postgres://{name}"), &upstream)
            .start()
            .await;
    }
    let app = lab.user("app", &["apps"]).await;
    let psql = |name: &str| {
        let file = |name: &str| app.path(name).display().to_string();
        let mut psql = stock("psql");
        psql.args(["-X", "-c", "select 1", "-d"]).arg(format!(
            "host={name}.default.{DOMAIN} hostaddr=127.0.0.1 port={} sslmode=verify-full sslrootcert={} sslcert={} sslkey={} \
             user=postgres dbname=billing",
            lab.address().port(),
            file("ca.pem"),
            file("cert.pem"),
            file("login.key.pem")
        ));
        psql
    };
    for name in ["http", "huge", "key"] {
        let said = run(psql(name)).await;
        assert!(
            said.stderr.contains("FATAL:  fairlead: upstream-failed (session "),
            "{name}: {}",
            said.stderr
        );
    }
    // Notices without end: nobody can tell when they are too many, but whoever may can end it, and memory stays.
    let before = resident_kib();
    let mut client = app.s_client(&lab, &format!("endless.default.{DOMAIN}"), &["-alpn", "postgresql"]);
    client.stdin(Stdio::piped());
    let mut endless = Running::start(client);
    let startup = packet(0x0003_0000, b"user\0postgres\0database\0billing\0\0");
    endless.stdin.as_mut().unwrap().write_all(&startup).await.unwrap();
    let session = fairlead_tests::lab::until("a session that carries", async || {
        let sessions = lab.sessions().await;
        sessions.into_iter().find(|session| session.bytes_out > 64 * 1024)
    })
    .await;
    assert!(resident_kib().saturating_sub(before) < 48 * 1024);
    assert!(endless.is_alive());
    lab.kill(&session.id).await;
    let end = lab.gateway_audit().awaited("session.end", Some(&session.id)).await;
    assert_eq!(end.text("reason"), "killed");
    drop(endless);
    lab.stop().await;
}
