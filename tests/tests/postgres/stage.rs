//! A gateway, an agent with a real PostgreSQL behind it, and somebody who may use it.

use fairlead_tests::clients::{Finished, run, stock};
use fairlead_tests::lab::{DOMAIN, Lab, Person};
use fairlead_tests::postgres::{PASSWORD, Postgres};
use tokio::process::Command;

pub(crate) const POLICY: &str = "version: 1
rules:
  - { name: the app, sites: ['*'], effect: allow, expressions: [\"'apps' in caller.groups && postgres.user == 'postgres' && postgres.database in ['billing', 'postgres']\"] }
";

pub(crate) struct Stage {
    pub(crate) lab: Lab,
    pub(crate) postgres: Postgres,
    pub(crate) app: Person,
}

impl Stage {
    pub(crate) async fn set(rules: Option<&str>) -> Self {
        let mut lab = Lab::start().await;
        lab.policy(POLICY).await;
        let postgres = Postgres::start().await;
        postgres.sql("postgres", "create database billing").await;
        let agent = lab.agent("db").endpoint("postgres://db", &postgres.upstream());
        match rules {
            Some(rules) => agent.rules(rules).start().await,
            None => agent.start().await,
        }
        let app = lab.user("app", &["apps"]).await;
        Self { lab, postgres, app }
    }

    /// A connection string for libpq.
    pub(crate) fn conninfo(&self, more: &str) -> String {
        let file = |name: &str| self.app.path(name).display().to_string();
        format!(
            "host=db.default.{DOMAIN} hostaddr=127.0.0.1 port={} sslmode=verify-full sslrootcert={} sslcert={} sslkey={} \
             user=postgres dbname=billing connect_timeout=30 {more}",
            self.lab.address().port(),
            file("ca.pem"),
            file("cert.pem"),
            file("login.key.pem")
        )
    }

    pub(crate) fn psql(&self, more: &str, arguments: &[&str]) -> Command {
        let mut psql = stock("psql");
        psql.env("PGPASSWORD", PASSWORD)
            .args(["-X", "-At", "-v", "ON_ERROR_STOP=1", "-d"])
            .arg(self.conninfo(more))
            .args(arguments);
        psql
    }

    pub(crate) async fn query(&self, more: &str, sql: &str) -> Finished {
        run(self.psql(more, &["-c", sql])).await
    }

    pub(crate) async fn strike(self) {
        self.lab.stop().await;
        drop(self.postgres);
    }
}
