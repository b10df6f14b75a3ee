//! One local connection over one stream: bytes both ways, and how the gateway says that it was cut.

use std::pin::pin;
use std::time::Duration;

use fairlead_runtime::relay::{self, Counters, Ended, Side, Sink, Source};
use fairlead_runtime::stop::CancellationToken;
use fairlead_runtime::transport::{self, Receiver, Sender, Stopped};
use fairlead_wire::id::SessionId;
use fairlead_wire::refusal::Reason;
use tokio::time::timeout;

use super::link::Share;
use crate::call::exit_of;
use crate::command::{CommandError, Exit};

/// What was sent last has this long to arrive.
const DELIVERY: Duration = Duration::from_secs(5);

/// A session that the gateway has opened; its bytes follow on the stream.
pub(super) struct Opened {
    pub(super) session: SessionId,
    pub(super) send: Sender,
    pub(super) recv: Receiver,
    pub(super) share: Share,
}

/// Carries a local connection until both sides have ended, or one fails.
///
/// # Errors
/// The gateway's reason, when it cut the session; the local side has been broken off then, unless the endpoint's own
/// protocol had the last word.
pub(super) async fn carry<S: Source, K: Sink>(
    opened: Opened,
    mut source: S,
    mut sink: K,
    stop: &CancellationToken,
) -> Result<(), CommandError> {
    let Opened {
        session,
        mut send,
        mut recv,
        share: _share,
    } = opened;
    let local = (&mut source, &mut sink);
    let stop = pin!(stop.cancelled());
    let ended = relay::relay_between(local, (&mut recv, &mut send), None, &Counters::new(), stop).await;
    let reason = match ended {
        Ended::Finished => stopped(&send).await,
        Ended::Failed(Side::Upstream, error) if transport::connection_lost(&error) => {
            sink.abort(0);
            let text = format!("the gateway is gone: {error} (session {session})");
            return Err(CommandError::text(Exit::Unreachable, text));
        }
        Ended::Failed(Side::Upstream, error) => {
            let code = transport::abandoned_code(&error).unwrap_or_default();
            sink.abort(0);
            Some(Reason::from_quic_code(code).unwrap_or(Reason::Internal))
        }
        Ended::Failed(Side::Caller, _) | Ended::Lapsed | Ended::Idle => {
            recv.stop(Reason::CallerGone.code());
            send.reset(Reason::CallerGone.code());
            sink.abort(0);
            None
        }
    };
    match reason {
        None => Ok(()),
        Some(reason) => Err(CommandError::text(
            exit_of(reason),
            format!("{reason} (session {session})"),
        )),
    }
}

/// Waits until everything has arrived; the reason of a gateway that wants no more, because it cut the session with words of
/// the endpoint's own protocol.
async fn stopped(send: &Sender) -> Option<Reason> {
    match timeout(DELIVERY, send.stopped()).await {
        Ok(Stopped::ByPeer(code)) if code != 0 => Reason::from_quic_code(code),
        _ => None,
    }
}
