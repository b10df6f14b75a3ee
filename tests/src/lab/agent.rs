//! Agents of a lab: their file, their enrolment, their life.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use fairlead::admin_client::api;
use fairlead_agent::{Agent, config, enroll};
use fairlead_runtime::clock::{Clock, SystemClock};
use fairlead_runtime::config_file::{private_dir, write_private};
use fairlead_runtime::stop::CancellationToken;
use tokio::time::timeout;

use super::{Lab, PATIENCE};

/// An agent that is to be enrolled and started.
#[must_use = "an agent is started by `start`"]
pub struct AgentPlan<'a> {
    lab: &'a mut Lab,
    name: String,
    endpoints: String,
    token: api::CreateToken,
    clock: Arc<dyn Clock>,
}

impl<'a> AgentPlan<'a> {
    pub(super) fn new(lab: &'a mut Lab, name: &str) -> Self {
        let token = api::CreateToken {
            agent: Some(name.into()),
            ..Default::default()
        };
        Self {
            lab,
            name: name.into(),
            endpoints: String::new(),
            token,
            clock: Arc::new(SystemClock),
        }
    }

    /// Lists an endpoint, with `tcp://HOST:PORT` or `builtin:ssh` behind it.
    pub fn endpoint(mut self, url: &str, upstream: &str) -> Self {
        self.endpoints
            .push_str(&format!("  - url: {url}\n    upstream: {{ url: \"{upstream}\" }}\n"));
        self
    }

    /// Lists an endpoint with an upstream as agent.yaml writes it, a YAML map on one line.
    pub fn endpoint_behind(mut self, url: &str, upstream: &str) -> Self {
        self.endpoints
            .push_str(&format!("  - url: {url}\n    upstream: {upstream}\n"));
        self
    }

    /// Gives the endpoint that was listed last the customer's own rules, as a YAML list on one line.
    pub fn rules(mut self, yaml: &str) -> Self {
        self.endpoints.push_str(&format!("    rules: {yaml}\n"));
        self
    }

    /// Adds a line to the endpoint that was listed last.
    pub fn line(mut self, yaml: &str) -> Self {
        self.endpoints.push_str(&format!("    {yaml}\n"));
        self
    }

    /// Has the agent log in for the callers of the endpoint that was listed last: the user asked for, the database's, and
    /// the password, which is put into a private file.
    pub fn credentials(mut self, credentials: &[(&str, &str, &str)]) -> Self {
        self.endpoints.push_str("    credentials:\n");
        for (requested, user, password) in credentials {
            let file = self.lab.path(&format!("agents/{}-{requested}.pw", self.name));
            write_private(&file, format!("{password}\n").as_bytes(), 0o640).expect("the password is written");
            let file = file.display();
            self.endpoints.push_str(&format!(
                "      - {{ as: {requested}, user: {user}, password_file: \"{file}\" }}\n"
            ));
        }
        self
    }

    /// Gives the agent a label at the gateway.
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.token.labels.insert(key.into(), value.into());
        self
    }

    /// Binds a host to the agent, on which it may offer endpoints.
    pub fn host(mut self, host: &str) -> Self {
        self.token.hosts.insert(host.into());
        self
    }

    /// As [`AgentPlan::start`], for a file of which the gateway does not take everything: what it refuses, and why.
    pub async fn start_refused(self) -> Vec<(String, String)> {
        self.begin().await
    }

    /// Gives the device a clock of its own.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Enrols the agent, starts it, and waits until callers can reach it and every endpoint was accepted.
    pub async fn start(self) {
        let refused = self.begin().await;
        assert!(refused.is_empty(), "the gateway does not take {refused:?}");
    }

    async fn begin(self) -> Vec<(String, String)> {
        let Self {
            lab,
            name,
            endpoints,
            token,
            clock,
        } = self;
        let dir = lab.path(&format!("agents/{name}"));
        private_dir(&dir).expect("a private directory");
        let file = dir.join("agent.yaml");
        write_private(&file, agent_config(&dir, &endpoints).as_bytes(), 0o600).expect("agent.yaml is written");
        let join = lab.join(&token).await;
        let enrolled = enroll::enroll_agent(&join, &dir.join("state")).await;
        enrolled.unwrap_or_else(|error| panic!("{name} is not enrolled: {error:#}"));
        let mut agent = LabAgent {
            file,
            clock,
            running: None,
        };
        let refused = agent.start().await;
        lab.agents.insert(name, agent);
        refused
    }
}

/// An enrolled agent, running or not.
pub(super) struct LabAgent {
    file: PathBuf,
    clock: Arc<dyn Clock>,
    running: Option<Agent>,
}

impl LabAgent {
    async fn started(&self) -> Agent {
        let config = config::load(&self.file).unwrap_or_else(|mistakes| panic!("agent.yaml: {mistakes:#?}"));
        Agent::start_at(config, Arc::clone(&self.clock), &CancellationToken::new())
            .await
            .expect("an enrolled agent starts")
    }

    pub(super) async fn start_in_vain(&mut self, text: &str) {
        let mut agent = self.started().await;
        let said = agent
            .status
            .wait_for(|status| status.up || status.last_error.contains(text));
        let said = timeout(PATIENCE, said).await;
        let said = said.unwrap_or_else(|_| panic!("the agent does not say {text:?}"));
        assert!(!said.expect("the agent lives").up, "the agent links");
        self.running = Some(agent);
    }

    /// What the gateway refuses of its offer, and why.
    pub(super) async fn start(&mut self) -> Vec<(String, String)> {
        let mut agent = self.started().await;
        let up = timeout(PATIENCE, agent.up()).await.expect("the agent's link comes up");
        let status = up.expect("the agent lives");
        self.running = Some(agent);
        status.refused
    }

    pub(super) async fn reload(&self) -> usize {
        let running = self.running.as_ref().expect("a running agent");
        let reloaded = running.reload().await;
        reloaded
            .unwrap_or_else(|mistakes| panic!("agent.yaml: {mistakes:#?}"))
            .ended
    }

    pub(super) async fn stop(&mut self) {
        if let Some(agent) = self.running.take() {
            agent.stop().await;
        }
    }
}

fn agent_config(dir: &Path, endpoints: &str) -> String {
    // Whoever runs the tests owns the "device", so their account is meant, root included.
    format!(
        "version: 1\nstate_dir: \"{0}/state\"\ncontrol_socket: \"{0}/control.sock\"\nendpoints:\n{endpoints}builtin_ssh: {{ allow_service_account: true }}\n",
        dir.display()
    )
}
