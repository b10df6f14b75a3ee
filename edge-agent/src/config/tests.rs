use std::collections::BTreeSet;

use super::credentials::WrittenCredential;
use super::upstream::WrittenUpstream;
use super::upstream_tls::WrittenTls;
use super::*;

#[test]
fn the_installed_file_is_good() {
    let config = check("agent.yaml", TEMPLATE).unwrap();
    assert!(
        config.endpoints.is_empty(),
        "nothing is reachable before the customer says so"
    );
}

#[test]
fn all_mistakes_are_told_at_once_with_their_lines() {
    let text = "version: 1\nendpoints:\n  - url: ssh://pump-7.plant-7.internal\n    upstream: { url: \"udp://x:1\" }\n  - url: ssh://UP_per.plant-7\n    upstream: { url: \"tcp://127.0.0.1:22\", allow_cidrs: [10.0.0.0/33] }\n";
    let mistakes = check("agent.yaml", text).unwrap_err();
    let lines: Vec<u32> = mistakes.iter().map(|mistake| mistake.line).collect();
    assert_eq!(lines, [4, 5, 6], "{mistakes:#?}");
}

#[test]
fn a_misspelt_key_is_an_error_with_a_suggestion() {
    let mistakes = check("agent.yaml", "version: 1\nendpoint: []\n").unwrap_err();
    let text = mistakes[0].to_string();
    assert!(
        text.starts_with("agent.yaml:2:") && text.contains("endpoints"),
        "{text}"
    );
}

#[test]
fn an_odd_spelling_of_an_address_and_one_outside_its_ranges_are_mistakes() {
    let listed = |upstream: &str| {
        let text = format!("version: 1\nendpoints:\n  - url: tcp://a:1\n    upstream: {upstream}\n");
        check("agent.yaml", &text).map_err(|mistakes| mistakes[0].message.clone())
    };
    for host in [
        "127.1",
        "2130706433",
        "0x7f000001",
        "0x7f.0.0.1",
        "0177.0.0.1",
        "127.0.0.1.",
        "10.9.0.0x5",
        "1.2.3.4.5",
        "db.0x",
    ] {
        let told = listed(&format!("{{ url: \"tcp://{host}:22\" }}")).unwrap_err();
        assert!(told.contains("neither a name nor an address"), "{host}: {told}");
    }
    for host in [
        "127.0.0.1",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "db.lan",
        "db1",
        "10.lan",
        "cafe",
    ] {
        listed(&format!("{{ url: \"tcp://{host}:22\" }}")).unwrap();
    }
    let told = listed("{ url: \"tcp://10.8.0.5:22\", allow_cidrs: [10.9.0.0/24] }").unwrap_err();
    assert!(told.contains("outside its own allow_cidrs"), "{told}");
}

#[test]
fn an_endpoint_is_listed_once() {
    let text = "version: 1\nendpoints:\n  - { url: ssh://a, upstream: { url: \"tcp://127.0.0.1:22\" } }\n  - { url: ssh://a.default.internal:22, upstream: { url: \"tcp://127.0.0.1:23\" } }\n";
    let mistakes = check("agent.yaml", text).unwrap_err();
    assert!(mistakes[0].message.contains("listed twice"), "{mistakes:?}");
}

/// The keys that this reader takes, by its own word.
#[expect(
    clippy::disallowed_methods,
    reason = "asks the reader itself, with a text of this test's own"
)]
fn taken<T: serde::de::DeserializeOwned>() -> BTreeSet<String> {
    let Err(error) = serde_yaml::from_str::<T>("no-such-key: 1") else {
        panic!()
    };
    match error.without_snippet() {
        serde_yaml::Error::SerdeUnknownField { expected, .. } => expected.iter().map(ToString::to_string).collect(),
        other => panic!("{other}"),
    }
}

/// The keys at a place of the schema; `0` is the item of a list.
fn of_schema(way: &[&str]) -> BTreeSet<String> {
    let mut schema: serde_json::Value = serde_json::from_str(&Document::Agent.json_schema()).unwrap();
    for step in way {
        schema = if *step == "0" {
            schema["items"].take()
        } else {
            schema["properties"][*step].take()
        };
    }
    schema["properties"].as_object().unwrap().keys().cloned().collect()
}

#[test]
fn the_schema_has_exactly_the_keys_that_are_read() {
    assert_eq!(taken::<Written>(), of_schema(&[]));
    assert_eq!(taken::<WrittenEndpoint>(), of_schema(&["endpoints", "0"]));
    assert_eq!(taken::<WrittenUpstream>(), of_schema(&["endpoints", "0", "upstream"]));
    assert_eq!(taken::<WrittenTls>(), of_schema(&["endpoints", "0", "upstream", "tls"]));
    assert_eq!(
        taken::<WrittenCredential>(),
        of_schema(&["endpoints", "0", "credentials", "0"])
    );
    assert_eq!(taken::<WrittenAudit>(), of_schema(&["audit"]));
    assert_eq!(taken::<WrittenBuiltinSsh>(), of_schema(&["builtin_ssh"]));
}

