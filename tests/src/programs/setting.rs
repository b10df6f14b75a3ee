//! What an operator, a device and a person each have: a directory with their files, and the commands they type.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use fairlead_runtime::config_file::{private_dir, write_private};
use tempfile::TempDir;
use tokio::process::Command;

use super::{Daemon, PATIENCE, command, ended_with, free_port, http_get, until};
use crate::clients::{self, Finished, stock};

/// The gateways' domain.
pub const DOMAIN: &str = "gw.process.test";

/// The access policy: technicians may use everything, everybody else nothing.
pub const ACCESS: &str = "version: 1
rules:
  - { name: field technicians, sites: ['*'], effect: allow, expressions: [\"'field' in caller.groups\"] }
";

/// Between two processes on one port, somebody's outgoing socket may have the port for a moment.
const START_TRIES: usize = 5;

/// A throw-away directory (0700) for a test; removed when dropped.
pub fn throw_away() -> TempDir {
    tempfile::Builder::new()
        .prefix("fairlead-process-")
        .tempdir()
        .expect("a throw-away directory")
}

/// The account that the tests run as; sessions of `builtin:ssh` run as the same.
pub fn account() -> String {
    let user = nix::unistd::User::from_uid(nix::unistd::geteuid()).expect("the user database is read");
    user.expect("this account has a name").name
}

fn write(path: &Path, text: &str) {
    write_private(path, text.as_bytes(), 0o600).expect("a file is written");
}

/// A gateway's directory: gateway.yaml, access.yaml, state, admin.sock, its log.
#[derive(Clone, Debug)]
pub struct GatewayHome {
    dir: PathBuf,
    /// The one port, on 127.0.0.1.
    pub port: u16,
    /// Where metrics and health are served, on 127.0.0.1.
    pub metrics: u16,
    /// What join strings name; the one port unless changed before [`Self::write`].
    pub announce: String,
    /// `limits` in gateway.yaml, unless changed before [`Self::write`]: all of a test comes from one address, so its
    /// refused logins are no reason to shut it out.
    pub limits: String,
    /// Further lines of gateway.yaml; none unless changed before [`Self::write`].
    pub more: String,
    /// The address the one port is on; 127.0.0.1 unless changed before [`Self::write`].
    pub listen: Ipv4Addr,
}

impl GatewayHome {
    /// A directory with the files an operator writes, and free ports; `init` was not run.
    pub fn plan(dir: &Path) -> Self {
        private_dir(dir).expect("a private directory");
        let port = free_port();
        let home = Self {
            dir: dir.to_owned(),
            port,
            metrics: free_port(),
            announce: format!("127.0.0.1:{port}"),
            limits: "login_failures_per_source: 0".to_owned(),
            more: String::new(),
            listen: Ipv4Addr::LOCALHOST,
        };
        home.write();
        home
    }

    /// As [`Self::plan`], then `fairlead-gateway init`.
    pub async fn set_up(dir: &Path) -> Self {
        let home = Self::plan(dir);
        home.init().await.succeeded();
        home
    }

    /// As [`Self::set_up`], reached by every place of the lab of networks; only inside [`crate::netns::alone`].
    pub async fn in_the_middle(dir: &Path) -> Self {
        let mut home = Self::plan(dir);
        home.listen = Ipv4Addr::UNSPECIFIED;
        home.announce = format!("{}:{}", crate::netns::MIDDLE, home.port);
        home.write();
        home.init().await.succeeded();
        home
    }

    /// Writes both files anew.
    pub fn write(&self) {
        let (dir, port, metrics, announce) = (self.dir.display(), self.port, self.metrics, &self.announce);
        let (listen, limits) = (self.listen, &self.limits);
        write(&self.dir.join("access.yaml"), ACCESS);
        write(
            &self.config(),
            &format!(
                "version: 1\ndomain: {DOMAIN}\nlisten: \"{listen}:{port}\"\nannounce: [\"{announce}\"]\nstate_dir: \"{dir}/state\"\naccess: [\"{dir}/access.yaml\"]\nadmin: {{ socket: \"{dir}/admin.sock\", metrics_listen: \"127.0.0.1:{metrics}\" }}\nlimits: {{ {limits} }}\n{}",
                self.more
            ),
        );
    }

    /// gateway.yaml.
    pub fn config(&self) -> PathBuf {
        self.path("gateway.yaml")
    }

    /// A file of the directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The lines of the audit log that have each of these texts.
    pub fn audit(&self, texts: &[&str]) -> Vec<String> {
        lines_with(&self.path("state/audit.jsonl"), texts)
    }

    /// `fairlead-gateway SUBCOMMAND --config gateway.yaml`.
    pub fn command(&self, subcommand: &str) -> Command {
        let mut command = command("fairlead-gateway", [subcommand, "--config"]);
        command.arg(self.config());
        command
    }

    /// Runs `fairlead-gateway init`.
    pub async fn init(&self) -> Finished {
        clients::run(self.command("init")).await
    }

    /// Starts it and waits until it is ready. A port that is taken for a moment is tried again.
    pub async fn start(&self) -> Daemon {
        self.start_as(|| self.command("run")).await
    }

    /// As [`Self::start`], with a command of the test's own.
    pub async fn start_as(&self, command: impl Fn() -> Command) -> Daemon {
        for _ in 0..START_TRIES {
            let mut gateway = Daemon::start(command(), &self.path("gateway.log"));
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.metrics));
            let ready = until("the gateway is ready", PATIENCE, async || {
                if !gateway.is_alive() {
                    return Some(false);
                }
                http_get(address, "/healthz").await.map(|_| true)
            });
            if ready.await {
                return gateway;
            }
            assert!(
                gateway.log().contains("cannot listen on"),
                "the gateway ended: {}",
                gateway.log()
            );
        }
        panic!("the gateway's port stays taken");
    }

    /// The value of a metric, given with its labels as it is printed.
    pub async fn metric(&self, name: &str) -> Option<u64> {
        let (_, text) = http_get(SocketAddr::from((Ipv4Addr::LOCALHOST, self.metrics)), "/metrics").await?;
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
        value.trim().parse().ok()
    }

    /// Waits until so many agents are linked, over whichever transport.
    pub async fn linked(&self, count: u64) {
        until("agents linked", PATIENCE, async || {
            (self.agents_linked().await == count).then_some(())
        })
        .await;
    }

    /// How many agents are linked now.
    pub async fn agents_linked(&self) -> u64 {
        let mut linked = 0;
        for transport in ["quic", "websocket"] {
            let name = format!("fairlead_agents_connected{{transport=\"{transport}\"}}");
            linked += self.metric(&name).await.unwrap_or(0);
        }
        linked
    }

    /// Runs `fairlead` as the operator of this gateway.
    pub async fn fairlead(&self, arguments: &[&str]) -> Finished {
        let mut command = command("fairlead", arguments);
        command.env("FAIRLEAD_ADMIN_SOCKET", self.path("admin.sock"));
        clients::run(command).await
    }

    /// What `fairlead … --json` says.
    pub async fn json(&self, arguments: &[&str]) -> serde_json::Value {
        let finished = self.fairlead(&[arguments, &["--json"]].concat()).await.succeeded();
        serde_json::from_slice(&finished.stdout).expect("JSON")
    }

    /// A join string by `fairlead token create`, in a file that only its owner reads.
    pub async fn token(&self, file: &Path, arguments: &[&str]) -> String {
        let made = self
            .fairlead(&[&["token", "create"], arguments].concat())
            .await
            .succeeded();
        let join = made.text().trim().to_owned();
        write(file, &join);
        join
    }

    /// Enrols an agent of the site `default` with a join string of its own; not started.
    pub async fn agent(&self, dir: &Path, name: &str, endpoints: &str) -> AgentHome {
        let agent = AgentHome::plan(dir, endpoints);
        let file = agent.path("join.txt");
        self.token(&file, &["--agent", name]).await;
        ended_with(&agent.enroll(&file).await, 0, &["enrolled as"]);
        agent
    }

    /// Lets a user in by join string and `fairlead login`.
    pub async fn user(&self, dir: &Path, name: &str, group: &str) -> UserHome {
        let user = UserHome { dir: dir.to_owned() };
        let file = dir.with_extension("join");
        self.token(&file, &["--user", name, "--group", group]).await;
        ended_with(&user.login(&file).await, 0, &["logged in as"]);
        user
    }
}

