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
pub mod command;
pub mod config;
pub mod console;
pub mod control;
#[cfg(feature = "builtin-ssh")]
mod counted;
mod credentials;
pub mod doctor;
pub mod enroll;
pub mod first_run;
mod health;
#[cfg(feature = "builtin-ssh")]
mod host_keys;
pub mod identity_files;
mod inject;
pub mod joining;
pub mod link;
pub mod machine;
pub mod pause;
mod reload;
pub mod service;
mod session;
#[cfg(feature = "builtin-ssh")]
pub mod sshd;
mod standing;
mod statement_log;

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use anyhow::Context;
use fairlead_identity::chain;
use fairlead_identity::name::Label;
use fairlead_runtime::audit::{self, AuditLog, Record};
use fairlead_runtime::clock::{Clock, FlooredClock, SystemClock};
use fairlead_runtime::config_file::Mistake;
use fairlead_runtime::socket_file::SocketFile;
use fairlead_runtime::stop::CancellationToken;
use fairlead_runtime::tasks::TaskGroup;
use fairlead_wire::control::{Hello, HostKeyReport, Offer};
use fairlead_wire::version::{VERSION_MAX, VERSION_MIN};
use tokio::sync::watch;

use builtin::Builtin;
use config::{Config, ControlSocket, Upstream};
use control::Desk;
use credentials::Held;
use identity_files::IdentityFiles;
use link::{AddressBook, Introduction, Settings, Status};
use pause::Pause;
use reload::{Reloader, offer};
use service::{AllowList, Neighbourhood, SystemResolver};
use session::{Crowd, Services, Table};
use statement_log::StatementLogs;

pub use reload::Reloaded;

/// How long sessions may go on after the agent was told to stop. Short: an agent is often restarted from inside one of its
/// own sessions, which waits for that restart.
const STOP_GRACE: Duration = Duration::from_secs(10);
/// How often it is looked whether the last session has ended.
const LOOK: Duration = Duration::from_millis(50);

/// A running agent.
pub struct Agent {
    /// Where the link stands.
    pub status: watch::Receiver<Status>,
    stop: CancellationToken,
    tasks: TaskGroup,
    sessions: TaskGroup,
    services: Arc<Services>,
    reloader: Arc<Reloader>,
    renamed: CancellationToken,
}

impl Agent {
    /// Starts an enrolled agent: audit first, then the control socket, then the link. Returns before the link is up.
    ///
    /// # Errors
    /// When the agent is not enrolled, its audit log cannot be written, `builtin:ssh` may not run as this account, or the
    /// control socket that its file names cannot be had.
    pub async fn start(config: Config, parent: &CancellationToken) -> anyhow::Result<Self> {
        Self::start_at(config, Arc::new(SystemClock), parent).await
    }

    /// [`Agent::start`] with a clock of the caller's, by which certificates are judged.
    ///
    /// # Errors
    /// As [`Agent::start`].
    pub async fn start_at(config: Config, clock: Arc<dyn Clock>, parent: &CancellationToken) -> anyhow::Result<Self> {
        let files = IdentityFiles::open(&config.state_dir)?;
        let parts = Parts::assemble(&config, files, Arc::clone(&clock))?;
        let offers = Arc::new(parts.offers);
        let reloader = Arc::new(Reloader::new(&config, parts.own.clone(), Arc::clone(&offers)));
        let stop = parent.child_token();
        let tasks = TaskGroup::new("agent", &stop);
        // Sessions outlive the link's stop by their grace, so their token is not a child of it.
        let sessions = TaskGroup::new("sessions", &CancellationToken::new());
        let audit = AuditLog::open(&config.audit_file, &parts.principal)
            .with_context(|| format!("cannot open the audit log {}", config.audit_file.display()))?;
        let audit = Arc::new(audit);
        let mut record = Record::new("agent.start");
        record.policy = Some(config.digest.clone());
        audit.append(&record).context("cannot write the audit log")?;
        tasks.spawn("audit-sync", audit::keep_synced(Arc::clone(&audit), tasks.clone()));
        let services = Arc::new(Services {
            list: Mutex::new(Arc::new(AllowList::new(
                config.endpoints,
                Some(parts.own),
                &config.digest,
            ))),
            audit,
            resolver: Arc::new(SystemResolver::new(tasks.clone())),
            near: Neighbourhood::default(),
            clock: Arc::new(FlooredClock::new(clock, parts.begins)),
            builtin: parts.builtin,
            live: Arc::new(Table::default()),
            pause: Pause::read(&config.state_dir),
            crowd: Crowd::new(),
            ssh_used: Arc::default(),
            statement_logs: StatementLogs::default(),
            stopping: CancellationToken::new(),
            tasks: sessions.clone(),
        });
        #[cfg(feature = "builtin-ssh")]
        let (told_to_end, watching) = (
            tasks.token().clone(),
            host_keys::watch(
                Arc::clone(&services),
                Arc::clone(&services.ssh_used),
                parts.settings.offers.clone(),
                parts.host_keys,
            ),
        );
        #[cfg(feature = "builtin-ssh")]
        tasks.spawn("host-keys", async move {
            tokio::select! {
                () = told_to_end.cancelled() => {}
                () = watching => {}
            }
        });
        tasks.spawn("health", {
            let watching = health::watch(Arc::clone(&services), offers);
            let told_to_end = tasks.token().clone();
            async move {
                let _told = told_to_end.run_until_cancelled(watching).await;
            }
        });
        tasks.spawn("watch-time", session::watch_time(Arc::clone(&services), stop.clone()));
        let (sender, status) = watch::channel(Status::default());
        if let Some(socket) = control_socket(&config.control_socket).await? {
            let desk = Desk {
                services: Arc::clone(&services),
                reloader: Arc::clone(&reloader),
                link: status.clone(),
                principal: parts.principal,
                tasks: tasks.clone(),
            };
            tasks.spawn("control-socket", control::serve(socket, Arc::new(desk), tasks.clone()));
        }
        tasks.spawn("standing", standing::keep_told(status.clone()));
        tasks.spawn("watch-network", {
            let watching = link::watch_network(parts.network);
            let told_to_end = tasks.token().clone();
            async move {
                let _told = told_to_end.run_until_cancelled(watching).await;
            }
        });
        tasks.spawn_critical(
            "link",
            link::run(
                parts.settings,
                Arc::clone(&services) as _,
                sender,
                tasks.token().clone(),
            ),
        );
        Ok(Self {
            status,
            stop,
            tasks,
            sessions,
            services,
            reloader,
            renamed: parts.renamed,
        })
    }

