//! Policy files made to hurt, given to all who read policy: `fairlead policy check` as a process of its own, the agent's
//! check likewise, and a running gateway by a reload, whose policy stays.
//!
//! SECURITY.md A10: an error within 500 ms and 64 MiB. Time and peak memory of each child are printed; the memory is a limit
//! of the test, the time only loosely, for unoptimised programs on a busy machine.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "tests fail by panicking, and measured figures are for the reader"
)]

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use fairlead::admin_client::api::{AccessExplained, ExplainAccess, PolicyFiles, PolicyReloaded};
use fairlead_runtime::config_file::write_private;
use fairlead_tests::clients;
use fairlead_tests::lab::Lab;
use fairlead_tests::programs;
use hyper::Method;
use nix::sys::resource::{UsageWho, getrusage};

/// Peak memory of a child, in KiB.
const MAX_RSS_KIB: i64 = 64 * 1024;
/// Ten times the goal.
const SOON: Duration = Duration::from_secs(5);

/// A file of 100 MB, most of it a hole: what a test process holds in memory counts for the children it forks.
const HUGE: &str = "100 MB";

struct Bomb {
    name: &'static str,
    text: String,
    /// Part of what is said.
    said: &'static str,
}

fn bomb(name: &'static str, text: impl Into<String>, said: &'static str) -> Bomb {
    let text = text.into();
    Bomb { name, text, said }
}

/// What hurts a reader of YAML, whatever the file is for.
fn yaml() -> Vec<Bomb> {
    let mut aliases = String::from("version: 1\na0: &a0 [x]\n");
    for n in 1..30 {
        let _ = writeln!(
            aliases,
            "a{n}: &a{n} [*a{0}, *a{0}, *a{0}, *a{0}, *a{0}, *a{0}, *a{0}, *a{0}]",
            n - 1
        );
    }
    vec![
        bomb("alias bomb", aliases, "aliases"),
        bomb(
            "50,000 deep, flow",
            format!("version: 1\nrules: {}", "[".repeat(50_000)),
            ":2:",
        ),
        bomb("50,000 deep, block", format!("{}x\n", "- ".repeat(50_000)), ":1:"),
        bomb(HUGE, "", "is larger than"),
        bomb("duplicate key", "version: 1\nversion: 1\n", "twice"),
        bomb(
            "unknown keys",
            "version: 1\nrulez: []\nendpointz: []\n",
            ":3:1: unknown key `endpointz`",
        ),
        bomb("merge key", "version: 1\n<<: {rules: []}\n", ":2:"),
        bomb("tabs", "version: 1\nrules:\n\t- name: a\n", ":3:"),
        bomb(
            "byte order mark in the middle",
            "version: 1\n\u{feff}\u{feff}rulez: []\n",
            ":2:",
        ),
        bomb("NUL", "version: 1\0\n", ":1:"),
        bomb("no text", "version: \u{1}\n", ":1:"),
    ]
}

/// What hurts a reader of expressions.
fn cel() -> Vec<(&'static str, String, &'static str)> {
    vec![
        (
            "2,000 terms",
            format!("{}1 == 1", "1+".repeat(2_000)),
            "bytes; at most 2048",
        ),
        (
            "900 terms",
            format!("{}1 == 1", "1+".repeat(900)),
            "nested deeper than 32 levels",
        ),
        (
            "deep brackets",
            format!("{}1{} == 1", "(".repeat(900), ")".repeat(900)),
            "",
        ),
        (
            "nested maps",
            format!("{}1{} == 1", "{'a':".repeat(300), "}".repeat(300)),
            "",
        ),
        (
            "loops in loops",
            "[1].all(a, [1].all(b, [1].all(c, true)))".to_owned(),
            "inside a loop",
        ),
        ("unknown name", "caler.name == 'x'".to_owned(), "did you mean `caller`?"),
        (
            "unknown function",
            "caller.name.mtches('x')".to_owned(),
            "did you mean `matches`?",
        ),
        (
            "wrong type",
            "caller.name == 1".to_owned(),
            "does not work on a string and an int",
        ),
        (
            "invalid pattern",
            "caller.name.matches('(')".to_owned(),
            "found open group without closing",
        ),
        ("huge pattern", "caller.name.matches('(a{200}){200}')".to_owned(), ""),
        ("overflow", "9223372036854775807 + 1 == 0".to_owned(), "out of range"),
        (
            "bad range",
            "inCidrRange(conn.client_ip, '10.0.0.0/33')".to_owned(),
            "not an address range",
        ),
        ("not boolean", "size(caller.groups)".to_owned(), "must be true or false"),
    ]
}

