//! Enrolment: a join string for a certificate. Agents and `fairlead login` use the same exchange.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use fairlead_identity::join::{JoinKind, JoinString};
use fairlead_identity::keys::PrivateKey;
use fairlead_identity::name::Label;
use fairlead_identity::tls;
use fairlead_identity::verify::Roots;
use fairlead_runtime::clock::Clock;
use fairlead_runtime::frame;
use fairlead_runtime::quic::Role;
use fairlead_runtime::relay::Sink;
use fairlead_runtime::transport::Connection;
use fairlead_wire::codec::{self, MAX_CONTROL_FRAME, MAX_PREAUTH_FRAME};
use fairlead_wire::enroll::{Body, EnrollAnswer, EnrollRequest, Enrolled, PROOF_CONTEXT, PROOF_EXPORTER};
use fairlead_wire::refusal::Reason;
use fairlead_wire::version::{ALPN_ENROLL, VERSION_MAX, VERSION_MIN};
use rustls::pki_types::CertificateDer;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use crate::identity_files::{self, IdentityFiles};
use crate::link::Ways;
use crate::{joining, link};

/// From the handshake to the answer.
const EXCHANGE_LIMIT: Duration = Duration::from_secs(20);

/// From the answer to the gateway's goodbye; what was answered holds without it.
const GOODBYE_LIMIT: Duration = Duration::from_secs(1);

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum EnrollError {
    /// No gateway answered; trying again may help.
    #[error("{0}; check the network and run it again here: the join string stays good for this machine")]
    Unreachable(String),
    /// Something answered that is not the gateway of this join string.
    #[error(
        "what answers at {address} is not the gateway that made this join string ({why}); nothing was sent to it. \
         Ask for a new join string if the gateway was set up anew"
    )]
    WrongGateway {
        /// What was dialled.
        address: String,
        /// What the certificate check said.
        why: String,
    },
    /// The join string is for something else.
    #[error("this join string is for a {0}, not for an agent; it was not spent")]
    WrongKind(JoinKind),
    /// The gateway said no.
    #[error("the gateway refuses: {reason}{}{detail}", if detail.is_empty() { "" } else { ": " })]
    Refused {
        /// The numbered reason.
        reason: Reason,
        /// The gateway's own words.
        detail: String,
    },
    /// The name is held for this key until an administrator approves it; ask again with the same key.
    #[error("not yet: {0}")]
    Pending(String),
    /// The answer made no sense.
    #[error("the gateway's answer cannot be used: {0}")]
    Answer(String),
}

impl EnrollError {
    fn unusable(error: impl std::fmt::Display) -> Self {
        Self::Answer(error.to_string())
    }
}

/// Sends the request of `join` for the key of `csr_der`; the gateway's certificate is pinned by the join string.
///
/// # Errors
/// See [`EnrollError`].
pub async fn exchange(
    join: &JoinString,
    csr_der: Vec<u8>,
    reported: BTreeMap<String, String>,
) -> Result<Enrolled, EnrollError> {
    exchange_as(join, csr_der, reported, "").await
}

/// As [`exchange`], for a device that proposes its name; only join strings of fleets look at it.
///
/// # Errors
/// See [`EnrollError`].
pub async fn exchange_as(
    join: &JoinString,
    csr_der: Vec<u8>,
    reported: BTreeMap<String, String>,
    proposed_name: &str,
) -> Result<Enrolled, EnrollError> {
    exchange_by(&surroundings()?, join, csr_der, reported, proposed_name).await
}

/// The ways that the environment allows.
fn surroundings() -> Result<Ways, EnrollError> {
    Ways::from_environment().map_err(|error| EnrollError::Unreachable(error.to_string()))
}

