mod changes;
mod connections;
mod people;
mod tokens;

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use fairlead_runtime::audit::Record;
use fairlead_runtime::clock::ManualClock;
use fairlead_runtime::stop::CancellationToken;
use fairlead_runtime::tasks::TaskGroup;
use fairlead_wire::id::SessionId;
use fairlead_wire::refusal::Reason;
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::UnixStream;

use super::*;
use crate::store::{AgentId, CallerName, SqliteStore, StoreError, StoreHandle};

const NOW: u64 = 1_800_000_000;
const SESSION: [u8; 16] = [7; 16];
const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJk2xL7LyGUG5mPJmRVhbQHhGgVk1nGCHqfXDLtYBlo0 alice@laptop";

/// A gateway that remembers what it was told.
#[derive(Default)]
struct FakeGateway {
    audited: Mutex<Vec<Record>>,
    changes: Mutex<Vec<Change>>,
    audit_is_broken: Mutex<bool>,
    policy_is_broken: Mutex<bool>,
    policy: Mutex<Option<String>>,
}

impl Live for FakeGateway {
    fn online(&self) -> Vec<OnlineAgent> {
        let agent = AgentId::new("plant-7", "pump-7");
        let address = SocketAddr::from(([192, 0, 2, 7], 5555));
        vec![OnlineAgent {
            agent,
            transport: "quic",
            address,
            since: SystemTime::UNIX_EPOCH + Duration::from_secs(5),
        }]
    }

    fn conflicts(&self) -> Vec<IdentityConflict> {
        vec![IdentityConflict {
            agent: AgentId::new("plant-7", "pump-7"),
            serving: SocketAddr::from(([192, 0, 2, 7], 5555)),
            other: SocketAddr::from(([192, 0, 2, 8], 6666)),
            since: SystemTime::UNIX_EPOCH + Duration::from_secs(6),
            last: SystemTime::UNIX_EPOCH + Duration::from_secs(7),
            tries: 3,
        }]
    }

    fn sessions(&self) -> Vec<LiveSession> {
        vec![LiveSession {
            session: SessionId::from_bytes(SESSION),
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
        session == SessionId::from_bytes(SESSION)
    }

    fn reload(&self) -> Answer<'_, Result<PolicyInForce, PolicyRefused>> {
        let broken = *self.policy_is_broken.lock().unwrap();
        Box::pin(async move {
            if broken {
                return Err(PolicyRefused {
                    mistakes: vec!["a.yaml:3:1: no".into(), "b.yaml:1:1: neither".into()],
                });
            }
            Ok(PolicyInForce {
                digest: "abc".into(),
                warnings: vec!["hm".into()],
            })
        })
    }

    fn policy(&self) -> Arc<fairlead_policy::AccessPolicy> {
        let policy = self.policy.lock().unwrap();
        let source = fairlead_policy::Source {
            name: "access.yaml".into(),
            text: policy.clone().unwrap_or_else(|| "version: 1".into()),
        };
        Arc::new(fairlead_policy::AccessPolicy::compile(&[source]).unwrap().0)
    }

    fn policy_files(&self) -> Result<Vec<fairlead_policy::Source>, String> {
        let text = self.policy.lock().unwrap().clone().ok_or("not kept")?;
        Ok(vec![fairlead_policy::Source {
            name: "access.yaml".into(),
            text,
        }])
    }

    fn try_policy(&self) -> Answer<'_, Result<api::PolicyTried, PolicyRefused>> {
        let broken = *self.policy_is_broken.lock().unwrap();
        Box::pin(async move {
            if broken {
                return Err(PolicyRefused {
                    mistakes: vec!["a.yaml:3:1: no".into()],
                });
            }
            Ok(api::PolicyTried {
                digest: "abc".into(),
                warnings: Vec::new(),
                would_cut: Vec::new(),
            })
        })
    }

    fn ask_agent<'a>(&'a self, question: &'a AgentQuestion) -> Answer<'a, api::AgentWord> {
        let reason = Some(format!("not asked: {}", question.agent));
        Box::pin(async move {
            api::AgentWord {
                reason,
                ..api::AgentWord::default()
            }
        })
    }

    fn reload_authority(&self) -> Answer<'_, Result<AuthorityTaken, String>> {
        Box::pin(async { Ok(AuthorityTaken { number: 2, roots: 1 }) })
    }

    fn metrics(&self) -> Result<String, String> {
        Ok("# EOF\n".into())
    }

    fn ready(&self) -> Result<(), String> {
        Err("draining".into())
    }

    fn changed(&self, change: &Change) {
        self.changes.lock().unwrap().push(change.clone());
    }

    fn audit(&self, record: &Record) -> Result<(), NotAudited> {
        if *self.audit_is_broken.lock().unwrap() {
            return Err(NotAudited);
        }
        self.audited.lock().unwrap().push(record.clone());
        Ok(())
    }
}

