//! An agent with a good certificate and bad manners: frames too long, too early, too many, and endpoints that are not
//! its own (SECURITY.md A5, P1).

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use fairlead_agent::identity_files::IdentityFiles;
use fairlead_agent::link::dial;
use fairlead_identity::tls;
use fairlead_runtime::frame;
use fairlead_runtime::quic::Role;
use fairlead_runtime::transport::{Closed, Connection, Receiver, Sender};
use fairlead_tests::clients;
use fairlead_tests::programs::{AgentHome, DEVICE, DOMAIN, PATIENCE, Scene, until};
use fairlead_wire::codec::{self, MAX_CONTROL_FRAME, MAX_PREAUTH_FRAME};
use fairlead_wire::control::{Body, Control, Hello, Mode, Offer, OfferedEndpoint, Ping};
use fairlead_wire::version::{ALPN_ENROLL, ALPN_LINK, VERSION_MAX, VERSION_MIN};
use prost::Message as _;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

/// SECURITY.md A5 wants 1 s; the rest is for a busy machine.
const CLOSED_WITHIN: Duration = Duration::from_secs(5);

/// What a hostile agent sends instead of Hello, or after it.
struct Nuisance {
    name: &'static str,
    bytes: Vec<u8>,
    /// In the reason of the close.
    told: &'static str,
}

#[tokio::test]
async fn frames_that_are_too_long_or_no_frames_close_the_connection_with_a_reason() {
    let mut scene = Scene::set().await;
    let rogue = Rogue::enrol(&scene).await;
    for greeted in [false, true] {
        for nuisance in nuisances() {
            let mut link = rogue.connect().await;
            if greeted {
                link.greet().await;
            }
            let what = format!("{} {} Hello", nuisance.name, if greeted { "after" } else { "before" });
            let (why, took) = link.send_and_be_closed(&nuisance.bytes, &what).await;
            println!("A5: {what}: closed after {took:.0?}: {why}");
            assert!(why.contains(nuisance.told), "{what}: {why}");
        }
    }
    let mut link = rogue.connect().await;
    let (why, _) = link
        .send_and_be_closed(&frame_of(&ping(1)), "a Ping before Hello")
        .await;
    assert!(why.contains("first message must be Hello"), "{why}");
    let mut link = rogue.connect().await;
    link.greet().await;
    let (why, _) = link.send_and_be_closed(&frame_of(&hello()), "a second Hello").await;
    assert!(why.contains("Hello came twice"), "{why}");

    scene.alice.on(DEVICE, "true").await.succeeded();
    scene.is_sound().await;
}

#[tokio::test]
async fn whoever_says_nothing_or_too_much_before_it_is_known_is_closed() {
    let mut scene = Scene::set().await;
    let rogue = Rogue::enrol(&scene).await;
    let silent = async {
        let link = rogue.connect().await;
        let (why, took) = link.is_closed("no Hello", Duration::from_secs(10 + 4)).await;
        assert!(
            why.contains("no Hello within 10 s") && took > Duration::from_secs(9),
            "{took:?}: {why}"
        );
    };
    let unproven = async {
        let tls = tls::enroll_quic(rogue.ca, ALPN_ENROLL).unwrap();
        let mut link = Link::open(
            dial(&[rogue.address.to_string()], DOMAIN, &tls, Role::Caller)
                .await
                .unwrap(),
        )
        .await;
        let length = u32::try_from(MAX_PREAUTH_FRAME + 1).unwrap();
        let (why, _) = link
            .send_and_be_closed(&length.to_be_bytes(), "an enrolment of 16 KiB and one byte")
            .await;
        assert!(why.contains("malformed enrolment request"), "{why}");
    };
    tokio::join!(silent, unproven);
    scene.alice.on(DEVICE, "true").await.succeeded();
    scene.is_sound().await;
}

