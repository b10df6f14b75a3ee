//! The ways to an endpoint, one for each kind and each protocol that it leads to: which program takes it, and how that
//! program says what it is told.

use std::process::Stdio;
use std::time::Instant;

use fairlead_agent::sshd::Account;
use fairlead_gateway::endpoint::KINDS;
use fairlead_runtime::config_file::private_dir;
use fairlead_tests::clients::{Finished, Running, stock};
use fairlead_tests::lab::{DOMAIN, Lab, Person};
use fairlead_tests::mosquitto::Mosquitto;
use fairlead_tests::postgres::{PASSWORD, Postgres};
use fairlead_tests::programs::command;
use fairlead_tests::sshd::{Sshd, Trust};
use fairlead_tests::upstream::{Echo, Flood};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// A way: the kind that meets the caller and the protocol of the endpoint behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) kind: &'static str,
    pub(crate) protocol: &'static str,
}

const fn row(kind: &'static str, protocol: &'static str) -> Row {
    Row { kind, protocol }
}

/// Every way that there is.
const ROWS: &[Row] = &[
    row("ssh", "ssh"),
    row("ssh", "tcp"),
    row("tls", "tls"),
    row("tls", "tcp"),
    row("postgres", "postgres"),
    row("mqtt", "mqtt"),
    row("tls", "mqtt"),
    row("rdp", "rdp"),
];

/// Kinds that lead to no endpoint, so that there is nothing to allow.
const NOWHERE: &[&str] = &["own-site"];

/// The rows, in the order of the gateway's table.
///
/// # Panics
/// When the table has a kind, or a kind leads to a protocol, that no row is for.
pub(crate) fn rows() -> Vec<Row> {
    let mut all = Vec::new();
    for kind in KINDS {
        let own: Vec<Row> = ROWS.iter().filter(|row| row.kind == kind.name).copied().collect();
        if NOWHERE.contains(&kind.name) {
            assert!(
                own.is_empty() && kind.leads_to.is_empty(),
                "{} leads somewhere",
                kind.name
            );
            continue;
        }
        assert!(
            !own.is_empty(),
            "the access matrix has no row for the kind {}",
            kind.name
        );
        for protocol in kind.leads_to {
            let has_row = own.iter().any(|row| row.protocol == protocol.as_str());
            assert!(
                has_row,
                "the access matrix has no row for {} by {}",
                protocol.as_str(),
                kind.name
            );
        }
        all.extend(own);
    }
    all
}

/// The agent, and the host of its endpoints.
pub(crate) const AGENT: &str = "device";

/// A gateway, the agent `device` with something to talk to, and alice, who may.
pub(crate) struct Stage {
    pub(crate) lab: Lab,
    pub(crate) row: Row,
    pub(crate) alice: Person,
    behind: Behind,
}

enum Behind {
    Sshd(Sshd),
    Postgres(Postgres),
    Mosquitto(Mosquitto),
    Services(Echo, Flood),
}

impl Stage {
    pub(crate) async fn set(row: Row) -> Self {
        let mut lab = Lab::start().await;
        let behind = match row.protocol {
            "ssh" => Behind::Sshd(sshd(&lab).await),
            "postgres" => Behind::Postgres(Postgres::start().await),
            "mqtt" => Behind::Mosquitto(Mosquitto::start().await),
            _ => Behind::Services(Echo::start().await, Flood::start().await),
        };
        let protocol = row.protocol;
        let plan = lab.agent(AGENT).host("flood");
        let plan = match &behind {
            Behind::Sshd(sshd) => plan.endpoint("ssh://device", &sshd.upstream()),
            Behind::Postgres(postgres) => plan.endpoint("postgres://device", &postgres.upstream()),
            Behind::Mosquitto(broker) => plan.endpoint("mqtt://device", &broker.upstream()),
            Behind::Services(echo, flood) => plan
                .endpoint(&format!("{protocol}://device:7000"), &format!("tcp://{}", echo.address))
                .endpoint(&format!("{protocol}://flood:7000"), &format!("tcp://{}", flood.address)),
        };
        plan.start().await;
        let alice = lab.user("alice", &["field"]).await;
        Self {
            lab,
            row,
            alice,
            behind,
        }
    }

