//! What every file keeps, tests and fuzz targets included: its name says something, it is not too long, it has no `unsafe`.

use std::fs;
use std::path::Path;

use proc_macro2::{TokenStream, TokenTree};

use crate::breach::{Breach, assert_none};
use crate::source::SourceFile;
use crate::tree;

/// Names that say nothing about what lies behind them.
const EMPTY_NAMES: &[&str] = &[
    "common", "core", "helper", "helpers", "manager", "managers", "misc", "util", "utils",
];

const MAX_LINES: usize = 500;

fn check_name(path: &Path) -> Vec<Breach> {
    let parts = path.iter().filter_map(|part| part.to_str());
    let empty = parts.filter(|part| EMPTY_NAMES.contains(&part.trim_end_matches(".rs")));
    let rule = format!(
        "no file, folder or module is called one of {}: name the knowledge it holds",
        EMPTY_NAMES.join(", ")
    );
    empty
        .map(|part| Breach {
            file: path.display().to_string(),
            line: 0,
            found: format!("`{part}`"),
            rule: rule.clone(),
        })
        .collect()
}

fn check_inline_modules(file: &SourceFile) -> Vec<Breach> {
    let empty = file
        .inline_modules
        .iter()
        .filter(|(name, _)| EMPTY_NAMES.contains(&name.as_str()));
    empty
        .map(|(name, line)| Breach {
            file: file.name.clone(),
            line: *line,
            found: format!("`mod {name}`"),
            rule: "name the knowledge the module holds".into(),
        })
        .collect()
}

fn check_length(path: &Path, text: &str) -> Vec<Breach> {
    let lines = text.lines().count();
    if lines <= MAX_LINES {
        return Vec::new();
    }
    let rule = format!("at most {MAX_LINES} lines: split by what it decides (tests go to tests.rs beside it)");
    vec![Breach {
        file: path.display().to_string(),
        line: MAX_LINES + 1,
        found: format!("{lines} lines"),
        rule,
    }]
}

fn check_unsafe(path: &Path, text: &str) -> Vec<Breach> {
    let tokens: TokenStream = text
        .parse()
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut lines = Vec::new();
    unsafe_lines(tokens, &mut lines);
    let rule = "unsafe code is forbidden: a platform need becomes its own small crate, reviewed by itself";
    lines
        .into_iter()
        .map(|line| Breach {
            file: path.display().to_string(),
            line,
            found: "`unsafe`".into(),
            rule: rule.into(),
        })
        .collect()
}

fn unsafe_lines(tokens: TokenStream, lines: &mut Vec<usize>) {
    for token in tokens {
        match token {
            TokenTree::Group(group) => unsafe_lines(group.stream(), lines),
            TokenTree::Ident(ident) if ident == "unsafe" => lines.push(ident.span().start().line),
            _ => {}
        }
    }
}

fn in_every_file(check: impl Fn(&Path, &str) -> Vec<Breach>) -> Vec<Breach> {
    let read = |path: &Path| fs::read_to_string(tree::root().join(path)).expect("a source file is text");
    tree::files(".", "rs")
        .iter()
        .flat_map(|path| check(path, &read(path)))
        .collect()
}

#[test]
fn names_say_what_is_inside() {
    let mut breaches = in_every_file(|path, _| check_name(path));
    breaches.extend(tree::product().iter().flat_map(check_inline_modules));
    assert_none(&breaches);
}

#[test]
fn files_are_at_most_500_lines() {
    assert_none(&in_every_file(check_length));
}

#[test]
fn there_is_no_unsafe_code() {
    assert_none(&in_every_file(check_unsafe));
}

#[test]
fn the_workspace_forbids_unsafe_code() {
    let manifest = fs::read_to_string(tree::root().join("Cargo.toml")).unwrap();
    assert!(
        manifest.lines().any(|line| line.trim() == "unsafe_code = \"forbid\""),
        "Cargo.toml: [workspace.lints.rust] must forbid unsafe_code"
    );
}

#[cfg(test)]
mod proofs {
    use std::path::Path;

    use super::{MAX_LINES, SourceFile, check_inline_modules, check_length, check_name, check_unsafe};

    #[test]
    fn an_empty_name_is_found() {
        assert_eq!(check_name(Path::new("gateway/src/utils.rs")).len(), 1);
        assert_eq!(check_name(Path::new("foundation/common/src/lib.rs")).len(), 1);
        assert_eq!(check_name(Path::new("gateway/src/endpoint/mod.rs")), []);
        let file = SourceFile::parse("gateway/src/lib.rs", "fairlead_gateway", "\nmod helpers { fn f() {} }").unwrap();
        assert_eq!(check_inline_modules(&file)[0].line, 2);
    }

    #[test]
    fn a_long_file_is_found() {
        assert_eq!(check_length(Path::new("x.rs"), &"\n".repeat(MAX_LINES)), []);
        assert_eq!(check_length(Path::new("x.rs"), &"\n".repeat(MAX_LINES + 1)).len(), 1);
    }

    #[test]
    fn unsafe_code_is_found_and_the_word_is_not() {
        let found = check_unsafe(
            Path::new("x.rs"),
            "// unsafe\nfn f() {\n    m!(unsafe { g() }, \"unsafe\")\n}",
        );
        assert_eq!(found.iter().map(|b| b.line).collect::<Vec<_>>(), [3]);
    }
}
