//! How long decisions take: `cargo bench -p fairlead-policy`. Prints a table; fails nothing, since it depends on the machine.
//!
//! Each line is one policy: how many rules, how they are spread, how long it took to load, and the time of single decisions.
//! *one site* and *spread* are rules as people write them, found by the index. *no index* is the worst case: no rule has a
//! part that the index reads, so each is evaluated, and none matches. *all match* is 10,000 rules that all hold: the first
//! decides and the rest is not looked at. Half the decisions of the first two are permits.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a program for people at a terminal"
)]

use fairlead_policy::{AccessPolicy, AgentFacts, Caller, CallerKind, Conn, Enforcement, Request, Source};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::{Duration, Instant, UNIX_EPOCH};

/// Name, and the text of the nth rule's site and expression.
type Layout = (&'static str, fn(usize) -> (String, String), usize);

const LAYOUTS: &[Layout] = &[
    ("one site", |n| ("s0".to_owned(), by_host(n)), 20_000),
    ("spread", |n| (format!("s{}", n % 1_000), by_host(n)), 20_000),
    (
        "all match",
        |_| ("s0".to_owned(), "'field' in caller.groups".to_owned()),
        20_000,
    ),
    (
        "no index",
        |n| ("s0".to_owned(), format!("caller.name.startsWith('nobody-{n}')")),
        300,
    ),
];

fn by_host(n: usize) -> String {
    format!(
        "'g{}' in caller.groups && endpoint.host == 'h{n}' && agent.labels['tier'] == 'edge'",
        n % 100
    )
}

fn policy(count: usize, rule: fn(usize) -> (String, String)) -> (AccessPolicy, Duration) {
    let mut text = String::from("version: 1\nrules:\n");
    for n in 0..count {
        let (site, expression) = rule(n);
        let _ = writeln!(
            text,
            "- {{name: r{n}, sites: [{site}], effect: allow, expressions: [\"{expression}\"]}}"
        );
    }
    let source = Source {
        name: "bench.yaml".to_owned(),
        text,
    };
    let started = Instant::now();
    let policy = AccessPolicy::compile(&[source])
        .unwrap_or_else(|mistakes| panic!("{}", mistakes[0]))
        .0;
    (policy, started.elapsed())
}

/// The request that rule `n` of the first layouts allows, or almost.
fn request(n: usize, site: &str, permitted: bool) -> Request {
    let now = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let group = format!("g{}", if permitted { n % 100 } else { (n + 1) % 100 });
    Request {
        caller: Caller {
            name: "alice".to_owned(),
            kind: CallerKind::User,
            groups: vec!["field".to_owned(), group, "night".to_owned()],
            labels: BTreeMap::from([("team".to_owned(), "red".to_owned())]),
            site: None,
        },
        agent: AgentFacts {
            name: format!("h{n}"),
            site: site.to_owned(),
            labels: BTreeMap::from([
                ("tier".to_owned(), "edge".to_owned()),
                ("row".to_owned(), "2".to_owned()),
            ]),
        },
        endpoint: format!("ssh://h{n}.{site}.internal").parse().unwrap(),
        conn: Conn {
            client_ip: "192.0.2.1".parse().unwrap(),
            client_port: 40_000,
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

fn main() {
    println!("rules   layout     load       p50        p99        max");
    for count in [1, 1_000, 10_000] {
        for (name, rule, decisions) in LAYOUTS {
            let (policy, load) = policy(count, *rule);
            let mut times = Vec::with_capacity(*decisions);
            for round in 0..*decisions {
                let n = round.wrapping_mul(7_919) % count;
                let request = request(n, &rule(n).0, round % 2 == 0);
                let started = Instant::now();
                let decision = policy.decide(&request);
                times.push(started.elapsed());
                let expected = *name == "all match" || (*name != "no index" && round % 2 == 0);
                assert_eq!(decision.is_allowed(), expected, "{name} {n}");
            }
            times.sort_unstable();
            let at = |of_hundred: usize| times[(times.len() - 1) * of_hundred / 100];
            println!(
                "{count:<7} {name:<10} {load:<10.1?} {:<10.1?} {:<10.1?} {:.1?}",
                at(50),
                at(99),
                at(100)
            );
        }
    }
}
