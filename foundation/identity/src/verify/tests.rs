use std::{fs, process::Command};

use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, NameConstraints,
};
use rustls_pki_types::pem::PemObject;
use secrecy::ExposeSecret;

use super::*;
use crate::{
    authority::create_root,
    lab::{AGENT, Ca, DAY, DOMAIN, GATEWAY, HOUR, MINUTE, USER, agent_params, dns, now, p256, uri},
};

type Chain = Vec<CertificateDer<'static>>;

fn as_client(ca: &Ca, chain: &[CertificateDer<'_>]) -> Result<Authenticated, VerifyError> {
    authenticate(chain, &ca.roots(), Usage::Client, DOMAIN, now())
}

/// The reason a client's chain is refused for.
fn reason(ca: &Ca, chain: &[CertificateDer<'_>]) -> &'static str {
    as_client(ca, chain).map(|_| ()).unwrap_err().reason()
}

/// The reason a changed agent certificate is refused for.
fn reason_when(ca: &Ca, change: impl FnOnce(&mut CertificateParams)) -> &'static str {
    let mut params = agent_params();
    change(&mut params);
    reason(ca, &ca.forged_chain(&params))
}

fn under(issuer_params: &CertificateParams, issuer_key: &KeyPair, leaf: &CertificateParams) -> CertificateDer<'static> {
    let issuer = Issuer::from_params(issuer_params, issuer_key);
    leaf.signed_by(&p256(), &issuer).unwrap().into()
}

fn ca_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.not_before = (now() - HOUR).into();
    params.not_after = (now() + DAY).into();
    params
}

#[test]
fn the_control_case_is_accepted() {
    let ca = Ca::new();
    let peer = as_client(&ca, &ca.forged_chain(&agent_params())).unwrap();
    assert_eq!(peer.principal().to_string(), AGENT);
    let (without_root, _) = ca.chain(AGENT, &[]);
    assert!(as_client(&ca, &without_root[..2]).is_ok(), "the root need not travel");
}

#[test]
fn another_authority_is_refused_whatever_it_calls_itself() {
    let (ours, theirs) = (Ca::new(), Ca::new());
    let (chain, _) = theirs.chain(AGENT, &[]);
    assert_eq!(reason(&ours, &chain), "wrong-ca");
    assert_eq!(reason(&ours, &[chain[0].clone()]), "wrong-ca");
    let mixed = [chain[0].clone(), ours.above()[0].clone(), ours.above()[1].clone()];
    assert_eq!(reason(&ours, &mixed), "wrong-ca");
}

#[test]
fn a_self_signed_leaf_with_a_valid_certificate_as_filler_is_refused() {
    let ca = Ca::new();
    let own: CertificateDer<'static> = agent_params().self_signed(&p256()).unwrap().into();
    let (valid, _) = ca.chain(USER, &[]);
    let chain: Chain = [vec![own], valid].concat();
    assert_eq!(chain.len(), MAX_CHAIN_CERTIFICATES);
    assert_eq!(reason(&ca, &chain), "wrong-ca");
}

#[test]
fn the_identity_is_the_first_certificates_and_no_others() {
    let ca = Ca::new();
    let ((agent, _), (user, _)) = (ca.chain(AGENT, &[]), ca.chain(USER, &[]));
    let chain = [agent[0].clone(), user[0].clone(), agent[1].clone()];
    assert_eq!(as_client(&ca, &chain).unwrap().principal().to_string(), AGENT);
    let chain = [user[0].clone(), agent[0].clone(), agent[1].clone()];
    assert_eq!(as_client(&ca, &chain).unwrap().principal().to_string(), USER);
}

#[test]
fn a_copy_of_the_authoritys_name_with_another_key_is_refused() {
    let ca = Ca::new();
    let fake_key = p256();
    let issuer = Issuer::from_ca_cert_pem(&ca.issuing_pem, &fake_key).unwrap();
    let leaf: CertificateDer<'static> = agent_params().signed_by(&p256(), &issuer).unwrap().into();
    let chain: Chain = [vec![leaf.clone()], ca.above().to_vec()].concat();
    assert_eq!(reason(&ca, &chain), "bad-signature");

    let mut fake_issuing = ca_params("x");
    let name = Parsed::new(&ca.above()[0]).map(|p| p.subject_der().to_vec()).unwrap();
    fake_issuing.distinguished_name = read_name(&name);
    let fake_issuing: CertificateDer<'static> = fake_issuing.self_signed(&fake_key).unwrap().into();
    let [issuing, root] = ca.above();
    let refused = reason(&ca, &[leaf, fake_issuing, issuing, root]);
    assert_eq!(refused, "bad-signature");
}

