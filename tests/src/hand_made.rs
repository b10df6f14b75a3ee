//! A gateway made by hand: the real gateway's authority and none of its scruples. It speaks the wire itself, so that a test
//! can ask an agent for what no gateway of ours would ask.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, SystemTime};

use fairlead_identity::authority::Authority;
use fairlead_identity::keys::{self, PrivateKey};
use fairlead_identity::principal::{Kind, Principal};
use fairlead_identity::tls;
use fairlead_identity::verify::Roots;
use fairlead_runtime::{frame, quic};
use fairlead_wire::codec::{self, MAX_CONTROL_FRAME};
use fairlead_wire::control::{Body, Control, Hello, Offer, OfferAnswer, Welcome};
use fairlead_wire::id::SessionId;
use fairlead_wire::open::{self, Caller, Open, OpenAnswer};
use fairlead_wire::refusal::{Reason, Refused};
use fairlead_wire::version::{ALPN_LINK, VERSION_MAX};
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{Connection, RecvStream, SendStream};
use tokio::time::timeout;

use crate::programs::PATIENCE;

/// Longer than an agent may take for a lookup and a dial.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// Accepts agents with a certificate of the deployment.
pub struct HandMade {
    endpoint: quinn::Endpoint,
}

impl HandMade {
    /// Listens at `address` with the keys in a gateway's state directory, for the trust domain and name `domain`.
    pub fn listen(state_dir: &Path, domain: &str, address: SocketAddr) -> Self {
        let read =
            |name: &str| std::fs::read_to_string(state_dir.join("ca").join(name)).expect("a file of the authority");
        let root = read("root-1.pem");
        let authority =
            Authority::load(&read("issuing-1.key.pem"), &read("issuing-1.pem"), &root).expect("an authority");
        let key = PrivateKey::generate().expect("a key");
        let who =
            Principal::new(domain, None, Kind::Gateway, "gateway".parse().expect("a label")).expect("a principal");
        let life = Duration::from_secs(3600);
        let csr = key.csr_der().expect("a request");
        let serial = keys::random_serial().expect("a serial");
        let issued = authority
            .issue(&csr, &who, &[domain.to_owned()], life, SystemTime::now(), serial)
            .expect("a certificate");
        let chain = fairlead_identity::chain::from_ders(issued.chain_der).expect("a chain");
        let roots = Roots::from_pem(&root).expect("the roots");
        let tls = tls::gateway_quic(chain, &key, &roots, &[ALPN_LINK]).expect("TLS settings");
        let server = quic::server_config(QuicServerConfig::try_from(tls).expect("QUIC settings"));
        let socket = quic::socket(address).expect("a port");
        let endpoint = quic::endpoint(socket, quinn::EndpointConfig::default(), Some(server)).expect("an endpoint");
        Self { endpoint }
    }

    /// The next agent that dials, not greeted yet.
    pub async fn accept(&self) -> HandMadeLink {
        let accepted = async {
            loop {
                let incoming = self.endpoint.accept().await.expect("the endpoint lives");
                let Ok(connection) = incoming.await else { continue };
                let Ok((send, recv)) = connection.accept_bi().await else {
                    continue;
                };
                return HandMadeLink {
                    connection,
                    send,
                    recv,
                    sessions: 0,
                };
            }
        };
        timeout(PATIENCE, accepted).await.expect("an agent dials")
    }
}

/// One agent's link.
pub struct HandMadeLink {
    /// The connection, to be misused.
    pub connection: Connection,
    send: SendStream,
    recv: RecvStream,
    sessions: u64,
}

/// A session that the agent opened.
pub struct HandMadeSession {
    /// To the agent.
    pub send: SendStream,
    /// From the agent.
    pub recv: RecvStream,
}

impl HandMadeLink {
    /// Reads Hello.
    pub async fn hello(&mut self) -> Hello {
        match self.frame().await.body {
            Some(Body::Hello(hello)) => hello,
            other => panic!("not a Hello: {other:?}"),
        }
    }

