//! JSON Schema of the YAML files: the same keys as the programs read, and what editors would say about our own files.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use fairlead_policy::Document;
use fairlead_runtime::config_file::Mistake;
use fairlead_tests::clients;
use serde_json::{Value, json};

/// Reads documents as a program for JSON Schema does; python3-jsonschema and python3-yaml of Debian.
const VALIDATOR: &str = "
import json, sys, yaml
from jsonschema import Draft202012Validator
schema = json.load(open(sys.argv[1]))
Draft202012Validator.check_schema(schema)
validator = Draft202012Validator(schema)
for path in sys.argv[2:]:
    for document in yaml.safe_load_all(open(path)):
        for error in validator.iter_errors(document):
            print(f'{path}: {list(error.absolute_path)}: {error.message[:200]}')
";

/// Debian's own, else the first on the path; the one that has the modules.
async fn python() -> &'static str {
    for program in ["/usr/bin/python3", "python3"] {
        let mut command = clients::stock(program);
        command.args(["-c", "import jsonschema, yaml"]);
        if clients::run(command).await.code() == Some(0) {
            return program;
        }
    }
    panic!("this test needs python3-jsonschema and python3-yaml");
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// What the schema of this kind says against these texts.
async fn complaints(document: Document, texts: &[String]) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    let schema = dir.path().join("schema.json");
    std::fs::write(&schema, document.json_schema()).unwrap();
    let mut command = clients::stock(python().await);
    command.args(["-c", VALIDATOR]).arg(schema);
    for (number, text) in texts.iter().enumerate() {
        let path = dir.path().join(format!("{number}.yaml"));
        std::fs::write(&path, text).unwrap();
        command.arg(path);
    }
    let finished = clients::run(command).await.succeeded();
    finished.text().lines().map(str::to_owned).collect()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap()
}

fn cases() -> Vec<String> {
    let folder = std::fs::read_dir(root().join("foundation/policy/cases")).unwrap();
    let policies = folder.map(|entry| {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        let (_, policy) = text.split_once("policy: |\n").unwrap();
        let (policy, _) = policy.split_once("\ncases:").unwrap();
        policy
            .lines()
            .map(|line| line.strip_prefix("  ").unwrap_or(line))
            .map(|line| format!("{line}\n"))
            .collect()
    });
    policies.collect()
}

#[tokio::test]
async fn the_shipped_files_and_the_cases_are_right_by_their_schemas() {
    let uncommented = |text: &str| {
        let lines = text
            .lines()
            .map(|line| line.strip_prefix("# ").filter(|l| l.contains(": ")).unwrap_or(line));
        lines.map(|line| format!("{line}\n")).collect::<String>()
    };
    let mut access = cases();
    assert!(access.len() >= 12);
    access.push(read("gateway/src/access.yaml"));
    for (document, texts) in [
        (Document::Access, access),
        (Document::Agent, vec![read("edge-agent/src/agent.yaml")]),
        (
            Document::Gateway,
            vec![uncommented("version: 1\ndomain: gw.example.com\n"), filled_gateway()],
        ),
    ] {
        let said = complaints(document, &texts).await;
        assert!(said.is_empty(), "{document:?}: {said:#?}");
    }
}

/// The template as `init` writes it.
fn filled_gateway() -> String {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("gateway.yaml");
    fairlead_gateway::init::init(&file, Some("gw.example.com"), std::time::SystemTime::now())
        .map(drop)
        .unwrap_or_default();
    std::fs::read_to_string(&file).unwrap()
}

