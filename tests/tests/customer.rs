//! The customer's hand: their file read again under live sessions, their questions about it, their pause. The programs are
//! the real ones, the callers stock ssh.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

#[path = "customer/file.rs"]
mod file;

use std::process::Stdio;
use std::time::{Duration, Instant, SystemTime};

use fairlead_runtime::audit;
use fairlead_runtime::config_file::write_private;
use fairlead_tests::clients::{self, Finished, Running};
use fairlead_tests::programs::{AgentHome, DOMAIN, Daemon, PATIENCE, Scene, UserHome, account, ended_with, until};
use fairlead_tests::upstream::Echo;
use nix::sys::signal::Signal;
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::io::AsyncWriteExt;

/// How soon a session that has lost its answer is over for its caller.
const CUT_LIMIT: Duration = Duration::from_secs(5);

/// A program of stock ssh that answers what it is told.
struct Talk(Running);

impl Talk {
    async fn shell(user: &UserHome) -> Self {
        let device = format!("{}@pump-7.default.internal", account());
        let mut talk = Self::begin(user.ssh_command(&[&device, "echo begun; exec cat"]));
        assert_eq!(talk.0.line().await, "begun");
        talk
    }

    async fn tunnel(user: &UserHome, port: u16) -> Self {
        let target = format!("pump-7.default.internal:{port}");
        let mut talk = Self::begin(user.ssh_command(&["-W", &target, DOMAIN]));
        talk.answers().await;
        talk
    }

    fn begin(mut command: tokio::process::Command) -> Self {
        command.stdin(Stdio::piped());
        Self(Running::start(command))
    }

    async fn answers(&mut self) {
        let input = self.0.stdin.as_mut().unwrap();
        input.write_all(b"still there\n").await.unwrap();
        assert_eq!(self.0.line().await, "still there");
    }

    /// Its end, which must come in time after `cause`.
    async fn ended(self, cause: Instant) -> Finished {
        let finished = tokio::time::timeout(PATIENCE, self.0.finish())
            .await
            .expect("the session ends");
        assert!(cause.elapsed() < CUT_LIMIT, "the end took {:?}", cause.elapsed());
        finished
    }
}

/// Writes agent.yaml anew, with these endpoints.
fn write(device: &AgentHome, endpoints: &str) -> String {
    let path = device.path("agent.yaml");
    let old = std::fs::read_to_string(&path).unwrap();
    let (head, rest) = old.split_once("endpoints:").unwrap();
    let tail = &rest[rest.find("builtin_ssh:").unwrap()..];
    let text = format!("{head}endpoints:\n{endpoints}{tail}");
    write_private(&path, text.as_bytes(), 0o600).unwrap();
    audit::hash(text.as_bytes())
}

fn shells(rule: &str) -> String {
    format!(
        "  - url: ssh://pump-7.default.internal\n    upstream: {{ url: \"builtin:ssh\" }}\n    rules:\n      - {rule}\n"
    )
}

fn named(names: &str) -> String {
    format!("{{ name: people, effect: allow, expressions: [\"caller.name in [{names}]\"] }}")
}

async fn ask(device: &AgentHome, arguments: &[&str]) -> Finished {
    let mut command = device.command(arguments[0]);
    command.args(&arguments[1..]);
    clients::run(command).await
}

async fn json(device: &AgentHome, question: &str) -> Value {
    let answer = ask(device, &[question, "--json"]).await.succeeded();
    serde_json::from_slice(&answer.stdout).unwrap()
}

async fn reloaded(device: &AgentHome, agent: &Daemon, texts: &[&str]) {
    let before = device.audit(&["config.reload"]).len();
    agent.signal(Signal::SIGHUP);
    let line = until("the file is read again", PATIENCE, async || {
        device.audit(&["config.reload"]).into_iter().nth(before)
    })
    .await;
    for text in texts {
        assert!(line.contains(text), "no {text} in {line}");
    }
}

