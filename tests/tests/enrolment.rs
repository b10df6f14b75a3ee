//! Join strings in the hands of real programs: raced for, spent, mistyped, cut, too old, meant for others; and what stays
//! when a machine or the gateway dies in the middle.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "tests fail by panicking, and measured figures are for the reader"
)]

#[path = "enrolment/kill.rs"]
mod kill;
#[path = "enrolment/proxy.rs"]
mod proxy;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant, SystemTime};

use fairlead_agent::enroll;
use fairlead_identity::join::{JoinSecret, JoinString};
use fairlead_identity::verify::{self, Roots, Usage};
use fairlead_runtime::config_file::write_private;
use fairlead_tests::clients::{self, Running, stock};
use fairlead_tests::programs::{
    self, AgentHome, DOMAIN, Daemon, GatewayHome, PATIENCE, UserHome, ended_with, throw_away, until,
};
use proxy::Proxy;
use secrecy::ExposeSecret as _;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

/// How many race.
const RACERS: usize = 50;

#[tokio::test]
async fn fifty_processes_race_for_one_join_string_and_one_gets_a_certificate() {
    let place = Place::set().await;
    let join = place.token("race.join", &["--agent", "pump-7"]).await;
    let homes: Vec<AgentHome> = (0..RACERS).map(|n| place.device(&format!("racer-{n}"))).collect();
    let stdin = std::path::Path::new("-");
    let mut racers: Vec<Running> = homes.iter().map(|home| racer(home.enroll_command(stdin))).collect();
    // All of them stand at the line when the string is given out.
    let began = Instant::now();
    for racer in &mut racers {
        let mut hand = racer.stdin.take().unwrap();
        hand.write_all(join.text.as_bytes()).await.unwrap();
    }
    let mut winners = Vec::new();
    for (racer, home) in racers.into_iter().zip(&homes) {
        let finished = racer.finish().await;
        match finished.code() {
            Some(0) => winners.push(home),
            _ => ended_with(&finished, 77, &["token-spent", "already used"]),
        }
    }
    println!("{RACERS} processes raced for {:.1?}", began.elapsed());
    assert_eq!(winners.len(), 1, "one join string, one certificate");
    let enrolled: Vec<bool> = homes.iter().map(AgentHome::is_enrolled).collect();
    assert_eq!(enrolled.iter().filter(|enrolled| **enrolled).count(), 1);

    let agents = place.home.json(&["agents", "list"]).await;
    assert_eq!(agents["agents"].as_array().unwrap().len(), 1, "{agents:#}");
    assert_eq!(place.home.audit(&["\"enroll\"", "\"allow\""]).len(), 1);
    assert_eq!(place.home.audit(&["\"enroll\"", "\"deny\""]).len(), RACERS - 1);
    // The certificate is good for something.
    let _agent = winners[0].start();
    place.home.linked(1).await;
}

#[tokio::test]
async fn a_machine_killed_before_it_could_keep_its_certificate_tries_again_with_the_same_string() {
    let dir = throw_away();
    let mut home = GatewayHome::plan(&dir.path().join("gateway"));
    let audit = home.path("state/audit.jsonl");
    let answered = move || {
        let audit = std::fs::read_to_string(&audit).unwrap_or_default();
        audit
            .lines()
            .any(|line| line.contains("\"enroll\"") && line.contains("\"allow\""))
    };
    // Packets to the machine are lost from the moment that the gateway has said yes.
    let proxy = Proxy::start(home.port, answered).await;
    home.announce = format!("127.0.0.1:{}", proxy.port);
    home.write();
    home.init().await.succeeded();
    let _gateway = home.start().await;
    let join = dir.path().join("join.txt");
    home.token(&join, &["--agent", "pump-7"]).await;

    let device = AgentHome::plan(&dir.path().join("device"), "");
    let mut first = Daemon::start(device.enroll_command(&join), &device.path("enroll.log"));
    until("the string is spent and the answer lost", PATIENCE, async || {
        proxy.has_lost_something().then_some(())
    })
    .await;
    assert!(first.is_alive());
    first.kill().await;
    assert!(device.path("state/key.pem").exists() && !device.is_enrolled());

    proxy.heal();
    let other = AgentHome::plan(&dir.path().join("other"), "");
    ended_with(&other.enroll(&join).await, 77, &["already used"]);
    ended_with(&device.enroll(&join).await, 0, &["/agent/pump-7"]);
    assert!(device.is_enrolled());
    let _agent = device.start();
    home.linked(1).await;
}