    /// Welcomes the agent, takes whatever it offers, and gives the offer.
    pub async fn welcome(&mut self, ssh_user_ca: Vec<String>, domain: &str) -> Offer {
        self.say(Body::Welcome(Welcome {
            version: VERSION_MAX,
            gateway: "gateway".into(),
            ssh_user_ca,
            domain: domain.into(),
            ..Welcome::default()
        }))
        .await;
        loop {
            match self.frame().await.body {
                Some(Body::Offer(offer)) => {
                    let accepted = offer.endpoints.iter().map(|endpoint| endpoint.url.clone()).collect();
                    self.say(Body::OfferAnswer(OfferAnswer {
                        accepted,
                        refused: Vec::new(),
                    }))
                    .await;
                    return offer;
                }
                Some(Body::HostKeyRequest(_)) => {
                    self.say(Body::Refused(Refused::new(Reason::Unsupported, "not here")))
                        .await;
                }
                _ => {}
            }
        }
    }

    /// Sends any message on the control stream.
    pub async fn say(&mut self, body: Body) {
        let frame = codec::encode(&Control { body: Some(body) }, MAX_CONTROL_FRAME).expect("a frame");
        self.send.write_all(&frame).await.expect("the agent listens");
    }

    /// The next frame of the control stream.
    pub async fn frame(&mut self) -> Control {
        let body = timeout(PATIENCE, frame::read_frame(&mut self.recv, MAX_CONTROL_FRAME)).await;
        let body = body.expect("a frame in time").expect("the stream lives");
        codec::decode_body(&body.expect("a frame before the end")).expect("a control message")
    }

    /// An `Open` of a fresh session by alice, who may be anybody.
    pub fn ask(&mut self, url: &str) -> Open {
        self.sessions += 1;
        let mut session = [7; 16];
        session[8..].copy_from_slice(&self.sessions.to_be_bytes());
        Open {
            session: session.to_vec(),
            endpoint_url: url.into(),
            caller: Some(Caller {
                name: "alice".into(),
                kind: "user".into(),
                groups: vec!["field".into()],
                ..Caller::default()
            }),
            client_ip: "192.0.2.9".into(),
            client_port: 4711,
            started_unix_ms: 1_700_000_000_000,
            ..Open::default()
        }
    }

    /// Asks for a session.
    ///
    /// # Errors
    /// The agent's refusal.
    pub async fn open(&self, open: &Open) -> Result<HandMadeSession, Refused> {
        let frame = codec::encode(open, MAX_CONTROL_FRAME).expect("a frame");
        self.open_with(&frame).await
    }

    /// Sends any bytes in place of an `Open`, and reads the answer to them.
    ///
    /// # Errors
    /// The agent's refusal.
    pub async fn open_with(&self, bytes: &[u8]) -> Result<HandMadeSession, Refused> {
        let (mut send, mut recv) = self.connection.open_bi().await.expect("a stream");
        // The agent may have refused before it took everything.
        drop(send.write_all(bytes).await);
        let answer = timeout(ANSWER_LIMIT, frame::read_frame(&mut recv, MAX_CONTROL_FRAME)).await;
        let body = match answer.expect("the agent answers in time") {
            Ok(Some(body)) => body,
            Ok(None) => panic!("the agent ended the stream without an answer"),
            // Reset: the code is the reason.
            Err(error) => {
                let reason = self.reset_reason(&mut recv).await;
                return Err(Refused::new(reason, &error.to_string()));
            }
        };
        let answer: OpenAnswer = codec::decode_body(&body).expect("an answer");
        match answer.body {
            Some(open::Body::Opened(_)) => Ok(HandMadeSession { send, recv }),
            Some(open::Body::Refused(refused)) => Err(refused),
            other => panic!("neither a session nor a refusal: {other:?}"),
        }
    }

    async fn reset_reason(&self, recv: &mut RecvStream) -> Reason {
        match recv.received_reset().await {
            Ok(Some(code)) => Reason::from_quic_code(code.into_inner()).unwrap_or(Reason::Internal),
            _ => Reason::Internal,
        }
    }
}

/// The printed id of a session that was asked for.
pub fn id_of(open: &Open) -> String {
    SessionId::try_from(open.session.as_slice())
        .expect("sixteen bytes")
        .to_string()
}
