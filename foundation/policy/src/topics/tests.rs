use proptest::prelude::*;

use super::{filter as checked, holds, touches};

#[test]
fn filters_hold_and_touch_each_other() {
    // outer, inner, holds, touches
    let table = [
        ("a/b", "a/b", true, true),
        ("a/b", "a/c", false, false),
        ("a/+", "a/b", true, true),
        ("a/b", "a/+", false, true),
        ("a/+", "a/#", false, true),
        ("a/#", "a/+", true, true),
        ("a/#", "a", true, true),
        ("a/#", "a/b/c", true, true),
        ("a/#", "ab", false, false),
        ("a/+/c", "a/b/+", false, true),
        ("+/c", "a/#", false, true),
        ("#", "a/#", true, true),
        ("#", "$SYS/#", false, false),
        ("+/x", "$SYS/x", false, false),
        ("$SYS/#", "#", false, false),
        ("$SYS/#", "$SYS/broker", true, true),
        ("a/#", "$share/g/a/b", true, true),
        ("a/#", "$share/g/#", false, true),
        ("a//b", "a/+/b", false, true),
        ("+/+", "/a", true, true),
        ("not/#/one", "a", false, true),
        ("secret/#", "$queue/secret/x", false, true),
        ("$queue/a", "$queue/b", false, false),
        ("ü/#", "ü/é", true, true),
    ];
    for (outer, inner, held, touched) in table {
        assert_eq!(holds(outer, inner), held, "{outer} holds {inner}");
        assert_eq!(touches(outer, inner), touched, "{outer} touches {inner}");
    }
}

fn level() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("a".to_owned()),
        Just("b".to_owned()),
        Just("$c".to_owned()),
        Just(String::new())
    ]
}

fn name() -> impl Strategy<Value = String> {
    proptest::collection::vec(level(), 1..4)
        .prop_map(|levels| levels.join("/"))
        .prop_filter("empty", |name| !name.is_empty())
}

fn filter() -> impl Strategy<Value = String> {
    (
        proptest::collection::vec(prop_oneof![level(), Just("+".to_owned())], 1..4),
        any::<bool>(),
    )
        .prop_map(|(mut levels, all)| {
            if all {
                levels.push("#".to_owned());
            }
            levels.join("/")
        })
        .prop_filter("empty", |filter| !filter.is_empty())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn holding_and_touching_are_what_they_say_of_names(outer in filter(), inner in filter(), name in name()) {
        // For a name, `holds` is the protocol's own matching.
        if holds(&inner, &name) {
            if holds(&outer, &inner) {
                prop_assert!(holds(&outer, &name), "{outer} holds {inner}, which matches {name}");
            }
            if holds(&outer, &name) {
                prop_assert!(touches(&outer, &inner), "{name} is in both {outer} and {inner}");
            }
        }
        prop_assert_eq!(touches(&outer, &inner), touches(&inner, &outer));
    }
}

#[test]
fn filters_that_are_none_are_told() {
    for text in ["", "a#", "#/a", "a+/b", "$share/g/"] {
        assert!(checked(text).is_err(), "{text}");
    }
    assert_eq!(checked("$share/g/a/+"), Ok("a/+"));
}
