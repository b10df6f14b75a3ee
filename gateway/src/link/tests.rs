use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use fairlead_identity::authority::{self, Authority};
use fairlead_identity::keys::{PrivateKey, random_serial};
use fairlead_identity::principal::{Kind, Principal};
use fairlead_identity::tls;
use fairlead_identity::verify::{self, Roots, Usage};
use fairlead_runtime::frame;
use fairlead_runtime::quic::{self, Role};
use fairlead_runtime::stop::CancellationToken;
use fairlead_runtime::tasks::TaskGroup;
use fairlead_wire::codec::{self, MAX_CONTROL_FRAME};
use fairlead_wire::control::{self, Body, Control, Hello, HostKeyRequest, Pong};
use fairlead_wire::version::{ALPN_LINK, VERSION_MAX, VERSION_MIN};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{Connection, RecvStream, SendStream, VarInt};
use rustls::pki_types::CertificateDer;
use secrecy::ExposeSecret;
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

use super::*;
use crate::access::testing::OpenGate;
use crate::admission::Admission;

const DOMAIN: &str = "gw.example.com";
const PATIENCE: Duration = Duration::from_secs(20);

/// The rooms that remember, as a test wants them.
struct Memory {
    roots: Roots,
    deleted: AtomicBool,
    conflicts: AtomicUsize,
    switches: AtomicUsize,
    /// Every `link.up` and `link.down`.
    changes: Mutex<Vec<bool>>,
    /// Why strangers were refused.
    strangers: Mutex<Vec<&'static str>>,
    /// A store that answers an offer for each permit.
    store: Semaphore,
}

impl Registrar for Memory {
    fn authenticate(&self, chain: &[CertificateDer<'_>]) -> Result<Authenticated, VerifyError> {
        verify::authenticate(chain, &self.roots, Usage::Client, "example.com", SystemTime::now())
    }

    fn roots_kept<'a>(&'a self, _agent: &'a AgentKey, _spki: [u8; 32], _roots: Vec<Vec<u8>>) -> Answer<'a, ()> {
        Box::pin(async {})
    }

    fn admit<'a>(
        &'a self,
        who: &'a Authenticated,
        _client: IpAddr,
        _reported: Vec<(String, String)>,
    ) -> Answer<'a, Result<AgentKey, Reason>> {
        let principal = who.principal();
        let (site, name) = (principal.site().unwrap().clone(), principal.name().clone());
        Box::pin(async { Ok(AgentKey { site, name }) })
    }

    fn still_admitted<'a>(&'a self, _agent: &'a AgentKey, _spki: [u8; 32]) -> Answer<'a, Result<(), Reason>> {
        let deleted = self.deleted.load(Ordering::Relaxed);
        Box::pin(async move { if deleted { Err(Reason::Revoked) } else { Ok(()) } })
    }

    fn conflict(&self, _agent: &AgentKey, _conflict: &Conflict) {
        self.conflicts.fetch_add(1, Ordering::Relaxed);
    }

    fn machine_changed(&self, _agent: &AgentKey, _conflict: &Conflict) {
        self.switches.fetch_add(1, Ordering::Relaxed);
    }

    fn stranger(&self, _client: IpAddr, why: &'static str) {
        self.strangers.lock().unwrap().push(why);
    }

    fn welcome(&self, version: u32) -> Welcome {
        Welcome {
            version,
            gateway: DOMAIN.into(),
            domain: DOMAIN.into(),
            ..Welcome::default()
        }
    }

    fn offer<'a>(
        &'a self,
        _agent: &'a AgentKey,
        _spki: [u8; 32],
        _offer: Offer,
    ) -> Answer<'a, Result<OfferAnswer, Reason>> {
        Box::pin(async {
            self.store.acquire().await.unwrap().forget();
            Ok(OfferAnswer::default())
        })
    }

    fn host_keys<'a>(
        &'a self,
        _agent: &'a AgentKey,
        _spki: [u8; 32],
        _report: HostKeyReport,
        _tell_refused: bool,
    ) -> Answer<'a, Result<usize, Reason>> {
        Box::pin(async { Ok(0) })
    }

    fn certify_host_key<'a>(
        &'a self,
        _agent: &'a AgentKey,
        _spki: [u8; 32],
        public_key: String,
    ) -> Answer<'a, Result<HostCertificate, Reason>> {
        Box::pin(async {
            Ok(HostCertificate {
                certificate: public_key,
                valid_seconds: 900,
            })
        })
    }

    fn link_changed<'a>(&'a self, _agent: &'a AgentKey, _client: IpAddr, up: bool, _why: String) -> Answer<'a, ()> {
        self.changes.lock().unwrap().push(up);
        Box::pin(async {})
    }

    fn renew<'a>(
        &'a self,
        _agent: &'a AgentKey,
        _spki: [u8; 32],
        _csr: Vec<u8>,
    ) -> Answer<'a, Result<Renewed, Reason>> {
        Box::pin(async { Err(Reason::Internal) })
    }

    fn enroll<'a>(&'a self, _request: EnrollRequest, _exporter: [u8; 32], _client: IpAddr) -> Answer<'a, EnrollAnswer> {
        Box::pin(async { unreachable!("nobody enrols here") })
    }
}