/// As [`exchange_as`], by these ways.
///
/// # Errors
/// See [`EnrollError`].
pub async fn exchange_by(
    ways: &Ways,
    join: &JoinString,
    csr_der: Vec<u8>,
    reported: BTreeMap<String, String>,
    proposed_name: &str,
) -> Result<Enrolled, EnrollError> {
    let tls = tls::enroll_quic(join.ca_sha256, ALPN_ENROLL).map_err(EnrollError::unusable)?;
    let connection = link::dial_by(ways, &join.addresses, &join.domain, &tls, Role::Caller)
        .await
        .map_err(|error| {
            if error.refused {
                EnrollError::WrongGateway {
                    address: join.addresses.join(", "),
                    why: error.tried,
                }
            } else {
                EnrollError::Unreachable(error.to_string())
            }
        })?;
    let request = EnrollRequest {
        secret: join.secret.expose().to_vec(),
        csr_der,
        reported,
        proposed_name: proposed_name.to_owned(),
        ..request()
    };
    let enrolled = settle(&connection, &request).await?;
    let roots = Roots::from_der(&roots_of(&enrolled)).map_err(EnrollError::unusable)?;
    if !roots.sha256s().contains(&join.ca_sha256) {
        return Err(EnrollError::Answer(
            "its roots lack the one that the join string pins".into(),
        ));
    }
    Ok(enrolled)
}

/// The roots to trust from now on: those that the gateway names, else the one of the chain.
#[must_use]
pub fn roots_of(enrolled: &Enrolled) -> Vec<CertificateDer<'static>> {
    let named = match enrolled.roots.as_slice() {
        [] => enrolled
            .certificate_chain
            .last()
            .map(std::slice::from_ref)
            .unwrap_or_default(),
        named => named,
    };
    named.iter().cloned().map(CertificateDer::from).collect()
}

/// Renews the certificate of a key that the gateway knows, by proof of that key: an agent's after its certificate has
/// ended, a person's login key at any time.
///
/// # Errors
/// See [`EnrollError`].
pub async fn renew_by_proof(
    gateways: &[String],
    domain: &str,
    roots: &Roots,
    key: &PrivateKey,
    clock: Arc<dyn Clock>,
) -> Result<Enrolled, EnrollError> {
    renew_by_proof_by(&surroundings()?, gateways, domain, roots, key, clock).await
}

/// As [`renew_by_proof`], by these ways.
///
/// # Errors
/// See [`EnrollError`].
pub async fn renew_by_proof_by(
    ways: &Ways,
    gateways: &[String],
    domain: &str,
    roots: &Roots,
    key: &PrivateKey,
    clock: Arc<dyn Clock>,
) -> Result<Enrolled, EnrollError> {
    let clock = tls::clock(move || clock.now());
    let tls = tls::agent_quic_at(None, roots, ALPN_ENROLL, clock).map_err(EnrollError::unusable)?;
    let connection = link::dial_by(ways, gateways, domain, &tls, Role::Caller)
        .await
        .map_err(|error| {
            if error.refused {
                EnrollError::WrongGateway {
                    address: gateways.join(", "),
                    why: error.tried,
                }
            } else {
                EnrollError::Unreachable(error.to_string())
            }
        })?;
    let mut exporter = [0; 32];
    connection
        .export_keying_material(&mut exporter, PROOF_EXPORTER)
        .map_err(EnrollError::unusable)?;
    let proof = key
        .sign(&[PROOF_CONTEXT, &exporter].concat())
        .map_err(EnrollError::unusable)?;
    let csr_der = key.csr_der().map_err(EnrollError::unusable)?;
    settle(
        &connection,
        &EnrollRequest {
            proof,
            csr_der,
            ..request()
        },
    )
    .await
}

fn request() -> EnrollRequest {
    EnrollRequest {
        version_min: VERSION_MIN,
        version_max: VERSION_MAX,
        ..EnrollRequest::default()
    }
}

