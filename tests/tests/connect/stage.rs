//! `fairlead connect` as a process, and psql at its local port.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use fairlead_tests::clients::{Finished, run, stock};
use fairlead_tests::lab::{Lab, Person};
use fairlead_tests::postgres::PASSWORD;
use fairlead_tests::programs::{Daemon, PATIENCE, command, until};
use tokio::net::TcpStream;
use tokio::process::Command;

/// A running `fairlead connect --listen`.
pub(crate) struct Connect {
    /// The program.
    pub(crate) program: Daemon,
    /// Where it listens.
    pub(crate) address: SocketAddr,
}

impl Connect {
    /// Starts it with the profile in `home`, on a free port, and waits for the line that says where.
    pub(crate) async fn start(home: &Path, url: &str) -> Self {
        let mut connect = command("fairlead", ["connect", url, "--listen", "127.0.0.1:0"]);
        connect.env("FAIRLEAD_HOME", home);
        let name = url.replace(|c: char| !c.is_ascii_alphanumeric(), "-");
        let mut program = Daemon::start(connect, &home.join(format!("connect-{name}.log")));
        let address = until("the local port", PATIENCE, async || {
            assert!(program.is_alive(), "{}", program.log());
            let log = program.log();
            let served = log
                .lines()
                .rfind(|line| line.contains("internal") && line.contains(" on "))?;
            served.rsplit(' ').next()?.parse().ok()
        });
        let address = address.await;
        Self { program, address }
    }

    /// As somebody of a lab.
    pub(crate) async fn of(person: &Person, url: &str) -> Self {
        Self::start(&person.path(""), url).await
    }

    /// A connection of a client without a protocol of its own.
    pub(crate) async fn dial(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// A program of PostgreSQL at the local port, with the user and database in `more`.
    pub(crate) fn postgres(&self, program: &str, more: &str) -> Command {
        at(program, self.address.port(), more)
    }

    /// One statement by psql.
    pub(crate) async fn query(&self, more: &str, sql: &str) -> Finished {
        let mut psql = self.postgres("psql", more);
        psql.args(["-X", "-At", "-v", "ON_ERROR_STOP=1", "-c", sql]);
        run(psql).await
    }

    /// Waits until the program has said something.
    pub(crate) async fn says(&self, text: &str) -> String {
        until(text, PATIENCE, async || {
            let log = self.program.log();
            log.lines().find(|line| line.contains(text)).map(str::to_owned)
        })
        .await
    }
}

/// A program of PostgreSQL at a local port; it may try TLS, as it does by default.
pub(crate) fn at(program: &str, port: u16, more: &str) -> Command {
    let host = Ipv4Addr::LOCALHOST;
    let mut psql = stock(program);
    psql.env("PGPASSWORD", PASSWORD).args([
        "-d",
        &format!("host={host} port={port} connect_timeout=60 user=postgres {more}"),
    ]);
    psql
}

/// `fairlead connect URL --stdio` as somebody of a lab.
pub(crate) fn stdio(person: &Person, url: &str) -> Command {
    let mut connect = command("fairlead", ["connect", url, "--stdio"]);
    connect.env("FAIRLEAD_HOME", person.path(""));
    connect
}

/// A lab in which the group `apps` may use what `expression` says.
pub(crate) async fn lab(expression: &str) -> Lab {
    let lab = Lab::start().await;
    lab.policy(&format!(
        "version: 1\nrules:\n  - {{ name: the app, sites: ['*'], effect: allow, expressions: [\"'apps' in caller.groups && {expression}\"] }}\n"
    ))
    .await;
    lab
}
