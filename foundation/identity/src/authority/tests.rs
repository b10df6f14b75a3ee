use std::{fs, process::Command};

use rcgen::KeyPair;
use secrecy::ExposeSecret;
use x509_parser::{certificate::X509Certificate, extensions::GeneralName};

use super::*;
use crate::{
    chain::{from_ders, to_pem},
    lab::{AGENT, Ca, DAY, DOMAIN, GATEWAY, HOUR, USER, dns, now, p256, uri, who},
    verify::{Usage, authenticate},
};

/// A request that asks for everything a thief would want.
fn greedy_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = common_name("root");
    params.subject_alt_names = vec![
        uri(GATEWAY),
        uri("spiffe://gw.example.com/user/root"),
        dns("gw.example.com"),
        SanType::IpAddress("127.0.0.1".parse().unwrap()),
        SanType::Rfc822Name("root@example.com".try_into().unwrap()),
    ];
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::CodeSigning,
        ExtendedKeyUsagePurpose::Any,
        ExtendedKeyUsagePurpose::Other(vec![1, 2, 3, 4]),
    ];
    params
        .custom_extensions
        .push(rcgen::CustomExtension::from_oid_content(&[1, 2, 3, 4, 5], vec![5, 0]));
    params
}

fn csr(params: &CertificateParams, key: &KeyPair) -> Vec<u8> {
    params.serialize_request(key).unwrap().der().to_vec()
}

fn parse(der: &[u8]) -> X509Certificate<'_> {
    X509Certificate::from_der(der).unwrap().1
}

fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let san = certificate.subject_alternative_name().unwrap().unwrap();
    let text = |name: &GeneralName<'_>| match name {
        GeneralName::URI(uri) => (*uri).to_owned(),
        GeneralName::DNSName(dns) => format!("dns:{dns}"),
        other => format!("{other:?}"),
    };
    san.value.general_names.iter().map(text).collect()
}

#[test]
fn a_request_for_more_gets_only_what_the_arguments_say() {
    let ca = Ca::new();
    let request = csr(&greedy_params(), &p256());
    let issued = ca
        .authority
        .issue(&request, &who(AGENT), &[], DAY, now(), [1; 16])
        .unwrap();
    let leaf = parse(&issued.leaf_der);
    assert_eq!(names(&leaf), [AGENT]);
    assert_eq!(leaf.subject().to_string(), "CN=pump-7");
    let basic = leaf.basic_constraints().unwrap().unwrap();
    assert!(basic.critical && !basic.value.ca);
    assert_eq!(
        leaf.key_usage().unwrap().unwrap().value.flags,
        1,
        "digitalSignature only"
    );
    let usage = leaf.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.client_auth && !usage.server_auth && !usage.any);
    assert!(!usage.code_signing && usage.other.is_empty());
    // subject alternative name, key usage, extended key usage, basic constraints and the two key
    // identifiers: nothing else came along.
    assert_eq!(leaf.extensions().len(), 6);
}

#[test]
fn each_wish_alone_is_ignored_too() {
    let ca = Ca::new();
    let greedy = greedy_params();
    let only = |change: &dyn Fn(&mut CertificateParams)| {
        let mut params = CertificateParams::default();
        change(&mut params);
        csr(&params, &p256())
    };
    let requests = [
        only(&|p| p.subject_alt_names = greedy.subject_alt_names.clone()),
        only(&|p| p.is_ca = greedy.is_ca),
        only(&|p| p.key_usages = greedy.key_usages.clone()),
        only(&|p| p.extended_key_usages = greedy.extended_key_usages.clone()),
        only(&|p| p.custom_extensions = greedy.custom_extensions.clone()),
        only(&|p| p.distinguished_name = greedy.distinguished_name.clone()),
    ];
    let key = PrivateKey::generate().unwrap();
    let plain = ca
        .authority
        .issue(&key.csr_der().unwrap(), &who(USER), &[], DAY, now(), [1; 16])
        .unwrap();
    let extensions = |der: &[u8]| -> Vec<String> {
        let certificate = parse(der);
        let relevant = certificate.extensions().iter();
        // The subject's key identifier is the key's own.
        relevant
            .filter(|e| e.oid.to_id_string() != "2.5.29.14")
            .map(|e| format!("{} {} {}", e.oid, e.critical, hex(e.value)))
            .collect()
    };
    for request in requests {
        let issued = ca
            .authority
            .issue(&request, &who(USER), &[], DAY, now(), [1; 16])
            .unwrap();
        assert_eq!(extensions(&issued.leaf_der), extensions(&plain.leaf_der));
        assert_eq!(parse(&issued.leaf_der).subject().to_string(), "CN=alice");
    }
}

