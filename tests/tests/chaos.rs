//! Faults without end, and then an exact state (SECURITY.md R18): ten minutes and 50 agents with FAIRLEAD_TESTS_ALL=1.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "tests fail by panicking, and measured figures are for the reader"
)]

use std::io::BufReader;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use fairlead_runtime::audit::{unended, verify};
use fairlead_runtime::stop::CancellationToken;
use fairlead_runtime::tasks::TaskGroup;
use fairlead_tests::clients::asks_for_all;
use fairlead_tests::netns::{self, NatRouter, NetworkPath};
use fairlead_tests::programs::{AgentHome, Daemon, GatewayHome, PATIENCE, throw_away, until};
use nix::sys::signal::Signal;
use tokio::process::Command;

/// SECURITY.md R18.
const EXACT_WITHIN: Duration = Duration::from_secs(20);
/// A busy machine, unoptimised.
const MARGIN: Duration = Duration::from_secs(20);
/// People who use the fleet all the while.
const PEOPLE: usize = 3;

#[test]
fn after_faults_without_end_the_state_is_exact() {
    netns::alone("after_faults_without_end_the_state_is_exact", faults());
}

struct World {
    home: GatewayHome,
    gateway: Daemon,
    router: NatRouter,
    agents: Vec<(AgentHome, Daemon)>,
    dice: u64,
}

async fn faults() {
    let (lasts, size) = if asks_for_all() {
        (Duration::from_secs(600), 50)
    } else {
        (Duration::from_secs(30), 6)
    };
    netns::be_the_middle().await;
    let dir = throw_away();
    let router = NatRouter::new(1).await;
    let mut home = GatewayHome::plan(&dir.path().join("gateway"));
    home.listen = std::net::Ipv4Addr::UNSPECIFIED;
    home.announce = format!("{}:{}", netns::MIDDLE, home.port);
    home.more = "drain: 2s\n".into();
    home.write();
    home.init().await.succeeded();
    let gateway = home.start().await;
    let seed = SystemTime::UNIX_EPOCH.elapsed().unwrap().subsec_nanos();
    let mut world = World {
        home: home.clone(),
        gateway,
        router,
        agents: Vec::new(),
        dice: u64::from(seed) | 1,
    };
    for number in 0..size {
        let name = format!("pump-{number}");
        let device = home
            .agent(&dir.path().join(&name), &name, &AgentHome::builtin(&name))
            .await;
        let agent = Daemon::start(world.place(number, device.command("run")), &device.path("agent.log"));
        world.agents.push((device, agent));
    }
    let alice = Arc::new(home.user(&dir.path().join("alice"), "alice", "field").await);
    world.everybody_is_back(Duration::from_secs(60)).await;

    let stop = CancellationToken::new();
    let people = TaskGroup::new("people", &stop);
    let (good, failed) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    for person in 0..PEOPLE {
        let (alice, stop) = (Arc::clone(&alice), stop.clone());
        let (good, failed) = (Arc::clone(&good), Arc::clone(&failed));
        people.spawn("person", async move {
            let mut number = person;
            while !stop.is_cancelled() {
                let finished = alice
                    .on(&format!("pump-{}", number % size), "sleep 0.3; echo done")
                    .await;
                let count = if finished.status.success() { &good } else { &failed };
                count.fetch_add(1, Ordering::Relaxed);
                number += PEOPLE;
            }
        });
    }
    let (began, mut count) = (Instant::now(), 0);
    while began.elapsed() < lasts {
        let what = world.fault(size).await;
        count += 1;
        println!("{:>4.0?} {what}", began.elapsed());
        let pause = if asks_for_all() {
            world.roll(5, 20)
        } else {
            world.roll(1, 4)
        };
        tokio::time::sleep(Duration::from_secs(pause)).await;
    }
    stop.cancel();
    let last = Instant::now();
    world.everybody_is_back(EXACT_WITHIN + MARGIN).await;
    let exact = last.elapsed();
    people.stop(PATIENCE).await;
    until("no session is left", PATIENCE, async || {
        let list = home.json(&["sessions", "list"]).await;
        list["sessions"].as_array().unwrap().is_empty().then_some(())
    })
    .await;
    println!(
        "R18: seed {seed}, {count} faults in {lasts:?} at {size} agents: exact state {exact:.1?} after the last (goal 20 s); \
         {} sessions were whole, {} were cut or refused by a fault",
        good.load(Ordering::Relaxed),
        failed.load(Ordering::Relaxed)
    );
    world.is_exact().await;
    assert!(good.load(Ordering::Relaxed) > 0, "nobody ever got through");
}

