//! The Fairlead gateway: agents dial it, callers connect to it, and its access policy decides who reaches what.
//!
//! This file is the composition root: the only one that knows every room. It is long, flat and boring.
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

pub mod access;
pub mod admin;
mod admission;
pub mod authority;
pub mod backup;
pub mod command;
pub mod config;
pub mod endpoint;
pub mod events;
mod fleet;
mod gauges;
pub mod init;
pub mod link;
mod live;
mod one_port;
mod own_certificates;
mod policy_set;
mod registry;
mod server_leaves;
pub mod session;
pub mod store;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::bail;
use fairlead_identity::tls::{CallerChains, FileCertificate, Leaves};
use fairlead_policy::AccessPolicy;
use fairlead_runtime::audit::{self, AuditLog};
use fairlead_runtime::clock::{Clock, SystemClock};
use fairlead_runtime::config_file::Mistake;
use fairlead_runtime::metrics::Metrics;
use fairlead_runtime::stop::CancellationToken;
use fairlead_runtime::tasks::TaskGroup;
use fairlead_wire::refusal::Reason;
use tokio::time::timeout;

use access::{Gate, Meters, Trail};
use admin::{Admin, AuthorityTaken, Desk, JoinFacts, PolicyInForce, PolicyRefused};
use admission::{Admission, Failures};
use authority::{Authorities, AuthorityFiles};
use config::Config;
use endpoint::peer::Peer;
use endpoint::{Door, Handshake, Listener, Parts};
use events::Teller;
use fleet::LinkedFleet;
use link::{Acceptor, Links, ResetKey, Roster};
use live::{AuthorityInForce, LiveGateway};
use own_certificates::{Maker, OwnCertificates};
use policy_set::PolicySet;
use registry::{Conversing, Registry, Uplinking};
use server_leaves::Signer;
use session::{Ceilings, Reviewer, Sessions, Table, WouldCut};
use store::{SqliteStore, StoreHandle};

/// How long each step of the stop may take beyond its purpose.
const STEP_LIMIT: Duration = Duration::from_secs(5);

/// A running gateway.
pub struct Gateway {
    /// The one port, TCP and UDP.
    pub address: SocketAddr,
    /// Where metrics and health are served over TCP, if anywhere.
    pub metrics_address: Option<SocketAddr>,
    /// The ports beside the one port, in the order of the file.
    pub dedicated: Vec<SocketAddr>,
    leaves: Arc<Leaves>,
    clock: Arc<dyn Clock>,
    config: Config,
    live: Arc<LiveGateway>,
    table: Arc<Table>,
    roster: Arc<Roster>,
    store: StoreHandle,
    audit: Arc<AuditLog>,
    quic: quinn::Endpoint,
    /// Stops accepting callers.
    faces_stop: CancellationToken,
    /// Stops accepting agents and ends links.
    links_stop: CancellationToken,
    clients: TaskGroup,
    links: TaskGroup,
    house: TaskGroup,
}

/// Why a gateway does not start, in words for the operator.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its files or its state directory are not what they must be: only a person can put that right.
    #[error("{0:#}")]
    Configuration(anyhow::Error),
    /// Something that it needs is taken or fails; the same files may do later.
    #[error("{0:#}")]
    Failed(anyhow::Error),
}

impl Gateway {
    /// Starts a gateway that was set up by [`init::init`]. Everything that can be wrong is found before a socket is bound.
    ///
    /// # Errors
    /// What keeps it from starting.
    pub async fn start(config: Config, parent: &CancellationToken) -> Result<Self, StartError> {
        Self::start_at(config, Arc::new(SystemClock), parent).await
    }

    /// [`Gateway::start`] with a clock of the caller's, by which certificates are issued and judged.
    ///
    /// # Errors
    /// What keeps it from starting.
    pub async fn start_at(
        config: Config,
        clock: Arc<dyn Clock>,
        parent: &CancellationToken,
    ) -> Result<Self, StartError> {
        // Order: what is read, then what remembers, then who decides, then sockets, then whoever answers on them.
        let authorities = own_authorities(&config, clock.now()).map_err(StartError::Configuration)?;
        callers_certificates(&config, clock.now()).map_err(StartError::Configuration)?;
        Self::raise(config, authorities, clock, parent)
            .await
            .map_err(StartError::Failed)
    }

