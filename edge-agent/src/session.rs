//! One session at the agent: read what is asked, decide by the customer's file, write the audit line, dial, carry bytes.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime};

use fairlead_policy::RuleRef;
use fairlead_runtime::audit::{AuditLog, Record};
use fairlead_runtime::clock::Clock;
use fairlead_runtime::relay::{self, Counters, Ended, Side, Sink};
use fairlead_runtime::tasks::TaskGroup;
use fairlead_runtime::{frame, quic};
use fairlead_wire::codec::{self, MAX_CONTROL_FRAME};
use fairlead_wire::open::{Open, OpenAnswer};
use fairlead_wire::refusal::{Reason, Refused};
use quinn::{RecvStream, SendStream, VarInt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::builtin::Builtin;
use crate::config::{TcpUpstream, Upstream};
use crate::link::{GatewayStream, Sessions};
use crate::service::{AllowList, Asked, DialError, Refusal, Resolver, dial};

/// `Open` must be complete this soon after its stream began.
const OPEN_LIMIT: Duration = Duration::from_secs(10);
/// The answer must leave within this.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// Sessions at a time; the link lets the gateway have as many streams open.
const SESSIONS: u32 = 1024;

/// Serves the sessions that the gateway opens.
pub(crate) struct Services {
    pub(crate) list: AllowList,
    pub(crate) audit: Arc<AuditLog>,
    pub(crate) resolver: Arc<dyn Resolver>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) builtin: Option<Builtin>,
    pub(crate) tasks: TaskGroup,
}

impl Sessions for Services {
    fn at_once(&self) -> u32 {
        SESSIONS
    }

    fn begin(self: Arc<Self>, stream: GatewayStream) {
        if self.tasks.token().is_cancelled() {
            return turn_away(stream, Reason::AgentStopping);
        }
        if self.tasks.len() >= usize::try_from(SESSIONS).unwrap_or(usize::MAX) {
            return turn_away(stream, Reason::Limit);
        }
        let services = Arc::clone(&self);
        self.tasks.spawn("session", async move { services.serve(stream).await });
    }

    fn trust_user_cas(&self, lines: &[String]) {
        if let Some(builtin) = &self.builtin {
            builtin.trust_user_cas(lines);
        }
    }

    fn present_host_certificate(&self, line: &str) {
        if let Some(builtin) = &self.builtin {
            builtin.present_host_certificate(line);
        }
    }
}

impl Services {
    async fn serve(self: Arc<Self>, stream: GatewayStream) {
        let GatewayStream {
            mut from_caller,
            mut to_caller,
        } = stream;
        let asked = match timeout(OPEN_LIMIT, read_open(&mut from_caller)).await {
            Ok(Ok(asked)) => asked,
            Ok(Err(refusal)) => {
                tracing::warn!(reason = %refusal.reason, detail = refusal.detail, "the gateway sent no usable Open");
                answer(
                    &mut to_caller,
                    OpenAnswer::refused(Refused::new(refusal.reason, &refusal.detail)),
                )
                .await;
                return;
            }
            Err(_) => return to_caller.abort(Reason::Malformed.code()),
        };
        let (upstream, rule) = match self.list.admit(&asked, self.clock.now()) {
            Ok((endpoint, rule)) => (endpoint.upstream.clone(), rule),
            Err(refusal) => return self.refuse(&asked, refusal, &mut to_caller).await,
        };
        if self.record_permit(&asked, rule.as_ref()).is_err() {
            let refusal = Refusal {
                reason: Reason::AuditFailed,
                detail: "the agent cannot write its audit log".into(),
                rule: None,
            };
            answer(
                &mut to_caller,
                OpenAnswer::refused(Refused::new(refusal.reason, &refusal.detail)),
            )
            .await;
            return;
        }
        let counters = Counters::new();
        let started = self.clock.now();
        let (reason, detail) = match &upstream {
            Upstream::Tcp(target) => self.tunnel(target, from_caller, to_caller, &counters).await,
            Upstream::BuiltinSsh => self.builtin_ssh(&asked, from_caller, to_caller, &counters).await,
        };
        self.record_end(&asked, reason, detail, &counters, started);
    }

