//! What the gateway refuses of its own: it is a way to endpoints and nothing else. Nothing leaves it, nothing runs on it.

use std::os::unix::net::UnixListener;
use std::path::Path;

use fairlead_tests::clients::{Finished, run, run_with};
use fairlead_tests::lab::{DOMAIN, Lab, Person, until};
use fairlead_tests::upstream::{Canary, Echo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::forwards::{Forwarding, talk};
use crate::stage::{AGENT, DEVICE, ENDPOINT};

/// A gateway, an agent that offers an SSH server, and alice, who may use everything there is.
async fn lab() -> (Lab, Person) {
    let mut lab = Lab::start().await;
    lab.agent(AGENT).endpoint(ENDPOINT, "builtin:ssh").start().await;
    let alice = lab.user("alice", &["field"]).await;
    (lab, alice)
}

/// One refusal at the gateway under the session that the person was told, and nothing at the agent.
fn was_refused(lab: &Lab, said: &Finished, asked: &str) {
    let session = said.refused_as("denied");
    let lines = lab.gateway_audit().of(&session);
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert_eq!(
        (lines[0].text("event"), lines[0].text("reason")),
        ("session.refuse", "unknown-endpoint")
    );
    assert_eq!(lines[0].text("endpoint"), asked);
    assert_eq!(lines[0].text("caller"), "alice");
    assert!(lab.agent_audit(AGENT).of(&session).is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn there_is_no_shell_command_or_subsystem() {
    let (lab, alice) = lab().await;
    let asked: [&[&str]; 7] = [
        &[DOMAIN],
        &["-tt", DOMAIN],
        &[DOMAIN, "true"],
        &["-t", DOMAIN, "bash"],
        &["-s", DOMAIN, "sftp"],
        &["-A", DOMAIN, "true"],
        &["-o", "ForwardX11=yes", DOMAIN, "true"],
    ];
    for arguments in asked {
        let mut command = alice.ssh(arguments);
        command.env("DISPLAY", "127.0.0.1:99");
        let said = run(command).await;
        was_refused(&lab, &said, "session on the gateway");
        assert_eq!(said.text(), "");
        assert!(
            said.stderr.contains("no shell, sftp or socket of its own"),
            "{}",
            said.stderr
        );
    }
    let sftp = run(alice.sftp("ls /\n", DOMAIN)).await;
    was_refused(&lab, &sftp, "session on the gateway");
    let scp = run(alice.scp(&["/etc/hostname", &format!("{DOMAIN}:/tmp/never")])).await;
    was_refused(&lab, &scp, "session on the gateway");
    assert!(!Path::new("/tmp/never").exists());
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_dialled_for_an_address() {
    let (lab, alice) = lab().await;
    let canary = Canary::listen();
    let (port, own) = (canary.address.port(), lab.address().port());
    let addresses = [
        format!("127.0.0.1:{port}"),
        format!("localhost:{port}"),
        format!("0.0.0.0:{port}"),
        format!("[::1]:{port}"),
        format!("[::ffff:127.0.0.1]:{port}"),
        format!("127.1:{port}"),
        format!("2130706433:{port}"),
        format!("0x7f000001:{port}"),
        format!("{DOMAIN}:{own}"),
        format!("127.0.0.1:{own}"),
        "169.254.169.254:80".to_owned(),
        format!("localhost.localdomain:{port}"),
        format!("{DEVICE}:{port}"),
    ];
    for address in addresses {
        let said = run_with(alice.ssh(&["-W", &address, DOMAIN]), b"hello").await;
        let shown = address.replace(['[', ']'], "");
        was_refused(&lab, &said, &shown);
        assert_eq!(said.text(), "");
        canary.is_untouched();
    }
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socks_proxy_leads_nowhere_but_to_endpoints() {
    let (lab, alice) = lab().await;
    let canary = Canary::listen();
    let port = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let proxy = format!("127.0.0.1:{port}");
    let start = || {
        let mut command = alice.ssh(&["-N", "-o", "ExitOnForwardFailure=yes", "-D", &proxy, DOMAIN]);
        command.stdin(std::process::Stdio::null());
        fairlead_tests::clients::Running::start(command)
    };
    // SOCKS 5 without authentication (RFC 1928): CONNECT to a name.
    let socks = async |ssh: &mut fairlead_tests::clients::Running, host: &str, to: u16| {
        let mut stream = until("the port of ssh -D", async || {
            assert!(ssh.is_alive(), "ssh -D has ended");
            TcpStream::connect(&proxy).await.ok()
        })
        .await;
        stream.write_all(&[5, 1, 0]).await.unwrap();
        let mut method = [0; 2];
        stream.read_exact(&mut method).await.unwrap();
        let mut request = vec![5, 1, 0, 3, u8::try_from(host.len()).unwrap()];
        request.extend(host.as_bytes());
        request.extend(to.to_be_bytes());
        stream.write_all(&request).await.unwrap();
        stream
    };
    for host in ["127.0.0.1", "localhost", "example.com"] {
        let mut ssh = start();
        let mut stream = socks(&mut ssh, host, canary.address.port()).await;
        let said = ssh.finish().await;
        was_refused(&lab, &said, &format!("{host}:{}", canary.address.port()));
        let mut rest = Vec::new();
        drop(stream.read_to_end(&mut rest).await);
        canary.is_untouched();
    }
    // An endpoint by the same way: the greeting of the device's server comes after the proxy's answer.
    let mut ssh = start();
    let mut stream = socks(&mut ssh, DEVICE, 22).await;
    let mut greeting = [0; 10 + 7];
    stream.read_exact(&mut greeting).await.unwrap();
    assert_eq!(&greeting[10..], b"SSH-2.0");
    drop((ssh, stream));
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_listens_at_the_gateway_for_a_caller() {
    let (lab, alice) = lab().await;
    let canary = Canary::listen();
    let socket = lab.path("run/never.sock");
    let to = canary.address;
    let forwards = [
        (format!("0:{to}"), "remote forward on the gateway"),
        (format!("127.0.0.1:0:{to}"), "remote forward on the gateway"),
        (format!("*:18022:{to}"), "remote forward on the gateway"),
        ("0".to_owned(), "remote forward on the gateway"),
        (
            format!("{}:{to}", socket.display()),
            "remote socket forward on the gateway",
        ),
    ];
    for (at, (forward, asked)) in forwards.iter().enumerate() {
        let refused = run(alice.ssh(&["-N", "-o", "ExitOnForwardFailure=yes", "-R", forward, DOMAIN])).await;
        assert_eq!(refused.code(), Some(255), "{}", refused.stderr);
        assert!(
            refused.stderr.contains("remote port forwarding failed"),
            "{}",
            refused.stderr
        );
        let lines = lab.gateway_audit().lines();
        let refusals: Vec<_> = lines
            .iter()
            .filter(|line| line.text("event") == "session.refuse")
            .collect();
        assert_eq!(refusals.len(), at + 1, "{forward}: {refusals:?}");
        assert_eq!(
            (refusals[at].text("endpoint"), refusals[at].text("caller")),
            (*asked, "alice")
        );
    }
    assert!(!socket.exists());
    canary.is_untouched();
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sockets_of_the_gateway_are_out_of_reach() {
    let (lab, alice) = lab().await;
    let path = lab.path("run/canary.sock");
    let canary = UnixListener::bind(&path).unwrap();
    canary.set_nonblocking(true).unwrap();
    for socket in [
        path.display().to_string(),
        lab.path("run/admin.sock").display().to_string(),
        "/".to_owned(),
    ] {
        let mut ssh = Forwarding::start(&lab, &alice, &[("out", &socket)]);
        let mut stream = ssh.connect("out").await;
        drop(stream.write_all(b"GET /v1/users HTTP/1.1\r\nhost: x\r\n\r\n").await);
        let said = ssh.ssh.finish().await;
        was_refused(&lab, &said, "socket forward on the gateway");
        let mut answer = Vec::new();
        drop(stream.read_to_end(&mut answer).await);
        assert_eq!(answer, b"");
        assert!(
            canary
                .accept()
                .is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
        );
        std::fs::remove_file(alice.path("out.sock")).unwrap();
    }
    lab.stop().await;
}

/// On a connection with a live forward a refusal is a refusal of that channel: the forward is worth more than the words.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_channel_leaves_its_siblings_alone() {
    let echo = Echo::start().await;
    let mut lab = Lab::start().await;
    lab.agent(AGENT)
        .endpoint("tcp://pump-7:7007", &format!("tcp://{}", echo.address))
        .start()
        .await;
    let alice = lab.user("alice", &["field"]).await;
    let targets = [
        ("echo", format!("{DEVICE}:7007")),
        ("none", format!("{DEVICE}:9")),
        ("out", "/etc/passwd".to_owned()),
    ];
    let targets: Vec<(&str, &str)> = targets.iter().map(|(name, target)| (*name, target.as_str())).collect();
    let mut ssh = Forwarding::start(&lab, &alice, &targets);
    let mut healthy = ssh.connect("echo").await;
    talk(&mut healthy, "before").await;
    for name in ["none", "out", "none"] {
        let mut refused = ssh.connect(name).await;
        let mut answer = Vec::new();
        drop(refused.read_to_end(&mut answer).await);
        assert_eq!(answer, b"");
        talk(&mut healthy, "and after").await;
    }
    let refusals = lab
        .gateway_audit()
        .lines()
        .into_iter()
        .filter(|line| line.text("event") == "session.refuse");
    assert_eq!(refusals.count(), 3);
    drop((healthy, ssh));
    lab.stop().await;
}
