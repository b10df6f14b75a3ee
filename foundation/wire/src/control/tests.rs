use super::*;
use crate::samples::{self, texts};

/// The field that `check` complains about after `spoil` changed a sound message.
fn field_after<M>(mut message: M, check: fn(&M) -> Result<(), CheckError>, spoil: impl FnOnce(&mut M)) -> &'static str {
    assert_eq!(check(&message), Ok(()), "the sample is sound");
    spoil(&mut message);
    check(&message).expect_err("the spoiled message is refused").field
}

#[test]
fn hello_is_bounded() {
    let spoiled = |spoil: fn(&mut Hello)| field_after(samples::hello(), Hello::check, spoil);
    assert_eq!(spoiled(|m| m.version_min = 0), "version_min");
    assert_eq!(spoiled(|m| m.version_max = m.version_min - 1), "version_max");
    assert_eq!(spoiled(|m| m.requires = vec!["x".to_owned(); 33]), "requires");
    assert_eq!(spoiled(|m| m.requires = texts(&[""])), "requires");
    assert_eq!(spoiled(|m| m.requires = vec!["x".repeat(129)]), "requires");
    assert_eq!(spoiled(|m| m.boot_id.truncate(15)), "boot_id");
    assert_eq!(spoiled(|m| m.boot_id.push(0)), "boot_id");
    assert_eq!(spoiled(|m| m.software.clear()), "software");
    assert_eq!(spoiled(|m| m.software = "x".repeat(65)), "software");
    assert_eq!(spoiled(|m| m.software.push('\n')), "software");
    assert_eq!(
        spoiled(|m| m.reported = (0..65).map(|n| (n.to_string(), String::new())).collect()),
        "reported"
    );
    assert_eq!(spoiled(|m| m.reported = samples::map(&[("", "x")])), "reported");
    assert_eq!(
        spoiled(|m| m.reported = samples::map(&[("os", "\u{1b}[2J")])),
        "reported"
    );
    assert_eq!(
        spoiled(|m| m.reported = samples::map(&[("os", &"x".repeat(257))])),
        "reported"
    );
    assert_eq!(spoiled(|m| m.roots_sha256 = vec![vec![0; 32]; 9]), "roots_sha256");
    assert_eq!(spoiled(|m| m.roots_sha256 = vec![vec![0; 31]]), "roots_sha256");
    assert_eq!(spoiled(|m| m.link = 16), "link");
}

#[test]
fn an_authority_and_the_roots_kept_are_bounded() {
    let spoiled = |spoil: fn(&mut Authority)| field_after(samples::authority(), Authority::check, spoil);
    assert_eq!(spoiled(|m| m.roots.clear()), "roots");
    assert_eq!(spoiled(|m| m.roots = vec![vec![0x30]; 9]), "roots");
    assert_eq!(spoiled(|m| m.roots = vec![vec![]]), "roots");
    assert_eq!(spoiled(|m| m.roots = vec![vec![0; 4097]]), "roots");
    assert_eq!(spoiled(|m| m.issuing_sha256.truncate(31)), "issuing_sha256");
    let welcomed = |spoil: fn(&mut Welcome)| field_after(samples::welcome(), Welcome::check, spoil);
    assert_eq!(welcomed(|m| m.authority = Some(Authority::default())), "roots");
    let spoiled = |spoil: fn(&mut RootsKept)| field_after(samples::roots_kept(), RootsKept::check, spoil);
    assert_eq!(spoiled(|m| m.roots_sha256.clear()), "roots_sha256");
    assert_eq!(spoiled(|m| m.roots_sha256 = vec![vec![0; 33]]), "roots_sha256");
    assert_eq!(spoiled(|m| m.roots_sha256 = vec![vec![0; 32]; 9]), "roots_sha256");
}

#[test]
fn welcome_is_bounded() {
    let spoiled = |spoil: fn(&mut Welcome)| field_after(samples::welcome(), Welcome::check, spoil);
    assert_eq!(spoiled(|m| m.version = 0), "version");
    assert_eq!(spoiled(|m| m.requires = vec!["x".to_owned(); 33]), "requires");
    assert_eq!(spoiled(|m| m.gateway.clear()), "gateway");
    assert_eq!(spoiled(|m| m.gateway = "x".repeat(129)), "gateway");
    assert_eq!(spoiled(|m| m.ssh_user_ca = vec!["x".to_owned(); 17]), "ssh_user_ca");
    assert_eq!(spoiled(|m| m.ssh_user_ca = vec!["x".repeat(2049)]), "ssh_user_ca");
    assert_eq!(
        spoiled(|m| m.ssh_user_ca = texts(&["ssh-ed25519 A\nssh-ed25519 B"])),
        "ssh_user_ca"
    );
    assert_eq!(spoiled(|m| m.domain.clear()), "domain");
    assert_eq!(spoiled(|m| m.domain = "x".repeat(254)), "domain");
}

