use super::*;

#[tokio::test]
async fn explain_says_which_rule_and_what_it_saw() {
    let terminal = Terminal::open().await;
    terminal.device("pump-7", "plant-7", "tier=edge").await;
    let key = terminal.file("alice.pub", &format!("{KEY}\n"));
    terminal
        .run(&format!("users add alice --ssh-key-file {key} --group fields"))
        .await
        .unwrap();
    let explain = "policy explain --as alice --to ssh://pump-7.plant-7.internal";
    let told = terminal.run(explain).await.unwrap();
    for part in [
        "denied (no-rule): alice to ssh://pump-7.plant-7.internal",
        "   allow field (access.yaml:3) does not match\n       false: 'field' in caller.groups",
        "caller.groups = ['fields']",
        "agent pump-7.plant-7:",
    ] {
        assert!(told.contains(part), "{part} is not in\n{told}");
    }
    terminal.run("users group alice field").await.unwrap();
    let told = terminal.run(explain).await.unwrap();
    assert!(told.starts_with("allowed by field (access.yaml:3): alice"), "{told}");
    assert!(told.contains("=> allow field (access.yaml:3) matches"), "{told}");
    let json = terminal
        .run("policy explain --as alice --to ssh://pump-7.plant-7.internal:2222 --act exec --at 2026-01-31T23:00:00Z --from 10.1.2.3 --json")
        .await
        .unwrap();
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        (&json["acts"][0], &json["at"], &json["client_ip"]),
        (&"exec".into(), &1_769_900_400.into(), &"10.1.2.3".into())
    );
    let told = terminal.run(&format!("{explain} --act shell")).await.unwrap();
    assert!(told.contains("note: this endpoint is a tunnel"), "{told}");
    let told = terminal
        .run("policy explain --as alice --to tcp://pump-7.plant-7.internal:22")
        .await
        .unwrap();
    assert!(
        told.contains("denied (unknown-endpoint)") && told.contains("offers ssh"),
        "{told}"
    );
    terminal.run("users disable alice").await.unwrap();
    let told = terminal.run(explain).await.unwrap();
    assert!(told.starts_with("denied (disabled)"), "{told}");
    for (wrong, code, said) in [
        (
            "policy explain --as bob --to ssh://pump-7.plant-7",
            1,
            "there is no user or workload `bob`",
        ),
        ("policy explain --as alice --to ssh://10.0.0.1", 64, "IP address"),
        (
            "policy explain --as alice --to ssh://pump-7.plant-7 --act publish",
            64,
            "no act `publish`",
        ),
    ] {
        let (exit, text) = terminal.refused(wrong).await;
        assert!(exit == code && text.contains(said), "{wrong}: {exit} {text}");
    }
}

