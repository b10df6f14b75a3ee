//! How results look: aligned columns for people, JSON for programs.

use std::collections::BTreeMap;

use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::command::{CommandError, Context};

/// What stands in a cell that has nothing.
const NOTHING: &str = "-";

/// Rows under headings, as wide as they need.
#[derive(Clone, Debug)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with its headings.
    pub fn new(headings: &[&str]) -> Self {
        Self {
            rows: vec![headings.iter().map(ToString::to_string).collect()],
        }
    }

    /// Adds a row. Empty cells show as `-`; what could steer a terminal shows as `?`.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        let shown = |cell: String| {
            if cell.is_empty() {
                NOTHING.to_owned()
            } else {
                printable(&cell)
            }
        };
        self.rows.push(cells.into_iter().map(shown).collect());
    }

    /// The table as text.
    pub fn to_text(&self) -> String {
        let mut widths = Vec::new();
        for row in &self.rows {
            widths.resize(widths.len().max(row.len()), 0);
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = cell.chars().count().max(*width);
            }
        }
        let line = |row: &Vec<String>| {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
            cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        };
        self.rows.iter().map(line).collect::<Vec<_>>().join("\n")
    }
}

/// Writes a result as JSON.
///
/// # Errors
/// Those of [`Context::print`].
pub fn json(context: &Context, value: &impl Serialize) -> Result<(), CommandError> {
    let text = serde_json::to_string_pretty(value).map_err(anyhow::Error::new)?;
    context.print(&text)
}

/// Unix seconds as RFC 3339 in UTC, or `-`.
pub fn moment(seconds: Option<i64>) -> String {
    let time = seconds.and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok());
    time.and_then(|time| time.format(&Rfc3339).ok())
        .unwrap_or_else(|| NOTHING.to_owned())
}

/// `KEY=VALUE,KEY=VALUE`.
pub fn labels(labels: &BTreeMap<String, String>) -> String {
    labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect::<Vec<_>>()
        .join(",")
}

/// `A,B,C`.
pub fn names<'a>(names: impl IntoIterator<Item = &'a String>) -> String {
    names.into_iter().map(String::as_str).collect::<Vec<_>>().join(",")
}

/// Text that came from elsewhere (devices report what they like) without what could steer a terminal or turn its words.
pub fn printable(text: &str) -> String {
    let steers = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
    };
    text.chars().map(|c| if steers(c) { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(&["NAME", "SITE"]);
        table.row(["pump-7".into(), "plant-7".into()]);
        table.row(["x".into(), String::new()]);
        assert_eq!(table.to_text(), "NAME    SITE\npump-7  plant-7\nx       -");
    }

    #[test]
    fn what_steers_a_terminal_is_not_shown() {
        assert_eq!(printable("a\u{1b}[2Jb\u{202e}c\nd"), "a?[2Jb?c?d");
    }

    #[test]
    fn moments_are_utc() {
        assert_eq!(moment(Some(1_800_000_000)), "2027-01-15T08:00:00Z");
        assert_eq!(moment(None), "-");
        assert_eq!(moment(Some(i64::MAX)), "-");
    }
}
