use super::*;

fn host(text: &str) -> Result<(String, String), NameError> {
    parse_host(text, "gw.example.com").map(|(h, s)| (h.to_string(), s.to_string()))
}

#[test]
fn every_form_callers_write_names_the_same_host() {
    let expected = Ok(("pump-7".to_owned(), "plant-7".to_owned()));
    for text in [
        "pump-7.plant-7",
        "pump-7.plant-7.internal",
        "pump-7.plant-7.gw.example.com",
        "pump-7--plant-7.gw.example.com",
        "Pump-7.PLANT-7.Internal.",
        "PUMP-7--PLANT-7.GW.EXAMPLE.COM.",
        "pump-7.plant-7.",
    ] {
        assert_eq!(host(text), expected, "{text}");
    }
}

#[test]
fn one_label_is_of_the_default_site() {
    let expected = Ok(("pump-7".to_owned(), "default".to_owned()));
    assert_eq!(host("pump-7"), expected);
    assert_eq!(host("PUMP-7."), expected);
}

#[test]
fn everything_else_is_an_error() {
    for text in [
        "",
        ".",
        "..",
        "a..b",
        ".a",
        "a.b.c",
        "localhost.localdomain.x",
        "pump-7.plant-7.example.com",
        "pump-7.plant-7.internal.gw.example.com",
        "pump-7.gw.example.com",
        "gw.example.com",
        "a.b.c.gw.example.com",
        "a--b--c.gw.example.com",
        "a---b.gw.example.com",
        "a.b--c.gw.example.com",
        "pump-7--plant-7",
        "pump-7--plant-7.internal",
        "pump 7",
        "pump_7.plant-7",
        "pump-7.plant-7..",
        "-a.b",
        "a-.b",
        "pümp.plant-7",
        "a.b\0",
        "a/b",
        "user@a.b",
        "*.plant-7",
    ] {
        assert!(host(text).is_err(), "{text:?} was read as {:?}", host(text));
    }
}

#[test]
fn addresses_are_refused_in_every_spelling() {
    for text in [
        "10.9.9.9",
        "127.1",
        "127",
        "2130706433",
        "0x7f.1",
        "0x7f000001",
        "0177.0.0.1",
        "10.1.2",
        "::1",
        "[::1]",
        "fe80::1%eth0",
        "::ffff:10.0.0.1",
        "10.9.9.9.",
    ] {
        assert!(
            matches!(host(text), Err(NameError::IpAddress(_))),
            "{text}: {:?}",
            host(text)
        );
    }
    assert!(host("10.plant-7").is_ok(), "a number is a name when its site is one");
}

#[test]
fn internal_is_no_site() {
    assert!(matches!(host("pump-7.internal"), Err(NameError::ReservedSite(_))));
    assert!(host("internal.plant-7").is_ok());
}

#[test]
fn a_domain_that_looks_like_ours_does_not_confuse() {
    assert!(parse_host("a.b", "").is_ok());
    assert!(parse_host("a.b.internal", "internal").is_ok());
    assert!(parse_host("a.b.c", "c").is_ok());
    assert!(parse_host("a.bgw.example.com", "gw.example.com").is_err());
    assert!(parse_host("a.b.GW.example.com.", "gw.EXAMPLE.com.").is_ok());
}

#[test]
fn labels_have_one_to_thirty_allowed_characters() {
    for good in ["a", "7", "a-b-c", "x".repeat(30).as_str()] {
        assert_eq!(good.parse::<Label>().unwrap().as_str(), good);
    }
    for bad in [
        "",
        "A",
        "a--b",
        "-a",
        "a-",
        "a.b",
        "a_b",
        "ä",
        "a b",
        "x".repeat(31).as_str(),
    ] {
        assert!(bad.parse::<Label>().is_err(), "{bad:?}");
    }
    let message = "a--b".parse::<Label>().unwrap_err().to_string();
    assert!(
        message.contains("`a--b`") && message.contains("contains --"),
        "{message}"
    );
}

#[test]
fn urls_have_one_canonical_form() {
    for (text, canonical) in [
        ("ssh://pump-7.plant-7.internal", "ssh://pump-7.plant-7.internal"),
        ("ssh://pump-7.plant-7.internal:22", "ssh://pump-7.plant-7.internal"),
        ("SSH://Pump-7.Plant-7", "ssh://pump-7.plant-7.internal"),
        ("ssh://pump-7", "ssh://pump-7.default.internal"),
        ("ssh://pump-7:2222", "ssh://pump-7.default.internal:2222"),
        ("tcp://hmi.plant-7:3389", "tcp://hmi.plant-7.internal:3389"),
        ("tls://hmi.plant-7:443", "tls://hmi.plant-7.internal:443"),
        (
            "postgres://patients.clinic1.internal",
            "postgres://patients.clinic1.internal",
        ),
        ("http://web.clinic1", "http://web.clinic1.internal"),
    ] {
        let url: EndpointUrl = text.parse().unwrap();
        assert_eq!(url.to_string(), canonical);
        assert_eq!(canonical.parse::<EndpointUrl>().unwrap(), url);
    }
}

#[test]
fn wrong_urls_say_what_is_wrong() {
    let error = |text: &str| text.parse::<EndpointUrl>().unwrap_err();
    assert_eq!(error(""), NameError::Empty);
    assert!(matches!(error("tcp://a.b"), NameError::MissingPort { .. }));
    assert!(matches!(error("tls://a.b"), NameError::MissingPort { .. }));
    assert!(matches!(error("ftp://a.b"), NameError::UnknownProtocol(_)));
    assert!(matches!(error("a.b:22"), NameError::UnknownProtocol(_)));
    assert!(matches!(error("ssh://[::1]:22"), NameError::IpAddress(_)));
    assert!(matches!(error("ssh://::1"), NameError::IpAddress(_)));
    assert!(matches!(error("ssh://10.0.0.1"), NameError::IpAddress(_)));
    assert!(matches!(error("ssh://a.internal"), NameError::ReservedSite(_)));
    for bad in ["0", "65536", "+22", "022", "", "-1", "2 2", "22/"] {
        let url = format!("ssh://a.b:{bad}");
        assert!(matches!(error(&url), NameError::BadPort(_)), "{url}");
    }
    for bad in [
        "ssh://a.b/",
        "ssh://u@a.b",
        "ssh://",
        "ssh:// a.b",
        "ssh://a.b?x",
        "ssh://a.b.",
    ] {
        assert!(bad.parse::<EndpointUrl>().is_err(), "{bad}");
    }
    assert!(matches!(error(&"a".repeat(300)), NameError::TooLong(300)));
}

#[test]
fn errors_never_show_controls_or_endless_text() {
    let text = format!("ssh://a.b\u{1b}[31m{}", "x".repeat(150));
    let message = text.parse::<EndpointUrl>().unwrap_err().to_string();
    assert!(!message.contains('\u{1b}') && message.len() < 400, "{message}");
}

#[test]
fn protocols_round_trip() {
    for protocol in Protocol::ALL {
        assert_eq!(protocol.as_str().parse::<Protocol>(), Ok(protocol));
    }
}
