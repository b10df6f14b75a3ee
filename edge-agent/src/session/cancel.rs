//! A caller has cancelled what their session does: its upstream is told, on a connection of its own.
//!
//! It happens within the session that lives: under the answer that the customer's file gave it, to the addresses that were
//! checked for it, for the same caller and endpoint. Nothing but a CancelRequest is ever sent.

use std::time::Duration;

use fairlead_identity::name::Protocol;
use fairlead_protocol::postgres::CancelKey;
use fairlead_runtime::relay;
use fairlead_runtime::transport::Sender;
use fairlead_wire::open::OpenAnswer;
use fairlead_wire::refusal::{Reason, Refused};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout};

use super::Services;
use super::answer::answer;
use crate::config::Upstream;
use crate::service::{Asked, Dialled, Refusal, dial};

/// To dial the upstream, and then for it to close the connection, which it does once it has looked at the request.
const DIAL_LIMIT: Duration = Duration::from_secs(5);
const CLOSE_LIMIT: Duration = Duration::from_secs(3);
/// Bytes of an upstream that answers what is never answered.
const ANSWER_BYTES: u64 = 1024;

impl Services {
    /// Has cancelled what a live session does, or says why not; the customer's line first either way.
    pub(super) async fn cancel(&self, asked: &Asked, key: &CancelKey, to_caller: &mut Sender) {
        let live = self.live.find(&asked.session).filter(|live| {
            let same = live.asked.endpoint == asked.endpoint && live.asked.caller == asked.caller;
            same && asked.endpoint.protocol == Protocol::Postgres && live.lapse.reason().is_none()
        });
        let settled = live.as_ref().and_then(|live| live.settled.get());
        let (Some(settled), Some(Upstream::Tcp(upstream))) = (settled, settled.map(|settled| &settled.upstream)) else {
            let refusal = Refusal::new(Reason::Denied, "no such session of this caller lives");
            return self.refuse(asked, refusal, to_caller).await;
        };
        let mut record = self.record("session.cancel", asked);
        record.decision = Some("allow".into());
        record.rule = settled.rule.as_ref().map(super::rule_name);
        if self.append(&record).is_err() {
            let refused = Refused::new(Reason::AuditFailed, "the agent cannot write its audit log");
            answer(to_caller, OpenAnswer::refused(refused)).await;
            return;
        }
        let deadline = Instant::now() + DIAL_LIMIT;
        let sent = match dial(upstream, Protocol::Postgres, &settled.addresses, deadline).await {
            Ok(Dialled::Plain(mut stream)) => send(&mut stream, key).await,
            Ok(Dialled::Tls(mut stream)) => send(stream.as_mut(), key).await,
            Err(error) => {
                tracing::info!(session = %asked.session, %error, "cannot cancel");
                None
            }
        };
        let answered = match sent {
            Some(()) => OpenAnswer::opened(),
            None => OpenAnswer::refused(Refused::new(
                Reason::UpstreamFailed,
                "the upstream did not take the request",
            )),
        };
        if answer(to_caller, answered).await {
            relay::Sink::finish(to_caller).await.unwrap_or_default();
        }
    }
}

/// Sends the request and waits until the upstream has closed: then it was looked at.
async fn send(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), key: &CancelKey) -> Option<()> {
    stream.write_all(&key.to_request()).await.ok()?;
    stream.flush().await.ok()?;
    let mut nothing = Vec::new();
    // However it closes: the request is on its way.
    drop(timeout(CLOSE_LIMIT, stream.take(ANSWER_BYTES).read_to_end(&mut nothing)).await);
    Some(())
}
