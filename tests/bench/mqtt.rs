//! Messages to one broker: directly, through Fairlead's face of MQTT, which reads and judges each of them, and through a
//! `tls://` endpoint of the same gateway, which only carries bytes. What a message costs is taken from the processors' time of
//! gateway and agent, so that it does not hang on what the load and the broker take of the same machine.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fairlead_identity::chain;
use fairlead_identity::keys::PrivateKey;
use fairlead_identity::tls;
use fairlead_identity::verify::Roots;
use fairlead_tests::mosquitto::Mosquitto;
use fairlead_tests::programs::{DOMAIN, Daemon, GatewayHome, UserHome, throw_away};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use super::{Effort, median};

/// Connections; the face lets each send 10,000 packets in a second.
const CLIENTS: usize = 32;
/// Messages that are sent in one go; two such may be unanswered.
const BATCH: u16 = 100;
const PAYLOAD: usize = 64;
/// The kernel counts processors' time in these.
const TICKS_PER_SECOND: f64 = 100.0;
const USER: &str = "bench";
const POLICY: &str = "version: 1
rules:
  - { name: own topics, sites: ['*'], effect: allow, expressions: [\"inTopicFilter(mqtt.topic, 'devices/' + caller.name + '/#')\"] }
  - { name: own name, sites: ['*'], effect: deny, expressions: [\"!mqtt.client_id.startsWith(caller.name + '-')\"] }
  - { name: bytes, sites: ['*'], effect: allow, expressions: [\"endpoint.protocol == 'tls'\"] }
";
const RULES: &str =
    "rules: [ { name: telemetry, effect: allow, expressions: [\"inTopicFilter(mqtt.topic, 'devices/#')\"] } ]";

/// One way to the broker: a name to show and the host's name at the gateway, none for the broker itself.
type Way = (&'static str, Option<&'static str>);
const WAYS: [Way; 4] = [
    ("direct", None),
    ("tls:// endpoint", Some("plain")),
    ("mqtt", Some("face")),
    ("mqtt, agent's rules", Some("ruled")),
];

/// Gateway, the agents and the broker of one measurement.
struct Stage {
    home: GatewayHome,
    gateway: Daemon,
    agents: Vec<Daemon>,
    broker: Mosquitto,
    settings: Arc<ClientConfig>,
}

/// What one run gave: messages that the broker has taken in a second, and processors' seconds of gateway and agents.
#[derive(Clone, Copy)]
struct Figures {
    messages: f64,
    seconds: f64,
    gateway: f64,
    agent: f64,
}

impl Figures {
    fn rate(&self) -> f64 {
        self.messages / self.seconds
    }

    /// Messages per second of one processor that gateway and agent share.
    fn per_core(&self) -> f64 {
        self.messages / (self.gateway + self.agent)
    }

    /// Microseconds of one processor for a message.
    fn microseconds(spent: f64, messages: f64) -> f64 {
        spent / messages * 1e6
    }
}

pub(crate) async fn measure(effort: Effort) -> Value {
    let dir = throw_away();
    let stage = Stage::set(dir.path()).await;
    let mut loads = serde_json::Map::new();
    for qos in [0, 1] {
        loads.insert(format!("qos {qos}"), side_by_side(&stage, qos, &effort).await);
    }
    json!({ "clients": CLIENTS, "payload_bytes": PAYLOAD, "loads": loads })
}

impl Stage {
    async fn set(dir: &Path) -> Self {
        let broker = Mosquitto::start().await;
        let home = GatewayHome::set_up(&dir.join("gateway")).await;
        std::fs::write(home.path("access.yaml"), POLICY).expect("the policy is written");
        let gateway = home.start().await;
        let mut agents = Vec::new();
        for (name, scheme, port, more) in [
            ("plain", "tls", ":8883", ""),
            ("face", "mqtt", "", ""),
            ("ruled", "mqtt", "", RULES),
        ] {
            let endpoint = format!(
                "  - url: {scheme}://{name}.default.internal{port}\n    upstream: {{ url: \"{}\" }}\n    {more}\n",
                broker.upstream()
            );
            agents.push(home.agent(&dir.join(name), name, &endpoint).await.start());
        }
        home.linked(3).await;
        let user = home.user(&dir.join(USER), USER, "field").await;
        Self {
            home,
            gateway,
            agents,
            broker,
            settings: settings(&user),
        }
    }

    /// So many clients send until the time is over, each over a connection of its own.
    #[expect(
        clippy::disallowed_methods,
        reason = "every client is waited for before this returns"
    )]
    async fn run(&self, way: Way, qos: u8, seconds: u32) -> Figures {
        let mut clients = JoinSet::new();
        let length = Duration::from_secs(u64::from(seconds));
        // Connected before the clock runs.
        let begin = Arc::new(tokio::sync::Barrier::new(CLIENTS + 1));
        for number in 0..CLIENTS {
            let begin = Arc::clone(&begin);
            match way.1 {
                None => {
                    let stream = TcpStream::connect(("127.0.0.1", self.broker.port)).await;
                    clients.spawn(send(stream.expect("the broker"), number, qos, begin, length));
                }
                Some(host) => {
                    let socket = TcpStream::connect(("127.0.0.1", self.home.port))
                        .await
                        .expect("the gateway");
                    socket.set_nodelay(true).expect("no delay");
                    let name = ServerName::try_from(format!("{host}.default.{DOMAIN}")).expect("a DNS name");
                    let stream = TlsConnector::from(Arc::clone(&self.settings))
                        .connect(name, socket)
                        .await;
                    clients.spawn(send(stream.expect("TLS"), number, qos, begin, length));
                }
            }
        }
        begin.wait().await;
        let (gateway, agent) = self.spent();
        let began = Instant::now();
        let mut messages = 0.0;
        while let Some(sent) = clients.join_next().await {
            messages += sent.expect("a client");
        }
        let seconds = began.elapsed().as_secs_f64();
        let (gateway_now, agent_now) = self.spent();
        Figures {
            messages,
            seconds,
            gateway: gateway_now - gateway,
            agent: agent_now - agent,
        }
    }

    /// Processors' seconds of the gateway and of all agents so far.
    fn spent(&self) -> (f64, f64) {
        let agents = self.agents.iter().map(|agent| spent_by(agent.id()));
        (spent_by(self.gateway.id()), agents.sum())
    }
}

/// User's and system's time of a process, proc(5).
fn spent_by(process: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).expect("a process that lives");
    // The name in brackets may hold anything.
    let (_, fields) = stat.rsplit_once(") ").expect("a name");
    let ticks = fields.split(' ').skip(11).take(2);
    ticks.map(|ticks| ticks.parse::<f64>().expect("ticks")).sum::<f64>() / TICKS_PER_SECOND
}

fn settings(user: &UserHome) -> Arc<ClientConfig> {
    let read = |name: &str| std::fs::read_to_string(user.dir().join(name)).expect("a file of somebody who logged in");
    let key = PrivateKey::from_pem(&read("login.key.pem")).expect("their key");
    let chain = chain::from_pem(&read("cert.pem")).expect("their chain");
    let roots = Roots::from_pem(&read("ca.pem")).expect("the gateway's root");
    tls::agent_quic(Some((chain, &key)), &roots, b"of-no-kind").expect("TLS settings")
}

/// Sends batches as fast as they are answered; gives the number of messages that were. After messages of QoS 0 a PINGREQ
/// asks: the broker reads what comes in order.
async fn send<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    number: usize,
    qos: u8,
    begin: Arc<tokio::sync::Barrier>,
    length: Duration,
) -> f64 {
    stream.write_all(&connect(number)).await.expect("CONNECT");
    stream.flush().await.expect("CONNECT");
    let mut welcome = [0; 4];
    stream.read_exact(&mut welcome).await.expect("CONNACK");
    assert_eq!(welcome, [0x20, 2, 0, 0]);
    let batches = [1, 1 + BATCH].map(|first| batch(number, qos, first));
    let mut answer = if qos == 0 {
        vec![0; 2]
    } else {
        vec![0; 4 * usize::from(BATCH)]
    };
    begin.wait().await;
    let end = Instant::now() + length;
    let (mut sent, mut answered) = (0_usize, 0_usize);
    loop {
        let goes_on = Instant::now() < end;
        if goes_on {
            stream.write_all(&batches[sent % 2]).await.expect("a batch");
            stream.flush().await.expect("a batch");
            sent += 1;
        }
        if sent - answered == 2 || (!goes_on && sent > answered) {
            stream.read_exact(&mut answer).await.expect("an answer");
            assert_eq!(answer[0], if qos == 0 { 0xd0 } else { 0x40 });
            answered += 1;
        } else if !goes_on {
            return answered as f64 * f64::from(BATCH);
        }
    }
}

/// CONNECT of 3.1.1 with a clean start.
fn connect(number: usize) -> Vec<u8> {
    let id = format!("{USER}-{number}");
    let length = u8::try_from(id.len()).expect("a short name");
    let body = [b"\x00\x04MQTT\x04\x02\x00\x3c\x00", &[length][..], id.as_bytes()].concat();
    [&[0x10, u8::try_from(body.len()).expect("a short packet")], &body[..]].concat()
}

/// Messages that are answered together.
fn batch(number: usize, qos: u8, first: u16) -> Vec<u8> {
    let topic = format!("devices/{USER}/{number}");
    let mut batch = Vec::new();
    for id in first..first + BATCH {
        let id = if qos == 0 {
            Vec::new()
        } else {
            id.to_be_bytes().to_vec()
        };
        let length = u16::try_from(topic.len()).expect("a short topic").to_be_bytes();
        let body = [&length[..], topic.as_bytes(), &id, &[b'x'; PAYLOAD]].concat();
        batch.extend([0x30 | qos << 1, u8::try_from(body.len()).expect("below 128")]);
        batch.extend(body);
    }
    if qos == 0 {
        batch.extend(b"\xc0\x00");
    }
    batch
}

/// Every way in its turn, then the table.
async fn side_by_side(stage: &Stage, qos: u8, effort: &Effort) -> Value {
    let mut taken: Vec<Vec<Figures>> = vec![Vec::new(); WAYS.len()];
    for _ in 0..effort.rounds {
        for (way, taken) in WAYS.iter().zip(&mut taken) {
            taken.push(stage.run(*way, qos, effort.seconds_or(10)).await);
        }
    }
    let middle = |runs: &[Figures], of: &dyn Fn(&Figures) -> f64| median(runs.iter().map(of).collect());
    println!("mqtt, QoS {qos}: {CLIENTS} clients, {PAYLOAD} bytes");
    println!(
        "{:<20} {:>12} {:>14} {:>12} {:>12} {:>14}",
        "", "messages/s", "messages/core", "gateway µs", "agent µs", "to tls://"
    );
    let plain = middle(&taken[1], &Figures::per_core);
    let rows = WAYS.iter().zip(&taken).map(|((way, host), runs)| {
        let rate = middle(runs, &Figures::rate);
        if host.is_none() {
            println!("{way:<20} {rate:>12.0}");
            return json!({ "way": way, "messages_per_second": rate });
        }
        let per_core = middle(runs, &Figures::per_core);
        let gateway = middle(runs, &|f| Figures::microseconds(f.gateway, f.messages));
        let agent = middle(runs, &|f| Figures::microseconds(f.agent, f.messages));
        println!(
            "{way:<20} {rate:>12.0} {per_core:>14.0} {gateway:>12.2} {agent:>12.2} {:>14.2}",
            per_core / plain
        );
        json!({
            "way": way,
            "messages_per_second": rate,
            "messages_per_core_second": per_core,
            "gateway_us": gateway,
            "agent_us": agent,
            "per_core_to_tls": per_core / plain,
            "runs": { "messages_per_core_second": runs.iter().map(Figures::per_core).collect::<Vec<_>>() },
        })
    });
    rows.collect()
}
