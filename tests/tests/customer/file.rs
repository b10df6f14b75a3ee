//! Questions about a file alone, without a running agent.

use fairlead_runtime::audit;
use fairlead_runtime::config_file::write_private;
use fairlead_tests::clients;
use fairlead_tests::programs::{ended_with, throw_away};
use serde_json::Value;

/// What an auditor asks, of a file alone.
const FILE: &str = "version: 1
state_dir: \"DIR/state\"
control_socket: \"DIR/control.sock\"
endpoints:
  - url: ssh://pump-7.plant-7.internal
    upstream: { url: \"tcp://127.0.0.1:22\" }
  - url: tcp://plc.plant-7.internal:502
    upstream: { url: \"tcp://plc.lan:502\", allow_cidrs: [10.9.0.0/24, \"fd00:9::/64\"] }
    rules:
      - { name: field only, effect: allow, expressions: [\"'field' in caller.groups\"], limits: { session: 8h } }
      - name: not at night
        effect: deny
        expressions: [\"time.now.getHours() < 6\"]
      - { name: not from home, effect: deny, expressions: [\"!inCidrRange(conn.client_ip, '192.0.2.0/24')\"] }
  - url: ssh://hmi.plant-7.internal
    upstream: { url: \"builtin:ssh\" }
    rules:
      - { name: commands, effect: allow, actions: [exec], expressions: [\"caller.name == 'etl'\", \"ssh.command.startsWith('date')\"] }
      - { name: files, effect: allow, actions: [sftp], expressions: [\"caller.kind == 'workload'\"] }
  - url: tcp://closed.plant-7.internal:1
    upstream: { url: \"tcp://10.9.0.9:1\" }
    rules: []
";

#[tokio::test]
async fn explain_names_the_rule_and_the_line_of_every_answer() {
    let dir = throw_away();
    let file = dir.path().join("agent.yaml");
    let text = FILE.replace("DIR", dir.path().to_str().unwrap());
    write_private(&file, text.as_bytes(), 0o600).unwrap();
    let line = |needle: &str| text.lines().position(|line| line.contains(needle)).unwrap() + 1;
    let day = ["--at", "2026-11-22T12:00:00Z", "--client-ip", "192.0.2.7"];
    let explain = async |arguments: &[&str]| {
        let mut command = fairlead_tests::programs::command("fairlead-agent", ["explain", "--config"]);
        command.arg(&file).args(arguments);
        clients::run(command).await
    };
    let (plc, hmi) = ("tcp://plc.plant-7.internal:502", "ssh://hmi.plant-7.internal");
    let at = |name: &str, needle: &str| format!("rule      {name} ({}:{})", file.display(), line(needle));
    let no_rule = || "reason    rule: the agent's own rules: no-rule".to_owned();
    let cases: Vec<(Vec<&str>, i32, Vec<String>)> = vec![
        (
            vec!["ssh://pump-7.plant-7.internal", "--as", "anybody"],
            0,
            vec![
                "every caller that the gateway permits".into(),
                "exactly this address".into(),
            ],
        ),
        (
            vec![plc, "--as", "alice", "--group", "field"],
            0,
            vec![at("field only", "name: field only"), "10.9.0.0/24".into()],
        ),
        (
            vec![plc, "--as", "alice", "--group", "office"],
            77,
            vec![no_rule(), "saw caller.groups = ['office']".into()],
        ),
        (
            vec![plc, "--as", "alice"],
            77,
            vec![no_rule(), "false: 'field' in caller.groups".into()],
        ),
        (
            vec![
                plc,
                "--as",
                "alice",
                "--group",
                "field",
                "--at",
                "2026-11-22T03:00:00Z",
                "--client-ip",
                "192.0.2.7",
            ],
            77,
            vec![at("not at night", "name: not at night"), "deny-rule".into()],
        ),
        (
            vec![
                plc,
                "--as",
                "alice",
                "--group",
                "field",
                "--at",
                "2026-11-22T12:00:00Z",
                "--client-ip",
                "198.51.100.1",
            ],
            77,
            vec![at("not from home", "name: not from home"), "saw conn.client_ip".into()],
        ),
        (
            vec![hmi, "--as", "etl", "--act", "exec", "--command", "date -u"],
            0,
            vec![at("commands", "name: commands")],
        ),
        (
            vec![hmi, "--as", "etl", "--act", "exec", "--command", "rm -rf /"],
            77,
            vec![no_rule(), "ssh.command.startsWith('date')".into()],
        ),
        (vec![hmi, "--as", "etl", "--act", "shell"], 77, vec![no_rule()]),
        (
            vec![hmi, "--as", "alice", "--act", "sftp"],
            77,
            vec![no_rule(), "saw caller.kind = 'user'".into()],
        ),
        (
            vec![hmi, "--as", "alice", "--kind", "workload", "--act", "sftp"],
            0,
            vec![at("files", "name: files")],
        ),
        (
            vec!["tcp://closed.plant-7.internal:1", "--as", "alice"],
            77,
            vec![no_rule()],
        ),
        (
            vec!["tcp://pump-7.plant-7.internal:502", "--as", "alice"],
            77,
            vec!["reason    not-listed".into()],
        ),
        (
            vec!["ssh://pump-8.plant-7.internal", "--as", "alice"],
            77,
            vec!["reason    not-listed".into()],
        ),
    ];
    for (arguments, code, texts) in cases {
        let mut all = arguments.clone();
        if !all.contains(&"--at") {
            all.extend(day);
        }
        let finished = explain(&all).await;
        let said = finished.text();
        assert_eq!(finished.code(), Some(code), "{all:?}: {said}{}", finished.stderr);
        for text in texts {
            assert!(said.contains(&text), "{all:?}: no {text:?} in {said}");
        }
        assert!(
            said.contains("not compared with a running agent: no agent is running"),
            "{said}"
        );
        assert!(said.contains(&audit::hash(text.as_bytes())), "{said}");
    }
    ended_with(&explain(&["http//x", "--as", "alice"]).await, 64, &[]);
    ended_with(&explain(&[plc]).await, 64, &["--as"]);
    let mut none = fairlead_tests::programs::command("fairlead-agent", ["status", "--config"]);
    none.arg(&file);
    ended_with(&clients::run(none).await, 1, &["no agent answers"]);
}

#[tokio::test]
async fn scope_lists_everything_that_can_be_reached_and_the_files_digest() {
    let dir = throw_away();
    let file = dir.path().join("agent.yaml");
    let text = FILE.replace("DIR", dir.path().to_str().unwrap());
    write_private(&file, text.as_bytes(), 0o600).unwrap();
    let scope = async |more: &[&str]| {
        let mut command = fairlead_tests::programs::command("fairlead-agent", ["scope", "--config"]);
        command.arg(&file).args(more);
        clients::run(command).await.succeeded().text()
    };
    let said = scope(&[]).await;
    let mut stock = clients::stock("sha256sum");
    stock.arg(&file);
    let digest = clients::run(stock).await.succeeded().text();
    let digest = digest.split(' ').next().unwrap();
    for text in [
        digest,
        "ssh://pump-7.plant-7.internal",
        "tcp://127.0.0.1:22, exactly this address",
        "every caller that the gateway permits",
        "at addresses in 10.9.0.0/24, fd00:9::/64",
        "field only (line 10)",
        "if 'field' in caller.groups",
        "session: 8h",
        "deny         not at night (line 11)",
        "builtin:ssh",
        "acts: exec",
        "nobody (`rules: []`)",
        "nothing else can be dialled",
    ] {
        assert!(said.contains(text), "no {text:?} in {said}");
    }
    let scope: Value = serde_json::from_str(&scope(&["--json"]).await).unwrap();
    assert_eq!(scope["sha256"], digest);
    assert_eq!(scope["running"]["sha256"], Value::Null);
    let endpoints = scope["endpoints"].as_array().unwrap();
    assert_eq!(endpoints.len(), 4);
    assert_eq!(endpoints[0]["rules"], Value::Null);
    assert_eq!(endpoints[0]["literal_address"], "127.0.0.1");
    assert_eq!(
        endpoints[1]["allow_cidrs"],
        serde_json::json!(["10.9.0.0/24", "fd00:9::/64"])
    );
    assert_eq!(endpoints[1]["rules"][1]["line"], 11);
    assert_eq!(endpoints[3]["rules"], serde_json::json!([]));
}
