//! Many clients at once: kept, brought back after their broker, and what those who stop in the middle cost.

use std::sync::Arc;
use std::time::{Duration, Instant};

use fairlead_tests::clients::asks_for_all;
use fairlead_tests::lab::{Lab, Person, until};
use futures_util::stream::{self, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep_until, timeout};
use tokio_rustls::client::TlsStream;

use crate::stage::Stage;

const PATIENCE: Duration = Duration::from_secs(60);
/// Clients of one person.
const EACH: usize = 250;
/// Connections that are made at once: below what one source may have unproven.
const ABREAST: usize = 16;
/// Those who are there keep alive after so many more.
const AT_A_TIME: usize = 50;
/// What a broker waits for half as long again before it gives a client up.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

type Client = TlsStream<TcpStream>;

/// CONNECT of 3.1.1 with a name of the person's own.
fn connect(id: &str, keep_alive: Duration) -> Vec<u8> {
    let keep_alive = u8::try_from(keep_alive.as_secs()).unwrap();
    let length = u8::try_from(id.len()).unwrap();
    let body = [b"\x00\x04MQTT\x04\x02\x00", &[keep_alive, 0, length][..], id.as_bytes()].concat();
    [&[0x10, u8::try_from(body.len()).unwrap()], &body[..]].concat()
}

async fn client(
    lab: &Lab,
    people: &[(String, Person)],
    number: usize,
    keep_alive: Duration,
) -> std::io::Result<Client> {
    let (name, person) = &people[number / EACH];
    let mut client = person.tls(lab, &Stage::name()).await?;
    client
        .write_all(&connect(&format!("{name}-{number}"), keep_alive))
        .await?;
    let mut welcome = [0; 4];
    client.read_exact(&mut welcome).await?;
    let is_welcome = welcome == [0x20, 2, 0, 0];
    is_welcome
        .then_some(client)
        .ok_or_else(|| std::io::Error::other(format!("{welcome:?}")))
}

async fn crowd(stage: &Stage, people: &[(String, Person)], size: usize, keep_alive: Duration) -> Vec<Client> {
    let mut clients: Vec<Client> = Vec::new();
    for first in (0..size).step_by(AT_A_TIME) {
        let more = stream::iter(first..size.min(first + AT_A_TIME)).map(|number| async move {
            // As every client does that keeps itself connected: where many come at once, some are told to come again.
            until("a client", async || {
                let came = timeout(PATIENCE, client(&stage.lab, people, number, keep_alive)).await;
                came.expect("an answer").ok()
            })
            .await
        });
        clients.extend(more.buffer_unordered(ABREAST).collect::<Vec<_>>().await);
        all_live(&mut clients).await;
    }
    clients
}

/// Everybody says PINGREQ and hears PINGRESP.
async fn all_live(clients: &mut [Client]) {
    for client in &mut *clients {
        client.write_all(b"\xc0\x00").await.unwrap();
        client.flush().await.unwrap();
    }
    for (number, client) in clients.iter_mut().enumerate() {
        let mut pong = [0; 2];
        let read = timeout(PATIENCE, client.read_exact(&mut pong)).await;
        read.unwrap_or_else(|_| panic!("{number} hears nothing"))
            .unwrap_or_else(|error| panic!("{number} was dropped: {error}"));
        assert_eq!(pong, [0xd0, 0]);
    }
}

/// The broker's stage, and as many people as `size` clients need: one caller may have 256 sessions.
async fn set(size: usize) -> (Stage, Vec<(String, Person)>) {
    let stage = Stage::set().await;
    let mut people = Vec::new();
    for number in 0..size.div_ceil(EACH) {
        let name = format!("sensor{number}");
        let person = stage.lab.user(&name, &["field"]).await;
        people.push((name, person));
    }
    (stage, people)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_behind_one_agent_is_kept_and_comes_back_after_its_broker() {
    let (size, lasts) = if asks_for_all() { (1000, 60) } else { (100, 16) };
    let (mut stage, people) = set(size).await;
    let mut clients = crowd(&stage, &people, size, KEEP_ALIVE).await;
    assert_eq!(stage.lab.sessions().await.len(), size);
    // Longer than the broker would keep anybody whose keep-alive does not reach it.
    let end = Instant::now() + Duration::from_secs(lasts);
    while Instant::now() < end {
        all_live(&mut clients).await;
        sleep_until((Instant::now() + KEEP_ALIVE / 2).into()).await;
    }
    all_live(&mut clients).await;
    assert_eq!(stage.lab.sessions().await.len(), size, "sessions after {lasts} s");

    stage.broker.restart().await;
    for client in &mut clients {
        let gone = timeout(PATIENCE, client.read_to_end(&mut Vec::new())).await;
        drop(gone.expect("the end of a client whose broker went"));
    }
    drop(clients);
    until("the ends of their sessions", async || {
        stage.lab.sessions().await.is_empty().then_some(())
    })
    .await;
    let mut clients = crowd(&stage, &people, size, KEEP_ALIVE).await;
    all_live(&mut clients).await;
    drop(clients);
    stage.strike().await;
}

/// Resident memory of this process, which holds the gateway, the agent and the clients.
fn resident_kib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_who_stop_in_the_middle_of_a_packet_cost_a_packet_each_and_are_cut_after_a_minute() {
    const SIZE: usize = 64;
    // A message of 1 MiB less a little, of which the last byte never comes.
    let body = [&b"\x00\x11devices/sensor0/x"[..], &vec![b'x'; (1 << 20) - 64]].concat();
    let length = body.len() + 1;
    let varint = [length & 0x7f | 0x80, length >> 7 & 0x7f | 0x80, length >> 14].map(|part| part as u8);
    let half = Arc::new([&[0x30][..], &varint, &body].concat());
    let (stage, people) = set(SIZE + 1).await;
    let mut other = client(&stage.lab, &people, SIZE, KEEP_ALIVE).await.unwrap();
    let before = resident_kib();
    // Without a keep-alive the broker waits for ever.
    let mut clients = crowd(&stage, &people, SIZE, Duration::ZERO).await;
    let began = Instant::now();
    for client in &mut clients {
        client.write_all(&half).await.unwrap();
        client.flush().await.unwrap();
    }
    all_live(std::slice::from_mut(&mut other)).await;
    let mut peak = 0;
    until("what was sent is held", async || {
        let now = resident_kib();
        let settled = now == peak;
        peak = peak.max(now);
        settled.then_some(())
    })
    .await;
    let each = (peak - before) / SIZE;
    assert!(each < 3 * 1024, "{each} KiB for each of {SIZE} half packets");
    let mut ends = Vec::new();
    for mut client in clients {
        // Meanwhile the other one lives on.
        all_live(std::slice::from_mut(&mut other)).await;
        loop {
            let mut rest = Vec::new();
            match timeout(KEEP_ALIVE / 2, client.read_to_end(&mut rest)).await {
                Ok(_) => break,
                Err(_) => all_live(std::slice::from_mut(&mut other)).await,
            }
            assert!(began.elapsed() < 2 * PATIENCE, "a half packet is waited for");
        }
        ends.push(began.elapsed());
    }
    assert!(
        ends.iter().all(|end| *end > PATIENCE / 2),
        "somebody else ended them: {ends:?}"
    );
    until("their sessions' ends", async || {
        (stage.lab.sessions().await.len() == 1).then_some(())
    })
    .await;
    drop(other);
    stage.strike().await;
}
