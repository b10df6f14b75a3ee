//! Devices that race for join strings while their gateway is killed at a random moment, started again, and asked again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use fairlead_identity::join::JoinString;
use fairlead_runtime::stop::CancellationToken;
use fairlead_tests::clients::asks_for_all;
use fairlead_tests::devices::{Certified, Device, all_at_once};
use fairlead_tests::programs::{Daemon, GatewayHome, throw_away};
use fairlead_wire::refusal::Reason;

/// Random moments; the issue asks for 30.
const POINTS: (usize, usize) = (5, 30);
/// Races that only show how long one takes.
const CALM_RACES: usize = 3;
/// Keys that race for a string with one use.
const SOLO_RACERS: usize = 6;
/// Names that devices of the fleet propose, the first two of them by two devices each.
const FLEET_NAMES: usize = 6;
/// Uses of the fleet's string, fewer than names.
const FLEET_USES: usize = 5;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn as_many_certificates_as_keys_that_hold_one_however_often_the_gateway_is_killed() {
    let dir = throw_away();
    let home = GatewayHome::set_up(&dir.path().join("gateway")).await;
    let mut gateway = home.start().await;
    let mut dice = Dice::new();
    let (few, all) = POINTS;
    let points = if asks_for_all() { all } else { few };
    // How long a race takes that nobody disturbs: kills fall into this time.
    let (mut holders, mut whole) = (BTreeMap::new(), Duration::MAX);
    for calm in 0..CALM_RACES {
        let race = Race::set(&home, &format!("calm{calm}")).await;
        let began = Instant::now();
        race.run(&CancellationToken::new()).await;
        whole = whole.min(began.elapsed());
        holders.extend(race.settle().await);
    }
    println!(
        "{points} kills, seed {}; a race takes {whole:.0?} undisturbed",
        dice.seed
    );

    for point in 0..points {
        let race = Race::set(&home, &format!("p{point}")).await;
        // From the first handshakes to after the last answers.
        let moment = whole.mul_f64(0.3 + 0.9 * dice.roll());
        let stop = CancellationToken::new();
        let (before, ()) = tokio::join!(race.run(&stop), async {
            tokio::time::sleep(moment).await;
            gateway.kill().await;
            // Whoever has no answer now will get none.
            stop.cancel();
        });
        gateway = home.start().await;
        let counted = rows(&home, &format!("{}-", race.prefix)).await.len();
        let after = race.settle().await;
        for certified in &before {
            let now = after.get(&certified.spki);
            assert_eq!(
                now.map(|now| &now.name),
                Some(&certified.name),
                "seed {}: a certificate from before the kill is of a key that holds nothing after it",
                dice.seed
            );
        }
        println!(
            "killed after {moment:.1?}: {counted} uses were counted, {} certificates had arrived, {} keys hold one now",
            before.len(),
            after.len()
        );
        holders.extend(after);
    }
    agrees(&home, &holders).await;
    assert_eq!(holders.len(), (points + CALM_RACES) * (1 + FLEET_USES));
    still_serves(&mut gateway, &home).await;
}

/// Two join strings and those who race for them.
struct Race {
    solo: Arc<JoinString>,
    fleet: Arc<JoinString>,
    devices: Vec<Arc<Device>>,
    prefix: String,
}

impl Race {
    async fn set(home: &GatewayHome, prefix: &str) -> Self {
        let solo = home
            .token(&home.path("solo.join"), &["--agent", &format!("{prefix}-solo")])
            .await;
        let (pattern, uses) = (format!("{prefix}-f*"), FLEET_USES.to_string());
        let fleet = ["--agents", &pattern, "--uses", &uses, "--no-approval"];
        let fleet = home.token(&home.path("fleet.join"), &fleet).await;
        let mut devices: Vec<_> = (0..SOLO_RACERS).map(|_| Device::new("")).collect();
        devices.extend((0..FLEET_NAMES + 2).map(|n| Device::new(&format!("{prefix}-f{}", n % FLEET_NAMES))));
        Self {
            solo: Arc::new(JoinString::parse(&solo).unwrap()),
            fleet: Arc::new(JoinString::parse(&fleet).unwrap()),
            devices: devices.into_iter().map(Arc::new).collect(),
            prefix: prefix.to_owned(),
        }
    }

