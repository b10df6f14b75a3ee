//! What documents promise about code and code about documents: metrics are listed, tests that are named exist.

use std::collections::BTreeSet;
use std::fs;

use syn::visit::{self, Visit};

use crate::source::{attributes_of, is_test};
use crate::tree::{self, MEMBERS};

/// Names of metrics registered in the shipped code of a file, as scrapes show them.
fn registered_metrics(text: &str) -> BTreeSet<String> {
    let mut reader = Metrics(BTreeSet::new());
    reader.visit_file(&syn::parse_file(text).expect("the sources parse"));
    reader.0
}

struct Metrics(BTreeSet<String>);

impl<'ast> Visit<'ast> for Metrics {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        if !attributes_of(item).iter().any(is_test) {
            visit::visit_item(self, item);
        }
    }

    fn visit_lit_str(&mut self, text: &'ast syn::LitStr) {
        let value = text.value();
        let libraries: BTreeSet<&str> = MEMBERS.iter().map(|m| m.library).collect();
        let named = value
            .strip_prefix("fairlead_")
            .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'));
        if named && !libraries.contains(value.as_str()) {
            self.0.insert(value);
        }
    }
}

/// Everything between backticks in a document that looks like a name.
fn quoted(document: &str, is_name: impl Fn(&str) -> bool) -> BTreeSet<String> {
    let quoted = document.split('`').skip(1).step_by(2);
    quoted
        .map(|name| name.split('{').next().unwrap_or_default().to_owned())
        .filter(|name| is_name(name))
        .collect()
}

/// What the document lists and what the code registers. Counters are registered without the `_total` that scrapes show.
fn undocumented(code: &BTreeSet<String>, listed: &BTreeSet<String>) -> Vec<String> {
    let shown = |name: &str| listed.contains(name) || listed.contains(&format!("{name}_total"));
    let exists = |name: &str| code.contains(name) || name.strip_suffix("_total").is_some_and(|n| code.contains(n));
    let missing = code
        .iter()
        .filter(|n| !shown(n))
        .map(|n| format!("{n} is registered but not listed"));
    let stale = listed
        .iter()
        .filter(|n| !exists(n))
        .map(|n| format!("{n} is listed but not registered"));
    missing.chain(stale).collect()
}

/// Names of functions a document calls tests: lower case with at least two underscores.
fn named_tests(document: &str) -> BTreeSet<String> {
    quoted(document, |name| {
        name.matches('_').count() >= 2
            && name
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    })
}

fn document(name: &str) -> String {
    fs::read_to_string(tree::root().join("docs").join(name)).expect("the document is there")
}

fn source_texts() -> Vec<String> {
    let read = |path| fs::read_to_string(tree::root().join(path)).expect("a source file is text");
    tree::files(".", "rs").into_iter().map(read).collect()
}

#[test]
fn metrics_are_those_that_the_document_lists() {
    let mut code = BTreeSet::new();
    for member in MEMBERS.iter().filter(|m| m.package != "fairlead-tests") {
        for path in tree::files(&format!("{}/src", member.folder), "rs") {
            code.extend(registered_metrics(
                &fs::read_to_string(tree::root().join(path)).expect("a source file is text"),
            ));
        }
    }
    let listed = quoted(&document("metrics.md"), |name| name.starts_with("fairlead_"));
    let wrong = undocumented(&code, &listed);
    assert!(wrong.is_empty(), "docs/metrics.md: {}", wrong.join("; "));
}

#[test]
fn tests_that_the_threat_model_names_exist() {
    let named = named_tests(&document("threat-model.md"));
    assert!(!named.is_empty(), "no test names were found in docs/threat-model.md");
    let texts = source_texts();
    let gone: Vec<&String> = named
        .iter()
        .filter(|name| !texts.iter().any(|text| text.contains(&format!("fn {name}("))))
        .collect();
    assert!(
        gone.is_empty(),
        "docs/threat-model.md names tests that do not exist: {gone:?}"
    );
}

#[test]
fn a_metric_that_one_side_lacks_is_found() {
    let code = registered_metrics(
        "fn f(r: R) { r.register(\"fairlead_links\", \"h\", m); log(\"fairlead_gateway\"); }\n#[cfg(test)] mod t { const X: &str = \"fairlead_things\"; }",
    );
    assert_eq!(code, ["fairlead_links".to_owned()].into());
    let listed = quoted("| `fairlead_links_total{kind}` | `fairlead_gone` |", |name| {
        name.starts_with("fairlead_")
    });
    assert_eq!(
        undocumented(&code, &listed),
        ["fairlead_gone is listed but not registered"]
    );
    assert_eq!(
        undocumented(&code, &BTreeSet::new()),
        ["fairlead_links is registered but not listed"]
    );
}

#[test]
fn named_tests_are_told_from_other_code() {
    let found = named_tests("`agent.yaml` `state_dir` `ssh -J` `one_key_wins_always`");
    assert_eq!(found, ["one_key_wins_always".to_owned()].into());
}
