//! The first frames of a session's stream: what is asked, what is answered, and streams that are not even read.

use std::future::{pending, ready};
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime};

use fairlead_protocol::mqtt;
use fairlead_protocol::mqtt::guard::{self, Limits};
use fairlead_protocol::postgres::{self, Opening, Startup};
use fairlead_runtime::frame;
use fairlead_runtime::relay::Sink;
use fairlead_runtime::transport::{Receiver, Sender, Stopped};
use fairlead_wire::codec::{self, MAX_CONTROL_FRAME};
use fairlead_wire::open::{Open, OpenAnswer};
use fairlead_wire::refusal::{Reason, Refused};
use futures_util::FutureExt as _;
use futures_util::future::Either;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::link::GatewayStream;
use crate::service::{Asked, MqttSaid, Refusal};

/// The answer must leave within this.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// Bytes of a CONNECT, its will and password included.
const MAX_CONNECT: usize = 128 * 1024;

/// Bytes that asked for nothing that can be looked up.
pub(super) struct NoOpen {
    pub(super) refusal: Refusal,
    /// What was asked as far as it could be read, for the audit.
    pub(super) open: Open,
}

impl NoOpen {
    /// Nothing came at all.
    pub(super) fn silent(refusal: Refusal) -> Self {
        Self {
            refusal,
            open: Open::default(),
        }
    }
}

pub(super) async fn read_open(from_caller: &mut Receiver, now: SystemTime) -> Result<Asked, Box<NoOpen>> {
    let malformed = |detail: String| Box::new(NoOpen::silent(Refusal::new(Reason::Malformed, detail)));
    let body = frame::read_frame(from_caller, MAX_CONTROL_FRAME)
        .await
        .map_err(|error| malformed(error.to_string()))?;
    let body = body.ok_or_else(|| malformed("the stream ended before Open".into()))?;
    let open: Open = codec::decode_body(&body).map_err(|error| malformed(error.to_string()))?;
    Asked::read(&open, now).map_err(|refusal| Box::new(NoOpen { refusal, open }))
}

/// Reads what a Postgres client says first, which follows `Open`, and not a byte more.
pub(super) async fn read_startup(from_caller: &mut Receiver) -> Result<Startup, String> {
    let mut bytes = vec![0; 8];
    from_caller
        .read_exact(&mut bytes)
        .await
        .map_err(|error| error.to_string())?;
    // The length says how much follows; one that no first packet has is refused before anything is reserved.
    if let Ok(None) = postgres::read_opening(&bytes) {
        let said = bytes.first_chunk::<4>().map_or(0, |length| u32::from_be_bytes(*length));
        bytes.resize(usize::try_from(said).unwrap_or(0), 0);
        let rest = bytes.get_mut(8..).unwrap_or_default();
        from_caller.read_exact(rest).await.map_err(|error| error.to_string())?;
    }
    match postgres::read_opening(&bytes) {
        Ok(Some((Opening::Startup(startup), _))) => Ok(startup),
        Ok(_) => Err("the caller does not begin a Postgres session".into()),
        Err(error) => Err(error.to_string()),
    }
}

/// Reads an MQTT client's CONNECT, which follows `Open`, and not a byte more.
pub(super) async fn read_connect(from_caller: &mut Receiver) -> Result<MqttSaid, String> {
    let limits = Limits {
        packet: MAX_CONNECT,
        ..Limits::default()
    };
    let mut bytes = Vec::new();
    loop {
        match guard::read_hello(&bytes, &limits) {
            Ok(Some((hello, _))) => {
                let packet = guard::connect_on(&bytes, None).map_err(|error| error.to_string())?;
                return Ok(MqttSaid {
                    hello,
                    packet: packet.into(),
                });
            }
            Ok(None) => {}
            Err(error) => return Err(error.to_string()),
        }
        // Byte by byte as far as the length goes, then all of the rest, which is within the limit.
        let whole = mqtt::header(&bytes).ok().flatten().map(|head| head.packet());
        let more = whole.map_or(1, |whole| whole.saturating_sub(bytes.len()));
        let read = bytes.len();
        bytes.resize(read.saturating_add(more), 0);
        let rest = bytes.get_mut(read..).unwrap_or_default();
        from_caller.read_exact(rest).await.map_err(|error| error.to_string())?;
    }
}

/// Sends the answer; a refusal also finishes the stream. False when the gateway is gone.
pub(super) async fn answer(to_caller: &mut Sender, answer: OpenAnswer) -> bool {
    let refused = !matches!(answer.body, Some(fairlead_wire::open::Body::Opened(_)));
    let Ok(bytes) = codec::encode(&answer, MAX_CONTROL_FRAME) else {
        return false;
    };
    let sent = timeout(ANSWER_LIMIT, to_caller.write_all(&bytes)).await;
    let sent = matches!(sent, Ok(Ok(())));
    sent && (!refused || Sink::finish(to_caller).await.is_ok())
}

/// Completes when the gateway withdraws the session, with its reason. The relay alone would notice only once it reads
/// from the gateway or writes to it, which it does not while an upstream takes no bytes.
pub(crate) fn withdrawn(to_caller: &Sender) -> impl Future<Output = Reason> + Send + use<> {
    // Combinators, not an async block: every idle session holds this future, and a block would hold its parts twice.
    to_caller.stopped().then(|stopped| match stopped {
        Stopped::ByPeer(code) => Either::Left(ready(Reason::from_quic_code(code).unwrap_or(Reason::CallerGone))),
        // The gateway has everything that was said; what it still sends is another matter.
        Stopped::Delivered => Either::Right(pending()),
        Stopped::Lost => Either::Left(ready(Reason::Offline)),
    })
}

/// Refuses a stream without reading it and without a task, which a group that is stopping would not take.
pub(super) fn turn_away(stream: GatewayStream, reason: Reason) {
    let GatewayStream {
        mut from_caller,
        mut to_caller,
        in_use: _,
    } = stream;
    let answer = OpenAnswer::refused(Refused::new(reason, ""));
    let sent = codec::encode(&answer, MAX_CONTROL_FRAME).is_ok_and(|bytes| {
        // A few bytes on a fresh stream leave at once; where they do not, the reset below carries the reason.
        let write = pin!(async {
            to_caller.write_all(&bytes).await?;
            Sink::finish(&mut to_caller).await
        });
        matches!(write.poll(&mut Context::from_waker(Waker::noop())), Poll::Ready(Ok(())))
    });
    if !sent {
        to_caller.abort(reason.code());
    }
    // What the gateway still sends is not read.
    from_caller.stop(reason.code());
}
