//! Reading agent.yaml again while the agent runs: what takes effect at once, and what waits for a restart.

use std::sync::Arc;

use fairlead_identity::name::Label;
use fairlead_runtime::audit::Record;
use fairlead_runtime::config_file::Mistake;
use fairlead_runtime::tasks::TaskGroup;
use fairlead_wire::control::{Mode, Offer, OfferedEndpoint};
use tokio::sync::watch;

use crate::config::{self, Config, Endpoint, Upstream};
use crate::health;
use crate::service::AllowList;
use crate::session::Services;

/// Most mistakes whose text goes into the audit line; all of them go into the log.
const AUDITED_MISTAKES: usize = 8;

/// What reading the file again has changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reloaded {
    /// SHA-256 of the file that is in force, hex.
    pub digest: String,
    /// Sessions that the file does not permit any more, and that were told to end.
    pub ended: usize,
    /// Keys that were changed and hold after a restart only.
    pub after_restart: Vec<&'static str>,
}

/// The settings that an agent keeps for its life.
#[derive(Debug, PartialEq, Eq)]
struct Fixed {
    gateways: Vec<String>,
    state_dir: std::path::PathBuf,
    audit_file: std::path::PathBuf,
    ways: config::WaysAsWritten,
    data_saver: bool,
    builtin_ssh: config::BuiltinSsh,
    control_socket: config::ControlSocket,
}

impl Fixed {
    fn of(config: &Config) -> Self {
        Self {
            gateways: config.gateways.clone(),
            state_dir: config.state_dir.clone(),
            audit_file: config.audit_file.clone(),
            ways: config.ways_as_written.clone(),
            data_saver: config.data_saver,
            builtin_ssh: config.builtin_ssh.clone(),
            control_socket: config.control_socket.clone(),
        }
    }

    /// The keys that differ.
    fn changed(&self, other: &Self) -> Vec<&'static str> {
        let keys = [
            (self.gateways != other.gateways, "gateway"),
            (self.state_dir != other.state_dir, "state_dir"),
            (self.audit_file != other.audit_file, "audit"),
            (self.ways.choice != other.ways.choice, "transport"),
            (self.ways.proxy != other.ways.proxy, "proxy"),
            (
                self.ways.password_file != other.ways.password_file,
                "proxy_password_file",
            ),
            (self.data_saver != other.data_saver, "data_saver"),
            (self.builtin_ssh != other.builtin_ssh, "builtin_ssh"),
            (self.control_socket != other.control_socket, "control_socket"),
        ];
        keys.into_iter()
            .filter(|(differs, _)| *differs)
            .map(|(_, key)| key)
            .collect()
    }
}

/// Reads the file again when asked.
pub(crate) struct Reloader {
    file: std::path::PathBuf,
    fixed: Fixed,
    own: (Label, Label),
    offers: Arc<watch::Sender<Offer>>,
    after_restart: watch::Sender<Vec<&'static str>>,
}

impl Reloader {
    pub(crate) fn new(config: &Config, own: (Label, Label), offers: Arc<watch::Sender<Offer>>) -> Self {
        Self {
            file: config.file.clone(),
            fixed: Fixed::of(config),
            own,
            offers,
            after_restart: watch::Sender::new(Vec::new()),
        }
    }

    /// The file that is read.
    pub(crate) fn file(&self) -> &std::path::Path {
        &self.file
    }

    /// The keys that were changed in the file and hold after a restart only.
    pub(crate) fn after_restart(&self) -> Vec<&'static str> {
        self.after_restart.borrow().clone()
    }

    /// Reads the file and puts it in force; one with mistakes changes nothing. Either way the customer's audit has a line,
    /// before sessions are told to end.
    ///
    /// # Errors
    /// The mistakes of the file.
    pub(crate) async fn reload(&self, services: &Services, tasks: &TaskGroup) -> Result<Reloaded, Vec<Mistake>> {
        let file = self.file.clone();
        let name = self.file.display().to_string();
        let loaded = tasks.blocking("reload", move || config::load(&file)).await;
        let loaded = loaded.unwrap_or_else(|error| Err(vec![Mistake::about(&name, error.to_string())]));
        let mut record = Record::new("config.reload");
        let mut config = match loaded {
            Ok(config) => config,
            Err(mistakes) => {
                record.decision = Some("deny".into());
                record.reason = Some("mistakes".into());
                record.policy = Some(services.list().digest().to_owned());
                let told: Vec<String> = mistakes
                    .iter()
                    .take(AUDITED_MISTAKES)
                    .map(ToString::to_string)
                    .collect();
                record.fact("mistakes", told);
                services.append(&record).unwrap_or_default();
                return Err(mistakes);
            }
        };
        let mut after_restart = self.fixed.changed(&Fixed::of(&config));
        if services.builtin.is_none() {
            let before = config.endpoints.len();
            config
                .endpoints
                .retain(|endpoint| endpoint.upstream != Upstream::BuiltinSsh);
            if config.endpoints.len() < before {
                // Its server and host certificate are made at the start.
                after_restart.push("builtin:ssh");
            }
        }
        record.decision = Some("allow".into());
        record.policy = Some(config.digest.clone());
        if !after_restart.is_empty() {
            record.fact("after_restart", after_restart.clone());
        }
        if services.append(&record).is_err() {
            return Err(vec![Mistake::about(
                &name,
                "not put in force: the agent cannot write its audit log",
            )]);
        }
        let mut offered = offer(&config.endpoints);
        health::keep_known(&self.offers.borrow(), &mut offered);
        let list = AllowList::new(config.endpoints, Some(self.own.clone()), &config.digest);
        let ended = services.put_in_force(Arc::new(list));
        self.offers.send_replace(offered);
        self.after_restart.send_replace(after_restart.clone());
        Ok(Reloaded {
            digest: config.digest,
            ended,
            after_restart,
        })
    }
}

/// What the gateway is told of the file: the URLs, never what is behind them.
pub(crate) fn offer(endpoints: &[Endpoint]) -> Offer {
    let offered = endpoints.iter().map(|endpoint| {
        let mode = match endpoint.upstream {
            Upstream::Tcp(_) => Mode::Tunnel,
            Upstream::BuiltinSsh => Mode::Builtin,
        };
        OfferedEndpoint {
            url: endpoint.url.to_string(),
            mode: mode.into(),
            pooling_enabled: endpoint.pooling_enabled,
            unwell: false,
            over_websocket: endpoint.over_websocket,
        }
    });
    Offer {
        endpoints: offered.collect(),
    }
}
