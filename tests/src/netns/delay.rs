//! Delay: the kernels that tests run on need not have `netem`, so packets wait in this process (NFQUEUE).

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nfq::{Message, Queue, Verdict};

use super::sbin_with;
use crate::clients;

/// Packets that may wait: one second of 100 Mbit/s and more.
const WAITING: u32 = 20_000;
/// How often the queue is looked at; delays are this exact.
const LOOK: Duration = Duration::from_micros(100);
/// What is read of each packet, which is only let go.
const HEADER: u16 = 64;
/// The queue of each interface is numbered by its name, `flNUMBER`.
const PREFIX: &str = "fl";

/// What comes from a place, and what goes there, as iptables says it.
const DIRECTIONS: [(&str, &str); 2] = [("PREROUTING", "-i"), ("POSTROUTING", "-o")];

/// Holds every packet that comes or goes by one interface of the middle. Ends when dropped.
pub struct Delay {
    interface: String,
    /// The queue of each direction.
    numbers: [u16; 2],
    micros: Arc<AtomicU64>,
    ended: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Delay {
    /// Nothing waits until [`Self::set`].
    pub fn on(interface: &str) -> Self {
        let number: u16 = interface
            .strip_prefix(PREFIX)
            .and_then(|number| number.parse().ok())
            .expect("an interface of the lab");
        let numbers = [number * 2, number * 2 + 1];
        let micros = Arc::new(AtomicU64::new(0));
        let ended = Arc::new(AtomicBool::new(false));
        let threads = numbers.map(|number| {
            let (queue, micros, ended) = (queue(number), Arc::clone(&micros), Arc::clone(&ended));
            let thread = std::thread::Builder::new().name("delay".into());
            #[expect(
                clippy::disallowed_methods,
                reason = "joined when dropped; a task would wait with those that it delays"
            )]
            thread.spawn(move || hold(queue, &micros, &ended)).expect("a thread")
        });
        Self {
            interface: interface.to_owned(),
            numbers,
            micros,
            ended,
            threads: threads.into(),
        }
    }

    /// What each packet waits from now on.
    pub async fn set(&self, delay: Duration) {
        let micros = u64::try_from(delay.as_micros()).expect("a short delay");
        let before = self.micros.swap(micros, Ordering::Relaxed);
        // Without a delay nothing makes the detour.
        match (before, micros) {
            (0, 1..) => self.lead_through("-A").await,
            (1.., 0) => self.lead_through("-D").await,
            _ => {}
        }
    }

    async fn lead_through(&self, change: &str) {
        for ((chain, direction), number) in DIRECTIONS.into_iter().zip(self.numbers) {
            let number = number.to_string();
            let rule = [change, chain, direction, &self.interface, "-j", "NFQUEUE"];
            let rule = [
                &["-t", "mangle"],
                &rule[..],
                &["--queue-num", &number, "--queue-bypass"],
            ]
            .concat();
            clients::run(sbin_with("iptables-nft", &rule)).await.succeeded();
        }
    }
}

fn queue(number: u16) -> Queue {
    let mut queue = Queue::open().expect("the kernel hands packets out (NFQUEUE)");
    queue.bind(number).expect("the queue's number is free");
    queue.set_queue_max_len(number, WAITING).expect("a long queue");
    queue.set_copy_range(number, HEADER).expect("headers only");
    // What this process is too busy to take is lost, as in a router whose queue is full. Let through without its delay it
    // would be a path that does not exist, and spoil every measure of a shortest round trip.
    queue.set_fail_open(number, false).expect("a closed queue");
    queue.set_nonblocking(true);
    queue
}

impl Drop for Delay {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            drop(thread.join());
        }
    }
}

/// Lets packets go in their order, each after its time.
#[expect(clippy::disallowed_methods, reason = "sleeps on a thread of its own")]
fn hold(mut queue: Queue, micros: &AtomicU64, ended: &AtomicBool) {
    let mut waiting: VecDeque<(Instant, Message)> = VecDeque::new();
    while !ended.load(Ordering::Relaxed) {
        while let Ok(packet) = queue.recv() {
            let delay = Duration::from_micros(micros.load(Ordering::Relaxed));
            waiting.push_back((Instant::now() + delay, packet));
        }
        let now = Instant::now();
        while waiting.front().is_some_and(|(due, _)| *due <= now) {
            let Some((_, mut packet)) = waiting.pop_front() else {
                break;
            };
            packet.set_verdict(Verdict::Accept);
            // A packet whose interface is gone cannot go anywhere.
            drop(queue.verdict(packet));
        }
        std::thread::sleep(LOOK);
    }
}
