//! What has changed since live sessions were decided: noted by whoever changes it, taken by the review.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use fairlead_identity::name::Label;
use fairlead_wire::id::SessionId;
use tokio::sync::Notify;

use crate::access::{CallerId, Given};

/// Changes of one kind kept apart; beyond it everything is looked at again, which is never wrong.
const APART: usize = 1024;

/// Something that live sessions were decided by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changed {
    /// The policy.
    Policy,
    /// A caller: groups, labels, keys, shut out or deleted.
    Caller(CallerId),
    /// An agent: labels or bindings.
    Agent {
        /// Its site.
        site: Label,
        /// Its name.
        name: Label,
    },
}

/// The changes that were noted and not yet reviewed, and how many there have been.
#[derive(Debug, Default)]
pub(super) struct Changes {
    count: AtomicU64,
    waiting: Mutex<Waiting>,
    noted: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    few: Concerned,
    all: bool,
}

/// The sessions that a few changes concern.
#[derive(Clone, Debug, Default)]
pub(super) struct Concerned {
    callers: BTreeSet<CallerId>,
    agents: BTreeSet<(Label, Label)>,
    sessions: BTreeSet<SessionId>,
}

impl Concerned {
    pub(super) fn includes(&self, given: &Given) -> bool {
        let target = &given.target;
        self.sessions.contains(&given.session)
            || (!self.callers.is_empty() && self.callers.contains(&given.caller.id()))
            || (!self.agents.is_empty() && self.agents.contains(&(target.site.clone(), target.agent.clone())))
    }

    fn is_empty(&self) -> bool {
        self.callers.is_empty() && self.agents.is_empty() && self.sessions.is_empty()
    }

    fn is_too_much(&self) -> bool {
        self.callers.len() > APART || self.agents.len() > APART || self.sessions.len() > APART
    }
}

impl Changes {
    /// How many changes there have been. Read before the facts of a request are.
    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::SeqCst)
    }

    /// Notes a change that has already been made.
    pub(super) fn note(&self, changed: Changed) {
        // Counted before it is taken: whoever entered with an older count either sees this one or is seen by the review.
        self.count.fetch_add(1, Ordering::SeqCst);
        self.add(|waiting| match changed {
            Changed::Policy => waiting.all = true,
            Changed::Caller(id) => waiting.few.callers.extend([id]),
            Changed::Agent { site, name } => waiting.few.agents.extend([(site, name)]),
        });
    }

    /// Asks for a review of every session, though nothing was changed.
    pub(super) fn note_all(&self) {
        self.add(|waiting| waiting.all = true);
    }

    /// Asks for a review of one session, which entered while something changed.
    pub(super) fn note_session(&self, session: SessionId) {
        self.add(|waiting| waiting.few.sessions.extend([session]));
    }

    /// What a few changes concern, once.
    pub(super) fn take_few(&self) -> Option<Concerned> {
        let few = std::mem::take(&mut self.waiting().few);
        (!few.is_empty()).then_some(few)
    }

    /// Whether everything is to be looked at, once.
    pub(super) fn take_all(&self) -> bool {
        std::mem::take(&mut self.waiting().all)
    }

    /// Waits for the next note. Cancel safe; a note made meanwhile is not lost.
    pub(super) async fn noted(&self) {
        self.noted.notified().await;
    }

    fn add(&self, note: impl FnOnce(&mut Waiting)) {
        let mut waiting = self.waiting();
        note(&mut waiting);
        if waiting.few.is_too_much() {
            *waiting = Waiting {
                few: Concerned::default(),
                all: true,
            };
        }
        drop(waiting);
        self.noted.notify_one();
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
