//! Rules when a session is to be opened in which more is asked about later: each act of SSH at the agent, and what a
//! Postgres client says first at the gateway.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]
#![expect(
    clippy::disallowed_methods,
    reason = "reads what these tests themselves write; the reader of configuration files is no dependency of this crate"
)]

use fairlead_policy::{
    AccessPolicy, AgentFacts, Caller, CallerKind, Conn, Enforcement, LocalRules, MqttAct, MqttFacts, PostgresFacts,
    Request, RuleAsWritten, Source, SshFacts,
};
use std::collections::BTreeMap;
use std::time::UNIX_EPOCH;

#[derive(serde::Deserialize)]
struct File {
    rules: Vec<RuleAsWritten>,
}

fn rules(list: &str) -> LocalRules {
    let text = format!("rules:\n{list}");
    let file: File = serde_yaml::from_str(&text).unwrap();
    LocalRules::compile("agent.yaml", &text, &file.rules).unwrap()
}

fn request(enforce: Enforcement, command: Option<&str>) -> Request {
    Request {
        caller: Caller {
            name: "alice".to_owned(),
            kind: CallerKind::User,
            groups: Vec::new(),
            labels: BTreeMap::new(),
            site: None,
        },
        agent: AgentFacts {
            name: "pump-7".to_owned(),
            site: "plant-7".to_owned(),
            labels: BTreeMap::new(),
        },
        endpoint: "ssh://pump-7.plant-7.internal".parse().unwrap(),
        conn: Conn {
            client_ip: "192.0.2.1".parse().unwrap(),
            client_port: 1,
            started: UNIX_EPOCH,
            tls: None,
        },
        now: UNIX_EPOCH,
        enforce,
        ssh: command.map(|command| SshFacts {
            user: "pi".to_owned(),
            action: "exec".to_owned(),
            command: command.to_owned(),
        }),
        postgres: None,
        mqtt: None,
    }
}

const ACTS: Enforcement = Enforcement::Acts(&["shell", "exec", "sftp"]);

#[test]
fn a_rule_about_commands_opens_the_session_and_then_judges_each() {
    let only = rules("- { name: only, effect: allow, expressions: [\"ssh.command == 'uptime'\"] }\n");
    let but = rules(
        "- { name: all, effect: allow }\n- { name: but, effect: deny, expressions: [\"ssh.command.startsWith('rm ')\"] }\n",
    );
    for (rules, good, bad) in [(only, "uptime", "id"), (but, "id", "rm -r /")] {
        assert!(rules.decide_opening(&request(ACTS, None)).is_allowed());
        assert!(
            !rules.decide(&request(ACTS, None)).is_allowed(),
            "the last word waits for the facts"
        );
        assert!(rules.decide(&request(ACTS, Some(good))).is_allowed());
        assert!(!rules.decide(&request(ACTS, Some(bad))).is_allowed());
    }
}

#[test]
fn what_is_known_at_the_opening_refuses_then() {
    for list in [
        "",
        "- { name: bob, effect: allow, expressions: [\"caller.name == 'bob' && ssh.command == 'uptime'\"] }\n",
        "- { name: all, effect: allow }\n- { name: alice not, effect: deny, expressions: [\"caller.name == 'alice'\"] }\n",
        "- { name: r, effect: allow, expressions: [\"caller.name == 'bob' && ssh.action == 'shell'\"] }\n",
    ] {
        let rules = if list.is_empty() {
            LocalRules::compile("agent.yaml", "rules: []", &[]).unwrap()
        } else {
            rules(list)
        };
        assert!(!rules.decide_opening(&request(ACTS, None)).is_allowed(), "{list}");
    }
}

#[test]
fn a_tunnel_has_no_later_stage() {
    let only = rules("- { name: only, effect: allow, expressions: [\"ssh.command == 'uptime'\"] }\n");
    let but = rules(
        "- { name: all, effect: allow }\n- { name: but, effect: deny, expressions: [\"ssh.command == 'rm'\"] }\n",
    );
    for rules in [only, but] {
        assert!(!rules.decide_opening(&request(Enforcement::Tunnel, None)).is_allowed());
    }
}

#[test]
fn what_a_postgres_client_will_say_decides_and_what_is_known_before_refuses_then() {
    let list = "rules:
  - { name: billing, sites: ['*'], effect: allow, expressions: [\"caller.name == 'alice' && postgres.database == 'billing'\"] }
  - { name: no root, sites: ['*'], effect: deny, expressions: [\"postgres.user == 'postgres'\"] }
";
    let source = Source {
        name: "access.yaml".to_owned(),
        text: format!("version: 1\n{list}"),
    };
    let (policy, _) = AccessPolicy::compile(&[source]).unwrap();
    let asked = |caller: &str, url: &str, said: Option<(&str, &str)>| {
        let mut request = request(Enforcement::Tunnel, None);
        request.caller.name = caller.to_owned();
        request.endpoint = url.parse().unwrap();
        request.postgres = said.map(|(user, database)| PostgresFacts {
            user: user.to_owned(),
            database: database.to_owned(),
            application_name: String::new(),
        });
        request
    };
    let db = "postgres://db.plant-7.internal";
    assert!(policy.decide_unspoken(&asked("alice", db, None)).is_allowed());
    assert!(!policy.decide_unspoken(&asked("bob", db, None)).is_allowed());
    for (said, allowed) in [
        (("app", "billing"), true),
        (("app", "payroll"), false),
        (("postgres", "billing"), false),
    ] {
        assert_eq!(
            policy.decide(&asked("alice", db, Some(said))).is_allowed(),
            allowed,
            "{said:?}"
        );
    }
    // Nobody reads what goes through a tunnel to another protocol.
    assert!(
        !policy
            .decide_unspoken(&asked("alice", "tcp://db.plant-7.internal:5432", None))
            .is_allowed()
    );
}

#[test]
fn an_mqtt_client_is_let_in_by_its_connect_and_judged_by_each_act() {
    let list = "rules:
  - { name: own topics, sites: ['*'], effect: allow, expressions: [\"inTopicFilter(mqtt.topic, 'd/' + caller.name + '/#')\"] }
  - { name: own name, sites: ['*'], effect: deny, expressions: [\"mqtt.client_id != caller.name\"] }
";
    let source = Source {
        name: "access.yaml".to_owned(),
        text: format!("version: 1\n{list}"),
    };
    let (policy, _) = AccessPolicy::compile(&[source]).unwrap();
    let asked = |client_id: Option<&str>, topic: Option<&str>| {
        let mut request = request(Enforcement::Acts(&["publish", "subscribe"]), None);
        request.endpoint = "mqtt://broker.plant-7.internal".parse().unwrap();
        request.mqtt = client_id.map(|client_id| MqttFacts {
            client_id: client_id.to_owned(),
            username: String::new(),
            act: topic.map(|topic| MqttAct {
                action: "publish",
                topic: topic.to_owned(),
                qos: 0,
                retain: false,
            }),
        });
        request
    };
    assert!(policy.decide_unspoken(&asked(None, None)).is_allowed());
    assert!(
        !policy.decide(&asked(None, None)).is_allowed(),
        "nobody has said anything"
    );
    assert!(policy.decide(&asked(Some("alice"), None)).is_allowed());
    assert!(!policy.decide(&asked(Some("bob"), None)).is_allowed());
    assert!(policy.decide(&asked(Some("alice"), Some("d/alice/x"))).is_allowed());
    assert!(!policy.decide(&asked(Some("alice"), Some("d/bob/x"))).is_allowed());
    assert!(!policy.decide(&asked(Some("bob"), Some("d/alice/x"))).is_allowed());
}
