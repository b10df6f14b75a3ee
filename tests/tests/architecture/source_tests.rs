//! The parser sees through what people write; the rules trust it.

use super::{SourceFile, follow};

fn parse(text: &str) -> SourceFile {
    SourceFile::parse("gateway/src/link/accept.rs", "fairlead_gateway", text).unwrap()
}

fn mentioned(text: &str, path: &str) -> bool {
    parse(text).shipped().any(|m| m.path.join("::") == path)
}

#[test]
fn a_file_knows_its_module() {
    let module = |name: &str| SourceFile::parse(name, "x", "").unwrap().module.join("::");
    assert_eq!(module("gateway/src/lib.rs"), "x");
    assert_eq!(module("gateway/src/main.rs"), "x");
    assert_eq!(module("gateway/src/link/mod.rs"), "x::link");
    assert_eq!(module("gateway/src/link.rs"), "x::link");
    assert_eq!(module("gateway/src/endpoint/ssh/auth.rs"), "x::endpoint::ssh::auth");
}

#[test]
fn relative_paths_are_made_absolute() {
    assert!(mentioned(
        "fn f() { super::super::session::open(); }",
        "fairlead_gateway::session::open"
    ));
    assert!(mentioned(
        "fn f() { self::inner::open(); }",
        "fairlead_gateway::link::accept::inner::open"
    ));
    assert!(mentioned(
        "mod inner { fn f() { super::x::y(); } }",
        "fairlead_gateway::link::accept::x::y"
    ));
}

#[test]
fn use_lines_and_aliases_are_followed() {
    assert!(mentioned(
        "use crate::{access, session::{self, table as t}};",
        "fairlead_gateway::session"
    ));
    assert!(mentioned(
        "use crate::session::table as t; fn f() { t::cut(); }",
        "fairlead_gateway::session::table::cut"
    ));
    assert!(mentioned(
        "use tokio as rt; fn f() { rt::spawn(async {}); }",
        "tokio::spawn"
    ));
    assert!(mentioned(
        "use std::time::SystemTime; fn f() { let _ = SystemTime::now(); }",
        "std::time::SystemTime::now"
    ));
    assert!(mentioned(
        "fn f() { use tokio::task; task::spawn(async {}); }",
        "tokio::task::spawn"
    ));
    assert!(mentioned(
        "mod inner { use super::*; fn f() { t::x(); } } use crate::session as t;",
        "fairlead_gateway::session::x"
    ));
}

#[test]
fn types_and_function_values_count() {
    assert!(mentioned(
        "struct S { t: crate::session::Table }",
        "fairlead_gateway::session::Table"
    ));
    assert!(mentioned(
        "fn f() { g(std::time::Instant::now) }",
        "std::time::Instant::now"
    ));
    assert!(mentioned(
        "fn f<T: crate::session::Open>() {}",
        "fairlead_gateway::session::Open"
    ));
}

#[test]
fn macros_are_looked_into() {
    assert!(mentioned(
        "fn f() { select! { x = y => { tokio::spawn(z); } } }",
        "tokio::spawn"
    ));
    assert!(mentioned(
        "use tokio::spawn; fn f() { m!(a, spawn(b)); }",
        "tokio::spawn"
    ));
    let file = parse("fn f() { m!(start.elapsed()); }");
    assert!(file.shipped_calls().any(|c| c.name == "elapsed"));
}

#[test]
fn child_modules_are_not_foreign_crates() {
    assert!(mentioned(
        "mod russh; fn f() { russh::x(); }",
        "fairlead_gateway::link::accept::russh::x"
    ));
    assert!(mentioned("mod russh; fn f() { ::russh::x(); }", "russh::x"));
}

#[test]
fn comments_strings_and_local_names_do_not_count() {
    let file = parse("// tokio::spawn\nfn f() { let spawn = \"tokio::spawn\"; g(spawn); }");
    assert_eq!(file.mentions, []);
}

#[test]
fn test_code_is_told_apart() {
    assert!(!mentioned(
        "#[cfg(test)] mod tests { fn f() { tokio::spawn(x); } }",
        "tokio::spawn"
    ));
    assert!(!mentioned(
        "#[tokio::test] async fn f() { tokio::spawn(x); }",
        "tokio::spawn"
    ));
    assert!(!mentioned("#[cfg(all(test, unix))] use tokio::spawn;", "tokio::spawn"));
    assert!(mentioned(
        "#[cfg(not(test))] fn f() { tokio::spawn(x); }",
        "tokio::spawn"
    ));
    assert!(mentioned(
        "#[cfg(any(test, unix))] fn f() { tokio::spawn(x); }",
        "tokio::spawn"
    ));
    assert_eq!(
        parse("#[cfg(test)] mod tests;").test_modules,
        [["fairlead_gateway", "link", "accept", "tests"]]
    );
}

#[test]
fn lines_are_those_of_the_file() {
    let file = parse("\n\nfn f() {\n    tokio::spawn(x);\n}\n");
    assert_eq!(file.mentions.iter().map(|m| m.line).collect::<Vec<_>>(), [4]);
}

#[test]
fn a_glob_above_a_place_reaches_it() {
    let file = parse("use crate::*;");
    let glob = file.shipped().next().unwrap();
    assert!(glob.reaches("fairlead_gateway::session"));
    assert!(!glob.reaches("fairlead_wire"));
}

#[test]
fn re_exports_are_followed() {
    let face = SourceFile::parse(
        "gateway/src/link/mod.rs",
        "fairlead_gateway",
        "mod roster; pub use roster::{Roster, Seat as Place}; use roster::Row;",
    )
    .unwrap();
    let exports = face.exports.into_iter().collect();
    let followed = |path: &str| {
        let mut path = path.split("::").map(str::to_owned).collect();
        follow(&mut path, &exports);
        path.join("::")
    };
    assert_eq!(
        followed("fairlead_gateway::link::Roster::new"),
        "fairlead_gateway::link::roster::Roster::new"
    );
    assert_eq!(
        followed("fairlead_gateway::link::Place"),
        "fairlead_gateway::link::roster::Seat"
    );
    assert_eq!(followed("fairlead_gateway::link::Row"), "fairlead_gateway::link::Row");
}
