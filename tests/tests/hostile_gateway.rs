//! A gateway in the wrong hands (SECURITY.md P2, P3, advisories 24, 26, 40): it has the authority's keys, permits everything
//! and speaks the wire as it likes. It cannot make the agent dial what the customer's file does not list, nothing that it
//! pushes widens anything, and the customer's own audit has a line for each try.
//!
//! Topology: as in addresses.rs, one network namespace in which every address is local and nftables counts what the agent
//! sends.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "tests fail by panicking, and a skip is loud"
)]

use std::collections::BTreeMap;
use std::fs::File;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use fairlead_runtime::audit::verify;
use fairlead_tests::clients;
use fairlead_tests::hand_made::{HandMade, HandMadeLink, id_of};
use fairlead_tests::netns;
use fairlead_tests::programs::{AgentHome, DOMAIN, Daemon, GatewayHome, PATIENCE, throw_away, until};
use fairlead_tests::upstream::Echo;
use fairlead_wire::codec::{self, MAX_CONTROL_FRAME};
use fairlead_wire::control::{
    Body, Drain, HostCertificate, Mode, Offer, OfferAnswer, OfferedEndpoint, Renewed, Welcome,
};
use fairlead_wire::open::{Caller, Open};
use fairlead_wire::refusal::Reason;
use fairlead_wire::version::VERSION_MAX;
use serde_json::Value;
use tokio::io::AsyncReadExt;

/// The group by which nftables tells the agent apart.
const AGENT_GROUP: &str = "64126";
/// Opens in one go, and streams of them at a time.
const FLOOD: usize = 20_000;
/// What the agent may grow by during the flood.
const FLOOD_GROWTH_KIB: u64 = 64 * 1024;

#[test]
fn a_hostile_gateway_cannot_make_the_agent_dial_outside_its_file() {
    netns::alone(
        "a_hostile_gateway_cannot_make_the_agent_dial_outside_its_file",
        inside(),
    );
}

async fn inside() {
    let dir = throw_away();
    netns::everything_is_local().await;
    let home = GatewayHome::set_up(&dir.path().join("gateway")).await;
    let echo = Echo::start().await;
    let listed = echo.address.port();
    fence(home.port, listed).await;

    // A gateway of ours first, whose policy permits everything: what its file does not list, the agent does not offer.
    let mut gateway = home.start().await;
    let device = home
        .agent(&dir.path().join("device"), "pump-7", &endpoints(listed))
        .await;
    let alice = home.user(&dir.path().join("alice"), "alice", "field").await;
    let command = netns::as_group(&device.command("run"), AGENT_GROUP);
    let mut agent = Daemon::start(command, &device.path("agent.log"));
    home.linked(1).await;
    for target in [
        "pump-7.default.internal:5432",
        "169.254.169.254:80",
        "10.1.2.3:22",
        "db.default.internal:5432",
    ] {
        let refused = alice.ssh(&["-W", target, DOMAIN]).await;
        assert_eq!(
            refused.last_word().map(|(reason, _)| reason).as_deref(),
            Some("denied"),
            "{target}"
        );
    }
    gateway.kill().await;

    // Then one made by hand in its place, with its keys.
    let address: SocketAddr = format!("127.0.0.1:{}", home.port).parse().unwrap();
    let hand_made = HandMade::listen(&home.path("state"), DOMAIN, address);
    before_welcome(&hand_made, &device).await;
    let mut link = hand_made.accept().await;
    link.hello().await;
    let offer = link.welcome(Vec::new(), DOMAIN).await;
    assert_eq!(offer.endpoints.len(), 3);

    let good = format!("tcp://pump-7.default.internal:{listed}");
    is_served(&mut link, &good).await;
    let tries = unlisted(&mut link, &device, listed).await + forged(&mut link, &device, &good).await;
    malformed(&link, &device).await;
    push(&mut link, listed).await;
    let again = unlisted(&mut link, &device, listed).await;
    is_served(&mut link, &good).await;
    flood(&mut link, &device, &agent).await;
    is_served(&mut link, &good).await;

    let counted = netns::counted("hostile").await;
    println!("{} tries by name, then a flood of {FLOOD}: {counted:?}", tries + again);
    assert_eq!(counted["elsewhere"], 0, "a connection left for elsewhere");
    assert_eq!(counted["datagrams"], 0, "a datagram left for elsewhere");
    assert!(agent.is_alive() && !agent.log().contains("panicked"), "{}", agent.log());
    verify(File::open(device.path("state/audit.jsonl")).unwrap()).unwrap();
    // The counter counts.
    let mut ssh = clients::stock("ssh");
    ssh.args(["-o", "BatchMode=yes", "-p", "80", "10.8.0.5"]);
    clients::run(netns::as_group(&ssh, AGENT_GROUP)).await;
    assert_eq!(netns::counted("hostile").await["elsewhere"], 1);
    println!("THE FILE HELD: 0 connections to anything that it does not list");
}

