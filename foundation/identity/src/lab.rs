//! What the tests of this crate start from: authorities at a fixed moment, and certificates no
//! authority of ours would issue.

use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType};
use rustls_pki_types::CertificateDer;
use secrecy::ExposeSecret;

use crate::{
    authority::{Authority, Issued, create_issuing, create_root},
    chain::from_ders,
    keys::PrivateKey,
    principal::Principal,
    verify::Roots,
};

pub(crate) const DOMAIN: &str = "gw.example.com";
pub(crate) const AGENT: &str = "spiffe://gw.example.com/site/plant-7/agent/pump-7";
pub(crate) const USER: &str = "spiffe://gw.example.com/user/alice";
pub(crate) const GATEWAY: &str = "spiffe://gw.example.com/gateway/gw-1";
pub(crate) const DAY: Duration = Duration::from_secs(86_400);
pub(crate) const MINUTE: Duration = Duration::from_secs(60);
pub(crate) const HOUR: Duration = Duration::from_secs(3600);

/// The moment at which everything in the tests is made: in January 2027.
pub(crate) fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

pub(crate) fn who(text: &str) -> Principal {
    text.parse().unwrap()
}

/// A certificate authority with every key at hand.
pub(crate) struct Ca {
    pub(crate) root_key: PrivateKey,
    pub(crate) root_pem: String,
    pub(crate) issuing_key: PrivateKey,
    pub(crate) issuing_pem: String,
    pub(crate) authority: Authority,
}

impl Ca {
    pub(crate) fn new() -> Self {
        let (root_key, root_pem) = create_root(DOMAIN, now()).unwrap();
        Self::under(root_key, root_pem, now())
    }

    /// An authority whose issuing certificate was made at another moment than the root.
    pub(crate) fn under(root_key: PrivateKey, root_pem: String, at: SystemTime) -> Self {
        let (issuing_key, issuing_pem) = create_issuing(&root_key, &root_pem, DOMAIN, at).unwrap();
        let key_pem = issuing_key.to_pem();
        let authority = Authority::load(key_pem.expose_secret(), &issuing_pem, &root_pem).unwrap();
        Self {
            root_key,
            root_pem,
            issuing_key,
            issuing_pem,
            authority,
        }
    }

    pub(crate) fn roots(&self) -> Roots {
        Roots::from_pem(&self.root_pem).unwrap()
    }

    pub(crate) fn issue(&self, who_text: &str, dns: &[&str]) -> (PrivateKey, Issued) {
        let key = PrivateKey::generate().unwrap();
        let csr = key.csr_der().unwrap();
        let dns: Vec<String> = dns.iter().map(|name| (*name).to_owned()).collect();
        let issued = self
            .authority
            .issue(&csr, &who(who_text), &dns, 14 * DAY, now(), [7; 16]);
        (key, issued.unwrap())
    }

    /// A chain for somebody, with its key, as TLS takes them.
    pub(crate) fn chain(&self, who: &str, dns: &[&str]) -> (Vec<CertificateDer<'static>>, PrivateKey) {
        let (key, issued) = self.issue(who, dns);
        (from_ders(issued.chain_der).unwrap(), key)
    }

    /// The issuing certificate and the root, what stands above any certificate.
    pub(crate) fn above(&self) -> [CertificateDer<'static>; 2] {
        [self.authority.issuing_der().clone(), self.authority.root_der().clone()]
    }

    /// Signs whatever the parameters say, for whatever key.
    pub(crate) fn forge(&self, params: &CertificateParams, key: &KeyPair) -> CertificateDer<'static> {
        let issuer = Issuer::from_ca_cert_pem(&self.issuing_pem, self.issuing_key.pair()).unwrap();
        params.signed_by(key, &issuer).unwrap().into()
    }

    /// [`Ca::forge`] for a new P-256 key, as a whole chain.
    pub(crate) fn forged_chain(&self, params: &CertificateParams) -> Vec<CertificateDer<'static>> {
        let mut chain = vec![self.forge(params, &p256())];
        chain.extend(self.above());
        chain
    }
}

pub(crate) fn p256() -> KeyPair {
    KeyPair::generate().unwrap()
}

/// Parameters of a certificate that would be accepted from an agent.
pub(crate) fn agent_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::ExplicitNoCa;
    params.not_before = (now() - MINUTE).into();
    params.not_after = (now() + DAY).into();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.subject_alt_names = vec![uri(AGENT)];
    params
}

pub(crate) fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

pub(crate) fn dns(text: &str) -> SanType {
    SanType::DnsName(text.try_into().unwrap())
}