/// The common name of a DER `Name`, as rcgen writes it.
fn read_name(der: &[u8]) -> rcgen::DistinguishedName {
    use x509_parser::{prelude::FromDer, x509::X509Name};
    let (_, parsed) = X509Name::from_der(der).unwrap();
    let text = parsed.iter_common_name().next().unwrap().as_str().unwrap().to_owned();
    let mut name = rcgen::DistinguishedName::new();
    name.push(DnType::CommonName, text);
    name
}

#[test]
fn time_is_checked_at_both_ends() {
    let ca = Ca::new();
    let chain = ca.forged_chain(&agent_params());
    let at = |time| authenticate(&chain, &ca.roots(), Usage::Client, DOMAIN, time).map(|_| ());
    let (first, last) = (now() - MINUTE, now() + DAY);
    assert_eq!(at(last + HOUR), Err(VerifyError::Expired { not_after: last }));
    let forged_early = authenticate(&chain, &ca.roots(), Usage::Client, DOMAIN, first - HOUR);
    assert_eq!(forged_early, Err(VerifyError::NotYetValid { not_before: first }));
    assert_eq!(at(last), Ok(()));
    let message = VerifyError::Expired { not_after: now() }.to_string();
    assert_eq!(message, "the certificate expired at 2027-01-15T08:00:00Z");
    assert_eq!(at(SystemTime::UNIX_EPOCH - DAY).unwrap_err().reason(), "not-yet-valid");
}

#[test]
fn expired_is_said_only_of_certificates_that_were_ours() {
    let (ours, theirs) = (Ca::new(), Ca::new());
    let mut old = agent_params();
    old.not_before = (now() - 3 * DAY).into();
    old.not_after = (now() - DAY).into();
    assert_eq!(reason(&ours, &theirs.forged_chain(&old)), "wrong-ca");
    old.subject_alt_names.clear();
    old.not_before = (now() - HOUR).into();
    old.not_after = (now() - Duration::from_secs(60)).into();
    assert_eq!(reason(&ours, &ours.forged_chain(&old)), "no-name");
    let mut future = agent_params();
    future.not_before = (now() + DAY).into();
    future.not_after = (now() + 2 * DAY).into();
    assert_eq!(reason(&ours, &ours.forged_chain(&future)), "not-yet-valid");
    assert_eq!(reason(&ours, &theirs.forged_chain(&future)), "wrong-ca");
}

#[test]
fn an_authority_past_its_end_takes_its_certificates_along() {
    let (root_key, root_pem) = create_root(DOMAIN, now() - 3000 * DAY).unwrap();
    let ca = Ca::under(root_key, root_pem, now() - 729 * DAY);
    let mut params = agent_params();
    params.not_before = (now() - DAY).into();
    params.not_after = (now() + 2000 * DAY).into();
    let chain = ca.forged_chain(&params);
    let at = |time| authenticate(&chain, &ca.roots(), Usage::Client, DOMAIN, time).map(|_| ());
    assert_eq!(at(now()), Ok(()));
    assert_eq!(
        at(now() + 10 * DAY).unwrap_err().reason(),
        "expired",
        "the issuing certificate"
    );

    let (root_key, root_pem) = create_root(DOMAIN, now()).unwrap();
    let issuer = Issuer::from_ca_cert_pem(&root_pem, root_key.pair()).unwrap();
    params.not_after = (now() + 5000 * DAY).into();
    let leaf: CertificateDer<'static> = params.signed_by(&p256(), &issuer).unwrap().into();
    let roots = Roots::from_pem(&root_pem).unwrap();
    let at = |time| authenticate(std::slice::from_ref(&leaf), &roots, Usage::Client, DOMAIN, time);
    assert!(at(now()).is_ok());
    let after_root = at(now() + 4000 * DAY).unwrap_err();
    assert_eq!(after_root.reason(), "expired", "the root itself");
}

