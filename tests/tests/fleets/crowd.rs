//! A whole fleet at once: 100 devices, 1,000 with FAIRLEAD_TESTS_ALL=1. Time, rate and the gateway's CPU are printed.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Instant;

use fairlead_identity::join::JoinString;
use fairlead_runtime::stop::CancellationToken;
use fairlead_tests::clients;
use fairlead_tests::devices::{self, Device};
use fairlead_wire::refusal::Reason;

use super::Fleet;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_enrols_by_one_join_string_from_one_address_and_from_many() {
    let size = if clients::asks_for_all() { 1000 } else { 100 };
    // A socket per device.
    fairlead_runtime::process::raise_file_limit().unwrap();
    for (whence, spread) in [("one address, as behind NAT", false), ("an address each", true)] {
        let uses = size.to_string();
        let fleet = Fleet::set(&["--agents", "pump-*", "--uses", &uses, "--no-approval"]).await;
        let join = Arc::new(JoinString::parse(&std::fs::read_to_string(&fleet.join).unwrap()).unwrap());
        let address = |n: usize| Ipv4Addr::from(0x7f01_0001 + u32::try_from(n).unwrap());
        let devices: Vec<_> = (0..size)
            .map(|n| {
                let device = Device::new(&format!("pump-{n}"));
                Arc::new(if spread { device.at(address(n)) } else { device })
            })
            .collect();
        let (before, began) = (cpu(&fleet), Instant::now());
        let enrolled = devices::all_at_once(&devices, &CancellationToken::new(), |device| {
            let join = Arc::clone(&join);
            async move { (device.enrol_at_last(&join).await, began.elapsed()) }
        })
        .await;
        let whole = began.elapsed();
        let cpu = cpu(&fleet) - before;
        let mut attempts = 0;
        let mut ends = Vec::new();
        for (device, ((outcome, tries), end)) in &enrolled {
            assert_eq!(outcome.as_ref().unwrap().spki, device.spki);
            attempts += tries;
            ends.push(*end);
        }
        ends.sort();
        println!(
            "{size} devices at once from {whence}: {whole:.1?} (half of them within {:.1?}), {:.0}/s, {attempts} attempts, gateway {cpu:.2} CPU s, {:.1} ms each",
            ends[size / 2],
            size as f64 / whole.as_secs_f64(),
            cpu * 1000.0 / size as f64
        );
        assert_eq!(fleet.agents().await.len(), size);
        // A device that was answered too late asks again with the same key: a line more, and no use more.
        let lines = fleet.home.audit(&["\"enroll\"", "\"allow\""]);
        let allowed: BTreeSet<String> = lines
            .iter()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["agent"].to_string())
            .collect();
        assert_eq!(allowed.len(), size);
        assert!(lines.len() <= attempts, "{} lines of {attempts} attempts", lines.len());
        assert_eq!(fleet.home.metric("fairlead_panics_total").await, Some(0));
        let late = Device::new("pump-late").enrol_at_last(&join).await.0;
        assert_eq!(late.unwrap_err(), Reason::TokenSpent);
    }
}

/// Seconds that the gateway has computed so far (proc(5): utime and stime, in hundredths).
fn cpu(fleet: &Fleet) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", fleet.gateway.id())).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks = |at: usize| fields[at].parse::<f64>().unwrap();
    (ticks(11) + ticks(12)) / 100.0
}
