//! Who was revoked stays out when the gateway is killed right after the command has answered: from the first moment of its
//! next life, by whatever they come with.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "tests fail by panicking, and measured figures are for the reader"
)]

use std::time::{Duration, Instant};

use fairlead_tests::clients::{Finished, Running, run_with, stock};
use fairlead_tests::programs::{AgentHome, DEVICE, DOMAIN, PATIENCE, Scene, UserHome, ended_with, until};
use fairlead_tests::upstream::Echo;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// SECURITY.md P9: refused within a second after the start. Nothing may get in before either.
const LOOK_FOR: Duration = Duration::from_secs(1);

/// Runs the command, kills the gateway as soon as it has answered, and starts it again.
async fn revoke_and_restart(scene: &mut Scene, what: &[&str]) {
    let revoked = scene.home.fairlead(&[&["revoke"], what].concat()).await;
    scene.gateway.kill().await;
    ended_with(&revoked, 0, &["Revoked: "]);
    scene.gateway = scene.home.start().await;
}

/// Asks again and again for a second: every answer must be a refusal.
async fn stays_out(what: &str, mut attempt: impl AsyncFnMut() -> Finished) {
    let (began, mut refused) = (Instant::now(), 0);
    while refused == 0 || began.elapsed() < LOOK_FOR {
        let said = attempt().await;
        assert!(!said.status.success(), "{what}: let in: {}{}", said.text(), said.stderr);
        if refused == 0 {
            println!("{what}: refused {:.0?} after the start", began.elapsed());
        }
        refused += 1;
    }
}

/// Stock openssl with the certificate of somebody who logged in.
fn s_client(scene: &Scene, who: &UserHome, more: &[&str]) -> Command {
    let name = format!("{DEVICE}.default.{DOMAIN}");
    let mut client = stock("openssl");
    client
        .args(["s_client", "-quiet", "-connect"])
        .arg(scene.address().to_string())
        .args(["-servername", &name, "-CAfile"])
        .arg(who.dir().join("ca.pem"))
        .arg("-cert")
        .arg(who.dir().join("cert.pem"))
        .arg("-cert_chain")
        .arg(who.dir().join("cert.pem"))
        .arg("-key")
        .arg(who.dir().join("login.key.pem"))
        .args(more);
    client
}

async fn gets_in_by_tls(scene: &Scene, who: &UserHome, more: &[&str]) {
    let mut command = s_client(scene, who, more);
    command.stdin(std::process::Stdio::piped());
    let mut client = Running::start(command);
    client.stdin.as_mut().unwrap().write_all(b"anybody?\n").await.unwrap();
    assert_eq!(client.line().await, "anybody?");
}

async fn is_revoked_by_tls(scene: &Scene, who: &UserHome, more: &[&str]) {
    let said = run_with(s_client(scene, who, more), b"anybody?\n").await;
    assert!(!said.text().contains("anybody?"), "let in by TLS: {}", said.text());
    assert!(said.stderr.contains("alert certificate revoked"), "{}", said.stderr);
}

