//! The certificate authority changes hands under traffic, by the real programs: no link drops, no session fails, nobody is
//! left behind unseen.
//!
//! FAIRLEAD_ROTATION_SECONDS and FAIRLEAD_ROTATION_LIFE (seconds of an agent certificate's life) make the first test
//! longer than the normal run's; run its binary directly then, with `--nocapture` for the figures.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "tests fail by panicking, and measured figures are for the reader"
)]

use std::path::Path;
use std::time::{Duration, Instant};

use fairlead_identity::chain;
use fairlead_tests::clients::{self, Finished, Running};
use fairlead_tests::programs::{
    self, AgentHome, DEVICE, Daemon, GatewayHome, PATIENCE, UserHome, ended_with, throw_away, until,
};
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::sleep;

/// Seconds by a variable of the environment, else `otherwise`.
fn seconds(variable: &str, otherwise: u64) -> Duration {
    let given = std::env::var(variable).ok().and_then(|text| text.parse().ok());
    Duration::from_secs(given.unwrap_or(otherwise))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn short_lived_certificates_and_two_rotations_under_traffic_cut_nothing() {
    let (length, life) = (
        seconds("FAIRLEAD_ROTATION_SECONDS", 40),
        seconds("FAIRLEAD_ROTATION_LIFE", 10),
    );
    let mut stage = Stage::set(life).await;
    let alice = stage.home.user(&stage.dir.path().join("alice"), "alice", "field").await;
    let began = Instant::now();
    let lines = length.as_secs();
    let counting = format!("for i in $(seq {lines}); do echo $i; sleep 1; done; echo over");
    let mut long = Running::start(alice.ssh_command(&[&destination(), &counting]));
    let long = async {
        for n in 1..=lines {
            assert_eq!(long.line().await, n.to_string(), "the long session");
        }
        assert_eq!(long.line().await, "over");
        long.finish().await.succeeded();
    };
    let short = async {
        let mut sessions = 0_u32;
        while began.elapsed() < length {
            let finished = alice.on(DEVICE, "echo session").await;
            assert!(finished.status.success(), "session {sessions}: {}", finished.stderr);
            assert_eq!(finished.text(), "session\n");
            sessions += 1;
        }
        sessions
    };
    let rotating = async {
        sleep(length / 4).await;
        // First under the same root, then under a new one.
        stage.ca(&["issue"]).await.succeeded();
        let rotated = stage.ca(&["rotate"]).await.succeeded();
        assert!(
            rotated.text().contains("the running gateway has taken it up"),
            "{}",
            rotated.text()
        );
        stage.renewed_by(2).await;
        sleep(length / 4).await;
        stage.ca(&["issue", "--root"]).await.succeeded();
        until("the agent trusts the new root", PATIENCE, async || {
            stage
                .ca(&["rotate", "--dry-run"])
                .await
                .text()
                .contains("no agent and no join string")
                .then_some(())
        })
        .await;
        stage.ca(&["rotate"]).await.succeeded();
        stage.renewed_by(3).await;
    };
    let ((), sessions, ()) = tokio::join!(long, short, rotating);

    let events = |name: &str| stage.home.audit(&[&format!("\"{name}\"")]).len();
    let (renewals, ups, downs) = (events("renew"), events("link.up"), events("link.down"));
    println!(
        "{} s with certificates of {} s and 2 rotations: {sessions} sessions and 1 of {lines} s, {renewals} renewals, \
         {ups} link up, {downs} down",
        length.as_secs(),
        life.as_secs(),
    );
    assert_eq!((ups, downs), (1, 0), "one link for all that time");
    let least = length.as_secs() / life.as_secs();
    assert!(
        renewals as u64 >= least,
        "{renewals} renewals, at least {least} were due"
    );
    assert_eq!(
        events("ca.change"),
        3,
        "two rotations, and the new root before the second"
    );
    // The first authority has signed nothing for agents that is still good; the last is in use.
    let status = stage.status().await;
    assert_eq!(status["issuing"][2]["state"], "active", "{status:#}");
    assert_eq!(status["issuing"][1]["certificates"], 0, "{status:#}");
    assert!(
        status["issuing"][2]["certificates"].as_u64().unwrap() >= 1,
        "{status:#}"
    );
    // Whoever logged in before the new root was made does so again, and whoever comes now.
    let bob = stage.home.user(&stage.dir.path().join("bob"), "bob", "field").await;
    assert!(bob.on(DEVICE, "true").await.status.success());
    stage.agent.kill().await;
    stage.agent = stage.device.start();
    until("the agent links anew under the new root", PATIENCE, async || {
        (stage.home.audit(&["\"link.up\""]).len() == 2).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotation_names_whom_it_would_leave_behind_and_waits_for_them() {
    let stage = Stage::set(Duration::from_secs(600)).await;
    let sleeper = stage.agent("sleeper", &AgentHome::builtin("sleeper")).await;
    let mut asleep = sleeper.start();
    stage.home.linked(2).await;
    asleep.kill().await;
    stage.home.linked(1).await;
    let alice = stage.home.user(&stage.dir.path().join("alice"), "alice", "field").await;

    let refused = stage.ca(&["rotate"]).await;
    ended_with(&refused, 1, &["there is no next issuing authority", "ca issue"]);
    // Under the same root there is nothing to learn.
    stage.ca(&["issue"]).await.succeeded();
    let harmless = stage.ca(&["rotate", "--dry-run"]).await.succeeded();
    assert!(harmless.text().contains("nobody is left behind"), "{}", harmless.text());
    stage.ca(&["rotate"]).await.succeeded();

    let join = stage.dir.path().join("late.join");
    let other = stage.dir.path().join("other.join");
    stage.home.token(&join, &["--agent", "late"]).await;
    let key = stage.dir.path().join("root.key.pem");
    let key = key.to_str().unwrap();
    let issued = stage.ca(&["issue", "--root", "--root-key-file", key]).await.succeeded();
    assert!(issued.text().contains(key), "{}", issued.text());
    let planned = until("the device trusts the new root", PATIENCE, async || {
        let text = stage.ca(&["rotate", "--dry-run"]).await.text();
        (!text.contains(&format!("{DEVICE}.default"))).then_some(text)
    })
    .await;
    for word in [
        "1 agents that do not trust it yet",
        "sleeper.default  last seen 20",
        "agent late.default",
    ] {
        assert!(planned.contains(word), "no {word:?} in {planned}");
    }
    let refused = stage.ca(&["rotate"]).await;
    assert_eq!(refused.code(), Some(1));
    assert!(refused.text().contains("nothing was changed"), "{}", refused.text());
    assert_eq!(stage.status().await["issuing"][1]["state"], "active");

    // The sleeper comes back, is told, and is no obstacle any longer; the join string is spent.
    asleep = sleeper.start();
    let late = AgentHome::plan(&stage.dir.path().join("late"), "");
    ended_with(&late.enroll(&join).await, 0, &["enrolled as"]);
    until("everybody trusts the new root", PATIENCE, async || {
        stage
            .ca(&["rotate", "--dry-run"])
            .await
            .text()
            .contains("no agent and no join string")
            .then_some(())
    })
    .await;
    asleep.kill().await;
    // What was logged in with before knows the new root after one more login, before the rotation.
    ended_with(&again(&alice, &stage).await, 0, &["logged in as alice"]);
    stage.home.token(&other, &["--agent", "never"]).await;
    assert_eq!(stage.ca(&["rotate"]).await.code(), Some(1), "a join string waits");
    stage.ca(&["rotate", "--force"]).await.succeeded();

    let never = AgentHome::plan(&stage.dir.path().join("never"), "");
    let refused = never.enroll(&other).await;
    ended_with(&refused, 77, &["is not the gateway that made this join string"]);
    let _awake = sleeper.start();
    let _late = late.start();
    stage.home.linked(3).await;
    ended_with(&again(&alice, &stage).await, 0, &["logged in as alice"]);
    let status = stage.status().await;
    assert_eq!(status["roots"][1]["key_is_here"], false, "{status:#}");
    assert_eq!(status["roots"][1]["agents"], 3, "{status:#}");
    assert_eq!(
        status["roots"][0]["trusted"], true,
        "until the last certificate has ended: {status:#}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_running_gateway_the_files_are_changed_and_taken_up_at_the_start() {
    let dir = throw_away();
    let home = GatewayHome::set_up(&dir.path().join("gateway")).await;
    let ca = async |arguments: &[&str]| ca(&home, arguments).await;
    assert!(ca(&["issue"]).await.succeeded().text().contains("no gateway runs here"));
    assert!(
        ca(&["rotate"])
            .await
            .succeeded()
            .text()
            .contains("no gateway runs here")
    );
    assert_eq!(home.audit(&["ca.change"]).len(), 1);
    std::fs::rename(home.path("state/ca/root-1.key.pem"), dir.path().join("vault.pem")).unwrap();
    ended_with(&ca(&["issue"]).await, 1, &["--root-key-file"]);
    let vault = dir.path().join("vault.pem");
    ca(&["issue", "--root-key-file", vault.to_str().unwrap()])
        .await
        .succeeded();
    let mut gateway = home.start().await;
    let status = status(&home).await;
    let states: Vec<&str> = status["issuing"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["state"].as_str().unwrap())
        .collect();
    assert_eq!(states, ["retired", "active", "next"]);
    let device = home.agent(&dir.path().join("device"), DEVICE, "").await;
    assert_eq!(issuer_of(&device), status["issuing"][1]["sha256"]);
    let mut listed = home.command("ca");
    listed.arg("status");
    let listed = clients::run(listed).await.succeeded().text();
    assert!(listed.contains("offline"), "{listed}");
    gateway.kill().await;
}

fn destination() -> String {
    format!("{}@{DEVICE}.default.internal", programs::account())
}

async fn ca(home: &GatewayHome, arguments: &[&str]) -> Finished {
    let mut command = home.command("ca");
    command.args(arguments);
    clients::run(command).await
}

async fn status(home: &GatewayHome) -> Value {
    let finished = ca(home, &["status", "--json"]).await.succeeded();
    serde_json::from_slice(&finished.stdout).unwrap()
}

/// `fairlead login` without a join string.
async fn again(user: &UserHome, stage: &Stage) -> Finished {
    let mut command = programs::command("fairlead", ["login"]);
    command.env("FAIRLEAD_HOME", stage.dir.path().join("alice"));
    let _same = user;
    clients::run(command).await
}

/// SHA-256 of the issuing certificate in an agent's chain, hex.
fn issuer_of(agent: &AgentHome) -> String {
    let pem = std::fs::read_to_string(agent.path("state/chain.pem")).unwrap();
    let digest = chain::issuing_sha256(&chain::from_pem(&pem).unwrap()).unwrap();
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A gateway and one linked device with `builtin:ssh`.
struct Stage {
    home: GatewayHome,
    _gateway: Daemon,
    device: AgentHome,
    agent: Daemon,
    dir: TempDir,
}

impl Stage {
    async fn set(life: Duration) -> Self {
        let dir = throw_away();
        let home = GatewayHome::plan(&dir.path().join("gateway"));
        let config = std::fs::read_to_string(home.config()).unwrap();
        write(
            &home.config(),
            &format!("{config}certificates: {{ agent: {}s }}\n", life.as_secs()),
        );
        home.init().await.succeeded();
        let gateway = home.start().await;
        let device = home
            .agent(&dir.path().join("device"), DEVICE, &AgentHome::builtin(DEVICE))
            .await;
        let agent = device.start();
        home.linked(1).await;
        Self {
            home,
            _gateway: gateway,
            device,
            agent,
            dir,
        }
    }

    async fn agent(&self, name: &str, endpoints: &str) -> AgentHome {
        self.home.agent(&self.dir.path().join(name), name, endpoints).await
    }

    async fn ca(&self, arguments: &[&str]) -> Finished {
        ca(&self.home, arguments).await
    }

    async fn status(&self) -> Value {
        status(&self.home).await
    }

    /// Waits until the device's certificate comes from this issuing authority.
    async fn renewed_by(&self, number: usize) {
        let wanted = self.status().await["issuing"][number - 1]["sha256"].clone();
        until("the agent renews early", PATIENCE, async || {
            (issuer_of(&self.device) == wanted).then_some(())
        })
        .await;
    }
}

fn write(path: &Path, text: &str) {
    fairlead_runtime::config_file::write_private(path, text.as_bytes(), 0o600).unwrap();
}