    async fn raise(
        config: Config,
        authorities: Arc<Authorities>,
        clock: Arc<dyn Clock>,
        parent: &CancellationToken,
    ) -> anyhow::Result<Self> {
        let policy_set = PolicySet::new(config.access.clone(), &config.state_dir);
        let policy = policy_set.first();
        let audit_path = config.state_dir.join("audit.jsonl");
        let audit = Arc::new(AuditLog::open(&audit_path, &config.domain)?);
        let store = SqliteStore::open(&init::state_file(&config.state_dir))?;
        let reset_key = ResetKey::load_or_create(&config.state_dir.join("quic_reset_key"))?;
        let metrics = Arc::new(Metrics::new());
        let meters = Meters::new(&metrics);
        let (ears, sources) = events::feeds(&config.events, &events::Meters::new(&metrics));
        let trail = Trail::new(Arc::clone(&audit), meters.clone()).heard_by(ears);
        access::settle(&trail, &audit_path);
        let gate = Arc::new(Gate::new(policy, trail.clone()));
        let roster = Roster::new(config.limits.links);
        let table = Table::new(ceilings(&config));
        let admission = Admission::new(config.limits.handshakes_in_flight, config.limits.handshakes_per_source);
        gauges::register(&metrics, &roster, &table, &admission);

        let maker = Maker {
            authorities: Arc::clone(&authorities),
            clock: Arc::clone(&clock),
            domain: config.domain.clone(),
            trust_domain: config.trust_domain.clone(),
        };
        let made = maker.make()?;
        let settings = link::settings(Arc::clone(&made.tls))?;
        let (tcp, quic) = one_port::bind(config.listen, &settings, &reset_key).await?;
        let beside = one_port::bind_beside(&config.listeners).await?;
        let own = Arc::new(OwnCertificates::new(maker, made, quic.clone(), settings));
        let address = tcp.local_addr()?;
        let admin = Admin::bind(&admin_settings(&config)).await?;
        let metrics_address = admin.metrics_address();

        let stop = parent.child_token();
        let house = TaskGroup::new("house", &stop);
        let store = StoreHandle::start(store, &house)?;
        let links = TaskGroup::new("links", &CancellationToken::new());
        let clients = TaskGroup::new("clients", &CancellationToken::new());
        house.spawn("audit-sync", audit::keep_synced(Arc::clone(&audit), house.clone()));
        house.spawn_critical("own-certificates", Arc::clone(&own).keep_fresh(house.token().clone()));

        // Told to the end of the house: the last sessions and links are gone by then.
        for source in sources {
            let fleet = Arc::new(LinkedFleet::new(&roster, &store));
            let teller = Teller::new(source, fleet, Arc::clone(&clock));
            house.spawn("events", teller.run(house.token().clone()));
        }

        let registry = Arc::new(Registry {
            store: store.clone(),
            table: Arc::clone(&table),
            authorities: Arc::clone(&authorities),
            trail: trail.clone(),
            clock: Arc::clone(&clock),
            lives: config.certificates,
            domain: config.domain.clone(),
            trust_domain: config.trust_domain.clone(),
            shut_out: {
                let (table, roster) = (Arc::clone(&table), Arc::clone(&roster));
                Arc::new(move |id| live::shut_out(&table, &roster, id))
            },
            announce: announced(&config, address.port()),
        });
        let (faces_stop, links_stop) = (CancellationToken::new(), CancellationToken::new());
        let reviewer = Reviewer::new(
            Arc::clone(&gate),
            Arc::clone(&table),
            registry.clone(),
            Arc::clone(&clock),
            house.clone(),
            meters,
        );
        house.spawn_critical("review", reviewer.clone().run());
        let live = Arc::new(LiveGateway {
            gate: Arc::clone(&gate),
            policy_set,
            reloading: Arc::default(),
            roster: Arc::clone(&roster),
            table: Arc::clone(&table),
            reviewer,
            metrics,
            authority: AuthorityInForce {
                files: AuthorityFiles::open(&config.state_dir)?,
                authorities: Arc::clone(&authorities),
                own: Arc::clone(&own),
                clock: Arc::clone(&clock),
            },
            house: house.clone(),
            stopping: faces_stop.clone(),
        });
        let join = JoinFacts {
            addresses: announced(&config, address.port()),
            domain: config.domain.clone(),
            trust_domain: config.trust_domain.clone(),
            ca_sha256: authorities.pin(),
        };
        let desk = Desk {
            store: store.clone(),
            live: live.clone(),
            join,
            clock: Arc::clone(&clock),
        };
        admin.start(desk, &house);
        let sessions = Sessions::new(Arc::clone(&roster), Arc::clone(&table), trail);
        let door = Door::new(
            Arc::clone(&gate),
            registry.clone(),
            registry.clone(),
            sessions,
            Arc::clone(&clock),
            config.domain.clone(),
        );
        let door = Arc::new(door);
        let peer = Peer::new(Arc::clone(&door), registry.clone(), clients.clone(), faces_stop.clone());
        let acceptor = Acceptor {
            authority: authorities.announced(),
            admission: Arc::clone(&admission),
            roster: Arc::clone(&roster),
            registrar: registry.clone(),
            callers: Arc::new(Conversing(peer)),
        };
        let uplinks = Links::new(acceptor, own.tcp_tls(), links.clone(), links_stop.clone());
        let accepting = link::serve(quic.clone(), Arc::clone(&uplinks));
        spawn_for_life(&house, "accept-links", &links_stop, accepting);

        let signer = Signer::new(Arc::clone(&authorities), &config.trust_domain, Arc::clone(&clock))?;
        let leaves = Arc::new(Leaves::new(&config.domain, Box::new(signer.clone()))?);
        leaves.replace_files(callers_certificates(&config, clock.now())?);
        let chains: Arc<dyn CallerChains> = Arc::new(signer.clone());
        let handshake = Handshake::new(&config.domain, Arc::clone(&door), &chains, &leaves, Arc::clone(&clock))?;
        let parts = Parts {
            door: Arc::clone(&door),
            callers: registry.clone(),
            domain: config.domain.clone(),
            failures: Failures::new(config.limits.login_failures_per_source),
            ssh: own.ssh(),
            tls: Arc::new(handshake),
            uplinks: Arc::new(Uplinking(uplinks)),
            ca_pem: Arc::new(move || signer.ca_pem()),
            tasks: clients.clone(),
        };
        let listener = Listener::new(tcp, &parts, admission)?;
        let mut dedicated = Vec::new();
        for (own, socket) in config.listeners.iter().zip(beside) {
            dedicated.push(socket.local_addr()?);
            let accepting = listener.dedicated(socket, own.protocol);
            let accepting = endpoint::serve(accepting, clients.clone(), faces_stop.clone());
            spawn_for_life(&house, "accept-dedicated", &faces_stop, accepting);
        }
        let accepting = endpoint::serve(listener, clients.clone(), faces_stop.clone());
        spawn_for_life(&house, "accept-callers", &faces_stop, accepting);
        tracing::info!(%address, domain = config.domain, "gateway is up");
        Ok(Self {
            address,
            metrics_address,
            dedicated,
            leaves,
            clock,
            config,
            live,
            table,
            roster,
            store,
            audit,
            quic,
            faces_stop,
            links_stop,
            clients,
            links,
            house,
        })
    }

