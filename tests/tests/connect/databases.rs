//! Postgres by a local port and by `ssh -L`: the gateway reads what the client says, whatever the way in.

use std::process::Stdio;

use fairlead_tests::clients::{Finished, Running, run, stock};
use fairlead_tests::lab::{DOMAIN, Lab, Person};
use fairlead_tests::postgres::{PASSWORD, Postgres};
use fairlead_tests::programs::{PATIENCE, free_port, until};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::stage::{Connect, at, lab};

const URL: &str = "postgres://db.default.internal";

struct Stage {
    lab: Lab,
    postgres: Postgres,
    app: Person,
}

impl Stage {
    async fn set() -> Self {
        let mut lab = lab("postgres.user == 'postgres' && postgres.database != 'payroll'").await;
        let postgres = Postgres::start().await;
        lab.agent("db")
            .endpoint("postgres://db", &postgres.upstream())
            .start()
            .await;
        let app = lab.user("app", &["apps"]).await;
        Self { lab, postgres, app }
    }

    async fn strike(self) {
        self.lab.stop().await;
        drop(self.postgres);
    }

    /// The line that psql was refused with has a session whose line in the audit says `why`.
    fn refused_for(&self, said: &Finished, why: &str) {
        assert!(
            said.stderr.contains("FATAL:  fairlead: denied (session "),
            "{}",
            said.stderr
        );
        let session = said.last_word().expect("a session in psql's words").1;
        let shown = self.lab.gateway_audit().shown(&session);
        assert_eq!(shown, [format!("session.refuse {why}")]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_local_port_serves_psql_and_the_policy_sees_user_and_database() {
    let stage = Stage::set().await;
    let connect = Connect::of(&stage.app, "postgres://db").await;
    assert!(connect.program.log().contains(&format!("{URL} on 127.0.0.1:")));
    assert_eq!(
        connect
            .query("dbname=postgres", "select 6 * 7")
            .await
            .succeeded()
            .text()
            .trim(),
        "42"
    );
    let permit = stage.lab.gateway_audit().awaited("session.permit", None).await;
    assert_eq!((permit.fact("user"), permit.fact("database")), ("postgres", "postgres"));
    stage.refused_for(&connect.query("dbname=payroll", "select 1").await, "no-rule");
    connect.says("denied (session ").await;
    // The next one is served.
    connect.query("dbname=postgres", "select 1").await.succeeded();
    stage.strike().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forbidden_database_and_one_that_is_not_there_sound_the_same() {
    let stage = Stage::set().await;
    let other = stage.lab.user("other", &["office"]).await;
    let words = |said: &Finished| said.stderr_without_session();
    let forbidden = Connect::of(&other, URL).await;
    let absent = Connect::of(&other, "postgres://nowhere.default.internal").await;
    let heard = [
        forbidden.query("dbname=postgres", "select 1").await,
        absent.query("dbname=postgres", "select 1").await,
    ];
    stage.refused_for(&heard[0], "no-rule");
    stage.refused_for(&heard[1], "unknown-endpoint");
    let port = |connect: &Connect| format!("port {}", connect.address.port());
    assert_eq!(
        words(&heard[0]).replace(&port(&forbidden), "port"),
        words(&heard[1]).replace(&port(&absent), "port")
    );
    stage.strike().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_connections_at_once_go_through_one_conversation() {
    let stage = Stage::set().await;
    let connect = Connect::of(&stage.app, URL).await;
    let bench = |arguments: &[&str]| {
        let mut bench = stock("pgbench");
        bench
            .env("PGPASSWORD", PASSWORD)
            .args(["-h", "127.0.0.1", "-U", "postgres", "-p"])
            .arg(connect.address.port().to_string())
            .args(arguments)
            .arg("postgres");
        bench
    };
    run(bench(&["-i", "-q", "-s", "1"])).await.succeeded();
    let running = Running::start(bench(&["-S", "-c", "100", "-j", "4", "-T", "5"]));
    until("a hundred sessions", PATIENCE, async || {
        (stage.lab.sessions().await.len() >= 100).then_some(())
    })
    .await;
    let said = running.finish().await.succeeded();
    assert!(
        said.text().contains("number of failed transactions: 0"),
        "{}",
        said.text()
    );
    until("every session's end", PATIENCE, async || {
        stage.lab.gateway().sessions().is_empty().then_some(())
    })
    .await;
    stage.strike().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_shut_out_hears_it_from_the_database_and_from_the_program() {
    let stage = Stage::set().await;
    let mut connect = Connect::of(&stage.app, URL).await;
    let mut psql = connect.postgres("psql", "dbname=postgres");
    psql.args(["-X", "-At", "-v", "ON_ERROR_STOP=1"]).stdin(Stdio::piped());
    let mut psql = Running::start(psql);
    let mut stdin = psql.stdin.take().unwrap();
    stdin
        .write_all(b"\\set VERBOSITY verbose\nselect 'up';\n")
        .await
        .unwrap();
    assert_eq!(psql.line().await, "up");
    stage.lab.disable_user("app", true).await;
    stage.lab.gateway_audit().awaited("session.end", None).await;
    stdin.write_all(b"select 1;\n").await.unwrap();
    let said = psql.finish().await;
    assert!(
        said.stderr.contains("57P01: fairlead: revoked (session "),
        "{}",
        said.stderr
    );
    connect.says("revoked (session ").await;
    let next = connect.query("dbname=postgres", "select 1").await;
    assert!(next.stderr.contains("fairlead: revoked (session "), "{}", next.stderr);
    assert!(connect.program.is_alive());
    stage.strike().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_through_ssh_is_read_like_any_other() {
    let stage = Stage::set().await;
    let port = free_port();
    let forward = format!("127.0.0.1:{port}:db.default.internal:5432");
    let mut ssh = stage
        .app
        .ssh(&["-N", "-o", "ExitOnForwardFailure=yes", "-L", &forward, DOMAIN]);
    ssh.stdin(Stdio::null());
    let mut ssh = Running::start(ssh);
    until("the forward", PATIENCE, async || {
        assert!(ssh.is_alive());
        TcpStream::connect(("127.0.0.1", port)).await.ok()
    })
    .await;
    let query = async |more: &str| {
        let mut psql = at("psql", port, more);
        psql.args(["-X", "-At", "-c", "select 6 * 7"]);
        run(psql).await
    };
    assert_eq!(query("dbname=postgres").await.succeeded().text().trim(), "42");
    let permit = stage.lab.gateway_audit().awaited("session.permit", None).await;
    assert_eq!((permit.fact("user"), permit.fact("database")), ("postgres", "postgres"));
    stage.refused_for(&query("dbname=payroll").await, "no-rule");
    assert_eq!(query("dbname=postgres").await.succeeded().text().trim(), "42");
    stage.strike().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ctrl_c_in_psql_at_a_local_port_cancels_the_query() {
    let stage = Stage::set().await;
    let connect = Connect::of(&stage.app, URL).await;
    let mut psql = connect.postgres("psql", "dbname=postgres");
    psql.args(["-X", "-c", "select pg_sleep(60)"]);
    let psql = Running::start(psql);
    let asleep = "select count(*) from pg_stat_activity where state = 'active' and query = 'select pg_sleep(60)'";
    until("the sleeper", PATIENCE, async || {
        let said = stage.postgres.sql("postgres", asleep).await;
        (said.text().trim() == "1").then_some(())
    })
    .await;
    psql.interrupt();
    let said = psql.finish().await;
    assert!(
        said.stderr.contains("canceling statement due to user request"),
        "{}",
        said.stderr
    );
    stage.strike().await;
}
