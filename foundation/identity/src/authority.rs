//! The private certificate authority: a root that may stay offline, an issuing key that works.
//!
//! A signing request contributes its public key and the proof that the requester holds it, and
//! nothing else: every name, usage, constraint and date comes from the arguments. Who may get a
//! certificate, and that each serial is remembered for revocation, is the caller's business.

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyUsagePurpose, SanType, SerialNumber, SubjectPublicKeyInfo,
};
use rustls_pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use thiserror::Error;
use time::OffsetDateTime;
use x509_parser::{certification_request::X509CertificationRequest, prelude::FromDer};

use crate::{
    certificate::{ECDSA_P256, Parsed, hex, is_p256},
    keys::{KeyError, PrivateKey, random_serial},
    principal::{Kind, Principal, check_trust_domain, is_dns_name},
    verify::trust_domain_of,
};

mod above;

pub use above::Above;
use above::{der_from_pem, parse_authority};

/// Life of a root certificate.
pub const ROOT_LIFE: Duration = Duration::from_secs(10 * 365 * 86_400);
/// Life of an issuing certificate.
pub const ISSUING_LIFE: Duration = Duration::from_secs(2 * 365 * 86_400);
/// Longest life of an issued certificate; the gateway's own settings are far below.
pub const MAX_LIFE: Duration = Duration::from_secs(400 * 86_400);
/// How far before its issue a certificate becomes valid, for clocks that are behind; a tenth of its life where that is less.
pub const BACKDATE: Duration = Duration::from_secs(5 * 60);
/// Longest signing request read, in bytes of DER.
pub const MAX_CSR_BYTES: usize = 4096;
/// Most DNS names of one certificate.
pub const MAX_DNS_NAMES: usize = 32;

