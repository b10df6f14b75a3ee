//! A machine that fails around the programs: power cut while they write, a full disk, no file descriptors left, a store that
//! somebody holds (SECURITY.md R11, R12, R13, R17).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "tests fail by panicking, and measured figures are for the reader"
)]

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use fairlead_tests::clients::{self, Running, asks_for_all, stock};
use fairlead_tests::netns;
use fairlead_tests::programs::{AgentHome, DEVICE, Daemon, GatewayHome, PATIENCE, Scene, account, throw_away, until};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

/// A busy machine, unoptimised.
const MARGIN: Duration = Duration::from_secs(3);

#[tokio::test]
async fn an_agent_killed_while_it_renews_has_the_old_identity_or_the_new_one() {
    let dir = throw_away();
    let mut home = GatewayHome::plan(&dir.path().join("gateway"));
    // Renewed at the start of nearly every life.
    home.more = "certificates: { agent: 10s }\n".into();
    home.write();
    home.init().await.succeeded();
    let _gateway = home.start().await;
    let device = home
        .agent(&dir.path().join("device"), DEVICE, &AgentHome::builtin(DEVICE))
        .await;
    let points = if asks_for_all() { 200 } else { 10 };
    // How long a life takes to renew, on this machine now, once that is due: kills fall into this time. The second life, since
    // the gateway first probes the link of one that was killed.
    let chain = || std::fs::read(device.path("state/chain.pem")).unwrap();
    let (mut last, mut whole) = (chain(), Duration::ZERO);
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_secs(4)).await;
        let (began, mut agent) = (Instant::now(), device.start());
        until("a life renews", PATIENCE, async || (chain() != last).then_some(())).await;
        whole = began.elapsed();
        last = chain();
        agent.kill().await;
    }
    tokio::time::sleep(Duration::from_secs(4)).await;
    let (mut chains, mut bad_modes) = (std::collections::BTreeSet::new(), Vec::new());
    for point in 0..points {
        if chain() != last {
            // The life before renewed; this one is to find it due again.
            last = chain();
            tokio::time::sleep(Duration::from_secs(4)).await;
        }
        let mut agent = device.start();
        // Spread over the start, the handshake, the renewal and what follows.
        let share = f64::from(u32::try_from((point * 7919) % 100).unwrap()) / 100.0;
        tokio::time::sleep(whole.mul_f64(0.2 + 1.2 * share)).await;
        agent.kill().await;
        let checked = clients::run(device.command("check")).await;
        assert_eq!(
            checked.code(),
            Some(0),
            "kill {point}: {}{}",
            checked.text(),
            checked.stderr
        );
        chains.insert(chain());
        bad_modes.extend(loose_files(&device.path("state")));
    }
    println!(
        "R11: {points} of {points} kills left an identity that is good ({} certificates on the way), {} files with a wrong mode",
        chains.len(),
        bad_modes.len()
    );
    assert!(bad_modes.is_empty(), "{bad_modes:?}");
    assert!(chains.len() > 1, "no kill fell into a life that renewed");
    let _agent = device.start();
    // Its certificate may have ended meanwhile; then it proves its key first.
    until("the last life links", PATIENCE * 3, async || {
        (home.agents_linked().await == 1).then_some(())
    })
    .await;
}

/// Files that others than their owner may read.
fn loose_files(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    let loose = entries.filter(|entry| {
        let metadata = entry.metadata().unwrap();
        metadata.is_file() && metadata.permissions().mode() & 0o077 != 0
    });
    loose.map(|entry| entry.path().display().to_string()).collect()
}

#[test]
fn a_full_disk_refuses_new_sessions_and_cuts_none() {
    netns::alone("a_full_disk_refuses_new_sessions_and_cuts_none", full_disk());
}

