//! Two engines and a third that shares nothing with them: random expressions on random requests.
//!
//! The reference (`reference/`) has trees, an evaluator, a calendar and rule semantics of its own, written from
//! docs/policy.md. Gateway and agent get the same expressions as text. What the loader refuses (an expression that always
//! fails, for instance) is left out, and counted. FAIRLEAD_TESTS_ALL=1 runs five times as many.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "tests fail by panicking, and counts are for the reader"
)]
#![expect(
    clippy::disallowed_methods,
    reason = "reads what these tests themselves write; the reader of configuration files is no dependency of this crate"
)]

mod reference {
    pub(crate) mod calendar;
    pub(crate) mod decide;
    pub(crate) mod evaluate;
    pub(crate) mod random;
    pub(crate) mod tree;
}

use fairlead_policy::{AccessPolicy, Decision, DenyReason, LocalRules, Mistake, RuleAsWritten, Source};
use reference::evaluate::{Fault, Scene};
use reference::random::Random;
use reference::tree::Tree;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

fn times(count: usize) -> usize {
    if std::env::var_os("FAIRLEAD_TESTS_ALL").is_some() {
        5 * count
    } else {
        count
    }
}

/// A deny rule for each expression, asked for by its port: `true` denies by the rule, `false` not at all, and what has no
/// value denies as failed.
fn deny_rules(trees: &[(u16, Tree)], sites: &str) -> String {
    let mut text = String::from("version: 1\nrules:\n");
    for (port, tree) in trees {
        // A block: nothing in the expression means anything to YAML.
        let _ = writeln!(
            text,
            "- name: r{port}\n{sites}  effect: deny\n  expressions:\n  - endpoint.port == {port}\n  - |\n    {}",
            tree.text()
        );
    }
    text
}

#[derive(serde::Deserialize)]
struct Rules {
    rules: Vec<RuleAsWritten>,
}

fn gateway(text: &str) -> Result<AccessPolicy, Vec<Mistake>> {
    let (name, text) = ("random.yaml".to_owned(), text.to_owned());
    AccessPolicy::compile(&[Source { name, text }]).map(|(policy, _)| policy)
}

fn agent(text: &str) -> Result<LocalRules, Vec<Mistake>> {
    let rules: Rules = serde_yaml::from_str(&text.replace("version: 1\n", "")).unwrap();
    LocalRules::compile("random.yaml", text, &rules.rules)
}

/// Both engines with the expressions that the loader takes.
fn engines(trees: &mut Vec<(u16, Tree)>) -> (AccessPolicy, LocalRules) {
    let mut at_agent = Some(agent(&deny_rules(trees, "")));
    loop {
        let sited = deny_rules(trees, "  sites: ['*']\n");
        match gateway(&sited) {
            Ok(policy) => {
                let local = at_agent.take().unwrap_or_else(|| agent(&deny_rules(trees, "")));
                return (
                    policy,
                    local.unwrap_or_else(|mistakes| panic!("only the agent refuses: {}", mistakes[0])),
                );
            }
            Err(mistakes) => {
                // Seven lines a rule, after two lines of head.
                let wrong: BTreeSet<u32> = mistakes.iter().map(|m| m.line.saturating_sub(3) / 7).collect();
                if let Some(at_agent) = at_agent.take() {
                    assert!(at_agent.is_err(), "only the gateway refuses: {}", mistakes[0]);
                }
                let mut place = 0;
                trees.retain(|_| {
                    place += 1;
                    !wrong.contains(&(place - 1))
                });
            }
        }
    }
}

fn said(decision: &Decision) -> &'static str {
    match decision {
        Decision::Deny(denied) => match denied.reason {
            DenyReason::DenyRule => "true",
            DenyReason::NoRule => "false",
            DenyReason::EvaluationFailed => "no value",
            other => panic!("{other}"),
        },
        Decision::Allow(_) => panic!("nothing is allowed here"),
    }
}

/// 10,000 expressions in four parts, for as many processors.
#[test]
fn gateway_agent_and_reference_agree_on_expressions_first_part() {
    agree_on_expressions(0x5eed_0001);
}

#[test]
fn gateway_agent_and_reference_agree_on_expressions_second_part() {
    agree_on_expressions(0x5eed_0003);
}

#[test]
fn gateway_agent_and_reference_agree_on_expressions_third_part() {
    agree_on_expressions(0x5eed_0005);
}

#[test]
fn gateway_agent_and_reference_agree_on_expressions_fourth_part() {
    agree_on_expressions(0x5eed_0007);
}

fn agree_on_expressions(seed: u64) {
    let (wanted, mut random) = (times(2_500), Random(seed));
    let (mut expressions, mut refused) = (0, 0);
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    while expressions < wanted {
        let mut trees: Vec<(u16, Tree)> = (0..500).map(|i| (1_000 + i, random.condition(4, None))).collect();
        let (policy, local) = engines(&mut trees);
        expressions += trees.len();
        refused += 500 - trees.len();
        for (port, tree) in &trees {
            for _ in 0..3 {
                let request = random.request(*port);
                let fairlead_policy::Enforcement::Acts(acts) = request.enforce else {
                    panic!()
                };
                let scene = Scene {
                    request: &request,
                    act: acts.first().copied(),
                };
                let expected = match scene.is_true(tree) {
                    Ok(true) => "true",
                    Ok(false) => "false",
                    Err(Fault::Unknown | Fault::Failed) => "no value",
                };
                let (at_gateway, at_agent) = (policy.decide(&request), local.decide(&request));
                assert_eq!(said(&at_gateway), expected, "{}\n{request:#?}", tree.text());
                assert_eq!(said(&at_agent), expected, "{}\n{request:#?}", tree.text());
                *seen.entry(expected).or_default() += 1;
            }
        }
    }
    println!("{expressions} expressions agree ({seen:?}); the loader refused {refused} more");
    assert!(
        seen.values().all(|count| *count > wanted / 20) && seen.len() == 3,
        "{seen:?}"
    );
    assert!(refused < wanted / 3, "{refused} of {wanted} refused");
}

#[test]
fn gateway_agent_and_reference_agree_on_rules() {
    let mut random = Random(0x5eed_0002);
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let mut decided = 0;
    for _ in 0..times(400) {
        let set = reference::decide::RuleSet::random(&mut random);
        let text = set.text(true);
        let Ok(policy) = gateway(&text) else { continue };
        let local = set.everywhere().then(|| agent(&set.text(false)).unwrap());
        for _ in 0..25 {
            let request = reference::decide::request(&mut random);
            let expected = set.decide(&request);
            let got = reference::decide::answer(&policy.decide_with_shadow(&request));
            assert_eq!(got, expected, "{text}\n{request:#?}");
            if let Some(local) = &local {
                let got = reference::decide::answer(&local.decide_with_shadow(&request));
                assert_eq!(got, expected, "at the agent: {text}\n{request:#?}");
            }
            *seen.entry(expected.word.clone()).or_default() += 1;
            decided += 1;
        }
    }
    println!("{decided} decisions agree: {seen:?}");
    for word in [
        "allow",
        "no-rule",
        "deny-rule",
        "evaluation-failed",
        "needs-terminated",
        "other-site",
    ] {
        assert!(seen.get(word).is_some_and(|count| *count > 20), "{word}: {seen:?}");
    }
}
