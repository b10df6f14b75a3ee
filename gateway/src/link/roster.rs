//! Who is online, and the way to them. Opening a stream takes a [`Permit`].

mod drain;
mod links;
mod messages;
mod remarks;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use fairlead_identity::name::{EndpointUrl, Label};
use fairlead_runtime::frame;
use fairlead_runtime::transport::{self, Connection, Receiver, Sender};
use fairlead_wire::codec::{self, MAX_CONTROL_FRAME};
use fairlead_wire::control::{Body, Control, Ping};
use fairlead_wire::id::BootId;
use fairlead_wire::open::{self, Explained, Open, OpenAnswer};
use fairlead_wire::refusal::Reason;
use tokio::io::AsyncWriteExt;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, timeout, timeout_at};

use super::AgentKey;
use super::rivals::{Conflict, Machine, Moment, Rivals};
use crate::access::Permit;
use links::Links;
pub use messages::Question;
pub(super) use messages::open_message;
pub(super) use remarks::Remarks;

/// How long an agent may take to answer `Open`: its own limit for the dial is 10 s, plus the way there and back.
pub(super) const ANSWER_LIMIT: Duration = Duration::from_secs(15);
/// How long an agent may take to answer a question, which dials nothing.
const QUESTION_LIMIT: Duration = Duration::from_secs(5);
/// An older link of the same agent that does not answer within this is dead (SECURITY.md P8).
const PROBE_LIMIT: Duration = Duration::from_secs(2);
/// After a start, requests wait this long for their agent to come back instead of failing.
const START_GRACE: Duration = Duration::from_secs(15);

/// One live link.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) agent: AgentKey,
    pub(super) boot: BootId,
    /// Which of the agent's links it is.
    pub(super) number: u32,
    /// The key the agent linked with.
    pub(super) spki: [u8; 32],
    pub(super) connection: Connection,
    pub(super) since: SystemTime,
    /// Frames to the agent; a full queue means the agent does not read and the link is ended.
    pub(super) outbox: mpsc::Sender<Control>,
    /// The nonce of the last pong.
    pub(super) pong: watch::Sender<u64>,
    /// Set once the link has its place and its offer was answered; before that nothing goes over it.
    pub(super) confirmed: AtomicBool,
    /// When it took the place of another machine that was dead, by the roster's time.
    pub(super) took_over: OnceLock<Duration>,
    /// The hosts bound to the agent may have changed: what it offers is to be looked at again.
    pub(super) bindings_changed: Notify,
    /// What the agent says of its endpoints.
    pub(super) remarks: Remarks,
}

/// An agent that is online now, for lists.
#[derive(Clone, Debug)]
pub struct OnlineAgent {
    /// Which agent.
    pub agent: AgentKey,
    /// The address its packets come from.
    pub address: std::net::SocketAddr,
    /// Since when.
    pub since: SystemTime,
    /// The transport's name.
    pub transport: &'static str,
}

/// The live links by agent.
#[derive(Debug)]
pub struct Roster {
    seats: Mutex<Seats>,
    limit: usize,
    changed: watch::Sender<u64>,
    began: Instant,
    draining: AtomicBool,
}

/// Who has a place, and who else wants it.
#[derive(Debug)]
struct Seats {
    links: Links,
    rivals: Rivals,
}

/// Why a link got no place.
#[derive(Debug)]
pub(super) enum Turned {
    /// There are as many links as there may be.
    Full,
    /// Another machine with the same key serves, or served a moment ago.
    Conflict(Conflict),
}

/// What came of asking for a place.
enum Place {
    /// It is the link's; told when it was a known other machine's.
    Taken(Option<Conflict>),
    /// Another machine has it and must be probed first.
    Held(Arc<Link>),
}

/// Bytes to and from an agent's upstream; the product of a [`Permit`].
#[derive(Debug)]
pub struct AgentStream {
    /// From the upstream.
    pub from_agent: Receiver,
    /// To the upstream.
    pub to_agent: Sender,
}

/// Why no stream could be opened: the reason, and the agent's own words for the audit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenError {
    /// The numbered reason.
    pub reason: Reason,
    /// Detail for the audit; may be empty.
    pub detail: String,
}

