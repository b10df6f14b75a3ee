//! Between crates: what each may depend on, which versions the lock file may hold.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;

use crate::breach::{Breach, assert_none};
use crate::tree::{self, MEMBERS};

/// What a crate may depend on.
struct CrateRule {
    package: &'static str,
    /// Where given, the only direct dependencies.
    only: Option<&'static [&'static str]>,
    /// Never in its tree, however deep.
    never: &'static [&'static str],
}

const PROGRAMS: &[&str] = &[
    "fairlead-gateway",
    "fairlead-agent",
    "fairlead",
    "fairlead-pages",
    "fairlead-tests",
];

const RULES: &[CrateRule] = &[
    CrateRule {
        package: "fairlead-wire",
        only: Some(&["bytes", "prost", "thiserror"]),
        never: &["tokio", "quinn", "rustls"],
    },
    CrateRule {
        package: "fairlead-protocol",
        only: Some(&["bytes", "thiserror"]),
        never: &["tokio"],
    },
    CrateRule {
        package: "fairlead-identity",
        only: None,
        never: &[
            "tokio",
            "quinn",
            "quinn-proto",
            "fairlead-policy",
            "fairlead-wire",
            "fairlead-protocol",
            "fairlead-runtime",
        ],
    },
    CrateRule {
        package: "fairlead-policy",
        only: None,
        never: &[
            "tokio",
            "quinn",
            "quinn-proto",
            "fairlead-wire",
            "fairlead-protocol",
            "fairlead-runtime",
        ],
    },
    CrateRule {
        package: "fairlead-runtime",
        only: None,
        never: &[
            "fairlead-wire",
            "fairlead-policy",
            "fairlead-identity",
            "fairlead-protocol",
            "russh",
            "cel",
            "rusqlite",
        ],
    },
    CrateRule {
        package: "fairlead-agent",
        only: None,
        never: &["fairlead-gateway", "fairlead", "fairlead-tests", "axum", "rusqlite"],
    },
    CrateRule {
        package: "fairlead-gateway",
        only: None,
        never: &["fairlead-agent", "fairlead", "fairlead-tests"],
    },
    CrateRule {
        package: "fairlead",
        only: None,
        never: &["fairlead-tests"],
    },
];

/// One version each: a second one is a second TLS, QUIC, WebSocket or crypto world.
const SINGLE: &[&str] = &[
    "aws-lc-rs",
    "aws-lc-sys",
    "quinn",
    "quinn-proto",
    "quinn-udp",
    "ring",
    "rustls",
    "rustls-pki-types",
    "rustls-webpki",
    "russh",
    "ssh-key",
    "tokio",
    "tokio-rustls",
    "tokio-tungstenite",
    "tungstenite",
];

/// Not in the lock file at all.
const ABSENT: &[&str] = &[
    "openssl",
    "openssl-sys",
    "native-tls",
    "tokio-native-tls",
    "rsa",
    "boring",
    "boring-sys",
    "s2n-quic",
];

/// The platforms we ship. `ring` stands in the lock file for WebAssembly (quinn-proto names it there), so what counts is
/// that no tree of these holds it.
const SHIPPED: &[&str] = &[
    "x86_64-unknown-linux-gnu",
    "aarch64-unknown-linux-gnu",
    "armv7-unknown-linux-gnueabihf",
];

fn check_crate(rule: &CrateRule, direct: &BTreeSet<String>, whole: &BTreeSet<String>) -> Vec<Breach> {
    let folder = MEMBERS
        .iter()
        .find(|m| m.package == rule.package)
        .map_or("?", |m| m.folder);
    let breach = |found: &str, text: String| Breach {
        file: format!("{folder}/Cargo.toml"),
        line: 0,
        found: format!("`{found}`"),
        rule: text,
    };
    let mut breaches = Vec::new();
    if let Some(only) = rule.only {
        let others = direct.iter().filter(|d| !only.contains(&d.as_str()));
        breaches.extend(others.map(|d| breach(d, format!("{} may depend on {} only", rule.package, only.join(", ")))));
    }
    let foundation = !PROGRAMS.contains(&rule.package);
    let never = rule.never.iter().chain(if foundation { PROGRAMS } else { &[] });
    breaches.extend(never.filter(|n| whole.contains(**n)).map(|n| {
        breach(
            n,
            format!(
                "{} may not have it in its tree (`cargo tree -p {} -i {n}` says how it comes in)",
                rule.package, rule.package
            ),
        )
    }));
    breaches
}

/// Packages below `package`, with every feature on, dev-dependencies left out.
fn dependencies(package: &str, more: &[&str]) -> BTreeSet<String> {
    let mut arguments = vec![
        "tree",
        "--locked",
        "--all-features",
        "-e",
        "normal,build",
        "--prefix",
        "none",
        "--format",
        "{p}",
        "-p",
        package,
    ];
    arguments.extend(more);
    let mut names = cargo(&arguments);
    names.remove(package);
    names
}

fn cargo(arguments: &[&str]) -> BTreeSet<String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(arguments)
        .current_dir(tree::root())
        .output()
        .expect("cargo can be run");
    assert!(
        output.status.success(),
        "cargo {}: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8(output.stdout).expect("cargo prints text");
    text.lines()
        .filter_map(|line| line.split_whitespace().next())
        .map(str::to_owned)
        .collect()
}

/// Package -> versions, from the text of a lock file.
fn locked_versions(lock: &str) -> BTreeMap<String, BTreeSet<String>> {
    let value = |line: &str, key: &str| {
        line.strip_prefix(key)
            .map(|v| v.trim_matches([' ', '=', '"']).to_owned())
    };
    let mut versions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut name = String::new();
    for line in lock.lines() {
        if let Some(found) = value(line, "name = ") {
            name = found;
        } else if let Some(version) = value(line, "version = ") {
            versions.entry(name.clone()).or_default().insert(version);
        }
    }
    versions
}

