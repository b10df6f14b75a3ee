use fairlead_wire::refusal::Reason;

use super::*;
use crate::access::CallerKind;
use crate::access::testing::OpenGate;

fn upstream() -> CancelKey {
    CancelKey {
        process: 77,
        secret: vec![9; 4],
    }
}

/// A live session whose caller was shown the key.
fn scene() -> (OpenGate, Arc<Cancels>, Arc<Permit>, CancelSeat, CancelKey) {
    let (gate, cancels) = (OpenGate::new(), Arc::new(Cancels::default()));
    let permit = Arc::new(gate.permit());
    let mut seat = cancels.seat(&permit);
    let mut shown = seat.offer();
    shown.secret.truncate(4);
    seat.keep(&shown, &upstream());
    (gate, cancels, permit, seat, shown)
}

fn found(cancels: &Cancels, key: &CancelKey) -> Result<CancelKey, NotCancelled> {
    cancels.find(key, None).map(|(_, key)| key)
}

#[tokio::test]
async fn the_key_that_was_shown_leads_to_the_upstreams_own_and_no_other_key_does() {
    let (_gate, cancels, _permit, _seat, shown) = scene();
    assert_eq!(found(&cancels, &shown), Ok(upstream()));
    for (at, _) in shown.secret.iter().enumerate() {
        let mut wrong = shown.clone();
        wrong.secret[at] ^= 1;
        assert_eq!(found(&cancels, &wrong), Err(NotCancelled::Unknown));
    }
    for secret in [&shown.secret[..3], &[shown.secret.as_slice(), &[0]].concat(), &[]] {
        let process = shown.process;
        let wrong = CancelKey {
            process,
            secret: secret.to_vec(),
        };
        assert_eq!(found(&cancels, &wrong), Err(NotCancelled::Unknown));
    }
    assert_eq!(found(&cancels, &upstream()), Err(NotCancelled::Unknown));
}

#[tokio::test]
async fn the_key_ends_with_the_session() {
    let (_gate, cancels, permit, seat, shown) = scene();
    permit.lapse().cancel(Reason::Revoked);
    assert_eq!(found(&cancels, &shown), Err(NotCancelled::Unknown));
    drop(permit);
    assert_eq!(found(&cancels, &shown), Err(NotCancelled::Unknown));
    drop(seat);
    assert!(cancels.rows().is_empty());
}

#[tokio::test]
async fn who_is_known_to_be_somebody_else_cancels_nothing() {
    let (_gate, cancels, permit, _seat, shown) = scene();
    let mut who = permit.caller().id();
    assert!(cancels.find(&shown, Some(&who)).is_ok());
    who.kind = CallerKind::Workload;
    assert_eq!(cancels.find(&shown, Some(&who)).err(), Some(NotCancelled::OtherCaller));
}

#[tokio::test(start_paused = true)]
async fn a_session_is_cancelled_at_a_bounded_pace() {
    let (_gate, cancels, _permit, _seat, shown) = scene();
    let taken = |tries: usize| (0..tries).filter(|_| found(&cancels, &shown).is_ok()).count();
    assert_eq!(taken(100), 8);
    assert_eq!(found(&cancels, &shown), Err(NotCancelled::Pace));
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(taken(100), 2);
}

#[tokio::test]
async fn a_number_that_another_session_has_is_not_taken_from_it() {
    let (gate, cancels, _permit, seat, shown) = scene();
    let other = Arc::new(gate.permit());
    let mut late = cancels.seat(&other);
    late.keep(
        &shown,
        &CancelKey {
            process: 1,
            secret: vec![1; 4],
        },
    );
    assert_eq!(found(&cancels, &shown), Ok(upstream()));
    drop(late);
    assert_eq!(
        found(&cancels, &shown),
        Ok(upstream()),
        "who took nothing leaves nothing"
    );
    drop(seat);
}
