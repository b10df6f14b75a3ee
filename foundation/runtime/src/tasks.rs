//! Every task has an owner that waits for it: [`TaskGroup`] is the only place in the workspace that starts tasks and
//! threads, which is why the lint that bans it elsewhere is lifted here.
//!
//! What the tasks do, and in which order groups stop, belongs to those who make the groups.
#![expect(
    clippy::disallowed_methods,
    reason = "the one place that starts tasks and threads, so that each has an owner"
)]

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How long a cut-off task gets to be dropped before [`TaskGroup::stop`] returns without it.
const ABORT_WAIT: Duration = Duration::from_secs(1);

/// The owner of tasks that belong together. Clones are the same group.
///
/// A task that panics is logged with its name, counted in `fairlead_panics_total` (by the hook of
/// [`crate::metrics::install_panic_hook`]) and ends alone, unless it was started as critical. A group that is dropped
/// without [`stop`](Self::stop) cuts its tasks off; a task that holds a clone of its own group keeps it alive.
#[derive(Clone, Debug)]
pub struct TaskGroup {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    name: &'static str,
    token: CancellationToken,
    members: Mutex<Members>,
    // Its own lock: a future may be dropped, and so leave the roll, while `members` is held.
    roll: Mutex<BTreeMap<&'static str, usize>>,
    failed: OnceLock<&'static str>,
}

#[derive(Debug)]
struct Members {
    set: JoinSet<()>,
    open: bool,
}

/// Tasks that had not ended when the grace was over, by name; they were cut off.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leftover {
    /// How many tasks of each name.
    pub names: BTreeMap<&'static str, usize>,
}

impl Leftover {
    /// How many tasks were cut off.
    pub fn count(&self) -> usize {
        self.names.values().sum()
    }

    /// Whether every task ended by itself.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }
}

