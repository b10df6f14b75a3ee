//! The link state against a reference model: any order of events and times, on a virtual clock.
//!
//! The model knows what a person would expect of a link that never dies, and nothing of how the state keeps it: whether
//! there is a connection, whether a dial is out, how long nothing may happen at most.

use fairlead_wire::control::Welcome;
use proptest::prelude::*;

use super::*;

const CAP: Duration = Duration::from_secs(8);
const APART_CAP: Duration = Duration::from_secs(120);

/// What the world does next.
#[derive(Clone, Debug)]
enum Step {
    /// The dial that is out succeeds; nothing where none is out.
    DialSucceeds,
    /// It fails.
    DialFails,
    /// The connection ends.
    Loses,
    /// The gateway says this.
    Says(Said),
    /// Time passes, in milliseconds, and the deadline is kept to if it comes.
    Passes(u32),
    /// The machine's network changes.
    NetworkChanges,
    /// The agent's file is read again.
    OfferChanges,
}

#[derive(Clone, Copy, Debug)]
enum Said {
    Welcome,
    WelcomeUnknown,
    OfferAnswer,
    Ping,
    RefusedLimit,
    RefusedConflict,
    Drain(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let said = prop_oneof![
        4 => Just(Said::Welcome),
        1 => Just(Said::WelcomeUnknown),
        4 => Just(Said::OfferAnswer),
        1 => Just(Said::Ping),
        1 => Just(Said::RefusedLimit),
        1 => Just(Said::RefusedConflict),
        1 => (0..100_000_u64).prop_map(Said::Drain),
    ];
    let step = prop_oneof![
        6 => Just(Step::DialSucceeds),
        2 => Just(Step::DialFails),
        2 => Just(Step::Loses),
        8 => said.prop_map(Step::Says),
        8 => (0..20_000_u32).prop_map(Step::Passes),
        1 => Just(Step::NetworkChanges),
        1 => Just(Step::OfferChanges),
    ];
    prop::collection::vec(step, 1..200)
}

/// What a person expects.
#[derive(Default)]
struct Model {
    dialling: bool,
    connected: bool,
    up_since: Option<Duration>,
    hint: Option<Duration>,
    /// Since when nothing is dialled, and how long that may last.
    idle: Option<(Duration, Duration)>,
    conflict: bool,
}

impl Model {
    fn lost(&mut self, now: Duration) {
        let proven = self.up_since.is_some_and(|since| now - since >= PROVEN_AFTER);
        let longest = match (self.hint, proven) {
            (Some(hint), _) => hint.min(HINT_CAP),
            (None, true) => Duration::from_millis(200),
            (None, false) => CAP,
        };
        *self = Self {
            idle: Some((now, longest)),
            ..Self::default()
        };
    }

    fn turned_away(&mut self, now: Duration, conflict: bool) {
        *self = Self {
            idle: Some((now, if conflict { APART_CAP } else { CAP })),
            conflict,
            ..Self::default()
        };
    }

    /// What the shell would do, held against what is expected.
    fn obey(&mut self, now: Duration, commands: &[Command]) {
        for command in commands {
            match command {
                Command::Dial => {
                    assert!(!self.dialling && !self.connected, "dials once, and only without a link");
                    if let Some((since, longest)) = self.idle {
                        assert!(now - since <= longest, "waited {:?}, at most {longest:?}", now - since);
                    }
                    (self.dialling, self.idle) = (true, None);
                }
                Command::Send(_) | Command::Renew => assert!(self.connected, "{command:?} to nobody"),
                Command::Up(_) => {
                    assert!(self.connected);
                    self.up_since.get_or_insert(now);
                }
                Command::Close(reason, _) => {
                    assert!(self.connected, "closes what there is");
                    self.turned_away(now, *reason == Reason::Conflict);
                }
                _ => {}
            }
        }
    }
}

fn frame(said: Said) -> Control {
    let body = match said {
        Said::Welcome | Said::WelcomeUnknown => Body::Welcome(Welcome {
            version: 1,
            gateway: "gw".into(),
            domain: "gw.example.com".into(),
            requires: match said {
                Said::WelcomeUnknown => vec!["teleportation".into()],
                _ => Vec::new(),
            },
            ..Welcome::default()
        }),
        Said::OfferAnswer => Body::OfferAnswer(OfferAnswer::default()),
        Said::Ping => Body::Ping(Ping { nonce: 7 }),
        Said::RefusedLimit => Body::Refused(Refused::new(Reason::Limit, "full")),
        Said::RefusedConflict => Body::Refused(Refused::new(Reason::Conflict, "another machine")),
        Said::Drain(reconnect_in_ms) => Body::Drain(Drain {
            reconnect_in_ms,
            within_ms: 60_000,
        }),
    };
    Control { body: Some(body) }
}

/// Lets time pass to `until`; whatever is due on the way is done when it is due.
fn pass(state: &mut LinkState, model: &mut Model, now: &mut Duration, until: Duration) {
    while let Some(due) = state.deadline().filter(|due| *due <= until) {
        *now = due.max(*now);
        let commands = state.handle_time(*now);
        model.obey(*now, &commands);
        if state.deadline() == Some(due) {
            panic!("the deadline {due:?} is kept to and stays");
        }
    }
    *now = until;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_link_always_has_a_dial_out_a_connection_or_a_bounded_wait(seed: u64, steps in steps()) {
        let (mut state, mut model) = (LinkState::new(Introduction::default(), seed), Model::default());
        let mut now = Duration::ZERO;
        for step in steps {
            let already = now;
            pass(&mut state, &mut model, &mut now, already);
            let event = match step {
                Step::DialSucceeds if model.dialling => {
                    (model.dialling, model.connected) = (false, true);
                    Event::Connected(Vec::new())
                }
                Step::DialFails if model.dialling => {
                    model.lost(now);
                    Event::Lost
                }
                Step::Loses if model.connected => {
                    model.lost(now);
                    Event::Lost
                }
                Step::Says(said) if model.connected => {
                    if let (Said::Drain(wait), true) = (said, model.up_since.is_some()) {
                        model.hint = Some(Duration::from_millis(wait));
                    }
                    Event::Frame(frame(said))
                }
                Step::Passes(millis) => {
                    let until = now + Duration::from_millis(u64::from(millis));
                    pass(&mut state, &mut model, &mut now, until);
                    continue;
                }
                Step::NetworkChanges => {
                    if let Some((since, longest)) = &mut model.idle
                        && !model.conflict
                    {
                        *longest = (*longest).min(now - *since + Duration::from_millis(200));
                    }
                    Event::NetworkChanged
                }
                Step::OfferChanges => Event::Offer(Offer::default()),
                _ => continue,
            };
            let commands = state.handle(now, event);
            model.obey(now, &commands);
            prop_assert_eq!(state.is_up(), model.up_since.is_some());
            // Never stuck: something is awaited, or a moment is named.
            prop_assert!(model.dialling || model.connected || state.deadline().is_some());
        }
    }
}
