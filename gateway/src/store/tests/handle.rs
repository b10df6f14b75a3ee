use std::pin::Pin;
use std::sync::mpsc::sync_channel;
use std::task::Poll;

use fairlead_runtime::stop::CancellationToken;
use fairlead_runtime::tasks::TaskGroup;
use tokio::sync::mpsc;

use super::*;

fn group() -> TaskGroup {
    TaskGroup::new("test", &CancellationToken::new())
}

#[tokio::test]
async fn runs_operations_and_closes() {
    let tasks = group();
    let handle = StoreHandle::start(store(), &tasks).unwrap();
    handle.run(|store| store.set_meta("a", "b")).await.unwrap();
    assert_eq!(handle.run(|store| store.meta("a")).await.unwrap().as_deref(), Some("b"));
    let unknown = handle.run(|store| store.redeem(&[1; 32], &[1; 32], NOW)).await;
    assert!(matches!(unknown, Err(RedeemError::Unknown)));
    handle.close().await.unwrap();
    let late = handle.run(|store| store.meta("a")).await;
    assert!(matches!(late, Err(StoreError::Closed)));
    handle.close().await.unwrap();
    assert!(tasks.stop(std::time::Duration::from_secs(5)).await.is_empty());
}

#[tokio::test]
async fn a_panicking_operation_is_rolled_back_and_ends_nothing() {
    let tasks = group();
    let handle = StoreHandle::start(store(), &tasks).unwrap();
    let outcome: Result<(), StoreError> = handle.run(|_| panic!("on purpose")).await;
    assert!(matches!(outcome, Err(StoreError::Panicked)));
    handle.run(|store| store.set_meta("a", "b")).await.unwrap();
}

#[tokio::test]
async fn a_full_queue_is_said_and_what_waits_is_done() {
    let tasks = group();
    let handle = StoreHandle::start_bounded(store(), &tasks, 1).unwrap();
    let (entered, mut is_inside) = mpsc::channel(1);
    let (release, released) = sync_channel::<()>(1);
    let mut first = Box::pin(handle.run(move |store| {
        entered.blocking_send(()).unwrap();
        released.recv().unwrap();
        store.set_meta("first", "done")
    }));
    assert!(polled_once(&mut first).await.is_none());
    is_inside.recv().await.unwrap();
    let mut second = Box::pin(handle.run(|store| store.set_meta("second", "done")));
    assert!(polled_once(&mut second).await.is_none(), "it waits in the queue");
    let third = handle.run(|store| store.set_meta("third", "done")).await;
    assert!(matches!(third, Err(StoreError::Busy { .. })));
    release.send(()).unwrap();
    first.await.unwrap();
    second.await.unwrap();
    assert_eq!(handle.run(|store| store.meta("third")).await.unwrap(), None);
}

async fn polled_once<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    std::future::poll_fn(|context| match Pin::new(&mut *future).poll(context) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

#[tokio::test]
async fn fifty_tasks_race_for_one_string_and_one_wins() {
    let tasks = group();
    let handle = StoreHandle::start(store(), &tasks).unwrap();
    let token = agent_token(1, "plant-7", "pump-7");
    handle.run(move |store| store.create_token(&token)).await.unwrap();
    let (outcome, mut outcomes) = mpsc::channel(50);
    for racer in 0..50_u8 {
        let (handle, outcome) = (handle.clone(), outcome.clone());
        tasks.spawn("racer", async move {
            let redeemed = handle.run(move |store| store.redeem(&[1; 32], &[racer; 32], NOW)).await;
            outcome.send(redeemed.is_ok()).await.unwrap();
        });
    }
    drop(outcome);
    let (mut winners, mut losers) = (0, 0);
    while let Some(won) = outcomes.recv().await {
        if won { winners += 1 } else { losers += 1 }
    }
    assert_eq!((winners, losers), (1, 49));
}
