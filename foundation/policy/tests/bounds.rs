//! Decisions on requests and expressions at the edge of their bounds.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

use fairlead_policy::{
    AccessPolicy, AgentFacts, Caller, CallerKind, Conn, Decision, DenyReason, Enforcement, LocalRules,
    MAX_COMMAND_BYTES, MAX_FACT_BYTES, MAX_LIST_ITEMS, Request, Source, SshFacts,
};
use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};

fn request() -> Request {
    let now = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    Request {
        caller: Caller {
            name: "alice".to_owned(),
            kind: CallerKind::User,
            groups: vec!["field".to_owned()],
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
            started: now,
            tls: None,
        },
        now,
        enforce: Enforcement::Tunnel,
        ssh: None,
        postgres: None,
        mqtt: None,
    }
}

fn policy(expression: &str) -> AccessPolicy {
    let text = format!(
        "version: 1\nrules:\n- name: a\n  sites: ['*']\n  effect: allow\n  expressions:\n  - |\n    {expression}\n"
    );
    compile(&text).unwrap_or_else(|told| panic!("{told}"))
}

fn compile(text: &str) -> Result<AccessPolicy, String> {
    let sources = [Source {
        name: "access.yaml".to_owned(),
        text: text.to_owned(),
    }];
    AccessPolicy::compile(&sources)
        .map(|(policy, _)| policy)
        .map_err(|mistakes| mistakes.iter().map(|m| format!("{m}\n")).collect())
}

fn reason(decision: Decision) -> Option<DenyReason> {
    match decision {
        Decision::Allow(_) => None,
        Decision::Deny(denied) => Some(denied.reason),
    }
}

#[test]
fn no_policy_denies() {
    assert_eq!(
        reason(AccessPolicy::deny_all().decide(&request())),
        Some(DenyReason::NoRule)
    );
    let (nothing, warnings) = AccessPolicy::compile(&[]).unwrap();
    assert_eq!(reason(nothing.decide(&request())), Some(DenyReason::NoRule));
    assert!(warnings.is_empty());
    let none = LocalRules::compile("agent.yaml", "rules: []", &[]).unwrap();
    assert_eq!(reason(none.decide(&request())), Some(DenyReason::NoRule));
}

#[test]
fn requests_beyond_the_bounds_are_denied() {
    let open = policy("true");
    assert_eq!(reason(open.decide(&request())), None);
    let long = "x".repeat(MAX_FACT_BYTES + 1);
    let denied = |change: &dyn Fn(&mut Request)| {
        let mut request = request();
        change(&mut request);
        assert_eq!(reason(open.decide(&request)), Some(DenyReason::EvaluationFailed));
    };
    denied(&|r| r.caller.name.clone_from(&long));
    denied(&|r| r.caller.groups = vec![long.clone()]);
    denied(&|r| r.caller.groups = vec![String::new(); MAX_LIST_ITEMS + 1]);
    denied(&|r| r.caller.labels = BTreeMap::from([(long.clone(), String::new())]));
    denied(&|r| r.agent.labels = BTreeMap::from([(String::new(), long.clone())]));
    denied(&|r| r.agent.labels = (0..=MAX_LIST_ITEMS).map(|i| (i.to_string(), String::new())).collect());
    denied(&|r| {
        let command = "x".repeat(MAX_COMMAND_BYTES + 1);
        r.ssh = Some(SshFacts {
            user: String::new(),
            action: "exec".to_owned(),
            command,
        });
    });
}