    /// The settings in force.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Who is online.
    pub fn roster(&self) -> &Arc<Roster> {
        &self.roster
    }

    /// The live sessions.
    pub fn sessions(&self) -> &Arc<Table> {
        &self.table
    }

    /// Reads the access policy again; a set with mistakes changes nothing.
    ///
    /// # Errors
    /// The mistakes, in words with places.
    pub async fn reload_policy(&self) -> Result<PolicyInForce, PolicyRefused> {
        self.live.reload_policy().await
    }

    /// Which live sessions a policy would cut if it were in force now, and by what each would lose its answer. Nothing is
    /// cut.
    ///
    /// # Errors
    /// In words, when the store does not answer or the gateway is stopping.
    pub async fn would_cut(&self, policy: &Arc<AccessPolicy>) -> Result<Vec<WouldCut>, String> {
        self.live.would_cut(policy).await
    }

    /// Takes up the authority as the files have it, after `fairlead-gateway ca issue` or `rotate`; nothing is cut.
    ///
    /// # Errors
    /// Why the one before stays in force, in words.
    pub async fn reload_authority(&self) -> Result<AuthorityTaken, String> {
        self.live.take_up_authority().await
    }

    /// Reads the files of `tls.certificates` again; with a mistake in one of them all stay as they were. Sessions go on with
    /// what they were shown.
    ///
    /// # Errors
    /// The mistakes, each with its place in gateway.yaml.
    pub fn reload_certificates(&self) -> Result<usize, Vec<Mistake>> {
        let found = config::read_certificates(&self.config.tls_files, &self.config.domain, self.clock.now());
        let mistakes: Vec<Mistake> = found.mistakes.into_iter().chain(found.expired).collect();
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
        let count = found.usable.len();
        self.leaves.replace_files(found.usable);
        Ok(count)
    }

    /// Waits until the gateway ends by itself, which only a fault of its own makes it do.
    pub async fn ended(&self) {
        self.house.token().cancelled().await;
    }

