//! The store on its own thread, for callers that must not block.
//!
//! SQLite's calls wait for the disk. One thread owns the connection and takes closures from a bounded queue, so that a
//! slow disk delays those who ask the store and nobody else.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use fairlead_runtime::tasks::TaskGroup;
use tokio::sync::oneshot;
use tracing::{debug, error};

use super::{Store, StoreError};

/// Operations that may wait; one more is refused with [`StoreError::Busy`].
const QUEUE_LENGTH: usize = 1024;

/// How long an operation may take, its wait in the queue included, before its caller is told [`StoreError::TimedOut`].
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// How often a close looks for room in a full queue.
const ROOM_POLL: Duration = Duration::from_millis(10);

type Operation = Box<dyn FnOnce(&mut dyn Store) + Send>;

enum Order {
    Run(Operation),
    Close(oneshot::Sender<()>),
}

/// A way to the store's thread; cheap to clone. The thread ends when the last handle is dropped, or with [`Self::close`].
#[derive(Clone, Debug)]
pub struct StoreHandle {
    orders: SyncSender<Order>,
}

impl StoreHandle {
    /// Starts the store's thread, named `store`, as a member of `tasks`. It does not end with the group's token, so that
    /// those who are still ending can write: [`Self::close`] it before the group is stopped.
    ///
    /// # Errors
    /// [`StoreError::Open`] when the system gives no thread.
    pub fn start(store: impl Store + 'static, tasks: &TaskGroup) -> Result<Self, StoreError> {
        Self::start_bounded(store, tasks, QUEUE_LENGTH)
    }

    pub(super) fn start_bounded(
        store: impl Store + 'static,
        tasks: &TaskGroup,
        queue_length: usize,
    ) -> Result<Self, StoreError> {
        let (orders, inbox) = sync_channel(queue_length);
        tasks
            .thread("store", move || serve(store, &inbox))
            .map_err(|source| StoreError::Open {
                path: "(thread)".into(),
                source: Box::new(source),
            })?;
        Ok(Self { orders })
    }

    /// Runs `act` on the store's thread and waits for its result.
    ///
    /// Not cancel-safe in one respect: an `act` that is already queued runs even when nobody waits for it any longer.
    ///
    /// # Errors
    /// Those of `act`, and as its error type [`StoreError::Busy`] (queue full), [`StoreError::TimedOut`] (10 s),
    /// [`StoreError::Closed`] (thread gone) and [`StoreError::Panicked`].
    pub async fn run<T, E, F>(&self, act: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
        F: FnOnce(&mut dyn Store) -> Result<T, E> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        self.send(Order::Run(Box::new(move |store| {
            let outcome = catch_unwind(AssertUnwindSafe(|| act(store)));
            let outcome = outcome.unwrap_or_else(|_| {
                error!("an operation on the state store panicked and was rolled back");
                Err(StoreError::Panicked.into())
            });
            if reply.send(outcome).is_err() {
                debug!("nobody waits for this answer of the state store any longer");
            }
        })))?;
        match tokio::time::timeout(ANSWER_LIMIT, answer).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(StoreError::Closed.into()),
            Err(_) => Err(StoreError::TimedOut {
                seconds: ANSWER_LIMIT.as_secs(),
            }
            .into()),
        }
    }

    /// Lets what is queued finish, closes the file and ends the thread. Every later [`Self::run`] is told
    /// [`StoreError::Closed`]. Waits at most 10 s, for room in the queue included.
    ///
    /// # Errors
    /// [`StoreError::TimedOut`].
    pub async fn close(&self) -> Result<(), StoreError> {
        let closing = tokio::time::timeout(ANSWER_LIMIT, async {
            loop {
                let (reply, answer) = oneshot::channel();
                match self.send(Order::Close(reply)) {
                    Err(StoreError::Busy { .. }) => tokio::time::sleep(ROOM_POLL).await,
                    Err(_) => return,
                    // An answer that never comes means that the thread ended before: closed as well.
                    Ok(()) => return drop(answer.await),
                }
            }
        });
        closing.await.map_err(|_| StoreError::TimedOut {
            seconds: ANSWER_LIMIT.as_secs(),
        })
    }

    fn send(&self, order: Order) -> Result<(), StoreError> {
        self.orders.try_send(order).map_err(|error| match error {
            TrySendError::Full(_) => StoreError::Busy { waiting: QUEUE_LENGTH },
            TrySendError::Disconnected(_) => StoreError::Closed,
        })
    }
}

fn serve(mut store: impl Store, inbox: &Receiver<Order>) {
    let mut closing = None;
    while let Ok(order) = inbox.recv() {
        match order {
            Order::Run(operation) => operation(&mut store),
            Order::Close(reply) => {
                closing = Some(reply);
                break;
            }
        }
    }
    // The file is closed before the answer, so that whoever waited may move or copy it.
    drop(store);
    if let Some(reply) = closing {
        // Nobody may wait any longer; then nobody needs the answer.
        let _ = reply.send(());
    }
}
