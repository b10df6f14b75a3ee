//! Administration: HTTP and JSON on a unix socket, plus metrics and health.
//!
//! Who may connect is decided by the socket's file mode (0660 in a directory others cannot enter); who did is asked of the
//! kernel for each connection and stands in the audit line that is written before each change. One request per
//! connection, bodies of at most 64 KiB, 10 s for an answer.
//!
//! What administration needs from the running gateway comes through [`Live`], which the composition root implements.
//! Deliberately not in here: remote administration and roles, decisions about access, and any state of its own.

pub mod api;

mod agents;
mod authority;
mod callers;
mod desk;
mod error;
mod explain;
mod extract;
mod fleet;
mod health;
mod hosts;
mod keys;
mod live;
mod policy;
mod revocations;
mod router;
mod serve;
mod sessions;
mod tokens;
mod users;
mod workloads;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::PathBuf;

use fairlead_runtime::socket_file::SocketFile;
use fairlead_runtime::tasks::TaskGroup;
use tokio::net::TcpListener;

pub use desk::{Desk, JoinFacts};
pub use fairlead_runtime::socket_file::SocketError;
pub use live::{
    AgentQuestion, Answer, AuthorityTaken, Change, IdentityConflict, Live, LiveSession, NotAudited, OnlineAgent,
    PolicyInForce, PolicyRefused,
};

/// Where administration listens.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The unix socket. A missing directory is made with mode 0750.
    pub socket: PathBuf,
    /// Where `/metrics`, `/healthz` and `/readyz` are served besides the socket, without authentication.
    pub metrics_listen: Option<SocketAddr>,
}

/// Why administration cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The unix socket.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The TCP address for metrics.
    #[error("cannot listen on {address} for metrics: {source}; free that address or change admin.metrics_listen")]
    Metrics {
        /// The address of the settings.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
}

/// Administration that listens and does not serve yet: made before the gateway calls itself started, so that a taken
/// address is found in time.
#[derive(Debug)]
pub struct Admin {
    socket: SocketFile,
    metrics: Option<TcpListener>,
}

impl Admin {
    /// Takes the socket, and the TCP address if there is one. The socket of a dead process is replaced.
    ///
    /// # Errors
    /// [`BindError`]; a socket on which somebody answers is never replaced.
    pub async fn bind(settings: &Settings) -> Result<Self, BindError> {
        let metrics = match settings.metrics_listen {
            None => None,
            Some(address) => {
                let bound = TcpListener::bind(address).await;
                Some(bound.map_err(|source| BindError::Metrics { address, source })?)
            }
        };
        let socket = SocketFile::take(&settings.socket).await?;
        Ok(Self { socket, metrics })
    }

    /// The address metrics are served on, for settings with port 0.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics.as_ref().and_then(|listener| listener.local_addr().ok())
    }

    /// Serves as members of `tasks`, until its token is cancelled; then the socket's file is removed. Changes that have
    /// begun are finished by the group, even when whoever asked has gone.
    pub fn start(self, desk: Desk, tasks: &TaskGroup) {
        let (admin, public) = router::build(desk, tasks.clone());
        tasks.spawn("admin-socket", serve::unix(self.socket, admin, tasks.clone()));
        if let Some(listener) = self.metrics {
            tasks.spawn("admin-metrics", serve::tcp(listener, public, tasks.clone()));
        }
    }
}
