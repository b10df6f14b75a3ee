//! Commands as they are typed, against real administration over a real socket.

mod why;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use clap::Parser;
use fairlead_gateway::admin::{
    Admin, AgentQuestion, Answer, AuthorityTaken, Change, Desk, IdentityConflict, JoinFacts, Live, LiveSession,
    NotAudited, OnlineAgent, PolicyInForce, PolicyRefused, Settings,
};
use fairlead_gateway::store::{AgentId, EndpointRow, Labels, Mode, RedeemError, SqliteStore, StoreHandle};
use fairlead_identity::join::JoinString;
use fairlead_policy::{AccessPolicy, Source};
use fairlead_runtime::audit::Record;
use fairlead_runtime::clock::SystemClock;
use fairlead_runtime::stop::CancellationToken;
use fairlead_runtime::tasks::TaskGroup;
use fairlead_wire::id::SessionId;
use fairlead_wire::refusal::Reason;
use serde_json::Value;
use tempfile::TempDir;

use super::api;
use crate::command::{CommandError, Context};
use crate::{agents, hosts, policy, sessions, token, users};

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJk2xL7LyGUG5mPJmRVhbQHhGgVk1nGCHqfXDLtYBlo0 alice@laptop";
const SESSION: &str = "07070707-0707-0707-0707-070707070707";

#[derive(Parser)]
enum Typed {
    Token(token::TokenArgs),
    Users(users::UsersArgs),
    Agents(agents::AgentsArgs),
    Hosts(hosts::HostsArgs),
    Sessions(sessions::SessionsArgs),
    Policy(policy::PolicyArgs),
}

struct Quiet;

impl Live for Quiet {
    fn reload_authority(&self) -> Answer<'_, Result<AuthorityTaken, String>> {
        Box::pin(async { Err("nothing to take up".into()) })
    }

    fn online(&self) -> Vec<OnlineAgent> {
        let address = SocketAddr::from(([192, 0, 2, 7], 5555));
        let agent = AgentId::new("plant-7", "pump-7");
        vec![OnlineAgent {
            agent,
            transport: "quic",
            address,
            since: SystemTime::UNIX_EPOCH,
        }]
    }

    fn conflicts(&self) -> Vec<IdentityConflict> {
        vec![IdentityConflict {
            agent: AgentId::new("plant-7", "pump-7"),
            serving: ([192, 0, 2, 7], 5555).into(),
            other: ([192, 0, 2, 8], 6666).into(),
            since: std::time::UNIX_EPOCH,
            last: std::time::UNIX_EPOCH,
            tries: 3,
        }]
    }

    fn sessions(&self) -> Vec<LiveSession> {
        vec![LiveSession {
            session: SESSION.parse().unwrap(),
            caller: "alice".into(),
            kind: "user",
            endpoint: "ssh://pump-7.plant-7.internal".into(),
            agent: AgentId::new("plant-7", "pump-7"),
            rule: "field-ssh".into(),
            client_ip: "192.0.2.1".into(),
            proved: "key SHA256:a".into(),
            acts: Vec::new(),
            started: SystemTime::UNIX_EPOCH,
            bytes_in: 1,
            bytes_out: 2,
        }]
    }

    fn end(&self, session: SessionId, _reason: Reason) -> bool {
        session.to_string() == SESSION
    }

    fn reload(&self) -> Answer<'_, Result<PolicyInForce, PolicyRefused>> {
        Box::pin(async {
            Err(PolicyRefused {
                mistakes: vec!["a.yaml:3:1: no".into()],
            })
        })
    }

    fn policy(&self) -> Arc<AccessPolicy> {
        let text = "version: 1\nrules:\n- {name: field, sites: ['*'], effect: allow, expressions: [\"'field' in caller.groups\"]}\n";
        let (name, text) = ("access.yaml".into(), text.into());
        Arc::new(AccessPolicy::compile(&[Source { name, text }]).unwrap().0)
    }

    fn policy_files(&self) -> Result<Vec<Source>, String> {
        Err("the disk was full".into())
    }

    fn try_policy(&self) -> Answer<'_, Result<api::PolicyTried, PolicyRefused>> {
        Box::pin(async {
            Ok(api::PolicyTried {
                digest: "abc".into(),
                warnings: vec!["hm".into()],
                would_cut: vec![api::SessionLost {
                    id: SESSION.into(),
                    caller: "alice".into(),
                    endpoint: "ssh://pump-7.plant-7.internal".into(),
                    why: "deny-rule".into(),
                    rule: None,
                }],
            })
        })
    }

    fn ask_agent<'a>(&'a self, _question: &'a AgentQuestion) -> Answer<'a, api::AgentWord> {
        Box::pin(async { api::AgentWord::default() })
    }

    fn metrics(&self) -> Result<String, String> {
        Ok(String::new())
    }

    fn ready(&self) -> Result<(), String> {
        Ok(())
    }

    fn changed(&self, _change: &Change) {}

    fn audit(&self, _record: &Record) -> Result<(), NotAudited> {
        Ok(())
    }
}