    /// The program that takes this way, for somebody who says lines and reads them again.
    pub(crate) fn talk(&self, person: &Person) -> Command {
        match self.row {
            Row { protocol: "ssh", .. } => person.ssh(&[&device(), "cat"]),
            Row { protocol: "mqtt", .. } => self.paho(person, ""),
            Row { protocol: "rdp", .. } => rdp(person, &["device:7000"]),
            Row { kind: "ssh", .. } => person.ssh(&["-W", "device.default.internal:7000", DOMAIN]),
            Row { kind: "tls", .. } => person.s_client(&self.lab, &self.server_name(), &[]),
            _ => self.psql(person),
        }
    }

    /// The same for somebody to whom more is said than they read.
    pub(crate) fn flood(&self) -> Command {
        match self.row {
            Row { protocol: "ssh", .. } => self.alice.ssh(&[&device(), "cat /dev/zero"]),
            Row { protocol: "mqtt", .. } => {
                let Behind::Mosquitto(broker) = &self.behind else {
                    panic!("no broker behind {:?}", self.row);
                };
                self.paho(&self.alice, &broker.port.to_string())
            }
            Row { protocol: "rdp", .. } => rdp(&self.alice, &["flood:7000", "flood"]),
            Row { kind: "ssh", .. } => self.alice.ssh(&["-W", "flood.default.internal:7000", DOMAIN]),
            Row { kind: "tls", .. } => self.alice.s_client(&self.lab, &format!("flood.default.{DOMAIN}"), &[]),
            _ => {
                let mut psql = self.psql(&self.alice);
                psql.args([
                    "-c",
                    "\\copy (select repeat('x', 1000) from generate_series(1, 100000000)) to stdout",
                ]);
                psql
            }
        }
    }

    fn paho(&self, person: &Person, broker: &str) -> Command {
        let mut paho = stock("/usr/bin/python3");
        paho.args(["-c", include_str!("talk.py"), &self.lab.address().port().to_string()])
            .arg(self.server_name())
            .args(["ca.pem", "cert.pem", "login.key.pem"].map(|name| person.path(name)))
            .arg(if self.row.kind == "mqtt" { "mqtt" } else { "" })
            .arg(broker);
        paho
    }

    fn psql(&self, person: &Person) -> Command {
        let file = |name: &str| person.path(name).display().to_string();
        let mut psql = stock("psql");
        psql.env("PGPASSWORD", PASSWORD)
            .args(["-X", "-At", "-q", "-v", "VERBOSITY=verbose", "-d"])
            .arg(format!(
                "host={} hostaddr=127.0.0.1 port={} sslmode=verify-full sslrootcert={} sslcert={} sslkey={} user=postgres \
                 dbname=postgres connect_timeout=60",
                self.server_name(),
                self.lab.address().port(),
                file("ca.pem"),
                file("cert.pem"),
                file("login.key.pem")
            ));
        psql
    }

    pub(crate) fn server_name(&self) -> String {
        format!("device.default.{DOMAIN}")
    }

    fn is_postgres(&self) -> bool {
        matches!(self.behind, Behind::Postgres(_))
    }

    /// What is said so that `word` comes back.
    pub(crate) fn line(&self, word: &str) -> String {
        if self.is_postgres() {
            format!("select '{word}';\n")
        } else {
            format!("{word}\n")
        }
    }

