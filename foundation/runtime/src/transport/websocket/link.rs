//! The agent's side of a link: a few connections wait at the gateway for sessions to come, and more are dialled when the
//! gateway asks.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{Mutex, Notify};
use tokio::time::{Instant, sleep_until, timeout};

use super::orders::Orders;
use super::pool::PARKED_LIMIT;
use super::socket::{Halves, Socket};
use super::state::{Given, Whole};
use super::{Dial, Raw};
use crate::transport::Closed;

/// Connections that wait at the gateway: the first session after a quiet time needs no handshake, nor the second.
const WARM: usize = 2;
/// Connections that wait or are being dialled, however many the gateway asks for.
const MAX_WAITING: usize = 64;
/// After a dial that failed, the next one comes this much later.
const PAUSE: Duration = Duration::from_secs(1);

pub(super) struct LinkClient {
    control: Given,
    dial: Arc<dyn Dial>,
    orders: Arc<Orders>,
    /// Sessions may come: from then on connections wait for them.
    permitted: AtomicBool,
    began: Notify,
    driver: Mutex<Driver>,
}

type Future<T> = Pin<Box<dyn std::future::Future<Output = T> + Send>>;

struct Driver {
    next: u64,
    dialling: FuturesUnordered<Future<(u64, io::Result<Raw>)>>,
    waiting: FuturesUnordered<Future<Option<Socket>>>,
    /// Dials that the gateway has asked for above the warm ones.
    asked: usize,
    not_before: Instant,
}

impl LinkClient {
    pub(super) fn new(first: &Socket, dial: Arc<dyn Dial>, orders: Arc<Orders>) -> Self {
        Self {
            control: Given::new(first),
            dial,
            orders,
            permitted: AtomicBool::new(false),
            began: Notify::new(),
            driver: Mutex::new(Driver {
                next: 1,
                dialling: FuturesUnordered::new(),
                waiting: FuturesUnordered::new(),
                asked: 0,
                not_before: Instant::now(),
            }),
        }
    }

    pub(super) fn control(&self) -> Option<Halves> {
        self.control.take()
    }

    pub(super) fn permit(&self, count: u32) {
        self.permitted.store(count > 0, Ordering::Release);
        self.began.notify_one();
    }

    /// The next stream on which the gateway has said something. Dials and waits go on only while this is polled; dropped,
    /// it goes on where it was. Cancel safe.
    pub(super) async fn accept(&self, whole: &Arc<Whole>) -> Result<Halves, Closed> {
        let mut driver = self.driver.lock().await;
        let driver = &mut *driver;
        loop {
            self.top_up(driver);
            tokio::select! {
                () = whole.token().cancelled() => return Err(whole.reason()),
                () = self.began.notified() => {}
                () = self.orders.came() => {}
                () = sleep_until(driver.not_before), if driver.not_before > Instant::now() => {}
                Some((number, dialled)) = driver.dialling.next() => match dialled {
                    Ok(raw) => {
                        let socket = Socket::further(raw, whole, number, None);
                        self.orders.enlist(number, &socket);
                        driver.waiting.push(Box::pin(first_bytes(socket)));
                    }
                    Err(error) => {
                        tracing::debug!(%error, "no further connection to the gateway");
                        driver.not_before = Instant::now() + PAUSE;
                    }
                },
                Some(spoken) = driver.waiting.next() => {
                    if let Some(socket) = spoken {
                        return Ok(socket.split());
                    }
                }
            }
        }
    }

    /// Dials as many as are wanted.
    fn top_up(&self, driver: &mut Driver) {
        let asked = usize::try_from(self.orders.dials()).unwrap_or(MAX_WAITING);
        driver.asked = driver.asked.saturating_add(asked).min(MAX_WAITING);
        if !self.permitted.load(Ordering::Acquire) || driver.not_before > Instant::now() {
            return;
        }
        loop {
            let present = driver.dialling.len().saturating_add(driver.waiting.len());
            if present >= MAX_WAITING {
                return;
            }
            // What is asked for comes on top of what is under way: those may all be for somebody already.
            match driver.asked.checked_sub(1) {
                Some(left) => driver.asked = left,
                None if present >= WARM => return,
                None => {}
            }
            let number = driver.next;
            driver.next = driver.next.wrapping_add(1);
            let dialling = self.dial.dial(number);
            driver.dialling.push(Box::pin(async move { (number, dialling.await) }));
        }
    }
}

/// The socket once the gateway has spoken on it; `None` when it has ended, or was left waiting for too long.
async fn first_bytes(socket: Socket) -> Option<Socket> {
    let spoke = timeout(PARKED_LIMIT, poll_fn(|context| socket.poll_first_bytes(context))).await;
    matches!(spoke, Ok(true)).then_some(socket)
}

impl std::fmt::Debug for LinkClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LinkClient").finish_non_exhaustive()
    }
}
