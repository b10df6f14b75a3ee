//! Who may say and hear what, and how a client is told that it may not.

use fairlead_tests::clients::{Running, run};
use fairlead_tests::lab::until;

use crate::stage::{AGENT, Stage};

const VERSIONS: &[&str] = &["311", "5"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn allowed_topics_flow_at_every_quality_of_service_in_both_versions() {
    let stage = Stage::set().await;
    for version in VERSIONS {
        for qos in ["0", "1", "2"] {
            let (topic, word) = (format!("news/{version}/{qos}"), format!("word-{version}-{qos}"));
            let publish = ["-t", &topic, "-m", &word, "-q", qos, "-r", "-i", "pump-p"];
            // With ALPN, and without: the host has no other endpoint.
            let publish = [&publish[..], &["--tls-alpn", "mqtt"]].concat();
            run(stage.mosquitto("mosquitto_pub", &stage.pump, version, &publish))
                .await
                .succeeded();
            let subscribe = [
                "-t", &topic, "-q", qos, "-C", "1", "-W", "60", "-i", "valve", "-F", "%q %p",
            ];
            let heard = run(stage.mosquitto("mosquitto_sub", &stage.valve, version, &subscribe)).await;
            assert_eq!(heard.succeeded().text().trim(), format!("{qos} {word}"), "{version}");
        }
    }
    let all = ["-t", "news/#", "-q", "2", "-C", "6", "-W", "60", "-i", "valve"];
    let heard = run(stage.mosquitto("mosquitto_sub", &stage.valve, "5", &all)).await;
    assert_eq!(heard.succeeded().text().lines().count(), 6);
    let gateway = stage.lab.gateway_audit();
    let permit = gateway.awaited("session.permit", None).await;
    assert_eq!(permit.text("caller"), "pump");
    stage.strike().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_devices_with_one_configuration_see_only_their_own_topics() {
    let stage = Stage::set().await;
    // The same arguments for both but for the name in them, as one image of firmware would fill it in.
    let listen = |name: &str| {
        let own = format!("devices/{name}/#");
        let words = ["-t".to_owned(), own, "-i".to_owned(), name.to_owned()];
        words.to_vec()
    };
    for (person, other) in [(&stage.pump, "valve"), (&stage.valve, "pump")] {
        let own: Vec<String> = listen(&person.name);
        let own: Vec<&str> = own.iter().map(String::as_str).collect();
        let more = ["-C", "1", "-W", "60", "-v"];
        let mut hears = Running::start(stage.mosquitto("mosquitto_sub", person, "5", &[&own[..], &more].concat()));
        let topic = format!("devices/{}/state", person.name);
        let foreign = format!("devices/{other}/state");
        let id = format!("{}-says", person.name);
        let subscribed = until("a message that arrives", async || {
            let says = ["-t", topic.as_str(), "-m", "mine", "-q", "1", "-i", &id];
            run(stage.mosquitto("mosquitto_pub", person, "5", &says))
                .await
                .succeeded();
            (!hears.is_alive()).then_some(())
        });
        subscribed.await;
        assert_eq!(hears.line().await, format!("{topic} mine"));
        let says = ["-t", foreign.as_str(), "-m", "not mine", "-q", "1", "-i", &id, "-d"];
        let said = run(stage.mosquitto("mosquitto_pub", person, "5", &says)).await;
        let all = format!("{}{}", said.text(), said.stderr);
        assert!(all.contains("RC:135"), "{all}");
        let hears = ["-t", foreign.as_str(), "-i", &id, "-W", "60"];
        let heard = run(stage.mosquitto("mosquitto_sub", person, "5", &hears)).await;
        assert!(heard.stderr.contains("denied"), "{}{}", heard.text(), heard.stderr);
    }
    stage.strike().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_refusal_has_its_code_in_both_versions() {
    let stage = Stage::set().await;
    for version in ["4", "5"] {
        let said = run(stage.paho(include_str!("refusals.py"), &stage.valve, &[version])).await;
        assert_eq!(said.succeeded().text().trim(), "done", "{version}");
    }
    let refused = stage.lab.gateway_audit().awaited("act.refuse", None).await;
    assert_eq!((refused.text("caller"), refused.text("reason")), ("valve", "no-rule"));
    stage.strike().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_that_takes_a_subscription_away_ends_the_session() {
    let stage = Stage::set().await;
    let listen = ["-t", "news/#", "-i", "valve", "-d"];
    let mut hears = Running::start(stage.mosquitto("mosquitto_sub", &stage.valve, "5", &listen));
    loop {
        if hears.line().await.contains("received SUBACK") {
            break;
        }
    }
    let sessions = stage.lab.sessions().await;
    let session = sessions[0].id.clone();
    let policy = "version: 1\nrules:\n  - { name: own topics, sites: ['*'], effect: allow, expressions: [\"inTopicFilter(mqtt.topic, 'devices/' + caller.name + '/#')\"] }\n";
    stage.lab.policy(policy).await;
    let end = stage.lab.gateway_audit().awaited("session.end", Some(&session)).await;
    assert_eq!(end.text("reason"), "policy-changed");
    let end = stage
        .lab
        .agent_audit(AGENT)
        .awaited("session.end", Some(&session))
        .await;
    assert_eq!(end.text("reason"), "policy-changed");
    hears.interrupt();
    stage.strike().await;
}