/// Asks, and reads the answer.
async fn settle(connection: &Connection, request: &EnrollRequest) -> Result<Enrolled, EnrollError> {
    let answer = timeout(EXCHANGE_LIMIT, ask(connection, request))
        .await
        .map_err(|_| EnrollError::Unreachable("the gateway did not answer within 20 s".into()))?
        .map_err(|error| EnrollError::Unreachable(error.to_string()))?;
    // The gateway closes when it knows that its answer has arrived. A process that ends before leaves it waiting, and in
    // a place that another machine could have.
    let _late = timeout(GOODBYE_LIMIT, connection.closed()).await;
    answer.check().map_err(EnrollError::unusable)?;
    match answer.body {
        Some(Body::Enrolled(enrolled)) => Ok(enrolled),
        Some(Body::Refused(refused)) if refused.known_reason() == Reason::Pending => {
            Err(EnrollError::Pending(refused.detail))
        }
        Some(Body::Refused(refused)) => Err(EnrollError::Refused {
            reason: refused.known_reason(),
            detail: refused.detail,
        }),
        None => Err(EnrollError::Answer("it is of a newer kind".into())),
    }
}

async fn ask(connection: &Connection, request: &EnrollRequest) -> anyhow::Result<EnrollAnswer> {
    let (mut send, mut recv) = connection.open().await?;
    send.write_all(&codec::encode(request, MAX_PREAUTH_FRAME)?).await?;
    Sink::finish(&mut send).await?;
    let body = frame::read_frame(&mut recv, MAX_CONTROL_FRAME)
        .await?
        .context("the gateway ended without an answer")?;
    Ok(codec::decode_body(&body)?)
}

/// Enrols this agent and keeps the outcome in `state_dir`.
///
/// Repeating it with the same join string after a crash is safe: the key is on disk before it is sent.
///
/// # Errors
/// When the agent is enrolled already, the join string is for something else, or the exchange fails.
pub async fn enroll_agent(join: &JoinString, state_dir: &Path) -> anyhow::Result<identity_files::Enrolled> {
    enroll_agent_as(join, state_dir, None, &surroundings()?).await
}

/// As [`enroll_agent`], by these ways. To a fleet's join string the device proposes `name`, or what it proposed before, or its host name.
///
/// # Errors
/// Those of [`enroll_agent`].
pub async fn enroll_agent_as(
    join: &JoinString,
    state_dir: &Path,
    name: Option<&Label>,
    ways: &Ways,
) -> anyhow::Result<identity_files::Enrolled> {
    if join.kind != JoinKind::Agent {
        bail!(EnrollError::WrongKind(join.kind));
    }
    let files = IdentityFiles::open(state_dir)?;
    if files.is_enrolled() {
        let name = files.load()?.enrolled.principal;
        bail!(
            "this agent is enrolled already as {name}; to enrol it anew, move {} away first",
            state_dir.display()
        );
    }
    let key = files.key()?;
    let proposed = match name {
        Some(name) => Some(name.clone()),
        None => files.proposed_name()?.or_else(|| joining::label_of(&hostname()?)),
    };
    let text = proposed.as_ref().map(Label::as_str).unwrap_or_default();
    let answered = exchange_by(ways, join, key.csr_der()?, reported(), text).await;
    if let (Err(EnrollError::Pending(_)), Some(name)) = (&answered, &proposed) {
        files.keep_proposed_name(name)?;
    }
    let answer = answered?;
    let roots = roots_of(&answer);
    let gateways = if answer.gateway_addresses.is_empty() {
        join.addresses.clone()
    } else {
        answer.gateway_addresses
    };
    let enrolled = identity_files::Enrolled {
        principal: answer.principal,
        domain: answer.domain,
        gateways,
    };
    let roots: Vec<Vec<u8>> = roots.iter().map(|root| root.to_vec()).collect();
    files.save(&answer.certificate_chain, &roots, &enrolled)?;
    Ok(enrolled)
}

fn hostname() -> Option<String> {
    nix::unistd::gethostname().ok()?.into_string().ok()
}

/// What is told about this machine; shown to operators, unusable in rules.
#[must_use]
pub fn reported() -> BTreeMap<String, String> {
    let mut facts = BTreeMap::new();
    facts.insert("os".into(), std::env::consts::OS.into());
    facts.insert("arch".into(), std::env::consts::ARCH.into());
    if let Some(name) = hostname() {
        facts.insert(
            "hostname".into(),
            name.chars().filter(|c| !c.is_control()).take(64).collect(),
        );
    }
    facts
}
