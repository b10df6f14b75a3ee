use super::*;
use crate::guard::Guard;
use crate::policy::AccessPolicy;
use crate::policy::Source;
use crate::request::{AgentFacts, Caller, CallerKind, Conn, SshFacts};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::{Duration, UNIX_EPOCH};

/// xorshift: the same numbers on every run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % u64::try_from(limit).unwrap()).unwrap()
    }

    fn one<'t>(&mut self, of: &[&'t str]) -> &'t str {
        of[self.below(of.len())]
    }

    fn often(&mut self, of_ten: usize) -> bool {
        self.below(10) < of_ten
    }
}

/// Every kind of part that a guard is made of, beside parts that fail, are unknown, or only look like one.
const PARTS: &[&str] = &[
    "caller.name == 'a'",
    "'b' == caller.name",
    "caller.name in ['a', 'c', 'a']",
    "caller.name in []",
    "caller.kind == 'workload'",
    "caller.site == ''",
    "caller.site == 's1'",
    "'g1' in caller.groups",
    "'g2' in caller.groups",
    "'' in caller.groups",
    "caller.labels['k'] == 'v'",
    "caller.labels.k == ''",
    "caller.labels['k'] in ['v', '']",
    "caller.labels['k'] in ['v', 'w']",
    "'v' == caller.labels['absent']",
    "has(caller.labels.k)",
    "'k' in caller.labels",
    "'tier' in agent.labels",
    "agent.labels['tier'] == 'edge'",
    "agent.labels.tier == 'core'",
    "agent.name == 'h'",
    "agent.site in ['s1', 's2']",
    "endpoint.host == 'h'",
    "endpoint.port == 22",
    "endpoint.port in [22, 5432]",
    "endpoint.port == 22.0",
    "endpoint.port in [22u, 23u]",
    "endpoint.url == 'ssh://h.s1.internal'",
    "endpoint.protocol == 'ssh'",
    "endpoint.protocol in ['postgres', 'tcp']",
    "conn.client_ip == '192.0.2.1'",
    "(caller.name == 'a' || 'g1' in caller.groups)",
    "(agent.labels.tier == '' || endpoint.host == 'h' || caller.name in ['b'])",
    "(caller.name == 'a' || int(caller.labels.k) > 1)",
    "!(caller.name == 'a')",
    "caller.name != 'a'",
    "int(caller.labels.k) > 1",
    "caller.groups[0] == 'g1'",
    "1 / size(caller.groups) > 0",
    "inCidrRange(caller.labels.ip, '10.0.0.0/8')",
    "caller.groups.exists(g, g == 'g1')",
    "caller.name + 'x' == 'ax'",
    "(caller.name == 'a' ? true : endpoint.host == 'h')",
    "time.now > timestamp(0)",
    "true",
    "false",
];
const OF_SSH: &[&str] = &["ssh.user == 'root'", "ssh.action == 'shell'", "ssh.command != ''"];

fn rules(random: &mut Random, count: usize) -> String {
    let mut text = String::from("version: 1\nrules:\n");
    for number in 0..count {
        let mut expressions = Vec::new();
        for _ in 0..random.below(3) {
            let mut parts: Vec<&str> = (0..=random.below(3)).map(|_| random.one(PARTS)).collect();
            if random.often(1) {
                let place = random.below(parts.len() + 1);
                parts.insert(place, random.one(OF_SSH));
            }
            let mut joined = parts.join(" && ");
            if random.often(1) {
                joined = format!("{joined} || {}", random.one(PARTS));
            }
            expressions.push(format!("\"{joined}\""));
        }
        let sites = random.one(&["['*']", "[s1]", "[s2]", "[s1, s2]"]);
        let effect = random.one(&["allow", "allow", "deny"]);
        let actions = if random.often(2) { ", actions: [shell]" } else { "" };
        let enforce = !random.often(2);
        let _ = writeln!(
            text,
            "- {{name: r{number}, sites: {sites}, effect: {effect}, enforce: {enforce}, expressions: [{}]{actions}}}",
            expressions.join(", ")
        );
    }
    text
}

