//! Fairlead's own ways: a gateway and an agent of their own for each.

use std::net::SocketAddr;
use std::process::Stdio;

use fairlead_tests::programs::{
    AgentHome, Daemon, GatewayHome, PATIENCE, UserHome, command, free_port, throw_away, until,
};
use tempfile::TempDir;
use tokio::net::TcpStream;

use super::{Entry, Way};
use crate::load::Target;

/// The host behind which the target is.
const HOST: &str = "bench";
/// What offers TLS and NLA behind the line with the token.
const NEGOTIATION: &[u8] = b"\x01\0\x08\0\x03\0\0\0";
const POLICY: &str = "version: 1\nrules: [ { name: all, sites: ['*'], effect: allow } ]\n";
/// One person is the whole load.
const LIMITS: &str = "login_failures_per_source: 0, handshakes_per_source: 4096, handshakes_in_flight: 4096, \
                      sessions_per_caller: { user: 20000 }";

/// How the agent is linked and how clients come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Link {
    /// QUIC; by token.
    Quic,
    /// WebSocket; by token.
    WebSocket,
    /// QUIC; through `fairlead connect`.
    Connect,
}

pub(super) const WAYS: [(&str, Link); 3] = [
    ("fairlead", Link::Quic),
    ("fairlead ws", Link::WebSocket),
    ("fairlead connect", Link::Connect),
];

/// Gives tokens to whoever measures.
#[derive(Clone)]
pub(crate) struct Tokens {
    user: UserHome,
    desktop: String,
}

impl Tokens {
    /// The connection request with a new token.
    pub(super) async fn request(&self) -> Vec<u8> {
        let file = self.user.dir().join("bench.rdp");
        let file = file.to_str().expect("a path that is text");
        self.user
            .fairlead(&["rdp", &self.desktop, "--out", file])
            .await
            .succeeded();
        let text = std::fs::read_to_string(file).expect("the file is read");
        let line = text.lines().find_map(|line| line.strip_prefix("loadbalanceinfo:s:"));
        let line = line.expect("a token in the file");
        let body = [b"\xe0\0\0\0\0\0", line.as_bytes(), b"\r\n", NEGOTIATION].concat();
        let length = u16::try_from(5 + body.len()).expect("a short request").to_be_bytes();
        let indicator = u8::try_from(body.len()).expect("a short request");
        [&[3, 0], &length[..], &[indicator], &body].concat()
    }
}

/// A gateway, an agent and somebody who may use everything.
pub(crate) struct Fairlead {
    pub(crate) home: GatewayHome,
    pub(crate) gateway: Daemon,
    pub(crate) device: AgentHome,
    pub(crate) agent: Daemon,
    pub(crate) user: UserHome,
    port: u16,
    // Last, so that it is removed after everything that writes into it.
    pub(crate) dir: TempDir,
}

impl Fairlead {
    /// Sets everything up, with the target behind the agent, and waits for the link.
    pub(crate) async fn start(link: Link, target: u16) -> Self {
        let dir = throw_away();
        let home = gateway_home(&dir).await;
        let gateway = home.start().await;
        let device = home
            .agent(&dir.path().join("device"), HOST, &endpoints(HOST, target))
            .await;
        let transport = if link == Link::WebSocket { "websocket" } else { "quic" };
        device.add(&format!("transport: {transport}\n"));
        let agent = device.start();
        home.linked(1).await;
        let user = home.user(&dir.path().join("alice"), "alice", "all").await;
        Self {
            home,
            gateway,
            device,
            agent,
            user,
            port: target,
            dir,
        }
    }

    /// By token.
    pub(crate) fn entry(&self) -> Entry {
        self.entry_of(HOST)
    }

    fn entry_of(&self, host: &str) -> Entry {
        let tokens = Tokens {
            user: self.user.clone(),
            desktop: format!("{host}.default:{DESKTOP}"),
        };
        Entry {
            of: Some(tokens),
            ..Entry::plain(SocketAddr::from(([127, 0, 0, 1], self.home.port)))
        }
    }

    /// Another agent at the same gateway, in front of the same target, and the way to it; with it there are so many.
    pub(crate) async fn neighbour(&self, name: &str, agents: u64) -> (Daemon, Entry) {
        let (dir, endpoints) = (self.dir.path().join(name), endpoints(name, self.port));
        let agent = self.home.agent(&dir, name, &endpoints).await.start();
        self.home.linked(agents).await;
        (agent, self.entry_of(name))
    }
}

/// A port of its own: a host offers each port once.
const DESKTOP: u16 = 3389;

/// Tokens lead to desktops only, `fairlead connect` to anything.
fn endpoints(host: &str, port: u16) -> String {
    let desktop = format!(
        "  - {{ url: \"rdp://{host}.default.internal:{DESKTOP}\", upstream: {{ url: \"tcp://127.0.0.1:{port}\" }} }}\n"
    );
    desktop + &AgentHome::tcp(host, port)
}

/// A gateway's files, with limits that one person who is the whole load does not meet.
pub(crate) async fn gateway_home(dir: &TempDir) -> GatewayHome {
    let mut home = GatewayHome::plan(&dir.path().join("gateway"));
    home.limits = LIMITS.to_owned();
    home.write();
    std::fs::write(home.path("access.yaml"), POLICY).expect("the policy is written");
    home.init().await.succeeded();
    home
}

pub(super) async fn way(name: &'static str, link: Link, target: &Target) -> Way {
    let fairlead = Fairlead::start(link, target.port).await;
    let far = vec![fairlead.agent.id()];
    let mut near = vec![fairlead.gateway.id()];
    let mut alive: Vec<Box<dyn std::any::Any + Send + Sync>> = Vec::new();
    let entry = if link == Link::Connect {
        let port = free_port();
        let url = format!("tcp://{HOST}.default.internal:{}", target.port);
        let mut connect = command("fairlead", ["connect", &url, "--listen", &format!("127.0.0.1:{port}")]);
        connect.env("FAIRLEAD_HOME", fairlead.user.dir()).stdin(Stdio::null());
        let connect = Daemon::start(connect, &fairlead.dir.path().join("connect.log"));
        near.push(connect.id());
        until("fairlead connect listens", PATIENCE, async || {
            TcpStream::connect(("127.0.0.1", port)).await.ok().map(drop)
        })
        .await;
        alive.push(Box::new(connect));
        Entry::plain(SocketAddr::from(([127, 0, 0, 1], port)))
    } else {
        fairlead.entry()
    };
    alive.push(Box::new(fairlead));
    Way {
        name,
        entry,
        near,
        far,
        _alive: alive,
    }
}
