//! The addresses that names lead to (SECURITY.md P3, A13): whatever a name server says, no connection leaves the agent but
//! to an address that the customer's file allows, and each refusal stands in the customer's own audit.
//!
//! Topology: one network namespace in which every address is local, so that a connection to anywhere leaves its process, is
//! counted by nftables in the output hook, and reaches a listener that notes where it was meant to go. The agent resolves by
//! the system's resolver, which asks the test's own name server. A gateway made by hand asks for one session after the
//! other: the agent's file lists an endpoint for each name, and its own rules none, so that only the addresses stand between.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "tests fail by panicking, and a skip is loud"
)]

#[path = "addresses/cases.rs"]
mod cases;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fairlead_runtime::config_file::write_private;
use fairlead_tests::clients;
use fairlead_tests::hand_made::{HandMade, HandMadeLink, id_of};
use fairlead_tests::name_server::{NameServer, Says, v4, v6};
use fairlead_tests::netns;
use fairlead_tests::programs::{AgentHome, DOMAIN, Daemon, GatewayHome, PATIENCE, ended_with, throw_away, until};
use fairlead_wire::refusal::Reason;
use serde_json::Value;
use tokio::net::TcpListener;

use cases::cases;

/// The group by which nftables tells the agent apart.
const AGENT_GROUP: &str = "64125";
/// The port behind every endpoint.
const PORT: u16 = 7001;
/// Ports of endpoints, one for each case, from this one.
const FIRST_ENDPOINT: u16 = 10_000;
/// Where the agent finds its gateway: an address that a name must not lead to.
const GATEWAY: &str = "203.0.113.9";
/// Addresses of this host.
const OWN: (&str, &str) = ("10.9.0.77", "2001:db8::77");
/// What the file allows, where it names ranges.
const RANGES: &str = "10.9.0.0/24";
/// The upstreams that are meant.
const GOOD: (&str, &str) = ("10.9.0.5", "10.9.0.6");

/// What must come of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Due {
    /// A session to one of these addresses.
    Dialled(Vec<IpAddr>),
    /// A refusal with this reason in the customer's audit.
    Refused(&'static str),
}

struct Case {
    what: String,
    says: Says,
    in_ranges: bool,
    /// For each session, in order.
    due: Vec<Due>,
}

#[test]
fn no_name_leads_the_agent_to_an_address_outside_its_file() {
    netns::alone("no_name_leads_the_agent_to_an_address_outside_its_file", inside());
}

