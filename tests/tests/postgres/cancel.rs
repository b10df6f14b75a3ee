//! Ctrl-C and CancelRequests: by stock psql, whose libpq sends them in clear, and by hand in TLS.

use std::process::Stdio;
use std::time::Duration;

use fairlead_protocol::postgres::CancelKey;
use fairlead_tests::clients::{Finished, Running, run_with, stock};
use fairlead_tests::lab::{DOMAIN, Lab, Person};
use fairlead_tests::postgres::PASSWORD;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::stage::Stage;

const SLEEP: &str = "select pg_sleep(60)";

/// Waits until the database has a sleeper (or none any longer), past the gateway.
async fn sleepers(stage: &Stage, number: usize) {
    let count = "select count(*) from pg_stat_activity where state = 'active' and query = 'select pg_sleep(60)'";
    fairlead_tests::lab::until("the sleepers of the database", async || {
        let said = stage.postgres.sql("postgres", count).await;
        (said.text().trim() == number.to_string()).then_some(())
    })
    .await;
}

fn was_cancelled(said: &Finished) {
    assert!(
        said.stderr.contains("canceling statement due to user request"),
        "{}{}",
        said.stderr,
        said.text()
    );
    assert!(said.took < Duration::from_secs(30), "{:?}", said.took);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ctrl_c_cancels_the_query_of_that_session_and_of_no_other() {
    let stage = Stage::set(None).await;
    let first = Running::start(stage.psql("", &["-c", SLEEP]));
    let mut second = Running::start(stage.psql("", &["-c", SLEEP]));
    sleepers(&stage, 2).await;
    first.interrupt();
    was_cancelled(&first.finish().await);
    sleepers(&stage, 1).await;
    assert!(second.is_alive());
    let cancel = stage.lab.gateway_audit().awaited("session.cancel", None).await;
    assert_eq!(cancel.text("caller"), "app");
    let session = cancel.text("session").to_owned();
    let shown = stage.lab.gateway_audit().shown(&session);
    assert!(shown.contains(&"session.cancel".to_owned()), "{shown:?}");
    let shown = stage.lab.agent_audit("db").shown(&session);
    assert!(shown.contains(&"session.cancel".to_owned()), "{shown:?}");
    second.interrupt();
    was_cancelled(&second.finish().await);
    stage.strike().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_reaches_a_database_behind_rules_of_the_customer_too() {
    let rules = "[ { name: billing only, effect: allow, expressions: [\"postgres.database == 'billing'\"] } ]";
    let stage = Stage::set(Some(rules)).await;
    let psql = Running::start(stage.psql("", &["-c", SLEEP]));
    sleepers(&stage, 1).await;
    psql.interrupt();
    was_cancelled(&psql.finish().await);
    stage.strike().await;
}

/// A session whose cancel key is known here. psql keeps it to itself.
struct ByHand {
    child: Running,
    key: CancelKey,
}

impl ByHand {
    /// Logs in by TLS as stock programs do, and begins to sleep; Python has the protocol's bytes and a TLS of its own.
    async fn sleeping(stage: &Stage) -> Self {
        let mut python = stock("python3");
        python
            .args([
                "-c",
                include_str!("sleeper.py"),
                &stage.lab.address().port().to_string(),
            ])
            .arg(format!("db.default.{DOMAIN}"))
            .args(["ca.pem", "cert.pem", "login.key.pem"].map(|name| stage.app.path(name)))
            .arg(PASSWORD)
            .stdin(Stdio::piped());
        let mut child = Running::start(python);
        let line = child.line().await;
        // Eight digits: four bytes, as protocol 3.0 has it.
        let (process, secret) = line.split_once(' ').expect("a key");
        let key = CancelKey {
            process: process.parse().unwrap(),
            secret: u32::from_str_radix(secret, 16).unwrap().to_be_bytes().to_vec(),
        };
        sleepers(stage, 1).await;
        Self { child, key }
    }
}

async fn in_clear(lab: &Lab, key: &CancelKey) -> Vec<u8> {
    let mut stream = TcpStream::connect(lab.address()).await.unwrap();
    stream.write_all(&key.to_request()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    answer
}

/// openssl as any client that cancels in TLS with ALPN `postgresql`, with the certificate of `person` where given.
async fn in_tls(stage: &Stage, key: &CancelKey, person: Option<&Person>) -> Finished {
    let mut openssl = match person {
        Some(person) => person.s_client(&stage.lab, &format!("db.default.{DOMAIN}"), &["-alpn", "postgresql"]),
        None => {
            let mut openssl = stock("openssl");
            openssl
                .args(["s_client", "-quiet", "-alpn", "postgresql", "-servername"])
                .arg(format!("db.default.{DOMAIN}"))
                .arg("-connect")
                .arg(stage.lab.address().to_string());
            openssl
        }
    };
    openssl.arg("-no_ign_eof");
    run_with(openssl, &key.to_request()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_key_is_the_gateways_own_and_only_the_right_one_cancels() {
    let stage = Stage::set(None).await;
    let mallory = stage.lab.user("mallory", &["apps"]).await;
    let mut sleeper = ByHand::sleeping(&stage).await;
    let pids = stage
        .postgres
        .sql(
            "postgres",
            "select pid from pg_stat_activity where query = 'select pg_sleep(60)'",
        )
        .await;
    assert_ne!(
        pids.text().trim(),
        sleeper.key.process.to_string(),
        "the database's own number"
    );
    let mut wrong = sleeper.key.clone();
    wrong.secret[3] ^= 1;
    assert!(in_clear(&stage.lab, &wrong).await.is_empty());
    in_tls(&stage, &wrong, None).await;
    in_tls(&stage, &sleeper.key, Some(&mallory)).await;
    let refused: Vec<String> = stage
        .lab
        .gateway_audit()
        .lines()
        .iter()
        .map(|line| line.shown())
        .collect();
    let count = |name: &str| refused.iter().filter(|shown| *shown == name).count();
    assert_eq!(count("cancel.refuse unknown-cancel-key"), 2, "{refused:?}");
    assert_eq!(count("cancel.refuse other-caller"), 1, "{refused:?}");
    assert!(sleeper.child.is_alive());
    in_tls(&stage, &sleeper.key, Some(&stage.app)).await;
    assert_eq!(sleeper.child.line().await, "57014");
    sleepers(&stage, 0).await;
    // The session has ended; its key with it.
    drop(sleeper.child);
    stage.lab.gateway_audit().awaited("session.end", None).await;
    assert!(in_clear(&stage.lab, &sleeper.key).await.is_empty());
    let refused: Vec<String> = stage
        .lab
        .gateway_audit()
        .lines()
        .iter()
        .map(|line| line.shown())
        .collect();
    assert_eq!(refused.last().unwrap(), "cancel.refuse unknown-cancel-key");
    stage.strike().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_of_wrong_keys_is_not_listened_to_for_a_while_and_sessions_go_on() {
    let stage = Stage::set(None).await;
    let psql = Running::start(stage.psql("", &["-c", SLEEP]));
    sleepers(&stage, 1).await;
    for process in 0..200 {
        let key = CancelKey {
            process,
            secret: vec![0; 4],
        };
        assert!(in_clear(&stage.lab, &key).await.is_empty());
    }
    let lines = stage.lab.gateway_audit().lines();
    let refused = lines
        .iter()
        .filter(|line| line.shown() == "cancel.refuse unknown-cancel-key");
    assert_eq!(refused.count(), 32, "no more lines than tries that were looked at");
    // Not even the right key is looked at from there for 30 s, where no certificate says who it is.
    psql.interrupt();
    assert_eq!(stage.query("", "select 1").await.succeeded().text().trim(), "1");
    sleepers(&stage, 1).await;
    drop(psql);
    stage.strike().await;
}
