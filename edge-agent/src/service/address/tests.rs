use super::*;

fn surroundings() -> Surroundings {
    Surroundings {
        own: vec!["10.9.0.77".parse().unwrap(), "2001:db8::77".parse().unwrap()],
        gateway: vec!["203.0.113.9".parse().unwrap()],
    }
}

fn asked(address: &str, ranges: &[&str]) -> Result<IpAddr, Forbidden> {
    let ranges: Vec<IpNet> = ranges.iter().map(|range| range.parse().unwrap()).collect();
    admit(address.parse().unwrap(), &ranges, &surroundings())
}

#[test]
fn special_addresses_are_refused_in_every_spelling() {
    use Forbidden::{Broadcast, Gateway, LinkLocal, Loopback, Metadata, Multicast, Own, ThisHost};
    for (v4, why) in [
        ("127.0.0.1", Loopback),
        ("127.255.255.254", Loopback),
        ("0.0.0.0", ThisHost),
        ("0.1.2.3", ThisHost),
        ("169.254.0.1", LinkLocal),
        ("169.254.169.254", Metadata),
        ("100.100.100.200", Metadata),
        ("224.0.0.1", Multicast),
        ("239.255.255.255", Multicast),
        ("255.255.255.255", Broadcast),
        ("10.9.0.77", Own),
        ("203.0.113.9", Gateway),
    ] {
        let [a, b, c, d] = v4.parse::<Ipv4Addr>().unwrap().octets();
        let hex = |a: u8, b: u8| format!("{a:02x}{b:02x}");
        let (high, low) = (hex(a, b), hex(c, d));
        let (not_high, not_low) = (hex(!a, !b), hex(!c, !d));
        for spelling in [
            v4.to_owned(),
            format!("::ffff:{v4}"),
            format!("::ffff:{high}:{low}"),
            format!("::ffff:0:{v4}"),
            format!("64:ff9b::{v4}"),
            format!("2002:{high}:{low}::1"),
            format!("2001:0:{high}:{low}:0:0:f6f6:f6fa"),
            format!("2001:0:909:909::{not_high}:{not_low}"),
            format!("2001:db8::5efe:{v4}"),
            format!("2001:db8::200:5efe:{v4}"),
        ] {
            assert_eq!(asked(&spelling, &[]), Err(why), "{spelling}");
        }
        if v4 != "0.0.0.0" {
            assert_eq!(asked(&format!("::{v4}"), &[]), Err(why));
        }
        if a != 0 {
            // The local translator's prefix may be 48, 56 or 64 bits long.
            for spelling in [
                format!("64:ff9b:1::{v4}"),
                format!("64:ff9b:1:abcd::{v4}"),
                format!("64:ff9b:1:{high}:{c:02x}:{d:02x}00::"),
                format!("64:ff9b:1:ab{a:02x}:{b:02x}:{c:02x}{d:02x}::"),
                format!("64:ff9b:1:abcd:{a:02x}:{b:02x}{c:02x}:{d:02x}00:0"),
            ] {
                assert_eq!(asked(&spelling, &[]), Err(why), "{spelling}");
            }
        }
    }
}

#[test]
fn special_addresses_of_ipv6_are_refused() {
    for (address, why) in [
        ("::", Forbidden::ThisHost),
        ("::1", Forbidden::Loopback),
        ("fe80::1", Forbidden::LinkLocal),
        ("febf:ffff::1", Forbidden::LinkLocal),
        ("ff02::1", Forbidden::Multicast),
        ("fd00:ec2::254", Forbidden::Metadata),
        ("fd20:ce::254", Forbidden::Metadata),
        ("2001:db8::77", Forbidden::Own),
    ] {
        assert_eq!(asked(address, &[]), Err(why), "{address}");
        // A range that holds it changes nothing: only the literal in the file does.
        assert_eq!(asked(address, &["::/0", "0.0.0.0/0"]), Err(why), "{address}");
    }
}

#[test]
fn what_is_dialled_is_what_was_judged() {
    for (address, dialled) in [
        ("10.9.0.5", "10.9.0.5"),
        ("::ffff:10.9.0.5", "10.9.0.5"),
        ("::10.9.0.5", "10.9.0.5"),
        ("64:ff9b::10.9.0.5", "64:ff9b::10.9.0.5"),
        ("fd00::5", "fd00::5"),
        ("64:ff9b:1::10.9.0.5", "64:ff9b:1::10.9.0.5"),
    ] {
        assert_eq!(asked(address, &[]), Ok(dialled.parse().unwrap()), "{address}");
    }
}

#[test]
fn ranges_hold_for_every_spelling() {
    let inside = &["10.9.0.0/24"];
    for address in ["10.9.0.5", "::ffff:10.9.0.5", "::10.9.0.5", "64:ff9b::10.9.0.5"] {
        asked(address, inside).unwrap();
    }
    for address in [
        "10.9.1.5",
        "::ffff:10.9.1.5",
        "64:ff9b::10.9.1.5",
        // Another host, whatever is behind it.
        "2002:0a09:0005::1",
        "64:ff9b:1::10.9.0.5",
        "fd00::5",
    ] {
        assert_eq!(asked(address, inside), Err(Forbidden::OutsideRanges), "{address}");
    }
    for local in [
        "64:ff9b:1::10.9.0.5",
        "64:ff9b:1:0a09:0:0500::",
        "64:ff9b:1:abcd:000a:0900:0500:0",
    ] {
        asked(local, &["64:ff9b:1::/48"]).unwrap();
    }
}
