//! A gateway, agents and people in one process, on loopback, with state of their own in a throw-away directory.
//!
//! Everything comes about by the real steps: `init`, join strings from the administration socket, enrolment, login.
//! Nothing waits for a time; everything waits for a state, with a limit that says in words what did not come.
//!
//! [`Lab::stop`] is the second half of every test: it ends the parts in order and reads both sides' audit logs again.

mod agent;
mod audit;
mod person;
mod wait;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use fairlead::admin_client::{AdminClient, Administration, api};
use fairlead::command::Context;
use fairlead_gateway::{Gateway, init};
use fairlead_identity::join::JoinString;
use fairlead_identity::ssh::SshKey;
use fairlead_runtime::clock::{Clock, SystemClock};
use fairlead_runtime::config_file::{private_dir, write_private};
use fairlead_runtime::stop::CancellationToken;
use fairlead_runtime::telemetry;
use hyper::Method;
use tempfile::TempDir;

pub use agent::AgentPlan;
use agent::LabAgent;
pub use audit::{AuditFile, Line};
pub use person::Person;
pub use wait::{PATIENCE, until};

/// The gateway's domain in every lab.
pub const DOMAIN: &str = "gw.lab.test";

/// The policy a lab starts with: technicians may use everything, everybody else nothing.
pub const FIELD_POLICY: &str = "version: 1
rules:
  - { name: field technicians, sites: ['*'], effect: allow, expressions: [\"'field' in caller.groups\"] }
";

/// A running gateway with whatever a test has put around it.
pub struct Lab {
    gateway: Option<Gateway>,
    address: SocketAddr,
    admin: AdminClient,
    agents: BTreeMap<String, LabAgent>,
    // Last, so that it is removed after everything that writes into it.
    dir: TempDir,
}

impl Lab {
    /// Starts a gateway with [`FIELD_POLICY`] on a port of its own.
    pub async fn start() -> Self {
        Self::configured("").await
    }

    /// As [`Lab::start`], with further lines of gateway.yaml.
    pub async fn configured(lines: &str) -> Self {
        Self::at(lines, Arc::new(SystemClock)).await
    }

    /// As [`Lab::configured`]; the gateway tells the time by this clock.
    pub async fn at(lines: &str, clock: Arc<dyn Clock>) -> Self {
        if std::env::var_os("FAIRLEAD_LOG").is_some() {
            // For whoever looks into a failing test; a second lab of the process finds it done.
            drop(telemetry::init(telemetry::Format::Text));
        }
        let dir = tempfile::Builder::new()
            .prefix("fairlead-lab-")
            .tempdir()
            .expect("a throw-away directory");
        for name in ["gateway", "run", "agents", "people"] {
            private_dir(&dir.path().join(name)).expect("a private directory");
        }
        let file = dir.path().join("gateway/gateway.yaml");
        write_private(&policy_file(dir.path()), FIELD_POLICY.as_bytes(), 0o600).expect("the policy is written");
        write_private(&file, gateway_config(dir.path(), lines).as_bytes(), 0o600).expect("gateway.yaml is written");
        let report = init::init(&file, None, clock.now()).expect("a fresh gateway is set up");
        let gateway = Gateway::start_at(report.config, clock, &CancellationToken::new())
            .await
            .expect("the gateway starts");
        let options = Administration {
            admin_socket: Some(dir.path().join("run/admin.sock")),
            json: false,
        };
        let admin = AdminClient::new(&options, &Context::new(std::io::sink(), std::io::sink(), None));
        Self {
            address: gateway.address,
            gateway: Some(gateway),
            admin,
            agents: BTreeMap::new(),
            dir,
        }
    }

    /// The one port of the gateway.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The running gateway.
    pub fn gateway(&self) -> &Gateway {
        self.gateway.as_ref().expect("the gateway has not been stopped")
    }

    /// The client of the administration socket.
    pub fn admin(&self) -> &AdminClient {
        &self.admin
    }

    /// A path below the lab's directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Puts another access policy in force; what is no policy fails the test.
    pub async fn policy(&self, yaml: &str) {
        write_private(&policy_file(self.dir.path()), yaml.as_bytes(), 0o600).expect("the policy is written");
        let reloaded: Result<api::PolicyReloaded, _> = self.admin.send(Method::POST, "/v1/policy/reload", &()).await;
        reloaded.unwrap_or_else(|error| panic!("the policy is refused: {error}"));
    }

    /// Plans an agent of the site `default`; [`AgentPlan::start`] enrols and starts it.
    pub fn agent(&mut self, name: &str) -> AgentPlan<'_> {
        AgentPlan::new(self, name)
    }

    /// Stops an agent in order and waits until the gateway knows. It can be started again.
    pub async fn stop_agent(&mut self, name: &str) {
        let agent = self.agents.get_mut(name).expect("an agent of this lab");
        agent.stop().await;
        self.wait_offline(name).await;
    }

    /// Starts an agent again that was stopped, with the identity and the file it has.
    pub async fn start_agent(&mut self, name: &str) {
        let refused = self.agents.get_mut(name).expect("an agent of this lab").start().await;
        assert!(refused.is_empty(), "the gateway does not take {refused:?}");
    }

    /// Has an agent read its file again, as SIGHUP does; gives how many sessions ended by that.
    pub async fn reload_agent(&self, name: &str) -> usize {
        self.agents.get(name).expect("an agent of this lab").reload().await
    }

    /// As [`Lab::start_agent`] for one that cannot link: waits for what it says in the end, which has this text.
    pub async fn start_agent_in_vain(&mut self, name: &str, text: &str) {
        let agent = self.agents.get_mut(name).expect("an agent of this lab");
        agent.start_in_vain(text).await;
    }

    /// Waits until the gateway's roster does not have the agent.
    pub async fn wait_offline(&self, name: &str) {
        let roster = self.gateway().roster();
        let mut changes = roster.watch();
        let gone = async {
            while roster.online().iter().any(|online| online.agent.name.as_str() == name) {
                changes.changed().await.expect("the roster lives");
            }
        };
        let limit = tokio::time::timeout(PATIENCE, gone);
        limit.await.unwrap_or_else(|_| panic!("{name} is still on the roster"));
    }

    /// Lets a user in by join string and login, as `fairlead login` does: X.509 and SSH certificate.
    pub async fn user(&self, name: &str, groups: &[&str]) -> Person {
        let request = api::CreateToken {
            user: Some(name.into()),
            groups: set(groups),
            ..Default::default()
        };
        self.user_by(&request).await
    }

    /// As [`Lab::user`], by a request of one's own.
    pub async fn user_by(&self, request: &api::CreateToken) -> Person {
        let name = request.user.clone().expect("a join string for a user");
        Person::log_in(self, &name, &self.join(request).await).await
    }

    /// Logs somebody in by a join string of one's own.
    pub async fn log_in(&self, name: &str, join: &JoinString) -> Person {
        Person::log_in(self, name, join).await
    }

    /// A user who is there logs in at a second machine.
    pub async fn another_machine(&self, name: &str) -> Person {
        let request = api::CreateToken {
            user: Some(name.into()),
            ..Default::default()
        };
        Person::at_another_machine(self, name, &self.join(&request).await).await
    }

    /// Adds a user with a key that ssh-keygen made, as `fairlead users add --ssh-key-file` does: no certificate.
    pub async fn user_with_key(&self, name: &str, groups: &[&str]) -> Person {
        let (person, key) = Person::with_key(self, name).await;
        let user = api::AddUser {
            name: name.into(),
            groups: set(groups),
            ssh_keys: vec![key],
            ..Default::default()
        };
        self.add_user(&user).await;
        person
    }

    /// Adds a user by the administration socket.
    pub async fn add_user(&self, user: &api::AddUser) {
        let added: Result<api::User, _> = self.admin.send(Method::POST, "/v1/users", user).await;
        added.unwrap_or_else(|error| panic!("{} is not added: {error}", user.name));
    }

    /// Keeps a user out, or lets them in again.
    pub async fn disable_user(&self, name: &str, disabled: bool) {
        let change = api::ChangeUser {
            disabled: Some(disabled),
            ..Default::default()
        };
        let changed: Result<api::User, _> = self
            .admin
            .send(Method::PATCH, &format!("/v1/users/{name}"), &change)
            .await;
        changed.unwrap_or_else(|error| panic!("{name} is not changed: {error}"));
    }

    /// A person with a key that the gateway does not know, and the way to it.
    pub async fn stranger(&self, name: &str) -> Person {
        Person::with_key(self, name).await.0
    }

    /// The live sessions, by the administration socket.
    pub async fn sessions(&self) -> Vec<api::Session> {
        let listed: Result<api::Sessions, _> = self.admin.get("/v1/sessions").await;
        listed
            .unwrap_or_else(|error| panic!("sessions are not listed: {error}"))
            .sessions
    }

    /// Ends a session by the administration socket.
    pub async fn kill(&self, session: &str) {
        let killed = self.admin.delete(&format!("/v1/sessions/{session}")).await;
        killed.unwrap_or_else(|error| panic!("{session} is not killed: {error}"));
    }

    /// The gateway's audit log.
    pub fn gateway_audit(&self) -> AuditFile {
        AuditFile::at(self.path("gateway/state/audit.jsonl"))
    }

    /// An agent's audit log.
    pub fn agent_audit(&self, name: &str) -> AuditFile {
        AuditFile::at(self.path(&format!("agents/{name}/state/audit.jsonl")))
    }

    /// The public line of the authority that signs user certificates.
    pub fn user_ca(&self) -> String {
        self.public_line("user_ca")
    }

    /// The public line of the authority that signs host certificates.
    pub fn host_ca(&self) -> String {
        self.public_line("host_ca")
    }

    /// Makes everybody's ssh know a device by its own host key.
    pub fn know_host(&self, host: &str, key_line: &str) {
        let path = self.known_devices();
        let mut text = std::fs::read_to_string(&path).unwrap_or_default();
        text.push_str(&format!("{host} {key_line}\n"));
        std::fs::write(path, text).expect("known hosts are written");
    }

    /// Stops the gateway, letting sessions go on for `grace`; agents and people stay.
    pub async fn stop_gateway(&mut self, grace: Duration) {
        if let Some(gateway) = self.gateway.take() {
            gateway.stop(grace).await;
        }
    }

    /// The gateway itself, for whoever stops it in a way of their own.
    pub fn take_gateway(&mut self) -> Gateway {
        self.gateway.take().expect("the gateway has not been stopped")
    }

    /// Ends everything in order, then reads the audit logs of both sides: each chain holds, every permit has one end,
    /// and whatever an agent wrote belongs to a session that its gateway had permitted, under the same id.
    pub async fn stop(mut self) {
        for agent in self.agents.values_mut() {
            agent.stop().await;
        }
        self.stop_gateway(Duration::ZERO).await;
        let agents: Vec<AuditFile> = self.agents.keys().map(|name| self.agent_audit(name)).collect();
        audit::reconcile(&self.gateway_audit(), &agents);
    }

    /// The file with the host keys of devices that present no certificate.
    pub(crate) fn known_devices(&self) -> PathBuf {
        self.path("people/known_devices")
    }

    pub(crate) async fn join(&self, request: &api::CreateToken) -> JoinString {
        let created: Result<api::TokenCreated, _> = self.admin.send(Method::POST, "/v1/tokens", request).await;
        let created = created.unwrap_or_else(|error| panic!("no join string: {error}"));
        JoinString::parse(&created.join).expect("the gateway's join string parses")
    }

    fn public_line(&self, name: &str) -> String {
        let pem =
            std::fs::read_to_string(self.path("gateway/state/ssh").join(name)).expect("an SSH key of the gateway");
        SshKey::from_openssh(&pem).expect("an OpenSSH key").public_line()
    }
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn policy_file(dir: &Path) -> PathBuf {
    dir.join("gateway/access.yaml")
}

fn gateway_config(dir: &Path, lines: &str) -> String {
    let dir = dir.display();
    // All of a test comes from one address, so its refused logins are no reason to shut it out, unless it says otherwise.
    let limits = if lines.contains("limits:") {
        ""
    } else {
        "limits: { login_failures_per_source: 0 }"
    };
    format!(
        "version: 1
domain: {DOMAIN}
listen: \"127.0.0.1:0\"
announce: [\"127.0.0.1:0\"]
state_dir: \"{dir}/gateway/state\"
access: [\"{dir}/gateway/access.yaml\"]
admin: {{ socket: \"{dir}/run/admin.sock\" }}
{limits}
{lines}"
    )
}
