//! The usual set: a gateway, one device, one technician.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use tempfile::TempDir;

use super::{AgentHome, Daemon, GatewayHome, UserHome, throw_away};

/// The device's name, in the site `default`.
pub const DEVICE: &str = "pump-7";

/// A gateway, a device with `builtin:ssh`, and alice who may use it; each program a process.
pub struct Scene {
    /// The gateway's files.
    pub home: GatewayHome,
    /// The gateway.
    pub gateway: Daemon,
    /// The device's files.
    pub device: AgentHome,
    /// The agent.
    pub agent: Daemon,
    /// The technician.
    pub alice: UserHome,
    // Last, so that it is removed after everything that writes into it.
    dir: TempDir,
}

impl Scene {
    /// Sets everything up and waits for the link.
    pub async fn set() -> Self {
        Self::with_endpoints("").await
    }

    /// As [`Self::set`]; the device offers these endpoints (list items of agent.yaml) besides its SSH server.
    pub async fn with_endpoints(more: &str) -> Self {
        let dir = throw_away();
        let home = GatewayHome::set_up(&dir.path().join("gateway")).await;
        let gateway = home.start().await;
        let endpoints = AgentHome::builtin(DEVICE) + more;
        let device = home.agent(&dir.path().join("device"), DEVICE, &endpoints).await;
        let agent = device.start();
        let alice = home.user(&dir.path().join("alice"), "alice", "field").await;
        home.linked(1).await;
        Self {
            home,
            gateway,
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

    /// The gateway's one port.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.home.port).into()
    }

    /// Whether `fairlead agents list --json` has the device as online.
    pub async fn listed_online(&self) -> bool {
        let list = self.home.json(&["agents", "list"]).await;
        let agents = list["agents"].as_array().expect("a list");
        let device = agents
            .iter()
            .find(|agent| agent["name"] == DEVICE)
            .expect("the device is listed");
        !device["online"].is_null()
    }

    /// Fails the test unless both processes live and the gateway has counted no panic.
    pub async fn is_sound(&mut self) {
        assert!(self.gateway.is_alive(), "the gateway has ended");
        assert!(self.agent.is_alive(), "the agent has ended");
        assert!(!self.agent.log().contains("panicked"), "{}", self.agent.log());
        assert_eq!(
            self.home.metric("fairlead_panics_total").await,
            Some(0),
            "panics of the gateway"
        );
    }
}
