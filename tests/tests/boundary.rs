//! The gateway is no way out: whatever a caller asks of it, it opens no connection to anywhere (SECURITY.md P4,
//! advisories 24, 25, 27), and the agent dials what its file lists and nothing else.
//!
//! Topology: one network namespace that only the test and its children live in, so that nothing has to be cleaned up.
//! Every address there is local (a `local` route for everything over `lo`): a connection to 10.1.2.3 leaves its process,
//! is counted, and is refused at once. nftables counts, in the output hook, what the gateway's and the agent's processes
//! send, told apart by their group ids; callers have the test's own group.
//!
//! The test runs itself again inside `unshare --net`; that is why it needs root.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "tests fail by panicking, and a skip is loud"
)]

use std::net::{SocketAddr, TcpListener as StdListener};
use std::os::unix::net::UnixListener;
use std::process::Stdio;
use std::time::Duration;

use fairlead_tests::clients::{self, Finished, Running, stock};
use fairlead_tests::netns::{self, as_group};
use fairlead_tests::programs::{
    AgentHome, DOMAIN, Daemon, GatewayHome, PATIENCE, UserHome, account, free_port, throw_away, until,
};
use fairlead_tests::upstream::{Canary, Echo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;

/// Groups by which nftables tells the programs apart; nobody else has them.
const GATEWAY_GROUP: &str = "64123";
const AGENT_GROUP: &str = "64124";
/// Outside of every endpoint: a private range, the metadata service of clouds, a public address, the same in IPv6.
const OUTSIDE: &[&str] = &[
    "10.1.2.3:80",
    "169.254.169.254:80",
    "203.0.113.7:443",
    "[2001:db8::7]:443",
];

#[test]
fn no_connection_leaves_the_gateway_whatever_is_asked_of_it() {
    netns::alone("no_connection_leaves_the_gateway_whatever_is_asked_of_it", inside());
}

async fn inside() {
    let dir = throw_away();
    let home = GatewayHome::set_up(&dir.path().join("gateway")).await;
    let (echo, unlisted) = (Echo::start().await, Canary::listen());
    fence(home.port, echo.address.port()).await;
    let gateway = home.start_as(|| as_group(&home.command("run"), GATEWAY_GROUP)).await;
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.id())).unwrap();
    assert!(
        status.contains(&format!("Gid:\t{GATEWAY_GROUP}\t{GATEWAY_GROUP}\t")),
        "{status}"
    );
    let endpoints = AgentHome::builtin("pump-7") + &AgentHome::tcp("pump-7", echo.address.port());
    let device = home.agent(&dir.path().join("device"), "pump-7", &endpoints).await;
    let agent = Daemon::start(as_group(&device.command("run"), AGENT_GROUP), &device.path("agent.log"));
    let alice = home.user(&dir.path().join("alice"), "alice", "field").await;
    home.linked(1).await;
    let scene = Boundary {
        home,
        alice,
        _gateway: gateway,
        _agent: agent,
    };

    // The agent's counter counts: the one connection that the agent may make is seen.
    assert_eq!(Counts::now().await, Counts::default());
    scene.reaches_the_echo(echo.address.port()).await;
    assert_eq!(
        Counts::now().await,
        Counts {
            agent_listed: 1,
            ..Counts::default()
        }
    );

    scene.forwards_to_the_gateway_itself().await;
    scene.forwards_to_outside(&unlisted).await;
    scene.dynamic_forward().await;
    scene.sockets_and_listeners(&dir.path().join("target.sock")).await;
    scene.forwards_through_the_device(&unlisted).await;

    unlisted.is_untouched();
    assert_eq!(
        Counts::now().await,
        Counts {
            agent_listed: 1,
            ..Counts::default()
        }
    );
    scene.reaches_the_echo(echo.address.port()).await;
    assert_eq!(scene.home.metric("fairlead_panics_total").await, Some(0));
    // And so does the gateway's, for somebody in its group.
    let mut ssh = stock("ssh");
    ssh.args(["-o", "BatchMode=yes", "-p", "80", "10.1.2.3"]);
    clients::run(as_group(&ssh, GATEWAY_GROUP)).await;
    assert_eq!(Counts::now().await.gateway_connections, 1);
    println!("BOUNDARY HELD: 0 connections and 0 datagrams of the gateway to anywhere but its callers and agents");
}

struct Boundary {
    home: GatewayHome,
    alice: UserHome,
    _gateway: Daemon,
    _agent: Daemon,
}

