//! Between rooms of one crate: which way the arrows run, and what only one room may touch.

use std::collections::BTreeSet;

use crate::breach::{Breach, assert_none};
use crate::source::SourceFile;
use crate::tree;

/// What a room may name.
struct RoomRule {
    room: String,
    /// Where given, the only places of its own crate.
    only: &'static [&'static str],
    never: Vec<String>,
}

/// Rooms with a fixed place. Arrows run endpoint -> session -> link -> access.
fn fixed_rooms() -> Vec<RoomRule> {
    let rule = |room: &str, only: &'static [&'static str], never: &[&str]| RoomRule {
        room: room.to_owned(),
        only,
        never: never.iter().map(|n| (*n).to_owned()).collect(),
    };
    vec![
        rule(
            "fairlead_gateway::session",
            &["fairlead_gateway::access", "fairlead_gateway::link::roster"],
            &[],
        ),
        rule(
            "fairlead_gateway::link",
            &[],
            &[
                "fairlead_gateway::session",
                "fairlead_gateway::endpoint",
                "fairlead_gateway::access::gate",
                "fairlead_policy",
            ],
        ),
        rule(
            "fairlead_gateway::access",
            &[],
            &[
                "fairlead_gateway::link",
                "fairlead_gateway::session",
                "fairlead_gateway::endpoint",
                "fairlead_gateway::admin",
            ],
        ),
    ]
}

/// The kinds: a folder each below the gateway's `endpoint`. A kind knows no other kind.
fn kind_rooms(kinds: &BTreeSet<String>) -> Vec<RoomRule> {
    let one = |kind: &String| {
        let others = kinds
            .iter()
            .filter(|other| *other != kind)
            .map(|other| format!("fairlead_gateway::endpoint::{other}"));
        let rooms = ["link", "admin", "store", "config"]
            .iter()
            .map(|room| format!("fairlead_gateway::{room}"));
        RoomRule {
            room: format!("fairlead_gateway::endpoint::{kind}"),
            only: &[],
            never: others.chain(rooms).collect(),
        }
    };
    kinds.iter().map(one).collect()
}

/// Faces that first bytes do not lead to: callers with an ALPN of their own come by the port of the links.
const BY_ALPN: &[&str] = &["peer"];

/// A kind that is not in the table is never served.
fn check_kinds(files: &[SourceFile]) -> Vec<Breach> {
    let named = |kind: &str| {
        let path = format!("fairlead_gateway::endpoint::{kind}::KIND");
        files
            .iter()
            .any(|f| f.name == "gateway/src/endpoint/mod.rs" && f.shipped().any(|m| m.path.join("::") == path))
    };
    let absent = kinds_of(files)
        .into_iter()
        .filter(|kind| !BY_ALPN.contains(&kind.as_str()) && !named(kind));
    absent
        .map(|kind| Breach {
            file: format!("gateway/src/endpoint/{kind}"),
            line: 0,
            found: format!("`{kind}::KIND`"),
            rule: "every folder of endpoint is a kind with a line in KINDS (gateway/src/endpoint/mod.rs)".into(),
        })
        .collect()
}

fn kinds_of(files: &[SourceFile]) -> BTreeSet<String> {
    let below = files
        .iter()
        .filter_map(|f| f.name.strip_prefix("gateway/src/endpoint/"));
    below
        .filter_map(|rest| rest.split_once('/'))
        .map(|(kind, _)| kind.to_owned())
        .collect()
}

