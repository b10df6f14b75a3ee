//! JSON Schema of the YAML files, for editors, and every unknown key of a file at once.

use crate::fields::MAX_WORDS;
use crate::mistake::{Mistake, Report, at_most};
use crate::shape::{self, Holds, Key, Shape};
use crate::suggest;
use crate::yaml::{self, Data, Node};
use serde_json::{Map, Value, json};

/// A kind of YAML file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Document {
    /// A file of access policy.
    Access,
    /// agent.yaml.
    Agent,
    /// gateway.yaml.
    Gateway,
}

impl Document {
    fn shape(self) -> &'static Shape {
        match self {
            Self::Access => &shape::ACCESS,
            Self::Agent => &shape::AGENT,
            Self::Gateway => &shape::GATEWAY,
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::Access => "Fairlead access policy",
            Self::Agent => "Fairlead agent.yaml",
            Self::Gateway => "Fairlead gateway.yaml",
        }
    }

    /// Its JSON Schema, draft 2020-12, on many lines. An editor can find more with it than a typing mistake in a key, and less
    /// than the program that reads the file: names, expressions and addresses are checked there.
    #[must_use]
    pub fn json_schema(self) -> String {
        let mut schema = map(self.shape());
        if let Value::Object(fields) = &mut schema {
            fields.insert(
                "$schema".to_owned(),
                json!("https://json-schema.org/draft/2020-12/schema"),
            );
            fields.insert("title".to_owned(), json!(self.title()));
        }
        format!("{schema:#}\n")
    }

    /// Every key of `text` that this kind of file does not have, with its place; none where the text is no YAML.
    #[must_use]
    pub fn unknown_keys(self, file: &str, text: &str) -> Vec<Mistake> {
        let mut reading = Report::new(file, text);
        let Some(node) = yaml::parse(&mut reading) else {
            return Vec::new();
        };
        let mut report = Report::new(file, text);
        unknown(&node, self.shape(), &mut report);
        at_most(report.finish().0)
    }
}

/// Depth is bounded by the shape, which does not contain itself.
fn unknown(node: &Node, shape: &Shape, report: &mut Report<'_>) {
    let Data::Map(entries) = &node.data else { return };
    for (key, value) in entries {
        let Data::Text(name) = &key.data else { continue };
        let Some(known) = shape.keys.iter().find(|known| known.name == name) else {
            let shown: String = name.chars().take(64).collect();
            let help = suggest::help(name, &shape.names());
            report.mistake(key.at, format!("unknown key `{shown}` in {}", shape.what), Some(help));
            continue;
        };
        match (known.holds, &value.data) {
            (Holds::Map(inner), _) => unknown(value, inner, report),
            (Holds::Maps(inner), Data::List(items)) => items.iter().for_each(|item| unknown(item, inner, report)),
            _ => {}
        }
    }
}

fn map(shape: &Shape) -> Value {
    let properties: Map<String, Value> = shape
        .keys
        .iter()
        .map(|key| (key.name.to_owned(), property(key)))
        .collect();
    let required: Vec<&str> = shape
        .keys
        .iter()
        .filter(|key| key.required)
        .map(|key| key.name)
        .collect();
    let mut schema = json!({ "type": "object", "additionalProperties": false, "properties": properties });
    if let (Value::Object(fields), false) = (&mut schema, required.is_empty()) {
        fields.insert("required".to_owned(), json!(required));
    }
    schema
}

fn property(key: &Key) -> Value {
    let mut schema = value(key.holds);
    if let (Value::Object(fields), false) = (&mut schema, key.about.is_empty()) {
        fields.insert("description".to_owned(), json!(key.about));
    }
    schema
}

fn value(holds: Holds) -> Value {
    let texts = || json!({ "type": "array", "maxItems": MAX_WORDS, "items": { "type": "string" } });
    match holds {
        Holds::Version => json!({ "const": 1 }),
        Holds::Bool => json!({ "type": "boolean" }),
        Holds::Text => json!({ "type": "string" }),
        Holds::Short(bytes) => json!({ "type": "string", "minLength": 1, "maxLength": bytes }),
        Holds::OneOf(words) => json!({ "enum": words }),
        Holds::Count(least) => json!({ "type": "integer", "minimum": least, "maximum": u32::MAX }),
        Holds::Upto(most) => json!({ "type": "integer", "minimum": 0, "maximum": most }),
        Holds::Length => json!({ "type": "string", "pattern": "^(?=.)([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?$" }),
        Holds::Texts => texts(),
        Holds::SomeOf(words) => {
            json!({ "type": "array", "minItems": 1, "maxItems": MAX_WORDS, "items": { "enum": words } })
        }
        Holds::Labels => json!({ "type": "object", "additionalProperties": { "type": "string" } }),
        Holds::Map(shape) => map(shape),
        Holds::Maps(shape) => json!({ "type": "array", "items": map(shape) }),
        Holds::TextOrTexts => json!({ "anyOf": [{ "type": "string" }, texts()] }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::ACTS;

    #[test]
    fn acts_of_the_schema_are_those_of_the_table() {
        let action = shape::RULE.keys.iter().find(|key| key.name == "actions").unwrap();
        let Holds::SomeOf(words) = action.holds else { panic!() };
        assert_eq!(
            words,
            ACTS.iter().flat_map(|(_, acts)| *acts).copied().collect::<Vec<_>>()
        );
    }

    #[test]
    fn every_unknown_key_is_told_at_once() {
        let text = "version: 1\nendpoint: []\nendpoints:\n- url: a\n  upstrem: {}\n  upstream: { ur: a, allow_cidrs: [] }\n  rules: [ { nam: x } ]\ndata: 1\n";
        let told: Vec<String> = Document::Agent
            .unknown_keys("a.yaml", text)
            .iter()
            .map(|m| format!("{}:{} {}", m.line, m.column, m.message))
            .collect();
        assert_eq!(
            told,
            [
                "2:1 unknown key `endpoint` in this file",
                "5:3 unknown key `upstrem` in an endpoint",
                "6:15 unknown key `ur` in upstream",
                "7:14 unknown key `nam` in a rule",
                "8:1 unknown key `data` in this file",
            ]
        );
        assert!(Document::Agent.unknown_keys("a.yaml", "a: [").is_empty());
        assert!(
            Document::Gateway
                .unknown_keys("g.yaml", "version: 1\ndomain: a\n")
                .is_empty()
        );
    }
}
