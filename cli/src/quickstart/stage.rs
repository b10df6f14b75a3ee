//! Sets the stage: the same steps that an operator, a device and two people would take.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, bail};
use fairlead_agent::Agent;
use fairlead_gateway::admin::api::{CreateToken, TokenCreated};
use fairlead_gateway::{Gateway, init};
use fairlead_identity::join::JoinString;
use fairlead_runtime::config_file::{private_dir, write_private};
use fairlead_runtime::stop::CancellationToken;
use hyper::Method;
use tokio::time::timeout;

use crate::admin_client::{AdminClient, Administration};
use crate::command::Context;
use crate::login;
use crate::profile::Profile;

/// The device's name for callers.
pub(super) const DEVICE: &str = "pump-7.default.internal";
const DOMAIN: &str = "gw.quickstart.test";
/// The port of the documentation, then its neighbours.
const PORTS: std::ops::Range<u16> = 8443..8543;
/// The link must be up this soon; on loopback it takes milliseconds.
const LINK_LIMIT: Duration = Duration::from_secs(20);

/// Everything that runs, and the directory with its state.
pub(super) struct Stage {
    gateway: Gateway,
    agent: Agent,
    account: String,
    // Last, so that it is removed after everything that writes into it has ended.
    dir: tempfile::TempDir,
}

impl Stage {
    /// Sets everything up, saying each step.
    pub(super) async fn set(context: &Context) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("fairlead-quickstart-")
            .tempdir()
            .context("cannot make a directory for throw-away state")?;
        let at = |name: &str| dir.path().join(name);
        private_dir(&at("gateway"))?;
        private_dir(&at("agent"))?;
        private_dir(&at("run"))?;
        let port = free_port()?;
        let say = |text: String| context.note(&text).map_err(|error| anyhow::anyhow!("{error}"));

        let started = std::time::Instant::now();
        write(&at("gateway/access.yaml"), &access_policy())?;
        write(&at("gateway/gateway.yaml"), &gateway_config(dir.path(), port))?;
        let report = init::init(&at("gateway/gateway.yaml"), None, SystemTime::now())?;
        say(format!(
            "gateway  its own CA and keys in {}",
            at("gateway/state").display()
        ))?;
        let gateway = Gateway::start(report.config, &CancellationToken::new()).await?;
        say(format!(
            "gateway  listens on {} (UDP for agents, TCP for callers)",
            gateway.address
        ))?;

        let client = AdminClient::new(
            &Administration {
                admin_socket: Some(at("run/admin.sock")),
                json: false,
            },
            context,
        );
        let join = join_string(
            &client,
            &CreateToken {
                agent: Some("pump-7".into()),
                ..CreateToken::default()
            },
        )
        .await?;
        write(&at("agent/agent.yaml"), &agent_config(dir.path()))?;
        let config = fairlead_agent::config::load(&at("agent/agent.yaml"))
            .map_err(|mistakes| anyhow::anyhow!("{mistakes:?}"))?;
        let enrolled = fairlead_agent::enroll::enroll_agent(&join, &config.state_dir).await?;
        say(format!("agent    enrolled by a join string as {}", enrolled.principal))?;
        let mut agent = Agent::start(config, &CancellationToken::new()).await?;
        let status = timeout(LINK_LIMIT, agent.up())
            .await
            .context("the agent's link did not come up")??;
        say(format!(
            "agent    linked over QUIC; offers {}",
            status.accepted.join(", ")
        ))?;

        for (name, group) in [("alice", "field"), ("mallory", "strangers")] {
            let groups = std::collections::BTreeSet::from([group.to_owned()]);
            let join = join_string(
                &client,
                &CreateToken {
                    user: Some(name.into()),
                    groups,
                    ..CreateToken::default()
                },
            )
            .await?;
            login::with_join(&join, &Profile::at(at(name)))
                .await
                .map_err(|error| anyhow::anyhow!("{error}"))?;
            say(format!(
                "{name:<8} logged in (group {group}): X.509 and SSH certificate for 8 hours"
            ))?;
        }
        say(format!("ready after {:.1} s", started.elapsed().as_secs_f32()))?;
        let account = fairlead_agent::sshd::Account::current()?.name;
        Ok(Self {
            gateway,
            agent,
            account,
            dir,
        })
    }

    /// Ends everything in order and removes the directory.
    pub(super) async fn strike(self) {
        self.agent.stop().await;
        self.gateway.stop(Duration::ZERO).await;
        drop(self.dir);
    }

    /// The ssh configuration of one of the people.
    pub(super) fn ssh_config(&self, name: &str) -> PathBuf {
        self.path(name).join("ssh_config")
    }

    /// The account that sessions on the device run as.
    pub(super) fn account(&self) -> &str {
        &self.account
    }

    /// A path below the throw-away directory.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

async fn join_string(client: &AdminClient, request: &CreateToken) -> anyhow::Result<JoinString> {
    let created: TokenCreated = client
        .send(Method::POST, "/v1/tokens", request)
        .await
        .map_err(|error| anyhow::anyhow!("{error}"))?;
    Ok(JoinString::parse(&created.join)?)
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    Ok(write_private(path, text.as_bytes(), 0o600)?)
}

/// The first port that is free for TCP; the gateway checks UDP when it binds.
fn free_port() -> anyhow::Result<u16> {
    let free = |port: &u16| {
        let udp = std::net::UdpSocket::bind(("127.0.0.1", *port));
        TcpListener::bind(("127.0.0.1", *port)).is_ok() && udp.is_ok()
    };
    let Some(port) = PORTS.into_iter().find(free) else {
        bail!("no port from {} to {} is free on 127.0.0.1", PORTS.start, PORTS.end - 1);
    };
    Ok(port)
}

fn gateway_config(dir: &Path, port: u16) -> String {
    let dir = dir.display();
    format!(
        "version: 1\ndomain: {DOMAIN}\nlisten: \"127.0.0.1:{port}\"\nannounce: [\"127.0.0.1:{port}\"]\nstate_dir: \"{dir}/gateway/state\"\naccess: [\"{dir}/gateway/access.yaml\"]\nadmin: {{ socket: \"{dir}/run/admin.sock\" }}\n"
    )
}

fn access_policy() -> String {
    "version: 1
rules:
  - name: field technicians
    sites: ['*']
    expressions: [\"'field' in caller.groups\", \"endpoint.protocol == 'ssh'\"]
    effect: allow
"
    .into()
}

fn agent_config(dir: &Path) -> String {
    let dir = dir.display();
    // The person who typed `quickstart` is the device's owner, so their account is meant, root included.
    format!(
        "version: 1\nstate_dir: \"{dir}/agent/state\"\nendpoints:\n  - url: ssh://{DEVICE}\n    upstream: {{ url: \"builtin:ssh\" }}\ncontrol_socket: \"{dir}/run/agent.sock\"\nbuiltin_ssh: {{ allow_service_account: true }}\n"
    )
}