fn check_room(rule: &RoomRule, file: &SourceFile) -> Vec<Breach> {
    if !file.is_in(&rule.room) {
        return Vec::new();
    }
    let own_crate = rule.room.split("::").next().unwrap_or_default();
    let mut breaches = Vec::new();
    for mention in file.shipped() {
        let allowed = rule.only.iter().any(|o| mention.reaches(o)) || mention.reaches(&rule.room);
        let below_root = mention.path.len() > 1 && mention.path[0] == own_crate;
        let stray = !rule.only.is_empty() && (is_everything(mention, own_crate) || (below_root && !allowed));
        let rule_text = if stray {
            format!("{} may name {} only", rule.room, rule.only.join(", "))
        } else if let Some(never) = rule.never.iter().find(|n| mention.reaches(n)) {
            format!("{} may not name {never}", rule.room)
        } else {
            continue;
        };
        breaches.push(Breach {
            file: file.name.clone(),
            line: mention.line,
            found: mention.text(),
            rule: rule_text,
        });
    }
    breaches
}

/// `use crate::*` brings in everything: never what a rule with a list of places means.
fn is_everything(mention: &crate::source::Mention, own_crate: &str) -> bool {
    mention.glob && mention.path.len() == 1 && mention.path[0] == own_crate
}

/// A foreign crate and the only modules of ours that may name it.
const PLACES: &[(&str, &[&str], &str)] = &[
    (
        "russh",
        &["fairlead_agent::sshd", "fairlead_gateway::endpoint::ssh"],
        "SSH is spoken in two rooms only",
    ),
    (
        "russh_sftp",
        &["fairlead_agent::sshd"],
        "files are served in one room only",
    ),
    (
        "pty_process",
        &["fairlead_agent::sshd"],
        "terminals belong to the agent's SSH server",
    ),
    (
        "rusqlite",
        &["fairlead_gateway::store"],
        "state is reached through the store's trait",
    ),
    ("axum", &["fairlead_gateway::admin"], "HTTP is served in one room only"),
    (
        "cel_interpreter",
        &["fairlead_policy"],
        "expressions are compiled and bounded in one place",
    ),
    (
        "postgres_protocol",
        &["fairlead_agent::inject::postgres"],
        "passwords are answered with in one place",
    ),
    (
        "rumqttc",
        &["fairlead_gateway::events"],
        "brokers are told in one room only",
    ),
    ("rcgen", &["fairlead_identity"], "certificates are issued in one place"),
    (
        "x509_parser",
        &["fairlead_identity"],
        "certificates are read in one place",
    ),
    (
        "systemd",
        &["fairlead_runtime::notify", "fairlead_runtime::telemetry"],
        "the service manager is told in one place",
    ),
    (
        "fairlead_gateway",
        &["fairlead_gateway", "fairlead::quickstart"],
        "only quickstart runs a gateway inside the command line",
    ),
    (
        "fairlead_agent",
        &[
            "fairlead_agent",
            "fairlead::quickstart",
            "fairlead::login",
            "fairlead::call",
            "fairlead::connect",
        ],
        "only login, calls and connect dial as an agent does, only quickstart runs one inside the command line",
    ),
];

/// A module of data that another crate may name although its crate stands in [`PLACES`]: the requests and answers of
/// administration are written once, for the gateway and the command line.
const LENT: &[(&str, &str)] = &[("fairlead_gateway::admin::api", "fairlead")];

fn is_lent(mention: &crate::source::Mention, file: &SourceFile) -> bool {
    let lent = |(module, borrower): &(&str, &str)| {
        let depth = module.split("::").count();
        mention.path.len() >= depth && mention.reaches(module) && file.is_in(borrower)
    };
    LENT.iter().any(lent)
}

fn check_places(file: &SourceFile) -> Vec<Breach> {
    let mut breaches = Vec::new();
    for (foreign, places, why) in PLACES {
        if places.iter().any(|place| file.is_in(place)) {
            continue;
        }
        for mention in file.shipped().filter(|m| m.reaches(foreign) && !is_lent(m, file)) {
            let rule = format!("{why}: {}", places.join(", "));
            breaches.push(Breach {
                file: file.name.clone(),
                line: mention.line,
                found: mention.text(),
                rule,
            });
        }
    }
    breaches
}

const TLS_BUILDERS: &[&str] = &[
    "builder",
    "builder_with_provider",
    "builder_with_details",
    "builder_with_protocol_versions",
];