#[derive(Clone, Default)]
struct Page(Arc<Mutex<Vec<u8>>>);

impl Page {
    fn take(&self) -> String {
        String::from_utf8(std::mem::take(&mut self.0.lock().unwrap())).unwrap()
    }
}

impl Write for Page {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Terminal {
    directory: TempDir,
    context: Context,
    out: Page,
    notes: Page,
    store: StoreHandle,
    _tasks: TaskGroup,
}

impl Terminal {
    async fn open() -> Self {
        let directory = TempDir::new().unwrap();
        let socket = directory.path().join("admin.sock");
        let tasks = TaskGroup::new("test", &CancellationToken::new());
        let store = StoreHandle::start(SqliteStore::in_memory().unwrap(), &tasks).unwrap();
        let desk = Desk {
            store: store.clone(),
            live: Arc::new(Quiet),
            join: JoinFacts {
                addresses: vec!["gw.example.com:443".into()],
                domain: "gw.example.com".into(),
                trust_domain: "gw.example.com".into(),
                ca_sha256: tokio::sync::watch::channel([3; 32]).1,
            },
            clock: Arc::new(SystemClock),
        };
        let settings = Settings {
            socket: socket.clone(),
            metrics_listen: None,
        };
        Admin::bind(&settings).await.unwrap().start(desk, &tasks);
        let (out, notes) = (Page::default(), Page::default());
        let context = Context::new(out.clone(), notes.clone(), Some(socket));
        Self {
            directory,
            context,
            out,
            notes,
            store,
            _tasks: tasks,
        }
    }

    async fn run(&self, line: &str) -> Result<String, CommandError> {
        let words = std::iter::once("fairlead").chain(line.split(' '));
        let context = &self.context;
        match Typed::try_parse_from(words).unwrap_or_else(|error| panic!("{error}")) {
            Typed::Token(args) => token::run(args, context).await,
            Typed::Users(args) => users::run(args, context).await,
            Typed::Agents(args) => agents::run(args, context).await,
            Typed::Hosts(args) => hosts::run(args, context).await,
            Typed::Sessions(args) => sessions::run(args, context).await,
            Typed::Policy(args) => policy::run(args, context).await,
        }
        .map(|()| self.out.take())
    }

