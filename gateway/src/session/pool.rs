//! Which member of a pool serves a session: one that is linked and answers, with the fewest sessions.
//!
//! An agent whose machine died holds its link until the idle limit tells; one that left a request unanswered is in doubt for
//! so long, and asked last, as is one that says itself that what stands behind the endpoint does not answer.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use fairlead_identity::name::Label;
use tokio::time::Instant;

use crate::access::Target;

/// A member of a pool has this long to open a session while there is another to ask.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);
/// How long a member that gave no answer is asked last: longer than a dead link takes to be noticed.
const DOUBT: Duration = Duration::from_secs(15);
/// Agents in doubt that are remembered.
const DOUBTED: usize = 1024;

/// The agents that left a request unanswered.
#[derive(Debug, Default)]
pub(super) struct Doubts(Mutex<BTreeMap<Agent, Instant>>);

impl Doubts {
    /// The agent gave no answer in time.
    pub(super) fn note(&self, target: &Target) {
        let mut doubted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        doubted.retain(|_, since| since.elapsed() < DOUBT);
        if doubted.len() < DOUBTED {
            doubted.insert(agent(target), Instant::now());
        }
    }

    /// It did.
    pub(super) fn clear(&self, target: &Target) {
        let mut doubted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        doubted.remove(&agent(target));
    }

    fn is_doubted(&self, target: &Target) -> bool {
        let doubted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        doubted.get(&agent(target)).is_some_and(|since| since.elapsed() < DOUBT)
    }

    /// Puts the members in the order in which they are asked; of equals the first named goes first.
    pub(super) fn order(&self, members: &mut [Target], rank: impl Fn(&Target) -> Rank) {
        members.sort_by_cached_key(|member| {
            let Rank { away, unwell, sessions } = rank(member);
            (away, unwell || self.is_doubted(member), sessions)
        });
    }
}

/// What is known of a member.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rank {
    /// It has no link.
    pub(super) away: bool,
    /// It says itself that what stands behind the endpoint does not answer.
    pub(super) unwell: bool,
    /// Live sessions through its agent.
    pub(super) sessions: usize,
}

/// Site and name.
type Agent = (Label, Label);

fn agent(target: &Target) -> Agent {
    (target.site.clone(), target.agent.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str) -> Target {
        Target {
            endpoint: "postgres://billing.clinic1.internal".parse().unwrap(),
            agent: name.parse().unwrap(),
            site: "clinic1".parse().unwrap(),
            labels: BTreeMap::new(),
            builtin: false,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_linked_answers_and_has_the_fewest_sessions_goes_first() {
        let doubts = Doubts::default();
        let ordered = |doubts: &Doubts, unwell: &str| {
            let mut members: Vec<Target> = ["a", "b", "c", "d"].map(member).into();
            doubts.order(&mut members, |member| Rank {
                away: member.agent.as_str() == "a",
                unwell: member.agent.as_str() == unwell,
                sessions: usize::from(member.agent.as_str() == "b") * 7,
            });
            let names: Vec<String> = members.iter().map(|member| member.agent.to_string()).collect();
            names.concat()
        };
        let order = |doubts: &Doubts| ordered(doubts, "");
        assert_eq!(order(&doubts), "cdba");
        assert_eq!(ordered(&doubts, "c"), "dbca");
        doubts.note(&member("c"));
        assert_eq!(order(&doubts), "dbca");
        tokio::time::advance(DOUBT).await;
        assert_eq!(order(&doubts), "cdba");
        doubts.note(&member("c"));
        doubts.clear(&member("c"));
        assert_eq!(order(&doubts), "cdba");
    }
}
