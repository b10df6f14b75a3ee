//! Bytes between a caller and a checked address, for as long as the session's reason lasts.

use std::pin::{Pin, pin};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use fairlead_policy::Limits;
use fairlead_runtime::relay::{self, Batch, Ended, Side, Sink, Source, Woken};
use fairlead_runtime::transport::{self, Receiver, Sender};
use fairlead_wire::open::OpenAnswer;
use fairlead_wire::refusal::{Reason, Refused};
use tokio::time::{Instant, timeout, timeout_at};

use super::Services;
use super::answer::{answer, withdrawn};
use super::packets::{self, Judged};
use super::statements::Followed;
use super::table::{Ending, Live};
use crate::config::TcpUpstream;
use crate::inject::{self, Attempt, LoginFailed, Told};
use crate::service::{DialError, Dialled, dial};

/// All addresses of an upstream together and the login; with the lookup before it still below the time the gateway waits for an answer.
const DIAL_LIMIT: Duration = Duration::from_secs(8);

/// For last words to the caller.
const WORDS_LIMIT: Duration = Duration::from_secs(5);

/// What is said before anything is carried.
enum First {
    Nothing,
    ToUpstream(Bytes),
    ToCaller(Bytes),
}

/// An upstream that cannot be used.
struct Unreached {
    told: Told,
    detail: String,
}

impl From<LoginFailed> for Unreached {
    fn from(LoginFailed { detail, told }: LoginFailed) -> Self {
        Self { told, detail }
    }
}

/// The gateway learns that it failed, not the addresses of the customer's network.
fn undialled(error: DialError) -> Unreached {
    let told = match error {
        DialError::Connect(_) | DialError::TimedOut => "the upstream does not accept connections",
        DialError::Tls(_) => "the upstream's TLS is not what the agent's file asks for",
    };
    Unreached {
        told: Told::Outline(told),
        detail: error.to_string(),
    }
}

async fn say(to_caller: &mut Sender, words: Bytes) -> std::io::Result<()> {
    Sink::send(to_caller, words).await?;
    Sink::finish(to_caller).await
}

impl Services {
    pub(super) async fn tunnel(
        &self,
        live: &Live,
        target: &TcpUpstream,
        limits: Limits,
        from_caller: Receiver,
        mut to_caller: Sender,
    ) -> Option<Ending> {
        let upstream = {
            let withdrawn = pin!(withdrawn(&to_caller));
            tokio::select! {
                upstream = self.reach(live, target) => Ok(upstream),
                ending = self.lapsed(live, limits, withdrawn) => Err(ending),
            }
        };
        let upstream = match upstream {
            Ok(upstream) => upstream,
            Err(ending) => {
                to_caller.abort(ending.reason.code());
                return Some(ending);
            }
        };
        let Unreached { told, detail } = match upstream {
            Ok((upstream, first)) => {
                if !answer(&mut to_caller, OpenAnswer::opened()).await {
                    return Some(Ending::with(Reason::Offline, "the gateway went away".into()));
                }
                let caller = (from_caller, to_caller);
                return match upstream {
                    Dialled::Plain(stream) => self.carry(live, limits, first, caller, stream.into_split()).await,
                    Dialled::Tls(stream) => self.carry(live, limits, first, caller, relay::split(*stream)).await,
                };
            }
            Err(unreached) => unreached,
        };
        match told {
            Told::Outline(told) => {
                let refused = Refused::new(Reason::UpstreamFailed, told);
                answer(&mut to_caller, OpenAnswer::refused(refused)).await;
            }
            Told::Words(words) => {
                if answer(&mut to_caller, OpenAnswer::opened()).await {
                    // The upstream's no, in the caller's own protocol; whoever does not listen misses it.
                    drop(timeout(WORDS_LIMIT, say(&mut to_caller, words)).await);
                }
            }
        }
        Some(Ending::with(Reason::UpstreamFailed, detail))
    }

    /// Dials a checked address and, where the file says so, logs in for the caller; with what is said first, and to whom.
    async fn reach(&self, live: &Live, target: &TcpUpstream) -> Result<(Dialled, First), Unreached> {
        let settled = live.settled.get();
        let addresses = settled.map(|settled| settled.addresses.as_slice()).unwrap_or_default();
        let protocol = live.asked.endpoint.protocol;
        let deadline = Instant::now() + DIAL_LIMIT;
        let mut dialled = dial(target, protocol, addresses, deadline).await.map_err(undialled)?;
        let credential = settled.and_then(|settled| settled.credential.as_ref());
        let (Some(credential), Some(kind)) = (credential, inject::kind_of(protocol)) else {
            // What the agent has read to decide by goes to the upstream, as it was judged.
            let startup = live.asked.postgres.as_ref().map(|startup| startup.to_bytes().into());
            let connect = || live.asked.mqtt.as_ref().map(|said| said.packet.clone());
            let first = startup.or_else(connect).map_or(First::Nothing, First::ToUpstream);
            return Ok((dialled, first));
        };
        let channel = dialled.channel(target);
        let attempt = Attempt {
            asked: &live.asked,
            credential,
            channel: &channel,
            tasks: &self.tasks,
        };
        let login = match &mut dialled {
            Dialled::Plain(stream) => (kind.log_in)(stream, attempt),
            Dialled::Tls(stream) => (kind.log_in)(stream, attempt),
        };
        let login = timeout_at(deadline, login).await;
        let logged_in = login.unwrap_or_else(|_| Err(LoginFailed::too_slow(DIAL_LIMIT)))?;
        // Set once, here.
        let _unset = live.logged_in.set(logged_in.by);
        Ok((dialled, First::ToCaller(logged_in.greeting)))
    }