#[test]
fn client_and_server_certificates_do_not_stand_in_for_each_other() {
    use ExtendedKeyUsagePurpose::{Any, ClientAuth, CodeSigning, ServerAuth};
    let ca = Ca::new();
    let server = |chain: &Chain| authenticate(chain, &ca.roots(), Usage::Server, DOMAIN, now());
    let ((agent, _), (gateway, _)) = (ca.chain(AGENT, &[]), ca.chain(GATEWAY, &["gw.example.com"]));
    assert!(server(&gateway).is_ok());
    assert_eq!(server(&agent).unwrap_err().reason(), "wrong-usage");
    assert_eq!(reason(&ca, &gateway), "wrong-usage");
    for usages in [
        vec![],
        vec![ServerAuth],
        vec![ClientAuth, ServerAuth],
        vec![ClientAuth, Any],
        vec![Any],
        vec![ClientAuth, CodeSigning],
    ] {
        let refused = reason_when(&ca, |p| p.extended_key_usages = usages.clone());
        assert_eq!(refused, "wrong-usage", "{usages:?}");
    }
    assert_eq!(
        reason_when(&ca, |p| p.key_usages = vec![KeyUsagePurpose::KeyAgreement]),
        "wrong-usage"
    );
    assert_eq!(
        reason_when(&ca, |p| p.subject_alt_names = vec![uri(GATEWAY)]),
        "wrong-usage"
    );
    let mut posing = agent_params();
    posing.extended_key_usages = vec![ServerAuth];
    assert_eq!(
        server(&ca.forged_chain(&posing)).unwrap_err().reason(),
        "wrong-usage",
        "an agent as a gateway"
    );
}

#[test]
fn exactly_one_principal_is_required() {
    let ca = Ca::new();
    assert_eq!(reason_when(&ca, |p| p.subject_alt_names.clear()), "no-name");
    assert_eq!(
        reason_when(&ca, |p| p.subject_alt_names = vec![dns("pump-7.plant-7.internal")]),
        "no-name"
    );
    let common_name_only = reason_when(&ca, |p| {
        p.subject_alt_names.clear();
        p.distinguished_name.push(DnType::CommonName, AGENT);
    });
    assert_eq!(common_name_only, "no-name");
    assert_eq!(reason_when(&ca, |p| p.subject_alt_names.push(uri(USER))), "many-names");
    assert_eq!(reason_when(&ca, |p| p.subject_alt_names.push(uri(AGENT))), "many-names");
    assert_eq!(
        reason_when(&ca, |p| p.subject_alt_names.push(uri("https://example.com"))),
        "many-names"
    );
    for bad in [
        "https://example.com",
        "spiffe://gw.example.com",
        "spiffe://gw.example.com/agent/x",
        "spiffe://gw.example.com/site/Plant-7/agent/pump-7",
        "spiffe://gw.example.com/site/plant-7/agent/pump-7/x",
        "",
    ] {
        assert_eq!(
            reason_when(&ca, |p| p.subject_alt_names = vec![uri(bad)]),
            "bad-name",
            "{bad:?}"
        );
    }
    let wrong = "spiffe://other.example.com/site/plant-7/agent/pump-7";
    assert_eq!(
        reason_when(&ca, |p| p.subject_alt_names = vec![uri(wrong)]),
        "wrong-trust-domain"
    );
    let mut with_dns = agent_params();
    with_dns.subject_alt_names.push(dns("pump-7.example.com"));
    assert!(
        as_client(&ca, &ca.forged_chain(&with_dns)).is_ok(),
        "other types of names say nothing"
    );
}

#[test]
fn names_given_twice_or_unreadably_are_refused() {
    let ca = Ca::new();
    let san = |text: &[u8]| {
        let mut content = vec![
            0x30,
            u8::try_from(text.len() + 2).unwrap(),
            0x86,
            u8::try_from(text.len()).unwrap(),
        ];
        content.extend_from_slice(text);
        CustomExtension::from_oid_content(&[2, 5, 29, 17], content)
    };
    let twice = reason_when(&ca, |p| p.custom_extensions.push(san(USER.as_bytes())));
    assert_eq!(twice, "malformed");
    let unreadable = reason_when(&ca, |p| {
        p.subject_alt_names.clear();
        p.custom_extensions.push(san(b"spiffe://gw.example.com/user/\xff"));
    });
    assert_eq!(unreadable, "bad-name");
    let unknown_critical = reason_when(&ca, |p| {
        let mut extension = CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0]);
        extension.set_criticality(true);
        p.custom_extensions.push(extension);
    });
    assert_eq!(unknown_critical, "malformed");
}

