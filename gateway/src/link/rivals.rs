//! Two machines with one identity, without input or output (SECURITY.md P8): who may serve, and what is told of it.
//!
//! A copied state directory, a restored image or a stolen disk shows here: a link whose key another live link holds. The
//! machine that serves goes on serving; the other is turned away and marked for the operator, who alone knows which of
//! the two is meant. While a mark stands, the place changes hands at most once a minute, whoever dies. A restart of the
//! gateway forgets the marks; the next try makes a new one.
//!
//! INVARIANT: `now` never goes back; it is the time since the roster began, and the wall's time is for people only.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use fairlead_wire::id::BootId;

use super::AgentKey;

/// While a mark stands, a machine that has got the place keeps it for so long, dead or alive.
const SWITCH_EVERY: Duration = Duration::from_secs(60);
/// One audit line per agent in this time, however often a copy tries.
const TELL_EVERY: Duration = Duration::from_secs(3600);
/// A mark whose other machine was not heard for so long is settled.
const SETTLED_AFTER: Duration = Duration::from_secs(3600);

/// A moment by both clocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    /// Since the roster began.
    pub(super) now: Duration,
    /// For people.
    pub(super) wall: SystemTime,
}

/// A machine that has, or wants, an agent's place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Machine {
    pub(super) boot: BootId,
    pub(super) spki: [u8; 32],
    pub(super) address: SocketAddr,
}

/// Two machines use one agent's key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// Where the machine is that serves, or served last.
    pub serving: SocketAddr,
    /// Where the other one is.
    pub rival: SocketAddr,
    /// When the two were first seen at the same time.
    pub since: SystemTime,
    /// When the other one was heard last.
    pub last: SystemTime,
    /// How often it was turned away.
    pub tries: u64,
    /// Whether an audit line is due: the first time, and then once an hour.
    pub to_be_told: bool,
}

#[derive(Debug)]
struct Mark {
    serving: Machine,
    rival: Machine,
    since: SystemTime,
    last: Moment,
    tries: u64,
    told: Option<Duration>,
    /// When the place last changed hands.
    switched: Option<Duration>,
}

/// The marks of every agent with two machines.
#[derive(Debug)]
pub(super) struct Rivals {
    marks: BTreeMap<AgentKey, Mark>,
    limit: usize,
}

impl Rivals {
    /// At most `limit` marks; one more takes the place of the one that was silent longest.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            marks: BTreeMap::new(),
            limit,
        }
    }

    /// Whether `machine` may have the agent's place, which is free or its holder dead.
    pub(super) fn may_serve(&mut self, agent: &AgentKey, machine: &Machine, at: Moment) -> bool {
        let Some(mark) = self.standing(agent, machine, at) else {
            return true;
        };
        let kept = |switched| at.now.saturating_sub(switched) < SWITCH_EVERY;
        mark.serving.boot == machine.boot || !mark.switched.is_some_and(kept)
    }

    /// `machine` was turned away because of `serving`, which got its place from another machine at `switched`, if it did.
    pub(super) fn turned_away(
        &mut self,
        agent: &AgentKey,
        serving: Machine,
        machine: Machine,
        switched: Option<Duration>,
        at: Moment,
    ) -> Conflict {
        if self.standing(agent, &machine, at).is_none() {
            self.make_room(agent);
        }
        let mark = self.marks.entry(agent.clone()).or_insert_with(|| Mark {
            serving,
            rival: machine,
            since: at.wall,
            last: at,
            tries: 0,
            told: None,
            switched,
        });
        mark.serving = serving;
        mark.tried(machine, at)
    }

    /// As [`Self::turned_away`], where the place is kept for a machine that is gone.
    pub(super) fn kept_out(&mut self, agent: &AgentKey, machine: Machine, at: Moment) -> Option<Conflict> {
        let mark = self.standing(agent, &machine, at)?;
        Some(mark.tried(machine, at))
    }

    /// `machine` has the agent's place now. Tells of a change of hands between two known machines.
    pub(super) fn serves(&mut self, agent: &AgentKey, machine: Machine, at: Moment) -> Option<Conflict> {
        let mark = self.standing(agent, &machine, at)?;
        if mark.serving.boot == machine.boot {
            mark.serving.address = machine.address;
            return None;
        }
        mark.rival = std::mem::replace(&mut mark.serving, machine);
        mark.switched = Some(at.now);
        mark.last = at;
        Some(mark.shown(true))
    }

    /// The operator has chosen: the agent's key is gone, and the mark with it.
    pub(super) fn forget(&mut self, agent: &AgentKey) {
        self.marks.remove(agent);
    }

    /// The marks that stand, by agent.
    pub(super) fn list(&self, at: Moment) -> Vec<(AgentKey, Conflict)> {
        let standing = self.marks.iter().filter(|(_, mark)| !mark.is_settled(at));
        standing
            .map(|(agent, mark)| (agent.clone(), mark.shown(false)))
            .collect()
    }

    /// The agent's mark, unless it is settled: by time, or because the agent has another key than the marked one.
    fn standing(&mut self, agent: &AgentKey, machine: &Machine, at: Moment) -> Option<&mut Mark> {
        let mark = self.marks.get(agent)?;
        if mark.is_settled(at) || mark.serving.spki != machine.spki {
            self.marks.remove(agent);
            return None;
        }
        self.marks.get_mut(agent)
    }

    fn make_room(&mut self, agent: &AgentKey) {
        if self.marks.len() < self.limit || self.marks.contains_key(agent) {
            return;
        }
        let silent = self.marks.iter().min_by_key(|(_, mark)| mark.last.now);
        if let Some(silent) = silent.map(|(agent, _)| agent.clone()) {
            self.marks.remove(&silent);
        }
    }
}

