//! pgbench against one database: directly, through Fairlead by an ordinary connection string (the agent logs in), and
//! through `ssh -L` of Fairlead's own gateway and of a plain sshd.

use std::path::Path;
use std::process::Stdio;

use fairlead_tests::clients::{run, stock};
use fairlead_tests::postgres::Postgres;
use fairlead_tests::programs::{self, AgentHome, DOMAIN, GatewayHome, PATIENCE, UserHome, throw_away, until};
use fairlead_tests::sshd::{Sshd, Trust, make_key};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::process::Command;

use super::{Effort, median};

const CLIENTS: &str = "16";
const THREADS: &str = "2";
/// pgbench's scale: 100,000 accounts each.
const SCALE: &str = "4";
const USER: &str = "bench";
const PASSWORD: &str = "bench-password";
/// Name and pgbench's arguments.
const LOADS: &[(&str, &[&str])] = &[("read", &["-S"]), ("write", &["-N"])];

/// One way to the database.
struct Way {
    name: &'static str,
    conninfo: String,
}

/// What one run gave.
#[derive(Clone, Copy)]
struct Figures {
    tps: f64,
    p50_us: f64,
    p99_us: f64,
}

pub(crate) async fn measure(effort: Effort) -> Value {
    let dir = throw_away();
    let postgres = database().await;
    let home = GatewayHome::set_up(&dir.path().join("gateway")).await;
    let policy = "version: 1\nrules: [ { name: all, sites: ['*'], effect: allow } ]\n";
    std::fs::write(home.path("access.yaml"), policy).expect("the policy is written");
    let _gateway = home.start().await;
    let device = home
        .agent(&dir.path().join("device"), "db", &endpoint(dir.path(), &postgres))
        .await;
    let _agent = device.start();
    home.linked(1).await;
    let app = home.user(&dir.path().join("app"), "app", "apps").await;
    let sshd_dir = dir.path().join("sshd");
    std::fs::create_dir(&sshd_dir).expect("a directory");
    let key = make_key(&sshd_dir, "ed25519", "client").await;
    let trust = Trust {
        keys: vec![key],
        ..Trust::default()
    };
    let sshd = Sshd::start(&sshd_dir, &trust).await;
    let (by_fairlead, _first) = forwarded(ours(&app, postgres.port)).await;
    let (by_sshd, _second) = forwarded(theirs(&sshd_dir, &sshd, postgres.port)).await;

    let loopback =
        |port: u16, user: &str| format!("host=127.0.0.1 port={port} sslmode=disable user={user} dbname=bench");
    let ways = [
        Way {
            name: "direct",
            conninfo: loopback(postgres.port, USER),
        },
        Way {
            name: "fairlead",
            conninfo: ordinary(&app, home.port),
        },
        Way {
            name: "ssh -L (fairlead)",
            conninfo: loopback(by_fairlead, USER),
        },
        Way {
            name: "ssh -L (sshd)",
            conninfo: loopback(by_sshd, USER),
        },
    ];
    let mut loads = serde_json::Map::new();
    for (load, arguments) in LOADS {
        loads.insert(
            (*load).to_owned(),
            side_by_side(load, arguments, &ways, &effort, dir.path()).await,
        );
    }
    json!({ "clients": CLIENTS, "scale": SCALE, "loads": loads })
}

/// Every way in its turn, then the table.
async fn side_by_side(load: &str, arguments: &[&str], ways: &[Way], effort: &Effort, dir: &Path) -> Value {
    let mut taken: Vec<Vec<Figures>> = vec![Vec::new(); ways.len()];
    for _ in 0..effort.rounds {
        for (way, taken) in ways.iter().zip(&mut taken) {
            taken.push(pgbench(way, arguments, effort.seconds_or(10), dir).await);
        }
    }
    let middle = |runs: &[Figures], of: fn(&Figures) -> f64| median(runs.iter().map(of).collect());
    println!(
        "postgres, {load}: pgbench -c {CLIENTS} -j {THREADS} {}",
        arguments.join(" ")
    );
    println!(
        "{:<20} {:>10} {:>10} {:>10} {:>14} {:>14}",
        "", "tps", "p50 ms", "p99 ms", "tps / direct", "p99 / direct"
    );
    let direct = &taken[0];
    let (tps, p99) = (middle(direct, |f| f.tps), middle(direct, |f| f.p99_us));
    let rows = ways.iter().zip(&taken).map(|(way, runs)| {
        let row = [
            middle(runs, |f| f.tps),
            middle(runs, |f| f.p50_us),
            middle(runs, |f| f.p99_us),
        ];
        println!(
            "{:<20} {:>10.0} {:>10.2} {:>10.2} {:>14.2} {:>14.2}",
            way.name,
            row[0],
            row[1] / 1000.0,
            row[2] / 1000.0,
            row[0] / tps,
            row[2] / p99
        );
        let each = |of: fn(&Figures) -> f64| runs.iter().map(of).collect::<Vec<_>>();
        json!({
            "way": way.name,
            "tps": row[0],
            "p50_us": row[1],
            "p99_us": row[2],
            "tps_to_direct": row[0] / tps,
            "p99_to_direct": row[2] / p99,
            "runs": { "tps": each(|f| f.tps), "p99_us": each(|f| f.p99_us) },
        })
    });
    rows.collect()
}