async fn inside() {
    let dir = throw_away();
    netns::everything_is_local().await;
    for address in [format!("{}/32", OWN.0), format!("{}/128", OWN.1)] {
        let mut ip = clients::stock("ip");
        ip.env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin");
        ip.args(["address", "add", &address, "dev", "lo"]);
        clients::run(ip).await.succeeded();
    }
    let cases = cases();
    let home = GatewayHome::set_up(&dir.path().join("gateway")).await;
    odd_spellings_do_not_load(&dir.path().join("odd")).await;

    // Enrolled by the real gateway, whose place is then taken by one made by hand, elsewhere.
    let mut gateway = home.start().await;
    let device = home
        .agent(&dir.path().join("device"), "pump-7", &endpoints(&cases))
        .await;
    gateway.kill().await;
    let address: SocketAddr = format!("{GATEWAY}:{}", home.port).parse().unwrap();
    let file = std::fs::read_to_string(device.path("agent.yaml")).unwrap();
    let file = file.replacen("version: 1\n", &format!("version: 1\ngateway: \"{address}\"\n"), 1);
    write_private(&device.path("agent.yaml"), file.as_bytes(), 0o600).unwrap();
    let hand_made = HandMade::listen(&home.path("state"), DOMAIN, address);

    let names = cases.iter().enumerate();
    let names = names.map(|(number, case)| (host(number), case.says.clone())).collect();
    let names = NameServer::start("127.0.0.1:53".parse().unwrap(), names).await;
    let seen = listen_everywhere().await;
    fence(home.port).await;
    let resolv = device.path("resolv.conf");
    std::fs::write(&resolv, "nameserver 127.0.0.1\n").unwrap();
    let command = netns::with_resolv_conf(&netns::as_group(&device.command("run"), AGENT_GROUP), &resolv);
    let mut agent = Daemon::start(command, &device.path("agent.log"));
    let mut link = hand_made.accept().await;
    link.hello().await;
    let offer = link.welcome(Vec::new(), DOMAIN).await;
    assert_eq!(offer.endpoints.len(), cases.len());

    let mut sessions = 0_u64;
    let mut dialled = 0_u64;
    let mut slowest = Duration::ZERO;
    for (number, case) in cases.iter().enumerate() {
        for due in &case.due {
            let before = seen.lock().unwrap().len();
            let began = Instant::now();
            let session = asked(&mut link, number).await;
            slowest = slowest.max(began.elapsed());
            let line = line_of(&device, &session.id).await;
            sessions += 1;
            match (due, &session.refused) {
                (Due::Dialled(good), None) => {
                    dialled += 1;
                    // The kernel takes the connection, and the agent says so, before the listener has noted it.
                    let to = until("somebody was dialled", PATIENCE, async || {
                        seen.lock().unwrap().get(before..)?.last().copied()
                    })
                    .await;
                    assert!(good.contains(&to), "{}: {to}", case.what);
                    assert_eq!(line["event"], "session.permit", "{}", case.what);
                    let listed = line["facts"]["addresses"]
                        .as_array()
                        .expect("the permit names the addresses");
                    assert!(
                        listed.contains(&Value::from(SocketAddr::new(to, PORT).to_string())),
                        "{}: {line}",
                        case.what
                    );
                }
                (Due::Refused(reason), Some((told, detail))) => {
                    assert_eq!(*told, Reason::UpstreamFailed, "{}", case.what);
                    assert_eq!(line["event"], "session.refuse", "{}: {line}", case.what);
                    assert_eq!(line["reason"], *reason, "{}: {line}", case.what);
                    // The customer reads which name and address; the gateway does not.
                    assert!(
                        line["facts"]["detail"].as_str().unwrap().contains(&host(number)),
                        "{line}"
                    );
                    assert!(!detail.contains(&host(number)), "{}: {detail}", case.what);
                }
                (due, refused) => panic!("{}: {due:?}, but {refused:?}: {line}", case.what),
            }
        }
        // Each session looks once and dials what it found: a name server gets no second chance. (The system's resolver
        // itself asks again for what was cut off, wrong or slow.)
        let answered_at_once = match &case.says {
            Says::These(addresses) => addresses.len() < 20,
            Says::InTurn(_) | Says::Through(..) => true,
            _ => false,
        };
        if answered_at_once {
            assert_eq!(names.asked(&host(number)), case.due.len(), "{}", case.what);
        }
    }

    let counted = netns::counted("addresses").await;
    println!(
        "{} names, {sessions} sessions, {dialled} dialled, slowest {slowest:.1?}: {counted:?}",
        cases.len()
    );
    assert_eq!(counted["allowed"], dialled);
    // The system's resolver waits for ten seconds by itself; the agent for five.
    assert!(slowest < Duration::from_secs(8), "{slowest:?}");
    assert_eq!(counted["elsewhere"], 0, "a connection left for elsewhere");
    assert_eq!(counted["datagrams"], 0, "a datagram left for elsewhere");
    assert!(counted["names_over_tcp"] > 0, "the long answer came over TCP");
    let dialled_at: BTreeSet<IpAddr> = seen.lock().unwrap().iter().copied().collect();
    let meant = [v4(GOOD.0), v4(GOOD.1), v6("64:ff9b::10.9.0.5"), v6("fd00:9::5")];
    assert_eq!(dialled_at, BTreeSet::from(meant));
    assert!(agent.is_alive() && !agent.log().contains("panicked"));
    // The counter counts: a connection of the agent's group to elsewhere is seen.
    let mut ssh = clients::stock("ssh");
    ssh.args(["-o", "BatchMode=yes", "-p", "80", "10.8.0.5"]);
    clients::run(netns::as_group(&ssh, AGENT_GROUP)).await;
    assert_eq!(netns::counted("addresses").await["elsewhere"], 1);
    println!(
        "ADDRESSES HELD: {} names and spellings, 0 connections but to allowed addresses",
        cases.len()
    );
}

struct Session {
    id: String,
    refused: Option<(Reason, String)>,
}

