//! Any endpoint by `ssh -L` and `ssh -W`: bytes, half-closes, many at once, and one that does not read.

use std::path::PathBuf;
use std::time::Duration;

use fairlead_tests::clients::{Running, run_with};
use fairlead_tests::lab::{DOMAIN, Lab, Person, until};
use fairlead_tests::upstream::{Count, Deaf, EarlyEnd, Echo, Flood};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::time::{Instant, timeout};

use crate::stage::{AGENT, DEVICE, device, sshd};

/// `ssh -N -L` with a local socket file per target, so that no port is guessed.
pub(crate) struct Forwarding {
    pub(crate) ssh: Running,
    dir: PathBuf,
}

impl Forwarding {
    /// `targets`: a name for the local socket, and HOST:PORT as the caller writes it.
    pub(crate) fn start(lab: &Lab, person: &Person, targets: &[(&str, &str)]) -> Self {
        let dir = lab.path("people").join(&person.name);
        let specs: Vec<String> = targets
            .iter()
            .map(|(name, target)| format!("{}/{name}.sock:{target}", dir.display()))
            .collect();
        let mut arguments = vec!["-N", "-o", "ExitOnForwardFailure=yes"];
        arguments.extend(specs.iter().flat_map(|spec| ["-L", spec.as_str()]));
        arguments.push(DOMAIN);
        let mut command = person.ssh(&arguments);
        command.stdin(std::process::Stdio::null());
        Self {
            ssh: Running::start(command),
            dir,
        }
    }

    /// Connects to a local socket as soon as ssh listens on it.
    pub(crate) async fn connect(&mut self, name: &str) -> UnixStream {
        let path = self.dir.join(format!("{name}.sock"));
        until("a forward of ssh -L", async || {
            assert!(self.ssh.is_alive(), "ssh -L has ended");
            UnixStream::connect(&path).await.ok()
        })
        .await
    }
}

/// Says something to an echo and hears it.
pub(crate) async fn talk(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), text: &str) {
    let mut heard = vec![0; text.len()];
    let talk = async {
        stream.write_all(text.as_bytes()).await?;
        stream.read_exact(&mut heard).await
    };
    timeout(Duration::from_secs(40), talk)
        .await
        .expect("an echo")
        .expect("a forward that stands");
    assert_eq!(heard, text.as_bytes());
}

fn noise(bytes: u32) -> Vec<u8> {
    (0..bytes)
        .map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect()
}

async fn lab_with(endpoints: &[(&str, std::net::SocketAddr)]) -> (Lab, Person) {
    let mut lab = Lab::start().await;
    let mut plan = lab.agent(AGENT);
    for (url, upstream) in endpoints {
        plan = plan.endpoint(url, &format!("tcp://{upstream}"));
    }
    plan.start().await;
    let alice = lab.user("alice", &["field"]).await;
    (lab, alice)
}