impl World {
    /// A number from `low` to `high`.
    fn roll(&mut self, low: u64, high: u64) -> u64 {
        // xorshift64 (Marsaglia 2003).
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        low + self.dice % (high - low + 1)
    }

    /// Every second agent is behind the router.
    fn place(&self, number: usize, command: Command) -> Command {
        if number.is_multiple_of(2) {
            self.router.device.within(&command)
        } else {
            command
        }
    }

    /// Makes one fault, and waits until its cause is over; its consequences may last.
    async fn fault(&mut self, size: usize) -> String {
        let victim = usize::try_from(self.roll(0, u64::try_from(size).unwrap() - 1)).unwrap();
        let short = Duration::from_secs(if asks_for_all() {
            self.roll(3, 15)
        } else {
            self.roll(1, 5)
        });
        match self.roll(0, 7) {
            0 => {
                self.gateway.kill().await;
                self.gateway = self.home.start().await;
                "gateway killed".into()
            }
            1 => {
                self.gateway.signal(Signal::SIGTERM);
                self.gateway.ended(PATIENCE).await;
                self.gateway = self.home.start().await;
                "gateway told to stop, and started".into()
            }
            2 => {
                self.agents[victim].1.kill().await;
                let device = &self.agents[victim].0;
                let run = self.place(victim, device.command("run"));
                self.agents[victim].1 = Daemon::start(run, &device.path("agent.log"));
                format!("pump-{victim} killed")
            }
            3 => {
                self.agents[victim].1.signal(Signal::SIGSTOP);
                tokio::time::sleep(short).await;
                self.agents[victim].1.signal(Signal::SIGCONT);
                format!("pump-{victim} stood still for {short:?}")
            }
            4 => self.path_for(NetworkPath::DEAD, short, "no packet passed").await,
            5 => {
                self.path_for(NetworkPath::lossy(200, Duration::ZERO), short, "20 % loss")
                    .await
            }
            6 => {
                self.router.rebind().await;
                "other mappings at the router".into()
            }
            _ => {
                self.gateway.signal(Signal::SIGHUP);
                self.agents[victim].1.signal(Signal::SIGHUP);
                format!("gateway and pump-{victim} read their files again")
            }
        }
    }

    async fn path_for(&mut self, path: NetworkPath, lasts: Duration, what: &str) -> String {
        self.router.become_as(&path).await;
        tokio::time::sleep(lasts).await;
        self.router.become_as(&NetworkPath::GOOD).await;
        format!("{what} at the router for {lasts:?}")
    }

    async fn everybody_is_back(&self, within: Duration) {
        let size = self.agents.len();
        until("every agent is online", within, async || {
            let list = self.home.json(&["agents", "list"]).await;
            let agents = list["agents"].as_array().unwrap();
            let online = agents.iter().filter(|agent| !agent["online"].is_null()).count();
            (online == size).then_some(())
        })
        .await;
    }

    /// Nothing panicked, nothing leaked, and both sides' audits are whole.
    async fn is_exact(&mut self) {
        assert!(
            self.gateway.is_alive() && !self.gateway.log().contains("panicked"),
            "{}",
            self.gateway.log()
        );
        assert_eq!(self.home.metric("fairlead_panics_total").await, Some(0));
        let audit = self.home.path("state/audit.jsonl");
        verify(BufReader::new(std::fs::File::open(&audit).unwrap())).unwrap();
        let open = unended(&audit, "session.permit", "session.end").unwrap();
        assert!(open.is_empty(), "permits without an end: {open:?}");
        for (device, agent) in &mut self.agents {
            assert!(agent.is_alive() && !agent.log().contains("panicked"), "{}", agent.log());
            verify(BufReader::new(
                std::fs::File::open(device.path("state/audit.jsonl")).unwrap(),
            ))
            .unwrap();
        }
    }
}