    /// Reads the agent's file again. What it lists holds at once, for live sessions too; one with mistakes changes nothing.
    ///
    /// # Errors
    /// The mistakes of the file.
    pub async fn reload(&self) -> Result<Reloaded, Vec<Mistake>> {
        if let Err(error) = self.services.audit.reopen() {
            tracing::error!(%error, "the audit log goes on in its old file");
        }
        self.services.statement_logs.reopen();
        self.reloader.reload(&self.services, &self.tasks).await
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

    /// Waits until the gateway has given this agent another name, which is kept on disk and holds everywhere once the agent
    /// is started again.
    pub async fn renamed(&self) {
        self.renamed.cancelled().await;
    }

    /// Waits until the agent ends by itself, which only a fault of its own makes it do.
    pub async fn ended(&self) {
        self.tasks.token().cancelled().await;
    }

    /// Takes no further sessions, lets those that run finish for 10 s, ends the rest as `agent-stopping`, then the link.
    pub async fn stop(self) {
        // Order: sessions first, so that their last bytes and their audit lines find the link alive.
        self.services.stopping.cancel();
        let finished = async {
            while !self.sessions.is_empty() {
                tokio::time::sleep(LOOK).await;
            }
        };
        if tokio::time::timeout(STOP_GRACE, finished).await.is_err() {
            tracing::info!(sessions = self.sessions.len(), "ending sessions that outlast the stop");
        }
        let leftover = self.sessions.stop(STOP_GRACE).await;
        if !leftover.is_empty() {
            tracing::warn!(sessions = leftover.count(), "sessions cut off");
        }
        // The end is no act that must not happen unlogged.
        self.services.append(&Record::new("agent.stop")).unwrap_or_default();
        self.stop.cancel();
        self.tasks.stop(STOP_GRACE).await;
    }
}

/// The socket, or none where the usual one cannot be had and the file asks for no other.
async fn control_socket(wanted: &ControlSocket) -> anyhow::Result<Option<SocketFile>> {
    match SocketFile::take(&wanted.path).await {
        Ok(socket) => Ok(Some(socket)),
        Err(error) if wanted.required => Err(error).context("`control_socket` of the file cannot be had"),
        Err(error) => {
            tracing::warn!(%error, "no control socket: `pause`, `cut` and `sessions` will not reach this agent");
            Ok(None)
        }
    }
}

/// Checks what can be checked without running: file, identity, account. Makes nothing.
///
/// # Errors
/// What would keep the agent from starting, in words for the operator.
pub fn check(config: &Config) -> anyhow::Result<()> {
    Parts::assemble(config, IdentityFiles::look(&config.state_dir)?, Arc::new(SystemClock)).map(drop)
}

/// What an agent is made of, once everything that can be wrong has been looked at.
struct Parts {
    principal: String,
    own: (Label, Label),
    settings: Settings,
    offers: watch::Sender<Offer>,
    /// For what is read of the host keys of upstreams; unused where this build does not read them.
    #[cfg_attr(
        not(feature = "builtin-ssh"),
        expect(dead_code, reason = "kept so that the receiver stays open")
    )]
    host_keys: watch::Sender<Vec<HostKeyReport>>,
    /// For the changes of this machine's network.
    network: watch::Sender<u64>,
    builtin: Option<Builtin>,
    /// When the certificate on disk began: the time is not before that.
    begins: SystemTime,
    renamed: CancellationToken,
}

impl Parts {
    fn assemble(config: &Config, files: IdentityFiles, clock: Arc<dyn Clock>) -> anyhow::Result<Self> {
        let identity = files.load()?;
        let (begins, _) = chain::validity(&identity.chain).context("the certificate cannot be read")?;
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
            let builtin = Builtin::new(pem, &config.builtin_ssh)?;
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
        let credentials = Arc::new(Held::new(
            files,
            identity,
            gateways.clone(),
            config.ways.clone(),
            clock,
        )?);
        let renamed = credentials.renamed();
        let (offers, offered) = watch::channel(introduction.offer.clone());
        let (host_keys, keys_read) = watch::channel(Vec::new());
        let (network, network_changes) = watch::channel(0);
        let seed = rand::random();
        let settings = Settings {
            gateways,
            domain,
            credentials,
            ways: config.ways.clone(),
            data_saver: config.data_saver,
            introduction,
            offers: offered,
            host_keys: keys_read,
            network: network_changes,
            book: Arc::new(AddressBook::read(config.state_dir.join("gateway_addresses"))),
            seed,
        };
        Ok(Self {
            principal,
            own,
            settings,
            offers,
            host_keys,
            network,
            builtin,
            begins,
            renamed,
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
        link: 0,
    }
}