/// Why an authority cannot be made or loaded.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AuthorityError {
    /// A key cannot be made or read.
    #[error("the key of the certificate authority: {0}")]
    Key(#[from] KeyError),
    /// The trust domain is not one.
    #[error("`{0}` cannot be a trust domain; use a lower-case DNS name")]
    BadTrustDomain(String),
    /// The moment given cannot stand in a certificate.
    #[error("the clock says a time that certificates cannot carry; set the clock of this machine")]
    BadClock,
    /// A certificate is not readable as the authority's.
    #[error("the {0} certificate is not the certificate of a P-256 certificate authority in PEM")]
    NotAnAuthority(&'static str),
    /// The key is not the one in the certificate.
    #[error("the {0} key does not belong to the {0} certificate; restore both from one backup")]
    KeyMismatch(&'static str),
    /// The issuing certificate was not signed by the root.
    #[error("the issuing certificate was not issued by this root; restore both from one backup")]
    NotFromRoot,
    /// Root and issuing certificate are of different trust domains.
    #[error("the certificate authority's certificates name different trust domains, or none")]
    TrustDomainMismatch,
    /// The provider could not sign.
    #[error("the certificate could not be signed")]
    Unsigned,
}

/// Why a certificate was not issued.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum IssueError {
    /// The request is too long, not a signing request, or has bytes after it.
    #[error("the signing request cannot be read (PKCS #10 in DER, at most {MAX_CSR_BYTES} bytes)")]
    MalformedRequest,
    /// The request's key is not P-256.
    #[error("the signing request's key is not P-256, the only kind issued for")]
    WeakKey,
    /// The request is not signed by its own key.
    #[error("the signing request is not signed by the key it carries")]
    BadSignature,
    /// The principal is of another trust domain.
    #[error("this authority issues for the trust domain `{0}` only")]
    WrongTrustDomain(String),
    /// DNS names for somebody who is no gateway, too many, or one that is none.
    #[error("{0}")]
    BadDnsName(String),
    /// The life is zero or too long.
    #[error("a certificate lives from 1 second to {} days", MAX_LIFE.as_secs() / 86_400)]
    BadLife,
    /// The issuing certificate has expired, or begins later.
    #[error("the issuing certificate is not valid now; run `fairlead-gateway ca status`")]
    AuthorityNotValid,
    /// The moment given cannot stand in a certificate.
    #[error("the clock says a time that certificates cannot carry; set the clock of this machine")]
    BadClock,
    /// The provider could not sign.
    #[error("the certificate could not be signed")]
    Unsigned,
}

/// A certificate that was issued, with what the store keeps about it.
#[derive(Clone, Debug)]
pub struct Issued {
    /// The certificate.
    pub leaf_der: Vec<u8>,
    /// The chain as the holder presents it: the certificate, the issuing one, the root.
    pub chain_der: Vec<Vec<u8>>,
    /// The serial, as [`crate::verify::Authenticated::serial_hex`] will give it.
    pub serial_hex: String,
    /// SHA-256 of the public key, as [`crate::verify::Authenticated::spki_sha256`] will give it.
    pub spki_sha256: [u8; 32],
    /// The first moment of validity.
    pub not_before: SystemTime,
    /// The last moment of validity.
    pub not_after: SystemTime,
}

/// The issuing key with the certificates above it.
pub struct Authority {
    issuer: Issuer<'static, IssuingKey>,
    above: Above,
}

/// Makes a self-signed root for a trust domain, valid for [`ROOT_LIFE`]: its key and its PEM.
/// Draws randomness.
///
/// # Errors
/// When the trust domain is not one, or no randomness is there.
pub fn create_root(trust_domain: &str, now: SystemTime) -> Result<(PrivateKey, String), AuthorityError> {
    let key = PrivateKey::generate()?;
    let params = authority_params("root", trust_domain, &key, ROOT_LIFE, now)?;
    let certificate = params.self_signed(key.pair());
    let certificate = certificate.map_err(|_| AuthorityError::Unsigned)?;
    Ok((key, certificate.pem()))
}

/// Makes an issuing key and certificate under a root, valid for [`ISSUING_LIFE`], unable to make
/// further authorities. Draws randomness.
///
/// # Errors
/// When the root's key and certificate do not fit each other or the trust domain.
pub fn create_issuing(
    root_key: &PrivateKey,
    root_pem: &str,
    trust_domain: &str,
    now: SystemTime,
) -> Result<(PrivateKey, String), AuthorityError> {
    let root_der = der_from_pem(root_pem, "root")?;
    let root = parse_authority(&root_der, "root")?;
    if root.spki_sha256() != root_key.spki_sha256() {
        return Err(AuthorityError::KeyMismatch("root"));
    }
    if trust_domain_of(&root).as_deref() != Some(trust_domain) {
        return Err(AuthorityError::TrustDomainMismatch);
    }
    let key = PrivateKey::generate()?;
    let mut params = authority_params("issuing", trust_domain, &key, ISSUING_LIFE, now)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.use_authority_key_identifier_extension = true;
    let last = root.not_after();
    params.not_after = params.not_after.min(calendar(last).ok_or(AuthorityError::BadClock)?);
    let issuer = Issuer::from_ca_cert_der(&root_der, root_key.pair());
    let issuer = issuer.map_err(|_| AuthorityError::NotAnAuthority("root"))?;
    let certificate = params.signed_by(key.pair(), &issuer);
    let certificate = certificate.map_err(|_| AuthorityError::Unsigned)?;
    Ok((key, certificate.pem()))
}

impl Authority {
    /// Puts an authority together from the files of `fairlead-gateway init`.
    ///
    /// # Errors
    /// When the parts do not fit each other. Ages are checked when a certificate is issued.
    pub fn load(issuing_key_pem: &str, issuing_cert_pem: &str, root_cert_pem: &str) -> Result<Self, AuthorityError> {
        let key = PrivateKey::from_pem(issuing_key_pem)?;
        let above = Above::read(issuing_cert_pem, root_cert_pem)?;
        if above.spki_sha256() != key.spki_sha256() {
            return Err(AuthorityError::KeyMismatch("issuing"));
        }
        let issuer = Issuer::from_ca_cert_der(above.issuing_der(), IssuingKey(key));
        let issuer = issuer.map_err(|_| AuthorityError::NotAnAuthority("issuing"))?;
        Ok(Self { issuer, above })
    }

    /// The certificates above what is issued.
    #[must_use]
    pub fn above(&self) -> &Above {
        &self.above
    }

    /// The trust domain issued for.
    #[must_use]
    pub fn trust_domain(&self) -> &str {
        self.above.trust_domain()
    }

    /// The root certificate.
    #[must_use]
    pub fn root_der(&self) -> &CertificateDer<'static> {
        self.above.root_der()
    }

    /// SHA-256 of the root certificate's DER, which join strings pin.
    #[must_use]
    pub fn root_sha256(&self) -> [u8; 32] {
        self.above.root_sha256()
    }

    /// The issuing certificate.
    #[must_use]
    pub fn issuing_der(&self) -> &CertificateDer<'static> {
        self.above.issuing_der()
    }

    /// The last moment at which this authority can issue.
    #[must_use]
    pub fn not_after(&self) -> SystemTime {
        self.above.not_after()
    }

    /// Issues a certificate for the key of a signing request.
    ///
    /// `who` is the only identity in it; `dns` are allowed for a gateway only; it is valid from
    /// [`BACKDATE`] (or a tenth of `life`) before `now` for `life` after it, but never beyond the issuing certificate.
    /// `serial` is 128 random bits ([`random_serial`]); two of them are fixed to keep the number
    /// positive and its length constant.
    ///
    /// # Errors
    /// One variant per cause; nothing was signed then.
    pub fn issue(
        &self,
        csr_der: &[u8],
        who: &Principal,
        dns: &[String],
        life: Duration,
        now: SystemTime,
        serial: [u8; 16],
    ) -> Result<Issued, IssueError> {
        let above = &self.above;
        if who.trust_domain() != above.trust_domain() {
            return Err(IssueError::WrongTrustDomain(above.trust_domain().to_owned()));
        }
        if life < Duration::from_secs(1) || life > MAX_LIFE {
            return Err(IssueError::BadLife);
        }
        if now < above.not_before() || now > above.not_after() {
            return Err(IssueError::AuthorityNotValid);
        }
        let key = requested_key(csr_der)?;
        let serial = positive(serial);
        let mut params = leaf_params(who, dns)?;
        // A long grace before a short life would make a schedule by the whole of it late from the start.
        let begin = now.checked_sub(BACKDATE.min(life / 10)).ok_or(IssueError::BadClock)?;
        let end = now.checked_add(life).ok_or(IssueError::BadClock)?;
        params.not_before = calendar(begin.max(above.not_before())).ok_or(IssueError::BadClock)?;
        params.not_after = calendar(end.min(above.not_after())).ok_or(IssueError::BadClock)?;
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        let signed = params.signed_by(&key, &self.issuer);
        let leaf_der: CertificateDer<'static> = signed.map_err(|_| IssueError::Unsigned)?.into();
        let leaf = Parsed::new(&leaf_der).ok_or(IssueError::Unsigned)?;
        Ok(Issued {
            chain_der: [&leaf_der, above.issuing_der(), above.root_der()]
                .map(|der| der.to_vec())
                .into(),
            serial_hex: hex(&serial),
            spki_sha256: leaf.spki_sha256(),
            not_before: leaf.not_before(),
            not_after: leaf.not_after(),
            leaf_der: leaf_der.to_vec(),
        })
    }
}