#[test]
fn what_is_issued_is_what_is_authenticated() {
    let ca = Ca::new();
    for (text, dns, usage) in [
        (AGENT, &[][..], Usage::Client),
        (USER, &[], Usage::Client),
        ("spiffe://gw.example.com/site/clinic1/workload/etl", &[], Usage::Client),
        (GATEWAY, &["gw.example.com", "gw-1.example.com"], Usage::Server),
    ] {
        let (key, issued) = ca.issue(text, dns);
        let chain = from_ders(issued.chain_der.clone()).unwrap();
        assert_eq!(chain.len(), 3);
        let peer = authenticate(&chain, &ca.roots(), usage, DOMAIN, now()).unwrap();
        assert_eq!(peer.principal().to_string(), text);
        assert_eq!(*peer.spki_sha256(), key.spki_sha256());
        assert_eq!(issued.spki_sha256, key.spki_sha256());
        assert_eq!(peer.serial_hex(), issued.serial_hex);
        assert_eq!(
            (peer.not_before(), peer.not_after()),
            (issued.not_before, issued.not_after)
        );
    }
}

#[test]
fn dns_names_are_for_gateways_and_must_be_names() {
    let ca = Ca::new();
    let request = PrivateKey::generate().unwrap().csr_der().unwrap();
    let issue = |who_text: &str, dns: &[&str]| {
        let dns: Vec<String> = dns.iter().map(|name| (*name).to_owned()).collect();
        ca.authority.issue(&request, &who(who_text), &dns, DAY, now(), [1; 16])
    };
    let issued = issue(GATEWAY, &["gw.example.com"]).unwrap();
    assert_eq!(names(&parse(&issued.leaf_der)), [GATEWAY, "dns:gw.example.com"]);
    assert!(matches!(
        issue(AGENT, &["gw.example.com"]),
        Err(IssueError::BadDnsName(_))
    ));
    assert!(matches!(
        issue(USER, &["gw.example.com"]),
        Err(IssueError::BadDnsName(_))
    ));
    for bad in [
        "",
        "GW.example.com",
        "*.example.com",
        "gw.example.com.",
        "a b",
        "spiffe://x",
        "ä.com",
    ] {
        let refused = issue(GATEWAY, &[bad]);
        assert!(matches!(refused, Err(IssueError::BadDnsName(_))), "{bad}");
    }
    let many = vec!["a.example.com"; MAX_DNS_NAMES + 1];
    assert!(matches!(issue(GATEWAY, &many), Err(IssueError::BadDnsName(_))));
}

#[test]
fn only_whole_requests_signed_by_a_p256_key_are_taken() {
    let ca = Ca::new();
    let issue = |request: &[u8]| {
        let issued = ca.authority.issue(request, &who(AGENT), &[], DAY, now(), [1; 16]);
        issued.map(|_| ()).unwrap_err()
    };
    let good = PrivateKey::generate().unwrap().csr_der().unwrap();
    for length in 0..good.len() {
        assert_eq!(issue(&good[..length]), IssueError::MalformedRequest, "{length}");
    }
    assert_eq!(issue(&[good.as_slice(), &[0]].concat()), IssueError::MalformedRequest);
    assert_eq!(issue(&vec![0x30; MAX_CSR_BYTES + 1]), IssueError::MalformedRequest);
    let mut broken = good.clone();
    *broken.last_mut().unwrap() ^= 1;
    assert_eq!(issue(&broken), IssueError::BadSignature);
    for algorithm in [
        &rcgen::PKCS_ED25519,
        &rcgen::PKCS_ECDSA_P384_SHA384,
        &rcgen::PKCS_RSA_SHA256,
    ] {
        let key = KeyPair::generate_for(algorithm).unwrap();
        assert_eq!(issue(&csr(&CertificateParams::default(), &key)), IssueError::WeakKey);
    }
}