const ECHO: &str = "tcp://pump-7.default.internal:7007";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_local_port_leads_to_a_tcp_service() {
    let echo = Echo::start().await;
    let (lab, alice) = lab_with(&[(ECHO, echo.address)]).await;
    let port = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let forward = format!("127.0.0.1:{port}:{DEVICE}:7007");
    let mut command = alice.ssh(&["-N", "-o", "ExitOnForwardFailure=yes", "-L", &forward, DOMAIN]);
    command.stdin(std::process::Stdio::null());
    let mut ssh = Running::start(command);
    let mut stream = until("the port of ssh -L", async || {
        assert!(ssh.is_alive(), "ssh -L has ended");
        TcpStream::connect(("127.0.0.1", port)).await.ok()
    })
    .await;
    talk(&mut stream, "hello").await;
    let sessions = lab.sessions().await;
    assert_eq!(sessions.len(), 1);
    assert_eq!(
        (sessions[0].caller.as_str(), sessions[0].endpoint.as_str()),
        ("alice", ECHO)
    );
    drop(stream);
    let end = lab
        .agent_audit(AGENT)
        .awaited("session.end", Some(&sessions[0].id))
        .await;
    assert_eq!(
        (end.number("bytes_in"), end.number("bytes_out")),
        (Some(5), Some(5)),
        "{end:?}"
    );
    drop(ssh);
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pipe_into_ssh_w_arrives_whole_and_its_answer_comes_back_after_the_end() {
    let (echo, count) = (Echo::start().await, Count::start().await);
    let (lab, alice) = lab_with(&[(ECHO, echo.address), ("tcp://pump-7:7008", count.address)]).await;
    let bytes = noise(24_000_001);
    let echoed = run_with(alice.ssh(&["-W", &format!("{DEVICE}:7007"), DOMAIN]), &bytes)
        .await
        .succeeded();
    assert_eq!(
        Sha256::digest(&echoed.stdout),
        Sha256::digest(&bytes),
        "{} bytes came back",
        echoed.stdout.len()
    );
    let counted = run_with(alice.ssh(&["-W", &format!("{DEVICE}:7008"), DOMAIN]), &bytes)
        .await
        .succeeded();
    assert_eq!(counted.text(), "24000001 bytes\n");
    let tiny = run_with(alice.ssh(&["-W", &format!("{DEVICE}:7008"), DOMAIN]), b"")
        .await
        .succeeded();
    assert_eq!(tiny.text(), "0 bytes\n");
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_ends_its_side_first_still_hears_everything() {
    let early = EarlyEnd::start().await;
    let (lab, alice) = lab_with(&[(ECHO, early.address)]).await;
    let mut ssh = Forwarding::start(&lab, &alice, &[("early", &format!("{DEVICE}:7007"))]);
    let mut stream = ssh.connect("early").await;
    let mut said = String::new();
    stream.read_to_string(&mut said).await.unwrap();
    assert_eq!(said, "all said\n");
    let bytes = noise(3_000_001);
    stream.write_all(&bytes).await.unwrap();
    stream.shutdown().await.unwrap();
    let end = lab.agent_audit(AGENT).awaited("session.end", None).await;
    assert_eq!(
        (end.number("bytes_in"), end.text("reason")),
        (Some(3_000_001), "finished"),
        "{end:?}"
    );
    assert_eq!(early.heard(), bytes.len());
    drop(ssh);
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_forwards_of_one_connection_keep_their_bytes_apart() {
    let echo = Echo::start().await;
    let (lab, alice) = lab_with(&[(ECHO, echo.address)]).await;
    let mut ssh = Forwarding::start(&lab, &alice, &[("echo", &format!("{DEVICE}:7007"))]);
    let mut streams = Vec::new();
    for _ in 0..30 {
        streams.push(ssh.connect("echo").await);
    }
    for round in 0..3 {
        for (at, stream) in streams.iter_mut().enumerate() {
            talk(stream, &format!("round {round} of forward {at}\n").repeat(500)).await;
        }
    }
    assert_eq!(lab.sessions().await.len(), 30);
    drop((streams, ssh));
    until("the end of all sessions", async || {
        lab.sessions().await.is_empty().then_some(())
    })
    .await;
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_spelling_of_a_name_leads_to_the_same_endpoint() {
    let echo = Echo::start().await;
    let (lab, alice) = lab_with(&[(ECHO, echo.address)]).await;
    let flat = format!("pump-7--default.{DOMAIN}");
    let below = format!("pump-7.default.{DOMAIN}.");
    for name in ["pump-7", "PUMP-7.default", "pump-7.Default.Internal", &flat, &below] {
        let heard = run_with(alice.ssh(&["-W", &format!("{name}:7007"), DOMAIN]), name.as_bytes())
            .await
            .succeeded();
        assert_eq!(heard.text(), name);
    }
    let permits = lab
        .gateway_audit()
        .lines()
        .into_iter()
        .filter(|line| line.text("event") == "session.permit");
    assert!(
        permits
            .map(|line| line.text("endpoint").to_owned())
            .eq(std::iter::repeat_n(ECHO.to_owned(), 5))
    );
    lab.stop().await;
}

/// The other direction of a stall: what the caller does not read waits at the service, and nobody else does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_who_does_not_read_one_forward_has_the_others() {
    let (echo, flood) = (Echo::start().await, Flood::start().await);
    let (lab, alice) = lab_with(&[(ECHO, echo.address), ("tcp://pump-7:7009", flood.address)]).await;
    let (echo_at, flood_at) = (format!("{DEVICE}:7007"), format!("{DEVICE}:7009"));
    let mut ssh = Forwarding::start(&lab, &alice, &[("echo", &echo_at), ("flood", &flood_at)]);
    let (mut healthy, mut unread) = (ssh.connect("echo").await, ssh.connect("flood").await);
    talk(&mut healthy, "before").await;
    settled(&lab, "tcp://pump-7.default.internal:7009").await;
    let began = Instant::now();
    talk(&mut healthy, &"while the other waits ".repeat(10_000)).await;
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "the healthy forward waited {:?}",
        began.elapsed()
    );
    // What was sent is there once somebody reads.
    let mut bytes = vec![0; 1024 * 1024];
    unread.read_exact(&mut bytes).await.unwrap();
    assert!(bytes.iter().all(|byte| *byte == 0x5a));
    drop((healthy, unread, ssh));
    lab.stop().await;
}

/// A service that does not read: the gateway holds 4 MiB for it, then waits 30 s, then gives that forward up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_does_not_read_is_given_up_and_its_siblings_go_on() {
    let (echo, deaf) = (Echo::start().await, Deaf::start().await);
    let (lab, alice) = lab_with(&[(ECHO, echo.address), ("tcp://pump-7:7009", deaf.address)]).await;
    let (echo_at, deaf_at) = (format!("{DEVICE}:7007"), format!("{DEVICE}:7009"));
    let mut ssh = Forwarding::start(&lab, &alice, &[("echo", &echo_at), ("deaf", &deaf_at)]);
    let (mut healthy, mut stalled) = (ssh.connect("echo").await, ssh.connect("deaf").await);
    talk(&mut healthy, "before").await;
    // Written until the gateway gives the forward up: ssh then closes the local socket.
    let flood = async {
        let bytes = vec![0x5a; 256 * 1024];
        while stalled.write_all(&bytes).await.is_ok() {}
        Instant::now()
    };
    let asking = async {
        settled(&lab, "tcp://pump-7.default.internal:7009").await;
        let asked = Instant::now();
        talk(&mut healthy, "while the other waits").await;
        asked.elapsed()
    };
    let (_given_up, waited) = timeout(Duration::from_secs(80), async { tokio::join!(flood, asking) })
        .await
        .unwrap();
    assert!(
        waited < Duration::from_secs(40),
        "the healthy forward waited {waited:?}"
    );
    let ends = lab.gateway_audit();
    let end = ends.awaited("session.end", None).await;
    assert_eq!(
        (end.text("reason"), end.text("endpoint")),
        ("slow-reader", "tcp://pump-7.default.internal:7009")
    );
    let at_agent = lab
        .agent_audit(AGENT)
        .awaited("session.end", Some(end.text("session")))
        .await;
    assert_eq!(at_agent.text("reason"), "slow-reader");
    talk(&mut healthy, "and afterwards").await;
    assert_eq!(lab.sessions().await.len(), 1);
    drop((healthy, ssh));
    lab.stop().await;
}

/// On a connection of its own a slow service is plain back-pressure and is never given up; only a permit that lapses ends
/// it, at both ends, although neither can read or write.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forward_without_siblings_may_wait_until_it_is_killed() {
    let deaf = Deaf::start().await;
    let (lab, alice) = lab_with(&[("tcp://pump-7:7009", deaf.address)]).await;
    let mut ssh = Forwarding::start(&lab, &alice, &[("deaf", &format!("{DEVICE}:7009"))]);
    let mut stalled = ssh.connect("deaf").await;
    let bytes = vec![0x5a; 256 * 1024];
    let mut flood = Box::pin(async { while stalled.write_all(&bytes).await.is_ok() {} });
    assert!(
        timeout(Duration::from_secs(34), &mut flood).await.is_err(),
        "the only forward was given up"
    );
    let session = lab.sessions().await[0].id.clone();
    let killed = Instant::now();
    lab.kill(&session).await;
    timeout(Duration::from_secs(10), flood)
        .await
        .expect("the forward is closed");
    assert_eq!(
        lab.gateway_audit()
            .awaited("session.end", Some(&session))
            .await
            .text("reason"),
        "killed"
    );
    assert_eq!(
        lab.agent_audit(AGENT)
            .awaited("session.end", Some(&session))
            .await
            .text("reason"),
        "killed"
    );
    assert!(
        killed.elapsed() < Duration::from_secs(10),
        "the end took {:?}",
        killed.elapsed()
    );
    drop(ssh);
    lab.stop().await;
}