/// TLS settings are built in `fairlead_identity::tls`, with the provider passed and never installed for the process.
fn check_tls(file: &SourceFile) -> Vec<Breach> {
    if file.is_in("fairlead_identity::tls") {
        return Vec::new();
    }
    let builds = |m: &crate::source::Mention| {
        TLS_BUILDERS
            .iter()
            .any(|b| m.ends_with(&["ClientConfig", b]) || m.ends_with(&["ServerConfig", b]))
    };
    let built = file.shipped().filter(|m| builds(m)).map(|m| (m.line, m.text()));
    let installed = file
        .shipped_calls()
        .filter(|c| c.name == "install_default")
        .map(|c| (c.line, "`install_default`".to_owned()));
    let rule = "TLS settings are built in fairlead_identity::tls, their provider passed by hand";
    built
        .chain(installed)
        .map(|(line, found)| Breach {
            file: file.name.clone(),
            line,
            found,
            rule: rule.into(),
        })
        .collect()
}

#[test]
fn rooms_name_what_they_may() {
    let files = tree::product();
    let rules: Vec<RoomRule> = fixed_rooms().into_iter().chain(kind_rooms(&kinds_of(&files))).collect();
    let breaches: Vec<Breach> = rules
        .iter()
        .flat_map(|rule| files.iter().flat_map(|file| check_room(rule, file)))
        .collect();
    assert_none(&breaches);
}

#[test]
fn every_kind_is_in_the_table() {
    assert_none(&check_kinds(&tree::product()));
}

#[test]
fn crates_with_one_place_stay_there() {
    assert_none(&tree::product().iter().flat_map(check_places).collect::<Vec<_>>());
}

#[test]
fn tls_settings_are_built_in_one_place() {
    assert_none(&tree::product().iter().flat_map(check_tls).collect::<Vec<_>>());
}

#[cfg(test)]
mod proofs {
    use super::{
        Breach, SourceFile, check_kinds, check_places, check_room, check_tls, fixed_rooms, kind_rooms, kinds_of,
    };

    fn file(name: &str, library: &str, text: &str) -> SourceFile {
        SourceFile::parse(name, library, text).unwrap()
    }

    fn in_gateway(name: &str, text: &str) -> Vec<String> {
        let file = file(name, "fairlead_gateway", text);
        let kinds = ["ssh".to_owned(), "tcp".to_owned()].into();
        let rules = fixed_rooms().into_iter().chain(kind_rooms(&kinds));
        rules
            .flat_map(|rule| check_room(&rule, &file))
            .map(|b: Breach| b.to_string())
            .collect()
    }

    #[test]
    fn an_arrow_that_points_up_is_found() {
        for (name, text) in [
            ("gateway/src/link/accept.rs", "use crate::session::Table;"),
            (
                "gateway/src/link/accept.rs",
                "fn f() { super::super::endpoint::driver::run(); }",
            ),
            ("gateway/src/link/accept.rs", "use fairlead_policy::Decision;"),
            ("gateway/src/link/accept.rs", "use crate::access::gate::Gate;"),
            ("gateway/src/access/gate.rs", "use crate::link::roster::Roster;"),
            ("gateway/src/access/gate.rs", "use crate::*;"),
            ("gateway/src/access.rs", "use crate::admin;"),
            ("gateway/src/session/open.rs", "use crate::link::quic::Link;"),
            ("gateway/src/session/open.rs", "use crate::store::Store;"),
            ("gateway/src/session/open.rs", "use crate::*;"),
            ("gateway/src/endpoint/ssh/mod.rs", "use super::tcp::relay;"),
            ("gateway/src/endpoint/ssh/mod.rs", "use crate::config::Config;"),
            ("gateway/src/endpoint/ssh/auth.rs", "use crate::store::Users;"),
            ("gateway/src/endpoint/tcp/mod.rs", "use crate::endpoint::ssh;"),
        ] {
            let found = in_gateway(name, &format!("\n{text}"));
            assert_eq!(found.len(), 1, "{name} {text}: {found:?}");
            assert!(found[0].starts_with(&format!("{name}:2: ")), "{found:?}");
        }
    }