#[tokio::test]
async fn what_the_loader_refuses_for_its_shape_the_schema_refuses_too() {
    let rule = "version: 1\nrules:\n- {name: a, sites: ['*'], effect: allow}\n";
    for (wrong, said) in [
        (format!("{rule}rulez: []\n"), "'rulez' was unexpected"),
        (rule.replace("effect: allow", "effect: alow"), "'alow' is not one of"),
        (rule.replace("sites: ['*'], ", ""), "'sites' is a required property"),
        (
            rule.replace("effect: allow", "effect: allow, limits: {session: 8x}"),
            "does not match",
        ),
        (
            rule.replace("effect: allow", "effect: allow, actions: [shel]"),
            "'shel' is not one of",
        ),
        (
            rule.replace("effect: allow", "effect: allow, enforce: 'no'"),
            "is not of type 'boolean'",
        ),
        (rule.replace("version: 1", "version: 2"), "1 was expected"),
        (
            format!("{rule}tests:\n- {{name: t, caller: {{nam: a}}, endpoint: 'ssh://h', expect: allow}}\n"),
            "'nam' was unexpected",
        ),
    ] {
        let complaints = complaints(Document::Access, std::slice::from_ref(&wrong)).await;
        assert!(
            complaints.iter().any(|one| one.contains(said)),
            "{wrong}: {complaints:?}"
        );
        let source = fairlead_policy::Source {
            name: "a.yaml".into(),
            text: wrong.clone(),
        };
        assert!(fairlead_policy::AccessPolicy::compile(&[source]).is_err(), "{wrong}");
    }
}

type Check = fn(&str) -> Vec<Mistake>;

/// Every map of a schema: the keys on the way to it (a number is the first item of a list), and its own.
fn maps(schema: &Value, way: &[String], found: &mut Vec<(Vec<String>, BTreeSet<String>)>) {
    if let Some(items) = schema.get("items") {
        return maps(items, &[way, &["0".to_owned()]].concat(), found);
    }
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else {
        return;
    };
    found.push((way.to_vec(), properties.keys().cloned().collect()));
    for (key, inner) in properties {
        maps(inner, &[way, std::slice::from_ref(key)].concat(), found);
    }
}

#[test]
fn the_schemas_have_the_keys_that_the_programs_read() {
    let kinds: [(Document, Check); 2] = [
        (Document::Agent, |text| {
            fairlead_agent::config::check("f", text).err().unwrap_or_default()
        }),
        (Document::Gateway, |text| {
            fairlead_gateway::config::check("f", text).err().unwrap_or_default()
        }),
    ];
    for (document, check) in kinds {
        let schema: Value = serde_json::from_str(&document.json_schema()).unwrap();
        let mut found = Vec::new();
        maps(&schema, &[], &mut found);
        assert!(found.len() >= 4, "{found:?}");
        for (way, keys) in found {
            // Rules are read by the language itself; its own tests compare.
            if way.contains(&"rules".to_owned()) {
                continue;
            }
            // A key that the schema knows and holds nothing a program takes: an unknown one would be told as such.
            for key in &keys {
                let told = shown(&check(&nested(&way, key)));
                assert!(
                    !told.contains(&format!("unknown key `{key}`")),
                    "{document:?} {way:?}: {told}"
                );
            }
        }
    }
}

fn nested(way: &[String], key: &str) -> String {
    let innermost = json!({ key: { "zz": [[]] } });
    way.iter()
        .rev()
        .fold(innermost, |inner, step| {
            if step == "0" {
                json!([inner])
            } else {
                json!({ step: inner })
            }
        })
        .to_string()
}

fn shown(mistakes: &[Mistake]) -> String {
    mistakes.iter().map(|mistake| format!("{mistake}\n")).collect()
}

#[test]
fn all_unknown_keys_of_a_file_are_told_in_one_run() {
    let told = shown(
        &fairlead_agent::config::check(
            "agent.yaml",
            "version: 1\nendpoint: []\nauditt: {}\naudit: { fil: x }\n",
        )
        .unwrap_err(),
    );
    for place in [
        "agent.yaml:2:1: unknown key `endpoint`",
        "agent.yaml:3:1: unknown key `auditt`",
        "agent.yaml:4:10: unknown key `fil`",
    ] {
        assert!(told.contains(place), "{told}");
    }
    let told =
        shown(&fairlead_gateway::config::check("g.yaml", "version: 1\ndomian: a\nlimits: { link: 3 }\n").unwrap_err());
    for place in [
        "g.yaml:2:1: unknown key `domian`",
        "g.yaml:3:11: unknown key `link`",
        "did you mean `domain`?",
    ] {
        assert!(told.contains(place), "{told}");
    }
}