#[tokio::test]
async fn endpoints_of_others_are_refused_as_not_bound_at_both_ends() {
    let mut scene = Scene::set().await;
    let endpoints = AgentHome::builtin("pump-8") + &AgentHome::builtin(DEVICE) + &AgentHome::tcp("hmi", 8080);
    let greedy = scene.home.agent(&scene.path("greedy"), "pump-8", &endpoints).await;
    let daemon = greedy.start();
    scene.home.linked(2).await;
    let refusals = until("both are refused", PATIENCE, async || {
        let log = daemon.log();
        let refusals: Vec<String> = log
            .lines()
            .filter(|line| line.contains("not-bound"))
            .map(str::to_owned)
            .collect();
        (refusals.len() == 2).then_some(refusals)
    })
    .await;
    for url in ["ssh://pump-7.default.internal", "tcp://hmi.default.internal:8080"] {
        assert!(refusals.iter().any(|line| line.contains(url)), "{refusals:?}");
    }
    let log = scene.gateway.log();
    let told = |line: &str| line.contains("WARN") && line.contains("not-bound") && line.contains("refused=2");
    assert!(log.lines().any(told), "{log}");

    // The name's owner serves it as before, also while it is away.
    scene.alice.on("pump-8", "true").await.succeeded();
    scene.alice.on(DEVICE, "true").await.succeeded();
    assert_eq!(scene.device.audit(&["session.permit"]).len(), 1);
    scene.agent.kill().await;
    scene.agent = scene.device.start();
    scene.alice.reaches(DEVICE, PATIENCE).await;
    assert_eq!(
        greedy.audit(&["session.permit"]).len(),
        1,
        "a session of another device came here"
    );
    scene.alice.on("hmi", "true").await.refused_as("denied");
}

#[tokio::test]
async fn an_offer_of_ten_thousand_endpoints_is_refused_and_changes_nothing() {
    let mut scene = Scene::set().await;
    let rogue = Rogue::enrol(&scene).await;
    for (count, told) in [(10_000, "frame"), (257, "256")] {
        let mut link = rogue.connect().await;
        link.greet().await;
        let offer = Control {
            body: Some(Body::Offer(offer(count))),
        };
        let body = offer.encode_to_vec();
        let mut bytes = u32::try_from(body.len()).unwrap().to_be_bytes().to_vec();
        bytes.extend(body);
        let (why, _) = link.send_and_be_closed(&bytes, "an offer").await;
        assert!(why.contains(told), "{count} endpoints: {why}");
    }
    let shown = scene.home.json(&["agents", "show", "rogue"]).await;
    assert_eq!(shown["endpoints"].as_array().unwrap().len(), 0, "{shown:#}");
    scene.alice.on(DEVICE, "true").await.succeeded();

    // The customer's own file has the same bound, found before anything is sent.
    let many: String = (0..10_000).map(|port| AgentHome::tcp("pump-9", 1024 + port)).collect();
    let greedy = AgentHome::plan(&scene.path("many"), &many);
    let refused = clients::run(greedy.command("check")).await;
    assert_eq!(refused.code(), Some(78));
    assert!(
        refused.stderr.contains("at most 256 endpoints"),
        "{}",
        refused.stderr.get(..400).unwrap_or_default()
    );
    scene.is_sound().await;
}

fn nuisances() -> Vec<Nuisance> {
    let length = |length: u32| length.to_be_bytes().to_vec();
    let beyond = u32::try_from(MAX_CONTROL_FRAME + 1).unwrap();
    let mut garbage = length(64);
    garbage.extend([0xff; 64]);
    vec![
        Nuisance {
            name: "length 0xFFFFFFFF",
            bytes: length(u32::MAX),
            told: "4294967295",
        },
        Nuisance {
            name: "length 2^31",
            bytes: length(1 << 31),
            told: "2147483648",
        },
        Nuisance {
            name: "one byte too long",
            bytes: length(beyond),
            told: "65537",
        },
        Nuisance {
            name: "empty frames without end",
            bytes: vec![0; 4 * if clients::asks_for_all() { 1_000_000 } else { 100_000 }],
            told: "empty frame",
        },
        Nuisance {
            name: "no protobuf",
            bytes: garbage,
            told: "not the expected message",
        },
    ]
}