    /// A program that has its session, and the session's id.
    pub(crate) async fn open(&self) -> Talk<'_> {
        let known: Vec<String> = self
            .lab
            .sessions()
            .await
            .into_iter()
            .map(|session| session.id)
            .collect();
        let mut command = self.talk(&self.alice);
        command.stdin(Stdio::piped());
        let mut program = Running::start(command);
        says(self, &mut program, "begun").await;
        let now = self.lab.sessions().await;
        let session = now.into_iter().find(|session| !known.contains(&session.id));
        Talk {
            stage: self,
            program,
            session: session.expect("a session more").id,
        }
    }

    /// Fails the test unless the program said that it was told this, in the words of its protocol.
    #[track_caller]
    pub(crate) fn was_told(&self, said: &Finished, reason: &str) {
        let words = match self.row.kind {
            // A session of MQTT, and what becomes of it, has the words of MQTT however its client came in.
            "tls" if self.row.protocol != "mqtt" || reason == "denied" => match reason {
                "denied" => "alert access denied".to_owned(),
                "revoked" => "alert certificate revoked".to_owned(),
                _ => "alert internal error".to_owned(),
            },
            // Only `fairlead rdp` has words; inside the protocol there are none.
            "rdp" => match reason {
                "denied" => "fairlead: denied (session ".to_owned(),
                "offline" => "fairlead: offline".to_owned(),
                _ => "rdp: the connection has ended".to_owned(),
            },
            _ => format!("fairlead: {reason} (session "),
        };
        assert!(
            said.stderr.contains(&words),
            "{:?} {words}: {}{}",
            self.row,
            said.stderr,
            said.text()
        );
    }

    pub(crate) async fn strike(self) {
        self.lab.stop().await;
        drop(self.behind);
    }
}

/// A program in the middle of its session.
pub(crate) struct Talk<'a> {
    stage: &'a Stage,
    pub(crate) program: Running,
    pub(crate) session: String,
}

impl Talk<'_> {
    pub(crate) async fn says(&mut self, word: &str) {
        says(self.stage, &mut self.program, word).await;
    }

    /// Waits for the end that came from elsewhere: for this reason at both ends, within the time, and told.
    pub(crate) async fn ends_cut(mut self, reasons: &[&str], since: Instant, limit: std::time::Duration) {
        let (stage, row) = (self.stage, self.stage.row);
        let end = stage
            .lab
            .gateway_audit()
            .awaited("session.end", Some(&self.session))
            .await;
        assert!(since.elapsed() < limit, "{row:?}: the end took {:?}", since.elapsed());
        assert!(reasons.contains(&end.text("reason")), "{row:?}: {}", end.shown());
        assert_eq!(end.text("caller"), "alice", "{row:?}");
        if stage.is_postgres() {
            // psql reads what it was told when it wants something again.
            let stdin = self.program.stdin.as_mut().unwrap();
            drop(stdin.write_all(b"select 1;\n").await);
        }
        let said = self.program.finish().await;
        let told = reasons.iter().find(|reason| **reason == end.text("reason")).unwrap();
        stage.was_told(&said, told);
    }
}

async fn says(stage: &Stage, program: &mut Running, word: &str) {
    let stdin = program.stdin.as_mut().unwrap();
    stdin.write_all(stage.line(word).as_bytes()).await.unwrap();
    assert_eq!(program.line().await, word, "{:?}", stage.row);
}

/// The first packet of RDP by a script, since no stock client says lines.
fn rdp(person: &Person, arguments: &[&str]) -> Command {
    let (desktop, more) = arguments.split_first().unwrap();
    let fairlead = command("fairlead", [""; 0]);
    let mut client = stock("/usr/bin/python3");
    client
        .args(["-c", include_str!("rdp.py")])
        .arg(fairlead.as_std().get_program())
        .arg(desktop)
        .arg(person.path("desktop.rdp"))
        .args(more)
        .env("FAIRLEAD_HOME", person.path(""));
    client
}

fn device() -> String {
    format!("{}@device.default.internal", Account::current().unwrap().name)
}

async fn sshd(lab: &Lab) -> Sshd {
    let dir = lab.path("sshd");
    private_dir(&dir).unwrap();
    let trust = Trust {
        user_ca: Some(lab.user_ca()),
        principals: vec!["alice".into()],
        keys: Vec::new(),
    };
    let sshd = Sshd::start(&dir, &trust).await;
    lab.know_host("device.default.internal", &sshd.host_key);
    sshd
}