/// The key of a signing request, whose holder signed the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestedKey {
    /// SHA-256 of the public key, as [`Issued::spki_sha256`] will give it.
    pub spki_sha256: [u8; 32],
    /// The same key as one OpenSSH public key line.
    pub ssh_line: String,
    point: Vec<u8>,
}

impl RequestedKey {
    /// Whether this key signed `message` ([`PrivateKey::sign`]).
    #[must_use]
    pub fn signed(&self, message: &[u8], signature: &[u8]) -> bool {
        ECDSA_P256.verify_signature(&self.point, message, signature).is_ok()
    }
}

/// Reads the key of a signing request before anything is decided for it. Everything else in it is ignored.
///
/// # Errors
/// As [`Authority::issue`] about the request.
pub fn csr_key(csr_der: &[u8]) -> Result<RequestedKey, IssueError> {
    requested_key(csr_der)?;
    let Ok((_, csr)) = X509CertificationRequest::from_der(csr_der) else {
        return Err(IssueError::MalformedRequest);
    };
    let spki = &csr.certification_request_info.subject_pki;
    let ssh_line = ssh_key::public::EcdsaPublicKey::from_sec1_bytes(&spki.subject_public_key.data)
        .and_then(|key| ssh_key::PublicKey::new(key.into(), "").to_openssh())
        .map_err(|_| IssueError::WeakKey)?;
    Ok(RequestedKey {
        spki_sha256: Sha256::digest(spki.raw).into(),
        ssh_line,
        point: spki.subject_public_key.data.to_vec(),
    })
}

