//! Which authorities there are and what each is for, out of what was read from the files; pure.
//!
//! Numbers say the order in which issuing authorities were made. One number is in force; the highest above it is the
//! next; every other one is retired. So putting the next in force changes one number, in one file, and nothing else.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use fairlead_identity::authority::Above;
use fairlead_identity::verify::{MAX_ROOTS, Roots};
use serde::{Deserialize, Serialize};

use crate::registry::unix;

/// A root stays trusted for so long after the last of its issuing authorities was retired: the longest life that
/// gateway.yaml allows for an agent's certificate, so that each has ended by then.
pub(super) const OVERLAP: Duration = Duration::from_secs(90 * 86_400);

/// What an issuing authority is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// New certificates come from it.
    Active,
    /// The next rotation puts it in force.
    Next,
    /// It issues no longer; what it has issued stays good until it ends.
    Retired,
}

/// The one number that decides, and when the others were retired; a file of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Order {
    /// The form of this file: 1.
    pub(super) version: u32,
    /// The issuing authority in force.
    pub(super) active: u32,
    /// When each that was in force before was retired, unix seconds.
    pub(super) retired: BTreeMap<u32, i64>,
}

impl Default for Order {
    fn default() -> Self {
        Self {
            version: 1,
            active: 1,
            retired: BTreeMap::new(),
        }
    }
}

impl Order {
    /// The order once `next` is in force.
    pub(super) fn after_rotation(&self, next: u32, now: SystemTime) -> Self {
        let mut after = self.clone();
        after.retired.insert(self.active, unix(now));
        after.retired.remove(&next);
        after.active = next;
        after
    }
}

/// One issuing authority on disk.
#[derive(Clone, Debug)]
pub(super) struct Issuing {
    pub(super) number: u32,
    /// The number of its root's files.
    pub(super) root: u32,
    pub(super) above: Above,
}

/// Every authority on disk.
#[derive(Clone, Debug, Default)]
pub(super) struct Book {
    pub(super) order: Order,
    /// By number.
    pub(super) issuing: BTreeMap<u32, Issuing>,
}

impl Book {
    /// What `number` is for.
    pub(super) fn state(&self, number: u32) -> State {
        if number == self.order.active {
            State::Active
        } else if self.next().is_some_and(|next| next.number == number) {
            State::Next
        } else {
            State::Retired
        }
    }

    /// The one in force.
    pub(super) fn active(&self) -> anyhow::Result<&Issuing> {
        let number = self.order.active;
        self.issuing.get(&number).with_context(|| {
            format!("issuing authority {number} is in force, but ca/issuing-{number}.pem is not there")
        })
    }

    /// The one that the next rotation puts in force.
    pub(super) fn next(&self) -> Option<&Issuing> {
        let (number, last) = self.issuing.last_key_value()?;
        (*number > self.order.active).then_some(last)
    }

    /// The roots to trust at `now`: of the one in force first, of the next, and of those retired not long ago.
    pub(super) fn trusted(&self, now: SystemTime) -> anyhow::Result<Roots> {
        let active = self.active()?;
        let mut ders = vec![active.above.root_der().clone()];
        let retired = self.issuing.values().rev().filter(|one| self.overlaps(one.number, now));
        for one in self.next().into_iter().chain(retired) {
            let root = one.above.root_der();
            if one.above.root_not_after() > now && !ders.contains(root) && ders.len() < MAX_ROOTS {
                ders.push(root.clone());
            }
        }
        Ok(Roots::from_der(&ders)?)
    }

    /// Whether certificates of a retired authority may still be good.
    fn overlaps(&self, number: u32, now: SystemTime) -> bool {
        let overlap = i64::try_from(OVERLAP.as_secs()).unwrap_or(i64::MAX);
        let retired = self.order.retired.get(&number);
        retired.is_some_and(|at| at.saturating_add(overlap) > unix(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fairlead_identity::authority::{create_issuing, create_root};
    use fairlead_identity::keys::PrivateKey;

    const DOMAIN: &str = "gw.example.com";
    const DAY: Duration = Duration::from_secs(86_400);

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
    }

    fn add(book: &mut Book, number: u32, root: u32, (key, pem): &(PrivateKey, String)) {
        let (_, issuing) = create_issuing(key, pem, DOMAIN, now()).unwrap();
        let above = Above::read(&issuing, pem).unwrap();
        book.issuing.insert(number, Issuing { number, root, above });
    }

    #[test]
    fn one_number_decides_what_each_is_for() {
        let root = create_root(DOMAIN, now()).unwrap();
        let mut book = Book::default();
        assert!(book.active().is_err());
        add(&mut book, 1, 1, &root);
        assert_eq!(book.active().unwrap().number, 1);
        assert!(book.next().is_none());
        add(&mut book, 2, 1, &root);
        add(&mut book, 3, 1, &root);
        assert_eq!(
            [1, 2, 3].map(|n| book.state(n)),
            [State::Active, State::Retired, State::Next]
        );
        book.order = book.order.after_rotation(3, now());
        assert_eq!(
            [1, 2, 3].map(|n| book.state(n)),
            [State::Retired, State::Retired, State::Active]
        );
        assert_eq!(book.order.retired.get(&1), Some(&1_800_000_000));
        assert_eq!(
            book.trusted(now()).unwrap().sha256s().len(),
            1,
            "one root for all of them"
        );
    }

    #[test]
    fn a_root_is_trusted_before_it_signs_and_until_its_last_certificate_has_ended() {
        let (old, new) = (create_root(DOMAIN, now()).unwrap(), create_root(DOMAIN, now()).unwrap());
        let mut book = Book::default();
        add(&mut book, 1, 1, &old);
        let trusted = |book: &Book, at: SystemTime| book.trusted(at).unwrap().sha256s();
        let (first, second) = (
            Roots::from_pem(&old.1).unwrap().sha256s(),
            Roots::from_pem(&new.1).unwrap().sha256s(),
        );
        assert_eq!(trusted(&book, now()), first);
        add(&mut book, 2, 2, &new);
        assert_eq!(trusted(&book, now()), [first.clone(), second.clone()].concat());
        book.order = book.order.after_rotation(2, now());
        assert_eq!(trusted(&book, now() + 89 * DAY), [second.clone(), first].concat());
        assert_eq!(trusted(&book, now() + 91 * DAY), second);
    }
}
