use std::sync::atomic::AtomicUsize;
use std::task::Wake;
use std::time::Duration;

use super::*;
use crate::stop::CancellationToken;
use crate::tasks::TaskGroup;

/// Counts how often it was woken.
#[derive(Default)]
struct Bell(AtomicUsize);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Bell {
    fn rings(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// Polls once, with a bell of its own.
fn poll<F: Future>(future: &mut Pin<Box<Laned<F>>>) -> (bool, Arc<Bell>) {
    let bell = Arc::new(Bell::default());
    let waker = Waker::from(Arc::clone(&bell));
    let ready = future.as_mut().poll(&mut Context::from_waker(&waker)).is_ready();
    (ready, bell)
}

/// A future that polls another of the lane while it is polled itself, as a second thread would.
fn meanwhile<F: Future>(pass: &Pass, mut other: impl FnMut() -> F) -> (bool, bool) {
    let mut seen = (false, false);
    let mut outer = Box::pin(pass.run(std::future::poll_fn(|_| {
        let mut inner = Box::pin(pass.lane.pass().run(other()));
        seen.0 = poll(&mut inner).0;
        drop(inner);
        Poll::Ready(())
    })));
    seen.1 = poll(&mut outer).0;
    drop(outer);
    seen
}

#[test]
fn only_so_many_are_polled_at_a_time() {
    let one = Lane::new(1);
    assert_eq!(meanwhile(&one.pass(), || std::future::ready(())), (false, true));
    let two = Lane::new(2);
    assert_eq!(meanwhile(&two.pass(), || std::future::ready(())), (true, true));
    assert_eq!(
        (one.state().taken, two.state().taken),
        (0, 0),
        "every turn is given back"
    );
    assert!(one.state().waiting.is_empty(), "who has gone is forgotten");
}

#[test]
fn turns_are_given_in_the_order_of_arrival_and_pass_over_who_has_gone() {
    let lane = Lane::new(1);
    let mut waiting: Vec<_> = (0..3)
        .map(|_| Box::pin(lane.pass().run(std::future::ready(()))))
        .collect();
    let mut bells = Vec::new();
    let mut holder = Box::pin(lane.pass().run(std::future::poll_fn(|_| {
        bells.extend(waiting.iter_mut().map(|future| poll(future).1));
        // The first goes away while it waits.
        waiting.remove(0);
        Poll::Ready(())
    })));
    assert!(poll(&mut holder).0);
    drop(holder);
    assert_eq!(bells.iter().map(|bell| bell.rings()).collect::<Vec<_>>(), [0, 1, 0]);
    // Promised to the second: a third cannot overtake it.
    assert!(!poll(&mut waiting[1]).0);
    assert!(poll(&mut waiting[0]).0);
    assert!(poll(&mut waiting[1]).0);
    assert_eq!(lane.state().taken, 0);
}

#[test]
fn a_promised_turn_is_passed_on_when_its_future_is_dropped() {
    let lane = Lane::new(1);
    let mut waiting: Vec<_> = (0..2)
        .map(|_| Box::pin(lane.pass().run(std::future::ready(()))))
        .collect();
    let mut bells = Vec::new();
    let mut holder = Box::pin(lane.pass().run(std::future::poll_fn(|_| {
        bells.extend(waiting.iter_mut().map(|future| poll(future).1));
        Poll::Ready(())
    })));
    assert!(poll(&mut holder).0);
    drop(holder);
    waiting.remove(0);
    assert_eq!(bells.iter().map(|bell| bell.rings()).collect::<Vec<_>>(), [1, 1]);
    assert!(poll(&mut waiting[0]).0);
    assert_eq!(lane.state().taken, 0);
}

#[test]
fn who_is_released_waits_for_nobody_and_a_panic_gives_its_turn_back() {
    let lane = Lane::new(1);
    let free = lane.pass();
    free.release();
    let panics = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let mut holder = Box::pin(lane.pass().run(std::future::poll_fn(|_| -> Poll<()> {
            assert!(poll(&mut Box::pin(free.run(std::future::ready(())))).0);
            panic!("as planned");
        })));
        poll(&mut holder)
    }));
    assert!(panics.is_err());
    assert_eq!(lane.state().taken, 0);
    assert!(Pass::current().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_in_a_lane_ends_and_what_it_starts_is_in_the_lane_too() {
    let lane = Lane::new(1);
    let (group, within) = (
        TaskGroup::new("lane", &CancellationToken::new()),
        Arc::new(AtomicUsize::new(0)),
    );
    for _ in 0..200 {
        let (pass, within) = (lane.pass(), Arc::clone(&within));
        let known = pass.clone();
        group.spawn(
            "laned",
            pass.run(async move {
                for step in 0..10 {
                    assert!(Pass::current().is_some() || step > 5);
                    assert!(step > 5 || within.fetch_add(1, Ordering::Relaxed) == 0, "two at a time");
                    (0..2_000).for_each(|_| std::hint::spin_loop());
                    if step <= 5 {
                        within.fetch_sub(1, Ordering::Relaxed);
                    }
                    if step == 5 {
                        known.release();
                    }
                    tokio::task::yield_now().await;
                }
            }),
        );
    }
    tokio::time::timeout(Duration::from_secs(20), async {
        while !group.is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("all of them end");
    assert_eq!(group.failed(), None);
    assert_eq!(lane.state().taken, 0);
}
