//! The SSH face: stock `ssh` finds every endpoint here, by `ssh -J`, `-W` and `-L` (SSH `direct-tcpip`, RFC 4254
//! section 7.2).
//!
//! Callers prove themselves by a user certificate of our SSH user CA or by a registered key; their SSH user name is
//! their caller name. What runs inside a forwarded channel is end to end between the caller and the endpoint. The gateway
//! itself has no shell, no exec, no sftp, no listening forward and no socket forward to offer.

mod bridge;
mod connection;
mod forward;
mod handler;
mod identify;
mod keys;
mod shut_out;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use fairlead_protocol::first_bytes::FirstBytes;
use fairlead_runtime::channel::Transport;
use fairlead_runtime::tasks::TaskGroup;
use russh::{Disconnect, server};
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};

use super::{Answer, Arrival, Claim, ClientStream, Door, Face, Kind, Parts};
use crate::admission::{Failures, Slot};
use connection::Connection;
use handler::Handler;
use identify::Identifier;

pub use keys::Keys;

/// The demultiplexer's entry for this kind.
pub const KIND: Kind = Kind {
    name: "ssh",
    leads_to: &[],
    claims: &[Claim::FirstBytes(FirstBytes::Ssh), Claim::Silence],
    names_inside: true,
    is_dedicable: true,
    reads: None,
    open: SshFace::open,
};

/// From the first byte to the first authentication request.
const ARRIVAL_GRACE: Duration = Duration::from_secs(15);
/// From there to a proven identity: people type passphrases and touch tokens.
const LOGIN_GRACE: Duration = Duration::from_secs(60);
/// Time for a disconnect message to leave before the connection is cut.
const FAREWELL: Duration = Duration::from_secs(2);

/// The face with what all its connections share.
struct SshFace {
    present: Mutex<Present>,
    shared: Arc<Shared>,
}

/// The keys of the moment, and the settings made of them.
struct Present {
    keys: watch::Receiver<Keys>,
    config: Arc<server::Config>,
}

/// What a connection's handler needs.
struct Shared {
    door: Arc<Door>,
    identifier: Identifier,
    failures: Arc<Failures>,
    tasks: TaskGroup,
    domain: String,
}

impl SshFace {
    fn open(parts: &Parts) -> anyhow::Result<Arc<dyn Face>> {
        let mut keys = parts.ssh.clone();
        let present = keys.borrow_and_update().clone();
        let config = Arc::new(
            present
                .server_config()
                .context("the SSH host key or certificate cannot be used")?,
        );
        let identifier = Identifier::new(Arc::clone(&parts.callers), present.user_cas()?);
        let shared = Shared {
            door: Arc::clone(&parts.door),
            identifier,
            failures: Arc::clone(&parts.failures),
            tasks: parts.tasks.clone(),
            domain: parts.domain.clone(),
        };
        Ok(Arc::new(Self {
            present: Mutex::new(Present { keys, config }),
            shared: Arc::new(shared),
        }))
    }

    /// The settings for a connection that begins now.
    fn config(&self) -> Arc<server::Config> {
        let mut present = self.present.lock().unwrap_or_else(PoisonError::into_inner);
        if present.keys.has_changed().unwrap_or(false) {
            let made = present.keys.borrow_and_update().server_config();
            match made {
                Ok(config) => present.config = Arc::new(config),
                Err(error) => tracing::error!(%error, "the renewed SSH host certificate cannot be used"),
            }
        }
        Arc::clone(&present.config)
    }

    async fn run(&self, stream: ClientStream, client: SocketAddr, slot: Slot) {
        if let Some(penalty) = self.shared.failures.penalty(client.ip()) {
            tracing::debug!(%client, "this address is shut out for failed logins");
            return shut_out::tell(stream, penalty).await;
        }
        let connection = Connection::new(client);
        // However this task ends, russh's own task ends with it.
        let _cut = connection.cut.clone().drop_guard();
        let _ended = connection.ended.clone().drop_guard();
        let arrival_ends = Instant::now() + ARRIVAL_GRACE;
        let handler = Handler::new(Arc::clone(&self.shared), Arc::clone(&connection), slot);
        let transport = Transport::new(stream, Arc::clone(&connection.flow), connection.cut.clone());
        let greeting = server::run_stream(self.config(), transport, handler);
        let Ok(Ok(mut running)) = timeout_at(arrival_ends, greeting).await else {
            tracing::debug!(%client, "no SSH greeting");
            return;
        };
        tokio::select! {
            _over = &mut running => return self.note_failed_login(&connection),
            () = connection.proven.cancelled() => {}
            () = login_grace(&connection, arrival_ends) => {
                tracing::debug!(%client, "nobody logged in in time");
                return self.note_failed_login(&connection);
            }
        }
        let handle = running.handle();
        tokio::select! {
            over = &mut running => {
                if let Err(error) = over {
                    tracing::debug!(%client, %error, "SSH connection failed");
                }
            }
            () = self.shared.tasks.token().cancelled() => {
                // Sessions that are being ended say so themselves, with their reason.
                if !connection.is_idle() && timeout(FAREWELL, &mut running).await.is_ok() {
                    return;
                }
                let text = "fairlead: the gateway is stopping".to_owned();
                let _gone = timeout(FAREWELL, handle.disconnect(Disconnect::ByApplication, text, String::new())).await;
                let _parted = timeout(FAREWELL, &mut running).await;
            }
        }
    }

    /// One failure and one audit line for a connection on which somebody tried and nobody got in.
    fn note_failed_login(&self, connection: &Connection) {
        if let Some(refused) = connection.take_refused() {
            let shut_out = self.shared.failures.failed(connection.client.ip());
            self.shared
                .door
                .login_failed(&refused.login, refused.why, shut_out, connection.client);
        }
    }
}

/// Ends when the client has taken too long to log in.
async fn login_grace(connection: &Connection, arrival_ends: Instant) {
    if timeout_at(arrival_ends, connection.asked.cancelled()).await.is_ok() {
        tokio::time::sleep(LOGIN_GRACE).await;
    }
}

impl Face for SshFace {
    fn serve<'a>(&'a self, arrival: Arrival, client: SocketAddr, slot: Slot) -> Answer<'a, ()> {
        Box::pin(async move {
            if let Arrival::Plain(stream) = arrival {
                self.run(stream, client, slot).await;
            }
        })
    }
}

impl std::fmt::Debug for SshFace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SshFace")
    }
}
