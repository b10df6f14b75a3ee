//! Queries, refusals and endings.

use std::process::Stdio;

use fairlead_tests::clients::{Running, asks_for_all, run, run_with, stock};
use fairlead_tests::customer::CustomerCa;
use fairlead_tests::lab::Lab;
use fairlead_tests::postgres::{PASSWORD, Postgres};
use tokio::io::AsyncWriteExt;

use crate::stage::{POLICY, Stage};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queries_and_copies_go_through_and_the_audit_knows_user_and_database() {
    let stage = Stage::set(None).await;
    assert_eq!(stage.query("", "select 6 * 7").await.succeeded().text().trim(), "42");
    stage.query("", "create table t (n int, x text)").await.succeeded();
    let rows: String = (0..100_000).map(|n| format!("{n}\tsome text of row {n}\n")).collect();
    run_with(stage.psql("", &["-c", "\\copy t from stdin"]), rows.as_bytes())
        .await
        .succeeded();
    let back = run(stage.psql("", &["-c", "\\copy (select * from t order by n) to stdout"]))
        .await
        .succeeded();
    assert!(back.stdout == rows.as_bytes(), "what comes back is what went in");
    let notified = stage
        .query("", "listen here; notify here, 'news'; select 1")
        .await
        .succeeded();
    assert!(
        notified.text().contains("\"here\" with payload \"news\""),
        "{}",
        notified.text()
    );
    let permit = stage.lab.gateway_audit().awaited("session.permit", None).await;
    let end = stage.lab.gateway_audit().awaited("session.end", None).await;
    for line in [&permit, &end] {
        assert_eq!((line.fact("user"), line.fact("database")), ("postgres", "billing"));
        assert_eq!(line.fact("application_name"), "psql");
    }
    assert!(end.number("bytes_in") > Some(0) && end.number("bytes_out") > Some(0));
    stage.strike().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_user_or_database_is_refused_in_the_clients_own_words() {
    let stage = Stage::set(None).await;
    for more in ["user=root", "dbname=payroll"] {
        let said = stage.query(more, "select 1").await;
        assert!(
            said.stderr.contains("FATAL:  fairlead: denied (session "),
            "{}",
            said.stderr
        );
        assert!(said.stderr.contains("HINT:  the access policy"), "{}", said.stderr);
    }
    let mut verbose = stage.psql("user=root", &["-c", "select 1"]);
    verbose.env("PGOPTIONS", "");
    let refused = stage.lab.gateway_audit().awaited("session.refuse", None).await;
    assert_eq!((refused.text("reason"), refused.fact("user")), ("no-rule", "root"));
    let said = run(verbose).await;
    let session = said.last_word().expect("a session in psql's words").1;
    assert_eq!(stage.lab.gateway_audit().shown(&session), ["session.refuse no-rule"]);
    stage.strike().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_customers_own_rule_refuses_what_a_permissive_gateway_lets_through() {
    let rules = "[ { name: billing only, effect: allow, expressions: [\"postgres.database == 'billing'\"] } ]";
    let stage = Stage::set(Some(rules)).await;
    assert_eq!(stage.query("", "select 1").await.succeeded().text().trim(), "1");
    let said = stage.query("dbname=postgres", "select 1").await;
    assert!(
        said.stderr.contains("FATAL:  fairlead: denied (session "),
        "{}",
        said.stderr
    );
    let session = said.last_word().unwrap().1;
    let shown = stage.lab.agent_audit("db").shown(&session);
    assert_eq!(shown, ["session.refuse rule"]);
    stage.strike().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_tls_or_certificate_the_client_is_told_what_to_set() {
    let stage = Stage::set(None).await;
    let clear = stage.query("sslmode=disable", "select 1").await;
    assert!(
        clear.stderr.contains("TLS with a client certificate is required"),
        "{}",
        clear.stderr
    );
    let without = stage.query("sslcert=/none sslkey=/none", "select 1").await;
    assert!(
        without.stderr.contains("a client certificate is required"),
        "{}",
        without.stderr
    );
    stage.strike().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_without_a_server_name_names_the_endpoint_inside() {
    let stage = Stage::set(None).await;
    for more in [
        "options='-c fairlead.endpoint=db.default -c geqo=off'",
        "user=postgres@db.default",
    ] {
        let more = format!("sslsni=0 sslmode=verify-ca {more}");
        let said = stage
            .query(
                &more,
                "select current_user, current_setting('fairlead.endpoint', true) is null",
            )
            .await;
        assert_eq!(said.succeeded().text().trim(), "postgres|t", "{more}");
    }
    stage.strike().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_who_is_shut_out_is_told_by_an_administrators_shutdown() {
    let stage = Stage::set(None).await;
    let mut psql = stage.psql("", &[]);
    psql.stdin(Stdio::piped());
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
    stage.strike().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pgbench_runs_clean() {
    let stage = Stage::set(None).await;
    let bench = |arguments: &[&str]| {
        let mut bench = stock("pgbench");
        bench
            .env("PGPASSWORD", PASSWORD)
            .args(arguments)
            .arg(stage.conninfo(""));
        bench
    };
    run(bench(&["-i", "-q", "-s", "1"])).await.succeeded();
    let seconds = if asks_for_all() { "20" } else { "3" };
    let said = run(bench(&["-c", "16", "-j", "2", "-T", seconds])).await.succeeded();
    assert!(
        said.text().contains("number of failed transactions: 0"),
        "{}",
        said.text()
    );
    stage.strike().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_with_tls_is_trusted_as_the_customers_file_says() {
    let mut lab = Lab::start().await;
    lab.policy(POLICY).await;
    let postgres = Postgres::start().await;
    let ca = CustomerCa::make(&lab.path("customer")).await;
    // This server has no TLS: what is asked for is not silently left out.
    let upstream = format!(
        "{{ url: \"{}\", tls: {{ mode: verify-full, ca_file: \"{}\" }} }}",
        postgres.upstream(),
        ca.ca_file.display()
    );
    lab.agent("db")
        .endpoint_behind("postgres://db", &upstream)
        .start()
        .await;
    let app = lab.user("app", &["apps"]).await;
    let stage = Stage { lab, postgres, app };
    let said = stage.query("dbname=postgres", "select 1").await;
    assert!(
        said.stderr.contains("fairlead: upstream-failed (session "),
        "{}",
        said.stderr
    );
    let end = stage.lab.agent_audit("db").awaited("session.end", None).await;
    assert_eq!(end.fact("detail"), "TLS with the database: it does not speak TLS");
    stage.strike().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_over_a_limit_is_told_by_an_administrators_shutdown() {
    let stage = Stage::set(None).await;
    for (limit, reason) in [("idle: 2s", "idle-limit"), ("session: 2s", "session-limit")] {
        let rule = format!("{{ name: r, sites: ['*'], effect: allow, limits: {{ {limit} }} }}");
        stage.lab.policy(&format!("version: 1\nrules:\n  - {rule}\n")).await;
        let mut psql = stage.psql("", &[]);
        psql.stdin(Stdio::piped());
        let mut psql = Running::start(psql);
        let mut stdin = psql.stdin.take().unwrap();
        stdin
            .write_all(b"\\set VERBOSITY verbose\nselect 'up';\n")
            .await
            .unwrap();
        assert_eq!(psql.line().await, "up");
        let session = stage.lab.sessions().await[0].id.clone();
        let end = stage.lab.gateway_audit().awaited("session.end", Some(&session)).await;
        assert_eq!(end.text("reason"), reason);
        stdin.write_all(b"select 1;\n").await.unwrap();
        let said = psql.finish().await;
        let words = format!("57P01: fairlead: {reason} (session {session})");
        assert!(said.stderr.contains(&words), "{}", said.stderr);
    }
    stage.strike().await;
}
