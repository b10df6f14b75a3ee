//! YAML text to a tree in which every node knows its place.
//!
//! The tree is read by hand (document.rs) instead of by a derived `Deserialize`, because a derived reader stops at its first
//! error and we owe the author all of them. Kept out on purpose: anchors, aliases, merge keys, several documents. A policy
//! is read by people who audit it; what stands in a line is what counts.

use crate::mistake::{At, Report};
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_yaml::options::{DuplicateKeyPolicy, MergeKeyPolicy};
use serde_yaml::{Location, Spanned};
use std::fmt;

/// Nesting of lists and maps; the deepest legal file needs 5.
const MAX_DEPTH: usize = 32;
/// Scalars, lists and maps in one file. 10,000 rules of the usual size need about 200,000.
const MAX_NODES: usize = 250_000;

/// One YAML value and its place.
#[derive(Clone, Debug, Default)]
pub(crate) struct Node {
    pub(crate) at: At,
    pub(crate) data: Data,
}

#[derive(Clone, Debug, Default)]
pub(crate) enum Data {
    #[default]
    Null,
    Bool(bool),
    Int(i64),
    /// Numbers that no field of ours takes: fractions and integers beyond 64 bits.
    OtherNumber,
    Text(String),
    List(Vec<Node>),
    Map(Vec<(Node, Node)>),
}

impl Node {
    /// What the value is, for "expected …, found …".
    pub(crate) fn kind(&self) -> &'static str {
        match &self.data {
            Data::Null => "nothing",
            Data::Bool(_) => "a true/false value",
            Data::Int(_) | Data::OtherNumber => "a number",
            Data::Text(_) => "text",
            Data::List(_) => "a list",
            Data::Map(_) => "a map",
        }
    }
}

/// Parses one file; on failure the report holds why. The size of `report.text()` is the caller's to bound.
pub(crate) fn parse(report: &mut Report<'_>) -> Option<Node> {
    let text = report.text();
    if let Some(offset) = text.find('\0') {
        report.mistake(place_of(text, offset), "a NUL byte: this is not a text file", None);
        return None;
    }
    match serde_yaml::from_str_with_options::<Node>(text, options()) {
        Ok(node) => Some(node),
        Err(error) => {
            let (message, help) = explain(&error);
            report.mistake(error.location().map_or_else(At::default, at), message, help);
            None
        }
    }
}

fn options() -> serde_yaml::Options {
    serde_yaml::options! {
        budget: serde_yaml::budget! {
            max_depth: MAX_DEPTH,
            flow_nesting_limit: MAX_DEPTH,
            max_nodes: MAX_NODES,
            max_events: 3 * MAX_NODES,
            max_aliases: 0,
            max_anchors: 0,
            max_documents: 1,
        },
        // Both are found by document.rs, which reports every one of them.
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        merge_keys: MergeKeyPolicy::AsOrdinary,
        strict_booleans: true,
        reject_unsupported_tags: true,
        with_snippet: false,
    }
}

/// The parser's error in our words where a budget or a refused feature is behind it.
fn explain(error: &serde_yaml::Error) -> (String, Option<String>) {
    use serde_yaml::Error;
    use serde_yaml::budget::BudgetBreach;
    let plain = |text: &str| (text.to_owned(), None);
    match error.without_snippet() {
        Error::Budget { breach, .. } => match breach {
            BudgetBreach::Aliases { .. } | BudgetBreach::Anchors { .. } => (
                "anchors and aliases are not used in this file".to_owned(),
                Some("write the value out where it counts".to_owned()),
            ),
            BudgetBreach::Depth { .. } => (format!("nested deeper than {MAX_DEPTH} levels"), None),
            BudgetBreach::Nodes { .. } | BudgetBreach::Events { .. } => (
                format!("more than {MAX_NODES} values in one file"),
                Some("split it".to_owned()),
            ),
            BudgetBreach::Documents { .. } => plain("several documents in one file; only one is read"),
            _ => plain("the file is larger than its parser allows"),
        },
        Error::MultipleDocuments { .. } => plain("several documents in one file; only one is read"),
        Error::UnknownAnchor { .. } => plain("anchors and aliases are not used in this file"),
        Error::Eof { .. } => plain("the file is empty or ends too early"),
        other => {
            let text = other.render_with_formatter(&serde_yaml::UserMessageFormatter);
            (
                text.rsplit_once(" at line ")
                    .map_or(text.as_str(), |(message, _)| message)
                    .to_owned(),
                None,
            )
        }
    }
}