    fn join(&self, device: &Device) -> Arc<JoinString> {
        Arc::clone(if device.name.is_empty() {
            &self.solo
        } else {
            &self.fleet
        })
    }

    /// Everybody tries once; who got a certificate before `stop`.
    async fn run(&self, stop: &CancellationToken) -> Vec<Certified> {
        let tried = all_at_once(&self.devices, stop, |device| {
            let join = self.join(&device);
            async move { device.enrol(&join).await.ok() }
        });
        tried.await.into_iter().filter_map(|(_, certified)| certified).collect()
    }

    /// Everybody tries until there is a last word; who holds a certificate, by key.
    async fn settle(&self) -> BTreeMap<[u8; 32], Certified> {
        let never = CancellationToken::new();
        let settled = all_at_once(&self.devices, &never, |device| {
            let join = self.join(&device);
            async move { device.enrol_at_last(&join).await.0 }
        })
        .await;
        let mut holders = BTreeMap::new();
        for (device, outcome) in settled {
            match outcome {
                Ok(certified) => {
                    assert_eq!(certified.spki, device.spki);
                    holders.insert(device.spki, certified);
                }
                Err(reason) => assert!(
                    matches!(reason, Reason::TokenSpent | Reason::Conflict),
                    "{}: {reason}",
                    self.prefix
                ),
            }
        }
        let solo = format!("{}-solo", self.prefix);
        let names: BTreeSet<_> = holders.values().map(|holder| holder.name.as_str()).collect();
        assert_eq!(names.len(), holders.len(), "one key for each name");
        assert!(names.contains(solo.as_str()), "{names:?}");
        assert_eq!(names.len(), 1 + FLEET_USES, "every use and no more: {names:?}");
        holders
    }
}

/// Rows, certificates and holders are the same set.
async fn agrees(home: &GatewayHome, holders: &BTreeMap<[u8; 32], Certified>) {
    let held: BTreeSet<_> = holders
        .values()
        .map(|held| (held.name.clone(), held.serial.clone()))
        .collect();
    assert_eq!(
        rows(home, "").await,
        held,
        "names with the serial numbers of their last certificates"
    );
}

/// The gateway's agents whose names begin so, with the serial numbers of their certificates.
async fn rows(home: &GatewayHome, prefix: &str) -> BTreeSet<(String, String)> {
    let listed = home.json(&["agents", "list"]).await;
    let text = |agent: &serde_json::Value, key: &str| agent[key].as_str().unwrap_or_default().to_owned();
    let agents = listed["agents"].as_array().unwrap().iter();
    let rows = agents.map(|agent| (text(agent, "name"), text(agent, "certificate_serial")));
    rows.filter(|(name, _)| name.starts_with(prefix)).collect()
}

async fn still_serves(gateway: &mut Daemon, home: &GatewayHome) {
    assert!(gateway.is_alive());
    assert_eq!(home.metric("fairlead_panics_total").await, Some(0));
}

/// SplitMix64 (Steele, Lea, Flood, 2014): enough to pick moments, and repeatable by its seed.
struct Dice {
    seed: u64,
    state: u64,
}

impl Dice {
    /// Seeded by the time, or by FAIRLEAD_SEED.
    fn new() -> Self {
        let given = std::env::var("FAIRLEAD_SEED").ok().and_then(|seed| seed.parse().ok());
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or(Duration::ZERO);
        let seed = given.unwrap_or(now.as_secs() ^ u64::from(now.subsec_nanos()));
        Self { seed, state: seed }
    }

    /// From 0 to 1.
    fn roll(&mut self) -> f64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) as f64 / u64::MAX as f64
    }
}
