use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use fairlead_runtime::clock::SystemClock;
use fairlead_runtime::stop::CancellationToken;
use fairlead_wire::refusal::Reason;

use super::*;
use crate::access::testing::OpenGate;
use crate::session::changes::Changed;
use crate::session::table::{Ceilings, Place};

const CEILINGS: Ceilings = Ceilings {
    total: 20_000,
    per_user: 20_000,
    per_workload: 20_000,
};

/// A store in which nobody has changed; its first answers fail.
#[derive(Default)]
struct Unchanged {
    failures: AtomicUsize,
}

impl Facts for Unchanged {
    fn present<'a>(&'a self, given: &'a [Arc<Given>]) -> Answer<'a, Result<Vec<Present>, String>> {
        let failed = self
            .failures
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        let present = |given: &Arc<Given>| Present {
            caller: Some(Arc::clone(&given.caller)),
            target: Some(given.target.clone()),
        };
        let answer = match failed {
            Ok(_) => Err("the disk is slow".to_owned()),
            Err(_) => Ok(given.iter().map(present).collect()),
        };
        Box::pin(async move { answer })
    }
}

struct Scene {
    gate: OpenGate,
    table: Arc<Table>,
    tasks: TaskGroup,
    reviewer: Reviewer,
}

fn scene(failures: usize) -> Scene {
    let (gate, table) = (OpenGate::new(), Table::new(CEILINGS));
    let tasks = TaskGroup::new("test", &CancellationToken::new());
    let facts = Unchanged {
        failures: failures.into(),
    };
    let reviewer = Reviewer::new(
        Arc::clone(gate.gate()),
        Arc::clone(&table),
        Arc::new(facts),
        Arc::new(SystemClock),
        tasks.clone(),
        Meters::default(),
    );
    tasks.spawn("review", reviewer.clone().run());
    Scene {
        gate,
        table,
        tasks,
        reviewer,
    }
}

impl Scene {
    fn enter(&self, as_of: u64) -> (Arc<Given>, Place) {
        let permit = self.gate.permit_as_of(as_of);
        let place = self.table.enter(&permit, &Arc::default()).unwrap();
        (Arc::clone(permit.given()), place)
    }

    fn close(&self) {
        self.gate.gate().replace_policy(AccessPolicy::deny_all());
        self.table.note(Changed::Policy);
    }
}

#[tokio::test]
async fn ten_thousand_sessions_are_cut_in_seconds_and_nothing_stalls() {
    let scene = scene(0);
    let live: Vec<_> = (0..10_000).map(|_| scene.enter(0)).collect();
    let (began, mut longest) = (Instant::now(), Duration::ZERO);
    scene.close();
    while live.iter().any(|(given, _)| given.lapse.reason().is_none()) {
        let waited = Instant::now();
        tokio::time::sleep(Duration::from_millis(5)).await;
        longest = longest.max(waited.elapsed());
        assert!(began.elapsed() < Duration::from_secs(5), "not everybody is cut");
    }
    assert!(
        longest < Duration::from_millis(250),
        "the runtime stood still for {longest:?}"
    );
    assert!(
        live.iter()
            .all(|(given, _)| given.lapse.reason() == Some(Reason::PolicyChanged))
    );
    scene.tasks.stop(Duration::from_secs(1)).await;
}

#[tokio::test]
async fn a_session_that_was_decided_before_a_change_and_enters_after_it_is_decided_again() {
    let scene = scene(0);
    let before = scene.table.changes_noted();
    let late = scene.gate.permit_as_of(before);
    scene.close();
    // The review of that change finds an empty table.
    tokio::time::sleep(Duration::from_millis(50)).await;
    let _place = scene.table.enter(&late, &Arc::default()).unwrap();
    let cut = tokio::time::timeout(Duration::from_secs(2), late.lapse().cancelled()).await;
    assert_eq!(cut, Ok(Reason::PolicyChanged));
    let lost = late.given().lost().unwrap();
    assert_eq!((lost.why, lost.rule.clone()), ("no-rule", None));
    scene.tasks.stop(Duration::from_secs(1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_store_that_does_not_answer_cuts_nobody_and_is_asked_again() {
    let scene = scene(2);
    let (given, _place) = scene.enter(0);
    scene.close();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(given.lapse.reason(), None);
    assert_eq!(given.lapse.cancelled().await, Reason::PolicyChanged);
    scene.tasks.stop(Duration::from_secs(1)).await;
}

#[tokio::test]
async fn what_a_policy_would_cut_is_told_and_not_cut() {
    let scene = scene(0);
    let (given, _place) = scene.enter(0);
    let would = scene
        .reviewer
        .would_cut(&Arc::new(AccessPolicy::deny_all()))
        .await
        .unwrap();
    assert_eq!(would.len(), 1);
    assert_eq!((would[0].given.session, would[0].lost.why), (given.session, "no-rule"));
    assert_eq!(given.lapse.reason(), None);
    scene.tasks.stop(Duration::from_secs(1)).await;
}