#[tokio::test]
async fn a_file_that_is_read_again_ends_whom_it_no_longer_permits_and_nobody_else() {
    let (kept, removed, added) = (Echo::start().await, Echo::start().await, Echo::start().await);
    let tcp = |echo: &Echo| AgentHome::tcp("pump-7", echo.address.port());
    let mut scene = Scene::set().await;
    let bob = scene.home.user(&scene.path("bob"), "bob", "field").await;
    let first = write(
        &scene.device,
        &(shells(&named("'alice', 'bob'")) + &tcp(&kept) + &tcp(&removed)),
    );
    reloaded(&scene.device, &scene.agent, &["\"allow\"", &first]).await;
    // What the file lists is offered to the gateway by itself.
    until("the endpoint is offered", PATIENCE, async || {
        let status = json(&scene.device, "status").await;
        (status["accepted"].as_array().unwrap().len() == 3).then_some(())
    })
    .await;
    let (alice_shell, mut bob_shell) = (Talk::shell(&scene.alice).await, Talk::shell(&bob).await);
    let mut on_kept = Talk::tunnel(&scene.alice, kept.address.port()).await;
    let on_removed = Talk::tunnel(&scene.alice, removed.address.port()).await;
    let live = json(&scene.device, "sessions").await;
    assert_eq!(live["sessions"].as_array().unwrap().len(), 4, "{live:#}");

    let second = write(&scene.device, &(shells(&named("'bob'")) + &tcp(&kept) + &tcp(&added)));
    let cause = Instant::now();
    scene.agent.signal(Signal::SIGHUP);
    let told = alice_shell.ended(cause).await;
    let session = told.refused_as("policy-changed");
    assert!(
        told.stderr
            .contains("the rules of this device do not permit it any more"),
        "{}",
        told.stderr
    );
    on_removed.ended(cause).await;
    bob_shell.answers().await;
    on_kept.answers().await;
    let ended = until("both ends are written", PATIENCE, async || {
        let ended = scene.device.audit(&["session.end", "policy-changed"]);
        (ended.len() == 2).then_some(ended)
    })
    .await;
    assert!(
        ended
            .iter()
            .any(|line| line.contains(&session) && line.contains("no-rule")),
        "{ended:#?}"
    );
    assert!(ended.iter().any(|line| line.contains("not-listed")), "{ended:#?}");
    // The gateway's audit has the same end of the same session.
    until("the gateway knows", PATIENCE, async || {
        scene.home.audit(&["session.end", "policy-changed", &session]).pop()
    })
    .await;
    let mut on_added = Talk::tunnel(&scene.alice, added.address.port()).await;
    let gone = scene
        .alice
        .ssh(&[
            "-W",
            &format!("pump-7.default.internal:{}", removed.address.port()),
            DOMAIN,
        ])
        .await;
    gone.refused_as("denied");

    // Mistakes change nothing, for nobody.
    write(
        &scene.device,
        "  - { url: ssh://pump-7, upstream: { url: \"udp://x\" } }\n",
    );
    reloaded(&scene.device, &scene.agent, &["\"deny\"", "mistakes", &second]).await;
    for talk in [&mut bob_shell, &mut on_kept, &mut on_added] {
        talk.answers().await;
    }
    assert_eq!(json_of_running(&scene).await, second);
    ended_with(&ask(&scene.device, &["scope"]).await, 78, &["agent.yaml:"]);
    // What an agent cannot change while it runs is said.
    let text = std::fs::read_to_string(scene.device.path("agent.yaml")).unwrap();
    let text = text
        .replacen("version: 1\n", "version: 1\ndata_saver: true\n", 1)
        .replacen("udp://x", "tcp://127.0.0.1:1", 1);
    write_private(&scene.device.path("agent.yaml"), text.as_bytes(), 0o600).unwrap();
    reloaded(&scene.device, &scene.agent, &["after_restart", "data_saver"]).await;
    assert!(scene.agent.log().contains("hold after a restart only"));
    scene.is_sound().await;
}

