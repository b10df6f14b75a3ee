//! A broken rule, said so that the person who broke it can act.

use std::collections::BTreeSet;
use std::fmt;

/// One place that breaks one rule.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Breach {
    /// File, relative to the repository.
    pub(crate) file: String,
    /// Line from 1; 0 where the whole file is meant.
    pub(crate) line: usize,
    /// What was found there.
    pub(crate) found: String,
    /// The rule it breaks and what to do instead.
    pub(crate) rule: String,
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file)?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        write!(f, ": {}: {}", self.found, self.rule)
    }
}

/// Fails the calling test with every breach, one a line. What a file names many times is said once, at its first line.
pub(crate) fn assert_none(breaches: &[Breach]) {
    let mut said = BTreeSet::new();
    let first = breaches.iter().filter(|b| said.insert((&b.file, &b.found, &b.rule)));
    let lines: Vec<String> = first.map(ToString::to_string).collect();
    assert!(
        breaches.is_empty(),
        "{} breach(es) of the layout:\n{}",
        lines.len(),
        lines.join("\n")
    );
}

#[test]
fn a_breach_names_file_line_finding_and_rule() {
    let breach = Breach {
        file: "a/b.rs".into(),
        line: 3,
        found: "`x::y`".into(),
        rule: "not here".into(),
    };
    assert_eq!(breach.to_string(), "a/b.rs:3: `x::y`: not here");
}

#[test]
#[should_panic(expected = "a/b.rs: too long")]
fn any_breach_fails_the_test() {
    assert_none(&[Breach {
        file: "a/b.rs".into(),
        line: 0,
        found: "too long".into(),
        rule: "split it".into(),
    }]);
}
