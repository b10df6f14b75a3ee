//! The Fairlead agent: dials out to a gateway and reaches the local services that the customer's file lists.
//!
//! This file is the composition root: the only one that knows every room.
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        reason = "tests fail by panicking"
    )
)]

mod builtin;
#[cfg(feature = "builtin-ssh")]
mod caller_stream;
pub mod config;
mod counted;
mod credentials;
pub mod enroll;
pub mod identity_files;
pub mod link;
pub mod service;
mod session;
#[cfg(feature = "builtin-ssh")]
pub mod sshd;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use fairlead_identity::name::Label;
use fairlead_runtime::audit::{self, AuditLog};
use fairlead_runtime::clock::SystemClock;
use fairlead_runtime::stop::CancellationToken;
use fairlead_runtime::tasks::TaskGroup;
use fairlead_wire::control::{Hello, Mode, Offer, OfferedEndpoint};
use fairlead_wire::version::{VERSION_MAX, VERSION_MIN};
use tokio::sync::watch;

use builtin::Builtin;
use config::{Config, Endpoint, Upstream};
use credentials::Held;
use identity_files::IdentityFiles;
use link::{Introduction, Settings, Status};
use service::{AllowList, SystemResolver};
use session::Services;

/// How long sessions may go on after the agent was told to stop.
const STOP_GRACE: Duration = Duration::from_secs(10);

/// A running agent.
pub struct Agent {
    /// Where the link stands.
    pub status: watch::Receiver<Status>,
    stop: CancellationToken,
    tasks: TaskGroup,
    sessions: TaskGroup,
}

impl Agent {
    /// Starts an enrolled agent: audit first, then the link. Returns before the link is up.
    ///
    /// # Errors
    /// When the agent is not enrolled, its audit log cannot be written, or `builtin:ssh` may not run as this account.
    pub fn start(config: Config, parent: &CancellationToken) -> anyhow::Result<Self> {
        let parts = Parts::assemble(&config, IdentityFiles::open(&config.state_dir)?)?;
        let stop = parent.child_token();
        let tasks = TaskGroup::new("agent", &stop);
        // Sessions outlive the link's stop by their grace, so their token is not a child of it.
        let sessions = TaskGroup::new("sessions", &CancellationToken::new());
        let audit = AuditLog::open(&config.audit_file, &parts.principal)
            .with_context(|| format!("cannot open the audit log {}", config.audit_file.display()))?;
        let audit = Arc::new(audit);
        tasks.spawn("audit-sync", audit::keep_synced(Arc::clone(&audit), tasks.clone()));
        let services = Arc::new(Services {
            list: AllowList::new(config.endpoints, parts.own),
            audit,
            resolver: Arc::new(SystemResolver),
            clock: Arc::new(SystemClock),
            builtin: parts.builtin,
            tasks: sessions.clone(),
        });
        let (sender, status) = watch::channel(Status::default());
        tasks.spawn_critical(
            "link",
            link::run(parts.settings, services, sender, tasks.token().clone()),
        );
        Ok(Self {
            status,
            stop,
            tasks,
            sessions,
        })
    }

    /// Waits until callers can reach this agent.
    ///
    /// # Errors
    /// When the agent ends before.
    pub async fn up(&mut self) -> anyhow::Result<Status> {
        let status = self
            .status
            .wait_for(|status| status.up)
            .await
            .context("the agent has ended")?;
        Ok(status.clone())
    }

    /// Waits until the agent ends by itself, which only a fault of its own makes it do.
    pub async fn ended(&self) {
        self.tasks.token().cancelled().await;
    }

    /// Ends sessions, then the link.
    pub async fn stop(self) {
        // Order: sessions first, so that their last bytes and their audit lines find the link alive.
        let leftover = self.sessions.stop(STOP_GRACE).await;
        if !leftover.is_empty() {
            tracing::warn!(sessions = leftover.count(), "sessions cut off");
        }
        self.stop.cancel();
        self.tasks.stop(STOP_GRACE).await;
    }
}

/// Checks what can be checked without running: file, identity, account. Makes nothing.
///
/// # Errors
/// What would keep the agent from starting, in words for the operator.
pub fn check(config: &Config) -> anyhow::Result<()> {
    Parts::assemble(config, IdentityFiles::look(&config.state_dir)?).map(drop)
}

/// What an agent is made of, once everything that can be wrong has been looked at.
struct Parts {
    principal: String,
    own: (Label, Label),
    settings: Settings,
    builtin: Option<Builtin>,
}

impl Parts {
    fn assemble(config: &Config, files: IdentityFiles) -> anyhow::Result<Self> {
        let identity = files.load()?;
        let (own, principal) = (identity.name_and_site()?, identity.enrolled.principal.clone());
        let mut introduction = Introduction {
            hello: hello(),
            offer: offer(&config.endpoints),
            host_key: None,
        };
        let builtin = if config
            .endpoints
            .iter()
            .any(|endpoint| endpoint.upstream == Upstream::BuiltinSsh)
        {
            let pem = secrecy::ExposeSecret::expose_secret(&identity.ssh_host_key);
            let builtin = Builtin::new(pem, config.allow_service_account)?;
            introduction.host_key = Some(builtin.host_key_line());
            Some(builtin)
        } else {
            None
        };
        let gateways = match config.gateways.as_slice() {
            [] => identity.enrolled.gateways.clone(),
            some => some.to_vec(),
        };
        let domain = identity.enrolled.domain.clone();
        let credentials = Arc::new(Held::new(files, identity, gateways.clone())?);
        let seed = rand::random();
        let settings = Settings {
            gateways,
            domain,
            credentials,
            data_saver: config.data_saver,
            introduction,
            seed,
        };
        Ok(Self {
            principal,
            own,
            settings,
            builtin,
        })
    }
}

fn hello() -> Hello {
    Hello {
        version_min: VERSION_MIN,
        version_max: VERSION_MAX,
        requires: Vec::new(),
        boot_id: rand::random::<[u8; 16]>().to_vec(),
        software: concat!("fairlead-agent/", env!("CARGO_PKG_VERSION")).into(),
        reported: enroll::reported(),
        // Filled in for each link: they change while the agent runs.
        roots_sha256: Vec::new(),
    }
}

fn offer(endpoints: &[Endpoint]) -> Offer {
    let offered = endpoints.iter().map(|endpoint| {
        let mode = match endpoint.upstream {
            Upstream::Tcp(_) => Mode::Tunnel,
            Upstream::BuiltinSsh => Mode::Builtin,
        };
        OfferedEndpoint {
            url: endpoint.url.to_string(),
            mode: mode.into(),
            pooling_enabled: endpoint.pooling_enabled,
        }
    });
    Offer {
        endpoints: offered.collect(),
    }
}
