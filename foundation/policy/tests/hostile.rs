//! Input made to hurt: each piece gives a mistake soon, and never ends the process.
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

use fairlead_policy::{AccessPolicy, LocalRules, Mistake, RuleAsWritten, Source};
use std::fmt::Write;
use std::time::{Duration, Instant};

/// Generous for a debug build on a busy machine; what hurts takes minutes or forever.
const SOON: Duration = Duration::from_secs(10);

fn load(text: String) -> Result<(), Vec<Mistake>> {
    let started = Instant::now();
    let sources = [Source {
        name: "hostile.yaml".to_owned(),
        text,
    }];
    let result = AccessPolicy::compile(&sources).map(|_| ());
    let took = started.elapsed();
    assert!(took < SOON, "took {took:?}");
    result
}

/// The file is refused, and the first mistake says `said`.
fn refused(text: impl Into<String>, said: &str) {
    let text = text.into();
    let shown: String = text.chars().take(80).collect();
    let mistakes = load(text).expect_err(&shown);
    let all: String = mistakes.iter().map(|m| format!("{m}\n")).collect();
    assert!(all.contains(said), "{shown:?} gave:\n{all}");
    assert!(all.len() < 200_000, "{} bytes of mistakes", all.len());
}

/// A file with one rule and this expression, in a style of YAML that needs no escapes.
fn with_expression(expression: &str) -> String {
    let mut text =
        String::from("version: 1\nrules:\n- name: a\n  sites: ['*']\n  effect: allow\n  expressions:\n  - |\n");
    for line in expression.lines() {
        let _ = writeln!(text, "    {line}");
    }
    text
}

fn expression_refused(expression: &str, said: &str) {
    refused(with_expression(expression), said);
}

#[test]
fn alias_bombs_and_anchors_are_refused() {
    let mut bomb = String::from("a0: &a0 [x]\n");
    for i in 1..30 {
        let _ = writeln!(
            bomb,
            "a{i}: &a{i} [*a{0}, *a{0}, *a{0}, *a{0}, *a{0}, *a{0}, *a{0}, *a{0}]",
            i - 1
        );
    }
    refused(bomb, "anchors and aliases are not used");
    refused("version: 1\nrules: &r []\n", "anchors and aliases are not used");
    refused("a: &a\n  b: *a\n", "anchors and aliases are not used");
}

#[test]
fn depth_is_bounded_in_every_style() {
    refused(format!("rules: {}", "[".repeat(50_000)), "hostile.yaml:1:");
    refused(format!("rules: {}", "{a: ".repeat(50_000)), "hostile.yaml:1:");
    let blocks: String = (0..2_000).map(|i| format!("{}a:\n", " ".repeat(i))).collect();
    refused(blocks, "hostile.yaml:");
    refused(format!("{}x", "- ".repeat(50_000)), "hostile.yaml:");
    refused(
        format!("rules: {}x{}", "[".repeat(40), "]".repeat(40)),
        "hostile.yaml:1:",
    );
}

#[test]
fn sizes_are_bounded() {
    refused("#".repeat(4 * 1024 * 1024 + 1), "at most 4194304 are read");
    refused("x".repeat(100 * 1024 * 1024), "at most 4194304 are read");
    refused(
        format!("rules: [{}]", "[],".repeat(1_300_000)),
        "more than 250000 values",
    );
    let many: String = (0..10_001)
        .map(|i| format!("- {{name: r{i}, sites: ['*'], effect: allow}}\n"))
        .collect();
    refused(
        format!("version: 1\nrules:\n{many}"),
        "10001 rules; at most 10000 are read",
    );
    let files: Vec<Source> = (0..1001)
        .map(|i| Source {
            name: format!("{i}"),
            text: String::new(),
        })
        .collect();
    assert!(AccessPolicy::compile(&files).is_err());
}

#[test]
fn a_page_of_garbage_is_not_a_page_of_mistakes_without_end() {
    let rules: String = (0..9_000)
        .map(|i| format!("- {{name: r{i}, sites: ['*'], efect: allow}}\n"))
        .collect();
    let mistakes = load(format!("version: 1\nrules:\n{rules}")).unwrap_err();
    assert_eq!(mistakes.len(), 101);
    assert!(mistakes[100].to_string().contains("more than 100 mistakes"));
    let keys: String = (0..20_000).map(|i| format!("k{i}: 1\n")).collect();
    assert_eq!(load(keys).unwrap_err().len(), 101);
}

#[test]
fn keys_are_unique_and_known() {
    refused(
        "version: 1\nversion: 1\n",
        "hostile.yaml:2:1: `version` is written twice",
    );
    refused(
        "version: 1\nrules: []\nrules: []\n",
        "hostile.yaml:3:1: `rules` is written twice",
    );
    refused("version: 1\nrule: []\n", "did you mean `rules`?");
    refused("version: 1\n1: 2\n", "a key of the access policy is text");
    refused("version: 1\n? [a, b]\n: c\n", "hostile.yaml:2:");
    refused("version: 1\n? {a: b}\n: c\n", "hostile.yaml:2:");
}

