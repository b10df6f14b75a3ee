use secrecy::ExposeSecret;

use super::*;

fn sample() -> JoinString {
    JoinString {
        kind: JoinKind::Agent,
        addresses: vec!["gw.example.com:443".to_owned(), "[2001:db8::1]:8443".to_owned()],
        domain: "gw.example.com".to_owned(),
        ca_sha256: [0xab; 32],
        secret: JoinSecret::from_bytes([0xcd; 32]),
    }
}

fn text_of(join: &JoinString) -> String {
    join.encode().unwrap().expose_secret().to_owned()
}

fn resealed(content: &[u8]) -> String {
    let mut bytes = content.to_vec();
    bytes.extend(checksum(content));
    format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))
}

#[test]
fn a_join_string_reads_back_and_survives_a_shell() {
    for kind in [JoinKind::Agent, JoinKind::User, JoinKind::Workload] {
        let join = JoinString { kind, ..sample() };
        let text = text_of(&join);
        let safe = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        assert!(text.starts_with("fl1-") && text.chars().all(safe));
        assert!(JoinString::parse(&format!("  {text}\r\n")).unwrap() == join);
    }
}

#[test]
fn a_cut_string_is_told_from_a_foreign_one() {
    let text = text_of(&sample());
    for length in PREFIX.len()..text.len() {
        assert_eq!(JoinString::parse(&text[..length]), Err(JoinError::Damaged), "{length}");
    }
    assert_eq!(JoinString::parse(""), Err(JoinError::NotAJoinString));
    assert_eq!(JoinString::parse("hunter2"), Err(JoinError::NotAJoinString));
    assert_eq!(JoinString::parse("flx-abc"), Err(JoinError::NotAJoinString));
    assert_eq!(JoinString::parse("fl2-abc"), Err(JoinError::NewerVersion));
    assert_eq!(JoinString::parse(&"a".repeat(2000)), Err(JoinError::TooLong));
}

#[test]
fn each_mistyped_letter_is_noticed() {
    let text = text_of(&sample());
    for at in PREFIX.len()..text.len() {
        let other = if text.as_bytes()[at] == b'A' { "B" } else { "A" };
        let mut wrong = text.clone();
        wrong.replace_range(at..=at, other);
        assert_eq!(JoinString::parse(&wrong), Err(JoinError::Damaged), "{at}");
    }
    let wrapped = format!("{}\n{}", &text[..40], &text[40..]);
    assert_eq!(JoinString::parse(&wrapped), Err(JoinError::BadCharacter(41)));
}

#[test]
fn whole_strings_with_impossible_content_are_unreadable() {
    let good = URL_SAFE_NO_PAD.decode(&text_of(&sample())[4..]).unwrap();
    let content = &good[..good.len() - CHECKSUM_BYTES];
    assert!(JoinString::parse(&resealed(content)).is_ok());
    let mut unknown_kind = content.to_vec();
    unknown_kind[0] = 9;
    let mut no_address = content.to_vec();
    no_address[1] = 0;
    let mut many_addresses = content.to_vec();
    many_addresses[1] = 200;
    let mut bad_address = content.to_vec();
    bad_address[3] = b' ';
    let longer = [content, &[0]].concat();
    for bad in [
        unknown_kind,
        no_address,
        many_addresses,
        bad_address,
        longer,
        Vec::new(),
    ] {
        let read = JoinString::parse(&resealed(&bad));
        assert!(matches!(read, Err(JoinError::Unreadable(_))), "{read:?}");
    }
    for length in 0..content.len() {
        let read = JoinString::parse(&resealed(&content[..length]));
        assert!(matches!(read, Err(JoinError::Unreadable(_))), "{length}");
    }
}

#[test]
fn only_usable_parts_are_written() {
    let with = |addresses: &[&str], domain: &str| JoinString {
        addresses: addresses.iter().map(|a| (*a).to_owned()).collect(),
        domain: domain.to_owned(),
        ..sample()
    };
    for (addresses, domain) in [
        (&[][..], "gw.example.com"),
        (&["a:1", "a:2", "a:3", "a:4", "a:5"], "gw.example.com"),
        (&["gw.example.com"], "gw.example.com"),
        (&["gw.example.com:0"], "gw.example.com"),
        (&["gw example:443"], "gw.example.com"),
        (&["2001:db8::1:443"], "gw.example.com"),
        (&["gw.example.com:443"], "Gw.example.com"),
        (&["gw.example.com:443"], ""),
    ] {
        let encoded = with(addresses, domain).encode().map(|_| ());
        assert!(
            matches!(encoded, Err(JoinError::Unwritable(_))),
            "{addresses:?} {domain}"
        );
    }
    assert!(
        with(&["127.0.0.1:8443", "[::1]:8443", "localhost:1"], "localhost")
            .encode()
            .is_ok()
    );
}

#[test]
fn the_secret_does_not_print() {
    let join = sample();
    let secret_text = URL_SAFE_NO_PAD.encode([0xcd_u8; 32]);
    for shown in [format!("{join:?}"), format!("{:?}", join.encode())] {
        let lower = shown.to_lowercase();
        assert!(!lower.contains("cdcd") && !lower.contains("205"), "{shown}");
        assert!(!shown.contains(&secret_text), "{shown}");
    }
}

#[test]
fn secrets_compare_and_hash() {
    let secret = JoinSecret::from_bytes([1; 32]);
    assert!(secret == JoinSecret::from_bytes([1; 32]));
    assert!(secret != JoinSecret::from_bytes([2; 32]));
    assert_eq!(secret.sha256(), <[u8; 32]>::from(Sha256::digest([1; 32])));
    assert!(JoinSecret::generate().unwrap() != JoinSecret::generate().unwrap());
}
