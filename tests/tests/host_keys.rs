//! The host keys of a device's own sshd: read by its agent, pinned by the gateway, known to callers' stock ssh; and what
//! happens when one changes (SECURITY.md advisory 21). Real programs throughout.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

use std::time::Duration;

use fairlead_agent::identity_files::IdentityFiles;
use fairlead_agent::link::dial;
use fairlead_identity::ssh::SshKey;
use fairlead_identity::tls;
use fairlead_runtime::config_file::private_dir;
use fairlead_runtime::frame;
use fairlead_runtime::quic::Role;
use fairlead_tests::clients::Finished;
use fairlead_tests::programs::{AgentHome, DEVICE, DOMAIN, Daemon, GatewayHome, PATIENCE, UserHome, throw_away, until};
use fairlead_tests::sshd::{Sshd, Trust, make_key};
use fairlead_wire::codec::{self, MAX_CONTROL_FRAME};
use fairlead_wire::control::{Body, Control, EndpointHostKeys, Hello, HostKeyReport, Offer};
use fairlead_wire::version::ALPN_LINK;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;

/// A session makes the agent look again, at most every 15 s.
const NOTICED_WITHIN: Duration = Duration::from_secs(40);

/// A device with an sshd of its own, and alice who may use it.
struct Plant {
    home: GatewayHome,
    gateway: Daemon,
    _agent: Daemon,
    sshd: Sshd,
    ecdsa: String,
    alice: UserHome,
    dir: TempDir,
}

impl Plant {
    async fn set() -> Self {
        let dir = throw_away();
        let home = GatewayHome::set_up(&dir.path().join("gateway")).await;
        let gateway = home.start().await;
        let pem = std::fs::read_to_string(home.path("state/ssh/user_ca")).unwrap();
        let trust = Trust {
            user_ca: Some(SshKey::from_openssh(&pem).unwrap().public_line()),
            principals: vec!["alice".into()],
            ..Trust::default()
        };
        let sshd_dir = dir.path().join("sshd");
        private_dir(&sshd_dir).unwrap();
        let ecdsa = make_key(&sshd_dir, "ecdsa", "host_key_ecdsa").await;
        let sshd = Sshd::start(&sshd_dir, &trust).await;
        let endpoint = format!(
            "  - {{ url: ssh://{DEVICE}.default.internal, upstream: {{ url: \"{}\" }} }}\n",
            sshd.upstream()
        );
        let device = home.agent(&dir.path().join("device"), DEVICE, &endpoint).await;
        let agent = device.start();
        let alice = home.user(&dir.path().join("alice"), "alice", "field").await;
        home.linked(1).await;
        let plant = Self {
            home,
            gateway,
            _agent: agent,
            sshd,
            ecdsa,
            alice,
            dir,
        };
        until("the host keys are reported", PATIENCE, async || {
            plant.keys().await["trusted"].as_array().map(drop)
        })
        .await;
        plant
    }

    /// The keys of the device's endpoint, as administration shows them.
    async fn keys(&self) -> Value {
        self.home.json(&["agents", "show", DEVICE]).await["host_keys"][0].clone()
    }

    /// A command on the device by stock ssh that takes no key it does not know.
    async fn ssh(&self) -> Finished {
        let device = format!("root@{DEVICE}.default.internal");
        self.alice
            .ssh(&["-o", "StrictHostKeyChecking=yes", &device, "echo reached"])
            .await
    }

    async fn known_hosts(&self, person: &UserHome) -> Vec<String> {
        let host = format!("{DEVICE}.default.internal");
        let printed = person.fairlead(&["known-hosts", &host]).await.succeeded().text();
        printed.lines().map(str::to_owned).collect()
    }
}

/// The line of known_hosts for a public key line.
fn known(key: &str) -> String {
    let bare: Vec<&str> = key.split(' ').take(2).collect();
    format!("{DEVICE}.default.internal {}", bare.join(" "))
}