async fn json_of_running(scene: &Scene) -> String {
    // The file on the disk is bad, and asks for a socket all the same: any good file with that socket will do.
    let good = scene.path("good.yaml");
    let text = format!(
        "version: 1\nstate_dir: \"{0}\"\ncontrol_socket: \"{0}/control.sock\"\n",
        scene.device.path("").display()
    );
    write_private(&good, text.as_bytes(), 0o600).unwrap();
    let mut command = fairlead_tests::programs::command("fairlead-agent", ["status", "--json", "--config"]);
    command.arg(&good);
    let answer = clients::run(command).await.succeeded();
    let status: Value = serde_json::from_slice(&answer.stdout).unwrap();
    status["sha256"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_rule_that_closes_by_the_clock_ends_the_session_that_it_let_in() {
    let mut scene = Scene::set().await;
    let bob = scene.home.user(&scene.path("bob"), "bob", "field").await;
    let until_when = OffsetDateTime::from(SystemTime::now() + Duration::from_secs(6));
    let until_when = until_when.format(&Rfc3339).unwrap();
    let rule = format!(
        "{{ name: shift, effect: allow, expressions: [\"caller.name == 'bob' || time.now < timestamp('{until_when}')\"] }}"
    );
    write(&scene.device, &shells(&rule));
    reloaded(&scene.device, &scene.agent, &["\"allow\""]).await;
    let (mut alice_shell, mut bob_shell) = (Talk::shell(&scene.alice).await, Talk::shell(&bob).await);
    alice_shell.answers().await;
    let told = tokio::time::timeout(
        Duration::from_secs(6) + CUT_LIMIT + Duration::from_secs(1),
        alice_shell.0.finish(),
    );
    let told = told.await.expect("the session ends when its time is over");
    told.refused_as("policy-changed");
    bob_shell.answers().await;
    scene.is_sound().await;
}

#[tokio::test]
async fn the_limits_of_a_rule_hold_at_the_agent() {
    let echo = Echo::start().await;
    let mut scene = Scene::set().await;
    let limited = "{ name: limited, effect: allow, limits: { session: 3s, sessions_per_caller: 1 } }";
    let port = echo.address.port();
    let endpoints = shells("{ name: quiet, effect: allow, limits: { idle: 1s } }")
        + &format!(
            "  - url: tcp://pump-7.default.internal:{port}\n    upstream: {{ url: \"tcp://127.0.0.1:{port}\" }}\n    rules: [ {limited} ]\n"
        );
    write(&scene.device, &endpoints);
    reloaded(&scene.device, &scene.agent, &["\"allow\""]).await;
    until("the endpoint is offered", PATIENCE, async || {
        let status = json(&scene.device, "status").await;
        (status["accepted"].as_array().unwrap().len() == 2).then_some(())
    })
    .await;
    let first = Talk::tunnel(&scene.alice, port).await;
    let second = scene
        .alice
        .ssh(&["-W", &format!("pump-7.default.internal:{port}"), DOMAIN])
        .await;
    second.refused_as("limit");
    let cause = Instant::now();
    first.ended(cause).await;
    until("the end is written", PATIENCE, async || {
        scene.device.audit(&["session.end", "session-limit"]).pop()
    })
    .await;
    let quiet = Talk::shell(&scene.alice).await;
    quiet.ended(Instant::now()).await.refused_as("idle-limit");
    scene.is_sound().await;
}

#[tokio::test]
async fn a_pause_ends_everything_and_outlives_the_agent_until_it_is_resumed() {
    let mut scene = Scene::set().await;
    let shell = Talk::shell(&scene.alice).await;
    let cause = Instant::now();
    let said = ask(&scene.device, &["pause"]).await.succeeded();
    assert!(said.text().contains("1 sessions ended"), "{}", said.text());
    let told = shell.ended(cause).await;
    told.refused_as("agent-stopping");
    assert!(told.stderr.contains("paused by its owner"), "{}", told.stderr);
    scene.alice.on("pump-7", "true").await.refused_as("agent-stopping");
    assert_eq!(scene.device.audit(&["agent.pause", "\"uid\""]).len(), 1);
    assert_eq!(scene.device.audit(&["session.refuse", "\"paused\""]).len(), 1);
    // The gateway sees a stable reason.
    until("both ends at the gateway", PATIENCE, async || {
        (scene.home.audit(&["session.end", "agent-stopping"]).len() == 2).then_some(())
    })
    .await;

    scene.agent.signal(Signal::SIGTERM);
    assert_eq!(scene.agent.ended(PATIENCE).await, Some(0));
    scene.home.linked(0).await;
    scene.agent = scene.device.start();
    scene.home.linked(1).await;
    scene.alice.on("pump-7", "true").await.refused_as("agent-stopping");
    let status = json(&scene.device, "status").await;
    assert_eq!(status["paused"]["uid"], nix::unistd::geteuid().as_raw());
    assert!(
        ask(&scene.device, &["status"])
            .await
            .text()
            .contains("NO: paused since")
    );

    ask(&scene.device, &["resume"]).await.succeeded();
    scene.alice.on("pump-7", "true").await.succeeded();
    assert_eq!(scene.device.audit(&["agent.resume"]).len(), 1);
    scene.is_sound().await;
}

#[tokio::test]
async fn the_customer_lists_sessions_and_cuts_one_of_them() {
    let mut scene = Scene::set().await;
    let bob = scene.home.user(&scene.path("bob"), "bob", "field").await;
    let (cut, mut other) = (Talk::shell(&scene.alice).await, Talk::shell(&bob).await);
    let live = json(&scene.device, "sessions").await;
    let sessions = live["sessions"].as_array().unwrap();
    let of = |name: &str| sessions.iter().find(|session| session["caller"] == name).unwrap();
    assert_eq!(of("alice")["acts"], serde_json::json!(["exec"]), "{live:#}");
    let id = of("alice")["session"].as_str().unwrap().to_owned();
    assert!(ask(&scene.device, &["sessions"]).await.text().contains(&id));
    let cause = Instant::now();
    ask(&scene.device, &["cut", &id]).await.succeeded();
    assert_eq!(cut.ended(cause).await.refused_as("killed"), id);
    other.answers().await;
    let line = scene.device.audit(&["session.cut", &id]);
    assert_eq!(line.len(), 1);
    // The caller hears of the end before the agent has put everything of the session away.
    let again = until("the session is known no longer", PATIENCE, async || {
        let again = ask(&scene.device, &["cut", &id]).await;
        (again.code() != Some(0)).then_some(again)
    })
    .await;
    ended_with(&again, 1, &["no session"]);
    ended_with(&ask(&scene.device, &["cut", "x"]).await, 1, &["no session's id"]);
    until("the end at both sides", PATIENCE, async || {
        scene.device.audit(&["session.end", "killed", &id]).pop()?;
        scene.home.audit(&["session.end", "killed", &id]).pop()
    })
    .await;
    scene.is_sound().await;
}

#[tokio::test]
async fn the_control_socket_answers_root_and_its_own_user_only() {
    if !nix::unistd::geteuid().is_root() {
        #[expect(clippy::print_stderr, reason = "a skip is loud")]
        {
            eprintln!("SKIPPED: whom the socket answers is asked as several users, which takes root");
        }
        return;
    }
    let mut scene = Scene::set().await;
    let socket = scene.device.path("control.sock");
    // Open to everybody, to see that it is not the mode alone that holds.
    for path in [scene.path(""), scene.device.path("")] {
        let mut chmod = clients::stock("chmod");
        chmod.arg("0755").arg(path);
        clients::run(chmod).await.succeeded();
    }
    let mut chmod = clients::stock("chmod");
    chmod.arg("0777").arg(&socket);
    clients::run(chmod).await.succeeded();
    let request = "{\"ask\":\"pause\"}";
    // Debian has perl everywhere; our own program may lie where nobody else may look.
    let script = format!(
        "use IO::Socket::UNIX; my $s = IO::Socket::UNIX->new(Peer => '{}') or die \"connect: $!\"; print $s '{request}', \"\\n\"; $s->flush; print <$s>;",
        socket.display()
    );
    let as_user = |uid: &str| {
        let mut command = clients::stock("setpriv");
        command.args([
            "--reuid",
            uid,
            "--regid",
            uid,
            "--clear-groups",
            "/usr/bin/perl",
            "-e",
            &script,
        ]);
        command
    };
    let nobody = clients::run(as_user("65534")).await;
    assert!(nobody.text().is_empty(), "{}{}", nobody.text(), nobody.stderr);
    assert!(
        !nobody.stderr.contains("connect:") && nobody.code() != Some(127),
        "{}",
        nobody.stderr
    );
    assert!(scene.device.audit(&["agent.pause"]).is_empty());
    until("it is logged", PATIENCE, async || {
        scene.agent.log().contains("neither root").then_some(())
    })
    .await;
    assert!(clients::run(as_user("0")).await.text().contains("done"));
    // What is no question is answered as such; a long one is not read to its end.
    for bytes in [
        b"{}\n".to_vec(),
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        vec![b'x'; 100_000],
    ] {
        let mut stream = tokio::net::UnixStream::connect(&socket).await.unwrap();
        drop(stream.write_all(&bytes).await);
        let mut answer = Vec::new();
        drop(tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut answer).await);
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(answer.is_empty() || answer.contains("not understood"), "{answer}");
    }
    ask(&scene.device, &["resume"]).await.succeeded();
    scene.is_sound().await;
}

#[tokio::test]
async fn a_running_agent_with_another_file_is_told_apart() {
    let scene = Scene::set().await;
    let same = ask(&scene.device, &["scope"]).await.succeeded();
    assert!(
        same.text().contains("in force in the running agent\n"),
        "{}",
        same.text()
    );
    write(&scene.device, &shells(&named("'alice'")));
    let other = ask(&scene.device, &["scope"]).await.succeeded();
    assert!(other.text().contains("ANOTHER file in force"), "{}", other.text());
    assert_eq!(json(&scene.device, "scope").await["running"]["same"], false);
    let explained = ask(&scene.device, &["explain", "ssh://pump-7", "--as", "alice"])
        .await
        .succeeded();
    assert!(
        explained.text().contains("ANOTHER file in force"),
        "{}",
        explained.text()
    );
}
