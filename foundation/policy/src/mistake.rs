//! What is wrong in a file, told to a person: place, reason, the line with a caret, and a way out.
//!
//! Everything the loader refuses ends here, so that `check` and a failed reload read alike. Mistakes are collected, not
//! thrown: one run shows all of them, up to [`MAX_MISTAKES`].

use std::fmt;

/// How many mistakes one load reports before it says that there are more. A file of garbage must not become a page of garbage.
pub const MAX_MISTAKES: usize = 100;

/// Characters of a message or a help; what a file quotes into them has no other limit.
const MAX_MESSAGE_CHARS: usize = 500;

/// Characters of a source line shown on each side of the caret; longer lines are cut.
const SHOWN_EACH_SIDE: usize = 60;

/// One thing wrong in a policy or rules file.
///
/// `Display` gives `file:line:column: message`, the line with a caret, and the help. Line and column count from 1, columns in
/// characters; line 0 means that no place is known and none is printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The file's name as the [`Source`](crate::Source) gave it.
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

/// Something that loads but probably does not do what its author meant. Printed like a [`Mistake`], with the word `warning`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning(pub Mistake);

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = self.0.clone();
        shown.message = format!("warning: {}", shown.message);
        shown.fmt(f)
    }
}

/// A place in a file. The default is "unknown".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct At {
    /// From 1; 0 when unknown.
    pub(crate) line: u32,
    /// In characters, from 1.
    pub(crate) column: u32,
    /// Byte offset into the text, where the parser knows it.
    pub(crate) offset: Option<usize>,
}

/// Collects the mistakes and warnings of one file.
pub(crate) struct Report<'t> {
    file: &'t str,
    text: &'t str,
    mistakes: Vec<Mistake>,
    warnings: Vec<Warning>,
}

impl<'t> Report<'t> {
    pub(crate) fn new(file: &'t str, text: &'t str) -> Self {
        Self {
            file,
            text,
            mistakes: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// The text that the places point into.
    pub(crate) fn text(&self) -> &'t str {
        self.text
    }

    pub(crate) fn mistake(&mut self, at: At, message: impl Into<String>, help: Option<String>) {
        // One beyond the limit is kept, so that the reader of the list can tell "exactly 100" from "more".
        if self.mistakes.len() <= MAX_MISTAKES {
            let mistake = self.told(at, message.into(), help);
            self.mistakes.push(mistake);
        }
    }

    pub(crate) fn warning(&mut self, at: At, message: impl Into<String>, help: Option<String>) {
        if self.warnings.len() < MAX_MISTAKES {
            let mistake = self.told(at, message.into(), help);
            self.warnings.push(Warning(mistake));
        }
    }

    pub(crate) fn is_clean(&self) -> bool {
        self.mistakes.is_empty()
    }

    /// Whether further mistakes would not be shown.
    pub(crate) fn is_full(&self) -> bool {
        self.mistakes.len() > MAX_MISTAKES
    }

    pub(crate) fn finish(mut self) -> (Vec<Mistake>, Vec<Warning>) {
        self.mistakes.sort_by_key(|m| (m.line, m.column));
        (self.mistakes, self.warnings)
    }

    fn told(&self, at: At, message: String, help: Option<String>) -> Mistake {
        let snippet = if at.line == 0 {
            String::new()
        } else {
            snippet(self.text, at)
        };
        Mistake {
            file: self.file.to_owned(),
            line: at.line,
            column: at.column,
            message: bounded(&message),
            snippet,
            help: help.map(|h| bounded(&h)),
        }
    }
}

/// Cuts the list at [`MAX_MISTAKES`] and says so.
pub(crate) fn at_most(mut mistakes: Vec<Mistake>) -> Vec<Mistake> {
    if mistakes.len() > MAX_MISTAKES {
        mistakes.truncate(MAX_MISTAKES);
        if let Some(last) = mistakes.last().map(|m| m.file.clone()) {
            mistakes.push(without_place(
                &last,
                format!("more than {MAX_MISTAKES} mistakes; the rest is not shown"),
            ));
        }
    }
    mistakes
}

/// A mistake about a file as a whole.
pub(crate) fn without_place(file: &str, message: String) -> Mistake {
    Mistake {
        file: file.to_owned(),
        line: 0,
        column: 0,
        message,
        snippet: String::new(),
        help: None,
    }
}

/// The line of `at`, cut around the place, and a caret under it.
fn snippet(text: &str, at: At) -> String {
    let Some(line) = line_of(text, at) else {
        return String::new();
    };
    let place = usize::try_from(at.column.saturating_sub(1)).unwrap_or(0);
    let short = line.chars().nth(2 * SHOWN_EACH_SIDE).is_none();
    let from = if short {
        0
    } else {
        place.saturating_sub(SHOWN_EACH_SIDE)
    };
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

fn line_of(text: &str, at: At) -> Option<&str> {
    let Some(offset) = at.offset else {
        return text.lines().nth(usize::try_from(at.line).ok()?.checked_sub(1)?);
    };
    let (before, after) = text.split_at_checked(offset)?;
    let breaks = ['\n', '\r'];
    let start = before.rfind(breaks).map_or(0, |i| i + 1);
    let end = offset + after.find(breaks).unwrap_or(after.len());
    text.get(start..end)
        .map(|line| line.strip_prefix('\u{feff}').unwrap_or(line))
}

fn bounded(text: &str) -> String {
    let mut shown = printable(&text.chars().take(MAX_MESSAGE_CHARS).collect::<String>());
    if text.chars().nth(MAX_MESSAGE_CHARS).is_some() {
        shown.push_str("...");
    }
    shown
}

/// Control characters would move the caret or drive the reader's terminal: each becomes one visible stand-in.
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c == '\t' {
                ' '
            } else if c.is_control() || is_direction(c) {
                '\u{fffd}'
            } else {
                c
            }
        })
        .collect()
}

/// Characters that reorder the text around them.
fn is_direction(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caret_stands_under_the_place() {
        let at = At {
            line: 2,
            column: 3,
            offset: Some(6),
        };
        assert_eq!(snippet("abc\nxyz\n", at), "xyz\n  ^");
        let unknown_offset = At { offset: None, ..at };
        assert_eq!(snippet("abc\nxyz\n", unknown_offset), "xyz\n  ^");
    }

    #[test]
    fn a_long_line_is_cut_around_the_place() {
        let text = "x".repeat(1000);
        let shown = snippet(
            &text,
            At {
                line: 1,
                column: 501,
                offset: Some(500),
            },
        );
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines[0].len(), 126);
        assert_eq!(lines[1].len(), 64);
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        let shown = snippet(
            "a\u{1b}[2Jb\u{202e}",
            At {
                line: 1,
                column: 1,
                offset: Some(0),
            },
        );
        assert!(!shown.contains('\u{1b}') && !shown.contains('\u{202e}'), "{shown}");
    }

    #[test]
    fn the_shape_of_the_message_is_fixed() {
        let mut report = Report::new("a.yaml", "version: 2\n");
        report.mistake(
            At {
                line: 1,
                column: 10,
                offset: Some(9),
            },
            "no such version",
            Some("write 1".into()),
        );
        let (mistakes, _) = report.finish();
        assert_eq!(
            mistakes[0].to_string(),
            "a.yaml:1:10: no such version\n  | version: 2\n  |          ^\n  help: write 1"
        );
    }
}