/// Why [`TaskGroup::blocking`] has no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlockingError {
    /// The group had stopped; the work was not begun.
    #[error("`{0}` was not begun: the program is stopping")]
    Stopped(&'static str),
    /// The work panicked; the log has the place.
    #[error("`{0}` failed by a fault in the program; see the log")]
    Panicked(&'static str),
}

impl TaskGroup {
    /// Makes a group whose token ends with `parent`. `name` appears in logs.
    pub fn new(name: &'static str, parent: &CancellationToken) -> Self {
        Self {
            shared: Arc::new(Shared {
                name,
                token: parent.child_token(),
                members: Mutex::new(Members {
                    set: JoinSet::new(),
                    open: true,
                }),
                roll: Mutex::new(BTreeMap::new()),
                failed: OnceLock::new(),
            }),
        }
    }

    /// Starts a task. Returns false, and drops the future unpolled, once the group has stopped.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn spawn<F>(&self, name: &'static str, future: F) -> bool
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.start(name, false, future)
    }

    /// Starts a task the group cannot live without: if it panics, or ends before the group's token is cancelled, the
    /// token is cancelled and [`failed`](Self::failed) names it. Returns false once the group has stopped.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn spawn_critical<F>(&self, name: &'static str, future: F) -> bool
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.start(name, true, future)
    }

    /// Runs blocking work on tokio's pool and waits for its result. Dropping the returned future abandons the result,
    /// not the work. Work that lasts as long as the program takes a [`thread`](Self::thread) instead.
    ///
    /// # Errors
    /// [`BlockingError`] when the group has stopped or the work panicked.
    pub async fn blocking<T, W>(&self, name: &'static str, work: W) -> Result<T, BlockingError>
    where
        T: Send + 'static,
        W: FnOnce() -> T + Send + 'static,
    {
        let (result, answer) = oneshot::channel();
        let began = self.spawn_blocking(name, move || {
            // The asker may have gone; then nobody wants the result.
            drop(result.send(work()));
        });
        if !began {
            return Err(BlockingError::Stopped(name));
        }
        answer.await.map_err(|_| BlockingError::Panicked(name))
    }

    /// Starts blocking work on tokio's pool without waiting. It cannot be cut off: the work must end by itself soon
    /// after the group's token is cancelled. Returns false once the group has stopped.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn spawn_blocking<W>(&self, name: &'static str, work: W) -> bool
    where
        W: FnOnce() + Send + 'static,
    {
        let mut members = self.members();
        if !members.open {
            return false;
        }
        reap(&mut members.set);
        let place = self.enrol(name, false);
        members.set.spawn_blocking(move || {
            work();
            place.leave_whole();
        });
        true
    }

    /// Starts a thread for work that blocks as long as the program lives. [`stop`](Self::stop) waits for it like for a
    /// task, but cannot cut it off: it must end when its channel closes or the group's token is cancelled. Returns
    /// false once the group has stopped.
    ///
    /// # Errors
    /// The operating system's refusal to start a thread.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn thread<W>(&self, name: &'static str, work: W) -> io::Result<bool>
    where
        W: FnOnce() + Send + 'static,
    {
        let mut members = self.members();
        if !members.open {
            return Ok(false);
        }
        reap(&mut members.set);
        let place = self.enrol(name, false);
        let (ended, end) = oneshot::channel::<()>();
        std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            // Dropped last, also by a panic: that is what the group waits for.
            let _ended = ended;
            work();
            place.leave_whole();
        })?;
        members.set.spawn(async move {
            drop(end.await);
        });
        Ok(true)
    }

    /// The token that asks the group's tasks to end.
    pub fn token(&self) -> &CancellationToken {
        &self.shared.token
    }

    /// How many tasks and threads are running.
    pub fn len(&self) -> usize {
        self.roll().values().sum()
    }

    /// Whether nothing is running.
    pub fn is_empty(&self) -> bool {
        self.roll().is_empty()
    }

    /// The running tasks and threads by name.
    pub fn running(&self) -> BTreeMap<&'static str, usize> {
        self.roll().clone()
    }

    /// The critical task whose unexpected end ended the group.
    pub fn failed(&self) -> Option<&'static str> {
        self.shared.failed.get().copied()
    }

    /// Ends the group: cancels the token, takes no new tasks, waits up to `grace` for the running ones, then cuts the
    /// rest off and names them. Threads and blocking work that outlast the grace are named and left behind.
    ///
    /// A second call finds nothing to wait for and returns at once.
    pub async fn stop(&self, grace: Duration) -> Leftover {
        self.shared.token.cancel();
        let mut set = {
            let mut members = self.members();
            members.open = false;
            std::mem::take(&mut members.set)
        };
        if tokio::time::timeout(grace, ended(&mut set)).await.is_ok() {
            return Leftover::default();
        }
        let leftover = Leftover { names: self.running() };
        tracing::warn!(group = self.shared.name, tasks = ?leftover.names, "tasks did not end in time and are cut off");
        set.abort_all();
        // Threads cannot be aborted, so this wait has a limit too.
        drop(tokio::time::timeout(ABORT_WAIT, ended(&mut set)).await);
        leftover
    }

    fn start<F>(&self, name: &'static str, critical: bool, future: F) -> bool
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut members = self.members();
        if !members.open {
            return false;
        }
        reap(&mut members.set);
        let place = self.enrol(name, critical);
        // Not an async block: that would hold the future twice, as what it captured and as what it awaits.
        members.set.spawn(future.map(|()| place.leave_whole()));
        true
    }

    fn enrol(&self, name: &'static str, critical: bool) -> Place {
        let mut roll = self.roll();
        let count = roll.entry(name).or_default();
        *count = count.saturating_add(1);
        Place {
            shared: Arc::clone(&self.shared),
            name,
            critical,
            finished: false,
        }
    }

    fn members(&self) -> MutexGuard<'_, Members> {
        self.shared.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn roll(&self) -> MutexGuard<'_, BTreeMap<&'static str, usize>> {
        self.shared.roll.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Forgets tasks that ended: a `JoinSet` keeps them until somebody asks.
fn reap(set: &mut JoinSet<()>) {
    while set.try_join_next().is_some() {}
}

async fn ended(set: &mut JoinSet<()>) {
    while set.join_next().await.is_some() {}
}

/// A task's place on the roll; it is left when the task ends, however it ends.
struct Place {
    shared: Arc<Shared>,
    name: &'static str,
    critical: bool,
    finished: bool,
}

impl Place {
    /// By value, so that a task or thread owns its whole place until it gets here.
    fn leave_whole(mut self) {
        self.finished = true;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.finished && std::thread::panicking() {
            tracing::error!(group = self.shared.name, task = self.name, "a task panicked");
        }
        if self.critical && !self.shared.token.is_cancelled() {
            tracing::error!(
                group = self.shared.name,
                task = self.name,
                "a task ended that must not; its group ends"
            );
            // The first one is the cause; those that follow are consequences.
            let _first = self.shared.failed.set(self.name);
            self.shared.token.cancel();
        }
        let mut roll = self.shared.roll.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = roll.get_mut(self.name) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                roll.remove(self.name);
            }
        }
    }
}

#[cfg(test)]
mod tests;
