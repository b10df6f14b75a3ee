use super::*;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

fn group() -> TaskGroup {
    TaskGroup::new("test", &CancellationToken::new())
}

async fn settled(what: impl Fn() -> bool) {
    for _ in 0..10_000 {
        if what() {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("the awaited state did not come");
}

#[tokio::test(start_paused = true)]
async fn stop_cancels_and_waits_for_tasks() {
    let group = group();
    let done = Arc::new(AtomicBool::new(false));
    let (token, flag) = (group.token().clone(), Arc::clone(&done));
    assert!(group.spawn("slow", async move {
        token.cancelled().await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        flag.store(true, Ordering::Relaxed);
    }));
    assert_eq!(group.running(), BTreeMap::from([("slow", 1)]));
    assert!(group.stop(Duration::from_secs(5)).await.is_empty());
    assert!(done.load(Ordering::Relaxed));
    assert!(group.is_empty());
}

#[tokio::test(start_paused = true)]
async fn tasks_that_outlast_the_grace_are_named_and_dropped() {
    struct Dropped(Arc<AtomicBool>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let group = group();
    let dropped = Arc::new(AtomicBool::new(false));
    let witness = Dropped(Arc::clone(&dropped));
    group.spawn("deaf", async move {
        let _witness = witness;
        std::future::pending::<()>().await;
    });
    group.spawn("good", async {});
    let leftover = group.stop(Duration::from_secs(1)).await;
    assert_eq!(leftover.names, BTreeMap::from([("deaf", 1)]));
    assert_eq!(leftover.count(), 1);
    assert!(dropped.load(Ordering::Relaxed));
    assert_eq!(group.len(), 0);
}

#[tokio::test]
async fn a_stopped_group_takes_nothing() {
    let group = group();
    group.stop(Duration::ZERO).await;
    assert!(!group.spawn("late", async {}));
    assert!(!group.spawn_blocking("late", || ()));
    assert!(!group.thread("late", || ()).unwrap());
    assert_eq!(group.blocking("late", || 1).await, Err(BlockingError::Stopped("late")));
}

#[tokio::test]
async fn a_panic_ends_one_task_only() {
    let group = group();
    group.spawn("bad", async { panic!("on purpose") });
    settled(|| group.is_empty()).await;
    assert!(!group.token().is_cancelled());
    assert!(group.spawn("next", async {}));
    assert!(group.stop(Duration::from_secs(5)).await.is_empty());
}

#[tokio::test]
async fn a_critical_task_takes_its_group_along() {
    for panics in [true, false] {
        let parent = CancellationToken::new();
        let group = TaskGroup::new("test", &parent);
        group.spawn_critical("heart", async move {
            assert!(!panics, "on purpose");
        });
        group.token().cancelled().await;
        assert_eq!(group.failed(), Some("heart"));
        assert!(!parent.is_cancelled());
    }
}

#[tokio::test]
async fn a_critical_task_may_end_once_asked() {
    let group = group();
    let token = group.token().clone();
    group.spawn_critical("heart", async move { token.cancelled().await });
    assert!(group.stop(Duration::from_secs(5)).await.is_empty());
    assert_eq!(group.failed(), None);
}

#[tokio::test]
async fn the_parent_ends_the_group() {
    let parent = CancellationToken::new();
    let group = TaskGroup::new("test", &parent);
    parent.cancel();
    assert!(group.token().is_cancelled());
}

#[tokio::test]
async fn blocking_work_answers_and_its_panic_is_an_error() {
    let group = group();
    assert_eq!(group.blocking("sum", || 1 + 1).await, Ok(2));
    let failed = group.blocking("bad", || -> u8 { panic!("on purpose") }).await;
    assert_eq!(failed, Err(BlockingError::Panicked("bad")));
    settled_thread(|| group.is_empty()).await;
}

#[tokio::test]
async fn a_thread_is_waited_for() {
    let group = group();
    let (hold, held) = std::sync::mpsc::sync_channel::<()>(0);
    assert!(group.thread("store", move || held.recv().unwrap_or(())).unwrap());
    assert_eq!(group.running(), BTreeMap::from([("store", 1)]));
    let leftover = group.stop(Duration::from_millis(20)).await;
    assert_eq!(leftover.names, BTreeMap::from([("store", 1)]));
    drop(hold);
    settled_thread(|| group.is_empty()).await;
}

async fn settled_thread(what: impl Fn() -> bool) {
    while !what() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn ended_tasks_do_not_pile_up() {
    let group = group();
    let ran = Arc::new(AtomicUsize::new(0));
    for _ in 0..1_000 {
        let ran = Arc::clone(&ran);
        group.spawn("short", async move {
            ran.fetch_add(1, Ordering::Relaxed);
        });
        settled(|| group.is_empty()).await;
    }
    assert_eq!(ran.load(Ordering::Relaxed), 1_000);
    assert!(group.members().set.len() < 10, "{}", group.members().set.len());
}
