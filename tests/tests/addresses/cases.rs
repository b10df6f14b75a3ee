//! What a name server says, and what must come of it.

use std::net::IpAddr;
use std::time::Duration;

use fairlead_tests::name_server::{Says, v4, v6};

use super::{Case, Due, GATEWAY, GOOD, OWN};

/// Special addresses, which no name may lead to.
const SPECIAL_V4: &[&str] = &[
    "127.0.0.1",
    "127.0.0.53",
    "127.255.255.254",
    "0.0.0.0",
    "0.1.2.3",
    "169.254.169.254",
    "169.254.170.2",
    "169.254.0.1",
    "100.100.100.200",
    "168.63.129.16",
    "224.0.0.1",
    "239.255.255.250",
    "255.255.255.255",
    OWN.0,
    GATEWAY,
];
const SPECIAL_V6: &[&str] = &[
    "::1",
    "::",
    "fe80::1",
    "fe80::5efe:10.9.0.5",
    "ff02::1",
    "fd00:ec2::254",
    "fd20:ce::254",
    OWN.1,
];
/// Innocent addresses that are not in [`RANGES`].
const OUTSIDE: &[&str] = &["10.8.0.5", "10.9.1.5", "192.168.1.1", "8.8.8.8"];

/// Every case, each for an endpoint of its own.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = meant();
    let refused = |what: String, says: Says, in_ranges: bool| Case {
        what,
        says,
        in_ranges,
        due: vec![Due::Refused("address-refused")],
    };
    for bad in SPECIAL_V4 {
        for (spelling, address) in spellings(bad) {
            cases.push(refused(format!("{bad} {spelling}"), Says::These(vec![address]), false));
        }
    }
    for bad in SPECIAL_V4
        .iter()
        .chain(OUTSIDE)
        .map(|bad| v4(bad))
        .chain(SPECIAL_V6.iter().map(|bad| v6(bad)))
    {
        let chain = vec!["inner.edge.test".to_owned(), "db.internal.test".to_owned()];
        cases.push(refused(
            format!("{bad} behind CNAMEs"),
            Says::Through(chain, vec![bad]),
            true,
        ));
        let mixed = Says::These(vec![v4(GOOD.0), bad, v4(GOOD.1)]);
        cases.push(refused(format!("{bad} among good ones"), mixed, true));
    }
    for bad in SPECIAL_V6 {
        cases.push(refused(format!("{bad} alone"), Says::These(vec![v6(bad)]), false));
    }
    for bad in OUTSIDE {
        cases.push(refused(format!("{bad} alone"), Says::These(vec![v4(bad)]), true));
    }
    cases.extend(manners());
    assert!(
        (200..=256).contains(&cases.len()),
        "{} cases; a file lists at most 256",
        cases.len()
    );
    cases
}

/// The control cases: names that lead where they should.
fn meant() -> Vec<Case> {
    let good = |what: &str, says: Says, in_ranges: bool, dialled: &[IpAddr]| Case {
        what: what.into(),
        says,
        in_ranges,
        due: vec![Due::Dialled(dialled.to_vec())],
    };
    let (one, other) = (v4(GOOD.0), v4(GOOD.1));
    let mapped = vec![v6(&format!("::ffff:{}", GOOD.0))];
    let chain = vec!["db.internal.test".to_owned()];
    let (translated, local) = (v6("64:ff9b::10.9.0.5"), v6("fd00:9::5"));
    vec![
        good("one address", Says::These(vec![one]), true, &[one]),
        good("two addresses", Says::These(vec![one, other]), true, &[one, other]),
        good("an address anywhere", Says::These(vec![other]), false, &[other]),
        good("a mapped address", Says::These(mapped), true, &[one]),
        good("behind a CNAME", Says::Through(chain, vec![one]), true, &[one]),
        good(
            "NAT64 of an allowed address",
            Says::These(vec![translated]),
            true,
            &[translated],
        ),
        good("an address of IPv6", Says::These(vec![local]), false, &[local]),
        good("64 addresses", Says::These(vec![one; 64]), true, &[one]),
        good(
            "late by 2 s",
            Says::Late(Duration::from_millis(1500), vec![one]),
            true,
            &[one],
        ),
        good(
            "a forged answer first",
            Says::Forged(vec![v4("127.0.0.1")], vec![one]),
            true,
            &[one],
        ),
    ]
}

/// Name servers with bad manners.
fn manners() -> Vec<Case> {
    let (good, bad) = (v4(GOOD.0), v4("127.0.0.1"));
    let case = |what: &str, says: Says, due: Vec<Due>| Case {
        what: what.into(),
        says,
        in_ranges: true,
        due,
    };
    let failed = || vec![Due::Refused("lookup-failed")];
    let refused = || vec![Due::Refused("address-refused")];
    let many = |count: u16| {
        (0..count)
            .map(|n| v4(&format!("10.9.0.{}", n % 200 + 1)))
            .collect::<Vec<_>>()
    };
    vec![
        case(
            "rebinding between two sessions",
            Says::InTurn(vec![vec![good], vec![bad], vec![good]]),
            [
                vec![Due::Dialled(vec![good])],
                refused(),
                vec![Due::Dialled(vec![good])],
            ]
            .concat(),
        ),
        case(
            "rebinding after the first answer",
            Says::InTurn(vec![vec![bad], vec![good]]),
            [refused(), vec![Due::Dialled(vec![good])]].concat(),
        ),
        case("600 records", Says::These(many(600)), refused()),
        case(
            "600 good records of one address",
            Says::These(vec![good; 600]),
            refused(),
        ),
        case("65 records", Says::These(many(65)), refused()),
        case("no record", Says::These(Vec::new()), failed()),
        case(
            "a chain to nothing",
            Says::Through(vec!["inner.edge.test".into()], Vec::new()),
            failed(),
        ),
        case("SERVFAIL", Says::Error(2), failed()),
        case("REFUSED", Says::Error(5), failed()),
        case("silence", Says::Silence, failed()),
        case("garbage", Says::Garbage, failed()),
        case("late by 20 s", Says::Late(Duration::from_secs(20), vec![bad]), failed()),
    ]
}

/// One special IPv4 address in the spellings that a name server can give.
fn spellings(address: &str) -> Vec<(&'static str, IpAddr)> {
    let IpAddr::V4(v4_address) = v4(address) else {
        unreachable!()
    };
    let [a, b, c, d] = v4_address.octets();
    let (high, low) = (format!("{a:02x}{b:02x}"), format!("{c:02x}{d:02x}"));
    let (not_high, not_low) = (format!("{:02x}{:02x}", !a, !b), format!("{:02x}{:02x}", !c, !d));
    let mut spellings = vec![
        ("plain", v4(address)),
        ("mapped", v6(&format!("::ffff:{address}"))),
        ("translated", v6(&format!("::ffff:0:{address}"))),
        ("NAT64", v6(&format!("64:ff9b::{address}"))),
        ("6to4", v6(&format!("2002:{high}:{low}::1"))),
        ("Teredo", v6(&format!("2001:0:909:909::{not_high}:{not_low}"))),
        ("ISATAP", v6(&format!("2001:db8::5efe:{address}"))),
    ];
    if a != 0 {
        spellings.push(("compatible", v6(&format!("::{address}"))));
        spellings.push(("NAT64 at a local prefix", v6(&format!("64:ff9b:1::{address}"))));
    }
    spellings
}