async fn pgbench(way: &Way, arguments: &[&str], seconds: u32, dir: &Path) -> Figures {
    let logs = dir.join("latencies");
    std::fs::create_dir(&logs).expect("a directory");
    let mut bench = stock("pgbench");
    bench
        .env("PGPASSWORD", PASSWORD)
        .current_dir(&logs)
        .args(["-n", "-l", "-c", CLIENTS, "-j", THREADS, "-T", &seconds.to_string()])
        .args(arguments)
        .arg(&way.conninfo);
    let said = run(bench).await.succeeded().text();
    assert!(
        said.contains("number of failed transactions: 0"),
        "{}: {said}",
        way.name
    );
    let tps = said
        .lines()
        .find_map(|line| line.strip_prefix("tps = ")?.split_whitespace().next()?.parse().ok());
    let mut latencies: Vec<f64> = Vec::new();
    for entry in std::fs::read_dir(&logs).expect("a directory") {
        let text = std::fs::read_to_string(entry.expect("an entry").path()).expect("a log of pgbench");
        // client, transaction, microseconds, …
        latencies.extend(
            text.lines()
                .filter_map(|line| line.split_whitespace().nth(2)?.parse::<f64>().ok()),
        );
    }
    std::fs::remove_dir_all(&logs).expect("the logs are removed");
    assert!(
        latencies.len() > 100,
        "{}: only {} transactions",
        way.name,
        latencies.len()
    );
    latencies.sort_by(f64::total_cmp);
    let at = |percent: usize| latencies[(latencies.len() - 1) * percent / 100];
    Figures {
        tps: tps.unwrap_or_else(|| panic!("no tps in {said}")),
        p50_us: at(50),
        p99_us: at(99),
    }
}

async fn database() -> Postgres {
    let postgres = Postgres::start().await;
    postgres.user(USER, PASSWORD, "scram-sha-256").await;
    postgres.sql("postgres", "create database bench owner bench").await;
    let mut fill = stock("pgbench");
    fill.env("PGPASSWORD", PASSWORD)
        .args(["-i", "-q", "-s", SCALE])
        .arg(format!(
            "host=127.0.0.1 port={} user={USER} dbname=bench",
            postgres.port
        ));
    run(fill).await.succeeded();
    postgres
}

fn endpoint(dir: &Path, postgres: &Postgres) -> String {
    let file = dir.join("bench.pw");
    fairlead_runtime::config_file::write_private(&file, PASSWORD.as_bytes(), 0o600).expect("a password file");
    format!(
        "  - url: postgres://db.default.internal\n    upstream: {{ url: \"{}\" }}\n    rules: [ {{ name: all, effect: allow }} ]\n    \
         credentials: [ {{ as: app, user: {USER}, password_file: \"{}\" }} ]\n",
        postgres.upstream(),
        file.display()
    ) + &AgentHome::tcp("db", postgres.port)
}

fn ordinary(app: &UserHome, port: u16) -> String {
    let file = |name: &str| app.dir().join(name).display().to_string();
    format!(
        "host=db.default.{DOMAIN} hostaddr=127.0.0.1 port={port} sslmode=verify-full sslrootcert={} sslcert={} sslkey={} \
         user=app dbname=bench",
        file("ca.pem"),
        file("cert.pem"),
        file("login.key.pem")
    )
}

/// Stock ssh to the gateway, for an endpoint without rules: the agent would wait for the startup packet, and ssh for the
/// agent. The port is put in by whoever starts it.
fn ours(app: &UserHome, database: u16) -> impl Fn(u16) -> Command {
    move |port| {
        let forward = format!("127.0.0.1:{port}:db.default.internal:{database}");
        app.ssh_command(&["-N", "-L", &forward, DOMAIN])
    }
}

fn theirs(dir: &Path, sshd: &Sshd, database: u16) -> impl Fn(u16) -> Command {
    move |port| {
        let mut ssh = stock("ssh");
        ssh.args([
            "-N",
            "-F",
            "none",
            "-o",
            "BatchMode=yes",
            "-o",
            "StrictHostKeyChecking=no",
        ])
        .args(["-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"])
        .args([
            "-L",
            &format!("127.0.0.1:{port}:127.0.0.1:{database}"),
            "-p",
            &sshd.port.to_string(),
            "-i",
        ])
        .arg(dir.join("client"))
        .arg(format!("{}@127.0.0.1", programs::account()));
        ssh
    }
}

/// Starts a forwarding ssh and waits until it listens.
async fn forwarded(ssh: impl Fn(u16) -> Command) -> (u16, tokio::process::Child) {
    let port = programs::free_port();
    let mut ssh = ssh(port);
    let child = ssh
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("ssh can be run");
    until("ssh forwards", PATIENCE, async || {
        TcpStream::connect(("127.0.0.1", port)).await.ok().map(drop)
    })
    .await;
    (port, child)
}
