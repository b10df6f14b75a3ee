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
