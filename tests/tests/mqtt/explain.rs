//! `explain` of all three programs, with what an MQTT client would say: the answers are those that clients get.

use fairlead_tests::clients::{Finished, run};
use fairlead_tests::lab::Person;
use fairlead_tests::mosquitto::Mosquitto;
use fairlead_tests::programs::{command, throw_away};

use crate::stage::{AGENT, Stage};

const URL: &str = "mqtt://device.default.internal";
/// The customer lets devices speak, but of nothing that is kept, and everybody read the news.
const RULES: &str = "[ { name: telemetry, effect: allow, expressions: [\"inTopicFilter(mqtt.topic, 'devices/#')\"] }, \
                     { name: nothing kept, effect: deny, expressions: [\"mqtt.retain\"] }, \
                     { name: news are read, effect: allow, actions: [subscribe], expressions: [\"inTopicFilter(mqtt.topic, 'news/#')\"] } ]";

fn words(text: &str) -> Vec<&str> {
    text.split_whitespace().collect()
}

async fn explain(person: &Person, question: &str) -> Finished {
    let mut explain = command("fairlead", [&["explain", URL], &words(question)[..]].concat());
    explain.env("FAIRLEAD_HOME", person.path(""));
    run(explain).await
}

async fn policy_explain(stage: &Stage, caller: &str, question: &str) -> Finished {
    let arguments = ["policy", "explain", "--as", caller, "--to", URL];
    let mut explain = command("fairlead", [&arguments[..], &words(question)].concat());
    explain.env("FAIRLEAD_ADMIN_SOCKET", stage.lab.path("run/admin.sock"));
    run(explain).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_and_administrators_can_ask_about_a_topic() {
    let stage = Stage::with(Mosquitto::start().await, RULES, &[]).await;
    for (question, answer, rule, at_agent) in [
        ("", "depends", "", ""),
        ("--client-id pump", "allowed", "own topics", "allowed by telemetry"),
        (
            "--client-id valve",
            "denied",
            "nobody is another",
            "allowed by telemetry",
        ),
        (
            "--act publish --topic devices/pump/x --client-id pump --qos 1",
            "allowed",
            "own topics",
            "allowed by telemetry",
        ),
        (
            "--act publish --topic devices/pump/x --retain",
            "allowed",
            "own topics",
            "denied (deny-rule) by nothing kept",
        ),
        (
            "--act publish --topic devices/valve/x",
            "denied",
            "(no-rule)",
            "allowed by telemetry",
        ),
        (
            "--act publish --topic news/x",
            "allowed",
            "news are written",
            "denied (no-rule)",
        ),
        (
            "--act subscribe --topic news/#",
            "allowed",
            "news are read",
            "allowed by news are read",
        ),
        (
            "--act subscribe --topic $share/g/news/+",
            "allowed",
            "news are read",
            "allowed by news are read",
        ),
        ("--act subscribe --topic #", "denied", "(no-rule)", "denied (no-rule)"),
        (
            "--act subscribe --topic devices/pump/# --client-id valve",
            "denied",
            "nobody is another",
            "allowed by telemetry",
        ),
    ] {
        let said = explain(&stage.pump, question).await;
        let code = if answer == "denied" { 77 } else { 0 };
        let shown = format!("{question}: {}{}", said.text(), said.stderr);
        assert_eq!((said.text().trim(), said.code()), (answer, Some(code)), "{shown}");
        if rule.is_empty() {
            continue;
        }
        let text = policy_explain(&stage, "pump", question).await.succeeded().text();
        let (first, last) = (text.lines().next().unwrap(), text.lines().last().unwrap());
        assert!(first.starts_with(answer) && first.contains(rule), "{question}: {text}");
        let agent = format!("agent device.default: {at_agent}");
        assert!(last.starts_with(&agent), "{question}: {agent}\n{text}");
    }
    // What it is about is shown with the rules that read it.
    let text = policy_explain(&stage, "valve", "--act publish --topic news/x --client-id pump").await;
    let text = text.succeeded().text();
    assert!(text.contains("=> deny nobody is another"), "{text}");
    assert!(
        text.contains("mqtt.client_id = 'pump'") && text.contains("mqtt.topic = 'news/x'"),
        "{text}"
    );
    // What is no question.
    for (question, code) in [
        ("--topic x", 64),
        ("--act publish --qos 1", 64),
        ("--act publish --topic x --qos 3", 64),
        ("--act shell --topic x", 64),
    ] {
        let said = explain(&stage.pump, question).await;
        assert_eq!(said.code(), Some(code), "{question}: {}", said.stderr);
    }
    let mut elsewhere = command("fairlead", ["explain", "ssh://device", "--client-id", "x"]);
    elsewhere.env("FAIRLEAD_HOME", stage.pump.path(""));
    assert_eq!(run(elsewhere).await.code(), Some(64));
    let questions = stage.lab.agent_audit(AGENT).lines();
    let session = questions.iter().find(|line| line.text("event").starts_with("session"));
    assert!(
        session.is_none(),
        "a question opens nothing: {}",
        session.unwrap().shown()
    );
    stage.strike().await;
}

#[tokio::test]
async fn the_customer_can_ask_about_a_topic_without_a_running_agent() {
    let dir = throw_away();
    let file = dir.path().join("agent.yaml");
    let password = dir.path().join("pw");
    let text = format!(
        "version: 1\nstate_dir: \"{0}/state\"\ncontrol_socket: \"{0}/control.sock\"\nendpoints:\n  - url: {URL}\n    \
         upstream: {{ url: \"tcp://127.0.0.1:1883\" }}\n    credentials: [ {{ as: sensors, user: plant7, password_file: \"{1}\" }} ]\n    \
         rules: {RULES}\n",
        dir.path().display(),
        password.display()
    );
    for (path, text) in [(&file, text.as_str()), (&password, "a-password")] {
        fairlead_runtime::config_file::write_private(path, text.as_bytes(), 0o600).unwrap();
    }
    let ask = async |question: &str| {
        let mut ask = command("fairlead-agent", ["explain", "--config"]);
        ask.arg(&file).args([URL, "--as", "pump"]).args(words(question));
        run(ask).await
    };
    for (question, code, texts) in [
        (
            "--act publish --topic devices/x --username sensors",
            0,
            &["act publish devices/x", "rule      telemetry", "plant7"][..],
        ),
        (
            "--act publish --topic devices/x --username root",
            77,
            &["no credentials for this user: root"],
        ),
        (
            "--act publish --topic devices/x --retain",
            77,
            &["rule      nothing kept", "saw mqtt.retain = true"],
        ),
        (
            "--act publish --topic news/x",
            77,
            &["no-rule", "saw mqtt.topic = 'news/x'"],
        ),
        ("--act subscribe --topic news/x", 0, &["rule      news are read"]),
        ("--client-id pump", 0, &["permitted"]),
        ("--act publish", 64, &["wants --topic"]),
        ("--act shell --topic x", 64, &["shell is no act of mqtt"]),
    ] {
        let said = ask(question).await;
        let shown = format!("{}{}", said.text(), said.stderr);
        assert_eq!(said.code(), Some(code), "{question}: {shown}");
        for text in texts {
            assert!(shown.contains(text), "{question}: no {text:?} in {shown}");
        }
    }
}