    async fn refused(&self, line: &str) -> (u8, String) {
        let error = self.run(line).await.unwrap_err();
        (error.code(), error.to_string())
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    /// An agent with a tunnel to ssh and `builtin:ssh` beside it.
    async fn device(&self, name: &str, site: &str, label: &str) {
        let command = format!("token create --agent {name}.{site} --label {label}");
        let join = self.run(&command).await.unwrap();
        let secret = JoinString::parse(join.trim()).unwrap().secret.sha256();
        let now = i64::try_from(SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs()).unwrap();
        let (id, mut key) = (AgentId::new(site, name), [9; 32]);
        key[..name.len().min(32)].copy_from_slice(name.as_bytes());
        let endpoint = |port, mode| EndpointRow {
            host: id.name.clone(),
            protocol: "ssh".into(),
            port,
            mode,
            pooling: false,
        };
        let endpoints = [endpoint(22, Mode::Tunnel), endpoint(2222, Mode::Builtin)];
        let redeemed: Result<_, RedeemError> = self.store.run(move |store| store.redeem(&secret, &key, now)).await;
        redeemed.unwrap();
        let offered = self.store.run(move |store| store.replace_endpoints(&id, &endpoints, 5));
        let offered: Result<(), fairlead_gateway::store::StoreError> = offered.await;
        offered.unwrap();
    }

    /// Spends a join string as an agent's machine would.
    async fn redeem(&self, join: &str) {
        let secret = JoinString::parse(join).unwrap().secret.sha256();
        let now = i64::try_from(SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs()).unwrap();
        let redeemed: Result<_, RedeemError> = self.store.run(move |store| store.redeem(&secret, &[1; 32], now)).await;
        redeemed.unwrap();
    }
}

#[tokio::test]
async fn an_agents_life_as_it_is_typed() {
    let terminal = Terminal::open().await;
    let join = terminal
        .run("token create --agent pump-7.plant-7 --label tier=edge --host billing")
        .await
        .unwrap();
    assert!(
        join.starts_with("fl1-") && join.lines().count() == 1,
        "the string alone is the result"
    );
    let note = terminal.notes.take();
    assert!(
        note.contains("agent pump-7 in site plant-7") && !note.contains(join.trim()),
        "{note}"
    );
    terminal.redeem(join.trim()).await;
    let id = AgentId::new("plant-7", "pump-7");
    let reported = Labels::from([("os".to_owned(), "debian".to_owned())]);
    let endpoint = EndpointRow {
        host: "pump-7".into(),
        protocol: "ssh".into(),
        port: 22,
        mode: Mode::Builtin,
        pooling: false,
    };
    let spoke = terminal.store.run(move |store| {
        store.touch(&id, &reported, 5)?;
        store.replace_endpoints(&id, &[endpoint], 5)
    });
    let spoke: Result<(), fairlead_gateway::store::StoreError> = spoke.await;
    spoke.unwrap();

    let list = terminal.run("agents list").await.unwrap();
    assert!(
        list.contains("pump-7  plant-7  online (quic)") && list.contains("tier=edge"),
        "{list}"
    );
    assert!(
        !terminal
            .run("agents list --site plant-8")
            .await
            .unwrap()
            .contains("pump-7")
    );
    let sheet = terminal.run("agents show pump-7.plant-7").await.unwrap();
    for part in [
        "billing",
        "reported.os",
        "debian",
        "ssh://pump-7.plant-7.internal:22 (builtin)",
    ] {
        assert!(sheet.contains(part), "{part} in {sheet}");
    }
    let labelled = terminal.run("agents label pump-7.plant-7 row=2 tier-").await.unwrap();
    assert!(labelled.contains("row=2") && !labelled.contains("tier"), "{labelled}");

    let bound = terminal.run("hosts bind meters.plant-7 pump-7 --json").await.unwrap();
    assert_eq!(
        serde_json::from_str::<Value>(&bound).unwrap()["hosts"][0]["agents"][0],
        "pump-7"
    );
    assert!(terminal.run("hosts list").await.unwrap().contains("meters"));
    terminal
        .run("hosts unbind meters.plant-7 pump-7.plant-7")
        .await
        .unwrap();
    let (code, text) = terminal.refused("hosts bind meters.plant-7 pump-7.plant-8").await;
    assert!(code == 64 && text.contains("its own site"), "{text}");

    let (code, text) = terminal.refused("token create --agent pump-7 --site plant-7").await;
    assert!(
        code == 1 && text.contains("fairlead agents delete pump-7.plant-7"),
        "{text}"
    );
    terminal.run("agents delete pump-7.plant-7").await.unwrap();
    let (code, _) = terminal.refused("agents show pump-7.plant-7").await;
    assert_eq!(code, 1);
}

#[tokio::test]
async fn users_come_by_key_file_or_join_string() {
    let terminal = Terminal::open().await;
    let keys = terminal.file("alice.pub", &format!("# laptop\n\n{KEY}\n"));
    let added = terminal
        .run(&format!(
            "users add alice --ssh-key-file {keys} --group field --group night"
        ))
        .await
        .unwrap();
    assert!(added.contains("field,night") && added.contains("enabled"), "{added}");
    assert!(terminal.run("users keys alice").await.unwrap().contains("registered"));
    assert!(terminal.run("users disable alice").await.unwrap().contains("disabled"));
    assert!(terminal.run("users enable alice").await.unwrap().contains("enabled"));
    assert!(!terminal.run("users group alice").await.unwrap().contains("field"));
    let list: Value = serde_json::from_str(&terminal.run("users list --json").await.unwrap()).unwrap();
    assert_eq!(list["users"][0]["name"], "alice");

    let json = terminal
        .run("token create --user bob --group field --ttl 1h --json")
        .await
        .unwrap();
    let created: Value = serde_json::from_str(&json).unwrap();
    assert!(JoinString::parse(created["join"].as_str().unwrap()).is_ok());

    let private = terminal.file("id", "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n");
    let (code, text) = terminal
        .refused(&format!("users add carol --ssh-key-file {private}"))
        .await;
    assert!(code == 78 && text.contains("private key"), "{text}");
    let empty = terminal.file("empty", "\n");
    assert_eq!(
        terminal
            .refused(&format!("users add carol --ssh-key-file {empty}"))
            .await
            .0,
        78
    );
    let rsa = terminal.file("rsa", "ssh-rsa AAAA\n");
    assert_eq!(
        terminal
            .refused(&format!("users add-key alice --ssh-key-file {rsa}"))
            .await
            .0,
        64
    );
}

#[tokio::test]
async fn sessions_are_listed_and_ended() {
    let terminal = Terminal::open().await;
    assert!(terminal.run("sessions list").await.unwrap().contains("field-ssh"));
    terminal.run(&format!("sessions kill {SESSION}")).await.unwrap();
    let (code, text) = terminal
        .refused("sessions kill 08080808-0808-0808-0808-080808080808")
        .await;
    assert!(code == 1 && text.contains("no live session"), "{text}");
}

#[tokio::test]
async fn a_bad_policy_ends_with_78_and_its_places() {
    let terminal = Terminal::open().await;
    let (code, text) = terminal.refused("policy reload").await;
    assert!(
        code == 78 && text.contains("a.yaml:3:1") && text.contains("last good policy"),
        "{text}"
    );

    let good = terminal.file("good.yaml", "version: 1\nrules: []\n");
    assert!(
        terminal
            .run(&format!("policy check {good}"))
            .await
            .unwrap()
            .starts_with("1 file is right")
    );
    terminal.file("bad.yaml", "version: 1\nrulez: []\n");
    let (code, text) = terminal
        .refused(&format!("policy check {}", terminal.directory.path().display()))
        .await;
    assert!(
        code == 78 && text.contains("bad.yaml:2:1") && text.contains("rules"),
        "{text}"
    );
    let (code, _) = terminal.refused("policy check /nowhere.yaml").await;
    assert_eq!(code, 78);
}

#[tokio::test]
async fn no_gateway_is_69_with_a_text_that_says_where_to_look() {
    let terminal = Terminal::open().await;
    let elsewhere = terminal.directory.path().join("nowhere.sock");
    let (code, text) = terminal
        .refused(&format!("agents list --admin-socket {}", elsewhere.display()))
        .await;
    assert!(
        code == 69 && text.contains("nowhere.sock") && text.contains("--admin-socket"),
        "{text}"
    );
    drop(std::os::unix::net::UnixListener::bind(&elsewhere).unwrap());
    let (code, _) = terminal
        .refused(&format!("users list --admin-socket {}", elsewhere.display()))
        .await;
    assert_eq!(code, 69);
}

#[test]
fn what_cannot_be_meant_is_refused_before_it_travels() {
    for line in [
        "token create",
        "token create --agent a --user b",
        "token create --agent a --group g",
        "token create --user a --host h",
        "token create --agent a --ttl forever",
        "token create --agent a --label tier",
        "users add Alice --ssh-key-file f",
        "users add alice",
        "agents label a",
        "agents label a tier",
        "hosts bind h",
        "sessions kill x",
    ] {
        let words = std::iter::once("fairlead").chain(line.split(' '));
        assert!(Typed::try_parse_from(words).is_err(), "{line}");
    }
}