async fn full_disk() {
    let dir = throw_away();
    let (at_gateway, at_device) = (dir.path().join("gateway"), dir.path().join("device"));
    // What outlives a full disk must be there before: the programs' own folders are on small ones.
    for (home, size) in [(&at_gateway, "6m"), (&at_device, "1m")] {
        fairlead_runtime::config_file::private_dir(home).unwrap();
        let state = home.join("state");
        fairlead_runtime::config_file::private_dir(&state).unwrap();
        let mut mount = stock("mount");
        mount
            .args(["-t", "tmpfs", "-o", &format!("size={size},mode=0700"), "tmpfs"])
            .arg(&state);
        clients::run(mount).await.succeeded();
    }
    let mut ip = stock("ip");
    ip.env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
        .args(["link", "set", "lo", "up"]);
    clients::run(ip).await.succeeded();
    let home = GatewayHome::set_up(&at_gateway).await;
    let mut gateway = home.start().await;
    let device = home.agent(&at_device, DEVICE, &AgentHome::builtin(DEVICE)).await;
    let mut agent = device.start();
    let alice = home.user(&dir.path().join("alice"), "alice", "field").await;
    home.linked(1).await;
    let target = format!("{}@{DEVICE}.default.internal", account());
    let mut session = alice.ssh_command(&[&target, "cat"]);
    session.stdin(Stdio::piped());
    let mut session = Running::start(session);
    say(&mut session, "before").await;

    for (where_, state) in [
        ("gateway", at_gateway.join("state")),
        ("agent", at_device.join("state")),
    ] {
        let filler = state.join("filler");
        fill(&filler);
        // Lines that still fit go in; then there is no room for one.
        let refused = until("a session is refused", PATIENCE, async || {
            let finished = alice.on(DEVICE, "true").await;
            (!finished.status.success()).then_some(finished)
        })
        .await;
        let (reason, session_id) = refused.last_word().expect("a reason");
        println!("R12: disk of the {where_} full: refused as {reason} (session {session_id})");
        say(&mut session, "meanwhile").await;
        assert!(gateway.is_alive() && agent.is_alive());
        std::fs::remove_file(&filler).unwrap();
        let began = Instant::now();
        alice.reaches(DEVICE, Duration::from_secs(5) + MARGIN).await;
        println!(
            "R12: disk of the {where_} free again: a session works after {:.1?} (goal 5 s)",
            began.elapsed()
        );
    }
    drop(session.stdin.take());
    session.finish().await.succeeded();
    for audit in [home.path("state/audit.jsonl"), device.path("state/audit.jsonl")] {
        let audit = std::io::BufReader::new(std::fs::File::open(audit).unwrap());
        fairlead_runtime::audit::verify(audit).unwrap();
    }
    assert_eq!(home.metric("fairlead_panics_total").await, Some(0));
    assert!(!gateway.log().contains("panicked") && !agent.log().contains("panicked"));
}

/// Writes until the disk takes nothing any more.
fn fill(file: &Path) {
    let mut file = std::fs::File::create(file).unwrap();
    for size in [4096, 1] {
        while file.write_all(&vec![0; size]).is_ok() {}
    }
}

async fn say(session: &mut Running, text: &str) {
    let stdin = session.stdin.as_mut().unwrap();
    stdin.write_all(format!("{text}\n").as_bytes()).await.unwrap();
    assert_eq!(session.line().await, text);
}