fn request(random: &mut Random) -> Request {
    let site = random.one(&["s1", "s2", "s3"]).to_owned();
    let groups: Vec<String> = ["g1", "g2", ""]
        .into_iter()
        .filter(|_| random.often(4))
        .map(str::to_owned)
        .collect();
    let mut labels = |keys: &[(&str, &[&str])]| {
        let mut labels = BTreeMap::new();
        for (key, values) in keys {
            if random.often(6) {
                labels.insert((*key).to_owned(), random.one(values).to_owned());
            }
        }
        labels
    };
    let caller_labels = labels(&[("k", &["v", "w", "", "7"]), ("ip", &["10.1.1.1", "none"])]);
    let agent_labels = labels(&[("tier", &["edge", "core", ""])]);
    let url = random.one(&["ssh://h", "ssh://i", "postgres://h", "tcp://h:22", "tcp://i:9"]);
    let (host, port) = url
        .rsplit_once(':')
        .filter(|(_, p)| p.parse::<u16>().is_ok())
        .unwrap_or((url, ""));
    let port = if port.is_empty() {
        String::new()
    } else {
        format!(":{port}")
    };
    let now = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let acts = random.often(5);
    Request {
        caller: Caller {
            name: random.one(&["a", "b", "c"]).to_owned(),
            kind: if random.often(5) {
                CallerKind::User
            } else {
                CallerKind::Workload
            },
            groups,
            labels: caller_labels,
            site: random.often(2).then(|| site.clone()),
        },
        agent: AgentFacts {
            name: random.one(&["h", "i"]).to_owned(),
            site: site.clone(),
            labels: agent_labels,
        },
        endpoint: format!("{host}.{site}.internal{port}").parse().unwrap(),
        conn: Conn {
            client_ip: random
                .one(&["192.0.2.1", "::ffff:192.0.2.1", "10.0.0.1"])
                .parse()
                .unwrap(),
            client_port: 1,
            started: now,
            tls: None,
        },
        now,
        enforce: if acts {
            Enforcement::Acts(&["shell", "exec", "sftp"])
        } else {
            Enforcement::Tunnel
        },
        ssh: (acts && random.often(4)).then(|| SshFacts {
            user: random.one(&["root", "pi"]).to_owned(),
            action: random.one(&["shell", "exec"]).to_owned(),
            command: String::new(),
        }),
        postgres: None,
        mqtt: None,
    }
}

fn compile(text: String) -> AccessPolicy {
    let source = Source {
        name: "random.yaml".to_owned(),
        text,
    };
    AccessPolicy::compile(&[source])
        .unwrap_or_else(|mistakes| panic!("{}", mistakes[0]))
        .0
}

/// The decision without the index, without guards and without early ends: every rule in scope, in order.
fn linear(rules: &RuleSet, request: &Request, stage: Stage) -> (Decision, Vec<ShadowMatch>) {
    let facts = match rules.facts(request) {
        Ok(facts) => facts,
        Err(reason) => return (deny(reason, None), Vec::new()),
    };
    let mut tally = Tally::of(request, stage, Shadow::Heard);
    for (place, rule) in rules.rules.iter().enumerate() {
        if rule.is_at(&request.agent.site) && rule.is_about(request.endpoint.protocol) {
            tally.hear(place, rule, &rules.engine, &facts);
        }
    }
    tally.verdict()
}