#[tokio::test]
async fn a_devices_own_sshd_is_known_at_the_first_connection_and_a_changed_key_is_refused_until_trusted() {
    let mut plant = Plant::set().await;
    let first = plant.ssh().await.succeeded();
    assert_eq!(first.text(), "reached\n");
    assert!(!first.stderr.contains("authenticity"), "{}", first.stderr);
    let mut known_keys = plant.known_hosts(&plant.alice).await;
    known_keys.sort();
    let mut wanted = [known(&plant.ecdsa), known(&plant.sshd.host_key)];
    wanted.sort();
    assert_eq!(known_keys, wanted, "ed25519 and ecdsa");
    assert_eq!(plant.home.audit(&["\"hostkey.first\""]).len(), 1);
    // Whom no rule allows the endpoint is not given its keys.
    let bob = plant.home.user(&plant.dir.path().join("bob"), "bob", "office").await;
    assert!(plant.known_hosts(&bob).await.is_empty());

    plant.sshd.replace_host_key().await;
    let refused = plant.ssh().await;
    assert_eq!(refused.code(), Some(255), "{}", refused.stderr);
    assert!(
        refused.stderr.contains("REMOTE HOST IDENTIFICATION HAS CHANGED"),
        "{}",
        refused.stderr
    );
    let held = until("the change is held", NOTICED_WITHIN, async || {
        plant.keys().await["held"].as_array().cloned()
    })
    .await;
    assert_eq!(held.len(), 2, "{held:?}");
    assert_eq!(plant.home.audit(&["\"hostkey.changed\""]).len(), 1);
    let shown = plant
        .home
        .fairlead(&["agents", "show", DEVICE])
        .await
        .succeeded()
        .text();
    assert!(shown.contains("HELD") && shown.contains("trust-hostkey"), "{shown}");
    assert_eq!(
        plant.ssh().await.code(),
        Some(255),
        "held keys are not given to callers"
    );
    assert!(
        plant.known_hosts(&plant.alice).await.contains(&wanted[0]),
        "what was trusted is"
    );

    let trusted = plant
        .home
        .fairlead(&["agents", "trust-hostkey", DEVICE])
        .await
        .succeeded();
    assert!(trusted.text().contains("SHA256:"), "{}", trusted.text());
    assert_eq!(plant.home.audit(&["\"hostkey.trust\"", "SHA256:"]).len(), 1);
    assert_eq!(plant.ssh().await.succeeded().text(), "reached\n");
    let known_keys = plant.known_hosts(&plant.alice).await;
    assert!(known_keys.contains(&known(&plant.sshd.host_key)), "{known_keys:?}");
    assert_eq!(plant.home.metric("fairlead_panics_total").await, Some(0));
}

#[tokio::test]
async fn a_device_cannot_report_keys_for_a_host_that_is_not_its_own() {
    let plant = Plant::set().await;
    let before = plant.keys().await;
    // pump-8 has a good certificate and says what it likes.
    let rogue = plant.home.agent(&plant.dir.path().join("rogue"), "pump-8", "").await;
    let identity = IdentityFiles::open(&rogue.path("state")).unwrap().load().unwrap();
    let tls = tls::agent_quic(Some((identity.chain, &identity.key)), &identity.roots, ALPN_LINK).unwrap();
    let address = format!("127.0.0.1:{}", plant.home.port);
    let connection = dial(&[address], DOMAIN, &tls, Role::Agent).await.unwrap();
    let (mut send, mut recv) = connection.open().await.unwrap();
    let hello = Hello {
        version_min: 1,
        version_max: 1,
        boot_id: vec![8; 16],
        software: "rogue".into(),
        ..Hello::default()
    };
    let report = |url: &str| {
        Body::HostKeyReport(HostKeyReport {
            endpoints: vec![EndpointHostKeys {
                url: url.to_owned(),
                public_keys: vec![known(&plant.sshd.host_key).split_once(' ').unwrap().1.to_owned()],
            }],
        })
    };
    let bodies = [
        Body::Hello(hello),
        Body::Offer(Offer::default()),
        report(&format!("ssh://{DEVICE}.default.internal")),
        report("ssh://pump-8.default.internal"),
        report("nonsense"),
    ];
    for body in bodies {
        let bytes = codec::encode(&Control { body: Some(body) }, MAX_CONTROL_FRAME).unwrap();
        send.write_all(&bytes).await.unwrap();
    }
    until("the refusal is in the audit", PATIENCE, async || {
        let refused = plant.home.audit(&["\"hostkey.refuse\"", "\"pump-8\"", DEVICE]);
        (refused.len() == 1).then_some(())
    })
    .await;
    // The link lives, its further reports are not told again, and nothing of it was taken.
    for _ in 0..2 {
        frame::read_frame(&mut recv, MAX_CONTROL_FRAME)
            .await
            .unwrap()
            .expect("the link lives");
    }
    assert_eq!(plant.home.audit(&["\"hostkey.refuse\""]).len(), 1);
    assert_eq!(plant.keys().await, before);
    let rogue = plant.home.json(&["agents", "show", "pump-8"]).await;
    assert_eq!(rogue["host_keys"], serde_json::json!([]));
    plant.ssh().await.succeeded();
}

#[tokio::test]
async fn keys_that_were_given_once_are_known_when_the_gateway_cannot_be_asked() {
    let mut plant = Plant::set().await;
    let given = plant.known_hosts(&plant.alice).await;
    assert_eq!(given.len(), 2);
    plant.gateway.kill().await;
    assert_eq!(plant.known_hosts(&plant.alice).await, given);
    let other = plant.alice.fairlead(&["known-hosts", "pump-8.default.internal"]).await;
    assert_eq!(other.succeeded().text(), "");
}

#[tokio::test]
async fn a_device_with_its_own_ssh_server_needs_no_reported_keys() {
    let dir = throw_away();
    let home = GatewayHome::set_up(&dir.path().join("gateway")).await;
    let _gateway = home.start().await;
    let device = home
        .agent(&dir.path().join("device"), DEVICE, &AgentHome::builtin(DEVICE))
        .await;
    let _agent = device.start();
    let alice = home.user(&dir.path().join("alice"), "alice", "field").await;
    home.linked(1).await;
    alice.reaches(DEVICE, PATIENCE).await;
    let reported = home.json(&["agents", "show", DEVICE]).await["host_keys"].clone();
    assert_eq!(reported, serde_json::json!([]));
}
