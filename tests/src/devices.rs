//! Devices that enrol from this process: each with a key of its own and, where a test wants it, an address of its own.
//!
//! For races and crowds, where a process per device would measure processes.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fairlead_agent::enroll::{self, EnrollError};
use fairlead_identity::join::JoinString;
use fairlead_identity::keys::PrivateKey;
use fairlead_identity::tls;
use fairlead_identity::verify::{self, Roots, Usage};
use fairlead_runtime::frame;
use fairlead_runtime::quic::{self, Role};
use fairlead_runtime::stop::CancellationToken;
use fairlead_runtime::tasks::TaskGroup;
use fairlead_wire::codec::{self, MAX_CONTROL_FRAME, MAX_PREAUTH_FRAME};
use fairlead_wire::enroll::{Body, EnrollAnswer, EnrollRequest, Enrolled};
use fairlead_wire::refusal::Reason;
use fairlead_wire::version::{ALPN_ENROLL, VERSION_MAX, VERSION_MIN};
use quinn::crypto::rustls::QuicClientConfig;
use tokio::sync::mpsc;

/// Before a device asks again that was not answered.
const PAUSE: Duration = Duration::from_millis(200);
/// One attempt from an address of the device's own.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(10);

/// A device with its key.
pub struct Device {
    /// The name it proposes.
    pub name: String,
    /// The digest of its key, as the gateway's store has it.
    pub spki: [u8; 32],
    csr: Vec<u8>,
    source: Option<Ipv4Addr>,
}

/// A certificate that a device got; its chain, names and key were verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certified {
    /// The agent's name.
    pub name: String,
    /// The digest of the key that it is for.
    pub spki: [u8; 32],
    /// Its serial number.
    pub serial: String,
}

impl Device {
    /// A device that proposes `name`.
    pub fn new(name: &str) -> Self {
        let key = PrivateKey::generate().expect("a key");
        Self {
            name: name.to_owned(),
            spki: key.spki_sha256(),
            csr: key.csr_der().expect("a request"),
            source: None,
        }
    }

    /// Lets it come from an address of its own, one of 127.0.0.0/8.
    pub fn at(mut self, source: Ipv4Addr) -> Self {
        self.source = Some(source);
        self
    }

    /// One attempt.
    ///
    /// # Errors
    /// Those of the agent's own exchange.
    pub async fn enrol(&self, join: &JoinString) -> Result<Certified, EnrollError> {
        let enrolled = match self.source {
            None => enroll::exchange_as(join, self.csr.clone(), BTreeMap::new(), &self.name).await?,
            Some(source) => self.exchange_from(source, join).await?,
        };
        Ok(certified(&enrolled))
    }

    /// Tries until there is an answer that more time does not change; with the number of attempts.
    pub async fn enrol_at_last(&self, join: &JoinString) -> (Result<Certified, Reason>, usize) {
        let mut attempts = 0;
        loop {
            attempts += 1;
            match self.enrol(join).await {
                Ok(certified) => return (Ok(certified), attempts),
                Err(EnrollError::Refused { reason, .. })
                    if !matches!(reason, Reason::Internal | Reason::AuditFailed | Reason::GatewayStopping) =>
                {
                    return (Err(reason), attempts);
                }
                Err(EnrollError::Unreachable(_) | EnrollError::Refused { .. }) => tokio::time::sleep(PAUSE).await,
                Err(other) => panic!("{}: {other}", self.name),
            }
        }
    }

    /// The same exchange as the agent's, whose program leaves its address to the system.
    async fn exchange_from(&self, source: Ipv4Addr, join: &JoinString) -> Result<Enrolled, EnrollError> {
        let attempt = tokio::time::timeout(ATTEMPT_LIMIT, self.ask_from(source, join)).await;
        let answer = match attempt {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return Err(EnrollError::Unreachable(format!("{error:#}"))),
            Err(_) => return Err(EnrollError::Unreachable("no answer within 10 s".into())),
        };
        match answer.body {
            Some(Body::Enrolled(enrolled)) => Ok(enrolled),
            Some(Body::Refused(refused)) => Err(EnrollError::Refused {
                reason: refused.known_reason(),
                detail: refused.detail,
            }),
            None => Err(EnrollError::Answer("it is empty".into())),
        }
    }

    async fn ask_from(&self, source: Ipv4Addr, join: &JoinString) -> anyhow::Result<EnrollAnswer> {
        let crypto = QuicClientConfig::try_from(tls::enroll_quic(join.ca_sha256, ALPN_ENROLL)?)?;
        let socket = quic::socket(SocketAddr::from((source, 0)))?;
        let endpoint = quic::endpoint(socket, quinn::EndpointConfig::default(), None)?;
        let gateway: SocketAddr = join.addresses.first().expect("an address").parse()?;
        let config = quic::client_config(crypto, Role::Caller);
        let connection = endpoint.connect_with(config, gateway, &join.domain)?.await?;
        let (mut send, mut recv) = connection.open_bi().await?;
        let request = EnrollRequest {
            version_min: VERSION_MIN,
            version_max: VERSION_MAX,
            secret: join.secret.expose().to_vec(),
            csr_der: self.csr.clone(),
            proposed_name: self.name.clone(),
            ..EnrollRequest::default()
        };
        send.write_all(&codec::encode(&request, MAX_PREAUTH_FRAME)?).await?;
        send.finish()?;
        let body = frame::read_frame(&mut recv, MAX_CONTROL_FRAME).await?;
        let body = body.ok_or_else(|| anyhow::anyhow!("no answer"))?;
        let answer = codec::decode_body(&body)?;
        connection.closed().await;
        Ok(answer)
    }
}

fn certified(enrolled: &Enrolled) -> Certified {
    let chain = fairlead_identity::chain::from_ders(enrolled.certificate_chain.clone()).expect("a chain");
    let roots = Roots::from_der(std::slice::from_ref(chain.last().expect("a root"))).expect("a root");
    let who = verify::authenticate(&chain, &roots, Usage::Client, roots.trust_domain(), SystemTime::now());
    let who = who.expect("a certificate that is good");
    assert_eq!(who.principal().to_string(), enrolled.principal);
    Certified {
        name: who.principal().name().to_string(),
        spki: *who.spki_sha256(),
        serial: who.serial_hex().to_owned(),
    }
}

/// Lets every device do `act` at the same time. What has not come to its end when `stop` is cancelled is dropped, as in a
/// device that loses power. Answers come in the order of their ends.
pub async fn all_at_once<T, F>(
    devices: &[Arc<Device>],
    stop: &CancellationToken,
    act: impl Fn(Arc<Device>) -> F,
) -> Vec<(Arc<Device>, T)>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let tasks = TaskGroup::new("devices", &CancellationToken::new());
    let (ends, mut ended) = mpsc::channel(devices.len().max(1));
    for device in devices {
        let (ends, stop, device) = (ends.clone(), stop.clone(), Arc::clone(device));
        let acting = act(Arc::clone(&device));
        tasks.spawn("device", async move {
            tokio::select! {
                () = stop.cancelled() => {}
                end = acting => ends.send((device, end)).await.expect("the test waits for every device"),
            }
        });
    }
    drop(ends);
    let mut answers = Vec::new();
    while let Some(answer) = ended.recv().await {
        answers.push(answer);
    }
    tasks.stop(Duration::from_secs(1)).await;
    answers
}
