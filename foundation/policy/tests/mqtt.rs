//! What `tests:` and `explain` say of MQTT: the client's own words are part of the question.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

use fairlead_policy::{
    AccessPolicy, AgentFacts, Caller, CallerKind, Conn, Enforcement, Explanation, MqttAct, MqttFacts, Request, Said,
    Source,
};
use std::collections::BTreeMap;
use std::time::UNIX_EPOCH;

const RULES: &str = "\
version: 1
rules:
  - { name: own topics, sites: [plant-7], effect: allow, expressions: [\"inTopicFilter(mqtt.topic, 'devices/' + caller.name + '/#')\"] }
  - { name: states are kept, sites: [plant-7], effect: deny, actions: [publish], expressions: [\"mqtt.topic.endsWith('/state') && !mqtt.retain\"] }
  - { name: no exactly once, sites: [plant-7], effect: deny, expressions: [\"mqtt.qos == 2\"] }
  - { name: own name, sites: [plant-7], effect: deny, expressions: [\"mqtt.client_id != caller.name || mqtt.username == 'root'\"] }
";

/// The rules with tests below them, each given by what comes after the caller and the endpoint.
fn compiled(tests: &[&str]) -> Result<usize, Vec<String>> {
    let mut text = format!("{RULES}tests:\n");
    for (number, test) in tests.iter().enumerate() {
        let line = format!(
            "  - {{ name: t{number}, caller: {{ name: pump-7 }}, endpoint: 'mqtt://broker.plant-7.internal', {test} }}\n"
        );
        text.push_str(&line);
    }
    let source = Source {
        name: "a.yaml".to_owned(),
        text,
    };
    match AccessPolicy::compile(&[source]) {
        Ok((policy, _)) => Ok(policy.test_count()),
        Err(mistakes) => Err(mistakes.iter().map(ToString::to_string).collect()),
    }
}

#[test]
fn tests_say_what_a_client_says() {
    let tests = [
        "act: publish, mqtt: { client_id: pump-7, topic: devices/pump-7/x, qos: 1 }, expect: allow, rule: own topics",
        "act: publish, mqtt: { client_id: pump-7, topic: devices/pump-8/x }, expect: deny",
        "act: publish, mqtt: { client_id: pump-7, topic: devices/pump-7/state, retain: true }, expect: allow",
        "act: publish, mqtt: { client_id: pump-7, topic: devices/pump-7/state }, expect: deny, rule: states are kept",
        "act: publish, mqtt: { client_id: pump-7, topic: devices/pump-7/x, qos: 2 }, expect: deny, rule: no exactly once",
        "act: publish, mqtt: { client_id: pump-8, topic: devices/pump-7/x }, expect: deny, rule: own name",
        "act: subscribe, mqtt: { client_id: pump-7, topic: 'devices/pump-7/#' }, expect: allow",
        "act: subscribe, mqtt: { client_id: pump-7, topic: '$share/g/devices/pump-7/+' }, expect: allow",
        "act: subscribe, mqtt: { client_id: pump-7, topic: '#' }, expect: deny",
        "act: subscribe, mqtt: { client_id: pump-7, topic: '$SYS/#' }, expect: deny",
        // CONNECT: what it does not say yet is decided later.
        "mqtt: { client_id: pump-7, username: sensors }, expect: allow, rule: own topics",
        "mqtt: { client_id: pump-8 }, expect: deny, rule: own name",
        "mqtt: { client_id: pump-7, username: root }, expect: deny, rule: own name",
        "mqtt: {}, expect: deny, rule: own name",
        // Nothing is known: no rule that reads it allows.
        "expect: deny",
        "act: publish, expect: deny",
    ];
    assert_eq!(compiled(&tests), Ok(tests.len()));
}

#[test]
fn a_failed_test_says_what_was_got_and_by_which_rule() {
    let told = compiled(&[
        "act: publish, mqtt: { client_id: pump-7, topic: devices/pump-7/state }, expect: allow",
        "mqtt: { client_id: pump-7 }, expect: deny",
    ])
    .unwrap_err();
    assert_eq!(told.len(), 2, "{told:#?}");
    assert!(
        told[0].contains("expected allow, got denied (deny-rule)"),
        "{}",
        told[0]
    );
    assert!(told[0].contains("by rule `states are kept` at a.yaml:4"), "{}", told[0]);
    assert!(told[1].contains("expected deny, got allowed"), "{}", told[1]);
}

#[test]
fn what_no_client_can_say_is_a_mistake() {
    for (test, told) in [
        ("mqtt: 7, expect: deny", "mqtt is a map, not a number"),
        ("mqtt: { topc: x }, expect: deny", "unknown key `topc` in mqtt"),
        ("mqtt: { topic: x }, expect: deny", "a topic is that of an act"),
        (
            "mqtt: { qos: 1 }, expect: deny",
            "`qos` and `retain` are those of a message",
        ),
        (
            "mqtt: { retain: true }, expect: deny",
            "`qos` and `retain` are those of a message",
        ),
        (
            "act: publish, mqtt: { topic: x, qos: 3 }, expect: deny",
            "`qos` is 0, 1 or 2",
        ),
        (
            "act: publish, mqtt: { topic: x, qos: one }, expect: deny",
            "`qos` is 0, 1 or 2",
        ),
        (
            "act: publish, mqtt: { topic: x, retain: 1 }, expect: deny",
            "`retain` is true or false",
        ),
        (
            "act: publish, mqtt: { topic: 'a/#' }, expect: deny",
            "a message's topic has no wildcards",
        ),
        (
            "act: subscribe, mqtt: { topic: 'a/#/b' }, expect: deny",
            "is no topic filter",
        ),
        (
            "act: subscribe, mqtt: { topic: a, retain: true }, expect: deny",
            "`retain` is of messages",
        ),
        (
            "act: shell, mqtt: { topic: a }, expect: deny",
            "mqtt has no act `shell`",
        ),
        (
            "mqtt: { client_id: 7 }, expect: deny",
            "`client_id` takes text, not a number",
        ),
    ] {
        let mistakes = compiled(&[test]).unwrap_err();
        assert_eq!(mistakes.len(), 1, "{test}: {mistakes:#?}");
        assert!(mistakes[0].contains(told), "{test}: {}", mistakes[0]);
    }
    let elsewhere = RULES.to_owned()
        + "tests:\n  - { name: t, caller: { name: a }, endpoint: 'ssh://pump-7.plant-7.internal', mqtt: {}, expect: deny }\n";
    let source = Source {
        name: "a.yaml".to_owned(),
        text: elsewhere,
    };
    let told = AccessPolicy::compile(&[source]).unwrap_err()[0].to_string();
    assert!(told.contains("ssh has no `mqtt`"), "{told}");
}

fn explained(act: MqttAct) -> Explanation {
    let source = Source {
        name: "a.yaml".to_owned(),
        text: RULES.to_owned(),
    };
    let (policy, _) = AccessPolicy::compile(&[source]).unwrap();
    let endpoint: fairlead_identity::name::EndpointUrl = "mqtt://broker.plant-7.internal".parse().unwrap();
    policy.explain(&Request {
        caller: Caller {
            name: "pump-7".to_owned(),
            kind: CallerKind::User,
            groups: Vec::new(),
            labels: BTreeMap::new(),
            site: None,
        },
        agent: AgentFacts {
            name: endpoint.host.to_string(),
            site: endpoint.site.to_string(),
            labels: BTreeMap::new(),
        },
        conn: Conn {
            client_ip: "192.0.2.1".parse().unwrap(),
            client_port: 1,
            started: UNIX_EPOCH,
            tls: None,
        },
        now: UNIX_EPOCH,
        enforce: Enforcement::Acts(Enforcement::acts_of(endpoint.protocol)),
        endpoint,
        ssh: None,
        postgres: None,
        mqtt: Some(MqttFacts {
            client_id: "pump-7".to_owned(),
            username: String::new(),
            act: Some(act),
        }),
    })
}

#[test]
fn an_explanation_is_about_the_act_and_shows_what_rules_read_of_it() {
    let act = |action, topic: &str, retain| MqttAct {
        action,
        topic: topic.to_owned(),
        qos: 1,
        retain,
    };
    let denied = explained(act("publish", "devices/pump-7/state", false));
    let first = &denied.rules[0];
    assert!(!denied.decision.is_allowed() && first.decides, "{denied:#?}");
    let saw: Vec<String> = first.saw.iter().map(|s| format!("{} = {}", s.name, s.value)).collect();
    assert_eq!(saw, ["mqtt.retain = false", "mqtt.topic = 'devices/pump-7/state'"]);

    let allowed = explained(act("subscribe", "devices/pump-7/state", false));
    assert!(allowed.decision.is_allowed(), "{allowed:#?}");
    let of = |name: &str| allowed.rules.iter().find(|rule| rule.rule.name == name).unwrap();
    // A rule about publishing has nothing to say, and one about the quality shows it as the number that it is.
    assert_eq!(of("states are kept").said, Said::OtherActs);
    let saw = &of("no exactly once").saw[0];
    assert_eq!((saw.name.as_str(), saw.value.as_str()), ("mqtt.qos", "1"));
}