async fn asked(link: &mut HandMadeLink, number: usize) -> Session {
    let open = link.ask(&format!("tcp://pump-7.default.internal:{}", port(number)));
    let answer = link.open(&open).await;
    Session {
        id: id_of(&open),
        refused: answer.err().map(|refused| (refused.known_reason(), refused.detail)),
    }
}

/// The first line of the customer's own audit about a session.
async fn line_of(device: &AgentHome, session: &str) -> Value {
    let line = until("the customer's line", PATIENCE, async || {
        device.audit(&[session]).into_iter().next()
    })
    .await;
    serde_json::from_str(&line).unwrap()
}

fn host(number: usize) -> String {
    format!("c{number}.edge.test")
}

fn port(number: usize) -> u16 {
    FIRST_ENDPOINT + u16::try_from(number).unwrap()
}

fn endpoints(cases: &[Case]) -> String {
    let listed = cases.iter().enumerate().map(|(number, case)| {
        let ranges = if case.in_ranges {
            format!(", allow_cidrs: [{RANGES}]")
        } else {
            String::new()
        };
        format!(
            "  - {{ url: \"tcp://pump-7.default.internal:{}\", upstream: {{ url: \"tcp://{}:{PORT}\"{ranges} }} }}\n",
            port(number),
            host(number)
        )
    });
    listed.collect()
}

/// Spellings that only a file can have: they are mistakes, found before anything runs.
async fn odd_spellings_do_not_load(dir: &std::path::Path) {
    for host in [
        "127.1",
        "127.0.1",
        "2130706433",
        "0x7f000001",
        "0x7f.0.0.1",
        "0177.0.0.1",
        "127.0.0.1.",
        "0",
        "169.254.43518",
        "[fe80::1%eth0]",
        "[::ffff:127.1]",
        "127.0.0.1#",
        "１２７.0.0.1",
        "127。0。0。1",
    ] {
        let endpoint = format!("  - {{ url: \"tcp://pump-7:1\", upstream: {{ url: \"tcp://{host}:22\" }} }}\n");
        let home = AgentHome::plan(dir, &endpoint);
        let finished = clients::run(home.command("check")).await;
        ended_with(&finished, 78, &["agent.yaml:5:"]);
    }
}

/// Takes connections to [`PORT`] at every address, and notes which address was meant.
async fn listen_everywhere() -> Arc<Mutex<Vec<IpAddr>>> {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let listener = TcpListener::bind(("::", PORT)).await.unwrap();
    let noted = Arc::clone(&seen);
    let mut kept = Vec::new();
    #[expect(clippy::disallowed_methods, reason = "it lives as long as the test's process")]
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            noted
                .lock()
                .unwrap()
                .push(stream.local_addr().unwrap().ip().to_canonical());
            kept.push(stream);
        }
    });
    seen
}

/// Counts what the agent's group sends: connections to what it may reach, to name servers, and to elsewhere.
async fn fence(link: u16) {
    let (one, other) = GOOD;
    netns::nft(&format!(
        "table inet addresses {{
            counter allowed {{}}
            counter names_over_tcp {{}}
            counter elsewhere {{}}
            counter datagrams {{}}
            chain output {{
                type filter hook output priority 0; policy accept;
                meta skgid != {AGENT_GROUP} return
                tcp flags & (syn | ack) == syn ip daddr {{ {one}, {other} }} tcp dport {PORT} counter name \"allowed\" return
                tcp flags & (syn | ack) == syn ip6 daddr {{ 64:ff9b::a09:5, fd00:9::5 }} tcp dport {PORT} counter name \"allowed\" return
                tcp flags & (syn | ack) == syn ip daddr 127.0.0.1 tcp dport 53 counter name \"names_over_tcp\" return
                tcp flags & (syn | ack) == syn counter name \"elsewhere\"
                meta l4proto udp ip daddr 127.0.0.1 udp dport 53 return
                meta l4proto udp ip daddr {GATEWAY} udp dport {link} return
                meta l4proto udp counter name \"datagrams\"
            }}
        }}\n"
    ))
    .await;
}

#[test]
fn every_case_has_a_name_of_its_own() {
    let cases = cases();
    let names: BTreeMap<&str, usize> = cases.iter().map(|case| (case.what.as_str(), 1)).collect();
    assert_eq!(names.len(), cases.len());
}