/// Administration on a socket of its own.
struct Lab {
    directory: TempDir,
    gateway: Arc<FakeGateway>,
    store: StoreHandle,
    tasks: TaskGroup,
    metrics: SocketAddr,
}

impl Lab {
    async fn start() -> Self {
        let directory = TempDir::new().unwrap();
        let settings = Settings {
            socket: directory.path().join("run/admin.sock"),
            metrics_listen: Some(([127, 0, 0, 1], 0).into()),
        };
        let tasks = TaskGroup::new("test", &CancellationToken::new());
        let store = StoreHandle::start(SqliteStore::in_memory().unwrap(), &tasks).unwrap();
        let gateway = Arc::new(FakeGateway::default());
        let desk = Desk {
            store: store.clone(),
            live: gateway.clone(),
            join: JoinFacts {
                addresses: vec!["gw.example.com:443".into()],
                domain: "gw.example.com".into(),
                trust_domain: "gw.example.com".into(),
                ca_sha256: tokio::sync::watch::channel([3; 32]).1,
            },
            clock: Arc::new(ManualClock::new(SystemTime::UNIX_EPOCH + Duration::from_secs(NOW))),
        };
        let admin = Admin::bind(&settings).await.unwrap();
        let metrics = admin.metrics_address().unwrap();
        admin.start(desk, &tasks);
        Self {
            directory,
            gateway,
            store,
            tasks,
            metrics,
        }
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("run/admin.sock")
    }

    async fn call(&self, method: Method, path: &str, body: Value) -> (StatusCode, Value) {
        let text = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let (status, answer) = exchange(&self.socket(), method, path, text.into_bytes()).await;
        (status, serde_json::from_slice(&answer).unwrap_or_default())
    }

    async fn get(&self, path: &str) -> Value {
        let (status, answer) = self.call(Method::GET, path, Value::Null).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        answer
    }

    async fn post(&self, path: &str, body: Value) -> (StatusCode, Value) {
        self.call(Method::POST, path, body).await
    }

    /// The audit lines as EVENT/DECISION[/REASON].
    fn audited(&self) -> Vec<String> {
        let lines = self.gateway.audited.lock().unwrap();
        let line = |record: &Record| {
            let parts = [
                Some(record.event.to_string()),
                record.decision.as_deref().map(Into::into),
                record.reason.as_deref().map(Into::into),
            ];
            parts.into_iter().flatten().collect::<Vec<String>>().join("/")
        };
        lines.iter().map(line).collect()
    }

    fn changes(&self) -> Vec<Change> {
        self.gateway.changes.lock().unwrap().clone()
    }

    /// An enrolled agent.
    async fn enrol(&self, site: &str, name: &str) -> AgentId {
        use crate::store::{Labels, Names, NewToken, TokenGrant, TokenKind};
        let id = AgentId::new(site, name);
        let grant = TokenGrant {
            kind: TokenKind::Agent,
            name: name.into(),
            site: Some(site.into()),
            labels: Labels::from([("tier".into(), "edge".into())]),
            groups: Names::new(),
            hosts: Names::new(),
        };
        let mut secret = [0; 32];
        secret
            .iter_mut()
            .zip(format!("{name}.{site}").bytes())
            .for_each(|(to, from)| *to = from);
        let token = NewToken {
            secret_sha256: secret,
            grant,
            terms: Default::default(),
            created: 0,
            expires: 10,
        };
        let redeemed = self.store.run(move |store| {
            store.create_token(&token)?;
            store.redeem(&secret, &secret, 1)
        });
        redeemed
            .await
            .map_err(|error: crate::store::RedeemError| error.to_string())
            .unwrap();
        id
    }
}

async fn exchange(socket: &Path, method: Method, path: &str, body: Vec<u8>) -> (StatusCode, Vec<u8>) {
    let stream = UnixStream::connect(socket).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .unwrap();
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "admin")
        .body(Full::new(bytes::Bytes::from(body)))
        .unwrap();
    let answered = async move {
        let response = sender.send_request(request).await.unwrap();
        let status = response.status();
        (
            status,
            response.into_body().collect().await.unwrap().to_bytes().to_vec(),
        )
    };
    let (answer, _closed) = tokio::join!(answered, connection);
    answer
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}
