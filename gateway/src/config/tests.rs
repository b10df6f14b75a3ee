use std::collections::BTreeSet;

use super::*;

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
    let mut schema: serde_json::Value = serde_json::from_str(&Document::Gateway.json_schema()).unwrap();
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
    assert_eq!(taken::<WrittenAdmin>(), of_schema(&["admin"]));
    assert_eq!(taken::<Limits>(), of_schema(&["limits"]));
    assert_eq!(taken::<PerCaller>(), of_schema(&["limits", "sessions_per_caller"]));
    assert_eq!(taken::<WrittenLives>(), of_schema(&["certificates"]));
    assert_eq!(taken::<WrittenTls>(), of_schema(&["tls"]));
    assert_eq!(
        taken::<callers::WrittenFiles>(),
        of_schema(&["tls", "certificates", "0"])
    );
    assert_eq!(taken::<WrittenListener>(), of_schema(&["listeners", "0"]));
    assert_eq!(taken::<WrittenEvents>(), of_schema(&["events", "0"]));
    assert_eq!(taken::<events::WrittenBroker>(), of_schema(&["events", "0", "mqtt"]));
}

/// What is said of one broker of `events`.
fn of_broker(keys: &str) -> Result<Broker, Vec<String>> {
    let text = format!("version: 1\ndomain: gw.example.com\nevents: [ {{ mqtt: {{ {keys} }} }} ]\n");
    match check("gateway.yaml", &text) {
        Ok(mut config) => Ok(config.events.remove(0)),
        Err(found) => Err(found.into_iter().map(|mistake| mistake.message).collect()),
    }
}

#[test]
fn a_broker_of_events_is_an_address_with_names() {
    let plain = of_broker("url: \"mqtt://broker.example\"").unwrap();
    assert_eq!((&*plain.host, plain.port), ("broker.example", 1883));
    assert_eq!(
        (&*plain.prefix, &*plain.client_id),
        ("fairlead/gw.example.com", "fairlead-gw.example.com")
    );
    let literal = of_broker("url: \"mqtt://[::1]:1884/\", topic_prefix: a/b, client_id: x").unwrap();
    assert_eq!(
        (&*literal.host, literal.port, &*literal.prefix, &*literal.client_id),
        ("::1", 1884, "a/b", "x")
    );
    for url in [
        "mqtts://b",
        "mqtt://",
        "mqtt://u:p@b",
        "mqtt://b:0",
        "mqtt://b/x",
        "mqtt://::1",
        "b:1883",
    ] {
        let said = of_broker(&format!("url: \"{url}\"")).unwrap_err();
        assert!(said[0].contains("fairlead connect"), "{url}: {said:?}");
    }
    for prefix in ["", "/a", "a/", "$SYS/a", "a/+", "a/#", "a\\0b"] {
        let said = of_broker(&format!("url: \"mqtt://b\", topic_prefix: \"{prefix}\"")).unwrap_err();
        assert!(said[0].contains("no wildcards"), "{prefix}: {said:?}");
    }
    assert!(of_broker("url: \"mqtt://b\", client_id: \"\"").is_err());
}

#[test]
fn a_password_of_a_broker_comes_from_a_private_file_and_stays_on_this_machine() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("password");
    config_file::write_private(&file, b"word\n", 0o600).unwrap();
    let with = |host: &str, file: &Path| {
        of_broker(&format!(
            "url: \"mqtt://{host}\", username: gateway, password_file: \"{}\"",
            file.display()
        ))
    };
    for host in ["127.0.0.1", "localhost", "[::1]:1883"] {
        assert_eq!(with(host, &file).unwrap().login.unwrap().0, "gateway");
    }
    assert!(with("broker.example", &file).unwrap_err()[0].contains("on loopback only"));
    assert!(with("127.0.0.1", &dir.path().join("none")).is_err());
    config_file::write_private(&dir.path().join("open"), b"word", 0o644).unwrap();
    assert!(with("127.0.0.1", &dir.path().join("open")).is_err());
    assert!(of_broker("url: \"mqtt://127.0.0.1\", username: gateway").is_err());
    assert!(of_broker("url: \"mqtt://127.0.0.1\", password_file: /x").is_err());
}

#[test]
fn a_fifth_broker_is_a_mistake() {
    let one = "{ mqtt: { url: \"mqtt://b\" } }";
    let text = |count: usize| {
        format!(
            "version: 1\ndomain: gw.example.com\nevents: [ {} ]\n",
            vec![one; count].join(", ")
        )
    };
    assert_eq!(check("gateway.yaml", &text(4)).unwrap().events.len(), 4);
    assert!(
        check("gateway.yaml", &text(5)).unwrap_err()[0]
            .message
            .contains("at most 4")
    );
}
