//! Many agents in a process of their own, so that the gateway's figures are the gateway's. Started by [`Crowd::start`] as this same
//! program with `--crowd COUNT JOIN_FILE FOLDER TRANSPORT`; ends with its standard input.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use fairlead_agent::{Agent, config, enroll};
use fairlead_identity::join::JoinString;
use fairlead_runtime::config_file::private_dir;
use fairlead_runtime::stop::CancellationToken;
use fairlead_runtime::tasks::TaskGroup;
use fairlead_tests::programs::{Daemon, GatewayHome};
use tokio::io::AsyncReadExt;
use tokio::process::{Child, Command};
use tokio::sync::{Semaphore, mpsc};

/// Agents that enrol at a time.
const AT_A_TIME: usize = 16;
/// How often one asks that the gateway was too busy for.
const TRIES: usize = 50;

/// A process full of agents; killed when dropped.
pub(crate) struct Crowd {
    pub(crate) child: Child,
}

impl Crowd {
    /// Starts it; its agents are `pump-0` and so on. Each offers `tcp://NAME.default.internal:PORT` of `upstream`.
    pub(crate) async fn start(home: &GatewayHome, dir: &Path, count: u64, transport: &str) -> Self {
        let (join, uses) = (dir.join("crowd.join"), count.to_string());
        home.token(&join, &["--agents", "pump-*", "--uses", &uses, "--no-approval"])
            .await;
        let mut again = Command::new(std::env::current_exe().expect("a program knows its own path"));
        again
            .args(["--crowd", &uses])
            .args([join.as_path(), dir])
            .arg(transport)
            .stdin(Stdio::piped())
            .kill_on_drop(true);
        Self {
            child: again.spawn().expect("this program can be run again"),
        }
    }

    pub(crate) fn is_alive(&mut self) -> bool {
        self.child.try_wait().expect("the child's state").is_none()
    }
}

/// Waits until so many agents are linked; fails when the gateway or the crowd ends.
pub(crate) async fn linked(home: &GatewayHome, gateway: &mut Daemon, crowd: &mut Crowd, count: u64) {
    let limit = std::time::Duration::from_secs(600);
    fairlead_tests::programs::until("the crowd is linked", limit, async || {
        assert!(gateway.is_alive() && crowd.is_alive(), "one of them has ended");
        (home.agents_linked().await == count).then_some(())
    })
    .await;
}

/// What the process does.
pub(crate) async fn run(arguments: &[String]) {
    let [count, join, dir, transport] = arguments else {
        panic!("a count, a file, a folder and a transport");
    };
    let count: usize = count.parse().expect("a count");
    let join = std::fs::read_to_string(join).expect("a join string");
    let join = Arc::new(JoinString::parse(join.trim()).expect("a join string"));
    let stop = CancellationToken::new();
    let tasks = TaskGroup::new("crowd", &stop);
    let (started, mut all) = mpsc::channel(AT_A_TIME);
    let places = Arc::new(Semaphore::new(AT_A_TIME));
    for number in 0..count {
        let (join, started, stop) = (Arc::clone(&join), started.clone(), stop.clone());
        let (places, dir) = (Arc::clone(&places), Path::new(dir).join(format!("pump-{number}")));
        let transport = transport.clone();
        tasks.spawn("agent", async move {
            let _place = places.acquire_owned().await.expect("a place");
            let agent = agent(number, &dir, &transport, &join, &stop).await;
            started.send(agent).await.expect("somebody keeps the agents");
        });
    }
    drop(started);
    let mut agents = Vec::new();
    while let Some(agent) = all.recv().await {
        agents.push(agent);
    }
    assert_eq!(agents.len(), count, "some agents did not start");
    // Until whoever started this process has gone.
    let mut rest = Vec::new();
    drop(tokio::io::stdin().read_to_end(&mut rest).await);
    stop.cancel();
}

async fn agent(number: usize, dir: &Path, transport: &str, join: &JoinString, stop: &CancellationToken) -> Agent {
    private_dir(dir).expect("a private directory");
    let (name, dir) = (format!("pump-{number}"), dir.display());
    let text = format!(
        "version: 1\nstate_dir: \"{dir}/state\"\ncontrol_socket: \"{dir}/control.sock\"\ntransport: {transport}\nendpoints:\n  - {{ url: \"tcp://{name}.default.internal:9\", upstream: {{ url: \"tcp://127.0.0.1:9\" }} }}\n"
    );
    let config = config::check("agent.yaml", &text).expect("a configuration");
    let name = name.parse().expect("a name");
    for _ in 0..TRIES {
        if enroll::enroll_agent_as(join, &config.state_dir, Some(&name), &config.ways)
            .await
            .is_ok()
        {
            break;
        }
    }
    Agent::start(config, stop).await.expect("the agent starts")
}