#[test]
fn what_the_index_leaves_out_changes_nothing() {
    let thorough = std::env::var_os("FAIRLEAD_TESTS_ALL").is_some();
    let (mut random, sets) = (Random(0x9e37_79b9_7f4a_7c15), if thorough { 2_000 } else { 150 });
    let (mut seen, mut left_out, mut asked) = (BTreeMap::<String, usize>::new(), 0, 0);
    for _ in 0..sets {
        let count = 1 + random.below(30);
        let text = rules(&mut random, count);
        let policy = compile(text.clone());
        for _ in 0..60 {
            let request = request(&mut random);
            let set = policy.rule_set();
            for stage in [Stage::Final, Stage::Opening] {
                let plain = linear(set, &request, stage);
                assert_eq!(set.hear(&request, stage, Shadow::Heard), plain, "{text}\n{request:#?}");
                assert_eq!(
                    set.hear(&request, stage, Shadow::Skipped).0,
                    plain.0,
                    "{text}\n{request:#?}"
                );
                *seen
                    .entry(match &plain.0 {
                        Decision::Allow(_) => "allow".to_owned(),
                        Decision::Deny(denied) => denied.reason.to_string(),
                    })
                    .or_default() += 1;
            }
            if let Ok(facts) = set.facts(&request) {
                asked += set.len();
                left_out += set.len() - set.index.candidates(&facts).len();
            }
        }
    }
    // Otherwise the test would show nothing.
    for answer in ["allow", "no-rule", "deny-rule", "needs-terminated", "evaluation-failed"] {
        assert!(seen.get(answer).is_some_and(|n| *n > 100), "{answer}: {seen:?}");
    }
    assert!(left_out * 2 > asked, "the index leaves out {left_out} of {asked}");
}

#[test]
fn a_rule_is_looked_up_by_its_rarest_words() {
    let mut text = String::from("version: 1\nrules:\n");
    for number in 0..1_000 {
        let _ = writeln!(
            text,
            "- {{name: r{number}, sites: [s1], effect: allow, expressions: [\"'g1' in caller.groups && endpoint.host == 'h{number}'\"]}}"
        );
    }
    let policy = compile(text);
    let mut request = request(&mut Random(1));
    request.agent.site = "s1".to_owned();
    request.caller.site = None;
    request.endpoint = "ssh://h7.s1.internal".parse().unwrap();
    let set = policy.rule_set();
    let facts = set.facts(&request).unwrap();
    assert_eq!(set.index.candidates(&facts), [7]);
}

#[test]
fn each_fact_of_a_guard_is_what_expressions_read() {
    use cel_interpreter::common::types::CelInt;
    let (engine, mut random) = (Engine::new(), Random(7));
    for _ in 0..50 {
        let request = request(&mut random);
        let facts = Facts::of(&request, &engine).unwrap();
        for fact in crate::guard::Fact::ALL {
            let read = facts.read(fact.variable(), None).unwrap();
            let number = read.downcast_ref::<CelInt>().map(|n| n.inner().to_string());
            let text = read.downcast_ref::<CelString<'_>>().map(|t| t.inner().to_owned());
            assert_eq!(number.or(text).as_deref(), Some(facts.text(fact)), "{fact:?}");
        }
    }
}

#[test]
fn parts_that_can_fail_are_no_guards() {
    let guards_of = |expression: &str| {
        let text = format!(
            "version: 1\nrules:\n- {{name: a, sites: ['*'], effect: allow, expressions: [\"{expression}\"]}}\n"
        );
        compile(text).rule_set().rules[0]
            .guards()
            .iter()
            .map(Guard::can_be_looked_up)
            .collect::<Vec<_>>()
    };
    for none in [
        "int(caller.labels.k) == 3",
        "caller.groups[0] == 'g'",
        "ssh.user in ['a'] || caller.name == 'a'",
        "conn.client_port == 3",
        "caller.name == caller.labels.k",
        "!(caller.name == 'a')",
        "caller.name == 'a' ? true : false",
    ] {
        let expected = if none.contains("ssh") { vec![true] } else { vec![] };
        assert_eq!(guards_of(none), expected, "{none}");
    }
    assert_eq!(guards_of("caller.name == 'a' && endpoint.port == 1"), [true, true]);
    assert_eq!(guards_of("caller.labels.k == ''"), [false]);
    assert_eq!(guards_of("caller.labels.k == '' || caller.name == 'a'"), [false]);
}
