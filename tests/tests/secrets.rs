//! Secrets where they must not be (SECURITY.md P10, A15): the shipped programs run with their logs at the finest level while a
//! device is enrolled, a person logs in and works; then everything that they said, keep, show or leave behind is searched for
//! every secret in every spelling.
//!
//! Each secret must be found where it belongs, by the same search: a search that finds nothing anywhere proves nothing.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "tests fail by panicking, and what was searched is for the reader"
)]

#[path = "secrets/canary.rs"]
mod canary;
#[path = "secrets/haystack.rs"]
mod haystack;

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use fairlead_tests::clients::{Running, run};
use fairlead_tests::programs::{
    self, AgentHome, DEVICE, Daemon, GatewayHome, PATIENCE, UserHome, account, command, throw_away, until,
};
use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};
use nix::sys::signal::Signal;
use tokio::process::Command;

use canary::Canary;
use haystack::Haystack;

/// What `tracing` gives at most; rustls, quinn, russh and hyper included.
const FINEST: &str = "trace";

#[tokio::test]
async fn no_secret_is_found_where_it_does_not_belong() {
    let dir = throw_away();
    // Children inherit it: whether a core file comes is then up to them alone.
    setrlimit(Resource::RLIMIT_CORE, RLIM_INFINITY, RLIM_INFINITY).unwrap();
    let mut hay = Haystack::default();

    let home = GatewayHome::set_up(&dir.path().join("gateway")).await;
    let mut gateway = Daemon::start(
        in_dir(traced(home.command("run")), dir.path()),
        &home.path("gateway.log"),
    );
    ready(&home).await;

    let device = AgentHome::plan(&dir.path().join("device"), &AgentHome::builtin(DEVICE));
    let join_agent = join(&home, &dir.path().join("device.join"), &["--agent", DEVICE], &mut hay).await;
    hay.said(
        "enroll",
        run(traced(device.enroll_command(&join_agent))).await.succeeded(),
    );
    let mut agent = Daemon::start(
        in_dir(traced(device.command("run")), dir.path()),
        &device.path("agent.log"),
    );
    home.linked(1).await;

    let alice = dir.path().join("alice");
    let join_user = join(
        &home,
        &dir.path().join("alice.join"),
        &["--user", "alice", "--group", "field"],
        &mut hay,
    )
    .await;
    let mut login = traced(command("fairlead", ["login", "--token-file"]));
    login.arg(&join_user).env("FAIRLEAD_HOME", &alice);
    hay.said("login", run(login).await.succeeded());
    let mut again = traced(command("fairlead", ["login"]));
    again.env("FAIRLEAD_HOME", &alice);
    hay.said("login again", run(again).await.succeeded());

    session(&home, &alice, &mut hay, &[gateway.id(), agent.id()]).await;
    answers(&home, &mut hay).await;
    wrong_join_string(&home, dir.path(), &mut hay).await;

    let cores = dumps(dir.path(), &mut [&mut gateway, &mut agent]).await;
    hay.add("gateway.log", gateway.log().into_bytes());
    hay.add("agent.log", agent.log().into_bytes());
    assert!(gateway.log().contains("TRACE"), "the gateway's log is at its finest");
    assert!(agent.log().contains("TRACE"), "the agent's log is at its finest");
    hay.tree(dir.path());

    let canaries = Canary::of(dir.path(), &[&join_agent, &join_user]);
    assert!(canaries.len() >= 11, "only {} canaries", canaries.len());
    let mut hits = Vec::new();
    for canary in &canaries {
        let found = hay.find(canary);
        let home = &canary.home;
        assert!(
            found.contains(&home.display().to_string()),
            "{} is not found in {}: {found:?}",
            canary.name,
            home.display()
        );
        hits.extend(
            found
                .into_iter()
                .filter(|place| !canary.may_be_in(place))
                .map(|place| format!("{} in {place}", canary.name)),
        );
    }
    println!(
        "A15: {} canaries in {} spellings each, searched in {} places with {} MiB; {} hits; core files of killed programs: {cores}",
        canaries.len(),
        canaries[0].spellings().len(),
        hay.len(),
        hay.bytes() >> 20,
        hits.len(),
    );
    assert_eq!(hits, Vec::<String>::new());
}

