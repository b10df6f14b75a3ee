//! SECURITY.md A6 by peers that are known: streams opened and abandoned without end, and addresses that change again and
//! again, each of which makes the gateway prove the new path and both sides change connection ids.
//!
//! QUIC is quinn's, so these are floods within the protocol's rules. Frames that break them are the library's to refuse.

use std::net::{Ipv4Addr, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use fairlead_tests::clients::asks_for_all;
use fairlead_tests::programs::{AgentHome, Scene};
use fairlead_wire::version::{ALPN_CALL, ALPN_LINK};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::time::{sleep, timeout};

use super::forge::Presented;
use super::peer;
use super::watch::{self, Goal};

/// What a gateway lets a peer have open.
const STREAMS: usize = 8;
const CONNECTIONS: usize = 4;

fn presented(chain: &Path, key: &Path) -> Presented {
    Presented {
        chain: CertificateDer::pem_file_iter(chain)
            .unwrap()
            .map(Result::unwrap)
            .collect(),
        key: PrivateKeyDer::from_pem_file(key).unwrap(),
    }
}

fn alice(scene: &Scene) -> Presented {
    presented(
        &scene.alice.dir().join("cert.pem"),
        &scene.alice.dir().join("login.key.pem"),
    )
}

fn goal() -> Goal {
    Goal {
        memory_mib: 100,
        lines: 20,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_are_opened_and_reset_by_the_hundred_thousand_cost_nobody_else_anything() {
    let mut scene = Scene::set().await;
    let (gateway, own) = (scene.address(), Arc::new(alice(&scene)));
    let each = if asks_for_all() { 100_000 } else { 4_000 } / CONNECTIONS;
    let opened = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&opened);
    let attack = async move {
        let one = async |last: u8| {
            let connection = peer::connect(Ipv4Addr::new(127, 3, 0, last), gateway, Some(&own), ALPN_CALL);
            let connection = connection.await.unwrap();
            for _ in 0..each {
                let Ok((mut send, mut recv)) = connection.open_bi().await else {
                    panic!("the gateway ended the conversation: {:?}", connection.close_reason());
                };
                drop(send.write_all(&[0]).await);
                drop(send.reset(0_u32.into()));
                drop(recv.stop(0_u32.into()));
                seen.fetch_add(1, Ordering::Relaxed);
            }
            connection.close(0_u32.into(), b"enough");
        };
        tokio::join!(one(1), one(2), one(3), one(4));
    };
    watch::during(&mut scene, "A6 streams", &goal(), attack).await;
    println!("A6 streams: {} opened and reset", opened.load(Ordering::Relaxed));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_opens_no_more_streams_than_it_may() {
    let mut scene = Scene::set().await;
    let home: AgentHome = scene.home.agent(&scene.path("rogue"), "rogue", "").await;
    let identity = fairlead_agent::identity_files::IdentityFiles::open(&home.path("state"));
    let identity = identity.unwrap().load().unwrap();
    let key = secrecy::ExposeSecret::expose_secret(&identity.key.to_pem()).to_owned();
    let own = Presented {
        chain: identity.chain,
        key: PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
    };
    let link = peer::connect(Ipv4Addr::new(127, 3, 1, 1), scene.address(), Some(&own), ALPN_LINK);
    let link = link.await.unwrap();
    let mut count = 0;
    while let Ok(Ok((mut send, mut recv))) = timeout(Duration::from_secs(2), link.open_bi()).await {
        // One of them is the control stream, and never says Hello.
        drop(send.write_all(&[0]).await);
        drop(send.reset(0_u32.into()));
        drop(recv.stop(0_u32.into()));
        count += 1;
        assert!(count <= STREAMS * 2, "{count} streams");
    }
    println!("A6 streams: a link that abandons them gets {count}");
    scene.is_sound().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_whose_address_changes_a_thousand_times_costs_nobody_else_anything() {
    let mut scene = Scene::set().await;
    let (gateway, own) = (scene.address(), alice(&scene));
    let moves = if asks_for_all() { 1_000 } else { 60 };
    let moved = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&moved);
    let attack = async move {
        let endpoint = quinn::Endpoint::client((Ipv4Addr::new(127, 3, 2, 1), 0).into()).unwrap();
        let connection = peer::connect_by(&endpoint, gateway, Some(&own), ALPN_CALL)
            .await
            .unwrap();
        for number in 0..moves {
            let source = Ipv4Addr::new(127, 3, 3, 1 + u8::try_from(number % 200).unwrap());
            endpoint.rebind(UdpSocket::bind((source, 0)).unwrap()).unwrap();
            // Something to send, so that the new path is used.
            let opening = timeout(Duration::from_secs(5), connection.open_bi()).await;
            let (mut send, _recv) = opening.expect("the connection goes on").expect("a stream");
            drop(send.write_all(&[0]).await);
            drop(send.reset(0_u32.into()));
            sleep(Duration::from_millis(10)).await;
            seen.fetch_add(1, Ordering::Relaxed);
        }
        connection.close(0_u32.into(), b"enough");
    };
    watch::during(&mut scene, "A6 paths", &goal(), attack).await;
    println!(
        "A6 paths: {} changes of address survived",
        moved.load(Ordering::Relaxed)
    );
}