#[test]
fn a_request_for_somebody_elses_key_is_refused() {
    let ca = Ca::new();
    let (mine, victim) = (p256(), p256());
    let (mine_csr, victim_spki) = (csr(&CertificateParams::default(), &mine), victim.public_key_raw());
    let point = mine.public_key_raw().to_vec();
    let at = mine_csr
        .windows(point.len())
        .position(|window| window == point)
        .unwrap();
    let mut stolen = mine_csr;
    stolen[at..at + point.len()].copy_from_slice(victim_spki);
    let issued = ca.authority.issue(&stolen, &who(AGENT), &[], DAY, now(), [1; 16]);
    assert_eq!(issued.map(|_| ()), Err(IssueError::BadSignature));
}

#[test]
fn validity_is_backdated_and_ends_with_the_authority() {
    let ca = Ca::new();
    let request = PrivateKey::generate().unwrap().csr_der().unwrap();
    let issue = |life, at| ca.authority.issue(&request, &who(AGENT), &[], life, at, [1; 16]);
    let issued = issue(DAY, now() + HOUR).unwrap();
    assert_eq!(issued.not_before, now() + HOUR - BACKDATE);
    assert_eq!(issued.not_after, now() + HOUR + DAY);
    let brief = issue(HOUR / 60, now() + HOUR).unwrap();
    assert_eq!(
        brief.not_before,
        now() + HOUR - HOUR / 600,
        "a short life begins little before it is given"
    );
    let last = ca.authority.not_after();
    let late = issue(14 * DAY, last - HOUR).unwrap();
    assert_eq!(late.not_after, last);
    assert!(issue(DAY, last + HOUR).is_err_and(|e| e == IssueError::AuthorityNotValid));
    assert!(issue(DAY, now() - DAY).is_err_and(|e| e == IssueError::AuthorityNotValid));
    assert!(issue(Duration::ZERO, now()).is_err_and(|e| e == IssueError::BadLife));
    assert!(issue(MAX_LIFE + HOUR, now()).is_err_and(|e| e == IssueError::BadLife));
    let earliest = issue(DAY, now() - Duration::from_secs(200)).unwrap();
    assert_eq!(
        earliest.not_before,
        now() - BACKDATE,
        "never before the authority itself"
    );
}

#[test]
fn serials_are_positive_and_of_constant_length() {
    let ca = Ca::new();
    let request = PrivateKey::generate().unwrap().csr_der().unwrap();
    for serial in [[0; 16], [0xff; 16], [0x80; 16]] {
        let issued = ca
            .authority
            .issue(&request, &who(AGENT), &[], DAY, now(), serial)
            .unwrap();
        let certificate = parse(&issued.leaf_der);
        assert_eq!(certificate.raw_serial().len(), 16);
        assert_eq!(hex(certificate.raw_serial()), issued.serial_hex);
    }
}

#[test]
fn nobody_of_another_trust_domain_gets_a_certificate() {
    let ca = Ca::new();
    let request = PrivateKey::generate().unwrap().csr_der().unwrap();
    let stranger = who("spiffe://other.example.com/user/alice");
    let issued = ca.authority.issue(&request, &stranger, &[], DAY, now(), [1; 16]);
    assert_eq!(issued.map(|_| ()), Err(IssueError::WrongTrustDomain(DOMAIN.to_owned())));
}