fn at(location: Location) -> At {
    At {
        line: u32::try_from(location.line()).unwrap_or(0),
        column: u32::try_from(location.column()).unwrap_or(0),
        offset: location.span().byte_offset().and_then(|o| usize::try_from(o).ok()),
    }
}

/// Line and column of a byte offset.
pub(crate) fn place_of(text: &str, offset: usize) -> At {
    let before = text.get(..offset).unwrap_or("");
    let line_start = before.rfind('\n').map_or(0, |i| i + 1);
    let line = before.bytes().filter(|b| *b == b'\n').count() + 1;
    let column = before.get(line_start..).unwrap_or("").chars().count() + 1;
    At {
        line: u32::try_from(line).unwrap_or(0),
        column: u32::try_from(column).unwrap_or(0),
        offset: Some(offset),
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Data>::deserialize(deserializer)?;
        Ok(Self {
            at: at(spanned.referenced),
            data: spanned.value,
        })
    }
}

impl<'de> Deserialize<'de> for Data {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(DataVisitor)
    }
}

struct DataVisitor;

impl<'de> Visitor<'de> for DataVisitor {
    type Value = Data;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E>(self) -> Result<Data, E> {
        Ok(Data::Null)
    }

    fn visit_none<E>(self) -> Result<Data, E> {
        Ok(Data::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Data, D::Error> {
        Data::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Data, E> {
        Ok(Data::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Data, E> {
        Ok(Data::Int(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Data, E> {
        Ok(i64::try_from(value).map_or(Data::OtherNumber, Data::Int))
    }

    fn visit_i128<E>(self, _: i128) -> Result<Data, E> {
        Ok(Data::OtherNumber)
    }

    fn visit_u128<E>(self, _: u128) -> Result<Data, E> {
        Ok(Data::OtherNumber)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Data, E> {
        Ok(Data::OtherNumber)
    }

    fn visit_str<E>(self, value: &str) -> Result<Data, E> {
        Ok(Data::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Data, E> {
        Ok(Data::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Data, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element::<Node>()? {
            list.push(item);
        }
        Ok(Data::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Data, A::Error> {
        let mut map = Vec::new();
        while let Some(key) = entries.next_key::<Node>()? {
            map.push((key, entries.next_value::<Node>()?));
        }
        Ok(Data::Map(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(text: &str) -> Node {
        let mut report = Report::new("t.yaml", text);
        let node = parse(&mut report);
        node.unwrap_or_else(|| panic!("{:?}", report.finish().0))
    }

    fn refused(text: &str) -> String {
        let mut report = Report::new("t.yaml", text);
        assert!(parse(&mut report).is_none(), "{text:?}");
        report.finish().0.remove(0).to_string()
    }

    #[test]
    fn every_node_knows_its_place() {
        let Data::Map(entries) = tree("a: 1\nbé: [x, 'y']\n").data else {
            panic!()
        };
        let (key, value) = &entries[1];
        assert_eq!((key.at.line, key.at.column, key.at.offset), (2, 1, Some(5)));
        let Data::List(items) = &value.data else { panic!() };
        assert_eq!(
            (items[1].at.line, items[1].at.column, items[1].at.offset),
            (2, 9, Some(14))
        );
    }

    #[test]
    fn refused_features_are_named() {
        for (text, said) in [
            ("a: &x 1\nb: *x\n", "1:"),
            ("a: 1\n---\nb: 2\n", "several documents"),
            ("a:\n\t- b\n", "2:2: tabs"),
            ("a\0b", "1:2: a NUL byte"),
            ("a: [1", "1:"),
            ("a: !!python/object x", "unsupported tag"),
        ] {
            let told = refused(text);
            assert!(told.contains(said), "{text:?}: {told}");
        }
    }

    #[test]
    fn duplicates_and_merge_keys_reach_the_reader() {
        let Data::Map(entries) = tree("a: 1\na: 2\n<<: {b: 1}\n").data else {
            panic!()
        };
        assert_eq!(entries.len(), 3);
    }

    #[test]
    fn a_byte_order_mark_does_not_shift_places() {
        let Data::Map(entries) = tree("\u{feff}a: 1\nb: yes\n").data else {
            panic!()
        };
        assert_eq!((entries[0].0.at.line, entries[0].0.at.column), (1, 1));
        assert!(matches!(&entries[1].1.data, Data::Text(t) if t == "yes"));
    }
}
