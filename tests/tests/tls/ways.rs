//! Ports beside the one port, and what rules read of a caller's TLS.

use fairlead_tests::clients::{Running, run_with, stock};
use fairlead_tests::lab::{DOMAIN, Lab};
use fairlead_tests::upstream::Echo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

async fn echoes(command: tokio::process::Command) {
    let mut command = command;
    command.stdin(std::process::Stdio::piped());
    let mut client = Running::start(command);
    client.stdin.as_mut().unwrap().write_all(b"ping\n").await.unwrap();
    assert_eq!(client.line().await, "ping");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rules_read_the_name_and_the_version_of_tls() {
    let mut lab = Lab::start().await;
    let echo = Echo::start().await;
    let upstream = format!("tcp://{}", echo.address);
    lab.agent("pump-7")
        .endpoint("tls://pump-7:7000", &upstream)
        .endpoint("tcp://pump-7:7001", &upstream)
        .start()
        .await;
    let alice = lab.user("alice", &["field"]).await;
    let rule = |condition: &str| {
        format!("version: 1\nrules:\n  - {{ name: r, sites: ['*'], effect: allow, expressions: [\"{condition}\"] }}\n")
    };
    let name = format!("pump-7.default.{DOMAIN}");
    for (condition, version, is_allowed) in [
        ("conn.tls.version == '1.3'".to_owned(), "-tls1_3", true),
        ("conn.tls.version == '1.3'".to_owned(), "-tls1_2", false),
        ("conn.tls.version == '1.2'".to_owned(), "-tls1_2", true),
        (format!("conn.tls.sni == '{name}'"), "-tls1_3", true),
        (format!("conn.tls.sni == 'pump-7--default.{DOMAIN}'"), "-tls1_3", false),
        ("conn.tls.sni == ''".to_owned(), "-tls1_3", false),
    ] {
        lab.policy(&rule(&condition)).await;
        let command = alice.s_client(&lab, &name, &[version]);
        if is_allowed {
            echoes(command).await;
        } else {
            let said = run_with(command, b"ping\n").await;
            assert!(
                said.stderr.contains("alert access denied"),
                "{condition}: {}",
                said.stderr
            );
        }
    }
    // Who comes by SSH speaks no TLS, and that is known.
    lab.policy(&rule("conn.tls.version == '' && conn.tls.sni == ''")).await;
    echoes(alice.ssh(&["-W", "pump-7.default.internal:7001", DOMAIN])).await;
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_of_its_own_speaks_its_one_protocol() {
    let listeners = "listeners:\n  - { protocol: ssh, listen: \"127.0.0.1:0\" }\n  - { protocol: tls, listen: \"127.0.0.1:0\" }\n  - { protocol: postgres, listen: \"127.0.0.1:0\" }";
    let mut lab = Lab::configured(listeners).await;
    let echo = Echo::start().await;
    lab.agent("pump-7")
        .endpoint("tls://pump-7:7000", &format!("tcp://{}", echo.address))
        .start()
        .await;
    let alice = lab.user("alice", &["field"]).await;
    let [ssh, tls, postgres] = lab.gateway().dedicated[..] else {
        panic!("three listeners");
    };
    // SSH is greeted at once; on the one port a silent client waits for 2 s.
    let mut greeted = TcpStream::connect(ssh).await.unwrap();
    let mut banner = [0; 8];
    let reading = tokio::time::timeout(std::time::Duration::from_millis(1500), greeted.read_exact(&mut banner));
    reading.await.expect("a greeting").unwrap();
    assert_eq!(&banner, b"SSH-2.0-");
    // TLS is TLS whatever ALPN asks for.
    let mut command = stock("openssl");
    command
        .args(["s_client", "-quiet", "-alpn", "postgresql", "-servername"])
        .arg(format!("pump-7.default.{DOMAIN}"))
        .args(["-connect", &tls.to_string(), "-CAfile"])
        .arg(alice.path("ca.pem"))
        .arg("-cert")
        .arg(alice.path("cert.pem"))
        .arg("-cert_chain")
        .arg(alice.path("cert.pem"))
        .arg("-key")
        .arg(alice.path("login.key.pem"));
    echoes(command).await;
    // Nothing else is spoken there.
    for (port, bytes) in [
        (tls, b"SSH-2.0-x\r\n".as_slice()),
        (postgres, b"SSH-2.0-x\r\n"),
        (tls, b"\0\0\0\x08\x04\xd2\x16\x2f"),
    ] {
        let mut stream = TcpStream::connect(port).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        drop(stream.read_to_end(&mut answer).await);
        assert!(answer.is_empty(), "{answer:?}");
    }
    let mut stream = TcpStream::connect(postgres).await.unwrap();
    stream.write_all(b"\0\0\0\x08\x04\xd2\x16\x2f").await.unwrap();
    let mut answer = [0];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"S");
    lab.stop().await;
}