#[test]
fn parts_that_do_not_fit_are_not_loaded() {
    let (one, two) = (Ca::new(), Ca::new());
    let key = one.issuing_key.to_pem();
    let load = |key: &SecretText, issuing: &str, root: &str| {
        Authority::load(key.expose_secret(), issuing, root)
            .map(|_| ())
            .unwrap_err()
    };
    type SecretText = secrecy::SecretString;
    let other_key = two.issuing_key.to_pem();
    assert_eq!(
        load(&other_key, &one.issuing_pem, &one.root_pem),
        AuthorityError::KeyMismatch("issuing")
    );
    assert_eq!(load(&key, &one.issuing_pem, &two.root_pem), AuthorityError::NotFromRoot);
    assert_eq!(load(&key, "", &one.root_pem), AuthorityError::NotAnAuthority("issuing"));
    assert_eq!(
        load(&key, &one.issuing_pem, "x"),
        AuthorityError::NotAnAuthority("root")
    );
    let (_, leaf) = one.issue(AGENT, &[]);
    assert_eq!(
        load(&key, &to_pem(&[leaf.leaf_der]), &one.root_pem),
        AuthorityError::NotAnAuthority("issuing")
    );
    assert_eq!(
        load(&key, &one.issuing_pem, &one.issuing_pem),
        AuthorityError::NotFromRoot,
        "an issuing certificate is no root"
    );
    let wrong_root = create_issuing(&two.root_key, &one.root_pem, DOMAIN, now());
    assert_eq!(wrong_root.map(|_| ()).unwrap_err(), AuthorityError::KeyMismatch("root"));
    let wrong_domain = create_issuing(&one.root_key, &one.root_pem, "other.example.com", now());
    assert_eq!(
        wrong_domain.map(|_| ()).unwrap_err(),
        AuthorityError::TrustDomainMismatch
    );
    assert!(create_root("GW.example.com", now()).is_err());
    let before_1970 = SystemTime::UNIX_EPOCH;
    assert_eq!(
        create_root(DOMAIN, before_1970).map(|_| ()).unwrap_err(),
        AuthorityError::BadClock
    );
}

#[test]
fn two_authorities_of_one_domain_have_different_names() {
    let (one, two) = (Ca::new(), Ca::new());
    let subject = |ca: &Ca| parse(ca.authority.root_der()).subject().to_string();
    assert_ne!(subject(&one), subject(&two));
}

#[test]
fn openssl_accepts_what_is_issued() {
    let ca = Ca::new();
    let dir = tempfile::tempdir().unwrap();
    let put = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let (_, client) = ca.issue(AGENT, &[]);
    let (_, server) = ca.issue(GATEWAY, &["gw.example.com"]);
    let root = put("root.pem", &ca.root_pem);
    let issuing = put("issuing.pem", &ca.issuing_pem);
    for (name, issued, purpose, accepted) in [
        ("client.pem", &client, "sslclient", true),
        ("client.pem", &client, "sslserver", false),
        ("server.pem", &server, "sslserver", true),
        ("server.pem", &server, "sslclient", false),
    ] {
        let leaf = put(name, &to_pem(&[&issued.leaf_der]));
        let at = now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        let output = Command::new("openssl")
            .args([
                "verify",
                "-x509_strict",
                "-purpose",
                purpose,
                "-attime",
                &at.to_string(),
            ])
            .arg("-CAfile")
            .arg(&root)
            .arg("-untrusted")
            .arg(&issuing)
            .arg(&leaf)
            .output();
        let output = output.expect("this test needs openssl");
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.success(), accepted, "{name} as {purpose}: {text}");
    }
}

#[test]
fn the_key_of_a_request_is_the_same_in_every_form() {
    let key = PrivateKey::generate().unwrap();
    let request = key.csr_der().unwrap();
    let requested = csr_key(&request).unwrap();
    assert_eq!(requested.spki_sha256, key.spki_sha256());
    assert_eq!(requested.ssh_line, key.ssh_public("").unwrap());
    assert_eq!(csr_key(&request[1..]), Err(IssueError::MalformedRequest));
}
