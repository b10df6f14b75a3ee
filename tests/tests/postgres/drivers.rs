//! Drivers of applications, as they come from their registry.

use std::path::{Path, PathBuf};

use fairlead_tests::clients::{asks_for_all, run, stock};
use fairlead_tests::lab::DOMAIN;
use fairlead_tests::postgres::PASSWORD;

use crate::stage::Stage;

const PACKAGES: &[&str] = &["psycopg[binary,pool]==3.3.*", "asyncpg==0.32.*"];

/// A Python with the drivers, made once; `None`, said aloud, where the registry is out of reach.
async fn python() -> Option<PathBuf> {
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("postgres-drivers");
    let python = place.join("bin/python");
    let mut knows = stock(&python.display().to_string());
    knows.args(["-c", "import asyncpg, psycopg, psycopg_pool"]);
    if python.exists() && run(knows).await.status.success() {
        return Some(python);
    }
    let mut venv = stock("python3");
    venv.args(["-m", "venv", "--clear"]).arg(&place);
    let made = run(venv).await;
    let mut install = stock(&python.display().to_string());
    install
        .args(["-m", "pip", "install", "--quiet", "--retries", "1"])
        .args(PACKAGES);
    let installed = if made.status.success() {
        run(install).await
    } else {
        made
    };
    if installed.status.success() {
        return Some(python);
    }
    eprintln!(
        "!! SKIPPED, drivers of Python cannot be installed: {}",
        installed.stderr
    );
    None
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn psycopg_and_asyncpg_run_clean_with_pools_and_cancel() {
    let Some(python) = python().await else { return };
    let stage = Stage::set(None).await;
    let mut drivers = stock(&python.display().to_string());
    drivers
        .args([
            "-c",
            include_str!("drivers.py"),
            &stage.lab.address().port().to_string(),
        ])
        .arg(format!("db.default.{DOMAIN}"))
        .args(["ca.pem", "cert.pem", "login.key.pem"].map(|name| stage.app.path(name)))
        .arg(PASSWORD);
    let said = run(drivers).await.succeeded();
    assert!(said.text().starts_with("done "), "{}{}", said.text(), said.stderr);
    let lines = stage.lab.gateway_audit().lines();
    assert_eq!(
        lines
            .iter()
            .filter(|line| line.text("event") == "session.cancel")
            .count(),
        2
    );
    stage.strike().await;
}

/// A folder with node-postgres, made once; `None`, said aloud, where there is no Node.js or no registry.
async fn node_modules() -> Option<PathBuf> {
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("postgres-node");
    let modules = place.join("node_modules");
    if modules.join("pg/package.json").exists() {
        return Some(modules);
    }
    if ["npm", "node"].iter().any(|program| !is_there(program)) {
        eprintln!("!! SKIPPED, no Node.js on this machine");
        return None;
    }
    std::fs::create_dir_all(&place).unwrap();
    let mut install = stock("npm");
    install
        .args(["install", "--silent", "--no-fund", "--no-audit", "pg@8"])
        .current_dir(&place);
    let installed = run(install).await;
    if installed.status.success() {
        return Some(modules);
    }
    eprintln!("!! SKIPPED, node-postgres cannot be installed: {}", installed.stderr);
    None
}

fn is_there(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).exists())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_postgres_runs_clean_with_a_pool() {
    let Some(modules) = node_modules().await else { return };
    let stage = Stage::set(None).await;
    let script = stage.lab.path("node.js");
    std::fs::write(&script, include_str!("node.js")).unwrap();
    let mut node = stock("node");
    node.arg(&script)
        .arg(&modules)
        .arg(stage.lab.address().port().to_string())
        .arg(format!("db.default.{DOMAIN}"))
        .args(["ca.pem", "cert.pem", "login.key.pem"].map(|name| stage.app.path(name)))
        .arg(PASSWORD);
    let said = run(node).await.succeeded();
    assert!(said.text().starts_with("done "), "{}{}", said.text(), said.stderr);
    stage.strike().await;
}

/// Where Debian's package puts the JDBC driver.
const JDBC: &str = "/usr/share/java/postgresql.jar";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jdbc_runs_clean_cancels_and_hears_a_refusal() {
    if !is_there("javac") || !Path::new(JDBC).exists() {
        eprintln!(
            "!! SKIPPED, no Java compiler or no {JDBC} on this machine (default-jdk-headless, libpostgresql-jdbc-java)"
        );
        return;
    }
    let stage = Stage::set(None).await;
    let (source, names) = (stage.lab.path("Jdbc.java"), stage.lab.path("names"));
    std::fs::write(&source, include_str!("Jdbc.java")).unwrap();
    let host = format!("db.default.{DOMAIN}");
    // In place of a DNS record.
    std::fs::write(&names, format!("127.0.0.1 {host}\n")).unwrap();
    let key = stage.lab.path("login.key.pk8");
    let mut convert = stock("openssl");
    convert
        .args(["pkcs8", "-topk8", "-nocrypt", "-outform", "DER", "-in"])
        .arg(stage.app.path("login.key.pem"))
        .arg("-out")
        .arg(&key);
    run(convert).await.succeeded();
    let mut java = stock("java");
    java.arg(format!("-Djdk.net.hosts.file={}", names.display()))
        .args(["-cp", JDBC])
        .arg(&source)
        .arg(stage.lab.address().port().to_string())
        .arg(&host)
        .args(["ca.pem", "cert.pem"].map(|name| stage.app.path(name)))
        .arg(&key)
        .arg(PASSWORD);
    let said = run(java).await.succeeded();
    assert!(said.text().starts_with("done 28000 "), "{}{}", said.text(), said.stderr);
    assert!(said.text().contains("fairlead: denied (session "), "{}", said.text());
    stage.strike().await;
}

/// Where Debian's packages put the Go drivers.
const GO_PATH: &str = "/usr/share/gocode";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_drivers_of_go_run_clean() {
    if !asks_for_all() {
        return;
    }
    let drivers = ["lib/pq", "jackc/pgx/v4"].map(|name| Path::new(GO_PATH).join("src/github.com").join(name));
    if !is_there("go") || !drivers.iter().all(|driver| driver.exists()) {
        eprintln!(
            "!! SKIPPED, no Go with its drivers on this machine (golang-go, golang-github-lib-pq-dev, golang-github-jackc-pgx-v4-dev)"
        );
        return;
    }
    let stage = Stage::set(None).await;
    let source = stage.lab.path("driver.go");
    std::fs::write(&source, include_str!("driver.go")).unwrap();
    let mut go = stock("go");
    go.env("GO111MODULE", "off")
        .env("GOPATH", GO_PATH)
        .env("GOFLAGS", "-mod=")
        .env("GOCACHE", Path::new(env!("CARGO_TARGET_TMPDIR")).join("go"))
        .arg("run")
        .arg(&source)
        .arg(stage.lab.address().port().to_string())
        .arg(format!("db.default.{DOMAIN}"))
        .args(["ca.pem", "cert.pem", "login.key.pem"].map(|name| stage.app.path(name)))
        .arg(PASSWORD);
    let said = run(go).await.succeeded();
    assert!(said.text().starts_with("done 7"), "{}{}", said.text(), said.stderr);
    stage.strike().await;
}
