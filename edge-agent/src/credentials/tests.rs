use fairlead_identity::authority::{Authority as Issuer, create_issuing, create_root};
use fairlead_runtime::clock::ManualClock;
use secrecy::ExposeSecret;

use super::*;

const WHO: &str = "spiffe://gw.example.com/site/default/agent/pump-7";
const DAY: Duration = Duration::from_secs(86_400);
const LIFE: Duration = Duration::from_secs(14 * 86_400);

/// An enrolled agent, the authority behind it, and the clock of its machine.
struct Device {
    held: Held,
    issuer: Issuer,
    clock: ManualClock,
    _dir: tempfile::TempDir,
}

fn issuer(root: &(PrivateKey, String), now: SystemTime) -> Issuer {
    let (key, issuing) = create_issuing(&root.0, &root.1, "gw.example.com", now).unwrap();
    Issuer::load(key.to_pem().expose_secret(), &issuing, &root.1).unwrap()
}

impl Device {
    fn enrolled() -> Self {
        let now = SystemTime::now();
        let dir = tempfile::tempdir().unwrap();
        let root = create_root("gw.example.com", now).unwrap();
        let issuer = issuer(&root, now);
        let files = IdentityFiles::open(&dir.path().join("state")).unwrap();
        let key = files.key().unwrap();
        let chain = issued(&issuer, &key, now);
        let enrolled = Enrolled {
            principal: WHO.into(),
            domain: "gw.example.com".into(),
            gateways: vec!["127.0.0.1:1".into()],
        };
        files.save(&chain, &[issuer.root_der().to_vec()], &enrolled).unwrap();
        let clock = ManualClock::new(now);
        let identity = files.load().unwrap();
        let held = Held::new(
            files,
            identity,
            enrolled.gateways,
            Ways::default(),
            Arc::new(clock.clone()),
        )
        .unwrap();
        Self {
            held,
            issuer,
            clock,
            _dir: dir,
        }
    }

    /// One renewal over the link, at the right time `now`.
    fn renew(&self, now: SystemTime) {
        self.held.signing_request().unwrap();
        self.held.keep(issued(&self.issuer, &self.held.key, now)).unwrap();
    }
}

fn issued(issuer: &Issuer, key: &PrivateKey, now: SystemTime) -> Vec<Vec<u8>> {
    let csr = key.csr_der().unwrap();
    let issued = issuer.issue(&csr, &WHO.parse().unwrap(), &[], LIFE, now, [7; 16]);
    issued.unwrap().chain_der
}

#[tokio::test(start_paused = true)]
async fn a_third_of_its_life_passes_by_whichever_clock_goes_further() {
    let device = Device::enrolled();
    let third = LIFE / 3;
    let first = device.held.renew_in();
    assert!(first > third.mul_f64(0.85) && first < third.mul_f64(1.15), "{first:?}");
    // The machine slept.
    device.clock.advance(3 * DAY);
    assert!(device.held.renew_in() <= first - 3 * DAY);
    // Its clock was set back; the steady one goes on.
    device.clock.set(SystemTime::UNIX_EPOCH);
    assert!(device.held.renew_in() <= first);
    tokio::time::advance(6 * DAY).await;
    assert_eq!(device.held.renew_in(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn whatever_the_clock_says_attempts_have_a_gap_and_a_jump_costs_one_renewal() {
    let device = Device::enrolled();
    let now = SystemTime::now();
    for jump in [SystemTime::UNIX_EPOCH, now + 3650 * DAY, now + 6 * DAY, now - DAY] {
        device.clock.set(jump);
        device.renew(now);
        let next = device.held.renew_in();
        assert!(next > 4 * DAY, "{next:?} after a jump to {jump:?}");
    }
    // A jump ahead makes it due, but not within the gap after the last attempt.
    device.clock.set(now + 9 * DAY);
    assert_eq!(device.held.renew_in(), GAP);
    let mut attempts = 0;
    for _ in 0..60 {
        tokio::time::advance(Duration::from_secs(1)).await;
        if device.held.renew_in().is_zero() {
            // The answer is lost each time.
            device.held.signing_request().unwrap();
            attempts += 1;
        }
    }
    assert!((2..=3).contains(&attempts), "{attempts} attempts within a minute");
}

#[tokio::test(start_paused = true)]
async fn another_issuing_authority_is_a_reason_to_renew_soon_and_its_root_is_kept() {
    let device = Device::enrolled();
    let now = SystemTime::now();
    let announce = |issuer: &Issuer, roots: &[&Issuer]| Authority {
        roots: roots.iter().map(|one| one.root_der().to_vec()).collect(),
        issuing_sha256: issuer.above().issuing_sha256().to_vec(),
    };
    let same = announce(&device.issuer, &[&device.issuer]);
    assert_eq!(device.held.trust(&same), Ok(None));
    assert!(device.held.renew_in() > DAY);

    let other = issuer(&create_root("gw.example.com", now).unwrap(), now);
    let kept = device
        .held
        .trust(&announce(&other, &[&device.issuer, &other]))
        .unwrap()
        .unwrap();
    assert_eq!(kept.len(), 2);
    assert_eq!(device.held.roots_sha256(), kept);
    assert!(device.held.renew_in() <= SPREAD);
    assert_eq!(
        device.held.files.load().unwrap().roots.sha256s().len(),
        2,
        "also after a restart"
    );
    device.held.keep(issued(&other, &device.held.key, now)).unwrap();
    assert!(device.held.renew_in() > DAY);

    let stranger = issuer(&create_root("gw.example.com", now).unwrap(), now);
    let refused = device.held.trust(&announce(&stranger, &[&stranger])).unwrap_err();
    assert!(refused.contains("none in common"), "{refused}");
    assert_eq!(device.held.roots_sha256(), kept);
}