/// One service for whoever the gateway permits, one for a caller and act of the customer's choice, one SSH server.
fn endpoints(listed: u16) -> String {
    let rules =
        "[ { name: bob alone, effect: allow, expressions: [\"caller.name == 'bob' && caller.kind == 'user'\"] } ]";
    AgentHome::tcp("pump-7", listed)
        + &format!(
            "  - url: tcp://pump-7.default.internal:9999\n    upstream: {{ url: \"tcp://127.0.0.1:{listed}\" }}\n    rules: {rules}\n"
        )
        + &AgentHome::builtin("pump-7")
}

/// Sessions that are asked for before the gateway has greeted back.
async fn before_welcome(hand_made: &HandMade, device: &AgentHome) {
    let mut link = hand_made.accept().await;
    link.hello().await;
    for url in ["tcp://pump-7.default.internal:9999", "ssh://pump-7.default.internal"] {
        let open = link.ask(url);
        let refused = link.open(&open).await.err().expect("not before Welcome");
        assert_eq!(refused.known_reason(), Reason::Malformed);
    }
    let line = until("the customer's line", PATIENCE, async || {
        device.audit(&["session.refuse", "\"malformed\"", "\"count\":2"]).pop()
    });
    line.await;
    link.connection.close(0_u32.into(), b"");
}

async fn is_served(link: &mut HandMadeLink, url: &str) {
    let open = link.ask(url);
    let mut session = link.open(&open).await.expect("the listed service");
    session.send.write_all(b"hello").await.unwrap();
    session.send.finish().unwrap();
    assert_eq!(session.recv.read_to_end(100).await.unwrap(), b"hello");
}

/// Endpoints that the file does not list, in every spelling: `not-listed`, or no name at all. Gives how many.
async fn unlisted(link: &mut HandMadeLink, device: &AgentHome, listed: u16) -> usize {
    let mut urls: Vec<String> = Vec::new();
    for host in ["pump-7", "pump-8", "db", "localhost", "gateway"] {
        for site in ["default", "plant-7", "internal"] {
            for target in ["ssh", "postgres", "mysql", "mqtt", "rdp"] {
                urls.push(format!("{target}://{host}.{site}.internal"));
            }
            for port in [22, 80, 443, 5432, listed, 9999] {
                urls.push(format!("tcp://{host}.{site}.internal:{port}"));
                urls.push(format!("tls://{host}.{site}.internal:{port}"));
            }
        }
    }
    let own = |url: &String| {
        let meant = [
            format!("tcp://pump-7.default.internal:{listed}"),
            "tcp://pump-7.default.internal:9999".into(),
            "ssh://pump-7.default.internal".into(),
        ];
        meant.contains(url)
    };
    urls.retain(|url| !own(url));
    let odd = [
        "tcp://127.0.0.1:22",
        "tcp://169.254.169.254:80",
        "tcp://[::1]:22",
        "tcp://10.1.2.3:22",
        "tcp://pump-7.default.internal:0",
        "tcp://pump-7.default.internal:65536",
        "tcp://pump-7.default.internal",
        "tcp://pump-7.default.internal:22/../9999",
        "tcp://alice@pump-7.default.internal:9999",
        "tcp://pump-7.default.internal:9999#",
        "tcp://pump-7..default.internal:9999",
        "tcp://pump-7.default.internal.:9999",
        "tcp://pump-7%2edefault.internal:9999",
        " tcp://pump-7.default.internal:9999",
        "tcp://pump-7.default.internal:9999\n",
        "tcp://pump-7.default.internal:9999\0",
        "tcp://ｐump-7.default.internal:9999",
        "tcp:/pump-7.default.internal:9999",
        "pump-7.default.internal:9999",
        "builtin:ssh",
        "file:///etc/shadow",
        "unix:///run/fairlead-agent/control.sock",
        "http://169.254.169.254/latest/meta-data",
        "socks5://pump-7.default.internal:1080",
        "x",
    ];
    urls.extend(odd.map(str::to_owned));
    for url in &urls {
        let open = link.ask(url);
        is_refused(link, device, &open, &[Reason::NotListed, Reason::Malformed]).await;
    }
    urls.len()
}

