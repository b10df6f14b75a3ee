//! Bytes between a caller and a checked address, for as long as the session's reason lasts.

use std::time::Duration;

use fairlead_policy::Limits;
use fairlead_runtime::relay::{self, Counters, Ended, Side, Sink, Source};
use fairlead_runtime::transport::{self, Receiver, Sender};
use fairlead_wire::open::OpenAnswer;
use fairlead_wire::refusal::{Reason, Refused};
use tokio::time::Instant;

use super::Services;
use super::answer::{answer, withdrawn};
use super::table::{Ending, Live};
use crate::config::TcpUpstream;
use crate::service::{DialError, Dialled, dial};

/// All addresses of an upstream together; with the lookup before it still below the time the gateway waits for an answer.
const DIAL_LIMIT: Duration = Duration::from_secs(8);

impl Services {
    pub(super) async fn tunnel(
        &self,
        live: &Live,
        target: &TcpUpstream,
        limits: Limits,
        from_caller: Receiver,
        mut to_caller: Sender,
    ) -> Option<Ending> {
        let addresses = live.settled.get().map(|settled| settled.addresses.as_slice());
        let deadline = Instant::now() + DIAL_LIMIT;
        let upstream = tokio::select! {
            upstream = dial(target, live.asked.endpoint.protocol, addresses.unwrap_or_default(), deadline) => upstream,
            ending = self.lapsed(live, limits, &to_caller) => {
                to_caller.abort(ending.reason.code());
                return Some(ending);
            }
        };
        match upstream {
            Ok(upstream) => {
                if !answer(&mut to_caller, OpenAnswer::opened()).await {
                    return Some(Ending::with(Reason::Offline, "the gateway went away".into()));
                }
                let caller = (from_caller, to_caller);
                match upstream {
                    Dialled::Plain(stream) => self.carry(live, limits, caller, stream.into_split()).await,
                    Dialled::Tls(stream) => self.carry(live, limits, caller, relay::split(*stream)).await,
                }
            }
            Err(error) => {
                // The gateway learns that it failed, not the addresses of the customer's network.
                let told = match error {
                    DialError::Connect(_) | DialError::TimedOut => "the upstream does not accept connections",
                    DialError::Tls(_) => "the upstream's TLS is not what the agent's file asks for",
                };
                answer(
                    &mut to_caller,
                    OpenAnswer::refused(Refused::new(Reason::UpstreamFailed, told)),
                )
                .await;
                Some(Ending::with(Reason::UpstreamFailed, error.to_string()))
            }
        }
    }

    async fn carry<S: Source, K: Sink>(
        &self,
        live: &Live,
        limits: Limits,
        (mut from_caller, mut to_caller): (Receiver, Sender),
        (mut from_upstream, mut to_upstream): (S, K),
    ) -> Option<Ending> {
        // What the agent has read to decide by goes first, as it was judged.
        if let Some(startup) = &live.asked.postgres
            && let Err(error) = to_upstream.send(startup.to_bytes().into()).await
        {
            to_caller.abort(Reason::UpstreamFailed.code());
            return Some(Ending::with(Reason::UpstreamFailed, error.to_string()));
        }
        let mut lapsed = None;
        let ending = self.lapsed(live, limits, &to_caller);
        let lapse = async { lapsed = Some(ending.await) };
        let caller = (&mut from_caller, &mut to_caller);
        let upstream = (&mut from_upstream, &mut to_upstream);
        let ended = relay::relay_between(caller, upstream, limits.idle, &live.counters, lapse).await;
        let ending = match ended {
            Ended::Finished => return None,
            Ended::Lapsed => lapsed.unwrap_or_else(|| Ending::of(Reason::AgentStopping)),
            Ended::Idle => Ending::of(Reason::IdleLimit),
            Ended::Failed(Side::Caller, error) => {
                let reason = transport::abandoned_code(&error).and_then(Reason::from_quic_code);
                Ending::of(reason.unwrap_or(Reason::CallerGone))
            }
            Ended::Failed(Side::Upstream, error) => Ending::with(Reason::UpstreamFailed, error.to_string()),
        };
        to_upstream.abort(0);
        to_caller.abort(ending.reason.code());
        // The gateway may have closed its half already.
        from_caller.stop(ending.reason.code());
        Some(ending)
    }

    /// Completes when a permitted session must end, whoever says so.
    pub(crate) fn lapsed<'a>(
        &'a self,
        live: &'a Live,
        limits: Limits,
        to_caller: &Sender,
    ) -> impl Future<Output = Ending> + Send + use<'a> {
        let withdrawn = withdrawn(to_caller);
        async move {
            tokio::select! {
                biased; // the customer's own word goes first
                ending = live.lapse.cancelled() => ending,
                () = self.tasks.token().cancelled() => Ending::of(Reason::AgentStopping),
                reason = withdrawn => Ending::of(reason),
                () = after(limits.session) => Ending::of(Reason::SessionLimit),
            }
        }
    }
}

/// Completes when nothing has moved for as long as `limit`, seen at a tenth of it.
pub(crate) async fn silent(counters: &Counters, limit: Option<Duration>) {
    let Some(limit) = limit else {
        return std::future::pending().await;
    };
    let moved = || counters.to_upstream().saturating_add(counters.to_caller());
    let (mut last, mut since) = (moved(), Instant::now());
    loop {
        tokio::time::sleep((limit / 10).max(Duration::from_millis(100))).await;
        if moved() != last {
            (last, since) = (moved(), Instant::now());
        } else if since.elapsed() >= limit {
            return;
        }
    }
}

async fn after(limit: Option<Duration>) {
    match limit {
        Some(limit) => tokio::time::sleep(limit).await,
        None => std::future::pending().await,
    }
}
