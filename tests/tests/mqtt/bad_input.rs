//! Bytes that are no MQTT, or too much of it: closed with the protocol's code, memory bounded, others unaffected.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::stage::Stage;

const PATIENCE: Duration = Duration::from_secs(30);

fn text(value: &[u8]) -> Vec<u8> {
    [&u16::try_from(value.len()).unwrap().to_be_bytes(), value].concat()
}

fn connect(version: u8) -> Vec<u8> {
    let properties: &[u8] = if version == 5 { &[0] } else { &[] };
    let body = [&text(b"MQTT")[..], &[version, 2, 0, 60], properties, &text(b"valve")].concat();
    [&[0x10, u8::try_from(body.len()).unwrap()], &body[..]].concat()
}

/// Sends these bytes on a connection of its own, those behind the hello once that is answered, and gives everything that
/// comes back afterwards until the end.
async fn answered(stage: &Stage, hello: &[u8], sent: &[u8]) -> Vec<u8> {
    let mut stream = stage.valve.tls(&stage.lab, &Stage::name()).await.unwrap();
    if !hello.is_empty() {
        stream.write_all(hello).await.unwrap();
        let mut head = [0; 2];
        timeout(PATIENCE, stream.read_exact(&mut head)).await.unwrap().unwrap();
        assert_eq!(head[0], 0x20);
        stream.read_exact(&mut vec![0; usize::from(head[1])]).await.unwrap();
    }
    // The gateway may end in the middle.
    drop(stream.write_all(sent).await);
    drop(stream.flush().await);
    let mut heard = Vec::new();
    let read = timeout(PATIENCE, stream.read_to_end(&mut heard)).await;
    drop(read.expect("the connection ends"));
    heard
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_packet_ends_with_its_code() {
    let stage = Stage::set().await;
    let long = [&[0x30, 0xff, 0xff, 0xff, 0x7f][..], &text(b"devices/valve/x")].concat();
    let endless = [&[0x30, 0xff, 0xff, 0xff, 0xff][..], &[0xff; 64]].concat();
    let publish = |topic: &[u8]| {
        let body = [&text(topic)[..], &[0], b"hello"].concat();
        [&[0x30, u8::try_from(body.len()).unwrap()], &body[..]].concat()
    };
    for (what, bytes, code) in [
        ("a length of 256 MiB", long, 0x95),
        ("a length without end", endless, 0x81),
        ("invalid UTF-8", publish(b"devices/valve/\xff"), 0x81),
        ("NUL", publish(b"devices/valve/\0"), 0x81),
        ("a wildcard in a topic", publish(b"devices/valve/#"), 0x81),
        ("packet type 0", vec![0x00, 0x00], 0x81),
        ("AUTH", vec![0xf0, 0x00], 0x82),
    ] {
        let rest = answered(&stage, &connect(5), &bytes).await;
        assert_eq!(
            (rest.first(), rest.get(2)),
            (Some(&0xe0), Some(&code)),
            "{what}: {rest:?}"
        );
    }
    // Before CONNECT nothing is answered; a CONNECT that is none is.
    assert!(answered(&stage, &[], b"\xc0\x00").await.is_empty());
    assert!(
        answered(&stage, &[], b"\x10\xff\xff\xff\x7f\x00\x04MQTT\x05")
            .await
            .starts_with(&[0x20])
    );
    let old = answered(&stage, &[], b"\x10\x0c\x00\x04MQTT\x03\x02\x00\x3c\x00\x00").await;
    assert_eq!(old, b"\x20\x02\x00\x01");
    stage.strike().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_numbers_is_cut_and_nobody_else_notices() {
    let stage = Stage::set().await;
    let mut other = stage.pump.tls(&stage.lab, &Stage::name()).await.unwrap();
    let hello = connect(4);
    let hello = [&hello[..hello.len() - 5], b"pump-"].concat();
    other.write_all(&hello).await.unwrap();
    let mut welcome = [0; 4];
    other.read_exact(&mut welcome).await.unwrap();
    assert_eq!(welcome, [0x20, 2, 0, 0]);
    let mut flood = Vec::new();
    for id in 1..=u16::MAX {
        let body = [&text(b"devices/valve/x")[..], &id.to_be_bytes(), &[0], b"x"].concat();
        flood.extend([0x34, u8::try_from(body.len()).unwrap()]);
        flood.extend(body);
    }
    // Cut or carried: a broker that keeps up lets it pass.
    drop(answered(&stage, &connect(5), &[&flood[..], b"\xe0\x00"].concat()).await);
    other.write_all(b"\xc0\x00").await.unwrap();
    let mut pong = [0; 2];
    timeout(PATIENCE, other.read_exact(&mut pong)).await.unwrap().unwrap();
    assert_eq!(pong, [0xd0, 0]);
    drop(other);
    stage.strike().await;
}
