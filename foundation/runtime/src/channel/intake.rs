//! What the client sends on a channel, held until somebody takes it: bounded, without stalling the connection.
//!
//! russh refills a channel's window as data arrives, whether or not anybody took it, and knows one *target window* for
//! all channels of a connection; it asks for the next target after each refill ([`Flow::next_window`]). Blocking instead,
//! in russh's own task, would deadlock: a program that is stuck because its output is not being sent does not read its
//! input either (`ssh device cat < big`). So while a channel is *behind* the target falls to [`TRICKLE`]: clients use up
//! what they were granted, then send two bytes for each refill, and each refill is a chance to raise the target again.
//! The rounds of that trickle are slowed down by [`Transport`](super::Transport), which asks [`Flow::pace`].
//!
//! Bounds, per channel: [`BEHIND`] and one and a half windows, 1 MiB in all, from a client that keeps to its window; one
//! that does not is disconnected at [`OVERRUN`].

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::sync::Notify;
use tokio::time::Instant;

/// What a client may send on a channel before it is granted more, in bytes. Larger is faster over long lines (one window per
/// round trip) and costs memory per channel.
pub const WINDOW: u32 = 512 * 1024;
/// The smallest target for which russh still refills: at an empty window, by two bytes.
const TRICKLE: u32 = 2;
/// A channel which holds this much untaken is behind, until it holds less than [`CAUGHT_UP`].
const BEHIND: usize = 256 * 1024;
const CAUGHT_UP: usize = 128 * 1024;
/// No client that keeps to its window gets here, except after days of trickle.
const OVERRUN: usize = 2 * 1024 * 1024;
/// Small pieces are gathered up to this size, so that what they cost is their bytes.
const GATHER: usize = 4 * 1024;

/// How long a channel may be behind without taking anything while others on its connection have to wait for it.
pub const STUCK: Duration = Duration::from_secs(30);

/// The state of all intakes of one connection.
#[derive(Debug, Default)]
pub struct Flow {
    behind: AtomicUsize,
    caught_up: Notify,
    taken: Mutex<Option<Instant>>,
}

impl Flow {
    /// The window which russh shall aim at from now on, for all channels.
    pub fn next_window(&self) -> u32 {
        if self.is_behind() { TRICKLE } else { WINDOW }
    }

    /// Whether any channel holds more than its program takes.
    pub fn is_behind(&self) -> bool {
        self.behind.load(Ordering::Acquire) > 0
    }

    /// How long to wait before the next read from the client while some channel is behind: a moment at first, so that
    /// keys pressed elsewhere and the client's own refills pass; longer when nobody has taken anything for ten seconds.
    pub fn pace(&self) -> Duration {
        let taken = *self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        match taken {
            Some(at) if at.elapsed() > Duration::from_secs(10) => Duration::from_millis(500),
            _ => Duration::from_millis(5),
        }
    }

    /// Resolves when the last channel has caught up. Cancel-safe.
    pub async fn caught_up(&self) {
        while self.is_behind() {
            let notified = self.caught_up.notified();
            if !self.is_behind() {
                return;
            }
            notified.await;
        }
    }

    fn fell_behind(&self) {
        self.touch();
        self.behind.fetch_add(1, Ordering::AcqRel);
    }

    fn catches_up(&self) {
        self.behind.fetch_sub(1, Ordering::AcqRel);
        self.caught_up.notify_waiters();
    }

    fn touch(&self) {
        *self.taken.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }
}

/// The client ignored its window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("more data than the window allowed")]
pub struct Overrun;

/// One channel's bytes on their way in. The connection puts, one taker takes.
#[derive(Debug)]
pub struct Intake {
    held: Mutex<Held>,
    changed: Notify,
    flow: Arc<Flow>,
}

#[derive(Debug, Default)]
struct Held {
    pieces: VecDeque<BytesMut>,
    bytes: usize,
    /// No more will come (the client's EOF), or nobody wants more (`refused`).
    ended: bool,
    refused: bool,
    /// Since when this channel is behind and nothing was taken.
    behind: Option<Instant>,
}

impl Intake {
    /// An empty intake of a connection with this flow.
    pub fn new(flow: Arc<Flow>) -> Self {
        Self {
            held: Mutex::default(),
            changed: Notify::new(),
            flow,
        }
    }