    async fn tunnel(
        &self,
        target: &TcpUpstream,
        from_caller: RecvStream,
        mut to_caller: SendStream,
        counters: &Counters,
    ) -> (Option<Reason>, String) {
        let upstream = tokio::select! {
            upstream = dial(target, self.resolver.as_ref()) => upstream,
            () = self.tasks.token().cancelled() => return (Some(Reason::AgentStopping), String::new()),
        };
        match upstream {
            Ok(upstream) => {
                if !answer(&mut to_caller, OpenAnswer::opened()).await {
                    return (Some(Reason::Offline), "the gateway went away".into());
                }
                self.carry(from_caller, to_caller, upstream, counters).await
            }
            Err(error) => {
                // The gateway learns that it failed, not the addresses of the customer's network.
                let told = match error {
                    DialError::Resolve(_) => "the upstream's name gives no address that may be dialled",
                    DialError::Connect(_) | DialError::TimedOut => "the upstream does not accept connections",
                };
                answer(
                    &mut to_caller,
                    OpenAnswer::refused(Refused::new(Reason::UpstreamFailed, told)),
                )
                .await;
                (Some(Reason::UpstreamFailed), error.to_string())
            }
        }
    }

    async fn carry(
        &self,
        mut from_caller: RecvStream,
        mut to_caller: SendStream,
        upstream: TcpStream,
        counters: &Counters,
    ) -> (Option<Reason>, String) {
        let (mut from_upstream, mut to_upstream) = upstream.into_split();
        let withdrawn = withdrawn(&to_caller);
        let mut lapsed = Reason::AgentStopping;
        let lapse = async {
            tokio::select! {
                () = self.tasks.token().cancelled() => {}
                reason = withdrawn => lapsed = reason,
            }
        };
        let caller = (&mut from_caller, &mut to_caller);
        let ended = relay::relay_between(caller, (&mut from_upstream, &mut to_upstream), None, counters, lapse).await;
        let (reason, detail) = match ended {
            Ended::Finished => return (None, String::new()),
            Ended::Lapsed => (lapsed, String::new()),
            Ended::Idle => (Reason::IdleLimit, String::new()),
            Ended::Failed(Side::Caller, error) => {
                let reason = quic::abandoned_code(&error).and_then(Reason::from_quic_code);
                (reason.unwrap_or(Reason::CallerGone), String::new())
            }
            Ended::Failed(Side::Upstream, error) => (Reason::UpstreamFailed, error.to_string()),
        };
        to_upstream.abort(0);
        to_caller.abort(reason.code());
        // The gateway may have closed its half already.
        drop(from_caller.stop(VarInt::from_u32(reason.code())));
        (Some(reason), detail)
    }

    async fn builtin_ssh(
        self: &Arc<Self>,
        asked: &Asked,
        from_caller: RecvStream,
        mut to_caller: SendStream,
        counters: &Counters,
    ) -> (Option<Reason>, String) {
        let Some(builtin) = &self.builtin else {
            answer(
                &mut to_caller,
                OpenAnswer::refused(Refused::new(Reason::Unsupported, "no SSH server here")),
            )
            .await;
            return (Some(Reason::Unsupported), String::new());
        };
        if !answer(&mut to_caller, OpenAnswer::opened()).await {
            return (Some(Reason::Offline), "the gateway went away".into());
        }
        builtin.serve(self, asked, from_caller, to_caller, counters).await
    }

    async fn refuse(&self, asked: &Asked, refusal: Refusal, to_caller: &mut SendStream) {
        let mut record = self.record("session.refuse", asked);
        record.decision = Some("deny".into());
        record.reason = Some(refusal.reason.name().into());
        record.rule = refusal.rule.as_ref().map(rule_name);
        // A refusal stays one when it cannot be logged.
        self.append(&record).unwrap_or_default();
        answer(
            to_caller,
            OpenAnswer::refused(Refused::new(refusal.reason, &refusal.detail)),
        )
        .await;
    }

    fn record_permit(&self, asked: &Asked, rule: Option<&RuleRef>) -> Result<(), ()> {
        let mut record = self.record("session.permit", asked);
        record.decision = Some("allow".into());
        record.rule = rule.map(rule_name);
        record.act = (!asked.acts.is_empty()).then(|| asked.acts.iter().cloned().collect::<Vec<_>>().join(",").into());
        self.append(&record)
    }

