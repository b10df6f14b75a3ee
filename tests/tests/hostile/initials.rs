//! SECURITY.md A6: first packets of QUIC connections that nobody means to finish, from many addresses, as fast as they
//! go. Each is a whole Initial with a TLS hello inside (RFC 9001 section 5.2), so that the gateway has to decide on it.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fairlead_runtime::stop::CancellationToken;
use fairlead_runtime::tasks::TaskGroup;
use fairlead_tests::clients::asks_for_all;
use fairlead_tests::programs::{DOMAIN, Scene, until};
use fairlead_wire::version::ALPN_LINK;
use rustls::crypto::aws_lc_rs;
use rustls::quic::{ClientConnection, Version};
use rustls::{RootCertStore, Side};

use super::watch::{self, Goal};

const SCID: [u8; 8] = *b"stranger";
const SIZE: usize = 1_200;
/// Above this many handshakes of addresses that proved nothing, the gateway asks for proof.
const RETRY_ABOVE: u64 = 256;

/// What came back for what was sent.
#[derive(Debug, Default)]
struct Echo {
    sent: usize,
    sent_bytes: usize,
    back_bytes: usize,
    retries: usize,
    versions: usize,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_first_packets_is_answered_by_retries_and_honest_peers_get_through() {
    let mut scene = Scene::set().await;
    let (gateway, tasks) = (scene.address(), TaskGroup::new("flood", &CancellationToken::new()));
    let (rate, seconds) = if asks_for_all() { (20_000, 10) } else { (2_000, 3) };
    let (sender, mut echo) = tokio::sync::watch::channel(None);
    let attack = async move {
        let flood = tasks
            .blocking("flood", move || flood(gateway, rate, seconds))
            .await
            .unwrap();
        sender.send_replace(Some(flood));
    };
    let goal = Goal {
        memory_mib: 100,
        lines: 10,
    };
    watch::during(&mut scene, "A6", &goal, attack).await;
    let echo = echo.borrow_and_update();
    let echo = echo.as_ref().expect("the flood has ended");
    println!("A6: {echo:?}, {:.2} bytes back for each sent", ratio(echo));
    assert!(echo.retries > echo.sent / 4, "few retries: {echo:?}");
    assert!(echo.versions > 0, "an unknown version is answered: {echo:?}");
    assert!(ratio(echo) <= 3.0, "{echo:?}");
    let left = scene.home.metric("fairlead_handshakes_in_flight").await.unwrap();
    println!("A6: {left} handshakes in flight afterwards");
    assert!(left <= RETRY_ABOVE + 8, "{left}");
    until("every place is given back", Duration::from_secs(20), async || {
        (scene.home.metric("fairlead_handshakes_in_flight").await? == 0).then_some(())
    })
    .await;
}

#[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
fn ratio(echo: &Echo) -> f64 {
    echo.back_bytes as f64 / echo.sent_bytes as f64
}

/// Sends at `rate` a second for so many seconds from 250 addresses; one in a hundred of a version that nobody speaks.
fn flood(gateway: SocketAddr, rate: usize, seconds: usize) -> Echo {
    let sockets: Vec<UdpSocket> = (1..=250)
        .map(|last| {
            let socket = UdpSocket::bind((Ipv4Addr::new(127, 0, 7, last), 0)).unwrap();
            socket.set_nonblocking(true).unwrap();
            socket
        })
        .collect();
    let hello = hello();
    let mut packets: Vec<Vec<u8>> = (0..rate)
        .map(|number| initial(u64::try_from(number).unwrap(), &hello))
        .collect();
    for packet in packets.iter_mut().step_by(100) {
        packet.splice(1..5, [0x1a, 0x2a, 0x3a, 0x4a]);
    }
    let (mut echo, began) = (Echo::default(), Instant::now());
    let mut buffer = [0; 2048];
    let pause = |until: Duration| {
        while began.elapsed() < until {
            std::thread::yield_now();
        }
    };
    for number in 0..rate * seconds {
        // Each second's packets come from other sockets than the second before.
        let socket = &sockets[(number + number / rate) % sockets.len()];
        let packet = &packets[number % rate];
        if socket.send_to(packet, gateway).is_ok() {
            echo.sent += 1;
            echo.sent_bytes += packet.len();
        }
        while let Ok((size, _)) = socket.recv_from(&mut buffer) {
            echo.note(&buffer[..size]);
        }
        pause(Duration::from_secs_f64(
            f64::from(u32::try_from(number).unwrap()) / f64::from(u32::try_from(rate).unwrap()),
        ));
    }
    for socket in &sockets {
        while let Ok((size, _)) = socket.recv_from(&mut buffer) {
            echo.note(&buffer[..size]);
        }
    }
    echo
}

impl Echo {
    fn note(&mut self, packet: &[u8]) {
        self.back_bytes += packet.len();
        match packet {
            // A long header with version 0 lists versions; one of type 3 is a Retry (RFC 9000 section 17.2).
            [first, 0, 0, 0, 0, ..] if first & 0x80 != 0 => self.versions += 1,
            [first, ..] if first & 0xf0 == 0xf0 => self.retries += 1,
            _ => {}
        }
    }
}

/// A TLS hello that fits into one packet.
fn hello() -> Vec<u8> {
    let mut provider = aws_lc_rs::default_provider();
    provider.kx_groups = vec![aws_lc_rs::kx_group::X25519];
    let mut tls = rustls::ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    tls.alpn_protocols = vec![ALPN_LINK.to_vec()];
    // One transport parameter: the source connection id.
    let parameters = [&[0x0f, 8][..], &SCID].concat();
    let name = DOMAIN.try_into().unwrap();
    let mut connection = ClientConnection::new(Arc::new(tls), Version::V1, name, parameters).unwrap();
    let mut hello = Vec::new();
    assert!(connection.write_hs(&mut hello).is_none());
    hello
}

/// An Initial packet of version 1 with a connection id of its own (RFC 9000 section 17.2.2).
fn initial(number: u64, hello: &[u8]) -> Vec<u8> {
    let dcid = number.to_be_bytes();
    let suite = aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256.tls13().unwrap();
    let keys = suite.quic_suite().unwrap().keys(&dcid, Side::Client, Version::V1).local;
    let mut packet = vec![0xc3, 0, 0, 0, 1, 8];
    packet.extend(dcid);
    packet.push(8);
    packet.extend(SCID);
    packet.push(0);
    let rest = u16::try_from(SIZE - packet.len() - 2).unwrap();
    packet.extend((0x4000 | rest).to_be_bytes());
    packet.extend([0; 4]);
    let (header, tag) = (packet.len(), 16);
    let mut payload = vec![0x06, 0];
    payload.extend((0x4000 | u16::try_from(hello.len()).unwrap()).to_be_bytes());
    payload.extend(hello);
    payload.resize(SIZE - header - tag, 0);
    let sealed = keys.packet.encrypt_in_place(0, &packet, &mut payload).unwrap();
    packet.extend(payload);
    packet.extend(sealed.as_ref());
    let (head, body) = packet.split_at_mut(header);
    let (first, rest) = head.split_first_mut().unwrap();
    let at = rest.len() - 4;
    keys.header
        .encrypt_in_place(&body[..16], first, &mut rest[at..])
        .unwrap();
    packet
}
