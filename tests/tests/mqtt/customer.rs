//! The customer's file has the last word, and keeps the broker's password.

use fairlead_tests::clients::run;
use fairlead_tests::mosquitto::Mosquitto;

use crate::stage::{AGENT, Stage};

/// The customer lets everybody read the news, and nobody write them.
const RULES: &str = "[ { name: telemetry, effect: allow, expressions: [\"inTopicFilter(mqtt.topic, 'devices/#')\"] }, \
                     { name: news are read, effect: allow, actions: [subscribe], expressions: [\"inTopicFilter(mqtt.topic, 'news/#')\"] } ]";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_gateway_allows_and_the_customer_does_not_is_refused_at_the_agent() {
    let stage = Stage::with(Mosquitto::start().await, RULES, &[]).await;
    for (topic, code) in [("news/x", "RC:135"), ("devices/pump/x", "RC:16")] {
        let says = ["-t", topic, "-m", "word", "-q", "1", "-i", "pump", "-d"];
        let said = run(stage.mosquitto("mosquitto_pub", &stage.pump, "5", &says)).await;
        let all = format!("{}{}", said.text(), said.stderr);
        assert!(all.contains(code), "{topic}: {all}");
    }
    let refused = stage.lab.agent_audit(AGENT).awaited("act.refuse", None).await;
    assert_eq!((refused.text("caller"), refused.text("reason")), ("pump", "rule"));
    stage.strike().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_agent_logs_in_to_the_broker_with_a_password_that_no_caller_has() {
    let broker = Mosquitto::start_for("plant7", "a-password-of-the-broker").await;
    let stage = Stage::with(broker, RULES, &[("sensors", "plant7", "a-password-of-the-broker")]).await;
    for user in [&[][..], &["-u", "sensors"]] {
        let says = ["-t", "devices/pump/x", "-m", "word", "-q", "1", "-i", "pump"];
        run(stage.mosquitto("mosquitto_pub", &stage.pump, "311", &[&says[..], user].concat()))
            .await
            .succeeded();
    }
    let permit = stage.lab.agent_audit(AGENT).awaited("session.permit", None).await;
    assert_eq!(permit.fact("broker_user"), "plant7");
    let says = [
        "-t",
        "devices/pump/x",
        "-m",
        "word",
        "-q",
        "1",
        "-i",
        "pump",
        "-u",
        "root",
    ];
    let said = run(stage.mosquitto("mosquitto_pub", &stage.pump, "311", &says)).await;
    assert!(!said.status.success(), "{}", said.text());
    stage.strike().await;
}