    async fn carry<S: Source, K: Sink>(
        &self,
        live: &Live,
        limits: Limits,
        first: First,
        (mut from_caller, mut to_caller): (Receiver, Sender),
        (mut from_upstream, mut to_upstream): (S, K),
    ) -> Option<Ending> {
        let mut greeting = None;
        let said = match first {
            First::Nothing => Ok(()),
            First::ToUpstream(bytes) => to_upstream.send(bytes).await,
            First::ToCaller(bytes) if live.asked.mqtt.is_some() => {
                greeting = Some(bytes);
                Ok(())
            }
            First::ToCaller(bytes) => to_caller.send(bytes).await,
        };
        if let Err(error) = said {
            to_caller.abort(Reason::UpstreamFailed.code());
            return Some(Ending::with(Reason::UpstreamFailed, error.to_string()));
        }
        let mut to_upstream = Followed::new(to_upstream, live, self.clock.as_ref());
        let mut lapsed = None;
        let ended = {
            // Each pinned where it is made: moved into another future it would take its place twice, in every idle session.
            let withdrawn = pin!(withdrawn(&to_caller));
            let lapse = pin!(async { lapsed = Some(self.lapsed(live, limits, withdrawn).await) });
            let caller = (&mut from_caller, &mut to_caller);
            let upstream = (&mut from_upstream, &mut to_upstream);
            match Judged::new(self, live) {
                None => relay::relay_between(caller, upstream, limits.idle, &live.counters, lapse).await,
                Some(judged) => {
                    let carried = async {
                        let (mut source, mut sink, wake) =
                            relay::between(caller, BytesMut::new(), judged, packets::BOUNDS);
                        let mut greeted = Greeted::new(Woken::new(upstream.0, Some(wake)), greeting);
                        let (caller, upstream) = ((&mut source, &mut sink), (&mut greeted, upstream.1));
                        relay::relay_between(caller, upstream, limits.idle, &live.counters, lapse).await
                    };
                    // On the heap: few sessions are judged, and all would hold the room for it.
                    Box::pin(carried).await
                }
            }
        };
        let ending = match ended {
            Ended::Finished => return None,
            Ended::Lapsed => lapsed.unwrap_or_else(|| Ending::of(Reason::AgentStopping)),
            Ended::Idle => Ending::of(Reason::IdleLimit),
            Ended::Failed(Side::Caller, error) => {
                let reason = transport::abandoned_code(&error).and_then(Reason::from_quic_code);
                Ending::of(reason.unwrap_or(Reason::CallerGone))
            }
            Ended::Failed(Side::Upstream, _) if live.lapse.is_cancelled() => live
                .lapse
                .reason()
                .unwrap_or_else(|| Ending::of(Reason::UpstreamFailed)),
            Ended::Failed(Side::Upstream, error) => Ending::with(Reason::UpstreamFailed, error.to_string()),
        };
        to_upstream.abort(0);
        to_caller.abort(ending.reason.code());
        // The gateway may have closed its half already.
        from_caller.stop(ending.reason.code());
        Some(ending)
    }

    /// Completes when a permitted session must end, whoever says so; `withdrawn` is how the gateway says it.
    pub(crate) async fn lapsed(
        &self,
        live: &Live,
        limits: Limits,
        withdrawn: Pin<&mut (impl Future<Output = Reason> + Send)>,
    ) -> Ending {
        tokio::select! {
            biased; // the customer's own word goes first
            ending = live.lapse.cancelled() => ending,
            () = self.tasks.token().cancelled() => Ending::of(Reason::AgentStopping),
            reason = withdrawn => Ending::of(reason),
            () = after(limits.session) => Ending::of(Reason::SessionLimit),
        }
    }
}

/// A source of which something was read already.
struct Greeted<S> {
    inner: S,
    first: Option<Bytes>,
}

impl<S> Greeted<S> {
    fn new(inner: S, first: Option<Bytes>) -> Self {
        Self { inner, first }
    }
}

impl<S: Source> Source for Greeted<S> {
    async fn chunk(&mut self) -> std::io::Result<Option<Bytes>> {
        match self.first.take() {
            Some(first) => Ok(Some(first)),
            None => self.inner.chunk().await,
        }
    }

    async fn fill(&mut self, batch: &mut Batch) -> std::io::Result<bool> {
        match self.first.take() {
            Some(first) => {
                batch.push(first);
                Ok(true)
            }
            None => self.inner.fill(batch).await,
        }
    }
}

async fn after(limit: Option<Duration>) {
    match limit {
        Some(limit) => tokio::time::sleep(limit).await,
        None => std::future::pending().await,
    }
}
