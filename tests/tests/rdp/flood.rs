//! Many openings that are none, at once and held open: what they cost the gateway is bounded, and others get through.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use fairlead_tests::clients::asks_for_all;
use fairlead_tests::programs::{DEVICE, Scene};
use futures_util::stream::{self, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use super::stage::{PATIENCE, REFUSED, answered, request};

/// More than may be unproven at once (512) and wait (1,024) together.
const HELD: usize = 1600;
/// Connections of one source: below what it may have unproven.
const OF_A_SOURCE: usize = 30;
const ABREAST: usize = 64;
/// What all of it may cost: some 7 MiB were measured. Were every one kept with the 64 KiB that it sends, it would be 100.
const GROWTH_KIB: u64 = 32 * 1024;
/// For a refusal in words while all that goes on.
const IN_TIME: Duration = Duration::from_secs(10);

/// An address of this machine; each is a source of its own.
fn source(number: usize) -> Ipv4Addr {
    let [third, fourth] = u16::try_from(number / OF_A_SOURCE).unwrap().to_be_bytes();
    Ipv4Addr::new(127, 77, third, fourth)
}

/// A connection from there; none where the gateway takes no further.
async fn connected(number: usize, gateway: SocketAddr) -> Option<TcpStream> {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((source(number), 0).into()).unwrap();
    timeout(PATIENCE, socket.connect(gateway)).await.ok()?.ok()
}

/// Sends that and waits for the end, whatever it is.
async fn spoken(number: usize, gateway: SocketAddr, bytes: &[u8]) {
    if let Some(mut stream) = connected(number, gateway).await {
        // The gateway may end in the middle.
        drop(stream.write_all(bytes).await);
        let mut heard = Vec::new();
        drop(timeout(PATIENCE, stream.read_to_end(&mut heard)).await.expect("an end"));
    }
}

fn resident_kib(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_openings_that_are_none_cost_little_and_shut_nobody_out() {
    let scene = Scene::with_endpoints(&format!(
        "  - {{ url: \"rdp://{DEVICE}.default.internal\", upstream: {{ url: \"tcp://127.0.0.1:9\" }} }}\n"
    ))
    .await;
    let gateway = scene.address();
    let count: usize = if asks_for_all() { 20_000 } else { 2_000 };
    let cookie = [b"\x03\0\xff\xff\xfe\xe0\0\0\0\0\0Cookie: msts=", &[b'a'; 64 * 1024][..]].concat();
    let junk = [b"\x03\0\0\x14\x0f\xe0\0\0\0\0\0", &[0xff; 9][..]].concat();
    let oversize = [&b"\x03\0\xff\xff\x02\xf0\x80"[..], &[0; 4096]].concat();
    let wrong = request("Cookie: msts=fl1-00000000000000000000000000000000");
    let openings = [&cookie, &junk, &oversize, &wrong];
    // What the first of each kind needs is needed once.
    for (number, bytes) in openings.iter().enumerate() {
        spoken(number, gateway, bytes).await;
    }
    let before = resident_kib(scene.gateway.id());

    let half = request("Cookie: msts=fl1-0000000000000000");
    let half = &half[..half.len() - 4];
    let held = stream::iter(0..HELD).map(|number| async move {
        let mut stream = connected(10_000 + number, gateway).await?;
        drop(stream.write_all(half).await);
        Some(stream)
    });
    let held: Vec<_> = held.buffer_unordered(ABREAST).collect().await;
    let mut peak = resident_kib(scene.gateway.id());
    let mut floods = stream::iter(0..count)
        .map(|number| spoken(number, gateway, openings[number % openings.len()]))
        .buffer_unordered(ABREAST);
    let (mut number, mut slowest) = (0_usize, Duration::ZERO);
    while floods.next().await.is_some() {
        number += 1;
        if number.is_multiple_of(100) {
            peak = peak.max(resident_kib(scene.gateway.id()));
        }
        // Somebody who can be answered is, meanwhile.
        if number.is_multiple_of(count / 10) {
            let began = Instant::now();
            let stream = connected(60_000, gateway).await.expect("a connection");
            let answer = answered(stream, &request("Cookie: mstshash=alice")).await;
            assert!(answer.ends_with(REFUSED), "{answer:?}");
            slowest = slowest.max(began.elapsed());
        }
    }
    drop(floods);
    // Half requests are not waited for: all of them end.
    for mut stream in held.into_iter().flatten() {
        let mut heard = Vec::new();
        drop(
            timeout(PATIENCE, stream.read_to_end(&mut heard))
                .await
                .expect("the end of half a request"),
        );
    }
    peak = peak.max(resident_kib(scene.gateway.id()));
    let after = resident_kib(scene.gateway.id());
    println!(
        "{count} openings beside {HELD} held: {before} KiB before, {peak} at most, {after} after; {slowest:?} to a refusal"
    );
    assert!(peak - before < GROWTH_KIB, "{before} KiB grew to {peak}");
    assert!(slowest < IN_TIME, "{slowest:?}");
    let mut scene = scene;
    scene.is_sound().await;
}