#[test]
fn merge_keys_are_refused() {
    refused("version: 1\n<<: {rules: []}\n", "merge keys are not used");
    refused(
        "version: 1\nrules:\n- <<: {effect: allow}\n  name: a\n  sites: ['*']\n",
        "merge keys are not used",
    );
    refused("version: 1\n<<: [{rules: []}]\n", "merge keys are not used");
}

#[test]
fn bytes_that_are_no_text_are_refused() {
    refused("version: 1\nrules:\n\t- name: a\n", "hostile.yaml:3:2: tabs");
    refused("version: 1\0\nrules: []\n", "hostile.yaml:1:11: a NUL byte");
    refused("version: 1\nname\u{1}: x\n", "hostile.yaml:2:");
    refused("version: 1\n---\nversion: 1\n", "several documents");
    refused("%YAML 9.9\n---\nversion: 1\nx: 1\n", "hostile.yaml:");
    refused("version: !!python/object:os.system 1\n", "hostile.yaml:1:");
    refused("!include /etc/passwd", "hostile.yaml:1:");
    refused("", "the file is empty");
    refused("~", "the file is empty");
    refused("# only a comment\n", "the file is empty");
}

#[test]
fn a_byte_order_mark_alone_is_fine() {
    assert!(load("\u{feff}version: 1\nrules: []\n".to_owned()).is_ok());
}

#[test]
fn types_are_not_guessed() {
    refused("version: '1'\n", "version 1");
    refused("version: 1.0\n", "version 1");
    refused("version: 99999999999999999999999\n", "version 1");
    refused("version: .nan\n", "hostile.yaml:1:");
    refused("version: 1\nrules: yes\n", "`rules` is a list");
    let rule = |field: &str| format!("version: 1\nrules:\n- {{name: a, sites: ['*'], effect: allow, {field}}}\n");
    refused(rule("enforce: yes"), "`enforce` is true or false");
    refused(rule("enforce: 'true'"), "`enforce` is true or false");
    refused(rule("expressions: true"), "`expressions` is a list");
    refused(rule("expressions: [true]"), "`expressions` takes text");
    refused(rule("expressions:"), "`expressions` is a list, not nothing");
    refused(
        rule("limits: {session: 99999999999999999999h}"),
        "`99999999999999999999h` is not a duration",
    );
    refused(rule("limits: {sessions_per_caller: -1}"), "a whole number from 1");
    refused(
        rule("limits: {sessions_per_caller: 4294967296}"),
        "a whole number from 1",
    );
    refused(rule(&format!("actions: [{}]", "shell, ".repeat(300))), "at most 256");
    refused(rule(&format!("x: {}", "y".repeat(100_000))), "unknown key `x`");
    refused(rule(&format!("{}: 1", "y".repeat(1_000))), "unknown key `yyy");
}

#[test]
fn long_chains_are_refused_before_they_are_parsed() {
    for chain in [
        "1+".repeat(2_000) + "1 == 1",
        "caller.name".to_owned() + &".b".repeat(5_000),
        "caller.groups".to_owned() + &"[0]".repeat(5_000),
        "'a'+".repeat(2_000) + "'a' == ''",
        "true && ".repeat(2_000) + "true",
        "true ? true : ".repeat(2_000) + "true",
        "!".repeat(5_000) + "true",
        "(".repeat(100_000) + &")".repeat(100_000),
    ] {
        expression_refused(&chain, "at most 2048 are read");
    }
}

#[test]
fn chains_within_the_size_are_refused_by_their_tree() {
    for chain in [
        "1+".repeat(1_000) + "1 == 1",
        "caller.name".to_owned() + &".b".repeat(1_000),
        "caller.groups".to_owned() + &"[0]".repeat(650),
        "'a'+".repeat(500) + "'a' == ''",
        "true?true:".repeat(200) + "true",
        "caller.name".to_owned() + &".size()".repeat(280),
        "-(".repeat(600) + "1" + &")".repeat(600),
    ] {
        assert!(chain.len() <= 2048);
        expression_refused(&chain, "hostile.yaml:8:");
    }
    expression_refused(&("true&&".repeat(300) + "true"), "more than 256 parts");
}

#[test]
fn deep_brackets_are_refused() {
    for (open, close) in [("(", ")"), ("[", "]"), ("!(", ")"), ("{1:", "}"), ("size([", "])")] {
        for depth in [40, 97, 300] {
            let text = open.repeat(depth) + "1" + &close.repeat(depth);
            if open != "(" || depth > 90 {
                expression_refused(&text, "hostile.yaml:8:");
            }
        }
    }
    expression_refused(&"(".repeat(2_000), "hostile.yaml:8:");
    expression_refused(&"[".repeat(2_000), "hostile.yaml:8:");
    expression_refused(&"a(".repeat(1_000), "hostile.yaml:8:");
    expression_refused(&"?:".repeat(1_000), "hostile.yaml:8:");
    expression_refused(&")".repeat(2_000), "hostile.yaml:8:");
}