/// An agent's directory: agent.yaml, state, its log.
#[derive(Clone, Debug)]
pub struct AgentHome {
    dir: PathBuf,
}

impl AgentHome {
    /// An endpoint of the agent's own SSH server.
    pub fn builtin(name: &str) -> String {
        format!("  - {{ url: ssh://{name}.default.internal, upstream: {{ url: \"builtin:ssh\" }} }}\n")
    }

    /// An endpoint of a TCP service on 127.0.0.1; both sides have the same port.
    pub fn tcp(name: &str, port: u16) -> String {
        format!(
            "  - {{ url: \"tcp://{name}.default.internal:{port}\", upstream: {{ url: \"tcp://127.0.0.1:{port}\" }} }}\n"
        )
    }

    /// A directory with agent.yaml; `endpoints` are list items. Not enrolled.
    pub fn plan(dir: &Path, endpoints: &str) -> Self {
        private_dir(dir).expect("a private directory");
        let home = Self { dir: dir.to_owned() };
        let list = if endpoints.is_empty() {
            "endpoints: []\n".to_owned()
        } else {
            format!("endpoints:\n{endpoints}")
        };
        // Tests run as root in containers; the account is meant.
        write(
            &home.path("agent.yaml"),
            &format!(
                "version: 1\nstate_dir: \"{0}/state\"\ncontrol_socket: \"{0}/control.sock\"\n{list}builtin_ssh: {{ allow_service_account: true }}\n",
                dir.display()
            ),
        );
        home
    }

