use rcgen::{BasicConstraints, CertificateParams, IsCa};
use sha2::{Digest, Sha256};

use super::*;
use crate::{
    authority::create_root,
    lab::{AGENT, Ca, DOMAIN, GATEWAY, now, p256},
    verify::{Usage, authenticate},
};

type Chain = Vec<CertificateDer<'static>>;

fn nameless_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
}

#[test]
fn two_roots_overlap_while_one_replaces_the_other() {
    let (old, new) = (Ca::new(), Ca::new());
    let both = Roots::from_pem(&format!("{}{}", old.root_pem, new.root_pem)).unwrap();
    assert_eq!(both.certificates().count(), 2);
    for ca in [&old, &new] {
        let (chain, _) = ca.chain(AGENT, &[]);
        assert!(authenticate(&chain, &both, Usage::Client, DOMAIN, now()).is_ok());
    }
}

#[test]
fn roots_must_be_authorities_of_one_trust_domain() {
    let ca = Ca::new();
    let (leaf, _) = ca.chain(AGENT, &[]);
    let refused = |ders: &[CertificateDer<'_>]| Roots::from_der(ders).map(|_| ()).unwrap_err();
    assert_eq!(refused(&[]), RootsError::Count(0));
    assert_eq!(refused(&vec![ca.above()[1].clone(); 9]), RootsError::Count(9));
    assert_eq!(refused(&leaf[..1]), RootsError::NotAnAuthority(1));
    assert_eq!(refused(&[vec![1, 2, 3].into()]), RootsError::NotAnAuthority(1));
    let nameless: CertificateDer<'static> = nameless_params().self_signed(&p256()).unwrap().into();
    assert_eq!(refused(&[nameless]), RootsError::NoTrustDomain(1));
    let (_, other) = create_root("other.example.com", now()).unwrap();
    let mixed = Roots::from_pem(&format!("{}{other}", ca.root_pem))
        .map(|_| ())
        .unwrap_err();
    assert_eq!(mixed, RootsError::MixedTrustDomains(2));
    assert_eq!(
        Roots::from_pem("nothing").map(|_| ()).unwrap_err(),
        RootsError::Count(0)
    );
}

#[test]
fn a_root_is_pinned_by_its_fingerprint_alone() {
    let (ca, other) = (Ca::new(), Ca::new());
    let (chain, _) = ca.chain(GATEWAY, &["gw.example.com"]);
    let digest = ca.authority.root_sha256();
    let of_other = other.authority.root_sha256();
    assert_eq!(Roots::pinned(&chain, &digest).unwrap().trust_domain(), DOMAIN);
    let refused = |chain: &[CertificateDer<'_>], digest| Roots::pinned(chain, digest).map(|_| ()).unwrap_err();
    assert_eq!(refused(&chain[..2], &digest), RootsError::NotPresented);
    assert_eq!(refused(&chain, &of_other), RootsError::NotPresented);
    let of_leaf = <[u8; 32]>::from(Sha256::digest(&chain[0]));
    assert_eq!(refused(&chain, &of_leaf), RootsError::NotAnAuthority(1));
    let long: Chain = chain.iter().cycle().take(9).cloned().collect();
    assert_eq!(refused(&long, &digest), RootsError::ChainTooLong);
}

#[test]
fn announced_roots_must_have_one_in_common_with_the_trusted_ones() {
    let (old, new) = (Ca::new(), Ca::new());
    let root = |ca: &Ca| ca.above()[1].clone();
    let trusted = old.roots();
    let both = trusted.succeeded_by(&[root(&new), root(&old)]).unwrap();
    assert_eq!(
        both.sha256s(),
        [new.authority.root_sha256(), old.authority.root_sha256()]
    );
    let only_new = both.succeeded_by(&[root(&new)]).unwrap();
    assert_eq!(only_new.sha256s(), [new.authority.root_sha256()]);
    let refused = |announced: &[CertificateDer<'_>]| trusted.succeeded_by(announced).map(|_| ()).unwrap_err();
    assert_eq!(refused(&[root(&new)]), RootsError::Unrelated);
    assert_eq!(refused(&[]), RootsError::Count(0));
    let (_, other) = create_root("other.example.com", now()).unwrap();
    let mixed = Roots::from_pem(&other).unwrap();
    let mixed: Vec<_> = mixed.certificates().cloned().chain([root(&old)]).collect();
    assert_eq!(refused(&mixed), RootsError::MixedTrustDomains(2));
}
