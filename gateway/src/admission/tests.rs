use std::sync::atomic::{AtomicUsize, Ordering};

use fairlead_runtime::tasks::TaskGroup;

use super::queue::{WAITERS, WAITERS_PER_SOURCE};
use super::*;

fn source(number: u8) -> IpAddr {
    IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, number))
}

#[test]
fn one_source_cannot_take_every_slot_and_slots_come_back() {
    let admission = Admission::new(3, 2);
    let first = admission.try_enter(source(1)).unwrap();
    let _second = admission.try_enter(source(1)).unwrap();
    assert!(admission.try_enter(source(1)).is_none());
    let _other = admission.try_enter(source(2)).unwrap();
    assert!(admission.try_enter(source(3)).is_none(), "the house is full");
    drop(first);
    assert!(admission.try_enter(source(1)).is_some());
}

#[test]
fn a_v4_mapped_address_counts_as_its_v4_self_and_a_v6_network_as_one() {
    let admission = Admission::new(8, 1);
    let _slot = admission.try_enter(source(1)).unwrap();
    assert!(admission.try_enter("::ffff:192.0.2.1".parse().unwrap()).is_none());
    let _slot = admission.try_enter("2001:db8::1".parse().unwrap()).unwrap();
    assert!(admission.try_enter("2001:db8::2".parse().unwrap()).is_none());
    assert!(admission.try_enter("2001:db8:0:1::1".parse().unwrap()).is_some());
}

#[tokio::test(start_paused = true)]
async fn above_a_limit_a_connection_waits_for_a_slot_and_not_for_ever() {
    let admission = Admission::new(8, 1);
    let held = admission.enter(source(1)).await.unwrap();
    let (late, ()) = tokio::join!(admission.enter(source(1)), async {
        tokio::time::sleep(WAIT_LIMIT / 2).await;
        drop(held);
    });
    let _late = late.unwrap();
    assert!(admission.enter(source(1)).await.is_none(), "none came free in time");
    assert_eq!(admission.state().waiting.len(), 0, "and nobody waits any longer");
}

#[tokio::test(start_paused = true)]
async fn the_queue_is_bounded_and_one_source_cannot_fill_it() {
    let admission = Admission::new(8, 1);
    let _held = [source(1), source(2), source(3)].map(|source| admission.try_enter(source).unwrap());
    let wait = |source| match admission.begin(source)? {
        Begun::Waits(receiver) => Some(receiver),
        Begun::In(_) => panic!("there is no room"),
    };
    let greedy: Vec<_> = (0..WAITERS).map_while(|_| wait(source(1))).collect();
    assert_eq!(greedy.len(), WAITERS_PER_SOURCE);
    let others: Vec<_> = (0..WAITERS).map_while(|_| wait(source(2))).collect();
    assert_eq!(others.len(), WAITERS / 2, "what is left, then places of the greediest");
    let began = tokio::time::Instant::now();
    assert!(admission.enter(source(2)).await.is_none());
    assert_eq!(began.elapsed(), Duration::ZERO, "refused at once");
    let newcomer = wait(source(3));
    assert!(newcomer.is_some(), "a full queue has a place for whoever waits least");
    let told = greedy
        .into_iter()
        .chain(others)
        .filter_map(|mut place| place.try_recv().err());
    let gone = told.filter(|why| *why == oneshot::error::TryRecvError::Closed).count();
    assert_eq!(
        gone,
        WAITERS_PER_SOURCE + WAITERS / 2 + 1 - WAITERS,
        "who lost a place is told"
    );
    assert!(wait(source(2)).is_some(), "those who have gone take no place");
}

#[tokio::test(start_paused = true)]
async fn a_fleet_that_comes_at_once_from_one_address_gets_in_by_and_by() {
    let admission = Admission::new(512, 32);
    let inside = TaskGroup::new("inside", &CancellationToken::new());
    let entered = Arc::new(AtomicUsize::new(0));
    for _ in 0..32 + WAITERS_PER_SOURCE {
        let (admission, entered) = (Arc::clone(&admission), Arc::clone(&entered));
        inside.spawn("agent", async move {
            let slot = admission.enter(source(1)).await;
            entered.fetch_add(usize::from(slot.is_some()), Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(100)).await;
        });
    }
    while !inside.is_empty() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(entered.load(Ordering::Relaxed), 32 + WAITERS_PER_SOURCE);
    assert_eq!(admission.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_full_house_makes_room_for_a_source_that_holds_nothing() {
    let admission = Admission::new(8, 4);
    let greedy: Vec<_> = [1, 1, 1, 1, 2, 2, 2, 2]
        .map(|number| admission.try_enter(source(number)).unwrap())
        .into();
    let evicted: Vec<_> = greedy.iter().map(Slot::evicted).collect();
    let (newcomer, ()) = tokio::join!(admission.enter(source(3)), async {
        tokio::task::yield_now().await;
        let told: Vec<usize> = (0..8).filter(|at| evicted[*at].is_cancelled()).collect();
        assert!(told == [0] || told == [4], "the oldest of one that has most: {told:?}");
        let mut greedy = greedy;
        drop(greedy.remove(told[0]));
        std::mem::forget(greedy);
    });
    assert!(newcomer.is_some());
}

#[tokio::test(start_paused = true)]
async fn who_holds_as_much_as_anybody_makes_nobody_go() {
    let admission = Admission::new(4, 4);
    let held = [1, 1, 2, 2].map(|number| admission.try_enter(source(number)).unwrap());
    assert!(admission.enter(source(1)).await.is_none());
    assert!(held.iter().all(|slot| !slot.evicted().is_cancelled()));
    // One slot each of two is no greed, whoever is third.
    let admission = Admission::new(2, 4);
    let held = [1, 2].map(|number| admission.try_enter(source(number)).unwrap());
    assert!(admission.enter(source(3)).await.is_none());
    assert!(held.iter().all(|slot| !slot.evicted().is_cancelled()));
}

#[tokio::test(start_paused = true)]
async fn among_those_who_wait_the_source_with_the_fewest_is_first() {
    let admission = Admission::new(3, 3);
    let mut held = vec![
        admission.try_enter(source(1)).unwrap(),
        admission.try_enter(source(1)).unwrap(),
        admission.try_enter(source(2)).unwrap(),
    ];
    let wait = |number| match admission.begin(source(number)) {
        Some(Begun::Waits(receiver)) => receiver,
        _ => panic!("there is no room"),
    };
    let (mut greedy, mut poor) = (wait(2), wait(3));
    drop(held.remove(0));
    let first = poor.try_recv();
    assert!(first.is_ok() && greedy.try_recv().is_err());
}