/// No face for callers.
struct Nobody;

impl Conversation for Nobody {
    fn converse(&self, caller: CallerConnection, _slot: Slot) -> Answer<'_, Result<(), &'static str>> {
        caller.connection.close(0, "");
        Box::pin(async { Err("nobody") })
    }
}

/// The links of a gateway without the gateway.
struct Stage {
    memory: Arc<Memory>,
    roster: Arc<Roster>,
    authority: Authority,
    roots: Roots,
    /// The key of pump-7, which a copy of its state has too.
    key: PrivateKey,
    address: std::net::SocketAddr,
    _tasks: TaskGroup,
}

impl Stage {
    /// `answers` offers are answered, later ones wait for ever.
    fn set(answers: usize) -> Self {
        let now = SystemTime::now();
        let (root_key, root) = authority::create_root("example.com", now).unwrap();
        let (key, issuing) = authority::create_issuing(&root_key, &root, "example.com", now).unwrap();
        let authority = Authority::load(key.to_pem().expose_secret(), &issuing, &root).unwrap();
        let roots = Roots::from_der(std::slice::from_ref(authority.root_der())).unwrap();
        let key = PrivateKey::generate().unwrap();
        let chain = issue(&authority, None, Kind::Gateway, "gateway", &[DOMAIN.to_owned()], &key);
        let server = tls::gateway_quic(chain, &key, &roots, &[ALPN_LINK]).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let tcp_tls = Arc::clone(&server);
        let reset_key = ResetKey::load_or_create(&dir.path().join("key")).unwrap();
        let endpoint = bind(([127, 0, 0, 1], 0).into(), settings(server).unwrap(), &reset_key).unwrap();
        let address = endpoint.local_addr().unwrap();
        let memory = Arc::new(Memory {
            roots: roots.clone(),
            deleted: AtomicBool::new(false),
            conflicts: AtomicUsize::new(0),
            switches: AtomicUsize::new(0),
            changes: Mutex::default(),
            strangers: Mutex::default(),
            store: Semaphore::new(answers),
        });
        let roster = Roster::new(8);
        let acceptor = Acceptor {
            authority: watch::channel(control::Authority::default()).1,
            admission: Admission::new(8, 8),
            roster: Arc::clone(&roster),
            registrar: memory.clone(),
            callers: Arc::new(Nobody),
        };
        let stop = CancellationToken::new();
        let tasks = TaskGroup::new("test", &stop);
        let tcp_tls = watch::channel(tcp_tls).1;
        let links = Links::new(acceptor, tcp_tls, tasks.clone(), stop);
        tasks.spawn("accept", serve(endpoint, links));
        Self {
            memory,
            roster,
            authority,
            roots,
            key: PrivateKey::generate().unwrap(),
            address,
            _tasks: tasks,
        }
    }

    /// A linked pump-7.plant-7 of a boot of its own; `Role::Caller` lets nobody open streams.
    async fn agent(&self, boot: u8, role: Role) -> Agent {
        self.agent_with(&self.key, boot, role).await
    }

    async fn agent_with(&self, key: &PrivateKey, boot: u8, role: Role) -> Agent {
        let site = "plant-7".parse().unwrap();
        let chain = issue(&self.authority, Some(site), Kind::Agent, "pump-7", &[], key);
        let client = tls::agent_quic(Some((chain, key)), &self.roots, ALPN_LINK).unwrap();
        let socket = quic::socket(([127, 0, 0, 1], 0).into()).unwrap();
        let endpoint = quic::endpoint(socket, quinn::EndpointConfig::default(), None).unwrap();
        let config = quic::client_config(QuicClientConfig::try_from(client).unwrap(), role);
        let connection = endpoint
            .connect_with(config, self.address, DOMAIN)
            .unwrap()
            .await
            .unwrap();
        let (send, recv) = connection.open_bi().await.unwrap();
        let mut agent = Agent { connection, send, recv };
        let hello = Hello {
            version_min: VERSION_MIN,
            version_max: VERSION_MAX,
            boot_id: vec![boot; 16],
            software: "fairlead-agent/test".into(),
            ..Hello::default()
        };
        agent.say(Body::Hello(hello)).await;
        assert!(matches!(agent.hear().await, Some(Body::Welcome(_))));
        agent
    }

