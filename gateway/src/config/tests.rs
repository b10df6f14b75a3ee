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
}