    #[test]
    fn an_arrow_that_points_down_is_let_be() {
        for (name, text) in [
            (
                "gateway/src/session/open.rs",
                "use crate::{access::Permit, link::roster::Roster}; use super::table;",
            ),
            (
                "gateway/src/link/accept.rs",
                "use crate::access::permit::Permit; use super::roster;",
            ),
            (
                "gateway/src/endpoint/ssh/mod.rs",
                "use super::Face; use crate::{access, session, endpoint::ssh::auth};",
            ),
            (
                "gateway/src/lib.rs",
                "use crate::{access, admin, endpoint, link, session, store};",
            ),
        ] {
            assert_eq!(in_gateway(name, text), Vec::<String>::new(), "{name} {text}");
        }
    }

    #[test]
    fn kinds_are_the_folders_of_endpoint() {
        let names = [
            "gateway/src/endpoint/mod.rs",
            "gateway/src/endpoint/ssh/mod.rs",
            "gateway/src/endpoint/tcp/bridge.rs",
        ];
        let files: Vec<SourceFile> = names.iter().map(|n| file(n, "fairlead_gateway", "")).collect();
        assert_eq!(kinds_of(&files), ["ssh".to_owned(), "tcp".to_owned()].into());
    }

    #[test]
    fn a_kind_without_a_line_is_found() {
        let files = [
            file(
                "gateway/src/endpoint/mod.rs",
                "fairlead_gateway",
                "mod ssh; mod tcp; pub const KINDS: &[Kind] = &[ssh::KIND];",
            ),
            file("gateway/src/endpoint/ssh/mod.rs", "fairlead_gateway", ""),
            file("gateway/src/endpoint/tcp/mod.rs", "fairlead_gateway", ""),
        ];
        let found: Vec<String> = check_kinds(&files).into_iter().map(|b| b.file).collect();
        assert_eq!(found, ["gateway/src/endpoint/tcp"]);
    }

    #[test]
    fn a_foreign_crate_out_of_its_place_is_found() {
        let bad = file(
            "edge-agent/src/service/dial.rs",
            "fairlead_agent",
            "use russh as ssh;\nfn f(c: ssh::Channel) {}",
        );
        let lines: Vec<usize> = check_places(&bad).iter().map(|b| b.line).collect();
        assert_eq!(lines, [1, 2]);
        let bad = file("cli/src/login.rs", "fairlead", "use fairlead_gateway::store::Store;");
        assert_eq!(check_places(&bad).len(), 1);
        let wide = "use fairlead_gateway::admin::api;\nuse fairlead_gateway::admin::Live;\nuse fairlead_gateway::*;";
        let lines = |place: &str, library: &str| {
            let found = check_places(&file(place, library, wide));
            found.iter().map(|b| b.line).collect::<Vec<_>>()
        };
        assert_eq!(lines("cli/src/users.rs", "fairlead"), [2, 3]);
        assert_eq!(lines("edge-agent/src/lib.rs", "fairlead_agent"), [1, 2, 3]);
        let good = file("edge-agent/src/sshd/mod.rs", "fairlead_agent", "use russh::server;");
        assert_eq!(check_places(&good), []);
    }

    #[test]
    fn tls_settings_elsewhere_are_found() {
        let text = "use rustls::ServerConfig;\nfn f() { ServerConfig::builder(); }\nfn g() { p.install_default(); }";
        let lines = |name: &str, library: &str| {
            check_tls(&file(name, library, text))
                .iter()
                .map(|b| b.line)
                .collect::<Vec<_>>()
        };
        assert_eq!(lines("gateway/src/link/accept.rs", "fairlead_gateway"), [2, 3]);
        assert_eq!(
            lines("foundation/identity/src/tls.rs", "fairlead_identity"),
            Vec::<usize>::new()
        );
    }
}