fn hello() -> Control {
    let hello = Hello {
        version_min: VERSION_MIN,
        version_max: VERSION_MAX,
        boot_id: vec![9; 16],
        software: "fairlead-agent/rogue".into(),
        ..Hello::default()
    };
    Control {
        body: Some(Body::Hello(hello)),
    }
}

fn ping(nonce: u64) -> Control {
    Control {
        body: Some(Body::Ping(Ping { nonce })),
    }
}

fn offer(count: usize) -> Offer {
    let endpoint = |port: usize| OfferedEndpoint {
        url: format!("tcp://rogue.default.internal:{}", 1 + port),
        mode: Mode::Tunnel.into(),
        pooling_enabled: false,
        ..OfferedEndpoint::default()
    };
    Offer {
        endpoints: (0..count).map(endpoint).collect(),
    }
}

fn frame_of(message: &Control) -> Vec<u8> {
    codec::encode(message, MAX_CONTROL_FRAME).unwrap().to_vec()
}

/// An enrolled agent of which only the identity is real.
struct Rogue {
    home: AgentHome,
    address: SocketAddr,
    ca: [u8; 32],
}

impl Rogue {
    async fn enrol(scene: &Scene) -> Self {
        let home = scene.home.agent(&scene.path("rogue"), "rogue", "").await;
        let join = std::fs::read_to_string(home.path("join.txt")).unwrap();
        let ca = fairlead_identity::join::JoinString::parse(&join).unwrap().ca_sha256;
        Self {
            home,
            address: scene.address(),
            ca,
        }
    }

    async fn connect(&self) -> Link {
        let identity = IdentityFiles::open(&self.home.path("state")).unwrap().load().unwrap();
        let tls = tls::agent_quic(Some((identity.chain, &identity.key)), &identity.roots, ALPN_LINK).unwrap();
        Link::open(
            dial(&[self.address.to_string()], DOMAIN, &tls, Role::Agent)
                .await
                .unwrap(),
        )
        .await
    }
}

/// A connection with its control stream.
struct Link {
    connection: Connection,
    send: Sender,
    recv: Receiver,
}

impl Link {
    async fn open(connection: Connection) -> Self {
        let (send, recv) = connection.open().await.unwrap();
        Self { connection, send, recv }
    }

    /// Hello, up to Welcome.
    async fn greet(&mut self) {
        self.send.write_all(&frame_of(&hello())).await.unwrap();
        let welcome = timeout(PATIENCE, frame::read_frame(&mut self.recv, MAX_CONTROL_FRAME)).await;
        let welcome: Control = codec::decode_body(&welcome.unwrap().unwrap().unwrap()).unwrap();
        assert!(matches!(welcome.body, Some(Body::Welcome(_))), "{welcome:?}");
    }

    async fn send_and_be_closed(&mut self, bytes: &[u8], what: &str) -> (String, Duration) {
        // Closed before everything was sent is as good.
        drop(self.send.write_all(bytes).await);
        self.is_closed(what, CLOSED_WITHIN).await
    }

    /// Why the gateway closed the connection, and how soon.
    async fn is_closed(&self, what: &str, limit: Duration) -> (String, Duration) {
        let began = Instant::now();
        let closed = timeout(limit, self.connection.closed()).await;
        let closed = closed.unwrap_or_else(|_| panic!("{what}: the connection stays open for {limit:?}"));
        assert!(
            matches!(closed, Closed::ByPeer { .. }),
            "{what}: no reason given: {closed}"
        );
        (closed.to_string(), began.elapsed())
    }
}
