use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use fairlead_runtime::config_file::write_private;
use fairlead_tests::clients::{Running, run, stock};
use fairlead_tests::lab::{Lab, Line};
use serde_json::Value;
use tokio::io::AsyncWriteExt;

use super::stage::{CREDENTIALS, PERMISSIVE, RULES, Stage};

/// With a statement log on the customer's side.
async fn with_log() -> (Stage, std::path::PathBuf) {
    let mut lab = Lab::start().await;
    lab.policy(PERMISSIVE).await;
    let postgres = Stage::database().await;
    let log = lab.path("agents/statements.jsonl");
    let agent = lab
        .agent("db")
        .endpoint("postgres://db", &postgres.upstream())
        .rules(RULES);
    agent
        .credentials(CREDENTIALS)
        .line(&format!("statement_log: \"{}\"", log.display()))
        .start()
        .await;
    let app = lab.user("app", &["apps"]).await;
    (Stage { lab, postgres, app }, log)
}

fn lines(log: &std::path::Path) -> Vec<Value> {
    let text = std::fs::read_to_string(log).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statements_are_counted_and_written_down_on_the_customers_side_alone() {
    let (stage, log) = with_log().await;
    let sql = "select 'canary of the statement log', 1";
    run(stage.psql("user=readonly", &["-c", sql, "-c", "select 2; select 3"]))
        .await
        .succeeded();
    let end = stage.ended("readonly").await;
    assert_eq!(end.fact_number("statements"), Some(2), "two Query messages");
    let written = lines(&log);
    assert_eq!(written.len(), 2, "{written:?}");
    assert_eq!(written[0]["statement"], sql);
    assert_eq!(written[1]["statement"], "select 2; select 3");
    for line in &written {
        assert_eq!(line["session"], end.text("session"));
        assert_eq!(
            (&line["caller"], &line["user"], &line["database"]),
            (&"app".into(), &"readonly".into(), &"billing".into())
        );
        assert_eq!(line["spoken"], "query");
    }
    assert_eq!(log.metadata().unwrap().permissions().mode() & 0o777, 0o600);

    // Prepared once, run ten times.
    let script = stage.lab.path("people/script.sql");
    std::fs::write(&script, "\\set n random(1, 9)\nselect :n;\n").unwrap();
    let mut bench = stock("pgbench");
    bench
        .args(["-n", "-M", "prepared", "-c", "1", "-t", "10", "-f"])
        .arg(&script);
    run(bench_as(&stage, bench)).await.succeeded();
    // pgbench looks around on a connection of its own first.
    stage
        .ended_so("md5", |end| end.fact_number("statements") == Some(10))
        .await;
    let parsed: Vec<Value> = lines(&log)
        .into_iter()
        .filter(|line| line["spoken"] == "parse")
        .collect();
    assert_eq!(parsed.len(), 1, "{parsed:?}");
    assert_eq!(parsed[0]["statement"], "select $1;");

    // The gateway's side has none of it.
    let gateway = std::fs::read_to_string(stage.lab.path("gateway/state/audit.jsonl")).unwrap();
    assert!(!gateway.contains("canary of the statement log"));
    stage.strike().await;
}

fn bench_as(stage: &Stage, mut bench: tokio::process::Command) -> tokio::process::Command {
    bench.env("PGPASSFILE", "/none").arg(stage.conninfo("user=md5"));
    bench
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_its_statement_log_a_session_is_refused() {
    let (stage, log) = with_log().await;
    write_private(&log, b"", 0o644).unwrap();
    let said = stage.query("user=readonly", "select 1").await;
    assert!(said.stderr.contains("(session "), "{}", said.stderr);
    let session = said.last_word().unwrap().1;
    assert_eq!(
        stage.lab.agent_audit("db").shown(&session),
        ["session.refuse audit-failed"]
    );
    write_private(&log, b"", 0o640).unwrap();
    stage.query("user=readonly", "select 1").await.succeeded();
    stage.strike().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_password_holds_after_a_reload_and_a_login_that_is_gone_ends_its_sessions() {
    let postgres = Stage::database().await;
    let upstream = format!("{{ url: \"{}\" }}", postgres.upstream());
    let stage = Stage::set(PERMISSIVE, postgres, &upstream, CREDENTIALS).await;
    let mut psql = stage.psql("user=readonly", &[]);
    psql.stdin(Stdio::piped());
    let mut psql = Running::start(psql);
    let mut stdin = psql.stdin.take().unwrap();
    stdin.write_all(b"select 'up';\n").await.unwrap();
    assert_eq!(psql.line().await, "up");

    stage
        .postgres
        .sql("postgres", "alter role by_scram password 'canary-7Q-another'")
        .await;
    let refused = stage.query("user=readonly", "select 1").await;
    assert!(
        refused.stderr.contains("fairlead: upstream-failed"),
        "{}",
        refused.stderr
    );
    let file = stage.lab.path("agents/db-readonly.pw");
    write_private(&file, b"canary-7Q-another", 0o640).unwrap();
    assert_eq!(stage.lab.reload_agent("db").await, 0, "a rotated password ends nothing");
    stage.query("user=readonly", "select 1").await.succeeded();
    // It is to be over, so that the first session alone is left.
    stage
        .ended_so("readonly", |end| end.fact_number("statements") == Some(1))
        .await;

    let yaml = stage.lab.path("agents/db/agent.yaml");
    let text = std::fs::read_to_string(&yaml).unwrap();
    write_private(&yaml, text.replace("as: readonly", "as: other").as_bytes(), 0o600).unwrap();
    assert_eq!(
        stage.lab.reload_agent("db").await,
        1,
        "the login is not the file's any longer"
    );
    let is_cut = |end: &Line| end.fact("detail").contains("no credentials for this user");
    stage.ended_so("readonly", is_cut).await;
    stdin.write_all(b"select 1;\n").await.unwrap_or_default();
    let said = psql.finish().await;
    assert!(said.stderr.contains("57P01"), "{}", said.stderr);
    stage.strike().await;
}