    /// Stops in order; sessions may go on for `grace`.
    pub async fn stop(self, grace: Duration) {
        // 1. Nobody new: no connections, and no sessions over those that are there. Agents are told, so that they know what
        //    the end of their link will mean.
        self.table.close(Reason::GatewayStopping);
        self.roster.drain(grace);
        self.faces_stop.cancel();
        // 2. Sessions finish, until grace ends; then their permits lapse and the callers are told.
        if timeout(grace, self.table.emptied()).await.is_err() {
            tracing::info!(sessions = self.table.len(), "ending sessions that outlast the drain");
        }
        self.table.end_all(Reason::GatewayStopping);
        // Whoever waits for an agent's answer is in the table too, and is told by the lapse.
        let _still_there = timeout(STEP_LIMIT, self.table.emptied()).await;
        self.clients.stop(STEP_LIMIT).await;
        // 3. Links close; agents dial again, each at its own moment.
        self.links_stop.cancel();
        self.links.stop(STEP_LIMIT).await;
        self.quic.close(
            quinn::VarInt::from_u32(Reason::GatewayStopping.code()),
            b"the gateway stops",
        );
        let _lingering = timeout(STEP_LIMIT, self.quic.wait_idle()).await;
        // 4. What must be kept is kept; the store's thread belongs to the house.
        if let Err(error) = self.store.close().await {
            tracing::error!(%error, "the store did not close");
        }
        self.house.stop(STEP_LIMIT).await;
        if let Err(error) = self.audit.sync() {
            tracing::error!(%error, "the audit log could not be synced");
        }
    }
}

/// Checks what can be checked without running: state, keys, policy. Writes nothing.
///
/// # Errors
/// Every mistake found, in words.
pub fn check(config: &Config) -> Result<(), Vec<String>> {
    let mut mistakes = Vec::new();
    let state = AuthorityFiles::look(&config.state_dir).and_then(|files| files.load(SystemTime::now()));
    mistakes.extend(state.err().map(|error| format!("{error:#}")));
    let files = config::read_certificates(&config.tls_files, &config.domain, SystemTime::now());
    let files = files.mistakes.into_iter().chain(files.expired);
    mistakes.extend(files.map(|mistake| mistake.to_string()));
    let policy = PolicySet::new(config.access.clone(), &config.state_dir);
    mistakes.extend(policy.compile().err().unwrap_or_default());
    if mistakes.is_empty() { Ok(()) } else { Err(mistakes) }
}

/// The operator's certificates for callers. One that has ended does not keep the gateway from starting: agents and SSH
/// need none of them.
fn callers_certificates(config: &Config, now: SystemTime) -> anyhow::Result<Vec<FileCertificate>> {
    let found = config::read_certificates(&config.tls_files, &config.domain, now);
    let mistakes: Vec<String> = found.mistakes.iter().map(ToString::to_string).collect();
    if !mistakes.is_empty() {
        bail!("{}", mistakes.join("\n"));
    }
    found.expired.iter().for_each(|mistake| tracing::error!("{mistake}"));
    Ok(found.usable)
}

/// Keys and certificates, which must be this trust domain's.
fn own_authorities(config: &Config, now: SystemTime) -> anyhow::Result<Arc<Authorities>> {
    let authorities = AuthorityFiles::open(&config.state_dir)?.load(now)?;
    let trust_domain = authorities.x509().issuer.trust_domain().to_owned();
    if trust_domain != config.trust_domain {
        bail!(
            "trust_domain is {}, but this gateway was set up as {}; it cannot change",
            config.trust_domain,
            trust_domain
        );
    }
    Ok(Arc::new(authorities))
}

/// Spawns what must not end before `told`; an earlier end, as by a panic or a socket that is gone, ends the gateway.
fn spawn_for_life(
    house: &TaskGroup,
    name: &'static str,
    told: &CancellationToken,
    work: impl Future<Output = ()> + Send + 'static,
) {
    let (life, told) = (house.token().clone(), told.clone());
    house.spawn_critical(name, async move {
        work.await;
        if told.is_cancelled() {
            // The house ends later, and not because of this.
            life.cancelled().await;
        }
    });
}

fn admin_settings(config: &Config) -> admin::Settings {
    admin::Settings {
        socket: config.admin_socket.clone(),
        metrics_listen: config.metrics_listen,
    }
}

fn ceilings(config: &Config) -> Ceilings {
    let limits = &config.limits;
    Ceilings {
        total: limits.sessions,
        per_user: limits.sessions_per_caller.user,
        per_workload: limits.sessions_per_caller.workload,
    }
}

fn announced(config: &Config, port: u16) -> Vec<String> {
    // Port 0 stands for the port that was bound.
    let with_port = |address: &String| match address.strip_suffix(":0") {
        Some(host) => format!("{host}:{port}"),
        None => address.clone(),
    };
    config.announce.iter().map(with_port).collect()
}

#[cfg(test)]
mod tests;