#[tokio::test]
async fn what_holds_a_secret_is_private_from_its_first_byte() {
    let dir = throw_away();
    // The widest mask: a file that relied on it would be open to all.
    let widest = |mut command: Command| {
        let shown = command
            .as_std()
            .get_args()
            .map(|part| part.to_str().unwrap().to_owned())
            .collect::<Vec<_>>();
        let program = command.as_std().get_program().to_str().unwrap().to_owned();
        let mut shell = fairlead_tests::clients::stock("sh");
        shell.args(["-c", "umask 0; exec \"$@\"", "sh", &program]).args(shown);
        for (name, value) in command.as_std().get_envs() {
            if let Some(value) = value {
                shell.env(name, value);
            }
        }
        command.kill_on_drop(false);
        shell
    };
    let home = GatewayHome::plan(&dir.path().join("gateway"));
    let mut init = widest(home.command("init"));
    init.stdin(Stdio::null());
    run(init).await.succeeded();
    let _gateway = Daemon::start(widest(home.command("run")), &home.path("gateway.log"));
    ready(&home).await;
    let device = AgentHome::plan(&dir.path().join("device"), &AgentHome::builtin(DEVICE));
    home.token(&dir.path().join("device.join"), &["--agent", DEVICE]).await;
    run(widest(device.enroll_command(&dir.path().join("device.join"))))
        .await
        .succeeded();
    let _agent = Daemon::start(widest(device.command("run")), &device.path("agent.log"));
    home.linked(1).await;
    home.token(&dir.path().join("alice.join"), &["--user", "alice"]).await;
    let mut login = widest(command("fairlead", ["login", "--token-file"]));
    login
        .arg(dir.path().join("alice.join"))
        .env("FAIRLEAD_HOME", dir.path().join("alice"));
    run(login).await.succeeded();

    let mut looked_at = 0;
    for root in [home.path("state"), device.path("state"), dir.path().join("alice")] {
        for (path, mode) in modes(&root) {
            looked_at += 1;
            assert_eq!(mode & 0o077, 0, "{} has mode {mode:o}", path.display());
        }
    }
    assert!(looked_at >= 20, "only {looked_at} files and directories");
}

/// A join string in a file that only its owner reads, made with the log at its finest.
async fn join(home: &GatewayHome, file: &Path, arguments: &[&str], hay: &mut Haystack) -> PathBuf {
    let mut create = traced(command("fairlead", ["token", "create"]));
    create
        .args(arguments)
        .env("FAIRLEAD_ADMIN_SOCKET", home.path("admin.sock"));
    let made = run(create).await.succeeded();
    fairlead_runtime::config_file::write_private(file, made.text().trim().as_bytes(), 0o600).unwrap();
    // Its standard output is the one place where a join string is shown.
    hay.add(
        &format!("stderr of token create {arguments:?}"),
        made.stderr.into_bytes(),
    );
    file.to_owned()
}

/// Arguments and environments of everything that runs while alice has a session, and what the session itself sees.
async fn session(home: &GatewayHome, alice: &Path, hay: &mut Haystack, daemons: &[u32]) {
    let mut ssh = traced(command("fairlead", ["ssh", "-vv"]));
    ssh.env("FAIRLEAD_HOME", alice);
    ssh.arg(format!("{}@{DEVICE}", account()));
    ssh.arg("env; cat /proc/self/environ; echo begun; read -r _");
    ssh.stdin(Stdio::piped());
    let mut running = Running::start(ssh);
    let mut seen = String::new();
    loop {
        let line = running.line().await;
        seen.push_str(&line);
        seen.push('\n');
        if line.ends_with("begun") {
            break;
        }
    }
    hay.add("environment inside the session", seen.into_bytes());
    let own: Vec<u32> = haystack::descendants(std::process::id());
    for id in daemons {
        assert!(own.contains(id), "process {id} is looked at");
    }
    assert!(
        own.len() > daemons.len() + 1,
        "fairlead ssh and what it started are looked at: {own:?}"
    );
    own.iter().for_each(|id| hay.process(*id));
    drop(running.stdin.take());
    hay.said("fairlead ssh", running.finish().await);
    // The plain way in, for what the Include brings.
    hay.said("ssh", UserHome::plan(alice).on(DEVICE, "true").await.succeeded());
    assert!(!home.audit(&["session.end"]).is_empty());
}

