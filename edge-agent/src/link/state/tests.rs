use fairlead_wire::control::{HostCertificate, Welcome};

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn frame(body: Body) -> Event {
    Event::Frame(Control { body: Some(body) })
}

fn welcome() -> Welcome {
    Welcome {
        version: 1,
        gateway: "gw".into(),
        domain: "gw.example.com".into(),
        ..Welcome::default()
    }
}

fn sends(commands: &[Command]) -> Vec<&'static str> {
    let name = |command: &Command| match command {
        Command::Send(Control {
            body: Some(Body::Hello(_)),
        }) => Some("hello"),
        Command::Send(Control {
            body: Some(Body::Offer(_)),
        }) => Some("offer"),
        Command::Send(Control {
            body: Some(Body::HostKeyRequest(_)),
        }) => Some("host-key"),
        Command::Send(Control {
            body: Some(Body::Pong(_)),
        }) => Some("pong"),
        _ => None,
    };
    commands.iter().filter_map(name).collect()
}

fn up(state: &mut LinkState, now: Duration) {
    assert_eq!(state.handle_time(now), [Command::Dial]);
    assert_eq!(sends(&state.handle(now, Event::Connected(Vec::new()))), ["hello"]);
    let welcomed = state.handle(now, frame(Body::Welcome(welcome())));
    assert!(sends(&welcomed).ends_with(&["offer"]));
    assert_eq!(
        state
            .handle(now, frame(Body::OfferAnswer(OfferAnswer::default())))
            .len(),
        1
    );
    assert!(state.is_up());
}

#[test]
fn it_dials_at_once_and_greets() {
    let mut state = LinkState::new(Introduction::default(), 1);
    assert_eq!(state.deadline(), Some(Duration::ZERO));
    up(&mut state, Duration::ZERO);
}

#[test]
fn the_host_key_is_certified_before_the_offer_and_again_in_time() {
    let introduction = Introduction {
        host_key: Some("ssh-ed25519 AAAA".into()),
        ..Introduction::default()
    };
    let mut state = LinkState::new(introduction, 1);
    assert_eq!(state.handle_time(Duration::ZERO), [Command::Dial]);
    state.handle(Duration::ZERO, Event::Connected(Vec::new()));
    let welcomed = state.handle(Duration::ZERO, frame(Body::Welcome(welcome())));
    assert_eq!(sends(&welcomed), ["host-key"]);
    let certificate = HostCertificate {
        certificate: "cert".into(),
        valid_seconds: 900,
    };
    let presented = state.handle(Duration::ZERO, frame(Body::HostCertificate(certificate)));
    assert_eq!(presented[0], Command::PresentHostCertificate("cert".into()));
    assert_eq!(sends(&presented), ["offer"]);
    state.handle(Duration::ZERO, frame(Body::OfferAnswer(OfferAnswer::default())));
    assert_eq!(state.deadline(), Some(300 * SECOND));
    assert_eq!(sends(&state.handle_time(300 * SECOND)), ["host-key"]);
    assert_eq!(state.deadline(), None, "one request at a time");
}

#[test]
fn without_a_host_certificate_the_offer_is_made_all_the_same() {
    let introduction = Introduction {
        host_key: Some("ssh-ed25519 AAAA".into()),
        ..Introduction::default()
    };
    let mut state = LinkState::new(introduction, 1);
    state.handle_time(Duration::ZERO);
    state.handle(Duration::ZERO, Event::Connected(Vec::new()));
    state.handle(Duration::ZERO, frame(Body::Welcome(welcome())));
    let refused = Refused::new(Reason::Malformed, "no such key");
    let commands = state.handle(Duration::ZERO, frame(Body::Refused(refused.clone())));
    assert_eq!(commands[0], Command::TurnedAway(refused));
    assert_eq!(sends(&commands), ["offer"]);
}

#[test]
fn the_certificate_is_renewed_when_due_and_asked_for_again_when_lost() {
    let mut state = LinkState::new(Introduction::default(), 1);
    up(&mut state, Duration::ZERO);
    state.handle(Duration::ZERO, Event::RenewIn(100 * SECOND));
    assert_eq!(state.deadline(), Some(100 * SECOND));
    assert_eq!(state.handle_time(100 * SECOND), [Command::Renew]);
    assert_eq!(state.deadline(), Some(100 * SECOND + RENEW_AGAIN));
    let chain = vec![vec![0x30]];
    let renewed = fairlead_wire::control::Renewed {
        certificate_chain: chain.clone(),
    };
    let commands = state.handle(101 * SECOND, frame(Body::Renewed(renewed)));
    assert_eq!(commands, [Command::KeepCertificate(chain)]);
}

#[test]
fn after_a_long_link_the_first_retry_is_within_200_ms() {
    let mut state = LinkState::new(Introduction::default(), 1);
    up(&mut state, Duration::ZERO);
    let lost_at = 60 * SECOND;
    state.handle(lost_at, Event::Lost);
    assert!(state.deadline().unwrap() <= lost_at + Duration::from_millis(200));
}

