//! Bytes that are no protocol, and silence, on both sides of the one port (SECURITY.md A1, advisories 52 and 56).

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use fairlead_runtime::stop::CancellationToken;
use fairlead_runtime::tasks::TaskGroup;
use fairlead_tests::programs::{DEVICE, PATIENCE, Scene, until};

/// SECURITY.md A1, with room for a busy machine.
const CLOSED_WITHIN: Duration = Duration::from_secs(12);
/// An SSH client that has not logged in by then is cut after 15 s.
const LOGIN_OVER_WITHIN: Duration = Duration::from_secs(16 + 2);
const LARGE: (usize, usize) = (100, 64 * 1024);
const SMALL: (usize, usize) = (1_000, 64);
/// Fewer than the handshakes that one address may have in flight, so that callers find a place.
const THROWERS: usize = 8;

#[tokio::test]
async fn random_bytes_on_both_ports_are_closed_and_callers_notice_nothing() {
    let mut scene = Scene::set().await;
    let log_before = scene.gateway.log().lines().count();
    let (address, tasks) = (scene.address(), TaskGroup::new("noise", &CancellationToken::new()));
    let noise = async {
        let thrown = tasks.blocking("throw", move || {
            throw_datagrams(address);
            throw_connections(address)
        });
        thrown.await.unwrap()
    };
    let callers = async {
        let mut worst = Duration::ZERO;
        for _ in 0..5 {
            let began = Instant::now();
            scene.alice.on(DEVICE, "true").await.succeeded();
            worst = worst.max(began.elapsed());
        }
        worst
    };
    let (longest, worst_session) = tokio::join!(noise, callers);
    println!(
        "A1: {} connections, closed after at most {longest:.1?}; worst ssh meanwhile {worst_session:.1?}",
        LARGE.0 + SMALL.0
    );
    let lines = scene.gateway.log().lines().count() - log_before;
    assert!(lines < 20, "{lines} log lines for noise");
    until("every place is given back", CLOSED_WITHIN, async || {
        (scene.home.metric("fairlead_handshakes_in_flight").await? == 0).then_some(())
    })
    .await;
    scene.alice.on(DEVICE, "true").await.succeeded();
    scene.is_sound().await;
}

#[tokio::test]
async fn silence_and_half_greetings_end_in_time() {
    let mut scene = Scene::set().await;
    let (address, tasks) = (scene.address(), TaskGroup::new("silence", &CancellationToken::new()));
    let blocking = |work: fn(SocketAddr)| {
        let tasks = tasks.clone();
        async move { tasks.blocking("silence", move || work(address)).await.unwrap() }
    };
    tokio::join!(
        blocking(|address| {
            let (mut stream, began) = (connect(address, PATIENCE), Instant::now());
            let mut banner = [0; 8];
            stream.read_exact(&mut banner).unwrap();
            let greeted = began.elapsed();
            assert_eq!(&banner, b"SSH-2.0-");
            println!("a silent client is greeted after {greeted:.1?}");
            assert!(
                greeted > Duration::from_millis(1_800) && greeted < Duration::from_secs(5),
                "{greeted:?}"
            );
            // Whoever says nothing after the greeting is not waited for either.
            closed(
                stream,
                "a client that stays silent",
                LOGIN_OVER_WITHIN + Duration::from_secs(2),
            );
        }),
        blocking(|address| send_and_wait(address, b"SSH-2.0-half_a_banner", LOGIN_OVER_WITHIN)),
        blocking(|address| send_and_wait(address, b"SSH-2.0-whole\r\n", LOGIN_OVER_WITHIN)),
        blocking(|address| send_and_wait(address, b"SS", CLOSED_WITHIN)),
        blocking(|address| send_and_wait(address, &[0x16, 0x03], CLOSED_WITHIN)),
        blocking(|address| send_and_wait(address, &[0, 0, 0, 8, 4], CLOSED_WITHIN)),
        blocking(|address| send_and_wait(address, &[3, 0], CLOSED_WITHIN)),
        blocking(drip),
    );
    scene.alice.on(DEVICE, "true").await.succeeded();
    scene.is_sound().await;
}

