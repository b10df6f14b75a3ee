//! Reading maps, lists and words out of a tree, with a mistake for everything that is not what it should be.

use crate::mistake::{At, Report};
use crate::shape::Shape;
use crate::suggest;
use crate::yaml::{Data, Node};

/// Longest name of a rule or a test, in bytes.
pub(crate) const MAX_NAME_BYTES: usize = 128;
/// Most entries of a list of words: expressions, sites, actions, groups.
pub(crate) const MAX_WORDS: usize = 256;

/// Text and its place.
#[derive(Clone, Debug)]
pub(crate) struct Word {
    pub(crate) text: String,
    pub(crate) at: At,
}

/// The fields of a map with known keys.
pub(crate) struct Fields<'n> {
    what: &'static str,
    at: At,
    known: Vec<(&'n str, &'n Node)>,
}

impl<'n> Fields<'n> {
    /// Reports keys that are unknown, repeated or no text. `None` when `node` is no map at all.
    pub(crate) fn of(node: &'n Node, shape: &'static Shape, report: &mut Report<'_>) -> Option<Self> {
        let (what, keys) = (shape.what, shape.names());
        let Data::Map(entries) = &node.data else {
            report.mistake(
                node.at,
                format!("{what} is a map, not {}", node.kind()),
                Some(format!("keys: {}", keys.join(", "))),
            );
            return None;
        };
        let mut known: Vec<(&str, &Node)> = Vec::new();
        for (key, value) in entries {
            match &key.data {
                Data::Text(text) if text == "<<" => {
                    report.mistake(
                        key.at,
                        "merge keys are not used in this file",
                        Some("write the values out where they count".into()),
                    );
                }
                Data::Text(text) if !keys.contains(&text.as_str()) => {
                    let shown: String = text.chars().take(64).collect();
                    report.mistake(
                        key.at,
                        format!("unknown key `{shown}` in {what}"),
                        Some(suggest::help(text, &keys)),
                    );
                }
                Data::Text(text) if known.iter().any(|(before, _)| before == text) => {
                    report.mistake(key.at, format!("`{text}` is written twice in {what}"), None);
                }
                Data::Text(text) => known.push((text, value)),
                _ => report.mistake(key.at, format!("a key of {what} is text, not {}", key.kind()), None),
            }
        }
        Some(Self {
            what,
            at: node.at,
            known,
        })
    }

    pub(crate) fn optional(&mut self, key: &str) -> Option<&'n Node> {
        self.known
            .iter()
            .find(|(known, _)| *known == key)
            .map(|(_, node)| *node)
    }

    pub(crate) fn required(&mut self, key: &str, report: &mut Report<'_>) -> Option<&'n Node> {
        let found = self.optional(key);
        if found.is_none() {
            report.mistake(self.at, format!("{} needs `{key}`", self.what), None);
        }
        found
    }
}

/// A list of anything.
pub(crate) fn list<'n>(node: &'n Node, key: &str, report: &mut Report<'_>) -> &'n [Node] {
    match &node.data {
        Data::List(items) => items,
        _ => {
            report.mistake(node.at, format!("`{key}` is a list, not {}", node.kind()), None);
            &[]
        }
    }
}

/// A list of words; `None` when it is none, or when one of them is no word.
pub(crate) fn words(node: &Node, key: &str, report: &mut Report<'_>) -> Option<Vec<Word>> {
    let Data::List(items) = &node.data else {
        list(node, key, report);
        return None;
    };
    if items.len() > MAX_WORDS {
        let message = format!("`{key}` has {} entries; at most {MAX_WORDS} are read", items.len());
        report.mistake(node.at, message, None);
        return None;
    }
    let words: Vec<Option<Word>> = items.iter().map(|item| word(item, key, report)).collect();
    words.into_iter().collect()
}

/// Text. Numbers and true/false are not taken for it: `sites: [007]` would not be what it looks like.
pub(crate) fn word(node: &Node, key: &str, report: &mut Report<'_>) -> Option<Word> {
    match &node.data {
        Data::Text(text) => Some(Word {
            text: text.clone(),
            at: node.at,
        }),
        Data::Bool(_) | Data::Int(_) | Data::OtherNumber => {
            report.mistake(
                node.at,
                format!("`{key}` takes text, not {}", node.kind()),
                Some("put it in quotes".to_owned()),
            );
            None
        }
        Data::Null => {
            report.mistake(node.at, format!("`{key}` has no value"), None);
            None
        }
        Data::List(_) | Data::Map(_) => {
            report.mistake(node.at, format!("`{key}` takes text, not {}", node.kind()), None);
            None
        }
    }
}

/// The name of a rule or a test.
pub(crate) fn name(node: &Node, report: &mut Report<'_>) -> Option<Word> {
    let written = word(node, "name", report)?;
    let length = written.text.len();
    if length == 0 || length > MAX_NAME_BYTES || written.text.chars().any(char::is_control) {
        report.mistake(
            node.at,
            format!("a name has 1 to {MAX_NAME_BYTES} bytes on one line"),
            None,
        );
        return None;
    }
    Some(written)
}

/// `true` or `false`; `yes` and `on` are text.
pub(crate) fn boolean(node: &Node, key: &str, report: &mut Report<'_>) -> Option<bool> {
    match node.data {
        Data::Bool(value) => Some(value),
        _ => {
            report.mistake(node.at, format!("`{key}` is true or false, not {}", node.kind()), None);
            None
        }
    }
}
