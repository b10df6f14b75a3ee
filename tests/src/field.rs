//! A device in the field: behind a router that translates addresses, on a path as bad as a test wants, with the gateway and
//! its people in the middle. Each program is a process. Only inside [`netns::alone`](crate::netns::alone).

use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tokio::process::Command;

use crate::clients::{Finished, Running};
use crate::netns::{self, NatRouter};
use crate::programs::{AgentHome, DEVICE, Daemon, GatewayHome, PATIENCE, UserHome, account, throw_away, until};

/// Gateway, router, device, agent, technician.
pub struct Field {
    /// The gateway's files.
    pub home: GatewayHome,
    /// The gateway.
    pub gateway: Daemon,
    /// The router, and the device behind it.
    pub router: NatRouter,
    /// The device's files.
    pub device: AgentHome,
    /// The agent.
    pub agent: Daemon,
    /// The technician.
    pub alice: UserHome,
    dir: TempDir,
}

impl Field {
    /// Sets everything up and waits for the link. `lines` go into agent.yaml, besides the agent's own SSH server and what
    /// `endpoints` lists.
    pub async fn set(lines: &str, endpoints: &str) -> Self {
        netns::be_the_middle().await;
        let router = NatRouter::new(1).await;
        let dir = throw_away();
        let home = GatewayHome::in_the_middle(&dir.path().join("gateway")).await;
        let gateway = home.start().await;
        let endpoints = AgentHome::builtin(DEVICE) + endpoints;
        let device = home.agent(&dir.path().join("device"), DEVICE, &endpoints).await;
        device.add(lines);
        let alice = home.user(&dir.path().join("alice"), "alice", "field").await;
        let agent = Daemon::start(router.device.within(&device.command("run")), &device.path("agent.log"));
        home.linked(1).await;
        Self {
            home,
            gateway,
            router,
            device,
            agent,
            alice,
            dir,
        }
    }

    /// A path of the throw-away directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Starts the agent again in its place; does not wait for the link.
    pub fn start_agent(&mut self) {
        let run = self.router.device.within(&self.device.command("run"));
        self.agent = Daemon::start(run, &self.device.path("agent.log"));
    }

    /// Has the agent link anew, as on a network that it has just come into.
    pub async fn link_anew(&mut self) {
        let links = |log: &str| log.matches("link up").count();
        let before = links(&self.agent.log());
        self.agent.kill().await;
        self.start_agent();
        until("the agent links anew", PATIENCE, async || {
            (links(&self.agent.log()) > before).then_some(())
        })
        .await;
    }

    /// A command of alice's on the device, with a standard input.
    pub fn on_device(&self, remote: &str) -> Command {
        let device = format!("{}@{DEVICE}.default.internal", account());
        // No liveness of ssh's own: what ends here is ended by Fairlead.
        let mut ssh = self
            .alice
            .ssh_command(&["-o", "ServerAliveInterval=0", &device, remote]);
        ssh.stdin(Stdio::piped());
        ssh
    }

    /// Fails the test unless both programs live and neither panicked.
    pub async fn is_sound(&mut self) {
        assert!(self.gateway.is_alive(), "the gateway has ended");
        assert!(self.agent.is_alive(), "the agent has ended");
        assert!(!self.agent.log().contains("panicked"), "{}", self.agent.log());
        assert_eq!(self.home.metric("fairlead_panics_total").await, Some(0));
    }
}

/// A session that says back each line.
pub struct Chat {
    ssh: Running,
}

impl Chat {
    /// Starts it and waits for its first answer.
    pub async fn start(field: &Field) -> Self {
        let mut chat = Self {
            ssh: Running::start(field.on_device("cat")),
        };
        chat.echoes("hello").await;
        chat
    }

    /// Says a line, and how long it took to come back.
    pub async fn echoes(&mut self, text: &str) -> Duration {
        use tokio::io::AsyncWriteExt;
        let began = Instant::now();
        let stdin = self.ssh.stdin.as_mut().expect("a standard input");
        stdin
            .write_all(format!("{text}\n").as_bytes())
            .await
            .expect("the session takes input");
        assert_eq!(self.ssh.line().await, text);
        began.elapsed()
    }

    /// Whether it still runs.
    pub fn is_alive(&mut self) -> bool {
        self.ssh.is_alive()
    }

    /// Ends it in order.
    pub async fn end(mut self) {
        drop(self.ssh.stdin.take());
        self.ssh.finish().await.succeeded();
    }

    /// Waits for an end that came from elsewhere.
    pub async fn ended(self) -> Finished {
        self.ssh.finish().await
    }
}

/// Bytes that no compression and no repetition explains; the same for the same seed.
pub fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        // xorshift64 (Marsaglia 2003).
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// SHA-256, hex, as sha256sum prints it.
pub fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