#[test]
fn full_lists_are_looped_over_quickly() {
    let mut full = request();
    full.caller.groups = (0..MAX_LIST_ITEMS)
        .map(|i| format!("{i:0>width$}", width = MAX_FACT_BYTES))
        .collect();
    let loops = policy("caller.groups.all(g, g.matches('^[0-9]+$') && g in caller.groups && g + g != caller.name)");
    let started = std::time::Instant::now();
    assert_eq!(reason(loops.decide(&full)), None);
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

#[test]
fn the_deepest_expression_is_evaluated_on_a_small_stack() {
    let deep = [
        "-(".repeat(27) + "1" + &")".repeat(27) + " != 5",
        "size([".repeat(13) + "1" + &"])".repeat(13) + " > 0",
        "1".to_owned() + &"+1".repeat(26) + " == 27",
        "(true?true:".repeat(26) + "true" + &")".repeat(26),
    ];
    for expression in deep {
        let policy = policy(&format!("caller.groups.all(g, {expression})"));
        let decided = std::thread::scope(|scope| {
            // The default of tokio's workers, and far less where frames are not those of a debug build.
            let bytes = if cfg!(debug_assertions) {
                2 * 1024 * 1024
            } else {
                192 * 1024
            };
            let small = std::thread::Builder::new().stack_size(bytes);
            small
                .spawn_scoped(scope, || policy.decide(&request()))
                .unwrap()
                .join()
                .unwrap()
        });
        assert_eq!(reason(decided), None);
    }
}

#[test]
fn a_time_no_calendar_has_is_unknown() {
    let always = policy("time.now > timestamp('2020-01-01T00:00:00Z')");
    let mut request = request();
    assert_eq!(reason(always.decide(&request)), None);
    request.now = UNIX_EPOCH + Duration::from_secs(1 << 50);
    assert_eq!(reason(always.decide(&request)), Some(DenyReason::NoRule));
    request.now = UNIX_EPOCH - Duration::from_secs(86_400);
    assert_eq!(reason(always.decide(&request)), Some(DenyReason::NoRule));
    assert!(always.reads_time());
    assert!(!policy("conn.ts.start > timestamp(0)").reads_time());
}

#[test]
fn the_digest_follows_the_text() {
    let text = |sources: &[(&str, &str)]| {
        let sources: Vec<Source> = sources
            .iter()
            .map(|(n, t)| Source {
                name: (*n).to_owned(),
                text: (*t).to_owned(),
            })
            .collect();
        AccessPolicy::compile(&sources).unwrap().0.digest()
    };
    let one = text(&[("a", "version: 1\n")]);
    assert_eq!(one.len(), 64);
    assert_eq!(one, text(&[("b", "version: 1\n")]));
    assert_ne!(one, text(&[("a", "version: 1 \n")]));
    assert_ne!(one, text(&[("a", "version: 1\n"), ("b", "version: 1\n")]));
}

#[test]
fn tests_of_a_file_run_when_it_loads() {
    let rules = "version: 1\nrules:\n- {name: field, sites: [plant-7], effect: allow, expressions: [\"'field' in caller.groups\"]}\n- {name: shells, sites: [plant-7], effect: allow, actions: [shell], expressions: [\"caller.name == 'bob'\"]}\n";
    let with = |test: &str| compile(&format!("{rules}tests:\n- {{name: t, {test}}}\n"));
    let alice = "caller: {name: alice, groups: [field]}, endpoint: ssh://pump-7.plant-7.internal";
    let bob = "caller: {name: bob}, endpoint: ssh://pump-7.plant-7.internal";
    for right in [
        format!("{alice}, expect: allow"),
        format!("{alice}, expect: allow, rule: field"),
        format!("{bob}, expect: deny"),
        format!("{bob}, act: shell, expect: allow"),
        format!("{bob}, act: exec, expect: deny"),
    ] {
        with(&right).unwrap_or_else(|told| panic!("{right}: {told}"));
    }
    for (wrong, told) in [
        (
            format!("{alice}, expect: deny"),
            "access.yaml:6:3: test `t` failed: expected deny, got allowed",
        ),
        (format!("{bob}, expect: allow"), "got denied (needs-terminated)"),
        (
            format!("{alice}, expect: allow, rule: shells"),
            "but not by rule `shells`",
        ),
        (format!("{bob}, act: sftpp, expect: deny"), "ssh has no act `sftpp`"),
        (format!("{alice}, expect: alow"), "`expect` is allow or deny"),
        (format!("{alice}, expct: allow"), "unknown key `expct`"),
        (
            "caller: {name: a}, endpoint: \"ssh://10.0.0.1\", expect: deny".to_owned(),
            "is an IP address",
        ),
        (format!("{alice}, now: yesterday, expect: allow"), "`now` is a time"),
        (format!("{alice}, client_ip: here, expect: allow"), "invalid IP address"),
        (
            "caller: {name: a, kind: usr}, endpoint: ssh://a, expect: deny".to_owned(),
            "did you mean `user`?",
        ),
    ] {
        let got = with(&wrong).expect_err(&wrong);
        assert!(got.contains(told), "{wrong}:\n{got}");
    }
}

#[test]
fn names_are_unique_across_files() {
    let file = |name: &str| Source {
        name: name.to_owned(),
        text: "version: 1\nrules:\n- {name: a, sites: ['*'], effect: allow}\n".to_owned(),
    };
    let mistakes = AccessPolicy::compile(&[file("one.yaml"), file("two.yaml")]).unwrap_err();
    let told = mistakes[0].to_string();
    assert!(
        told.starts_with("two.yaml:3:10: a rule `a` exists already") && told.contains("see one.yaml:3"),
        "{told}"
    );
}

#[test]
fn mistakes_of_all_files_are_told_at_once() {
    let file = |name: &str, text: &str| Source {
        name: name.to_owned(),
        text: text.to_owned(),
    };
    let mistakes = AccessPolicy::compile(&[
        file("one.yaml", "version: 1\nrules:\n- {name: a, sites: ['*'], effect: alow, expressions: [\"caler.name == ''\", \"1 == 'a'\"]}\n"),
        file("two.yaml", "version: [\n"),
        file("three.yaml", "version: 1\nrule: []\n"),
    ])
    .unwrap_err();
    let files: Vec<&str> = mistakes.iter().map(|m| m.file.as_str()).collect();
    assert_eq!(files, ["one.yaml", "one.yaml", "one.yaml", "two.yaml", "three.yaml"]);
}