/// First bytes one by one do not hold a place for ever.
fn drip(address: SocketAddr) {
    let (mut stream, began) = (connect(address, Duration::from_millis(1_500)), Instant::now());
    for byte in *b"SSSSSSSSSSSS" {
        // What is no protocol's first byte any more is refused at once, before the limit.
        if stream.write_all(&[byte]).is_err() || matches!(stream.read(&mut [0; 1]), Ok(0)) {
            break;
        }
    }
    assert!(began.elapsed() < CLOSED_WITHIN, "{:?}", began.elapsed());
}

fn send_and_wait(address: SocketAddr, bytes: &[u8], limit: Duration) {
    let mut stream = connect(address, limit);
    stream.write_all(bytes).unwrap();
    closed(stream, &String::from_utf8_lossy(bytes), limit);
}

fn connect(address: SocketAddr, patience: Duration) -> TcpStream {
    let stream = TcpStream::connect(address).expect("the gateway accepts");
    stream.set_read_timeout(Some(patience)).unwrap();
    stream
}

/// Reads until the other side has closed; how long that took.
fn closed(mut stream: TcpStream, what: &str, limit: Duration) -> Duration {
    let (began, mut bytes) = (Instant::now(), [0; 4096]);
    stream.set_read_timeout(Some(limit)).unwrap();
    loop {
        match stream.read(&mut bytes) {
            Ok(0) => return began.elapsed(),
            Ok(_) => assert!(began.elapsed() < limit, "{what}: still talking after {limit:?}"),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                panic!("{what}: still open after {limit:?}")
            }
            // Closed with our bytes unread.
            Err(_) => return began.elapsed(),
        }
    }
}

fn throw_datagrams(address: SocketAddr) {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let mut random = Random(0x5eed);
    for number in 0..LARGE.0 + SMALL.0 {
        let length = if number < LARGE.0 {
            60_000
        } else {
            1 + random.below(SMALL.1 - 1)
        };
        let mut datagram = random.bytes(length);
        // Some look like QUIC for a moment: a long header of version 1, padded as an Initial must be.
        if number % 5 == 0 {
            datagram.splice(..datagram.len().min(5), [0xc0, 0, 0, 0, 1]);
            datagram.resize(datagram.len().max(1_200), 0);
        }
        socket.send_to(&datagram, address).unwrap();
    }
}

/// How long the slowest connection stayed open.
fn throw_connections(address: SocketAddr) -> Duration {
    let sizes: Vec<usize> = {
        let mut random = Random(42);
        let small = (0..SMALL.0).map(|_| 1 + random.below(SMALL.1));
        std::iter::repeat_n(LARGE.1, LARGE.0).chain(small).collect()
    };
    std::thread::scope(|scope| {
        let throwers = sizes
            .chunks(sizes.len().div_ceil(THROWERS))
            .enumerate()
            .map(|(seed, sizes)| {
                scope.spawn(move || {
                    let mut random = Random(7 + u64::try_from(seed).unwrap());
                    let each = sizes.iter().map(|size| {
                        let mut stream = connect(address, CLOSED_WITHIN);
                        // Refused before the last byte was sent, as it should be.
                        drop(stream.write_all(&random.bytes(*size)));
                        closed(stream, "random bytes", CLOSED_WITHIN)
                    });
                    each.max().unwrap_or_default()
                })
            });
        let throwers: Vec<_> = throwers.collect();
        throwers
            .into_iter()
            .map(|thrower| thrower.join().unwrap())
            .max()
            .unwrap_or_default()
    })
}

/// xorshift64 (Marsaglia 2003): the same noise in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(bound).unwrap()).unwrap()
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next().to_le_bytes()[3]).collect()
    }
}
