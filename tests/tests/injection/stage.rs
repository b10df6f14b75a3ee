//! A database of a customer, an agent that logs in to it, and a caller with a certificate and no password.

use fairlead_protocol::postgres::Startup;
use fairlead_tests::clients::{Finished, run, run_with, stock};
use fairlead_tests::lab::{DOMAIN, Lab, Line, Person, until};
use fairlead_tests::postgres::Postgres;
use tokio::process::Command;

/// Permits everything: what is refused is refused by the customer's own file.
pub(crate) const PERMISSIVE: &str = "version: 1
rules: [ { name: all, sites: ['*'], effect: allow } ]
";
/// What the customer allows.
pub(crate) const RULES: &str = "[ { name: readers, effect: allow, expressions: [\"'apps' in caller.groups && postgres.database == 'billing'\"] } ]";

pub(crate) struct Stage {
    pub(crate) lab: Lab,
    pub(crate) postgres: Postgres,
    pub(crate) app: Person,
}

impl Stage {
    /// A server with the databases `billing` and `payroll`, and a user for each way to log in.
    pub(crate) async fn database() -> Postgres {
        let postgres = Postgres::start().await;
        for database in ["billing", "payroll"] {
            postgres.sql("postgres", &format!("create database {database}")).await;
        }
        for (user, password, method) in USERS {
            postgres.user(user, password, method).await;
        }
        postgres
    }

    /// With the gateway's policy; the agent lists `upstream` for `postgres://db`.
    pub(crate) async fn set(
        policy: &str,
        postgres: Postgres,
        upstream: &str,
        credentials: &[(&str, &str, &str)],
    ) -> Self {
        Self::set_in(Lab::start().await, policy, postgres, upstream, credentials).await
    }

    pub(crate) async fn set_in(
        mut lab: Lab,
        policy: &str,
        postgres: Postgres,
        upstream: &str,
        credentials: &[(&str, &str, &str)],
    ) -> Self {
        lab.policy(policy).await;
        let agent = lab.agent("db").endpoint_behind("postgres://db", upstream);
        agent.rules(RULES).credentials(credentials).start().await;
        let app = lab.user("app", &["apps"]).await;
        Self { lab, postgres, app }
    }

    /// A connection string for libpq; there is no password anywhere.
    pub(crate) fn conninfo(&self, more: &str) -> String {
        let file = |name: &str| self.app.path(name).display().to_string();
        format!(
            "host=db.default.{DOMAIN} hostaddr=127.0.0.1 port={} sslmode=verify-full sslrootcert={} sslcert={} sslkey={} \
             dbname=billing connect_timeout=30 {more}",
            self.lab.address().port(),
            file("ca.pem"),
            file("cert.pem"),
            file("login.key.pem")
        )
    }

    pub(crate) fn psql(&self, more: &str, arguments: &[&str]) -> Command {
        let mut psql = stock("psql");
        psql.env_remove("PGPASSWORD")
            .env("PGPASSFILE", "/none")
            .args([
                "-X",
                "-At",
                "-w",
                "-v",
                "ON_ERROR_STOP=1",
                "-v",
                "VERBOSITY=verbose",
                "-d",
            ])
            .arg(self.conninfo(more))
            .args(arguments);
        psql
    }

    pub(crate) async fn query(&self, more: &str, sql: &str) -> Finished {
        run(self.psql(more, &["-c", sql])).await
    }

    /// Everything that comes back for a StartupMessage, after TLS by openssl.
    pub(crate) async fn raw(&self, user: &str) -> String {
        let parameters = [("user", user), ("database", "billing")];
        let parameters = parameters.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let startup = Startup {
            minor: 0,
            parameters: parameters.to_vec(),
        };
        let mut openssl = stock("openssl");
        openssl
            .args([
                "s_client",
                "-quiet",
                "-verify_quiet",
                "-starttls",
                "postgres",
                "-connect",
            ])
            .arg(self.lab.address().to_string())
            .args(["-servername", &format!("db.default.{DOMAIN}"), "-cert"])
            .arg(self.app.path("cert.pem"))
            .arg("-cert_chain")
            .arg(self.app.path("cert.pem"))
            .arg("-key")
            .arg(self.app.path("login.key.pem"));
        let said = run_with(openssl, &startup.to_bytes()).await;
        assert!(!said.stdout.is_empty(), "{}", said.stderr);
        String::from_utf8_lossy(&said.stdout).into_owned()
    }

    /// The customer's line on the end of the last session of this requested user.
    pub(crate) async fn ended(&self, requested: &str) -> Line {
        self.ended_so(requested, |_| true).await
    }

    /// As [`Self::ended`], of one that ended so.
    pub(crate) async fn ended_so(&self, requested: &str, so: impl Fn(&Line) -> bool) -> Line {
        let is_it = |line: &Line| line.text("event") == "session.end" && line.fact("user") == requested && so(line);
        until("the customer's line", async || {
            self.lab.agent_audit("db").lines().into_iter().rfind(is_it)
        })
        .await
    }

    pub(crate) async fn strike(self) {
        self.lab.stop().await;
        drop(self.postgres);
    }
}

/// The database's users: name, password, method of pg_hba.conf.
pub(crate) const USERS: &[(&str, &str, &str)] = &[
    ("by_scram", "canary-7Q-scram", "scram-sha-256"),
    ("by_md5", "canary-7Q-md5", "md5"),
    ("by_password", "canary-7Q-password", "password"),
    ("by_trust", "canary-7Q-trust", "trust"),
];

/// An `as` for each of them, beside one with a wrong password.
pub(crate) const CREDENTIALS: &[(&str, &str, &str)] = &[
    ("readonly", "by_scram", "canary-7Q-scram"),
    ("md5", "by_md5", "canary-7Q-md5"),
    ("password", "by_password", "canary-7Q-password"),
    ("trust", "by_trust", "canary-7Q-trust"),
    ("stale", "by_scram", "canary-7Q-stale"),
];
