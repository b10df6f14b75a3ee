//! Stock ssh to a plain sshd: `-L`, the client's side dials; `-R`, the target's side dials, as an agent does.

use std::net::SocketAddr;
use std::process::Stdio;

use fairlead_tests::clients::stock;
use fairlead_tests::programs::{PATIENCE, account, free_port, throw_away, until};
use fairlead_tests::sshd::{Sshd, Trust, make_key};
use tokio::net::TcpStream;

use super::{Entry, Way};
use crate::load::Target;

/// Which of ssh's forwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    Local,
    Remote,
}

pub(super) const WAYS: [(&str, Direction); 2] = [("ssh -L", Direction::Local), ("ssh -R", Direction::Remote)];

pub(super) async fn way(name: &'static str, direction: Direction, target: &Target) -> Way {
    let dir = throw_away();
    let key = make_key(dir.path(), "ed25519", "client").await;
    let trust = Trust {
        keys: vec![key],
        ..Trust::default()
    };
    let sshd = Sshd::start(dir.path(), &trust).await;
    let port = free_port();
    let flag = if direction == Direction::Local { "-L" } else { "-R" };
    let mut ssh = stock("ssh");
    ssh.args([
        "-N",
        "-F",
        "none",
        "-o",
        "BatchMode=yes",
        "-o",
        "StrictHostKeyChecking=no",
    ])
    .args(["-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"])
    .args([flag, &format!("127.0.0.1:{port}:127.0.0.1:{}", target.port)])
    .args(["-p", &sshd.port.to_string(), "-i"])
    .arg(dir.path().join("client"))
    .arg(format!("{}@127.0.0.1", account()));
    let ssh = ssh
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("ssh can be run");
    until("ssh forwards", PATIENCE, async || {
        TcpStream::connect(("127.0.0.1", port)).await.ok().map(drop)
    })
    .await;
    let client = vec![ssh.id().expect("ssh runs")];
    let server = vec![sshd.id()];
    let (near, far) = if direction == Direction::Local {
        (client, server)
    } else {
        (server, client)
    };
    Way {
        name,
        entry: Entry::plain(SocketAddr::from(([127, 0, 0, 1], port))),
        near,
        far,
        _alive: vec![Box::new(ssh), Box::new(sshd), Box::new(dir)],
    }
}