fn access() -> Vec<Bomb> {
    let rule = |text: &str| {
        format!("version: 1\nrules:\n- name: a\n  sites: ['*']\n  effect: allow\n  expressions:\n  - |\n    {text}\n")
    };
    let many: String = (0..10_001)
        .map(|n| format!("- {{name: r{n}, sites: ['*'], effect: allow}}\n"))
        .collect();
    let mut bombs = yaml();
    bombs.push(bomb(
        "10,001 rules",
        format!("version: 1\nrules:\n{many}"),
        "10001 rules; at most 10000",
    ));
    bombs.extend(
        cel()
            .into_iter()
            .map(|(name, text, said)| bomb(name, rule(&text), said)),
    );
    bombs
}

fn agent() -> Vec<Bomb> {
    let rule = |text: &str| {
        format!(
            "version: 1\nendpoints:\n- url: ssh://pump-7\n  upstream: {{ url: \"tcp://127.0.0.1:22\" }}\n  rules:\n  - name: a\n    effect: allow\n    expressions:\n    - |\n      {text}\n"
        )
    };
    let mut bombs = yaml();
    // Agents' files have other words for these.
    bombs
        .iter_mut()
        .filter(|bomb| ["alias bomb", "merge key", "tabs", "NUL", "no text"].contains(&bomb.name))
        .for_each(|bomb| bomb.said = "");
    bombs.extend(
        cel()
            .into_iter()
            .map(|(name, text, said)| bomb(name, rule(&text), said)),
    );
    bombs
}

/// Runs `program ARGUMENTS FILE` on each; every one ends with 78, says so in its place, soon and small.
async fn all_refused(bombs: &[Bomb], program: &str, arguments: &[&str]) {
    let dir = programs::throw_away();
    let file = dir.path().join("bomb.yaml");
    for bomb in bombs {
        put(&file, bomb);
        let mut command = programs::command(program, arguments);
        command.arg(&file);
        let started = Instant::now();
        let finished = clients::run(command).await;
        let took = started.elapsed();
        // The largest of all children so far: what one needs, the later ones are shown with too.
        let peak = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap().max_rss();
        println!(
            "{program} {}: {took:.0?}, at most {} MiB so far",
            bomb.name,
            peak / 1024
        );
        let said = finished.stderr_without_session();
        let shown: String = said.chars().take(2_000).collect();
        assert_eq!(finished.code(), Some(78), "{}: {shown}", bomb.name);
        assert!(
            said.contains(bomb.said) && said.contains("bomb.yaml"),
            "{}: {shown}",
            bomb.name
        );
        assert!(said.len() < 200_000, "{}: {} bytes", bomb.name, said.len());
        assert!(took < SOON, "{} took {took:?}", bomb.name);
        assert!(peak < MAX_RSS_KIB, "{}: {peak} KiB", bomb.name);
    }
}

#[tokio::test]
async fn policy_check_refuses_each_soon_and_small() {
    all_refused(&access(), "fairlead", &["policy", "check"]).await;
}

#[tokio::test]
async fn the_agents_check_refuses_each_soon_and_small() {
    all_refused(&agent(), "fairlead-agent", &["check", "--config"]).await;
}

#[tokio::test]
async fn a_running_gateway_refuses_each_and_keeps_its_policy() {
    let mut lab = Lab::start().await;
    lab.agent("pump-7")
        .endpoint("ssh://pump-7", "builtin:ssh")
        .start()
        .await;
    lab.user_with_key("alice", &["field"]).await;
    let before: PolicyFiles = lab.admin().get("/v1/policy").await.unwrap();
    let file = lab.path("gateway/access.yaml");
    for bomb in access() {
        put(&file, &bomb);
        let reloaded: Result<PolicyReloaded, _> = lab.admin().send(Method::POST, "/v1/policy/reload", &()).await;
        let error = reloaded.expect_err(bomb.name).to_string();
        assert!(
            error.contains(bomb.said) && error.contains("last good policy stays"),
            "{}: {error}",
            bomb.name
        );
        let question = ExplainAccess {
            caller: "alice".into(),
            to: "ssh://pump-7".into(),
            ..Default::default()
        };
        let answer: AccessExplained = lab
            .admin()
            .send(Method::POST, "/v1/policy/explain", &question)
            .await
            .unwrap();
        assert!(
            answer.allowed && answer.policy == before.digest,
            "{}: {answer:?}",
            bomb.name
        );
    }
    lab.stop().await;
}

fn put(file: &Path, bomb: &Bomb) {
    write_private(file, bomb.text.as_bytes(), 0o600).unwrap();
    if bomb.name == HUGE {
        let file = std::fs::OpenOptions::new().write(true).open(file).unwrap();
        file.set_len(100 * 1024 * 1024).unwrap();
    }
}