fn check_lock(lock: &str) -> Vec<Breach> {
    let versions = locked_versions(lock);
    let breach = |name: &str, rule: &str| Breach {
        file: "Cargo.lock".into(),
        line: 0,
        found: format!(
            "`{name}` {}",
            versions
                .get(name)
                .map(|v| v.iter().cloned().collect::<Vec<_>>().join(", "))
                .unwrap_or_default()
        ),
        rule: rule.into(),
    };
    let second = SINGLE.iter().filter(|n| versions.get(**n).is_some_and(|v| v.len() > 1));
    let present = ABSENT.iter().filter(|n| versions.contains_key(**n));
    second
        .map(|n| breach(n, "one version only (`cargo tree -d` says who asks for which)"))
        .chain(present.map(|n| {
            breach(
                n,
                "TLS is rustls, the provider aws-lc-rs, keys P-256 and Ed25519; find a feature that leaves it out",
            )
        }))
        .collect()
}

fn check_manifest(file: &str, text: &str) -> Vec<Breach> {
    let breach = |line: usize, found: &str, rule: &str| Breach {
        file: file.into(),
        line,
        found: format!("`{found}`"),
        rule: rule.into(),
    };
    let mut breaches = Vec::new();
    let mut section = String::new();
    let mut inherits_lints = false;
    for (number, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.starts_with('[') {
            section = line.trim_matches(['[', ']']).to_owned();
        } else if section == "lints" && line.replace(' ', "") == "workspace=true" {
            inherits_lints = true;
        } else if section.ends_with("dependencies")
            && !line.is_empty()
            && !line.replace(' ', "").contains("workspace=true")
        {
            breaches.push(breach(
                number + 1,
                line,
                "versions stand once, in [workspace.dependencies]: write `NAME.workspace = true`",
            ));
        }
    }
    if !inherits_lints {
        breaches.push(breach(0, "[lints]", "every crate says `[lints] workspace = true`"));
    }
    breaches
}

#[test]
fn crates_depend_on_what_they_may() {
    let mut breaches = Vec::new();
    for rule in RULES {
        breaches.extend(check_crate(
            rule,
            &dependencies(rule.package, &["--depth", "1"]),
            &dependencies(rule.package, &[]),
        ));
    }
    assert_none(&breaches);
}

#[test]
fn a_forbidden_dependency_is_found() {
    let set = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<BTreeSet<_>>();
    let found = check_crate(
        &RULES[0],
        &set(&["bytes", "uuid"]),
        &set(&["bytes", "uuid", "tokio", "fairlead-gateway"]),
    );
    let text: Vec<String> = found.iter().map(ToString::to_string).collect();
    assert!(
        text[0].starts_with("foundation/wire/Cargo.toml: `uuid`: fairlead-wire may depend on"),
        "{text:?}"
    );
    assert!(
        text[1].contains("`tokio`") && text[2].contains("`fairlead-gateway`"),
        "{text:?}"
    );
    assert_eq!(text.len(), 3);
}

#[test]
fn the_tree_that_cargo_prints_is_read() {
    let found = dependencies("fairlead-wire", &[]);
    assert!(found.contains("prost") && !found.contains("fairlead-wire"), "{found:?}");
}

#[test]
fn the_lock_file_holds_one_tls_quic_and_provider() {
    assert_none(&check_lock(
        &fs::read_to_string(tree::root().join("Cargo.lock")).unwrap(),
    ));
}

#[test]
fn a_second_or_banned_package_in_the_lock_file_is_found() {
    let lock = "[[package]]\nname = \"rustls\"\nversion = \"0.22.4\"\n[[package]]\nname = \"rustls\"\nversion = \"0.23.46\"\n[[package]]\nname = \"openssl-sys\"\nversion = \"0.9.1\"\n";
    let found = check_lock(lock);
    assert_eq!(found.len(), 2, "{found:?}");
    assert_eq!(found[0].found, "`rustls` 0.22.4, 0.23.46");
    assert_eq!(found[1].found, "`openssl-sys` 0.9.1");
}

#[test]
fn no_shipped_platform_has_a_second_provider() {
    let mut arguments = vec![
        "tree",
        "--locked",
        "--workspace",
        "--all-features",
        "-e",
        "normal,build",
        "--prefix",
        "none",
        "--format",
        "{p}",
    ];
    SHIPPED.iter().for_each(|target| arguments.extend(["--target", target]));
    let names = cargo(&arguments);
    assert!(names.contains("aws-lc-rs"), "the tree was not read: {names:?}");
    let banned: Vec<&&str> = ["ring"].iter().chain(ABSENT).filter(|n| names.contains(**n)).collect();
    assert!(banned.is_empty(), "a second crypto provider is in the tree: {banned:?}");
}

#[test]
fn manifests_take_versions_and_lints_from_the_workspace() {
    let mut breaches = Vec::new();
    for member in MEMBERS {
        let file = format!("{}/Cargo.toml", member.folder);
        let text = fs::read_to_string(tree::root().join(&file)).unwrap();
        breaches.extend(check_manifest(&file, &text));
    }
    assert_none(&breaches);
}

#[test]
fn a_manifest_with_its_own_version_or_lints_is_found() {
    let found = check_manifest(
        "x/Cargo.toml",
        "[package]\nversion = \"1\"\n[dependencies]\nbytes.workspace = true\nuuid = \"1\"\n",
    );
    assert_eq!(found.len(), 2, "{found:?}");
    assert_eq!(found[0].line, 5);
    assert!(found[1].rule.contains("[lints]"));
}
