//! From a place inside an expression to the place in the YAML file that spells it.
//!
//! The parser of YAML gives the value without its quotes, escapes and folded lines. The walk here goes through both spellings
//! side by side; where they cannot be matched the start of the value is good enough.

use crate::mistake::At;

#[derive(Clone, Copy, PartialEq)]
enum Style {
    /// Plain and block scalars: no escapes, breaks may be folded.
    Bare,
    Single,
    Double,
}

/// The place in `text` of byte `offset` of `value`, which is spelt at `start`.
pub(crate) fn inside(text: &str, start: At, value: &str, offset: usize) -> At {
    start
        .offset
        .and_then(|from| text.get(from..))
        .and_then(|raw| walk(raw, value, offset).map(|length| advance(start, raw, length)))
        .unwrap_or(start)
}

/// How many bytes of `raw` spell the first `offset` bytes of `value`.
fn walk(raw: &str, value: &str, offset: usize) -> Option<usize> {
    let style = match raw.chars().next()? {
        '\'' => Style::Single,
        '"' => Style::Double,
        _ => Style::Bare,
    };
    let mut at = usize::from(style != Style::Bare);
    let mut rest = value.get(..offset)?.chars();
    while let Some(wanted) = rest.clone().next() {
        let found = raw.get(at..)?.chars().next()?;
        if style == Style::Double && found == '\\' {
            let (length, spelt) = escape(raw.get(at..)?)?;
            at += length;
            if spelt {
                rest.next();
            }
        } else if found == wanted || (found.is_whitespace() && wanted.is_whitespace()) {
            // Inside single quotes a quote is written twice.
            at += found.len_utf8() + usize::from(style == Style::Single && found == '\'');
            rest.next();
        } else if found.is_whitespace() {
            // Indentation, and what a folded line leaves out.
            at += found.len_utf8();
        } else {
            return None;
        }
    }
    let blank = raw.get(at..)?.len() - raw.get(at..)?.trim_start().len();
    let at_word = value.get(offset..)?.starts_with(|c: char| !c.is_whitespace());
    Some(if at_word { at + blank } else { at })
}

/// Length of the escape sequence at the start of `raw`, and whether it spells a character.
fn escape(raw: &str) -> Option<(usize, bool)> {
    let kind = raw.chars().nth(1)?;
    match kind {
        'x' => Some((4, true)),
        'u' => Some((6, true)),
        'U' => Some((10, true)),
        '\n' | '\r' => {
            let blank = raw.get(1..)?.chars().take_while(|c| c.is_ascii_whitespace()).count();
            Some((1 + blank, false))
        }
        other => Some((1 + other.len_utf8(), true)),
    }
}

/// The place `length` bytes behind `start`.
fn advance(start: At, raw: &str, length: usize) -> At {
    let passed = raw.get(..length).unwrap_or("");
    let count = |n: usize| u32::try_from(n).unwrap_or(0);
    let breaks = passed.matches('\n').count();
    let column = match passed.rfind('\n') {
        Some(last) => count(passed.get(last + 1..).unwrap_or("").chars().count()) + 1,
        None => start.column + count(passed.chars().count()),
    };
    At {
        line: start.line + count(breaks),
        column,
        offset: start.offset.map(|o| o + length),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mistake::Report;
    use crate::yaml::{self, Data};

    /// Finds `needle` in the value of the only key, and checks that the place points at `needle` in the file.
    fn points_at(text: &str, needle: &str) {
        let mut report = Report::new("t", text);
        let Some(Data::Map(entries)) = yaml::parse(&mut report).map(|n| n.data) else {
            panic!()
        };
        let Data::Text(value) = &entries[0].1.data else {
            panic!()
        };
        let offset = value.find(needle).unwrap();
        let place = inside(text, entries[0].1.at, value, offset);
        assert!(
            text[place.offset.unwrap()..].starts_with(needle),
            "{text:?} {value:?} {place:?}"
        );
        let line = text.lines().nth(place.line as usize - 1).unwrap();
        let shown: String = line.chars().skip(place.column as usize - 1).collect();
        assert!(shown.starts_with(needle), "{place:?} in {line:?}");
    }

    #[test]
    fn every_style_of_scalar_is_followed() {
        points_at("e: caller.name == x", "== x");
        points_at("e: 'é in caller.grups'", "grups");
        points_at("e: '''a'' in caller.grups'", "grups");
        points_at("e: \"'a' in caller.grups\"", "grups");
        points_at("e: \"\\\"\\u0061\\\" in caller.grups\"", "grups");
        points_at("e: |\n  a ==\n    b && grups\n", "grups");
        points_at("e: >-\n  a ==\n  b && grups\n", "grups");
        points_at("e: a ==\n  b && grups\n", "grups");
        points_at("e: 'a ==\n  b && grups'\n", "grups");
        points_at("e: \"a == \\\n   b && grups\"\n", "grups");
    }

    #[test]
    fn what_cannot_be_followed_points_at_the_start() {
        let start = At {
            line: 1,
            column: 1,
            offset: Some(0),
        };
        assert_eq!(inside("abc", start, "xyz", 2), start);
        let unknown = At { offset: None, ..start };
        assert_eq!(inside("abc", unknown, "abc", 2), unknown);
    }
}
