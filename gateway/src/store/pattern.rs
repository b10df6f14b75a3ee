//! Which names a fleet's join string allows.

use std::fmt;

use super::StoreError;

/// Longest pattern in bytes.
const MAX_BYTES: usize = 64;

/// A pattern for agents' names: `*` stands for any run of characters, none included; everything else for itself. It fits
/// a name as a whole, from the first character to the last: `pump-*` fits `pump-7` and `pump-a-1`, not `old-pump-7`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamePattern(String);

impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl NamePattern {
    /// # Errors
    /// [`StoreError::Invalid`] unless it has 1 to 64 characters of `a-z`, `0-9`, `-` and at least one `*`.
    pub fn new(text: &str) -> Result<Self, StoreError> {
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'*');
        if text.len() <= MAX_BYTES && text.bytes().all(allowed) && text.contains('*') {
            return Ok(Self(text.to_owned()));
        }
        Err(StoreError::Invalid {
            what: "name pattern",
            why: "1 to 64 characters of a-z, 0-9, - and at least one *, which stands for any run of characters",
        })
    }

    /// Whether the pattern fits this name.
    pub fn fits(&self, name: &str) -> bool {
        let Some((head, rest)) = self.0.split_once('*') else {
            return name == self.0;
        };
        let (middle, tail) = rest.rsplit_once('*').unwrap_or(("", rest));
        let inner = name.strip_prefix(head).and_then(|name| name.strip_suffix(tail));
        let Some(mut left) = inner else { return false };
        // Taking each piece where it comes first leaves the most room for those after it.
        middle.split('*').all(|piece| {
            let found = left.split_once(piece);
            left = found.map_or(left, |(_, after)| after);
            found.is_some()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_run_and_the_rest_for_itself() {
        for (pattern, fitting, others) in [
            (
                "pump-*",
                &["pump-7", "pump-a-1", "pump-"][..],
                &["pump", "old-pump-7", "pumps-7", "PUMP-7"][..],
            ),
            ("*", &["a", ""], &[]),
            ("*-east", &["pump-east", "-east"], &["pump-east-1", "east"]),
            ("a*b*c", &["abc", "axbyc", "abbcc"], &["ab", "acb", "xabc", "abcx"]),
            ("a*a", &["aa", "aba"], &["a"]),
            ("**x**", &["x", "axb"], &["", "ab"]),
            ("a*bc*bc", &["abcbc", "axbcxbc"], &["abc"]),
        ] {
            let compiled = NamePattern::new(pattern).unwrap();
            for name in fitting {
                assert!(compiled.fits(name), "{pattern} {name}");
            }
            for name in others {
                assert!(!compiled.fits(name), "{pattern} {name}");
            }
        }
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for text in ["", "pump-7", "Pump-*", "pump_*", "p?*", "*.*", &"*".repeat(65)] {
            assert!(NamePattern::new(text).is_err(), "{text}");
        }
    }
}