/// What administration and monitoring are shown.
async fn answers(home: &GatewayHome, hay: &mut Haystack) {
    for list in [
        &["agents", "list"][..],
        &["agents", "show", DEVICE],
        &["users", "list"],
        &["users", "keys", "alice"],
        &["sessions", "list"],
        &["hosts", "list"],
    ] {
        let shown = home.fairlead(&[list, &["--json"]].concat()).await;
        hay.said(&format!("{list:?}"), shown.succeeded());
    }
    for path in ["/metrics", "/healthz", "/readyz"] {
        let (_, text) = programs::http_get((std::net::Ipv4Addr::LOCALHOST, home.metrics).into(), path)
            .await
            .unwrap();
        hay.add(path, text.into_bytes());
    }
}

/// Errors repeat what they were given only as far as it is no secret.
async fn wrong_join_string(home: &GatewayHome, dir: &Path, hay: &mut Haystack) {
    let spent = dir.join("device.join");
    let other = AgentHome::plan(&dir.join("other"), "");
    let refused = run(traced(other.enroll_command(&spent))).await;
    assert_eq!(refused.code(), Some(77), "{}", refused.stderr);
    hay.said("a spent join string", refused);
    // Cut in the middle, and in argv, where the command line refuses to take it.
    let text = std::fs::read_to_string(&spent).unwrap();
    let cut = dir.join("cut.join");
    fairlead_runtime::config_file::write_private(&cut, &text.as_bytes()[..text.len() - 7], 0o600).unwrap();
    hay.said("a cut join string", run(traced(other.enroll_command(&cut))).await);
    std::fs::remove_file(&cut).unwrap();
    assert!(!home.audit(&["enroll", "deny"]).is_empty());
}

/// Kills the programs with a signal that leaves a core file where it may; how many came.
async fn dumps(dir: &Path, daemons: &mut [&mut Daemon]) -> String {
    for daemon in daemons.iter_mut() {
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", daemon.id())).unwrap();
        let line = limits
            .lines()
            .find(|line| line.starts_with("Max core file size"))
            .unwrap();
        assert_eq!(line.split_whitespace().nth(4), Some("0"), "{line}");
        // What may not be dumped belongs to root in /proc, whoever runs it; as root the two look the same.
        daemon.signal(Signal::SIGABRT);
        assert_eq!(daemon.ended(PATIENCE).await, None, "ended by the signal");
    }
    let count = || {
        modes(dir)
            .iter()
            .filter(|(path, _)| {
                path.file_name()
                    .is_some_and(|name| name.to_string_lossy().starts_with("core"))
            })
            .count()
    };
    assert_eq!(count(), 0, "core files in {}", dir.display());
    // Whether this machine writes core files here at all.
    let mut control = fairlead_tests::clients::stock("sh");
    control.args(["-c", "kill -ABRT $$"]).current_dir(dir);
    run(control).await;
    if count() == 0 {
        "0 (this machine writes none here)".into()
    } else {
        "0 (a control left one)".into()
    }
}

fn traced(mut command: Command) -> Command {
    command.env("FAIRLEAD_LOG", FINEST).env("RUST_BACKTRACE", "full");
    command
}

fn in_dir(mut command: Command, dir: &Path) -> Command {
    command.current_dir(dir);
    command
}

async fn ready(home: &GatewayHome) {
    let address = (std::net::Ipv4Addr::LOCALHOST, home.metrics).into();
    until("the gateway is ready", PATIENCE, async || {
        programs::http_get(address, "/readyz").await.map(drop)
    })
    .await;
}

/// Every file and directory below, with its mode.
fn modes(root: &Path) -> Vec<(PathBuf, u32)> {
    let mut found = Vec::new();
    let mut open = vec![root.to_owned()];
    while let Some(path) = open.pop() {
        let meta = std::fs::symlink_metadata(&path).unwrap();
        if meta.is_dir() {
            open.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        if !meta.is_symlink() {
            found.push((path, meta.mode()));
        }
    }
    found
}