#[test]
fn each_of_many_restarts_in_a_row_finds_the_short_wait() {
    let mut state = LinkState::new(Introduction::default(), 3);
    let mut now = Duration::ZERO;
    for restart in 0..20 {
        up(&mut state, now);
        // A link that is lost as soon as it is up shows it at its first keep-alive.
        let lost_at = now + 7 * SECOND;
        state.handle(lost_at, Event::Lost);
        now = state.deadline().unwrap();
        assert!(
            now <= lost_at + Duration::from_millis(200),
            "restart {restart}: {:?}",
            now - lost_at
        );
    }
}

#[test]
fn a_link_that_never_holds_is_dialled_ever_more_slowly_but_always_again() {
    let mut state = LinkState::new(Introduction::default(), 7);
    let mut now = Duration::ZERO;
    let mut longest = Duration::ZERO;
    for _ in 0..100 {
        let due = state.deadline().unwrap();
        longest = longest.max(due.saturating_sub(now));
        now = due;
        assert_eq!(state.handle_time(now), [Command::Dial]);
        state.handle(now, Event::Lost);
    }
    assert!(longest > 3 * SECOND && longest <= 8 * SECOND, "{longest:?}");
}

#[test]
fn a_gateway_that_does_not_welcome_is_left() {
    let mut state = LinkState::new(Introduction::default(), 1);
    state.handle_time(Duration::ZERO);
    state.handle(Duration::ZERO, Event::Connected(Vec::new()));
    assert_eq!(state.deadline(), Some(WELCOME_LIMIT));
    assert!(matches!(
        state.handle_time(WELCOME_LIMIT)[..],
        [Command::Close(Reason::Malformed, _)]
    ));
    assert!(!state.is_up() && state.deadline().is_some());
}

#[test]
fn a_refusal_is_reported_and_tried_again() {
    let mut state = LinkState::new(Introduction::default(), 1);
    state.handle_time(Duration::ZERO);
    state.handle(Duration::ZERO, Event::Connected(Vec::new()));
    let refused = Refused::new(Reason::Conflict, "another machine");
    let commands = state.handle(Duration::ZERO, frame(Body::Refused(refused.clone())));
    assert_eq!(commands[0], Command::TurnedAway(refused));
    assert!(state.deadline().is_some());
}

#[test]
fn a_welcome_that_requires_the_unknown_is_refused_by_name() {
    let mut state = LinkState::new(Introduction::default(), 1);
    state.handle_time(Duration::ZERO);
    state.handle(Duration::ZERO, Event::Connected(Vec::new()));
    let welcome = Welcome {
        requires: vec!["teleportation".into()],
        ..welcome()
    };
    let commands = state.handle(Duration::ZERO, frame(Body::Welcome(welcome)));
    let [Command::Close(Reason::Unsupported, text)] = &commands[..] else {
        panic!("{commands:?}")
    };
    assert!(text.contains("teleportation"), "{text}");
}

#[test]
fn another_machine_with_its_identity_makes_it_wait_long_at_every_stage() {
    for host_key in [None, Some("ssh-ed25519 AAAA".to_owned())] {
        let introduction = Introduction {
            host_key,
            ..Introduction::default()
        };
        let mut state = LinkState::new(introduction, 1);
        let mut now = Duration::ZERO;
        for _ in 0..3 {
            assert_eq!(state.handle_time(now), [Command::Dial]);
            state.handle(now, Event::Connected(Vec::new()));
            state.handle(now, frame(Body::Welcome(welcome())));
            let refused = Refused::new(Reason::Conflict, "enrol anew");
            let commands = state.handle(now, frame(Body::Refused(refused.clone())));
            let close = Command::Close(Reason::Conflict, "enrol anew".into());
            assert_eq!(commands, [Command::TurnedAway(refused), close]);
            let next = state.deadline().unwrap();
            assert!(next >= now + 5 * SECOND, "{next:?} after {now:?}");
            now = next;
        }
        assert!(now >= 35 * SECOND, "{now:?}");
    }
}

#[test]
fn host_keys_are_reported_once_the_offer_is_answered_and_whenever_they_are_read_anew() {
    let mut state = LinkState::new(Introduction::default(), 1);
    let reports = vec![HostKeyReport::default(), HostKeyReport::default()];
    assert_eq!(state.handle(Duration::ZERO, Event::HostKeys(reports.clone())), []);
    assert_eq!(state.handle_time(Duration::ZERO), [Command::Dial]);
    state.handle(Duration::ZERO, Event::Connected(Vec::new()));
    state.handle(Duration::ZERO, frame(Body::Welcome(welcome())));
    let answered = state.handle(Duration::ZERO, frame(Body::OfferAnswer(OfferAnswer::default())));
    let sent = |report: &HostKeyReport| send(Body::HostKeyReport(report.clone()));
    assert_eq!(answered[1..], reports.iter().map(sent).collect::<Vec<_>>());
    let anew = state.handle(SECOND, Event::HostKeys(reports[..1].to_vec()));
    assert_eq!(anew, [sent(&reports[0])]);
    state.handle(SECOND, Event::Lost);
    assert_eq!(state.handle(SECOND, Event::HostKeys(reports)), []);
}