#[test]
fn authorities_are_no_identities_and_identities_no_authorities() {
    let ca = Ca::new();
    let as_ca = reason_when(&ca, |p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
    assert_eq!(as_ca, "ca-as-leaf");
    assert_eq!(reason(&ca, &ca.above()), "ca-as-leaf");

    // An agent signs a certificate for a user with its own key.
    let (agent_key, mut params) = (p256(), agent_params());
    params.distinguished_name.push(DnType::CommonName, "pump-7");
    let agent = ca.forge(&params, &agent_key);
    let mut user = agent_params();
    user.subject_alt_names = vec![uri(USER)];
    let user = under(&params, &agent_key, &user);
    let [issuing, root] = ca.above();
    assert_eq!(reason(&ca, &[user, agent, issuing, root]), "not-an-issuer");

    // Somebody who got an authority certificate under the issuing one is beyond its path length.
    let (sub_key, sub_params) = (p256(), ca_params("sub"));
    let sub = ca.forge(&sub_params, &sub_key);
    let leaf = under(&sub_params, &sub_key, &agent_params());
    let [issuing, root] = ca.above();
    assert_eq!(reason(&ca, &[leaf, sub, issuing, root]), "not-an-issuer");
}

#[test]
fn name_constraints_are_not_passed_by() {
    let ca = Ca::new();
    let (key, mut params) = (p256(), ca_params("constrained"));
    params.name_constraints = Some(NameConstraints {
        permitted_subtrees: vec![GeneralSubtree::DnsName("example.com".to_owned())],
        excluded_subtrees: vec![],
    });
    let root = Issuer::from_ca_cert_pem(&ca.root_pem, ca.root_key.pair()).unwrap();
    let constrained: CertificateDer<'static> = params.signed_by(&key, &root).unwrap().into();
    let mut outside = agent_params();
    outside.subject_alt_names.push(dns("pump-7.example.net"));
    let outside = under(&params, &key, &outside);
    assert_eq!(reason(&ca, &[outside, constrained]), "name-constraint");
}

#[test]
fn chains_are_bounded_before_they_are_read() {
    let ca = Ca::new();
    let (chain, _) = ca.chain(AGENT, &[]);
    let hundred: Chain = chain.iter().cycle().take(100).cloned().collect();
    assert_eq!(reason(&ca, &hundred), "chain-too-long");
    let five: Chain = chain.iter().cycle().take(5).cloned().collect();
    assert_eq!(reason(&ca, &five), "chain-too-long");
    let megabyte = reason_when(&ca, |p| {
        let big = CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![0; 1 << 20]);
        p.custom_extensions.push(big);
    });
    assert_eq!(megabyte, "chain-too-long");
    assert_eq!(reason(&ca, &[vec![0x30; MAX_CHAIN_BYTES + 1].into()]), "chain-too-long");
    assert_eq!(reason(&ca, &[]), "malformed");
    assert_eq!(reason(&ca, &[vec![0x30; MAX_CHAIN_BYTES].into()]), "malformed");
}

#[test]
fn every_cut_and_every_changed_byte_is_refused() {
    let ca = Ca::new();
    let (chain, _) = ca.chain(AGENT, &[]);
    for length in 0..chain[0].len() {
        let cut: CertificateDer<'_> = chain[0][..length].to_vec().into();
        assert_eq!(reason(&ca, &[cut, chain[1].clone()]), "malformed", "{length}");
    }
    for at in 0..chain[0].len() {
        let mut bytes = chain[0].to_vec();
        bytes[at] ^= 0x01;
        let changed: CertificateDer<'_> = bytes.into();
        assert!(as_client(&ca, &[changed, chain[1].clone()]).is_err(), "{at}");
    }
    let trailing: CertificateDer<'_> = [chain[0].as_ref(), &[0]].concat().into();
    assert_eq!(reason(&ca, &[trailing, chain[1].clone()]), "malformed");
}