/// Whoever vanishes while their bytes wait leaves no session behind, at either end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_who_vanishes_is_noticed_although_nothing_can_be_read() {
    let deaf = Deaf::start().await;
    let (lab, alice) = lab_with(&[("tcp://pump-7:7009", deaf.address)]).await;
    let mut ssh = Forwarding::start(&lab, &alice, &[("deaf", &format!("{DEVICE}:7009"))]);
    let mut stalled = ssh.connect("deaf").await;
    let bytes = vec![0x5a; 256 * 1024];
    let flood = async { while stalled.write_all(&bytes).await.is_ok() {} };
    tokio::select! {
        () = flood => panic!("the forward was closed"),
        () = settled(&lab, "tcp://pump-7.default.internal:7009") => {}
    }
    let session = lab.sessions().await[0].id.clone();
    // Killed, with everything it has not sent yet.
    drop((stalled, ssh));
    for audit in [lab.gateway_audit(), lab.agent_audit(AGENT)] {
        assert_eq!(
            audit.awaited("session.end", Some(&session)).await.text("reason"),
            "caller-gone"
        );
    }
    lab.stop().await;
}

/// The device's own sshd may forward on: that is between the caller and the device.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forward_through_the_device_is_the_devices_affair() {
    let echo = Echo::start().await;
    let mut lab = Lab::start().await;
    let server = sshd(&lab, &[]).await;
    lab.agent(AGENT)
        .endpoint(crate::stage::ENDPOINT, &server.upstream())
        .start()
        .await;
    let alice = lab.user("alice", &["field"]).await;
    let heard = run_with(
        alice.ssh(&["-W", &echo.address.to_string(), &device()]),
        b"through the device",
    )
    .await;
    assert_eq!(heard.succeeded().text(), "through the device");
    lab.stop().await;
}

/// Waits until no byte of the endpoint's only session has moved between two looks.
async fn settled(lab: &Lab, endpoint: &str) {
    let mut last = None;
    let mut same = 0;
    until("a forward that no longer moves", async || {
        let sessions = lab.sessions().await;
        let session = sessions.iter().find(|session| session.endpoint == endpoint)?;
        let now = Some((session.bytes_in, session.bytes_out));
        same = if now == last && now != Some((0, 0)) {
            same + 1
        } else {
            0
        };
        last = now;
        (same >= 25).then_some(())
    })
    .await;
}
