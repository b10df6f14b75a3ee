//! One thing wrong in a file, shown so that its author sees the place.

use std::fmt;

use serde_yaml::Location;

/// Characters of a long line shown on each side of the place.
const SHOWN_EACH_SIDE: usize = 60;
/// Longer words are no typing mistakes of ours; the limit also bounds the comparison.
const MAX_COMPARED: usize = 64;

/// A mistake in a file. Prints as `file:line:column: message`, the line with a caret below, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The file's name as it was given.
    pub file: String,
    /// Line, from 1; 0 when unknown.
    pub line: u32,
    /// Column in characters, from 1; 0 when unknown.
    pub column: u32,
    /// What is wrong, without a full stop.
    pub message: String,
    /// The line (cut around the place when long) and a caret under the place; empty when no place is known.
    pub snippet: String,
    /// What to do about it, where there is more to say than the message does.
    pub help: Option<String>,
}

impl Mistake {
    /// A mistake at a place in `text`, such as the `referenced` place of a `serde_yaml::Spanned` value.
    pub fn at(file: &str, text: &str, place: Location, message: impl Into<String>) -> Self {
        let line = u32::try_from(place.line()).unwrap_or(0);
        let column = u32::try_from(place.column()).unwrap_or(0);
        Self {
            line,
            column,
            snippet: snippet(text, line, column),
            ..Self::about(file, message)
        }
    }

    /// A mistake of the file as a whole.
    pub fn about(file: &str, message: impl Into<String>) -> Self {
        Self {
            file: file.to_owned(),
            line: 0,
            column: 0,
            message: printable(&message.into()),
            snippet: String::new(),
            help: None,
        }
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(printable(&help.into()));
        self
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file)?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        write!(f, ": {}", self.message)?;
        for line in self.snippet.lines() {
            write!(f, "\n  | {line}")?;
        }
        match &self.help {
            Some(help) => write!(f, "\n  help: {help}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Mistake {}

/// Returns the candidate nearest to a misspelt word, when near enough to be meant: one edit for every three
/// characters, at least one.
pub fn nearest<'c>(written: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    if written.len() > MAX_COMPARED {
        return None;
    }
    let allowed = (written.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (distance(&written.to_lowercase(), &candidate.to_lowercase()), candidate))
        .filter(|(edits, _)| *edits <= allowed)
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, candidate)| candidate)
}

/// Edits (insert, delete, replace, swap of neighbours) between two words; optimal string alignment.
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().collect();
    let b: Vec<char> = b.chars().collect();
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let at = |cells: &[usize], k: usize| cells.get(k).copied().unwrap_or(usize::MAX / 2);
            let mut cost = (at(&above, j) + usize::from(x != y))
                .min(at(&above, j + 1) + 1)
                .min(at(&row, j) + 1);
            if i > 0 && j > 0 && a.get(i - 1) == Some(y) && b.get(j - 1) == Some(x) {
                cost = cost.min(at(&before, j - 1) + 1);
            }
            row.push(cost);
        }
        before = std::mem::replace(&mut above, row);
    }
    above.last().copied().unwrap_or(0)
}

/// The line, cut around the place, and a caret under it.
fn snippet(text: &str, line: u32, column: u32) -> String {
    let index = usize::try_from(line).ok().and_then(|line| line.checked_sub(1));
    let Some(line) = index.and_then(|index| text.lines().nth(index)) else {
        return String::new();
    };
    let line = line.strip_prefix('\u{feff}').unwrap_or(line);
    let place = usize::try_from(column).unwrap_or(0).saturating_sub(1);
    let from = place.saturating_sub(SHOWN_EACH_SIDE);
    let shown: String = line.chars().skip(from).take(2 * SHOWN_EACH_SIDE).collect();
    let cut_before = if from > 0 { "..." } else { "" };
    let cut_after = if line.chars().count() > from + 2 * SHOWN_EACH_SIDE {
        "..."
    } else {
        ""
    };
    let indent = " ".repeat(place - from + cut_before.len());
    format!("{cut_before}{}{cut_after}\n{indent}^", printable(&shown))
}

/// Control and direction characters would move the caret or drive the reader's terminal.
fn printable(text: &str) -> String {
    let stand_in = |letter: char| match letter {
        '\t' | '\n' => ' ',
        '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '\u{fffd}',
        control if control.is_control() => '\u{fffd}',
        other => other,
    };
    text.chars().map(stand_in).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caret_stands_under_the_place() {
        assert_eq!(snippet("abc\nxyz\n", 2, 3), "xyz\n  ^");
        assert_eq!(snippet("abc", 0, 0), "");
        assert_eq!(snippet("abc", 9, 1), "");
    }

    #[test]
    fn a_long_line_is_cut_around_the_place() {
        let shown = snippet(&"x".repeat(1000), 1, 501);
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines[0].len(), 126);
        assert_eq!(lines[1].len(), 64);
    }

    #[test]
    fn the_terminal_is_not_driven_by_the_file() {
        let mistake = Mistake::about("f", "\u{1b}[2J\u{202e}").with_help("a\nb");
        assert_eq!(mistake.to_string(), "f: \u{fffd}[2J\u{fffd}\n  help: a b");
    }

    #[test]
    fn near_words_are_suggested_and_far_ones_are_not() {
        let keys = ["listen", "listeners", "limits"];
        assert_eq!(nearest("lisen", keys), Some("listen"));
        assert_eq!(nearest("Limits", keys), Some("limits"));
        assert_eq!(nearest("drain", keys), None);
        assert_eq!(nearest(&"x".repeat(10_000), keys), None);
    }
}