/// Callers, acts and features that are forged, for endpoints that are listed. Gives how many.
async fn forged(link: &mut HandMadeLink, device: &AgentHome, good: &str) -> usize {
    let ruled = "tcp://pump-7.default.internal:9999";
    let caller = |change: fn(&mut Caller)| {
        let mut caller = Caller {
            name: "mallory".into(),
            kind: "user".into(),
            ..Caller::default()
        };
        change(&mut caller);
        Some(caller)
    };
    // The customer's rule names bob: everything else is a no, whatever is claimed beside the name.
    let claims: [fn(&mut Caller); 9] = [
        |_| {},
        |caller| caller.kind = "workload".into(),
        |caller| caller.name = "BOB".into(),
        |caller| caller.name = "bob ".into(),
        |caller| caller.name = "bоb".into(),
        |caller| caller.groups = vec!["bob".into(), "admin".into()],
        |caller| caller.labels = BTreeMap::from([("name".into(), "bob".into())]),
        |caller| caller.site = "plant-9".into(),
        |caller| (caller.name, caller.kind) = (String::new(), "unidentified".into()),
    ];
    for claim in claims {
        let mut open = link.ask(ruled);
        open.caller = caller(claim);
        is_refused(link, device, &open, &[Reason::Rule]).await;
    }
    // No caller is no caller.
    let nobody: [fn(&mut Caller); 6] = [
        |caller| caller.name = String::new(),
        |caller| caller.kind = "root".into(),
        |caller| caller.kind = String::new(),
        |caller| caller.name = "x".repeat(129),
        |caller| caller.groups = vec!["g".into(); 257],
        |caller| caller.ssh_keys = vec!["k".into(); 65],
    ];
    let mut spoilt: Vec<Open> = Vec::new();
    for claim in nobody {
        let open = link.ask(good);
        spoilt.push(Open {
            caller: caller(claim),
            ..open
        });
    }
    let open = link.ask(good);
    spoilt.push(Open { caller: None, ..open });
    let open = link.ask(good);
    spoilt.push(Open {
        client_ip: "gateway".into(),
        ..open
    });
    let open = link.ask("ssh://pump-7.default.internal");
    spoilt.push(Open {
        acts: vec!["x".repeat(200)],
        ..open
    });
    for open in &spoilt {
        is_refused(link, device, open, &[Reason::Malformed]).await;
    }
    let mut open = link.ask(good);
    open.requires = vec!["dial-anything".into()];
    is_refused(link, device, &open, &[Reason::Unsupported]).await;
    // One id is one session.
    let open = link.ask(good);
    let first = link.open(&open).await.expect("the listed service");
    let refused = link.open(&open).await.err().expect("a second session of the same id");
    assert_eq!(refused.known_reason(), Reason::Malformed);
    drop(first);
    // Acts that nobody knows begin nothing: the SSH server compares their names with those it has.
    let mut open = link.ask("ssh://pump-7.default.internal");
    open.acts = ["root", "forward", "shell ", "SHELL", "*"].map(str::to_owned).to_vec();
    let mut session = link.open(&open).await.expect("a session in which nothing is permitted");
    let mut banner = [0; 8];
    session.recv.read_exact(&mut banner).await.unwrap();
    assert_eq!(&banner, b"SSH-2.0-");
    claims.len() + spoilt.len() + 3
}

/// Bytes that are no `Open`.
async fn malformed(link: &HandMadeLink, device: &AgentHome) {
    let before = device.audit(&["session.refuse", "\"malformed\""]).len();
    let mut junk: Vec<Vec<u8>> = vec![
        vec![0xff; 4],
        0x8000_0000_u32.to_be_bytes().to_vec(),
        u32::try_from(MAX_CONTROL_FRAME + 1).unwrap().to_be_bytes().to_vec(),
        vec![0; 4],
        b"GET / HTTP/1.1\r\nHost: 169.254.169.254\r\n\r\n".to_vec(),
        b"CONNECT 10.1.2.3:22 HTTP/1.1\r\n\r\n".to_vec(),
        vec![5, 1, 0],
    ];
    let mut garbage = 64_u32.to_be_bytes().to_vec();
    garbage.extend([0xff; 64]);
    junk.push(garbage);
    for bytes in &junk {
        let (mut send, mut recv) = link.connection.open_bi().await.unwrap();
        drop(send.write_all(bytes).await);
        drop(send.finish());
        // Whatever the answer is, it is one, and not a session.
        let mut answer = Vec::new();
        let read = tokio::time::timeout(PATIENCE, (&mut recv).take(4096).read_to_end(&mut answer)).await;
        assert!(read.is_ok(), "no end to {bytes:?}");
    }
    until("a line for each", PATIENCE, async || {
        let lines = device.audit(&["session.refuse", "\"malformed\""]).len();
        (lines >= before + junk.len()).then_some(())
    })
    .await;
}