/// The public key of a signing request that is signed by it. Everything else in it is ignored.
fn requested_key(csr_der: &[u8]) -> Result<SubjectPublicKeyInfo, IssueError> {
    if csr_der.len() > MAX_CSR_BYTES {
        return Err(IssueError::MalformedRequest);
    }
    let Ok(([], csr)) = X509CertificationRequest::from_der(csr_der) else {
        return Err(IssueError::MalformedRequest);
    };
    let info = &csr.certification_request_info;
    if !is_p256(&info.subject_pki) {
        return Err(IssueError::WeakKey);
    }
    let point = &info.subject_pki.subject_public_key.data;
    ECDSA_P256
        .verify_signature(point, info.raw, &csr.signature_value.data)
        .map_err(|_| IssueError::BadSignature)?;
    SubjectPublicKeyInfo::from_der(info.subject_pki.raw).map_err(|_| IssueError::WeakKey)
}

fn leaf_params(who: &Principal, dns: &[String]) -> Result<CertificateParams, IssueError> {
    check_dns(who, dns)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = common_name(who.name().as_str());
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![match who.kind() {
        Kind::Gateway => ExtendedKeyUsagePurpose::ServerAuth,
        Kind::Agent | Kind::User | Kind::Workload => ExtendedKeyUsagePurpose::ClientAuth,
    }];
    let uri = SanType::URI(ia5(&who.to_string())?);
    params.subject_alt_names = vec![uri];
    for name in dns {
        params.subject_alt_names.push(SanType::DnsName(ia5(name)?));
    }
    Ok(params)
}

fn check_dns(who: &Principal, dns: &[String]) -> Result<(), IssueError> {
    let refuse = |text: String| Err(IssueError::BadDnsName(text));
    if !dns.is_empty() && who.kind() != Kind::Gateway {
        return refuse(format!("a certificate for {who} cannot carry DNS names"));
    }
    if dns.len() > MAX_DNS_NAMES {
        return refuse(format!("at most {MAX_DNS_NAMES} DNS names fit one certificate"));
    }
    match dns.iter().find(|name| !is_dns_name(name)) {
        Some(bad) => refuse(format!("`{bad}` is not a lower-case DNS name")),
        None => Ok(()),
    }
}

fn ia5(text: &str) -> Result<rcgen::string::Ia5String, IssueError> {
    text.try_into().map_err(|_| IssueError::Unsigned)
}

fn authority_params(
    role: &str,
    trust_domain: &str,
    key: &PrivateKey,
    life: Duration,
    now: SystemTime,
) -> Result<CertificateParams, AuthorityError> {
    let bad_domain = || AuthorityError::BadTrustDomain(trust_domain.to_owned());
    check_trust_domain(trust_domain).map_err(|_| bad_domain())?;
    let uri = format!("spiffe://{trust_domain}");
    let mut params = CertificateParams::default();
    // Part of the key's digest keeps two authorities of one trust domain apart by name, so that a
    // path is never tried with the wrong one.
    let digest = hex(key.spki_sha256().get(..6).unwrap_or_default());
    params.distinguished_name = common_name(&format!("Fairlead {role} {digest}"));
    params.subject_alt_names = vec![SanType::URI(uri.try_into().map_err(|_| bad_domain())?)];
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.serial_number = Some(SerialNumber::from_slice(&positive(random_serial()?)));
    let begin = now.checked_sub(BACKDATE).and_then(calendar);
    let end = now.checked_add(life).and_then(calendar);
    params.not_before = begin.ok_or(AuthorityError::BadClock)?;
    params.not_after = end.ok_or(AuthorityError::BadClock)?;
    Ok(params)
}

fn common_name(text: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, text);
    name
}

/// Clears the sign bit and sets the next one: a positive number of always 16 bytes (RFC 5280,
/// section 4.1.2.2).
fn positive(mut serial: [u8; 16]) -> [u8; 16] {
    if let Some(first) = serial.first_mut() {
        *first = (*first & 0x7f) | 0x40;
    }
    serial
}

/// The time as certificates carry it: whole seconds, years 1970 to 9999.
fn calendar(time: SystemTime) -> Option<OffsetDateTime> {
    let since_epoch = time.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    let seconds = i64::try_from(since_epoch.as_secs()).ok()?;
    OffsetDateTime::from_unix_timestamp(seconds).ok()
}

/// Lets rcgen sign with a key that stays ours and is zeroed with it.
struct IssuingKey(PrivateKey);

impl rcgen::PublicKeyData for IssuingKey {
    fn der_bytes(&self) -> &[u8] {
        self.0.pair().der_bytes()
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        self.0.pair().algorithm()
    }
}

impl rcgen::SigningKey for IssuingKey {
    fn sign(&self, msg: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.0.pair().sign(msg)
    }
}

#[cfg(test)]
mod tests;
