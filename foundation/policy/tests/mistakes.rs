//! What authors are told, word for word: `mistakes/access.yaml` is wrong in every way we know, `mistakes/access.txt` is what
//! the loader says about it. After a change, `FAIRLEAD_WRITE_DOCS=1 cargo nextest run -p fairlead-policy` renews the text;
//! read the difference.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

use fairlead_policy::{AccessDocument, AccessPolicy, Source};
use std::path::PathBuf;

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/mistakes")
        .join(name)
}

fn agrees(name: &str, told: &str) {
    if std::env::var_os("FAIRLEAD_WRITE_DOCS").is_some() {
        std::fs::write(file(name), told).unwrap();
    }
    let written = std::fs::read_to_string(file(name)).unwrap_or_default();
    assert!(written == told, "{name} differs; the loader now says:\n{told}");
}

#[test]
fn every_mistake_is_told_in_its_place() {
    let text = std::fs::read_to_string(file("access.yaml")).unwrap();
    let mistakes = AccessPolicy::compile(&[Source {
        name: "access.yaml".to_owned(),
        text,
    }])
    .unwrap_err();
    agrees(
        "access.txt",
        &mistakes.iter().map(|m| format!("{m}\n")).collect::<String>(),
    );
}

#[test]
fn doubtful_rules_load_with_a_warning() {
    let text = std::fs::read_to_string(file("doubtful.yaml")).unwrap();
    let (_, warnings) = AccessPolicy::compile(&[Source {
        name: "doubtful.yaml".to_owned(),
        text,
    }])
    .unwrap();
    agrees(
        "doubtful.txt",
        &warnings.iter().map(|w| format!("{w}\n")).collect::<String>(),
    );
}

#[test]
fn a_document_can_be_read_without_its_rules() {
    let document = AccessDocument::read("a.yaml", "version: 1\nrules:\n- {name: a}\n- {name: b}\n").unwrap();
    let lines: Vec<u32> = document
        .rules
        .iter()
        .map(fairlead_policy::RuleAsWritten::line)
        .collect();
    assert_eq!(lines, [3, 4]);
    assert!(AccessDocument::read("a.yaml", "version: 2\n").is_err());
}
