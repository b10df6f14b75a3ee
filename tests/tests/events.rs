//! What a broker of MQTT is told: a real mosquitto, mosquitto_sub, and the shipped programs as processes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

use std::time::{Duration, Instant};

use fairlead_runtime::config_file::write_private;
use fairlead_tests::clients::{Running, stock};
use fairlead_tests::mosquitto::Mosquitto;
use fairlead_tests::programs::{
    self, AgentHome, DEVICE, Daemon, GatewayHome, UserHome, command, ended_with, free_port, throw_away, until,
};
use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

const PREFIX: &str = "plant/access";
const AGENT: &str = "agents/default/pump-7";

/// A gateway that tells a broker, one device, and a technician.
struct Told {
    home: GatewayHome,
    gateway: Daemon,
    device: AgentHome,
    agent: Daemon,
    alice: UserHome,
    // Last, so that it is removed after everything that writes into it.
    dir: TempDir,
}

impl Told {
    /// The broker listens on this port of loopback, or will; `login` are further keys of gateway.yaml.
    async fn by(port: u16, login: &str, endpoints: &str) -> Self {
        let dir = throw_away();
        let mut home = GatewayHome::plan(&dir.path().join("gateway"));
        home.more = format!(
            "events: [ {{ mqtt: {{ url: \"mqtt://127.0.0.1:{port}\", topic_prefix: {PREFIX}{} }} }} ]\n",
            login.replace("DIR", &dir.path().display().to_string())
        );
        write_private(&dir.path().join("password"), b"a-password-of-the-broker", 0o600).unwrap();
        home.write();
        ended_with(&home.init().await, 0, &[]);
        let gateway = home.start().await;
        let endpoints = AgentHome::builtin(DEVICE) + endpoints;
        let device = home.agent(&dir.path().join("device"), DEVICE, &endpoints).await;
        let agent = device.start();
        let alice = home.user(&dir.path().join("alice"), "alice", "field").await;
        home.linked(1).await;
        Self {
            home,
            gateway,
            device,
            agent,
            alice,
            dir,
        }
    }

    async fn told(&self) -> u64 {
        self.home.metric("fairlead_events_told_total").await.unwrap_or_default()
    }
}

/// Somebody who reads every event, and the broker's word whether it kept it.
struct Reader(Running);

impl Reader {
    fn of(port: u16, topic: &str, more: &[&str]) -> Self {
        let mut sub = stock("stdbuf");
        sub.args([
            "-oL",
            "mosquitto_sub",
            "-h",
            "127.0.0.1",
            "-p",
            &port.to_string(),
            "-q",
            "1",
        ]);
        sub.args(["-F", "%r %t %p", "-t", &format!("{PREFIX}/{topic}")])
            .args(more);
        Self(Running::start(sub))
    }

    /// The next event of this topic with these fields; others go by.
    async fn hears(&mut self, topic: &str, fields: &[(&str, &str)]) -> (bool, Value) {
        let wanted = format!("{PREFIX}/{topic}");
        loop {
            let line = self.0.line().await;
            let mut parts = line.splitn(3, ' ');
            let (kept, topic, body) = (parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap());
            let body: Value = serde_json::from_str(body).unwrap();
            assert_eq!(body["v"], 1, "{line}");
            if topic == wanted && fields.iter().all(|(name, value)| body[name] == *value) {
                return (kept == "1", body);
            }
        }
    }