#[test]
fn offer_and_its_answer_are_bounded() {
    let spoiled = |spoil: fn(&mut Offer)| field_after(samples::offer(), Offer::check, spoil);
    assert_eq!(
        spoiled(|m| m.endpoints = vec![m.endpoints[0].clone(); 257]),
        "endpoints"
    );
    assert_eq!(spoiled(|m| m.endpoints[2].url.clear()), "url");
    assert_eq!(spoiled(|m| m.endpoints[2].url = "x".repeat(257)), "url");

    let spoiled = |spoil: fn(&mut OfferAnswer)| field_after(samples::offer_answer(), OfferAnswer::check, spoil);
    assert_eq!(spoiled(|m| m.accepted = vec!["x".to_owned(); 257]), "accepted");
    assert_eq!(spoiled(|m| m.accepted = vec!["x".repeat(257)]), "accepted");
    assert_eq!(spoiled(|m| m.refused = vec![m.refused[0].clone(); 257]), "refused");
    assert_eq!(spoiled(|m| m.refused[0].url.push('\0')), "url");
    assert_eq!(spoiled(|m| m.refused[0].reason = 0), "reason");
}

#[test]
fn an_empty_offer_is_sound_and_an_unknown_mode_closes_only_its_endpoint() {
    assert_eq!(Offer::default().check(), Ok(()));
    let mut offer = samples::offer();
    offer.endpoints[0].mode = 77;
    assert_eq!(offer.check(), Ok(()));
    assert_eq!(offer.endpoints[0].mode(), Mode::Unspecified);
    assert_eq!(offer.endpoints[1].mode(), Mode::Builtin);
}

#[test]
fn drain_and_host_certificates_are_bounded() {
    let spoiled = |spoil: fn(&mut Drain)| field_after(samples::drain(), Drain::check, spoil);
    assert_eq!(spoiled(|m| m.reconnect_in_ms = u64::MAX), "reconnect_in_ms");
    assert_eq!(spoiled(|m| m.within_ms = 86_400_001), "within_ms");

    let request = samples::host_key_request;
    assert_eq!(
        field_after(request(), HostKeyRequest::check, |m| m.public_key.clear()),
        "public_key"
    );
    assert_eq!(
        field_after(request(), HostKeyRequest::check, |m| m.public_key = "x".repeat(2049)),
        "public_key"
    );

    let spoiled =
        |spoil: fn(&mut HostCertificate)| field_after(samples::host_certificate(), HostCertificate::check, spoil);
    assert_eq!(spoiled(|m| m.certificate.clear()), "certificate");
    assert_eq!(spoiled(|m| m.certificate = "x".repeat(8193)), "certificate");
    assert_eq!(spoiled(|m| m.valid_seconds = 0), "valid_seconds");
    assert_eq!(spoiled(|m| m.valid_seconds = u64::MAX), "valid_seconds");
}

#[test]
fn the_control_frame_checks_what_is_inside() {
    for (name, mut control) in samples::controls() {
        match control.body.as_mut().unwrap() {
            Body::Hello(m) => m.version_min = 0,
            Body::Welcome(m) => m.version = 0,
            Body::Offer(m) => m.endpoints[0].url.clear(),
            Body::OfferAnswer(m) => m.accepted[0].clear(),
            Body::Drain(m) => m.within_ms = u64::MAX,
            Body::HostKeyRequest(m) => m.public_key.clear(),
            Body::HostCertificate(m) => m.certificate.clear(),
            Body::Refused(m) => m.reason = 0,
            Body::Renew(m) => m.csr_der.clear(),
            Body::Renewed(m) => m.certificate_chain.clear(),
            Body::Authority(m) => m.roots.clear(),
            Body::RootsKept(m) => m.roots_sha256.clear(),
            Body::HostKeyReport(m) => m.endpoints[0].url.clear(),
            Body::Ping(Ping { nonce }) | Body::Pong(Pong { nonce }) => {
                *nonce = u64::MAX;
                assert_eq!(control.check(), Ok(()));
                continue;
            }
        }
        assert!(control.check().is_err(), "{name}");
    }
}

#[test]
fn a_kind_of_a_newer_peer_is_skipped_not_refused() {
    // Field 11, length-delimited, empty: what Revoke will be.
    let control: Control = crate::codec::decode_body(&[0x5a, 0x00]).unwrap();
    assert_eq!(control.body, None);
    assert_eq!(control.check(), Ok(()));
}

#[test]
fn a_boot_id_reads_as_its_type() {
    assert_eq!(
        samples::hello().boot_id().unwrap().to_string(),
        "10111213-1415-1617-1819-1a1b1c1d1e1f"
    );
}

#[test]
fn a_report_of_host_keys_is_bounded_and_fits_a_frame() {
    let spoiled = |spoil: fn(&mut HostKeyReport)| field_after(samples::host_key_report(), HostKeyReport::check, spoil);
    assert_eq!(spoiled(|m| m.endpoints = vec![m.endpoints[0].clone(); 33]), "endpoints");
    assert_eq!(spoiled(|m| m.endpoints[0].url.clear()), "url");
    assert_eq!(spoiled(|m| m.endpoints[0].public_keys.clear()), "public_keys");
    assert_eq!(
        spoiled(|m| m.endpoints[0].public_keys = vec!["k".to_owned(); 9]),
        "public_keys"
    );
    assert_eq!(
        spoiled(|m| m.endpoints[0].public_keys = vec!["k".repeat(1025)]),
        "public_keys"
    );
    assert_eq!(
        spoiled(|m| m.endpoints[0].public_keys = texts(&["ssh-ed25519 A\nssh-ed25519 B"])),
        "public_keys"
    );
}