impl OpenError {
    pub(super) fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self {
            reason,
            detail: detail.into(),
        }
    }
}

impl Roster {
    /// An empty roster for at most `limit` links; its start grace begins now.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            seats: Mutex::new(Seats {
                links: Links::default(),
                rivals: Rivals::new(limit),
            }),
            limit,
            changed: watch::Sender::new(0),
            began: Instant::now(),
            draining: AtomicBool::new(false),
        })
    }

    fn seats(&self) -> MutexGuard<'_, Seats> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn moment(&self) -> Moment {
        Moment {
            now: self.began.elapsed(),
            wall: SystemTime::now(),
        }
    }

    /// The agents that are online, in order of site and name.
    pub fn online(&self) -> Vec<OnlineAgent> {
        let seats = self.seats();
        seats
            .links
            .serving()
            .map(|link| OnlineAgent {
                agent: link.agent.clone(),
                address: link.connection.remote_address(),
                since: link.since,
                transport: link.connection.kind().name(),
            })
            .collect()
    }

    /// Whether sessions can go to this agent now.
    pub fn is_online(&self, site: &Label, name: &Label) -> bool {
        let agent = AgentKey {
            site: site.clone(),
            name: name.clone(),
        };
        self.find(&agent).is_some_and(|link| link.is_confirmed())
    }

    /// Whether the agent says that what stands behind this endpoint does not answer.
    pub fn is_unwell(&self, site: &Label, name: &Label, endpoint: &EndpointUrl) -> bool {
        let agent = AgentKey {
            site: site.clone(),
            name: name.clone(),
        };
        self.find(&agent)
            .is_some_and(|link| link.remarks.is_unwell(&endpoint.to_string()))
    }

    /// A receiver that changes whenever an agent comes or goes.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// The agents whose key two machines use, in order of site and name.
    pub fn conflicts(&self) -> Vec<(AgentKey, Conflict)> {
        let at = self.moment();
        self.seats().rivals.list(at)
    }

    /// Puts a link on the roster. It serves once it is [confirmed](Self::confirm).
    ///
    /// An older link of the same agent gives way when it is the same link of the same boot, has a key that is no longer the
    /// agent's, or does not answer a probe; other links of the same boot stay beside it. When one of another boot lives, it keeps serving and the newcomer is turned away (SECURITY.md P8). Tells
    /// when the place was a known other machine's.
    pub(super) async fn attach(&self, link: Arc<Link>) -> Result<Option<Conflict>, Turned> {
        let mut dead = Vec::new();
        // Another newcomer may take the place while the older link is probed: then that one is asked too.
        loop {
            match self.take_place(&link, &dead)? {
                Place::Taken(switch) => return Ok(switch),
                Place::Held(present) if present.answers_a_probe().await => {
                    let (at, switched) = (self.moment(), present.took_over.get().copied());
                    let (serving, newcomer) = (present.machine(), link.machine());
                    let mut seats = self.seats();
                    let conflict = seats.rivals.turned_away(&link.agent, serving, newcomer, switched, at);
                    return Err(Turned::Conflict(conflict));
                }
                Place::Held(present) => dead.push(present),
            }
        }
    }

    /// Gives `link` its agent's place, or returns who has it and must be probed first. `dead` failed the probe.
    fn take_place(&self, link: &Arc<Link>, dead: &[Arc<Link>]) -> Result<Place, Turned> {
        let (at, machine) = (self.moment(), link.machine());
        let mut seats = self.seats();
        let Seats { links, rivals } = &mut *seats;
        let is_dead = |other| dead.iter().any(|dead| Arc::ptr_eq(dead, other));
        let mut present = links.of(&link.agent).iter();
        if let Some(rival) = present.find(|other| other.is_a_rival_of(link) && !is_dead(other)) {
            return Ok(Place::Held(Arc::clone(rival)));
        }
        if links.before(link).is_none() && links.len() >= self.limit {
            return Err(Turned::Full);
        }
        if !rivals.may_serve(&link.agent, &machine, at)
            && let Some(conflict) = rivals.kept_out(&link.agent, machine, at)
        {
            return Err(Turned::Conflict(conflict));
        }
        let switch = rivals.serves(&link.agent, machine, at);
        let displaced = links.seat(link);
        drop(seats);
        for older in displaced {
            older.give_way_to(link, at.now);
        }
        self.tell_change();
        Ok(Place::Taken(switch))
    }

    /// Lets sessions go over a link that has its place.
    pub(super) fn confirm(&self, link: &Link) {
        link.confirmed.store(true, Ordering::Release);
        self.tell_change();
    }

    fn tell_change(&self) {
        self.changed.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Takes a link off the roster, unless a newer one has taken its place.
    pub(super) fn detach(&self, link: &Arc<Link>) {
        if self.seats().links.remove(link) {
            self.tell_change();
        }
    }

    /// Closes the links of an agent (deleted, revoked). Which of two machines is meant is settled by that.
    pub fn disconnect(&self, agent: &AgentKey, reason: Reason) {
        self.seats().rivals.forget(agent);
        for link in self.all_of(agent) {
            link.connection.close(reason.code(), reason.name());
        }
    }

    /// Has what the agent offers looked at again: the hosts bound to it have changed.
    pub(crate) fn look_again(&self, agent: &AgentKey) {
        for link in self.all_of(agent) {
            // Kept for a link that is busy with an earlier request.
            link.bindings_changed.notify_one();
        }
    }

    /// Asks the agent of `permit` to open its endpoint.
    ///
    /// # Errors
    /// `offline` when the agent has no link (in the first 15 s after a start only after waiting for it), otherwise
    /// what the agent answered; `limit` when it carries as many sessions as it may, `upstream-failed` when it did not
    /// answer within 15 s.
    pub async fn open(&self, permit: &Permit) -> Result<AgentStream, OpenError> {
        let agent = AgentKey {
            site: permit.target().site.clone(),
            name: permit.target().agent.clone(),
        };
        let link = self
            .wait_for(&agent)
            .await
            .ok_or_else(|| OpenError::new(Reason::Offline, ""))?;
        let wanted = self.seats().links.for_endpoint(&agent, permit.endpoint()).cloned();
        let link = wanted.unwrap_or(link);
        let opened = timeout(ANSWER_LIMIT, link.open(permit)).await;
        opened.unwrap_or_else(|_| {
            Err(OpenError::new(
                Reason::UpstreamFailed,
                "the agent did not answer within 15 s",
            ))
        })
    }

    /// Asks an agent what its own file says of this caller, endpoint and moment. Nothing is opened: an agent that does not
    /// know questions refuses them.
    ///
    /// # Errors
    /// `offline` when the agent has no link now, otherwise as [`Self::open`].
    pub async fn ask(&self, agent: &AgentKey, question: Question) -> Result<Explained, OpenError> {
        let link = self.find(agent).filter(|link| link.is_confirmed());
        let link = link.ok_or_else(|| OpenError::new(Reason::Offline, ""))?;
        let answered = timeout(QUESTION_LIMIT, link.ask(question)).await;
        answered.unwrap_or_else(|_| Err(OpenError::new(Reason::Offline, "the agent did not answer within 5 s")))
    }

    async fn wait_for(&self, agent: &AgentKey) -> Option<Arc<Link>> {
        let mut changed = self.changed.subscribe();
        loop {
            changed.borrow_and_update();
            if let Some(link) = self.find(agent).filter(|link| link.is_confirmed()) {
                return Some(link);
            }
            timeout_at(self.began + START_GRACE, changed.changed())
                .await
                .ok()?
                .ok()?;
        }
    }

    pub(super) fn find(&self, agent: &AgentKey) -> Option<Arc<Link>> {
        self.seats().links.best_of(agent).cloned()
    }

    fn all_of(&self, agent: &AgentKey) -> Vec<Arc<Link>> {
        self.seats().links.of(agent).to_vec()
    }
}