    /// A linked agent whose offer was answered.
    async fn serving(&self, boot: u8, role: Role) -> Agent {
        let mut agent = self.agent(boot, role).await;
        self.memory.store.add_permits(1);
        agent.say(Body::Offer(Offer::default())).await;
        assert!(matches!(agent.hear().await, Some(Body::OfferAnswer(_))));
        self.online().await;
        agent
    }

    async fn online(&self) {
        let mut changes = self.roster.watch();
        let online = async {
            while self.roster.online().is_empty() {
                changes.changed().await.unwrap();
            }
        };
        timeout(PATIENCE, online).await.expect("no agent comes online");
    }
}

fn issue(
    authority: &Authority,
    site: Option<Label>,
    kind: Kind,
    name: &str,
    dns: &[String],
    key: &PrivateKey,
) -> Vec<CertificateDer<'static>> {
    let who = Principal::new("example.com", site, kind, name.parse().unwrap()).unwrap();
    let (csr, life) = (key.csr_der().unwrap(), Duration::from_secs(3600));
    let issued = authority
        .issue(&csr, &who, dns, life, SystemTime::now(), random_serial().unwrap())
        .unwrap();
    issued.chain_der.into_iter().map(CertificateDer::from).collect()
}

/// An agent that says what a test wants.
struct Agent {
    connection: Connection,
    send: SendStream,
    recv: RecvStream,
}

impl Agent {
    async fn say(&mut self, body: Body) {
        let bytes = codec::encode(&Control { body: Some(body) }, MAX_CONTROL_FRAME).unwrap();
        self.send.write_all(&bytes).await.unwrap();
    }

    /// The gateway's next message; `None` when it ended the link.
    async fn hear(&mut self) -> Option<Body> {
        let body = timeout(PATIENCE, frame::read_frame(&mut self.recv, MAX_CONTROL_FRAME))
            .await
            .unwrap()
            .ok()??;
        codec::decode_body::<Control>(&body).unwrap().body
    }

    /// Answers probes until the gateway refuses this agent.
    async fn refused(&mut self) -> Reason {
        loop {
            match self.hear().await.expect("the link ended without a refusal") {
                Body::Ping(ping) => self.say(Body::Pong(Pong { nonce: ping.nonce })).await,
                Body::Refused(refused) => return refused.known_reason(),
                _ => {}
            }
        }
    }

    async fn closed(&self) -> Option<Reason> {
        match timeout(PATIENCE, self.connection.closed()).await.unwrap() {
            quinn::ConnectionError::ApplicationClosed(close) => Reason::from_quic_code(close.error_code.into_inner()),
            other => panic!("{other}"),
        }
    }
}

#[tokio::test]
async fn an_agent_that_is_deleted_while_it_links_serves_nothing() {
    let stage = Stage::set(0);
    stage.memory.deleted.store(true, Ordering::Relaxed);
    let mut agent = stage.agent(1, Role::Agent).await;
    assert_eq!(agent.refused().await, Reason::Revoked);
    assert_eq!(agent.closed().await, Some(Reason::Revoked));
    assert!(stage.roster.online().is_empty());
    assert!(stage.memory.changes.lock().unwrap().is_empty(), "it was never up");
}

#[tokio::test]
async fn a_live_agent_keeps_its_place_however_slow_the_store_is() {
    let stage = Stage::set(0);
    let mut first = stage.serving(1, Role::Agent).await;
    // Never answered.
    first.say(Body::Offer(Offer::default())).await;
    let mut second = stage.agent(2, Role::Agent).await;
    let refused = tokio::select! {
        refused = second.refused() => refused,
        refused = first.refused() => panic!("the first one is refused: {refused}"),
    };
    assert_eq!(refused, Reason::Conflict);
    assert_eq!(stage.memory.conflicts.load(Ordering::Relaxed), 1);
    assert!(first.connection.close_reason().is_none());
    let (agent, conflict) = stage.roster.conflicts().remove(0);
    assert_eq!((agent.name.as_str(), conflict.tries), ("pump-7", 1));
    assert_ne!(conflict.serving, conflict.rival, "both addresses are known");
}