#[tokio::test]
async fn a_join_string_that_is_wrong_in_any_way_is_refused_in_words_that_say_which() {
    let place = Place::set().await;
    // Made first: its 10 s pass while the others are tried.
    let late = place.token("late.join", &["--agent", "late", "--ttl", "10s"]).await;
    let made = Instant::now();

    let good = place.token("good.join", &["--agent", "pump-7"]).await;
    let mut mistyped = good.text.clone().into_bytes();
    let middle = mistyped.len() / 2;
    mistyped[middle] = if mistyped[middle] == b'A' { b'B' } else { b'A' };
    let mut unknown = JoinString::parse(&good.text).unwrap();
    unknown.secret = JoinSecret::from_bytes([7; 32]);
    for (name, text, words) in [
        ("empty", String::new(), "not a join string"),
        ("prose", "please let me in".into(), "not a join string"),
        ("cut", good.text[..good.text.len() - 9].into(), "mistyped or cut short"),
        (
            "mistyped",
            String::from_utf8(mistyped).unwrap(),
            "mistyped or cut short",
        ),
        ("unknown", unknown.encode().unwrap().expose_secret().into(), "bad-token"),
    ] {
        let device = place.device(name);
        let refused = device.enroll(&place.secret(&format!("{name}.join"), &text)).await;
        ended_with(&refused, 77, &[words]);
        assert!(!device.is_enrolled());
        let login = place
            .person(name)
            .login(&place.dir.path().join(format!("{name}.join")))
            .await;
        if name != "unknown" {
            ended_with(&login, 77, &[words]);
        }
    }
    let open = place.secret("open.join", &good.text);
    std::fs::set_permissions(&open, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    ended_with(
        &place.device("open").enroll(&open).await,
        1,
        &["may be read by everybody", "chmod"],
    );

    let device = place.device("pump-7");
    ended_with(&device.enroll(&good.file).await, 0, &["/site/default/agent/pump-7"]);
    ended_with(
        &device.enroll(&good.file).await,
        1,
        &["enrolled already as", "move", "away first"],
    );
    ended_with(
        &place.device("second").enroll(&good.file).await,
        77,
        &["token-spent", "already used"],
    );

    tokio::time::sleep(Duration::from_secs(11).saturating_sub(made.elapsed())).await;
    ended_with(&place.device("late").enroll(&late.file).await, 77, &["token-expired"]);
    let agents = place.home.json(&["agents", "list"]).await;
    assert_eq!(agents["agents"].as_array().unwrap().len(), 1, "{agents:#}");
}

#[tokio::test]
async fn a_join_string_of_another_gateway_on_the_same_address_gives_nothing_away() {
    let dir = throw_away();
    let first = GatewayHome::set_up(&dir.path().join("first")).await;
    let mut running = first.start().await;
    let join = dir.path().join("join.txt");
    first.token(&join, &["--agent", "pump-7"]).await;
    let user_join = dir.path().join("user.txt");
    first.token(&user_join, &["--user", "alice"]).await;
    running.kill().await;

    let mut second = GatewayHome::plan(&dir.path().join("second"));
    second.port = first.port;
    second.write();
    second.init().await.succeeded();
    let mut impostor = second.start().await;
    let device = AgentHome::plan(&dir.path().join("device"), "");
    let words = [
        "is not the gateway that made this join string",
        "nothing was sent to it",
    ];
    ended_with(&device.enroll(&join).await, 77, &words);
    ended_with(
        &UserHome::plan(&dir.path().join("alice")).login(&user_join).await,
        77,
        &words,
    );
    assert_eq!(second.audit(&["enroll"]), Vec::<String>::new(), "something was sent");
    impostor.kill().await;

    // The string is as good as before.
    let _running = first.start().await;
    ended_with(&device.enroll(&join).await, 0, &["enrolled as"]);
}

#[tokio::test]
async fn a_join_string_lets_in_whom_it_was_made_for_and_nobody_else() {
    let place = Place::set().await;
    let agent = place.token("agent.join", &["--agent", "pump-7"]).await;
    let user = place.token("user.join", &["--user", "alice", "--group", "field"]).await;
    let (device, alice) = (place.device("pump-7"), place.person("alice"));
    ended_with(&device.enroll(&user.file).await, 77, &["for a user, not for an agent"]);
    ended_with(&alice.login(&agent.file).await, 77, &["for an agent, not for a user"]);
    assert_eq!(
        place.home.audit(&["\"enroll\""]),
        Vec::<String>::new(),
        "a string was sent"
    );
    ended_with(&device.enroll(&agent.file).await, 0, &["/agent/pump-7"]);
    ended_with(&alice.login(&user.file).await, 0, &["logged in as alice"]);
}

#[tokio::test]
async fn no_program_takes_a_join_string_from_its_command_line() {
    let place = Place::set().await;
    let join = place.token("argv.join", &["--agent", "pump-7"]).await;
    let device = place.device("pump-7");
    for flag in [None, Some("--token"), Some("--join"), Some("--secret")] {
        let mut enroll = device.command("enroll");
        enroll.args(flag).arg(&join.text);
        ended_with(&clients::run(enroll).await, 64, &["Usage"]);
        let login = ["login"].into_iter().chain(flag).chain([join.text.as_str()]);
        ended_with(&programs::run("fairlead", login).await, 64, &["Usage"]);
    }
    // Standard input is how a string is handed over without a file.
    let mut enroll = device.command("enroll");
    enroll.args(["--token-file", "-"]).stdin(Stdio::piped());
    ended_with(
        &clients::run_with(enroll, join.text.as_bytes()).await,
        0,
        &["/agent/pump-7"],
    );
}

#[tokio::test]
async fn the_gateway_sets_every_name_whatever_the_request_asks_for() {
    let place = Place::set().await;
    let join = place
        .token("names.join", &["--agent", "pump-7", "--site", "plant-7"])
        .await;
    let csr = place.dir.path().join("greedy.csr");
    let subject_alternatives = format!(
        "subjectAltName=URI:spiffe://{DOMAIN}/gateway/gateway,URI:spiffe://{DOMAIN}/site/default/agent/pump-8,DNS:{DOMAIN}"
    );
    let mut openssl = stock("openssl");
    openssl.args([
        "req",
        "-new",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
    ]);
    openssl.args(["-subj", "/CN=admin", "-addext", &subject_alternatives]);
    openssl.args([
        "-addext",
        "basicConstraints=critical,CA:TRUE",
        "-addext",
        "extendedKeyUsage=serverAuth",
    ]);
    openssl
        .args(["-outform", "DER", "-keyout", "/dev/null", "-out"])
        .arg(&csr);
    clients::run(openssl).await.succeeded();

    let join = JoinString::parse(&join.text).unwrap();
    let reported = BTreeMap::from([("name".to_owned(), "pump-8".to_owned())]);
    let enrolled = enroll::exchange(&join, std::fs::read(&csr).unwrap(), reported)
        .await
        .unwrap();
    let name = format!("spiffe://{DOMAIN}/site/plant-7/agent/pump-7");
    assert_eq!(enrolled.principal, name);
    let chain = fairlead_identity::chain::from_ders(enrolled.certificate_chain.clone()).unwrap();
    let roots = Roots::from_der(std::slice::from_ref(chain.last().unwrap())).unwrap();
    let now = SystemTime::now();
    let who = verify::authenticate(&chain, &roots, Usage::Client, DOMAIN, now).unwrap();
    assert_eq!(who.principal().to_string(), name);
    verify::authenticate(&chain, &roots, Usage::Server, DOMAIN, now).unwrap_err();
    let leaf = String::from_utf8_lossy(&enrolled.certificate_chain[0]).into_owned();
    for asked in ["admin", "gateway/gateway", "pump-8"] {
        assert!(!leaf.contains(asked), "the certificate has {asked:?} of the request");
    }
}

fn racer(mut enroll: Command) -> Running {
    enroll.stdin(Stdio::piped());
    Running::start(enroll)
}

/// A running gateway and room for machines.
struct Place {
    home: GatewayHome,
    _gateway: Daemon,
    dir: TempDir,
}

/// A join string and the file it lies in.
struct Join {
    text: String,
    file: PathBuf,
}

impl Place {
    async fn set() -> Self {
        let dir = throw_away();
        let home = GatewayHome::set_up(&dir.path().join("gateway")).await;
        let gateway = home.start().await;
        Self {
            home,
            _gateway: gateway,
            dir,
        }
    }

    async fn token(&self, file: &str, arguments: &[&str]) -> Join {
        let file = self.dir.path().join(file);
        Join {
            text: self.home.token(&file, arguments).await,
            file,
        }
    }

    fn secret(&self, name: &str, text: &str) -> PathBuf {
        let file = self.dir.path().join(name);
        write_private(&file, text.as_bytes(), 0o600).unwrap();
        file
    }

    fn device(&self, name: &str) -> AgentHome {
        AgentHome::plan(&self.dir.path().join(format!("device-{name}")), "")
    }

    fn person(&self, name: &str) -> UserHome {
        UserHome::plan(&self.dir.path().join(format!("person-{name}")))
    }
}