impl Link {
    fn machine(&self) -> Machine {
        Machine {
            boot: self.boot,
            spki: self.spki,
            address: self.connection.remote_address(),
        }
    }

    /// Whether another machine with the same key has `other`.
    fn is_a_rival_of(&self, other: &Self) -> bool {
        self.spki == other.spki && self.boot != other.boot
    }

    /// Closes this link; `newer` has its place.
    fn give_way_to(&self, newer: &Self, now: Duration) {
        let (reason, text) = if self.spki == newer.spki {
            (Reason::Conflict, "replaced by a newer link of the same agent")
        } else {
            (Reason::Revoked, "the agent was enrolled with another key")
        };
        if self.spki == newer.spki && self.boot != newer.boot {
            // Set once: a link takes one place.
            let _set = newer.took_over.set(now);
        }
        self.connection.close(reason.code(), text);
    }

    pub(super) fn is_confirmed(&self) -> bool {
        self.confirmed.load(Ordering::Acquire)
    }

    async fn answers_a_probe(&self) -> bool {
        if self.connection.close_reason().is_some() {
            return false;
        }
        let nonce = rand::random::<u64>();
        let mut pong = self.pong.subscribe();
        let ping = Control {
            body: Some(Body::Ping(Ping { nonce })),
        };
        if self.outbox.try_send(ping).is_err() {
            return false;
        }
        timeout(PROBE_LIMIT, pong.wait_for(|last| *last == nonce))
            .await
            .is_ok_and(|seen| seen.is_ok())
    }

