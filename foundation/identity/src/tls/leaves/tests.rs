use std::sync::atomic::{AtomicUsize, Ordering};

use rcgen::{CertificateParams, KeyPair};

use super::*;
use crate::{
    keys::random_serial,
    lab::{Ca, DAY, DOMAIN, GATEWAY, now, who},
};

struct Counting {
    ca: Ca,
    minted: Arc<AtomicUsize>,
    days: Arc<AtomicUsize>,
    issuers: Arc<AtomicUsize>,
}

impl Mint for Counting {
    fn mint(&self, csr_der: &[u8], dns: &str) -> Option<Issued> {
        self.minted.fetch_add(1, Ordering::Relaxed);
        let names = [dns.to_owned()];
        let serial = random_serial().unwrap();
        Some(
            self.ca
                .authority
                .issue(csr_der, &who(GATEWAY), &names, DAY, now(), serial)
                .unwrap(),
        )
    }

    fn issuer(&self) -> u32 {
        u32::try_from(self.issuers.load(Ordering::Relaxed)).unwrap()
    }

    fn now(&self) -> SystemTime {
        now() + DAY * u32::try_from(self.days.load(Ordering::Relaxed)).unwrap()
    }
}

fn leaves() -> (Leaves, Arc<AtomicUsize>, Arc<AtomicUsize>, Arc<AtomicUsize>) {
    let [minted, days, issuers] = [(); 3].map(|()| Arc::<AtomicUsize>::default());
    let mint = Counting {
        ca: Ca::new(),
        minted: Arc::clone(&minted),
        days: Arc::clone(&days),
        issuers: Arc::clone(&issuers),
    };
    (Leaves::new(DOMAIN, Box::new(mint)).unwrap(), minted, days, issuers)
}

fn below(host: &str) -> String {
    format!("{host}.{DOMAIN}")
}

#[test]
fn a_name_is_minted_once_and_again_when_it_ages() {
    let (leaves, minted, days, issuers) = leaves();
    for name in [
        below("billing.clinic1"),
        below("BILLING.clinic1"),
        below("billing--clinic1"),
        DOMAIN.into(),
    ] {
        assert!(leaves.for_name(&name).is_some(), "{name}");
    }
    assert_eq!(minted.load(Ordering::Relaxed), 3, "upper case is the same name");
    days.store(1, Ordering::Relaxed);
    leaves.for_name(&below("billing.clinic1")).unwrap();
    assert_eq!(minted.load(Ordering::Relaxed), 4);
    issuers.store(2, Ordering::Relaxed);
    leaves.for_name(DOMAIN).unwrap();
    assert_eq!(minted.load(Ordering::Relaxed), 5);
}

#[test]
fn nothing_is_minted_for_names_that_no_endpoint_can_have() {
    let (leaves, minted, ..) = leaves();
    let long = below(&"x".repeat(31));
    for name in [
        "",
        "example.com",
        "10.0.0.1",
        "a.b.internal",
        "evilgw.example.com",
        &below("a.b.c"),
        &below(""),
        &long,
        &below("*"),
    ] {
        assert!(leaves.for_name(name).is_none(), "{name}");
    }
    assert_eq!(minted.load(Ordering::Relaxed), 0);
}

#[test]
fn names_by_the_thousand_push_out_those_that_nobody_uses() {
    let (leaves, minted, ..) = leaves();
    let used = below("used.clinic1");
    for number in 0..MAX_LEAVES + 200 {
        leaves.for_name(&below(&format!("n{number}.clinic1"))).unwrap();
        leaves.for_name(&used).unwrap();
    }
    assert_eq!(leaves.minted().by_name.len(), MAX_LEAVES);
    assert_eq!(
        minted.load(Ordering::Relaxed),
        MAX_LEAVES + 200 + 1,
        "the name in use was minted once"
    );
}

#[test]
fn a_file_serves_the_names_it_carries_and_the_rest_is_minted() {
    let (leaves, minted, ..) = leaves();
    let key = KeyPair::generate().unwrap();
    let names = vec![format!("*.{DOMAIN}"), DOMAIN.to_owned()];
    let certificate = CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
    let file = FileCertificate::from_pem(&certificate.pem(), &key.serialize_pem()).unwrap();
    leaves.replace_files(vec![file]);
    for name in [DOMAIN.to_owned(), below("billing--clinic1"), below("Billing--clinic1")] {
        let presented = leaves.for_name(&name).unwrap();
        assert_eq!(presented.cert[0], *certificate.der(), "{name}");
    }
    assert_eq!(minted.load(Ordering::Relaxed), 0);
    let minted_leaf = leaves.for_name(&below("billing.clinic1")).unwrap();
    assert_ne!(minted_leaf.cert[0], *certificate.der(), "a wildcard covers one label");
    assert_eq!(minted.load(Ordering::Relaxed), 1);
}

#[test]
fn files_that_do_not_fit_are_told_apart() {
    let (key, other) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let certificate = CertificateParams::new(vec![DOMAIN.to_owned()])
        .unwrap()
        .self_signed(&key)
        .unwrap();
    let nameless = CertificateParams::default().self_signed(&key).unwrap();
    let (chain, key) = (certificate.pem(), key.serialize_pem());
    for (chain, key, words) in [
        ("", key.as_str(), "cannot be read"),
        (&chain, "", "not a private key"),
        (&chain, &other.serialize_pem(), "do not belong together"),
        (&nameless.pem(), &key, "no DNS name"),
        (&chain.repeat(5), &key, "more than 4"),
    ] {
        let error = FileCertificate::from_pem(chain, key).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
}