#[test]
fn loops_in_loops_are_refused() {
    expression_refused("caller.groups.all(a, caller.groups.all(b, a == b))", "inside a loop");
    expression_refused(
        "caller.groups.map(a, caller.groups.map(b, a + b)) == []",
        "inside a loop",
    );
    expression_refused(
        "[1,2].map(a, [1,2].map(b, [1,2].map(c, a))).size() > 0",
        "inside a loop",
    );
    let long_list = format!("[{}].all(x, x > 0)", vec!["1"; 300].join(","));
    expression_refused(&long_list, "more than 256 parts");
}

#[test]
fn literals_that_cannot_work_are_refused() {
    for (expression, said) in [
        ("9223372036854775807 + 1 == 0", "out of range"),
        ("-9223372036854775808 - 1 == 0", "out of range"),
        ("1 / 0 == 0", "division by zero"),
        ("1 % 0 == 0", "division by zero"),
        ("99999999999999999999 == 0", "hostile.yaml:8:"),
        ("'\\ud800' == ''", "hostile.yaml:8:"),
        ("'\\U00110000' == ''", "hostile.yaml:8:"),
        (
            "timestamp('9999-12-31T23:59:59Z') + duration('1s') > time.now",
            "out of range",
        ),
        ("timestamp(99999999999999) > time.now", "hostile.yaml:8:"),
        ("duration('99999999999999h') > duration('1s')", "is not a duration"),
        ("caller.name.matches('(a{200}){200}')", "hostile.yaml:8:"),
        ("caller.name.matches('(((((((((((((((((((((')", "hostile.yaml:8:"),
        ("caller.name.matches('\\\\p{Greek}')", "hostile.yaml:8:"),
        ("int('x') == 1", "always fails"),
        ("{'a': 1, 'a': 2}['a'] == 1", "hostile.yaml:8:"),
        ("['a'][1] == 'a'", "always fails"),
        ("\"unclosed", "hostile.yaml:8:"),
        ("caller.name == 'é' && caller.nme == ''", "hostile.yaml:8:27"),
    ] {
        expression_refused(expression, said);
    }
}

#[test]
fn nested_maps_are_bounded() {
    let map = "{'a':".repeat(100) + "1" + &"}".repeat(100);
    expression_refused(&format!("{map} == {map}"), "hostile.yaml:8:");
    let wide: String = (0..150).map(|i| format!("'k{i}':1,")).collect();
    expression_refused(&format!("size({{{wide}}}) > 0"), "more than 256 parts");
}

#[test]
fn the_agents_rules_are_bounded_alike() {
    let text = format!(
        "- {{name: a, effect: allow, expressions: ['{}1 == 1']}}\n",
        "1+".repeat(900)
    );
    let rules: Vec<RuleAsWritten> = serde_yaml::from_str(&text).unwrap();
    let mistakes = LocalRules::compile("agent.yaml", &text, &rules).unwrap_err();
    assert!(mistakes[0].to_string().starts_with("agent.yaml:1:"), "{}", mistakes[0]);
    let sites = "- {name: a, effect: allow, sites: ['*']}\n";
    let rules: Vec<RuleAsWritten> = serde_yaml::from_str(sites).unwrap();
    let mistakes = LocalRules::compile("agent.yaml", sites, &rules).unwrap_err();
    assert!(
        mistakes[0].to_string().contains("unknown key `sites`"),
        "{}",
        mistakes[0]
    );
}

/// Files and expressions that were right until something fell on the keyboard: refused or loaded, never a crash. The
/// generator is a fixed one (xorshift), so that a failure can be run again.
#[test]
fn scrambled_text_is_refused_or_loaded() {
    let right = with_expression(
        "caller.groups.exists(g, g.matches('^[a-z]+$')) && inCidrRange(conn.client_ip, '10.0.0.0/8') || time.now.getHours('UTC') > 3",
    );
    let pieces = [
        "'", "\"", "(", ")", "[", "]", "{", "}", "\\", "&&", "?", ":", "\n", "\t", "- ", "#", "@", "é", "\u{1}",
        "1e999", "r'", "in", "..", "*a", "&a", "|", "0x",
    ];
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % u64::try_from(below).unwrap()).unwrap()
    };
    let mut loaded = 0;
    for _ in 0..1_500 {
        let mut text: Vec<char> = right.chars().collect();
        for _ in 0..=random(3) {
            let at = random(text.len());
            let until = (at + random(4)).min(text.len());
            text.splice(at..until, pieces[random(pieces.len())].chars());
        }
        loaded += usize::from(load(text.into_iter().collect()).is_ok());
    }
    assert!(loaded < 1_500);
}

#[test]
fn tests_of_a_set_are_bounded() {
    let rules: String = (0..5_000)
        .map(|i| format!("- {{name: r{i}, sites: ['*'], effect: allow}}\n"))
        .collect();
    let test = "- {name: t, caller: {name: a}, endpoint: 'ssh://h.s', expect: allow}\n".repeat(5_000);
    refused(
        format!("version: 1\nrules:\n{rules}tests:\n{test}"),
        "more than 1000000 evaluations",
    );
}