    /// Adds what the client sent. After [`Intake::finish`] or [`Intake::refuse`] it is dropped, as a closed pipe would.
    ///
    /// # Errors
    /// [`Overrun`]; the connection should end.
    pub fn put(&self, data: &[u8]) -> Result<(), Overrun> {
        let mut held = self.lock();
        if held.ended || held.refused || data.is_empty() {
            return Ok(());
        }
        if held.bytes + data.len() > OVERRUN {
            return Err(Overrun);
        }
        held.bytes += data.len();
        match held.pieces.back_mut() {
            Some(last) if last.len() + data.len() <= GATHER => last.extend_from_slice(data),
            _ => held.pieces.push_back(BytesMut::from(data)),
        }
        if held.bytes >= BEHIND && held.behind.is_none() {
            held.behind = Some(Instant::now());
            self.flow.fell_behind();
        }
        drop(held);
        self.changed.notify_one();
        Ok(())
    }

    /// The client sends no more.
    pub fn finish(&self) {
        self.lock().ended = true;
        self.changed.notify_one();
    }

    /// Nobody takes any more: what is held and what comes is dropped.
    pub fn refuse(&self) {
        let mut held = self.lock();
        held.refused = true;
        held.pieces.clear();
        held.bytes = 0;
        self.settle(&mut held);
        drop(held);
        self.changed.notify_one();
    }

    /// The next piece, at most a packet or [`GATHER`]; `None` after the last. Cancel-safe; one taker at a time.
    pub async fn take(&self) -> Option<Bytes> {
        loop {
            {
                let mut held = self.lock();
                if let Some(piece) = held.pieces.pop_front() {
                    held.bytes -= piece.len();
                    if held.behind.is_some() {
                        held.behind = Some(Instant::now());
                        self.flow.touch();
                        self.settle(&mut held);
                    }
                    return Some(piece.freeze());
                }
                if held.ended || held.refused {
                    return None;
                }
            }
            self.changed.notified().await;
        }
    }

    /// Whether this channel is behind and has taken nothing for [`STUCK`].
    pub fn is_stuck(&self) -> bool {
        self.lock().behind.is_some_and(|since| since.elapsed() > STUCK)
    }

    fn settle(&self, held: &mut MutexGuard<'_, Held>) {
        if held.bytes < CAUGHT_UP && held.behind.take().is_some() {
            self.flow.catches_up();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Intake {
    fn drop(&mut self) {
        self.refuse();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn intake() -> (Arc<Flow>, Intake) {
        let flow = Arc::new(Flow::default());
        (Arc::clone(&flow), Intake::new(flow))
    }

    #[tokio::test]
    async fn bytes_come_out_as_they_went_in_and_end_once() {
        let (_, intake) = intake();
        intake.put(b"one ").unwrap();
        intake.put(b"two").unwrap();
        intake.finish();
        intake.put(b"late").unwrap();
        assert_eq!(intake.take().await.unwrap(), "one two");
        assert_eq!(intake.take().await, None);
    }

    #[tokio::test]
    async fn a_channel_that_is_not_read_narrows_the_window_until_it_is() {
        let (flow, intake) = intake();
        let packet = vec![7; 32 * 1024];
        let mut put = 0;
        while flow.next_window() == WINDOW {
            intake.put(&packet).unwrap();
            put += packet.len();
        }
        assert_eq!(put, BEHIND);
        while flow.is_behind() {
            put -= intake.take().await.unwrap().len();
        }
        assert!(put < CAUGHT_UP);
        assert_eq!(flow.next_window(), WINDOW);
    }

    #[tokio::test]
    async fn a_client_that_ignores_its_window_is_found_out() {
        let (_, intake) = intake();
        let packet = vec![0; 256 * 1024];
        for _ in 0..8 {
            intake.put(&packet).unwrap();
        }
        assert_eq!(intake.put(b"x"), Err(Overrun));
    }

    #[tokio::test]
    async fn a_dropped_intake_does_not_hold_back_the_others() {
        let (flow, intake) = intake();
        intake.put(&vec![0; BEHIND]).unwrap();
        assert!(flow.is_behind());
        drop(intake);
        assert!(!flow.is_behind());
        flow.caught_up().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_channel_is_stuck_when_nothing_was_taken_for_long() {
        let (_, intake) = intake();
        intake.put(&vec![0; BEHIND]).unwrap();
        intake.put(&vec![0; BEHIND]).unwrap();
        tokio::time::advance(STUCK).await;
        assert!(!intake.is_stuck());
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(intake.is_stuck());
        intake.take().await.unwrap();
        assert!(!intake.is_stuck());
    }
}