impl Boundary {
    /// The control case, and that all is well after the rest.
    async fn reaches_the_echo(&self, port: u16) {
        let command = self
            .alice
            .ssh_command(&["-W", &format!("pump-7.default.internal:{port}"), DOMAIN]);
        let echoed = clients::run_with(piped(command), b"hello").await;
        assert_eq!(echoed.stdout, b"hello", "{}", echoed.stderr);
    }

    /// Its own metrics and its own port, by every name a caller may know.
    async fn forwards_to_the_gateway_itself(&self) {
        for port in [self.home.metrics, self.home.port, 22] {
            for host in [
                "127.0.0.1",
                "localhost",
                "[::1]",
                "0.0.0.0",
                DOMAIN,
                "[::ffff:127.0.0.1]",
                "2130706433",
            ] {
                self.refused(&["-W", &format!("{host}:{port}"), DOMAIN]).await;
            }
        }
    }

    async fn forwards_to_outside(&self, unlisted: &Canary) {
        for target in OUTSIDE.iter().map(ToString::to_string).chain([
            unlisted.address.to_string(),
            "example.com:443".into(),
            format!("pump-7.default.internal:{}", unlisted.address.port()),
        ]) {
            self.refused(&["-W", &target, DOMAIN]).await;
            self.refused_forward(&["-L", &format!("{{}}:{target}")]).await;
        }
    }

    /// `ssh -D` is a SOCKS proxy at the caller: each request of it is a forward that the gateway decides.
    async fn dynamic_forward(&self) {
        for target in [
            SocksTarget::Address([10, 1, 2, 3]),
            SocksTarget::Address([127, 0, 0, 1]),
            SocksTarget::Name("example.com"),
        ] {
            let (running, port) = self.forwarding(&["-D", "127.0.0.1:{}"]).await;
            let reply = socks_connect(port, &target, self.home.metrics).await;
            assert_ne!(reply, Some(0), "SOCKS has connected to {target:?}");
            denied(&running.finish().await, "ssh -D");
        }
    }

    /// Unix sockets, and listeners on the gateway.
    async fn sockets_and_listeners(&self, path: &std::path::Path) {
        let target = UnixListener::bind(path).unwrap();
        target.set_nonblocking(true).unwrap();
        for socket in [path.to_path_buf(), self.home.path("admin.sock")] {
            self.refused_forward(&["-L", &format!("{{}}:{}", socket.display())])
                .await;
        }
        assert!(target.accept().is_err(), "somebody connected to the socket");

        let port = free_port();
        for listener in [
            format!("127.0.0.1:{port}"),
            format!("0.0.0.0:{port}"),
            "/tmp/fairlead-boundary.sock".into(),
        ] {
            let forward = format!("{listener}:127.0.0.1:22");
            let refused = self
                .alice
                .ssh(&["-N", "-o", "ExitOnForwardFailure=yes", "-R", &forward, DOMAIN])
                .await;
            assert_eq!(refused.code(), Some(255), "{}", refused.stderr);
            assert!(
                refused.stderr.contains("remote port forwarding failed"),
                "{}",
                refused.stderr
            );
        }
        StdListener::bind(("127.0.0.1", port)).expect("nobody listens for the caller");
        // A shell, a program and files of the gateway's own are no better.
        for arguments in [
            &[DOMAIN][..],
            &[DOMAIN, "id"],
            &["-t", DOMAIN, "bash"],
            &["-s", DOMAIN, "sftp"],
        ] {
            self.refused(arguments).await;
        }
    }

    /// The device's own SSH server forwards nothing either.
    async fn forwards_through_the_device(&self, unlisted: &Canary) {
        let device = format!("{}@pump-7.default.internal", account());
        for target in [
            unlisted.address.to_string(),
            OUTSIDE[0].into(),
            format!("127.0.0.1:{}", self.home.metrics),
        ] {
            let refused = self.alice.ssh(&["-W", &target, &device]).await;
            assert_eq!(refused.code(), Some(255), "{target}: {}", refused.stderr);
            assert!(
                refused.stderr.contains("administratively prohibited"),
                "{target}: {}",
                refused.stderr
            );
        }
    }

    /// ssh ends with the gateway's refusal in its own output.
    async fn refused(&self, arguments: &[&str]) {
        denied(&self.alice.ssh(arguments).await, &arguments.join(" "));
    }

    /// A forward whose listener works; the first connection to it is refused by the gateway, in ssh's output.
    async fn refused_forward(&self, forward: &[&str; 2]) {
        let (running, port) = self
            .forwarding(&[forward[0], &forward[1].replacen("{}", "127.0.0.1:{}", 1)])
            .await;
        let mut local = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        drop(local.write_all(b"hello").await);
        assert_eq!(
            local.read(&mut [0; 1]).await.unwrap_or(0),
            0,
            "{}: an answer came",
            forward[1]
        );
        denied(&running.finish().await, forward[1]);
    }