    fn record_end(
        &self,
        asked: &Asked,
        reason: Option<Reason>,
        detail: String,
        counters: &Counters,
        started: SystemTime,
    ) {
        let mut record = self.record("session.end", asked);
        record.reason = Some(reason.map_or("finished", Reason::name).into());
        if !detail.is_empty() {
            record.fact("detail", detail);
        }
        if let Ok(lasted) = self.clock.now().duration_since(started) {
            record.fact("duration_ms", u64::try_from(lasted.as_millis()).unwrap_or(u64::MAX));
        }
        record.bytes_in = Some(counters.to_upstream());
        record.bytes_out = Some(counters.to_caller());
        // The session is over; the failure to log it is in the agent's log.
        self.append(&record).unwrap_or_default();
    }

    /// The fields every event of a session has. `caller` and `client_ip` are the gateway's word.
    pub(crate) fn record(&self, event: &'static str, asked: &Asked) -> Record {
        let mut record = Record::new(event);
        record.session = Some(asked.session.to_string());
        record.caller = Some(asked.caller.name.clone());
        record.client_ip = Some(asked.client_ip.to_string());
        record.site = Some(asked.endpoint.site.to_string());
        record.endpoint = Some(asked.endpoint.to_string());
        record
    }

    pub(crate) fn append(&self, record: &Record) -> Result<(), ()> {
        self.audit
            .append(record)
            .map(drop)
            .map_err(|error| tracing::error!(%error, "audit line not written"))
    }
}

/// Completes when the gateway withdraws the session, with its reason. The relay alone would notice only once it reads
/// from the gateway or writes to it, which it does not while an upstream takes no bytes.
pub(crate) fn withdrawn(to_caller: &SendStream) -> impl Future<Output = Reason> + Send + use<> {
    let stopped = to_caller.stopped();
    async move {
        match stopped.await {
            Ok(Some(code)) => Reason::from_quic_code(code.into_inner()).unwrap_or(Reason::CallerGone),
            // The gateway has everything that was said; what it still sends is another matter.
            Ok(None) => std::future::pending().await,
            Err(_) => Reason::Offline,
        }
    }
}

/// Refuses a stream without reading it and without a task, which a group that is stopping would not take.
fn turn_away(stream: GatewayStream, reason: Reason) {
    let GatewayStream {
        mut from_caller,
        mut to_caller,
    } = stream;
    let answer = OpenAnswer::refused(Refused::new(reason, ""));
    let sent = codec::encode(&answer, MAX_CONTROL_FRAME).is_ok_and(|bytes| {
        // A few bytes on a fresh stream leave at once; where they do not, the reset below carries the reason.
        let write = pin!(to_caller.write_all(&bytes));
        matches!(write.poll(&mut Context::from_waker(Waker::noop())), Poll::Ready(Ok(())))
    });
    if !(sent && to_caller.finish().is_ok()) {
        to_caller.abort(reason.code());
    }
    // What the gateway still sends is not read.
    drop(from_caller.stop(VarInt::from_u32(reason.code())));
}

/// A rule as the audit names it.
pub(crate) fn rule_name(rule: &RuleRef) -> String {
    format!("{} ({}:{})", rule.name, rule.file, rule.line)
}

async fn read_open(from_caller: &mut RecvStream) -> Result<Asked, Refusal> {
    let malformed = |detail: String| Refusal {
        reason: Reason::Malformed,
        detail,
        rule: None,
    };
    let body = frame::read_frame(from_caller, MAX_CONTROL_FRAME)
        .await
        .map_err(|error| malformed(error.to_string()))?;
    let body = body.ok_or_else(|| malformed("the stream ended before Open".into()))?;
    let open: Open = codec::decode_body(&body).map_err(|error| malformed(error.to_string()))?;
    Asked::read(&open)
}

/// Sends the answer; a refusal also finishes the stream. False when the gateway is gone.
async fn answer(to_caller: &mut SendStream, answer: OpenAnswer) -> bool {
    let refused = !matches!(answer.body, Some(fairlead_wire::open::Body::Opened(_)));
    let Ok(bytes) = codec::encode(&answer, MAX_CONTROL_FRAME) else {
        return false;
    };
    let sent = timeout(ANSWER_LIMIT, to_caller.write_all(&bytes)).await;
    let sent = matches!(sent, Ok(Ok(())));
    sent && (!refused || to_caller.finish().is_ok())
}
