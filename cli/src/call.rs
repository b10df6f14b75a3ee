//! Asking the gateway with this person's certificate: one connection, one stream for each question (docs/wire.md).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use bytes::Bytes;
use fairlead_agent::link::{DialError, dial};
use fairlead_identity::tls;
use fairlead_runtime::frame;
use fairlead_runtime::quic::Role;
use fairlead_runtime::relay::Sink;
use fairlead_runtime::transport::{Closed, Connection, Kind, Receiver};
use fairlead_wire::call::{Body, CallAnswer, CallRequest, ExplainRequest, Question};
use fairlead_wire::codec::{self, MAX_CONTROL_FRAME, MAX_PREAUTH_FRAME};
use fairlead_wire::refusal::{Reason, Refused};
use fairlead_wire::version::{ALPN_CALL, MQTT_FACTS, VERSION_MAX, VERSION_MIN};
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use crate::command::{CommandError, Context, Exit};
use crate::login;
use crate::profile::Profile;

/// From the question to the end of the answer; the gateway's own limit is 30 s.
const ANSWER_LIMIT: Duration = Duration::from_secs(35);
/// Frames of one answer; the gateway lists at most 10,000 endpoints, 128 to a frame.
const MAX_FRAMES: usize = 256;

/// A conversation with the gateway.
pub(crate) struct Call {
    connection: Connection,
}

impl Call {
    /// Connects with the certificate of the profile. One that has ended is renewed first, as `fairlead ssh` does.
    ///
    /// # Errors
    /// 69 when the gateway cannot be reached, 77 when it refuses, 1 when nobody has logged in.
    pub(crate) async fn open(profile: &Profile, context: &Context) -> Result<Self, CommandError> {
        let connection = connected(profile, &|text| context.note(text)).await?;
        Ok(Self { connection })
    }

    /// Asks one question; the frames of the answer in their order.
    ///
    /// # Errors
    /// 77 when the gateway refuses, 69 when it is gone, 1 otherwise.
    pub(crate) async fn ask(&self, question: Question) -> Result<Vec<Body>, CommandError> {
        let asked = timeout(ANSWER_LIMIT, self.exchange(question)).await;
        asked.unwrap_or_else(|_| {
            Err(CommandError::text(
                Exit::Unreachable,
                "the gateway did not answer within 35 s",
            ))
        })
    }

    /// By which transport the gateway was reached, and where.
    pub(crate) fn peer(&self) -> (Kind, SocketAddr) {
        (self.connection.kind(), self.connection.remote_address())
    }

    async fn exchange(&self, question: Question) -> Result<Vec<Body>, CommandError> {
        let bytes = asked(question)?;
        let (mut send, mut recv) = self.connection.open().await.map_err(|error| ended(&error))?;
        let sent = send.write_all(&bytes).await;
        sent.map_err(|error| self.gone(&error))?;
        let _already_gone = Sink::finish(&mut send).await;
        let mut answers = Vec::new();
        while let Some(answer) = self.read(&mut recv).await? {
            match answer {
                Body::Refused(said) => return Err(refused(&said)),
                answer if answers.len() < MAX_FRAMES => answers.push(answer),
                _ => return Err(CommandError::text(Exit::Failed, "the gateway's answer is too long")),
            }
        }
        Ok(answers)
    }

    async fn read(&self, recv: &mut Receiver) -> Result<Option<Body>, CommandError> {
        let frame = frame::read_frame(recv, MAX_CONTROL_FRAME).await;
        let Some(frame) = frame.map_err(|error| self.gone(&error))? else {
            return Ok(None);
        };
        answered(&frame)
    }

    /// The connection's own word where it has one: a gateway that refuses a certificate says so after the handshake.
    fn gone(&self, error: &dyn std::fmt::Display) -> CommandError {
        let text = || CommandError::text(Exit::Unreachable, format!("the gateway is gone: {error}"));
        self.connection.close_reason().as_ref().map_or_else(text, ended)
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.connection.close(0, "done");
    }
}

/// A connection for a conversation, with the certificate of the profile; one that has ended is renewed first, which is told
/// through `note`.
///
/// # Errors
/// As [`Call::open`].
pub(crate) async fn connected(
    profile: &Profile,
    note: &(dyn Fn(&str) -> Result<(), CommandError> + Sync),
) -> Result<Connection, CommandError> {
    let mut facts = profile.facts().map_err(CommandError::failed)?;
    if let Err(error) = profile.good_until(SystemTime::now()) {
        note(&format!("your certificate is no good now ({error}); logging in again"))?;
        facts = login::again(profile).await?;
    }
    let (key, roots) = (profile.login_key()?, profile.roots()?);
    let chain = profile.chain()?;
    let tls = tls::agent_quic(Some((chain, &key)), &roots, ALPN_CALL).map_err(CommandError::failed)?;
    let dialled = dial(&facts.gateways, &facts.domain, &Arc::clone(&tls), Role::Caller).await;
    dialled.map_err(unreachable)
}

/// The bytes of a question.
///
/// # Errors
/// When it does not fit a frame.
pub(crate) fn asked(question: Question) -> Result<Bytes, CommandError> {
    let supposes = matches!(&question, Question::Explain(ExplainRequest { mqtt: Some(_), .. }));
    let request = CallRequest {
        version_min: VERSION_MIN,
        version_max: VERSION_MAX,
        requires: supposes.then(|| MQTT_FACTS.to_owned()).into_iter().collect(),
        question: Some(question),
    };
    codec::encode(&request, MAX_PREAUTH_FRAME).map_err(CommandError::failed)
}

/// What an answer's frame holds; `None` for an answer of a newer gateway that this program does not know.
///
/// # Errors
/// When it cannot be read or is out of its bounds.
pub(crate) fn answered(frame: &[u8]) -> Result<Option<Body>, CommandError> {
    let answer: CallAnswer = codec::decode_body(frame).context("the gateway's answer cannot be read")?;
    answer.check().context("the gateway's answer cannot be used")?;
    Ok(answer.body)
}

fn unreachable(error: DialError) -> CommandError {
    let exit = if error.refused { Exit::Denied } else { Exit::Unreachable };
    CommandError::new(exit, error)
}

/// A connection that ended, by the gateway's reason where it gave one.
pub(crate) fn ended(closed: &Closed) -> CommandError {
    let told = match closed {
        Closed::ByPeer { code, .. } => Reason::from_quic_code(*code),
        Closed::Refused { .. } => Some(Reason::Denied),
        Closed::Lost(_) => None,
    };
    let exit = match told {
        Some(Reason::GatewayStopping) | None => Exit::Unreachable,
        Some(_) => Exit::Denied,
    };
    let name = told.map_or("the gateway is gone", Reason::name);
    CommandError::text(exit, format!("{name}: {closed}"))
}

/// How a command ends that the gateway refuses for this reason.
pub(crate) fn exit_of(reason: Reason) -> Exit {
    match reason {
        Reason::Denied | Reason::Revoked | Reason::Expired => Exit::Denied,
        Reason::GatewayStopping => Exit::Unreachable,
        _ => Exit::Failed,
    }
}

/// A refusal in the gateway's words.
pub(crate) fn refused(said: &Refused) -> CommandError {
    let reason = said.known_reason();
    let exit = exit_of(reason);
    let detail = if said.detail.is_empty() {
        String::new()
    } else {
        format!(" ({})", said.detail)
    };
    CommandError::text(exit, format!("{reason}{detail}"))
}
