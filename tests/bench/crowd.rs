//! Many agents in processes of their own, so that the gateway's figures are the gateway's. Started by [`Crowd::start`] as this same
//! program with `--crowd FIRST LAST JOIN_FILE FOLDER TRANSPORT`; each ends with its standard input.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

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
/// How often the gateway is asked how many there are: each answer looks at all of them.
const LOOK: Duration = Duration::from_millis(250);
const LINKED_WITHIN: Duration = Duration::from_secs(600);
/// How often one asks that the gateway was too busy for.
const TRIES: usize = 50;

/// Agents of one process: each has a handful of files open, of which a process may have 20,000 here.
const OF_A_PROCESS: u64 = 2_500;

/// Processes full of agents; killed when dropped.
pub(crate) struct Crowd {
    children: Vec<Child>,
}

impl Crowd {
    /// Starts it; its agents are `pump-0` and so on. Each offers `tcp://NAME.default.internal:9`.
    pub(crate) async fn start(home: &GatewayHome, dir: &Path, count: u64, transport: &str) -> Self {
        let (join, uses) = (dir.join("crowd.join"), count.to_string());
        home.token(&join, &["--agents", "pump-*", "--uses", &uses, "--no-approval"])
            .await;
        let start = |first: u64| {
            let last = count.min(first + OF_A_PROCESS);
            let mut again = Command::new(std::env::current_exe().expect("a program knows its own path"));
            again
                .args(["--crowd", &first.to_string(), &last.to_string()])
                .args([join.as_path(), dir])
                .arg(transport)
                // Thousands of large buffers that are hardly used shall each be the kernel's until they are, not the heap's.
                .env("MALLOC_MMAP_THRESHOLD_", "131072")
                .stdin(Stdio::piped())
                .kill_on_drop(true);
            again.spawn().expect("this program can be run again")
        };
        let firsts = (0..count).step_by(usize::try_from(OF_A_PROCESS).expect("a number"));
        Self {
            children: firsts.map(start).collect(),
        }
    }

    pub(crate) fn is_alive(&mut self) -> bool {
        let lives = |child: &mut Child| child.try_wait().expect("the child's state").is_none();
        self.children.iter_mut().all(lives)
    }
}

/// Waits until so many agents are linked; fails when the gateway or the crowd ends.
pub(crate) async fn linked(home: &GatewayHome, gateway: &mut Daemon, crowd: &mut Crowd, count: u64) {
    let began = Instant::now();
    while home.agents_linked().await != count {
        assert!(gateway.is_alive() && crowd.is_alive(), "one of them has ended");
        assert!(began.elapsed() < LINKED_WITHIN, "not all agents are linked");
        tokio::time::sleep(LOOK).await;
    }
}

/// What the process does.
pub(crate) async fn run(arguments: &[String]) {
    let [first, last, join, dir, transport] = arguments else {
        panic!("two numbers, a file, a folder and a transport");
    };
    let numbers = first.parse::<usize>().expect("a number")..last.parse().expect("a number");
    let join = std::fs::read_to_string(join).expect("a join string");
    let join = Arc::new(JoinString::parse(join.trim()).expect("a join string"));
    let stop = CancellationToken::new();
    let tasks = TaskGroup::new("crowd", &stop);
    let (started, mut all) = mpsc::channel(AT_A_TIME);
    let places = Arc::new(Semaphore::new(AT_A_TIME));
    for number in numbers.clone() {
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
    assert_eq!(agents.len(), numbers.len(), "some agents did not start");
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