#[tokio::test]
async fn without_file_descriptors_a_gateway_waits_and_does_not_spin() {
    let dir = throw_away();
    let mut home = GatewayHome::plan(&dir.path().join("gateway"));
    home.limits = "login_failures_per_source: 0, handshakes_per_source: 512".into();
    home.write();
    home.init().await.succeeded();
    let limited = || {
        let program = home.command("run");
        let mut limited = stock("prlimit");
        limited.arg("--nofile=256:256").arg(program.as_std().get_program());
        limited.args(program.as_std().get_args());
        limited
    };
    let mut gateway = home.start_as(limited).await;
    let device = home
        .agent(&dir.path().join("device"), DEVICE, &AgentHome::builtin(DEVICE))
        .await;
    let _agent = device.start();
    let alice = home.user(&dir.path().join("alice"), "alice", "field").await;
    home.linked(1).await;
    let target = format!("{}@{DEVICE}.default.internal", account());
    let mut session = alice.ssh_command(&[&target, "cat"]);
    session.stdin(Stdio::piped());
    let mut session = Running::start(session);
    say(&mut session, "before").await;
    fairlead_runtime::process::raise_file_limit().unwrap();
    let mut held = Vec::new();
    for _ in 0..1_000 {
        // What the kernel has no room for waits in its queue, or is refused: both are the kernel's.
        if let Ok(Ok(stream)) =
            tokio::time::timeout(Duration::from_millis(200), TcpStream::connect(("127.0.0.1", home.port))).await
        {
            held.push(stream);
        }
    }
    let before = cpu(&gateway);
    tokio::time::sleep(Duration::from_secs(3)).await;
    let busy = (cpu(&gateway) - before) / 3.0 * 100.0;
    println!(
        "R13: {} connections held against 256 file descriptors: {busy:.0} % of a core (goal 20 %)",
        held.len()
    );
    assert!(
        gateway.log().contains("cannot accept a connection"),
        "the descriptors were not used up"
    );
    say(&mut session, "meanwhile").await;
    drop(held);
    let began = Instant::now();
    alice.reaches(DEVICE, Duration::from_secs(2) + MARGIN).await;
    println!(
        "R13: after they are gone a session works within {:.1?} (goal 2 s)",
        began.elapsed()
    );
    assert!(busy <= 40.0, "it spins: {busy} %");
    drop(session.stdin.take());
    session.finish().await.succeeded();
    assert!(gateway.is_alive());
}

/// Seconds that the program has computed so far (proc(5): utime and stime, in hundredths).
fn cpu(program: &Daemon) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", program.id())).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks = |at: usize| fields[at].parse::<f64>().unwrap();
    (ticks(11) + ticks(12)) / 100.0
}

#[tokio::test]
async fn while_somebody_holds_the_store_sessions_begin_and_go_on() {
    let scene = Scene::set().await;
    let target = format!("{}@{DEVICE}.default.internal", account());
    let mut session = scene.alice.ssh_command(&[&target, "cat"]);
    session.stdin(Stdio::piped());
    let mut session = Running::start(session);
    say(&mut session, "before").await;
    let store = std::fs::read_dir(scene.home.path("state")).unwrap();
    let store = store
        .map(|entry| entry.unwrap().path())
        .find(|path| {
            path.extension()
                .is_some_and(|extension| extension == "db" || extension == "sqlite")
        })
        .expect("the store's file");
    let hold = "import sqlite3, sys
c = sqlite3.connect(sys.argv[1], isolation_level=None)
c.execute('BEGIN IMMEDIATE')
print('held', flush=True)
sys.stdin.read()";
    let mut holder = stock("python3");
    holder.args(["-c", hold]).arg(&store).stdin(Stdio::piped());
    let mut holder = Running::start(holder);
    assert_eq!(holder.line().await, "held");
    let held = Instant::now();
    let adding = scene.home.fairlead(&["token", "create", "--user", "bob"]);
    let using = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let mut worst = Duration::ZERO;
        while held.elapsed() < Duration::from_secs(4) {
            let began = Instant::now();
            say(&mut session, "meanwhile").await;
            worst = worst.max(began.elapsed());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let began = Instant::now();
        scene.alice.on(DEVICE, "true").await.succeeded();
        let new = began.elapsed();
        drop(holder.stdin.take());
        holder.finish().await.succeeded();
        (worst, new)
    };
    let (added, (worst, new)) = tokio::join!(adding, using);
    println!("R17: the store held for 4 s: echo of a live session at most {worst:.1?}, a new session after {new:.1?}");
    println!("R17: what had to write was answered with exit code {:?}", added.code());
    assert!(worst <= Duration::from_secs(1), "{worst:?}");
    drop(session.stdin.take());
    session.finish().await.succeeded();
    scene
        .home
        .fairlead(&["token", "create", "--user", "carol"])
        .await
        .succeeded();
}
