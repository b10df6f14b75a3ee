//! A real PostgreSQL on loopback, with one password for its superuser.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::process::{Child, Command};

use crate::clients::{Finished, run, stock};
use crate::customer::ServerFiles;
use crate::lab::until;

/// Where Debian keeps the server's programs.
const PLACES: &[&str] = &[
    "/usr/lib/postgresql/15/bin",
    "/usr/lib/postgresql/16/bin",
    "/usr/lib/postgresql/17/bin",
];
/// Another process may take the free port first.
const PORT_TRIES: usize = 5;
/// The superuser's password.
pub const PASSWORD: &str = "a-password-of-the-database";

/// A running server; ends when dropped.
pub struct Postgres {
    /// The port on 127.0.0.1.
    pub port: u16,
    child: Child,
    dir: TempDir,
}

impl Postgres {
    /// Makes a cluster that asks for passwords (SCRAM-SHA-256) and starts it.
    ///
    /// # Panics
    /// When there is no PostgreSQL on this machine: these tests are not skipped. `apt-get install postgresql` brings it.
    pub async fn start() -> Self {
        let programs = PLACES
            .iter()
            .map(Path::new)
            .find(|place| place.join("postgres").exists());
        let programs = programs
            .expect("no PostgreSQL on this machine: apt-get install postgresql")
            .to_owned();
        let dir = tempfile::Builder::new()
            .prefix("fairlead-pg-")
            .tempdir()
            .expect("a throw-away directory");
        let (data, password) = (dir.path().join("data"), dir.path().join("password"));
        std::fs::write(&password, PASSWORD).expect("a password file");
        if nix::unistd::geteuid().is_root() {
            let mut chown = stock("chown");
            chown.args(["-R", "postgres"]).arg(dir.path());
            run(chown).await.succeeded();
        }
        let mut initdb = as_its_user(&programs.join("initdb"));
        initdb
            .args(["-U", "postgres", "-A", "scram-sha-256", "-N", "-D"])
            .arg(&data)
            .arg("--pwfile")
            .arg(&password);
        run(initdb).await.succeeded();
        for _ in 0..PORT_TRIES {
            let port = free_port().await;
            let mut child = serve(&programs, dir.path(), &data, port);
            let is_up = until("PostgreSQL", async || {
                if child.try_wait().expect("the child's state").is_some() {
                    return Some(false);
                }
                let mut ready = stock("pg_isready");
                ready.args(["-q", "-h", "127.0.0.1", "-p", &port.to_string()]);
                run(ready).await.status.success().then_some(true)
            });
            if is_up.await {
                return Self { port, child, dir };
            }
        }
        panic!("PostgreSQL does not start");
    }

    /// The upstream URL of agent.yaml.
    pub fn upstream(&self) -> String {
        format!("tcp://127.0.0.1:{}", self.port)
    }

    /// Adds a user whom this server asks for a password by `method` of pg_hba.conf: scram-sha-256, md5, password, trust, gss.
    pub async fn user(&self, name: &str, password: &str, method: &str) {
        let stored = if method == "md5" { "md5" } else { "scram-sha-256" };
        let create = format!("set password_encryption = '{stored}'; create role {name} login password '{password}'");
        self.sql("postgres", &create).await;
        let hba = self.data().join("pg_hba.conf");
        let before = std::fs::read_to_string(&hba).expect("pg_hba.conf");
        // The first line that fits decides.
        let lines = format!("host all {name} all {method}\n{before}");
        std::fs::write(&hba, lines).expect("pg_hba.conf is written");
        self.sql("postgres", "select pg_reload_conf()").await;
        let listed = format!("select count(*) from pg_hba_file_rules where user_name = '{{{name}}}'");
        until("the new line is in force", async || {
            let found = self.sql("postgres", &listed).await.text();
            (found.trim() == "1").then_some(())
        })
        .await;
    }

    /// Gives the server a certificate; from then on it speaks TLS to whoever asks for it.
    pub async fn speak_tls(&self, files: &ServerFiles) {
        for (name, from) in [("server.crt", &files.certificate), ("server.key", &files.key)] {
            let to = self.data().join(name);
            std::fs::copy(from, &to).expect("a file for the server");
            std::fs::set_permissions(&to, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("its mode");
            if nix::unistd::geteuid().is_root() {
                let mut chown = stock("chown");
                chown.arg("postgres").arg(&to);
                run(chown).await.succeeded();
            }
        }
        self.sql("postgres", "alter system set ssl = on").await;
        self.sql("postgres", "select pg_reload_conf()").await;
        until("TLS", async || {
            let on = self.sql("postgres", "show ssl").await.text();
            (on.trim() == "on").then_some(())
        })
        .await;
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Runs SQL as the superuser, past the gateway.
    pub async fn sql(&self, database: &str, sql: &str) -> Finished {
        let mut psql = stock("psql");
        psql.env("PGPASSWORD", PASSWORD)
            .args(["-X", "-At", "-v", "ON_ERROR_STOP=1", "-c", sql])
            .arg(format!(
                "host=127.0.0.1 port={} user=postgres dbname={database}",
                self.port
            ));
        run(psql).await.succeeded()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // Its own children end with it; SIGINT is the fast shutdown.
        if let Some(id) = self.child.id().and_then(|id| i32::try_from(id).ok()) {
            let _gone = nix::sys::signal::killpg(nix::unistd::Pid::from_raw(id), nix::sys::signal::Signal::SIGINT);
        }
    }
}

fn serve(programs: &Path, dir: &Path, data: &Path, port: u16) -> Child {
    let log = std::fs::File::create(dir.join(format!("log-{port}"))).expect("a log");
    let mut postgres = as_its_user(&programs.join("postgres"));
    postgres
        .arg("-D")
        .arg(data)
        .args([
            "-h",
            "127.0.0.1",
            "-p",
            &port.to_string(),
            "-c",
            "max_connections=200",
            "-F",
            "-k",
        ])
        .arg(dir)
        .stdin(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("PostgreSQL can be run")
}

/// PostgreSQL refuses to run as root.
fn as_its_user(program: &PathBuf) -> Command {
    let mut command = if nix::unistd::geteuid().is_root() {
        let mut command = stock("setpriv");
        command
            .args(["--reuid", "postgres", "--regid", "postgres", "--init-groups"])
            .arg(program);
        command
    } else {
        stock(&program.display().to_string())
    };
    command.current_dir("/").kill_on_drop(true);
    command
}

async fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
    listener.local_addr().expect("its address").port()
}