    /// `ssh -N` to the gateway with a forward on a free port, once it listens there.
    async fn forwarding(&self, forward: &[&str; 2]) -> (Running, u16) {
        let port = free_port();
        let forward = [forward[0], &forward[1].replace("{}", &port.to_string())];
        let arguments = [&["-N", "-o", "ExitOnForwardFailure=yes"], &forward[..], &[DOMAIN]].concat();
        let mut running = Running::start(null(self.alice.ssh_command(&arguments)));
        until("ssh listens", PATIENCE, async || {
            assert!(running.is_alive(), "ssh {} has ended", arguments.join(" "));
            // Looked at without connecting: a connection would be the one that is refused.
            StdListener::bind(("127.0.0.1", port)).is_err().then_some(())
        })
        .await;
        (running, port)
    }
}

#[track_caller]
fn denied(finished: &Finished, what: &str) {
    let told = finished.last_word();
    let denied = told.is_some_and(|(reason, session)| reason == "denied" && session.len() == 36);
    assert!(
        denied && !finished.status.success(),
        "{what}: {}: {}",
        finished.status,
        finished.stderr
    );
}

#[derive(Debug)]
enum SocksTarget {
    Address([u8; 4]),
    Name(&'static str),
}

/// The reply code of a SOCKS 5 CONNECT (RFC 1928); `None` when the proxy closes instead.
async fn socks_connect(proxy: u16, target: &SocksTarget, port: u16) -> Option<u8> {
    let exchange = async {
        let mut stream = TcpStream::connect(("127.0.0.1", proxy)).await.ok()?;
        stream.write_all(&[5, 1, 0]).await.ok()?;
        stream.read_exact(&mut [0; 2]).await.ok()?;
        let mut request = vec![5, 1, 0];
        match target {
            SocksTarget::Address(address) => request.extend([&[1], &address[..]].concat()),
            SocksTarget::Name(name) => request.extend([&[3, u8::try_from(name.len()).ok()?], name.as_bytes()].concat()),
        }
        request.extend(port.to_be_bytes());
        stream.write_all(&request).await.ok()?;
        let mut reply = [0; 2];
        stream.read_exact(&mut reply).await.ok()?;
        Some(reply[1])
    };
    tokio::time::timeout(Duration::from_secs(20), exchange)
        .await
        .expect("the SOCKS proxy answers or closes")
}

/// What has left, by nftables' counters.
#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    gateway_connections: u64,
    gateway_datagrams: u64,
    agent_listed: u64,
    agent_connections: u64,
    agent_datagrams: u64,
}

impl Counts {
    async fn now() -> Self {
        let counters = netns::counted("boundary").await;
        let packets = |name: &str| counters[name];
        Self {
            gateway_connections: packets("gateway_connections"),
            gateway_datagrams: packets("gateway_datagrams"),
            agent_listed: packets("agent_listed"),
            agent_connections: packets("agent_connections"),
            agent_datagrams: packets("agent_datagrams"),
        }
    }
}

/// Makes every address local and counts what the two programs send: connections they open, and datagrams that are not
/// of the link between them.
async fn fence(link: u16, listed: u16) {
    netns::everything_is_local().await;
    let rules = format!(
        "table inet boundary {{
            counter gateway_connections {{}}
            counter gateway_datagrams {{}}
            counter agent_listed {{}}
            counter agent_connections {{}}
            counter agent_datagrams {{}}
            chain output {{
                type filter hook output priority 0; policy accept;
                meta skgid {GATEWAY_GROUP} tcp flags & (syn | ack) == syn counter name \"gateway_connections\"
                meta skgid {GATEWAY_GROUP} meta l4proto udp udp sport != {link} counter name \"gateway_datagrams\"
                meta skgid {AGENT_GROUP} tcp flags & (syn | ack) == syn tcp dport {listed} counter name \"agent_listed\"
                meta skgid {AGENT_GROUP} tcp flags & (syn | ack) == syn tcp dport != {listed} counter name \"agent_connections\"
                meta skgid {AGENT_GROUP} meta l4proto udp udp dport != {link} counter name \"agent_datagrams\"
            }}
        }}\n"
    );
    netns::nft(&rules).await;
}

fn piped(mut command: Command) -> Command {
    command.stdin(Stdio::piped());
    command
}

fn null(mut command: Command) -> Command {
    command.stdin(Stdio::null());
    command
}

#[test]
fn the_addresses_of_outside_are_addresses() {
    for address in OUTSIDE {
        address.parse::<SocketAddr>().unwrap();
    }
}