    /// A file of the directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Adds lines to agent.yaml; a running agent does not know them yet.
    pub fn add(&self, lines: &str) {
        let file = self.path("agent.yaml");
        let text = std::fs::read_to_string(&file).expect("agent.yaml is read");
        write(&file, &(text + lines));
    }

    /// Writes agent.yaml with other words in the place of some.
    pub fn change(&self, from: &str, to: &str) {
        let file = self.path("agent.yaml");
        let text = std::fs::read_to_string(&file).expect("agent.yaml is read");
        assert!(text.contains(from), "agent.yaml has no `{from}`");
        write(&file, &text.replace(from, to));
    }

    /// The lines of the agent's own audit log that have each of these texts.
    pub fn audit(&self, texts: &[&str]) -> Vec<String> {
        lines_with(&self.path("state/audit.jsonl"), texts)
    }

    /// `fairlead-agent SUBCOMMAND --config agent.yaml`.
    pub fn command(&self, subcommand: &str) -> Command {
        let mut command = command("fairlead-agent", [subcommand, "--config"]);
        command.arg(self.path("agent.yaml"));
        command
    }

    /// `fairlead-agent enroll` with a join string in a file.
    pub fn enroll_command(&self, join: &Path) -> Command {
        let mut command = self.command("enroll");
        command.arg("--token-file").arg(join);
        command
    }

    /// Runs `fairlead-agent enroll`.
    pub async fn enroll(&self, join: &Path) -> Finished {
        clients::run(self.enroll_command(join)).await
    }

    /// Whether an enrolment was completed here.
    pub fn is_enrolled(&self) -> bool {
        self.path("state/enrolled.json").exists()
    }

    /// Starts it; does not wait for the link.
    pub fn start(&self) -> Daemon {
        Daemon::start(self.command("run"), &self.path("agent.log"))
    }
}

/// A person's profile.
#[derive(Clone, Debug)]
pub struct UserHome {
    dir: PathBuf,
}

impl UserHome {
    /// A profile that nobody has logged in with.
    pub fn plan(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    /// Runs `fairlead login` with a join string in a file.
    pub async fn login(&self, join: &Path) -> Finished {
        let mut command = command("fairlead", ["login", "--token-file"]);
        command.arg(join).env("FAIRLEAD_HOME", &self.dir);
        clients::run(command).await
    }

    /// Runs `fairlead` as this person.
    pub async fn fairlead(&self, arguments: &[&str]) -> Finished {
        let mut command = command("fairlead", arguments);
        command.env("FAIRLEAD_HOME", &self.dir);
        clients::run(command).await
    }

    /// The person's directory, which is the profile.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Stock ssh with this person's configuration.
    pub fn ssh_command(&self, arguments: &[&str]) -> Command {
        let mut ssh = stock("ssh");
        ssh.arg("-F").arg(self.dir.join("ssh_config"));
        ssh.args(["-o", "BatchMode=yes", "-o", "ConnectTimeout=30"])
            .args(arguments);
        ssh
    }

    /// Runs stock ssh.
    pub async fn ssh(&self, arguments: &[&str]) -> Finished {
        clients::run(self.ssh_command(arguments)).await
    }

    /// Runs a command on a device of the site `default`.
    pub async fn on(&self, device: &str, remote: &str) -> Finished {
        self.ssh(&[&destination(device), remote]).await
    }

    /// Tries again and again until a command on the device succeeds.
    pub async fn reaches(&self, device: &str, limit: Duration) {
        until("the device is reached", limit, async || {
            self.on(device, "true").await.status.success().then_some(())
        })
        .await;
    }
}

/// `ACCOUNT@DEVICE.default.internal`.
fn destination(device: &str) -> String {
    format!("{}@{device}.default.internal", account())
}

fn lines_with(file: &Path, texts: &[&str]) -> Vec<String> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let wanted = text.lines().filter(|line| texts.iter().all(|text| line.contains(text)));
    wanted.map(str::to_owned).collect()
}
