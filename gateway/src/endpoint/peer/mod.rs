//! The face of callers who converse with the gateway itself: `fairlead endpoints`, `explain`, the host keys that `ssh` is
//! given, and the sessions of `fairlead connect` (ADR 6).
//!
//! A user or workload comes over QUIC with a certificate ([`fairlead_wire::version::ALPN_CALL`]) and opens a stream for
//! each question and each session. Who they are is asked of the store for every one anew, so that somebody who was shut out
//! a second ago learns nothing more. Deliberately not here: the decision (the gate's), and what the bytes of a session mean
//! (the faces').

mod answer;
mod carried;
mod connect;
mod seats;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use fairlead_runtime::frame;
use fairlead_runtime::relay::Sink;
use fairlead_runtime::stop::CancellationToken;
use fairlead_runtime::tasks::TaskGroup;
use fairlead_runtime::transport::{Connection, Receiver, Sender};
use fairlead_wire::call::{CallAnswer, CallRequest, Question};
use fairlead_wire::codec::{self, MAX_PREAUTH_FRAME};
use fairlead_wire::refusal::{Reason, Refused};
use fairlead_wire::version;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::{Callers, Door, Presented};
use crate::access::Caller;
use crate::admission::Slot;
use carried::Sessions;
use seats::Seats;

/// A question must be complete this soon after its stream began.
const QUESTION_LIMIT: Duration = Duration::from_secs(10);
/// From there to the end of the answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// A caller who asks nothing for so long is let go.
const SILENCE_LIMIT: Duration = Duration::from_secs(60);
/// Lists under way at a time; each goes through every endpoint.
const LISTS: usize = 4;

/// The face with what all its conversations share.
pub struct Peer {
    door: Arc<Door>,
    callers: Arc<dyn Callers>,
    tasks: TaskGroup,
    stop: CancellationToken,
    seats: Seats,
    lists: Semaphore,
}

impl Peer {
    /// A face whose answers come through `door`. `tasks` owns the questions; `stop` ends the conversations.
    pub fn new(door: Arc<Door>, callers: Arc<dyn Callers>, tasks: TaskGroup, stop: CancellationToken) -> Arc<Self> {
        Arc::new(Self {
            door,
            callers,
            tasks,
            stop,
            seats: Seats::default(),
            lists: Semaphore::new(LISTS),
        })
    }

    /// Answers a caller's questions until they have no more. `slot` is given back once it is known who they are.
    ///
    /// # Errors
    /// The stable name of why the certificate lets nobody in.
    pub async fn serve(
        self: &Arc<Self>,
        connection: Connection,
        presented: Presented,
        slot: Slot,
    ) -> Result<(), &'static str> {
        let close = |reason: Reason, text: &str| {
            connection.close(reason.code(), text);
        };
        let (who, by) = self.callers.identify(&presented).await.inspect_err(|why| {
            close(Reason::Denied, &format!("this certificate lets nobody in: {why}"));
        })?;
        let Some(caller) = self.callers.present(&who, &by).await else {
            close(Reason::Revoked, "this certificate is no good any longer: log in again");
            return Err(Reason::Revoked.name());
        };
        let Some(_seat) = self.seats.take(&who) else {
            close(Reason::Limit, "too many conversations of one caller at a time");
            return Ok(());
        };
        drop(slot);
        let caller = Arc::new(caller);
        let carried = Sessions::of(connection.clone());
        loop {
            let accepted = tokio::select! {
                accepted = connection.accept() => accepted,
                () = carried.silent_for(SILENCE_LIMIT) => {
                    close(Reason::IdleLimit, "no question for 60 s");
                    return Ok(());
                }
                () = async { self.stop.cancelled().await; carried.over().await } => {
                    close(Reason::GatewayStopping, "the gateway stops");
                    return Ok(());
                }
            };
            let Ok((send, recv)) = accepted else {
                return Ok(());
            };
            let (peer, caller, carried) = (Arc::clone(self), Arc::clone(&caller), carried.clone());
            let client = connection.remote_address();
            // QUIC lets a caller have only so many streams open.
            self.tasks.spawn("question", async move {
                peer.hear(&caller, client, carried, send, recv).await;
            });
        }
    }

    /// One question from its first byte to the end of its answer, or of the session that it asked for.
    async fn hear(
        &self,
        caller: &Arc<Caller>,
        client: SocketAddr,
        carried: Sessions,
        mut send: Sender,
        mut recv: Receiver,
    ) {
        let answered = match timeout(QUESTION_LIMIT, read(&mut recv)).await {
            Ok(Ok(request)) => {
                if let Some(Question::Connect(asked)) = &request.question {
                    let _place = carried.enter();
                    return self.connect(caller, &asked.url, client, send, recv).await;
                }
                timeout(ANSWER_LIMIT, self.answer(caller, client, &request, &mut send)).await
            }
            Ok(Err(refused)) => Ok(Err(refused)),
            Err(_) => Ok(Err((Reason::Malformed, "no question within 10 s".into()))),
        };
        let ended = answered.unwrap_or_else(|_| Err((Reason::Limit, "no whole answer within 30 s".into())));
        if let Err((reason, text)) = ended {
            let answer = CallAnswer::refused(Refused::new(reason, &text));
            // The caller may have gone, and then nobody needs the reason.
            let _gone = timeout(QUESTION_LIMIT, answer::write(&mut send, &answer)).await;
        }
        let _gone = Sink::finish(&mut send).await;
    }
}

/// Why there is no answer, or no further one.
type Refusal = (Reason, String);

async fn read(recv: &mut Receiver) -> Result<CallRequest, Refusal> {
    let malformed = |error: &dyn std::fmt::Display| (Reason::Malformed, error.to_string());
    let body = frame::read_frame(recv, MAX_PREAUTH_FRAME)
        .await
        .map_err(|error| malformed(&error))?
        .ok_or_else(|| malformed(&"the stream ended before a question"))?;
    let request: CallRequest = codec::decode_body(&body).map_err(|error| malformed(&error))?;
    request.check().map_err(|error| malformed(&error))?;
    let unsupported = |error: &dyn std::fmt::Display| (Reason::Unsupported, error.to_string());
    version::check_required(&request.requires).map_err(|error| unsupported(&error))?;
    version::negotiate(request.version_min, request.version_max).map_err(|error| unsupported(&error))?;
    Ok(request)
}
