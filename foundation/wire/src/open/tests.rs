use super::*;
use crate::samples::{self, texts};

fn spoiled_open(spoil: impl FnOnce(&mut Open)) -> String {
    let mut open = samples::open();
    assert_eq!(open.check(), Ok(()));
    spoil(&mut open);
    let error = open.check().expect_err("the spoiled message is refused");
    format!("{}.{}", error.message, error.field)
}

fn spoiled_caller(spoil: impl FnOnce(&mut Caller)) -> String {
    spoiled_open(|open| spoil(open.caller.as_mut().unwrap()))
}

#[test]
fn open_is_bounded() {
    assert_eq!(spoiled_open(|m| m.requires = vec!["x".to_owned(); 33]), "Open.requires");
    assert_eq!(spoiled_open(|m| m.session.clear()), "Open.session");
    assert_eq!(spoiled_open(|m| m.session.push(0)), "Open.session");
    assert_eq!(spoiled_open(|m| m.endpoint_url.clear()), "Open.endpoint_url");
    assert_eq!(spoiled_open(|m| m.endpoint_url = "x".repeat(257)), "Open.endpoint_url");
    assert_eq!(spoiled_open(|m| m.endpoint_url.push('\r')), "Open.endpoint_url");
    assert_eq!(spoiled_open(|m| m.caller = None), "Open.caller");
    for text in ["", "localhost", "10.0.0.1:22", "[::1]", "fe80::1%eth0", "10.0.0.1\n"] {
        assert_eq!(spoiled_open(|m| m.client_ip = text.to_owned()), "Open.client_ip");
    }
    assert_eq!(spoiled_open(|m| m.client_port = 65_536), "Open.client_port");
    assert_eq!(spoiled_open(|m| m.acts = vec!["shell".to_owned(); 33]), "Open.acts");
    assert_eq!(spoiled_open(|m| m.acts = texts(&[""])), "Open.acts");
    assert_eq!(spoiled_open(|m| m.started_unix_ms = u64::MAX), "Open.started_unix_ms");
}

#[test]
fn a_cancel_comes_with_its_requirement_and_is_bounded() {
    assert_eq!(samples::cancel().check(), Ok(()));
    let key = || samples::cancel().cancel;
    assert_eq!(spoiled_open(|m| m.cancel = key()), "Open.cancel");
    assert_eq!(spoiled_open(|m| m.requires = texts(&[CANCEL])), "Open.cancel");
    for bytes in [0, 3, 257] {
        let mut open = samples::cancel();
        open.cancel.as_mut().unwrap().secret = vec![0; bytes];
        assert_eq!(open.check().unwrap_err().field, "secret", "{bytes}");
    }
    let shown = format!("{:?}", samples::cancel());
    assert!(shown.contains("4711") && !shown.contains("secret"), "{shown}");
}

#[test]
fn what_an_mqtt_client_is_supposed_to_say_comes_with_a_question_only() {
    assert_eq!(samples::question().check(), Ok(()));
    let spoiled = |spoil: fn(&mut Open)| {
        let mut open = samples::question();
        spoil(&mut open);
        open.check().unwrap_err().field
    };
    assert_eq!(spoiled(|m| m.requires = texts(&[MQTT_FACTS])), "mqtt");
    assert_eq!(spoiled(|m| m.requires = texts(&[EXPLAIN])), "mqtt");
    assert_eq!(spoiled(|m| m.mqtt = None), "mqtt");
    assert_eq!(spoiled(|m| m.acts.clear()), "acts");
    assert_eq!(spoiled(|m| m.acts = texts(&["publish", "subscribe"])), "acts");
    assert_eq!(
        spoiled(|m| m.mqtt.as_mut().unwrap().about.as_mut().unwrap().qos = 3),
        "qos"
    );
}

#[test]
fn the_caller_inside_is_bounded() {
    assert_eq!(spoiled_caller(|m| m.name.clear()), "Caller.name");
    assert_eq!(spoiled_caller(|m| m.name = "x".repeat(129)), "Caller.name");
    for kind in ["", "User", "admin", "user "] {
        assert_eq!(spoiled_caller(|m| m.kind = kind.to_owned()), "Caller.kind");
    }
    assert_eq!(
        spoiled_caller(|m| m.groups = vec!["x".to_owned(); 257]),
        "Caller.groups"
    );
    assert_eq!(spoiled_caller(|m| m.groups = texts(&["field\nadmin"])), "Caller.groups");
    assert_eq!(
        spoiled_caller(|m| m.labels = samples::map(&[("", "x")])),
        "Caller.labels"
    );
    assert_eq!(
        spoiled_caller(|m| m.labels = (0..257).map(|n| (n.to_string(), String::new())).collect()),
        "Caller.labels"
    );
    assert_eq!(spoiled_caller(|m| m.site = "x".repeat(129)), "Caller.site");
    assert_eq!(
        spoiled_caller(|m| m.ssh_keys = vec!["x".to_owned(); 65]),
        "Caller.ssh_keys"
    );
    assert_eq!(
        spoiled_caller(|m| m.ssh_keys = vec!["x".repeat(2049)]),
        "Caller.ssh_keys"
    );
}

#[test]
fn only_an_unidentified_caller_may_be_nameless() {
    let nameless = |kind: &str| Caller {
        name: String::new(),
        kind: kind.to_owned(),
        ..samples::caller()
    };
    assert_eq!(nameless("unidentified").check(), Ok(()));
    assert!(nameless("user").check().is_err());
    assert!(nameless("workload").check().is_err());
}

#[test]
fn fields_read_as_their_types() {
    let open = samples::open();
    assert_eq!(
        open.session_id().unwrap().to_string(),
        "0190b5a4-7c3e-7d11-8a2b-5f6e7d8c9b0a"
    );
    assert_eq!(open.caller().unwrap().name, "alice");
    assert_eq!(open.client_ip().unwrap(), "2001:db8::7".parse::<IpAddr>().unwrap());
    assert_eq!(open.client_port(), Ok(50_022));
}

#[test]
fn an_answer_that_is_not_understood_is_no_session() {
    assert_eq!(OpenAnswer::opened().check(), Ok(()));
    assert_eq!(OpenAnswer::default().check().unwrap_err().field, "body");
    // Field 4 of a newer peer.
    let answer: OpenAnswer = crate::codec::decode_body(&[0x22, 0x00]).unwrap();
    assert_eq!(answer.check().unwrap_err().field, "body");
    let without_reason = OpenAnswer::refused(Refused::default());
    assert_eq!(without_reason.check().unwrap_err().field, "reason");
}

#[test]
fn a_question_is_known_by_what_it_requires() {
    let mut open = Open {
        requires: Vec::new(),
        ..samples::open()
    };
    assert!(!open.is_question());
    open.requires = vec![EXPLAIN.to_owned()];
    assert!(open.is_question());
    assert_eq!(crate::version::check_required(&open.requires), Ok(()));
}