    /// As [`Self::hears`], once the broker has kept it: for somebody who comes later.
    async fn finds(port: u16, topic: &str, state: &str, more: &[&str]) -> Value {
        let mut late = Self::of(port, topic, more);
        loop {
            let (kept, body) = late.hears(topic, &[("state", state)]).await;
            if kept {
                return body;
            }
            // It came while we looked: the next one to come finds it kept.
            late = Self::of(port, topic, more);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_is_told_of_agents_sessions_and_refusals() {
    let broker = Mosquitto::start().await;
    let mut reader = Reader::of(broker.port, "#", &[]);
    let mut told = Told::by(broker.port, "", "").await;
    reader.hears("gateway", &[("state", "online")]).await;
    reader.hears(AGENT, &[("state", "online"), ("site", "default")]).await;

    told.alice.on(DEVICE, "true").await.succeeded();
    let (kept, start) = reader.hears("sessions/default/start", &[("caller", "alice")]).await;
    assert!(!kept);
    assert_eq!(
        (&start["agent"], &start["event"]),
        (&DEVICE.into(), &"session.permit".into())
    );
    let session = start["session"].as_str().unwrap();
    let (_, end) = reader.hears("sessions/default/end", &[("session", session)]).await;
    assert!(end["bytes_out"].as_u64().unwrap() > 0, "{end}");

    let eve = told.home.user(&told.dir.path().join("eve"), "eve", "visitors").await;
    assert_ne!(eve.on(DEVICE, "true").await.code(), Some(0));
    let (_, denial) = reader.hears("denials/default", &[("caller", "eve")]).await;
    assert_eq!(denial["reason"], "no-rule");

    // Nothing says goodbye: the link is dead once it has been silent for its idle limit.
    told.agent.kill().await;
    let killed = Instant::now();
    reader.hears(AGENT, &[("state", "offline")]).await;
    let took = killed.elapsed();
    assert!(took < Duration::from_secs(15), "{took:?}");
    Reader::finds(broker.port, AGENT, "offline", &[]).await;

    told.agent = told.device.start();
    reader.hears(AGENT, &[("state", "online")]).await;
    Reader::finds(broker.port, AGENT, "online", &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_dies_is_told_by_its_will_and_one_that_stops_tells_itself() {
    let broker = Mosquitto::start().await;
    let mut reader = Reader::of(broker.port, "#", &[]);
    let mut told = Told::by(broker.port, "", "").await;
    reader.hears(AGENT, &[("state", "online")]).await;
    told.gateway.kill().await;
    let (_, will) = reader.hears("gateway", &[("state", "offline")]).await;
    assert_eq!(will["reason"], "lost");
    assert_eq!(Reader::finds(broker.port, "gateway", "offline", &[]).await, will);

    told.gateway = told.home.start().await;
    reader.hears("gateway", &[("state", "online")]).await;
    // The device dials again by itself.
    reader.hears(AGENT, &[("state", "online")]).await;
    told.gateway.signal(Signal::SIGTERM);
    reader.hears(AGENT, &[("state", "offline")]).await;
    let (_, last) = reader.hears("gateway", &[("state", "offline")]).await;
    assert!(last.get("reason").is_none() && last["ts"].is_string(), "{last}");
    assert_eq!(told.gateway.ended(programs::PATIENCE).await, Some(0));
    let kept = Reader::finds(broker.port, "gateway", "offline", &[]).await;
    assert!(kept.get("reason").is_none(), "the will was published too: {kept}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_of_a_broker_that_was_away_come_when_it_is_back() {
    let mut broker = Mosquitto::start().await;
    let told = Told::by(broker.port, "", "").await;
    let mut reader = Reader::of(broker.port, "#", &[]);
    reader.hears(AGENT, &[("state", "online")]).await;
    broker.stop().await;
    until("the gateway knows", programs::PATIENCE, async || {
        told.gateway.log().contains("is away").then_some(())
    })
    .await;
    let before = told.told().await;
    told.alice.on(DEVICE, "true").await.succeeded();
    until("the session's end", programs::PATIENCE, async || {
        (told.home.audit(&["session.end"]).len() == 1).then_some(())
    })
    .await;
    assert_eq!(told.told().await, before);
    broker.restart().await;
    // The start and the end that waited, the gateway and the device.
    until("what waited", programs::PATIENCE, async || {
        (told.told().await == before + 4).then_some(())
    })
    .await;
    assert_eq!(told.home.metric("fairlead_events_left_out_total").await, Some(0));
    Reader::finds(broker.port, AGENT, "online", &[]).await;
    let mut reader = Reader::of(broker.port, "#", &[]);
    reader.hears(AGENT, &[("state", "online")]).await;
    told.alice.on(DEVICE, "true").await.succeeded();
    reader.hears("sessions/default/end", &[("caller", "alice")]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_broker_may_stand_behind_an_agent_and_ask_for_a_password() {
    const LOGIN: &[&str] = &["-u", "gateway", "-P", "a-password-of-the-broker"];
    let broker = Mosquitto::start_for("gateway", "a-password-of-the-broker").await;
    let port = free_port();
    let endpoint = format!(
        "  - {{ url: \"mqtt://{DEVICE}.default.internal\", upstream: {{ url: \"{}\" }} }}\n",
        broker.upstream()
    );
    let login = ", username: gateway, password_file: \"DIR/password\"";
    let told = Told::by(port, login, &endpoint).await;
    let mut connect = command(
        "fairlead",
        [
            "connect",
            &format!("mqtt://{DEVICE}.default.internal"),
            "--listen",
            &format!("127.0.0.1:{port}"),
        ],
    );
    connect.env("FAIRLEAD_HOME", told.alice.dir());
    let _connect = Daemon::start(connect, &told.dir.path().join("connect.log"));
    // Straight at the broker, not through the gateway.
    let mut reader = Reader::of(broker.port, "#", LOGIN);
    reader.hears("gateway", &[("state", "online")]).await;
    reader.hears(AGENT, &[("state", "online")]).await;
    told.alice.on(DEVICE, "true").await.succeeded();
    reader.hears("sessions/default/end", &[("caller", "alice")]).await;
    Reader::finds(broker.port, AGENT, "online", LOGIN).await;
}
