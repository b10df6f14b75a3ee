//! A device whose network changes under it: another address, another mapping at its router, no network for a moment. Its
//! sessions and transfers live, byte for byte (SECURITY.md R6).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "tests fail by panicking, and measured figures are for the reader"
)]

use std::time::{Duration, Instant};

use fairlead_tests::clients::{self, asks_for_all};
use fairlead_tests::field::{Chat, Field, digest, noise};
use fairlead_tests::netns::{self, NetworkPath};

/// SECURITY.md R6: a stall is at most this beyond the time without a network.
const STALL: Duration = Duration::from_secs(2);
/// Unoptimised cryptography on a busy machine, beside other tests.
const MARGIN: Duration = Duration::from_secs(3);
/// How long the device has no address at all.
const OUTAGE: Duration = Duration::from_secs(1);

#[test]
fn a_session_and_a_transfer_survive_an_address_change_and_a_nat_rebind() {
    netns::alone(
        "a_session_and_a_transfer_survive_an_address_change_and_a_nat_rebind",
        moves(),
    );
}

async fn moves() {
    let mut field = Field::set("", "").await;
    let mut chat = Chat::start(&field).await;
    let megabytes = if asks_for_all() { 100 } else { 16 };
    let bytes = noise(megabytes * 1_000_000, 6);
    let due = digest(&bytes);
    let there = field.path("there.bin");
    std::fs::write(&there, &bytes).unwrap();

    // A rate that makes the transfers last long enough to be moved while they run.
    let rate = NetworkPath {
        rate_kbit: Some(if asks_for_all() { 60_000 } else { 20_000 }),
        ..NetworkPath::GOOD
    };
    field.router.become_as(&rate).await;
    let up = clients::run_with(field.on_device("sha256sum"), &bytes);
    let down = clients::run(field.on_device(&format!("cat {}", there.display())));
    let moving = async {
        let mut worst = Vec::new();
        tokio::time::sleep(Duration::from_secs(1)).await;
        for (what, outage) in [
            ("another mapping at the router", Duration::ZERO),
            ("another address", OUTAGE),
        ] {
            let address = field.home.json(&["agents", "list"]).await["agents"][0]["online"]["address"].clone();
            let began = Instant::now();
            if outage.is_zero() {
                field.router.rebind().await;
            } else {
                field.router.device.change_address(77, outage).await;
            }
            chat.echoes(what).await;
            let stalled = began.elapsed();
            println!("R6: {what} ({address}): the session stood still for {stalled:.1?} (goal {STALL:?} + {outage:?})");
            worst.push((stalled, outage));
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        worst
    };
    let began = Instant::now();
    let (up, down, worst) = tokio::join!(up, down, moving);
    println!("R6: {megabytes} MB each way in {:.1?}", began.elapsed());
    assert!(up.succeeded().text().starts_with(&due), "what was sent arrived changed");
    assert_eq!(
        digest(&down.succeeded().stdout),
        due,
        "what was fetched arrived changed"
    );
    for (stalled, outage) in worst {
        assert!(stalled <= STALL + outage + MARGIN, "{stalled:?}");
    }
    chat.end().await;
    assert_eq!(
        field.agent.log().matches("link up").count(),
        1,
        "the link was lost: {}",
        field.agent.log()
    );
    field.is_sound().await;
}