impl Mark {
    fn tried(&mut self, machine: Machine, at: Moment) -> Conflict {
        self.rival = machine;
        self.last = at;
        self.tries = self.tries.saturating_add(1);
        let due = self.told.is_none_or(|told| at.now.saturating_sub(told) >= TELL_EVERY);
        if due {
            self.told = Some(at.now);
        }
        self.shown(due)
    }

    fn is_settled(&self, at: Moment) -> bool {
        at.now.saturating_sub(self.last.now) >= SETTLED_AFTER
    }

    fn shown(&self, to_be_told: bool) -> Conflict {
        Conflict {
            serving: self.serving.address,
            rival: self.rival.address,
            since: self.since,
            last: self.last.wall,
            tries: self.tries,
            to_be_told,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: u64 = 60;
    const HOUR: u64 = 3600;

    fn agent(name: &str) -> AgentKey {
        AgentKey {
            site: "plant-7".parse().unwrap(),
            name: name.parse().unwrap(),
        }
    }

    fn machine(boot: u8) -> Machine {
        Machine {
            boot: BootId::from_bytes([boot; 16]),
            spki: [1; 32],
            address: SocketAddr::from(([192, 0, 2, boot], 5000)),
        }
    }

    fn at(seconds: u64) -> Moment {
        let now = Duration::from_secs(seconds);
        Moment {
            now,
            wall: SystemTime::UNIX_EPOCH + now,
        }
    }

    /// Machine 1 serves, machine 2 was turned away at `seconds`.
    fn marked(seconds: u64) -> (Rivals, AgentKey, Conflict) {
        let (mut rivals, pump) = (Rivals::new(8), agent("pump-7"));
        let conflict = rivals.turned_away(&pump, machine(1), machine(2), None, at(seconds));
        (rivals, pump, conflict)
    }

    #[test]
    fn without_a_conflict_whoever_comes_gets_a_free_place() {
        let mut rivals = Rivals::new(8);
        for boot in 1..20 {
            assert!(rivals.may_serve(&agent("pump-7"), &machine(boot), at(0)));
            assert_eq!(rivals.serves(&agent("pump-7"), machine(boot), at(0)), None);
        }
    }

    #[test]
    fn a_conflict_is_told_at_once_with_both_addresses_and_then_once_an_hour() {
        let (mut rivals, pump, first) = marked(10);
        assert!(first.to_be_told);
        assert_eq!((first.serving, first.rival), (machine(1).address, machine(2).address));
        // A month of tries, every 100 s, each from a boot of its own.
        let told = (1..25_920_u64).filter(|try_| {
            let boot = u8::try_from(try_ % 200 + 2).unwrap();
            let now = at(10 + try_ * 100);
            rivals
                .turned_away(&pump, machine(1), machine(boot), None, now)
                .to_be_told
        });
        assert_eq!(told.count(), 25_919 * 100 / 3600);
    }

    #[test]
    fn the_place_of_a_dead_machine_changes_hands_once_a_minute_and_no_more() {
        let (mut rivals, pump, _) = marked(0);
        assert!(rivals.may_serve(&pump, &machine(2), at(5)), "the first is dead");
        let switched = rivals.serves(&pump, machine(2), at(5)).unwrap();
        assert_eq!(
            (switched.serving, switched.rival),
            (machine(2).address, machine(1).address)
        );
        for second in 5..5 + MINUTE {
            assert!(!rivals.may_serve(&pump, &machine(1), at(second)));
            assert!(!rivals.may_serve(&pump, &machine(3), at(second)));
            assert!(rivals.may_serve(&pump, &machine(2), at(second)), "its own place");
        }
        assert!(rivals.kept_out(&pump, machine(1), at(6)).is_some());
        assert!(rivals.may_serve(&pump, &machine(1), at(5 + MINUTE)));
    }

    #[test]
    fn a_machine_that_took_over_before_the_conflict_was_seen_has_switched_too() {
        let (mut rivals, pump) = (Rivals::new(8), agent("pump-7"));
        let began = Some(Duration::from_secs(100));
        rivals.turned_away(&pump, machine(1), machine(2), began, at(110));
        assert!(!rivals.may_serve(&pump, &machine(2), at(100 + MINUTE - 1)));
        assert!(rivals.may_serve(&pump, &machine(2), at(100 + MINUTE)));
    }

    #[test]
    fn a_mark_is_settled_by_silence_by_a_new_key_and_by_the_operator() {
        let (rivals, _, _) = marked(0);
        assert_eq!(rivals.list(at(HOUR - 1)).len(), 1);
        assert!(rivals.list(at(HOUR)).is_empty());

        let (mut rivals, pump, _) = marked(0);
        rivals.serves(&pump, machine(2), at(1));
        let replaced = Machine {
            spki: [2; 32],
            ..machine(3)
        };
        assert!(rivals.may_serve(&pump, &replaced, at(2)));
        assert!(rivals.list(at(2)).is_empty());

        let (mut rivals, pump, _) = marked(0);
        rivals.forget(&pump);
        assert!(rivals.list(at(1)).is_empty());
    }

    #[test]
    fn the_table_is_bounded() {
        let mut rivals = Rivals::new(2);
        for (second, name) in [(1, "a"), (2, "b"), (3, "c")] {
            rivals.turned_away(&agent(name), machine(1), machine(2), None, at(second));
        }
        let names: Vec<String> = rivals
            .list(at(3))
            .iter()
            .map(|(agent, _)| agent.name.to_string())
            .collect();
        assert_eq!(names, ["b", "c"]);
    }
}