/// Everything that a gateway can push on the control stream. The list stays as it is.
async fn push(link: &mut HandMadeLink, listed: u16) {
    let endpoint = |url: &str| OfferedEndpoint {
        url: url.into(),
        mode: Mode::Tunnel.into(),
        pooling_enabled: false,
        ..OfferedEndpoint::default()
    };
    let pushed = [
        Body::Offer(Offer {
            endpoints: vec![
                endpoint("tcp://pump-7.default.internal:22"),
                endpoint("tcp://db.default.internal:5432"),
            ],
        }),
        Body::OfferAnswer(OfferAnswer {
            accepted: vec![
                "tcp://db.default.internal:5432".into(),
                format!("tcp://pump-7:{}", listed.wrapping_add(1)),
            ],
            refused: Vec::new(),
        }),
        Body::Welcome(Welcome {
            version: VERSION_MAX,
            gateway: "gateway".into(),
            ssh_user_ca: vec!["ssh-ed25519 AAAA".into()],
            domain: "internal".into(),
            ..Welcome::default()
        }),
        Body::Renewed(Renewed {
            certificate_chain: vec![vec![0x30; 100], vec![0x30; 100]],
        }),
        Body::HostCertificate(HostCertificate {
            certificate: "ssh-ed25519-cert-v01@openssh.com AAAA".into(),
            valid_seconds: 60,
        }),
        Body::Drain(Drain {
            reconnect_in_ms: 3_600_000,
            within_ms: 3_600_000,
        }),
    ];
    for body in pushed {
        link.say(body).await;
    }
}

/// Asks for 20,000 sessions as fast as the link takes them: the agent lives, stays small, and counts.
async fn flood(link: &mut HandMadeLink, device: &AgentHome, agent: &Daemon) {
    let (lines, before) = (device.audit(&["session.refuse"]).len(), resident_kib(agent));
    let began = Instant::now();
    for _ in 0..FLOOD {
        let open = link.ask("tcp://db.default.internal:5432");
        let frame = codec::encode(&open, MAX_CONTROL_FRAME).unwrap();
        let Ok(Ok((mut send, mut recv))) = tokio::time::timeout(PATIENCE, link.connection.open_bi()).await else {
            panic!("the agent takes no stream for {PATIENCE:?}");
        };
        drop(send.write_all(&frame).await);
        drop(send.finish());
        drop(recv.stop(0_u32.into()));
    }
    let took = began.elapsed();
    let counted = until("each try is counted", PATIENCE, async || {
        let new = device.audit(&["session.refuse"]).split_off(lines);
        let of = |line: &String| {
            let line: Value = serde_json::from_str(line).unwrap();
            line["facts"]["count"].as_u64().unwrap_or(1)
        };
        let tries: u64 = new.iter().map(of).sum();
        (tries >= u64::try_from(FLOOD).unwrap()).then_some((tries, new.len()))
    })
    .await;
    let after = resident_kib(agent);
    println!(
        "flood: {FLOOD} opens in {took:.1?}: {} tries in {} lines, RSS {before} -> {after} KiB",
        counted.0, counted.1
    );
    assert!(
        counted.1 < FLOOD / 2,
        "{} lines: the flood fills the customer's disk",
        counted.1
    );
    assert!(after < before + FLOOD_GROWTH_KIB, "RSS {before} -> {after} KiB");
    // The crowd has its pace; whoever waits is served.
    tokio::time::sleep(Duration::from_secs(1)).await;
}

fn resident_kib(agent: &Daemon) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", agent.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Refused for one of these reasons, with a line of the customer's own that has the session's id.
async fn is_refused(link: &HandMadeLink, device: &AgentHome, open: &Open, reasons: &[Reason]) {
    let what = format!("{} by {:?}", open.endpoint_url, open.caller);
    let refused = link
        .open(open)
        .await
        .err()
        .unwrap_or_else(|| panic!("{what} was opened"));
    assert!(reasons.contains(&refused.known_reason()), "{what}: {refused:?}");
    let id = id_of(open);
    let line = until("the customer's line", PATIENCE, async || device.audit(&[&id]).pop()).await;
    let line: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(line["event"], "session.refuse", "{what}");
    assert_eq!(line["reason"], refused.known_reason().name(), "{what}: {line}");
}

/// Counts what the agent's group sends to anything but its gateway and the listed service.
async fn fence(link: u16, listed: u16) {
    netns::nft(&format!(
        "table inet hostile {{
            counter allowed {{}}
            counter elsewhere {{}}
            counter datagrams {{}}
            chain output {{
                type filter hook output priority 0; policy accept;
                meta skgid != {AGENT_GROUP} return
                tcp flags & (syn | ack) == syn ip daddr 127.0.0.1 tcp dport {listed} counter name \"allowed\" return
                tcp flags & (syn | ack) == syn ip daddr 127.0.0.1 tcp dport {link} return
                tcp flags & (syn | ack) == syn counter name \"elsewhere\"
                meta l4proto udp ip daddr 127.0.0.1 udp dport {link} return
                meta l4proto udp counter name \"datagrams\"
            }}
        }}\n"
    ))
    .await;
}