#[tokio::test]
async fn the_matrix_lists_exactly_what_a_change_opens_and_closes() {
    let terminal = Terminal::open().await;
    terminal.device("pump-7", "plant-7", "tier=edge").await;
    terminal.device("pump-8", "plant-8", "tier=core").await;
    let key = terminal.file("a.pub", &format!("{KEY}\n"));
    terminal
        .run(&format!("users add alice --ssh-key-file {key} --group field"))
        .await
        .unwrap();
    terminal
        .run(&format!("users add bob --ssh-key-file {key} --group ops"))
        .await
        .unwrap();
    terminal
        .run(&format!(
            "users add carol --ssh-key-file {key} --site plant-8 --group field"
        ))
        .await
        .unwrap();
    let old = terminal.file("old.yaml", "version: 1\nrules:\n- {name: field, sites: ['*'], effect: allow, expressions: [\"'field' in caller.groups\"]}\n");
    let new = terminal.file("new.yaml", "version: 1\nrules:\n- {name: edge, sites: ['*'], effect: allow, expressions: [\"'field' in caller.groups && agent.labels.tier == 'edge'\"]}\n- {name: shells, sites: [plant-8], effect: allow, actions: [shell], expressions: [\"caller.name in ['bob', 'carol']\"]}\n");

    let json: Value =
        serde_json::from_str(&terminal.run(&format!("policy matrix {old} --json")).await.unwrap()).unwrap();
    let pairs: Vec<String> = json["reach"].as_array().unwrap().iter().map(pair).collect();
    assert_eq!(
        pairs,
        [
            "alice ssh://pump-7.plant-7.internal",
            "alice ssh://pump-7.plant-7.internal:2222",
            "alice ssh://pump-8.plant-8.internal",
            "alice ssh://pump-8.plant-8.internal:2222",
            "carol ssh://pump-8.plant-8.internal",
            "carol ssh://pump-8.plant-8.internal:2222",
        ]
    );
    assert_eq!(json["pairs"], 12);

    let command = format!("policy matrix {new} --against {old}");
    let json: Value = serde_json::from_str(&terminal.run(&format!("{command} --json")).await.unwrap()).unwrap();
    let changes: Vec<String> = json["changes"].as_array().unwrap().iter().map(change).collect();
    assert_eq!(
        changes,
        [
            "alice ssh://pump-8.plant-8.internal +[] -[tunnel]",
            "alice ssh://pump-8.plant-8.internal:2222 +[] -[exec,sftp,shell]",
            "bob ssh://pump-8.plant-8.internal:2222 +[shell] -[]",
            "carol ssh://pump-8.plant-8.internal +[] -[tunnel]",
            "carol ssh://pump-8.plant-8.internal:2222 +[] -[exec,sftp]",
        ]
    );
    let table = terminal.run(&command).await.unwrap();
    assert!(
        table.contains("needs-terminated shells") && table.contains("no-rule"),
        "{table}"
    );
    assert!(terminal.notes.take().contains("1 pairs open and 4 close, of 12."));
    let none = terminal
        .run(&format!("policy matrix {old} --against {old}"))
        .await
        .unwrap();
    assert_eq!(none, "");

    let one = terminal
        .run(&format!(
            "policy matrix {new} --caller bob --endpoint ssh://pump-8.plant-8:2222"
        ))
        .await
        .unwrap();
    assert!(one.lines().count() == 2 && one.contains("shells"), "{one}");
    let (code, text) = terminal.refused(&format!("policy matrix {new} --caller nobody")).await;
    assert!(code == 1 && text.contains("no such caller"), "{text}");
    let (code, text) = terminal.refused("policy matrix").await;
    assert!(code == 1 && text.contains("the disk was full"), "{text}");
    let (code, text) = terminal.refused(&format!("policy matrix {old} --against {key}")).await;
    assert!(code == 78, "{text}");
}

fn pair(one: &Value) -> String {
    format!(
        "{} {}",
        one["caller"].as_str().unwrap(),
        one["endpoint"].as_str().unwrap()
    )
}

fn change(one: &Value) -> String {
    let acts = |of: &str| {
        let acts: Vec<&str> = one[of]
            .as_array()
            .unwrap()
            .iter()
            .map(|act| act.as_str().unwrap())
            .collect();
        acts.join(",")
    };
    format!("{} +[{}] -[{}]", pair(one), acts("opens"), acts("closes"))
}

#[tokio::test]
async fn a_dry_run_lists_the_sessions_a_reload_would_cut() {
    let terminal = Terminal::open().await;
    let told = terminal.run("policy reload --dry-run").await.unwrap();
    assert!(
        told.contains("would cut 1 live session") && told.contains("Nothing was changed"),
        "{told}"
    );
    assert!(told.contains(SESSION) && told.contains("deny-rule"), "{told}");
    assert!(terminal.notes.take().contains("warning: hm"));
}

#[tokio::test]
async fn tests_of_files_run_without_a_gateway() {
    let terminal = Terminal::open().await;
    let rules = "version: 1\nrules:\n- {name: a, sites: ['*'], effect: allow, expressions: [\"caller.name == 'al'\"]}\ntests:\n";
    let test = "- {name: al, caller: {name: al}, endpoint: 'ssh://h', expect: allow}\n";
    let good = terminal.file("good.yaml", &format!("{rules}{test}"));
    assert_eq!(
        terminal.run(&format!("policy test {good}")).await.unwrap(),
        "1 test passed.\n"
    );
    let bad = terminal.file(
        "bad.yaml",
        &format!("{rules}{}", test.replace("name: al}", "name: bo}")),
    );
    let (code, text) = terminal.refused(&format!("policy test {bad}")).await;
    assert!(
        code == 78 && text.contains("bad.yaml:5:3: test `al` failed: expected allow, got denied (no-rule)"),
        "{text}"
    );
}