#[test]
fn a_broken_filler_does_not_matter_and_does_not_help() {
    let ca = Ca::new();
    let (chain, _) = ca.chain(AGENT, &[]);
    let junk: CertificateDer<'_> = vec![0x30, 3, 1, 2, 3].into();
    assert!(as_client(&ca, &[chain[0].clone(), junk.clone(), chain[1].clone()]).is_ok());
    assert_eq!(reason(&ca, &[chain[0].clone(), junk.clone()]), "malformed");
    assert_eq!(reason(&ca, &[junk, chain[0].clone(), chain[1].clone()]), "malformed");
}

#[test]
fn other_keys_than_p256_are_weak() {
    let ca = Ca::new();
    for algorithm in [
        &rcgen::PKCS_RSA_SHA256,
        &rcgen::PKCS_ECDSA_P384_SHA384,
        &rcgen::PKCS_ED25519,
    ] {
        let leaf = ca.forge(&agent_params(), &KeyPair::generate_for(algorithm).unwrap());
        let chain: Chain = [vec![leaf], ca.above().to_vec()].concat();
        assert_eq!(reason(&ca, &chain), "weak-key");
    }
}

#[test]
fn other_signatures_than_ecdsa_p256_are_weak() {
    let ca = Ca::new();
    let (key, params) = (
        KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap(),
        ca_params("p384"),
    );
    let root = Issuer::from_ca_cert_pem(&ca.root_pem, ca.root_key.pair()).unwrap();
    let middle: CertificateDer<'static> = params.signed_by(&key, &root).unwrap().into();
    let leaf = under(&params, &key, &agent_params());
    assert_eq!(reason(&ca, &[leaf, middle]), "weak-signature");
}

#[test]
fn openssls_sha1_and_rsa_1024_are_refused() {
    // openssl dates by the machine's clock, so this authority is made by it too.
    let (root_key, root_pem) = create_root(DOMAIN, SystemTime::now()).unwrap();
    let ca = Ca::under(root_key, root_pem, SystemTime::now());
    let dir = tempfile::tempdir().unwrap();
    let put = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let issuing = put("issuing.pem", &ca.issuing_pem);
    let issuing_key = put("issuing.key", ca.issuing_key.to_pem().expose_secret());
    let extensions = put(
        "ext",
        &format!("basicConstraints=CA:FALSE\nextendedKeyUsage=clientAuth\nsubjectAltName=URI:{AGENT}\n"),
    );
    let (csr, key, leaf) = (put("csr", ""), put("key", ""), put("leaf", ""));
    let openssl = |arguments: &[&str]| Command::new("openssl").args(arguments).output();
    for (new_key, digest, expected) in [
        (&["-newkey", "rsa:1024"][..], "-sha256", "weak-key"),
        (
            &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"],
            "-sha1",
            "weak-signature",
        ),
    ] {
        let request = ["req", "-new", "-nodes", "-subj", "/CN=x", "-keyout", &key, "-out", &csr];
        let made = openssl(&[&request, new_key].concat()).expect("this test needs openssl");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let made = openssl(&[
            "x509",
            "-req",
            "-in",
            &csr,
            "-CA",
            &issuing,
            "-CAkey",
            &issuing_key,
            "-set_serial",
            "7",
            digest,
            "-days",
            "3",
            "-extfile",
            &extensions,
            "-out",
            &leaf,
        ])
        .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let certificate = CertificateDer::from_pem_slice(&fs::read(&leaf).unwrap()).unwrap();
        let at = SystemTime::now() + HOUR;
        let chain: Chain = [vec![certificate], ca.above().to_vec()].concat();
        let refused = authenticate(&chain, &ca.roots(), Usage::Client, DOMAIN, at);
        let reason = refused.map(|_| ()).unwrap_err().reason();
        assert_eq!(reason, expected, "{new_key:?}");
    }
}

#[test]
fn dns_names_match_exactly() {
    let ca = Ca::new();
    let (chain, _) = ca.chain(GATEWAY, &["gw.example.com"]);
    for yes in ["gw.example.com", "GW.example.COM", "gw.example.com."] {
        assert!(names_dns(&chain, yes), "{yes}");
    }
    for no in ["example.com", "x.gw.example.com", "gw.example.co", "", "gw-1"] {
        assert!(!names_dns(&chain, no), "{no}");
    }
    let mut wild = agent_params();
    wild.subject_alt_names.push(dns("*.example.com"));
    assert!(!names_dns(&ca.forged_chain(&wild), "gw.example.com"));
}