    async fn open(&self, permit: &Permit) -> Result<AgentStream, OpenError> {
        let (answer, stream) = self
            .exchange(open_message(permit), &permit.given().spoken.first_bytes)
            .await?;
        match answer {
            open::Body::Opened(_) => Ok(stream),
            open::Body::Refused(refused) => Err(OpenError::new(refused.known_reason(), refused.detail)),
            open::Body::Explained(_) => Err(OpenError::new(
                Reason::Malformed,
                "an answer to a question nobody asked",
            )),
        }
    }

    async fn ask(&self, question: Question) -> Result<Explained, OpenError> {
        match self.exchange(question.message(), &[]).await?.0 {
            open::Body::Explained(explained) => Ok(explained),
            open::Body::Refused(refused) => Err(OpenError::new(refused.known_reason(), refused.detail)),
            open::Body::Opened(_) => Err(OpenError::new(
                Reason::Malformed,
                "the agent opened what was only asked about",
            )),
        }
    }

    /// Sends an `Open`, and what the caller has said already, on a stream of its own and reads the answer.
    pub(super) async fn exchange(&self, request: Open, said: &[u8]) -> Result<(open::Body, AgentStream), OpenError> {
        let opened = timeout(self.connection.opens_within(), self.connection.open()).await;
        let (mut to_agent, mut from_agent) = opened
            .map_err(|_| OpenError::new(Reason::Limit, "the agent takes no further sessions"))?
            .map_err(|error| OpenError::new(Reason::Offline, error.to_string()))?;
        let request = codec::encode(&request, MAX_CONTROL_FRAME)
            .map_err(|error| OpenError::new(Reason::Internal, error.to_string()))?;
        let sent = to_agent.write_all(&[&request, said].concat()).await;
        sent.map_err(|error| abandoned(&error))?;
        let answer = frame::read_frame(&mut from_agent, MAX_CONTROL_FRAME)
            .await
            .map_err(|error| abandoned(&error))?;
        let answer =
            answer.ok_or_else(|| OpenError::new(Reason::Malformed, "the agent ended the stream unanswered"))?;
        let answer: OpenAnswer =
            codec::decode_body(&answer).map_err(|error| OpenError::new(Reason::Malformed, error.to_string()))?;
        answer
            .check()
            .map_err(|error| OpenError::new(Reason::Malformed, error.to_string()))?;
        let body = answer.body.ok_or_else(|| {
            OpenError::new(
                Reason::Unsupported,
                "the agent gave an answer that this gateway does not know",
            )
        })?;
        Ok((body, AgentStream { from_agent, to_agent }))
    }
}

/// What a stream says that ended before its answer: the agent's own reason by its number, else that the agent is gone.
fn abandoned(error: &std::io::Error) -> OpenError {
    let reason = transport::abandoned_code(error).and_then(Reason::from_quic_code);
    OpenError::new(reason.unwrap_or(Reason::Offline), error.to_string())
}