/// A file with one endpoint and these lines below it, and a password file with this mode.
fn with_credentials(url: &str, lines: &str, mode: u32) -> Result<Config, Vec<String>> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("db.pw");
    config_file::write_private(&file, b"a-password\n", mode).unwrap();
    std::fs::write(dir.path().join("empty"), "\n").unwrap();
    let lines = lines.replace("DIR", &dir.path().display().to_string());
    let text =
        format!("version: 1\nendpoints:\n  - url: {url}\n    upstream: {{ url: \"tcp://127.0.0.1:5432\" }}\n{lines}");
    let told = |mistakes: Vec<Mistake>| mistakes.iter().map(|m| format!("{}: {}", m.line, m.message)).collect();
    check("agent.yaml", &text).map_err(told)
}

const RULES: &str = "    rules: []\n";
const ONE: &str = "    credentials: [ { as: readonly, user: fairlead_ro, password_file: \"DIR/db.pw\" } ]\n";

#[test]
fn a_credential_is_read_and_does_not_print() {
    let config = with_credentials("postgres://db", &format!("{RULES}{ONE}"), 0o640).unwrap();
    let credential = &config.endpoints[0].credentials[0];
    assert_eq!(
        (
            credential.requested.as_str(),
            credential.user.as_str(),
            credential.password()
        ),
        ("readonly", "fairlead_ro", Some("a-password"))
    );
    assert!(!format!("{config:?}").contains("a-password"));
}

#[test]
fn credentials_need_rules_a_private_file_and_a_protocol_that_is_spoken() {
    let good = format!("{RULES}{ONE}");
    let twice = format!(
        "{RULES}    credentials:\n      - {{ as: a, user: b, password_file: \"DIR/db.pw\" }}\n      - {{ as: a, user: c, password_file: \"DIR/db.pw\" }}\n"
    );
    let empty = good.replace("db.pw", "empty");
    let missing = good.replace("db.pw", "none");
    let nobody = format!("{RULES}    credentials: []\n");
    let nameless = good.replace("as: readonly", "as: \"\"");
    for (url, lines, mode, line, text) in [
        ("postgres://db", ONE.to_owned(), 0o640, 5, "needs rules"),
        (
            "tcp://db:1",
            good.clone(),
            0o640,
            6,
            "postgres:// and mqtt:// endpoints only",
        ),
        ("postgres://db", good.clone(), 0o644, 6, "may be read by everybody"),
        ("postgres://db", good.clone(), 0o660, 6, "changed by others"),
        ("postgres://db", twice, 0o640, 8, "`as: a` stands here twice"),
        ("postgres://db", empty, 0o640, 6, "everybody"),
        ("postgres://db", missing, 0o640, 6, "none"),
        ("postgres://db", nobody, 0o640, 6, "one to 64"),
        ("postgres://db", nameless, 0o640, 6, "a user's name"),
    ] {
        let mistakes = with_credentials(url, &lines, mode).unwrap_err();
        assert!(
            mistakes
                .iter()
                .any(|told| told.starts_with(&format!("{line}: ")) && told.contains(text)),
            "{text}: {mistakes:?}"
        );
    }
}

#[test]
fn whoever_only_looks_needs_no_password() {
    let text = "version: 1\nendpoints:\n  - url: postgres://db\n    upstream: { url: \"tcp://127.0.0.1:5432\" }\n    rules: []\n    credentials: [ { as: a, user: b, password_file: /nowhere } ]\n";
    let looked = check_with("agent.yaml", text, Secrets::LeftAlone).unwrap();
    assert_eq!(looked.endpoints[0].credentials[0].password(), None);
}

#[test]
fn a_login_in_the_open_and_a_log_of_statements_are_warned_about() {
    let one = format!("{RULES}{ONE}");
    let own = with_credentials("postgres://db", &one, 0o640).unwrap();
    assert_eq!(own.warnings(), Vec::<String>::new());
    let mut elsewhere = own;
    if let Upstream::Tcp(upstream) = &mut elsewhere.endpoints[0].upstream {
        upstream.host = "db.lan".into();
    }
    elsewhere.endpoints[0].statement_log = Some("/var/log/statements".into());
    let warnings = elsewhere.warnings();
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(
        warnings[0].starts_with("agent.yaml:3: postgres://db.default.internal: the agent logs in"),
        "{warnings:?}"
    );
}
