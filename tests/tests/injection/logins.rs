use fairlead_tests::customer::CustomerCa;
use fairlead_tests::lab::Lab;

use super::stage::{CREDENTIALS, PERMISSIVE, Stage};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_agent_logs_in_by_every_method_and_the_caller_knows_no_password() {
    let postgres = Stage::database().await;
    let upstream = format!("{{ url: \"{}\" }}", postgres.upstream());
    let stage = Stage::set(PERMISSIVE, postgres, &upstream, CREDENTIALS).await;
    for (requested, user, by) in [
        ("readonly", "by_scram", "scram-sha-256"),
        ("md5", "by_md5", "md5"),
        ("password", "by_password", "password"),
        ("trust", "by_trust", "none asked for"),
    ] {
        let said = stage
            .query(&format!("user={requested}"), "select current_user, current_database()")
            .await;
        assert_eq!(said.succeeded().text().trim(), format!("{user}|billing"), "{requested}");
        let end = stage.ended(requested).await;
        assert_eq!(
            (
                end.fact("user"),
                end.fact("database"),
                end.fact("database_user"),
                end.fact("login")
            ),
            (requested, "billing", user, by)
        );
    }
    stage.strike().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whom_the_customers_file_does_not_let_in_is_refused_in_psqls_own_words() {
    let postgres = Stage::database().await;
    let upstream = format!("{{ url: \"{}\" }}", postgres.upstream());
    let stage = Stage::set(PERMISSIVE, postgres, &upstream, CREDENTIALS).await;
    stage.query("user=readonly", "select 1").await.succeeded();
    for (more, reason) in [
        // No `as` for the superuser; a database that the rule does not name.
        ("user=postgres", "no-credentials"),
        ("user=by_scram", "no-credentials"),
        ("user=readonly dbname=payroll", "rule"),
        ("user=readonly dbname=postgres", "rule"),
    ] {
        let said = stage.query(more, "select 1").await;
        assert!(
            said.stderr.contains("FATAL:  fairlead: denied (session "),
            "{more}: {}",
            said.stderr
        );
        assert!(said.stderr.contains("HINT:"), "{more}: {}", said.stderr);
        let session = said.last_word().unwrap().1;
        let shown = stage.lab.agent_audit("db").shown(&session);
        assert_eq!(shown, [format!("session.refuse {reason}")], "{more}");
    }
    // psql leaves the SQLSTATE out of what it says of a connection that failed: it is in the bytes.
    let said = stage.raw("postgres").await;
    assert!(said.contains("C28000\0Mfairlead: denied (session "), "{said:?}");
    stage.strike().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_database_says_of_the_login_stays_with_the_customer_and_the_rest_is_told() {
    let postgres = Stage::database().await;
    postgres.sql("postgres", "alter role by_md5 connection limit 0").await;
    let upstream = format!("{{ url: \"{}\" }}", postgres.upstream());
    let stage = Stage::set(PERMISSIVE, postgres, &upstream, CREDENTIALS).await;
    let said = stage.query("user=stale", "select 1").await;
    assert!(
        said.stderr.contains("fairlead: upstream-failed (session "),
        "{}",
        said.stderr
    );
    assert!(!said.stderr.contains("by_scram"), "{}", said.stderr);
    let end = stage.ended("stale").await;
    let detail = end.fact("detail");
    assert!(detail.starts_with("the database says 28P01: "), "{detail}");
    // After the login the database speaks to the caller itself.
    let said = stage.query("user=md5", "select 1").await;
    assert!(
        said.stderr.contains("FATAL:  too many connections for role"),
        "{}",
        said.stderr
    );
    stage.strike().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_proven_tls_the_login_is_bound_to_the_connection() {
    let lab = Lab::start().await;
    let ca = CustomerCa::make(&lab.path("customer")).await;
    let postgres = Stage::database().await;
    let files = ca.server("db", &["DNS:localhost"]).await;
    postgres.speak_tls(&files).await;
    let upstream = format!(
        "{{ url: \"tcp://127.0.0.1:{}\", tls: {{ mode: verify-ca, ca_file: \"{}\" }} }}",
        postgres.port,
        ca.ca_file.display()
    );
    let stage = Stage::set_in(lab, PERMISSIVE, postgres, &upstream, CREDENTIALS).await;
    let sql = "select current_user, ssl from pg_stat_ssl where pid = pg_backend_pid()";
    for (requested, user, by) in [
        ("readonly", "by_scram", "scram-sha-256-plus"),
        ("md5", "by_md5", "md5"),
        ("password", "by_password", "password"),
    ] {
        let said = stage.query(&format!("user={requested}"), sql).await;
        assert_eq!(said.succeeded().text().trim(), format!("{user}|t"));
        let end = stage.ended(requested).await;
        assert_eq!((end.fact("login"), end.fact("database_user")), (by, user));
    }
    stage.strike().await;
}