#[tokio::test]
async fn who_was_revoked_right_before_a_kill_is_refused_from_the_first_moment_of_the_next_life() {
    let echo = Echo::start().await;
    let mut scene = Scene::with_endpoints(&AgentHome::tcp(DEVICE, echo.address.port())).await;
    let bob = scene.home.user(&scene.path("bob"), "bob", "field").await;
    let etl = UserHome::plan(&scene.path("etl"));
    let join = scene.path("etl.join");
    scene
        .home
        .token(&join, &["--workload", "etl", "--group", "field"])
        .await;
    ended_with(&etl.login(&join).await, 0, &["logged in as"]);
    for who in [&scene.alice, &bob, &etl] {
        gets_in_by_tls(&scene, who, &[]).await;
    }
    // A session to resume, if there were any.
    let saved = scene.path("session.pem");
    let saved = saved.display().to_string();
    for version in ["-tls1_2", "-tls1_3"] {
        gets_in_by_tls(&scene, &scene.alice, &[version, "-sess_out", &saved]).await;
    }

    // A user: certificates by SSH, by TLS, by QUIC, and the renewal of them.
    revoke_and_restart(&mut scene, &["user", "alice"]).await;
    let alice = scene.alice.clone();
    stays_out("a user by SSH", async || alice.on(DEVICE, "true").await).await;
    stays_out("a user by QUIC", async || alice.fairlead(&["endpoints"]).await).await;
    stays_out("a user who logs in again", async || alice.fairlead(&["login"]).await).await;
    let resumed: &[&str] = if std::path::Path::new(&saved).exists() {
        &["-sess_in", &saved]
    } else {
        &[]
    };
    for more in [&[], resumed] {
        is_revoked_by_tls(&scene, &alice, more).await;
    }

    // A login key, by the beginning of its fingerprint: its certificates with it.
    bob.reaches(DEVICE, PATIENCE).await;
    let keys = scene.home.json(&["users", "keys", "bob"]).await;
    let key = keys["keys"][0]["fingerprint"].as_str().unwrap().to_owned();
    revoke_and_restart(&mut scene, &["login-key", &key]).await;
    stays_out("a login key by SSH", async || bob.on(DEVICE, "true").await).await;
    stays_out("a login key by QUIC", async || bob.fairlead(&["endpoints"]).await).await;
    stays_out("a login key that logs in again", async || {
        bob.fairlead(&["login"]).await
    })
    .await;

    // A workload.
    etl.reaches(DEVICE, PATIENCE).await;
    revoke_and_restart(&mut scene, &["workload", "etl"]).await;
    stays_out("a workload by SSH", async || etl.on(DEVICE, "true").await).await;
    stays_out("a workload by QUIC", async || etl.fairlead(&["endpoints"]).await).await;
    is_revoked_by_tls(&scene, &etl, &[]).await;

    // An agent: it knocks again and again, and is told each time.
    revoke_and_restart(&mut scene, &["agent", DEVICE]).await;
    let before = scene.agent.log().matches("revoked").count();
    until("the agent is refused", PATIENCE, async || {
        (scene.agent.log().matches("revoked").count() > before).then_some(())
    })
    .await;
    assert!(!scene.listed_online().await);
    assert!(
        scene.home.audit(&["link.up"]).len() <= 4,
        "one link for each life before"
    );
    assert_eq!(scene.home.metric("fairlead_panics_total").await, Some(0));
}

#[tokio::test]
async fn a_join_string_that_is_withdrawn_is_good_for_nobody_more_and_what_it_gave_stays() {
    let mut scene = Scene::set().await;
    let (fleet, join) = (scene.path("fleet.join"), scene.path("carol.join"));
    let arguments = [
        "--agents",
        "pump-*",
        "--site",
        "default",
        "--uses",
        "9",
        "--no-approval",
    ];
    scene.home.token(&fleet, &arguments).await;
    scene.home.token(&join, &["--user", "carol"]).await;
    let first = AgentHome::plan(&scene.path("first"), "");
    let enrol = async |home: &AgentHome, name: &str| {
        let mut enrol = home.enroll_command(&fleet);
        enrol.args(["--name", name]);
        fairlead_tests::clients::run(enrol).await
    };
    ended_with(&enrol(&first, "pump-1").await, 0, &["pump-1"]);
    let listed = scene.home.json(&["token", "list"]).await;
    let tokens = listed["tokens"].as_array().unwrap().clone();
    assert_eq!(tokens.len(), 2, "{listed:#}");
    let id = |name: &str| {
        let token = tokens.iter().find(|token| token["name"] == name).expect("it is listed");
        token["id"].as_str().unwrap().to_owned()
    };
    let table = scene.home.fairlead(&["token", "list"]).await.succeeded().text();
    assert!(table.contains("1 of 9") && table.contains("carol"), "{table}");
    for file in [&fleet, &join] {
        assert!(
            !table.contains(std::fs::read_to_string(file).unwrap().trim()),
            "a list shows no secret"
        );
    }

    let withdrawn = scene.home.fairlead(&["revoke", "token", &id("pump-*")[..8]]).await;
    ended_with(&withdrawn, 0, &["Revoked: token ", "of agent pump-*.default"]);
    ended_with(
        &scene.home.fairlead(&["revoke", "token", &id("carol")]).await,
        0,
        &["of user carol"],
    );
    assert_eq!(scene.home.audit(&["\"token.revoke\"", "uid:"]).len(), 2);
    scene.gateway.kill().await;
    scene.gateway = scene.home.start().await;
    ended_with(
        &enrol(&AgentHome::plan(&scene.path("late"), ""), "pump-2").await,
        77,
        &["expired"],
    );
    ended_with(
        &UserHome::plan(&scene.path("carol")).login(&join).await,
        77,
        &["expired"],
    );
    let _linked = first.start();
    scene.home.linked(2).await;
    let none = scene.home.fairlead(&["revoke", "token", &id("carol")]).await;
    ended_with(&none, 1, &["there is no good join string"]);
    let no_id = scene.home.fairlead(&["revoke", "token", "flj1-something"]).await;
    ended_with(&no_id, 64, &["named by its id"]);
    scene.is_sound().await;
}
