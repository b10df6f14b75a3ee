//! Finding the rules that can match a request without looking at the others.
//!
//! Each rule is filed under the words of one of its guards: of those it has, the one whose words the fewest rules share. A
//! request looks up the words of its own facts and gets every rule that could match, and some that could not. Rules without
//! a guard are candidates of every request: they are what makes a decision cost time in proportion to their number.
//!
//! Words: at most as many as the set's text holds (4 MiB), each with 4 bytes for each rule.

use crate::facts::Facts;
use crate::guard::{Attribute, Fact, Guard, Owner};
use std::collections::BTreeMap;

/// Rule numbers by word.
type Words = BTreeMap<String, Vec<usize>>;

/// Rules by the words of their guards.
#[derive(Default)]
pub(crate) struct Index {
    facts: BTreeMap<Fact, Words>,
    groups: Words,
    /// By owner, then by the name of the label.
    label_names: BTreeMap<Owner, Words>,
    labels: BTreeMap<Owner, BTreeMap<String, Words>>,
    /// Rules without a guard to be looked up by.
    others: Vec<usize>,
}

impl Index {
    /// Files rule `n` under the best of the `n`th guards.
    pub(crate) fn of<'g>(rules: impl Iterator<Item = &'g [Guard]> + Clone) -> Self {
        let mut shared: BTreeMap<(&Attribute, &str), usize> = BTreeMap::new();
        let terms = |guard: &'g Guard| {
            let words = guard.tests.iter();
            words.flat_map(|(attribute, words)| words.iter().map(move |word| (attribute, word.as_str())))
        };
        for guard in rules.clone().flatten() {
            terms(guard).for_each(|term| *shared.entry(term).or_default() += 1);
        }
        let crowd = |guard: &&'g Guard| terms(guard).filter_map(|term| shared.get(&term)).sum::<usize>();
        let mut index = Self::default();
        for (number, guards) in rules.enumerate() {
            match guards.iter().filter(|g| g.can_be_looked_up()).min_by_key(crowd) {
                Some(best) => terms(best).for_each(|(attribute, word)| index.file(attribute, word, number)),
                None => index.others.push(number),
            }
        }
        index
    }

    fn file(&mut self, attribute: &Attribute, word: &str, number: usize) {
        let words = match attribute {
            Attribute::Is(fact) => self.facts.entry(*fact).or_default(),
            Attribute::Group => &mut self.groups,
            Attribute::HasLabel(owner) => self.label_names.entry(*owner).or_default(),
            Attribute::Label(owner, key) => {
                let labels = self.labels.entry(*owner).or_default();
                labels.entry(key.clone()).or_default()
            }
        };
        words.entry(word.to_owned()).or_default().push(number);
    }

    /// The rules that can match, ascending: all that do are among them.
    pub(crate) fn candidates(&self, facts: &Facts<'_>) -> Vec<usize> {
        let mut found = self.others.clone();
        let mut take = |words: &Words, word: &str| found.extend(words.get(word).into_iter().flatten());
        for (fact, words) in &self.facts {
            take(words, facts.text(*fact));
        }
        if !self.groups.is_empty() {
            facts.groups().iter().for_each(|group| take(&self.groups, group));
        }
        for (owner, words) in &self.label_names {
            facts.labels(*owner).for_each(|(key, _)| take(words, key));
        }
        for (owner, labels) in &self.labels {
            for (key, value) in facts.labels(*owner) {
                if let Some(words) = labels.get(key) {
                    take(words, value);
                }
            }
        }
        found.sort_unstable();
        found.dedup();
        found
    }
}