#[tokio::test]
async fn of_two_machines_the_other_serves_only_after_the_first_is_gone_and_the_first_not_at_once_again() {
    let stage = Stage::set(0);
    let mut first = stage.serving(1, Role::Agent).await;
    let mut copy = stage.agent(2, Role::Agent).await;
    tokio::select! {
        refused = copy.refused() => assert_eq!(refused, Reason::Conflict),
        refused = first.refused() => panic!("the first one is refused: {refused}"),
    }
    first.connection.close(0_u32.into(), b"gone");
    let mut changes = stage.roster.watch();
    while !stage.roster.online().is_empty() {
        timeout(PATIENCE, changes.changed()).await.unwrap().unwrap();
    }
    let second_copy = stage.serving(2, Role::Agent).await;
    assert_eq!(stage.memory.switches.load(Ordering::Relaxed), 1);
    second_copy.connection.close(0_u32.into(), b"gone");
    let mut back = stage.agent(1, Role::Agent).await;
    assert_eq!(back.refused().await, Reason::Conflict, "a switch a minute");
}

#[tokio::test]
async fn a_machine_that_was_enrolled_anew_takes_the_place_of_the_old_key_at_once() {
    let stage = Stage::set(0);
    let mut first = stage.serving(1, Role::Agent).await;
    let mut copy = stage.agent(2, Role::Agent).await;
    tokio::select! {
        refused = copy.refused() => assert_eq!(refused, Reason::Conflict),
        refused = first.refused() => panic!("the first one is refused: {refused}"),
    }
    stage.memory.store.add_permits(1);
    let mut chosen = stage.agent_with(&PrivateKey::generate().unwrap(), 2, Role::Agent).await;
    chosen.say(Body::Offer(Offer::default())).await;
    assert!(matches!(chosen.hear().await, Some(Body::OfferAnswer(_))));
    assert_eq!(first.closed().await, Some(Reason::Revoked));
    assert!(stage.roster.conflicts().is_empty(), "settled");
}

#[tokio::test]
async fn of_two_machines_that_find_a_dead_link_one_gets_the_place() {
    let stage = Stage::set(0);
    let silent = stage.serving(1, Role::Agent).await;
    let (mut second, mut third) = tokio::join!(stage.agent(2, Role::Agent), stage.agent(3, Role::Agent));
    let refused = tokio::select! {
        refused = second.refused() => refused,
        refused = third.refused() => refused,
    };
    assert_eq!(refused, Reason::Conflict);
    assert_eq!(silent.closed().await, Some(Reason::Conflict));
    assert!(second.connection.close_reason().is_none() || third.connection.close_reason().is_none());
}

#[tokio::test]
async fn an_agent_that_asks_more_than_the_store_can_answer_is_cut_off() {
    let stage = Stage::set(0);
    let mut agent = stage.agent(1, Role::Agent).await;
    for _ in 0..20 {
        agent.say(Body::Offer(Offer::default())).await;
    }
    assert_eq!(agent.closed().await, Some(Reason::Limit));
}

#[tokio::test]
async fn what_an_agent_offers_is_looked_at_again_when_its_bindings_change() {
    let stage = Stage::set(2);
    let mut agent = stage.agent(1, Role::Agent).await;
    agent
        .say(Body::HostKeyRequest(HostKeyRequest {
            public_key: "ssh-ed25519 AAAA".into(),
        }))
        .await;
    agent.say(Body::Offer(Offer::default())).await;
    let again = AgentKey {
        site: "plant-7".parse().unwrap(),
        name: "pump-7".parse().unwrap(),
    };
    for _ in 0..2 {
        assert!(matches!(agent.hear().await, Some(Body::HostCertificate(_))));
        assert!(matches!(agent.hear().await, Some(Body::OfferAnswer(_))));
        stage.roster.look_again(&again);
    }
}

#[tokio::test]
async fn an_agents_reason_for_no_stream_reaches_the_caller() {
    let (stage, gate) = (Stage::set(0), OpenGate::new());
    let agent = stage.serving(1, Role::Agent).await;
    let permit = gate.permit();
    let stopping = async {
        let (mut send, recv) = agent.connection.accept_bi().await.unwrap();
        send.reset(VarInt::from_u32(Reason::AgentStopping.code())).unwrap();
        recv
    };
    let (opened, _recv) = tokio::join!(stage.roster.open(&permit), stopping);
    assert_eq!(opened.unwrap_err().reason, Reason::AgentStopping);

    let leaving = async {
        let stream = agent.connection.accept_bi().await.unwrap();
        agent
            .connection
            .close(VarInt::from_u32(Reason::AgentStopping.code()), b"");
        drop(stream);
    };
    let (opened, ()) = tokio::join!(stage.roster.open(&permit), leaving);
    assert_eq!(opened.unwrap_err().reason, Reason::Offline);
}

#[tokio::test]
async fn an_agent_that_lets_no_further_stream_be_opened_is_at_its_limit() {
    let (stage, gate) = (Stage::set(0), OpenGate::new());
    let _agent = stage.serving(1, Role::Caller).await;
    let opened = stage.roster.open(&gate.permit()).await;
    assert_eq!(opened.unwrap_err().reason, Reason::Limit);
}
