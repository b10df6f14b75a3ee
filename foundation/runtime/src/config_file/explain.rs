//! The YAML library's errors in the operator's words.

use serde_yaml::Error;
use serde_yaml::budget::BudgetBreach;

use super::mistake::{Mistake, nearest};
use super::parse::{MAX_DEPTH, MAX_NODES};

/// Characters of a wrong value that are repeated in the message.
const SHOWN: usize = 40;

pub(super) fn explain(file: &str, text: &str, error: &Error) -> Mistake {
    let error = error.without_snippet();
    let written = || {
        error
            .location()
            .map_or_else(String::new, |place| word_at(text, place.line(), place.column()))
    };
    let (message, help) = match error {
        Error::SerdeUnknownField { field, expected, .. } => (
            format!("unknown key `{}`", short(field)),
            Some(suggestion(field, expected)),
        ),
        Error::SerdeUnknownVariant { variant, expected, .. } => (
            format!("`{}` is not known here", short(variant)),
            Some(suggestion(variant, expected)),
        ),
        Error::SerdeMissingField { field, .. } => (format!("the key `{field}` is missing"), None),
        Error::DuplicateMappingKey { key: Some(key), .. } => {
            (format!("the key `{}` is written twice", short(key)), None)
        }
        Error::DuplicateMappingKey { key: None, .. } => ("a key is written twice".to_owned(), None),
        Error::InvalidBooleanStrict { .. } => (format!("expected true or false, found `{}`", written()), None),
        Error::InvalidScalar { ty, .. } => (format!("expected {}, found `{}`", kind(ty), written()), None),
        Error::NullIntoString { .. } => (
            "a value is missing".to_owned(),
            Some("write it, or remove the key".to_owned()),
        ),
        Error::SerdeInvalidType {
            unexpected, expected, ..
        }
        | Error::SerdeInvalidValue {
            unexpected, expected, ..
        } => (format!("expected {expected}, found {}", short(unexpected)), None),
        Error::Message { msg, .. } => (msg.clone(), None),
        Error::Unexpected { expected, .. } => (format!("expected {}", node(expected)), None),
        Error::Eof { .. } => ("the file is empty or ends too early".to_owned(), None),
        Error::MultipleDocuments { .. } => ("several documents in one file; only one is read".to_owned(), None),
        Error::MergeKeyNotAllowed { .. } => (
            "merge keys (`<<`) are not used here".to_owned(),
            Some(WRITE_OUT.to_owned()),
        ),
        Error::UnsupportedTag { .. } => ("tags (`!name`) are not used here".to_owned(), None),
        Error::UnknownAnchor { .. } => aliases(),
        Error::Budget { breach, .. } => budget(breach),
        other => (
            without_place(&other.render_with_formatter(&serde_yaml::UserMessageFormatter)),
            None,
        ),
    };
    let mistake = match error.location() {
        Some(place) if place.line() > 0 => Mistake::at(file, text, place, message),
        _ => Mistake::about(file, message),
    };
    match help {
        Some(help) => mistake.with_help(help),
        None => mistake,
    }
}

const WRITE_OUT: &str = "write the value out where it counts";

fn aliases() -> (String, Option<String>) {
    (
        "anchors and aliases are not used here".to_owned(),
        Some(WRITE_OUT.to_owned()),
    )
}

fn budget(breach: &BudgetBreach) -> (String, Option<String>) {
    match breach {
        BudgetBreach::Aliases { .. } | BudgetBreach::Anchors { .. } => aliases(),
        BudgetBreach::Depth { .. } => (format!("nested deeper than {MAX_DEPTH} levels"), None),
        BudgetBreach::Nodes { .. } | BudgetBreach::Events { .. } => (
            format!("more than {MAX_NODES} values in one file"),
            Some("split it".to_owned()),
        ),
        BudgetBreach::Documents { .. } => ("several documents in one file; only one is read".to_owned(), None),
        _ => ("the file is larger than its reader allows".to_owned(), None),
    }
}

/// The nearest known name, and all of them: a list is short and saves the way to the manual.
fn suggestion(written: &str, known: &[&str]) -> String {
    let all = match known {
        [] => "no name is known here".to_owned(),
        names => format!("known here: {}", names.join(", ")),
    };
    match nearest(written, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`? {all}"),
        None => all,
    }
}

/// A Rust number type in words.
fn kind(ty: &str) -> String {
    let range = |low: &str, high: u64| format!("a whole number from {low} to {high}");
    match ty {
        "u8" => range("0", u64::from(u8::MAX)),
        "u16" => range("0", u64::from(u16::MAX)),
        "u32" => range("0", u64::from(u32::MAX)),
        "u64" | "usize" | "u128" => "a whole number, not negative".to_owned(),
        "i8" | "i16" | "i32" | "i64" | "isize" | "i128" => "a whole number".to_owned(),
        "f32" | "f64" => "a number".to_owned(),
        "bool" => "true or false".to_owned(),
        other => other.to_owned(),
    }
}

/// The library's word for a YAML node in ours.
fn node(expected: &str) -> String {
    match expected {
        "mapping start" => "keys and values (`key: value`)".to_owned(),
        "sequence start" => "a list (`[a, b]`, or lines that begin with `-`)".to_owned(),
        "string scalar" | "scalar" => "a single value".to_owned(),
        other => other.to_owned(),
    }
}

/// The value that stands at a place, up to what ends a plain one.
fn word_at(text: &str, line: u64, column: u64) -> String {
    let index = |number: u64| usize::try_from(number.saturating_sub(1)).unwrap_or(usize::MAX);
    let line = text.lines().nth(index(line)).unwrap_or("");
    let rest: String = line.chars().skip(index(column)).collect();
    let end = rest
        .find([',', ']', '}'])
        .or_else(|| rest.find(" #"))
        .unwrap_or(rest.len());
    short(rest.get(..end).unwrap_or("").trim())
}

fn short(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or("")),
        None => text.to_owned(),
    }
}

fn without_place(rendered: &str) -> String {
    rendered
        .rsplit_once(" at line ")
        .map_or(rendered, |(message, _)| message)
        .to_owned()
}
