//! Who comes to the TCP side of links with bytes of their own (SECURITY.md A2, A8, advisories 63 and 64).

use std::sync::Arc;
use std::time::{Duration, Instant};

use fairlead_identity::tls;
use fairlead_tests::programs::{DEVICE, DOMAIN, PATIENCE};
use fairlead_wire::upgrade::ALPN_WEBSOCKET;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::Scene;

/// SECURITY.md A8 wants 1 s; the rest is for a busy machine.
const CLOSED_WITHIN: Duration = Duration::from_secs(5);
const KEY: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// TLS to the links' side of the port, without a certificate of its own.
async fn stranger(scene: &Scene) -> TlsStream<TcpStream> {
    let join = std::fs::read_to_string(scene.device.path("join.txt")).unwrap();
    let ca = fairlead_identity::join::JoinString::parse(&join).unwrap().ca_sha256;
    let settings = tls::enroll_quic(ca, ALPN_WEBSOCKET).unwrap();
    let tcp = TcpStream::connect(("127.0.0.1", scene.home.port)).await.unwrap();
    let name = ServerName::try_from(DOMAIN).unwrap();
    TlsConnector::from(Arc::clone(&settings))
        .connect(name, tcp)
        .await
        .unwrap()
}

/// Sends a request; the whole of what comes back until the end.
async fn told(scene: &Scene, request: &str) -> String {
    let mut stream = stranger(scene).await;
    // A gateway that has heard enough may have closed.
    drop(stream.write_all(request.as_bytes()).await);
    let mut answer = Vec::new();
    let _ended = timeout(Duration::from_secs(12), stream.read_to_end(&mut answer))
        .await
        .expect("an end");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn browsers_strange_paths_and_endless_requests_get_no_websocket() {
    let mut scene = Scene::set().await;
    let host = format!("Host: {DOMAIN}\r\n{KEY}");
    for (request, status) in [
        (
            format!("GET /fairlead/1 HTTP/1.1\r\n{host}Origin: https://evil.example\r\n\r\n"),
            "403",
        ),
        (
            format!("GET /fairlead-enroll/1 HTTP/1.1\r\n{host}origin: null\r\n\r\n"),
            "403",
        ),
        (format!("GET / HTTP/1.1\r\n{host}\r\n"), "404"),
        (format!("GET /fairlead/1/session HTTP/1.1\r\n{host}\r\n"), "404"),
        (format!("GET /fairlead/1?x=1 HTTP/1.1\r\n{host}\r\n"), "400"),
    ] {
        let answer = told(&scene, &request).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{request}: {answer}"
        );
    }
    let long = format!("GET /fairlead/1 HTTP/1.1\r\n{host}X: {}\r\n\r\n", "a".repeat(9000));
    let many = format!("GET /fairlead/1 HTTP/1.1\r\n{host}{}\r\n", "X: y\r\n".repeat(100));
    for request in [
        long,
        many,
        "GET / HTTP/1.1\r\n\r\n".to_owned(),
        "\u{16}\u{3}nonsense\r\n\r\n".to_owned(),
    ] {
        let answer = told(&scene, &request).await;
        assert!(!answer.contains("101"), "{answer}");
    }
    // Half a request, and silence.
    let began = Instant::now();
    assert_eq!(told(&scene, "GET /fairlead/1 HTTP/1.1\r\n").await, "");
    println!("A2: half an upgrade request is closed after {:.1?}", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(10));
    scene.alice.on(DEVICE, "true").await.succeeded();
    scene.is_sound().await;
}

#[tokio::test]
async fn frames_that_are_none_are_answered_with_a_close_code_and_compression_is_not_agreed_to() {
    let mut scene = Scene::set().await;
    let offer = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n";
    let request = format!("GET /fairlead-enroll/1 HTTP/1.1\r\nHost: {DOMAIN}\r\n{KEY}{offer}\r\n");
    let cases: [(&str, Vec<u8>, &[u16]); 5] = [
        ("unmasked", vec![0x82, 0x01, 0x00], &[1002]),
        (
            "64 MiB in one frame",
            vec![0x82, 0xff, 0, 0, 0, 0, 4, 0, 0, 0, 1, 2, 3, 4],
            &[1009],
        ),
        ("a compressed frame", vec![0xc2, 0x81, 0, 0, 0, 0, 7], &[1002]),
        ("a text", vec![0x81, 0x81, 0, 0, 0, 0, b'x'], &[1003]),
        ("pings without end", [0x89, 0x80, 0, 0, 0, 0].repeat(100), &[1008]),
    ];
    for (what, bytes, codes) in cases {
        let mut stream = stranger(&scene).await;
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
        assert!(head.starts_with("http/1.1 101") && !head.contains("deflate"), "{head}");
        stream.write_all(&bytes).await.unwrap();
        let began = Instant::now();
        let mut answer = Vec::new();
        let _ended = timeout(CLOSED_WITHIN, stream.read_to_end(&mut answer))
            .await
            .unwrap_or_else(|_| panic!("{what}: stays open"));
        let close = answer
            .windows(4)
            .find(|frame| frame[0] == 0x88 && codes.contains(&u16::from_be_bytes([frame[2], frame[3]])));
        assert!(close.is_some(), "{what}: {answer:x?}");
        println!(
            "A8 over WebSocket: {what}: closed with {codes:?} after {:.2?}",
            began.elapsed()
        );
    }
    scene.alice.reaches(DEVICE, PATIENCE).await;
    scene.is_sound().await;
}
