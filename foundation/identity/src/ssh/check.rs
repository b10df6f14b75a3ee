//! Deciding whether an OpenSSH user certificate lets somebody in, and as whom.

use std::{
    net::IpAddr,
    time::{Duration, SystemTime},
};

use ssh_key::{Certificate, HashAlg, PublicKey, public::KeyData};
use thiserror::Error;

use crate::{
    name::{Label, printable},
    principal::{Kind, Principal},
};

/// The one critical option that is understood, and enforced.
const SOURCE_ADDRESS: &str = "source-address";

/// Why a user certificate was refused. [`SshCertError::reason`] gives the stable name.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SshCertError {
    /// A host's certificate.
    #[error("this is a host certificate, not a user's")]
    NotAUser,
    /// The signing key is itself a certificate.
    #[error("the certificate was signed by a certificate, not by a key")]
    NestedCertificate,
    /// The signing key is not one of the trusted ones.
    #[error("the certificate was not issued by this gateway's SSH user authority")]
    WrongCa,
    /// The signature does not fit.
    #[error("the certificate's signature is wrong")]
    BadSignature,
    /// The certificate begins later.
    #[error("the certificate is not valid yet; check the clock")]
    NotYetValid,
    /// The certificate is past its end.
    #[error("the certificate has expired; run `fairlead login`")]
    Expired,
    /// A condition nobody here can enforce.
    #[error("the certificate demands `{0}`, which cannot be enforced here")]
    UnknownCriticalOption(String),
    /// The connection comes from elsewhere than the certificate allows.
    #[error("the certificate may not be used from {0}")]
    WrongSource(IpAddr),
    /// The list of allowed addresses cannot be read.
    #[error("the certificate's list of source addresses cannot be read")]
    BadSource,
    /// The certificate names nobody, which OpenSSH takes as everybody.
    #[error("the certificate names no principal")]
    NoPrincipal,
    /// The key id is no caller of ours.
    #[error("the certificate's key id is not a user or workload of this deployment")]
    BadKeyId,
    /// The user name asked for is not the certificate's owner.
    #[error("the certificate belongs to `{owner}`, not to the user name that was asked for")]
    WrongUser {
        /// Whose certificate it is.
        owner: Label,
    },
}

impl SshCertError {
    /// The stable kebab-case name for audit records and metrics.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NotAUser => "wrong-usage",
            Self::NestedCertificate => "nested-certificate",
            Self::WrongCa => "wrong-ca",
            Self::BadSignature => "bad-signature",
            Self::NotYetValid => "not-yet-valid",
            Self::Expired => "expired",
            Self::UnknownCriticalOption(_) => "unknown-critical-option",
            Self::WrongSource(_) => "wrong-source",
            Self::BadSource => "bad-source",
            Self::NoPrincipal => "no-name",
            Self::BadKeyId => "bad-name",
            Self::WrongUser { .. } => "wrong-user",
        }
    }
}

/// Whom an accepted user certificate names. Only [`verify_user_certificate`] makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CertifiedUser {
    /// The caller's name, which is also the SSH user name at the gateway.
    pub name: Label,
    /// The caller, out of the key id.
    pub principal: Principal,
    /// The key id as signed: the principal's URI.
    pub key_id: String,
    /// The serial the authority gave the certificate.
    pub serial: u64,
}

/// Decides whether a certificate lets its holder in as `login` from `source` at `now`.
///
/// The SSH handshake must have proven possession of the key; call this in the callback that runs
/// after the signature was checked, never on a mere offer (CVE-2024-45337). The owner is read
/// from the key id, because a certificate's principals also list groups: whoever is in group `x`
/// must not be able to log in as `g-x`.
///
/// # Errors
/// One variant per cause.
pub fn verify_user_certificate(
    certificate: &Certificate,
    cas: &[PublicKey],
    login: &str,
    source: IpAddr,
    now: SystemTime,
) -> Result<CertifiedUser, SshCertError> {
    if !certificate.cert_type().is_user() {
        return Err(SshCertError::NotAUser);
    }
    check_signature(certificate, cas)?;
    check_time(certificate, now)?;
    check_options(certificate, source)?;
    check_owner(certificate, login)
}

fn check_signature(certificate: &Certificate, cas: &[PublicKey]) -> Result<(), SshCertError> {
    let signer = certificate.signature_key();
    if signer.is_certificate() {
        return Err(SshCertError::NestedCertificate);
    }
    let plain = matches!(signer, KeyData::Ed25519(_) | KeyData::Ecdsa(_));
    if !plain || !cas.iter().any(|ca| ca.key_data() == signer) {
        return Err(SshCertError::WrongCa);
    }
    // The moment asked about is inside the certificate's own validity, so that the answer is about
    // the signature alone.
    let fingerprint = signer.fingerprint(HashAlg::Sha256);
    certificate
        .validate_at(certificate.valid_after(), [&fingerprint])
        .map_err(|_| SshCertError::BadSignature)
}

fn check_time(certificate: &Certificate, now: SystemTime) -> Result<(), SshCertError> {
    let since_epoch = now.duration_since(SystemTime::UNIX_EPOCH);
    let now = since_epoch.unwrap_or(Duration::ZERO).as_secs();
    if now < certificate.valid_after() {
        Err(SshCertError::NotYetValid)
    } else if now >= certificate.valid_before() {
        Err(SshCertError::Expired)
    } else {
        Ok(())
    }
}

fn check_options(certificate: &Certificate, source: IpAddr) -> Result<(), SshCertError> {
    for (name, value) in certificate.critical_options().iter() {
        if name != SOURCE_ADDRESS {
            return Err(SshCertError::UnknownCriticalOption(printable(name)));
        }
        let mut allowed = false;
        for range in value.split(',') {
            allowed |= in_range(source, range).ok_or(SshCertError::BadSource)?;
        }
        if !allowed {
            return Err(SshCertError::WrongSource(source));
        }
    }
    Ok(())
}

fn check_owner(certificate: &Certificate, login: &str) -> Result<CertifiedUser, SshCertError> {
    let principals = certificate.valid_principals();
    if principals.is_empty() {
        return Err(SshCertError::NoPrincipal);
    }
    let key_id = certificate.key_id();
    let owner: Principal = key_id.parse().map_err(|_| SshCertError::BadKeyId)?;
    if !matches!(owner.kind(), Kind::User | Kind::Workload) {
        return Err(SshCertError::BadKeyId);
    }
    let name = owner.name().clone();
    if name != login || !principals.iter().any(|principal| name == principal.as_str()) {
        return Err(SshCertError::WrongUser { owner: name });
    }
    Ok(CertifiedUser {
        name,
        principal: owner,
        key_id: key_id.to_owned(),
        serial: certificate.serial(),
    })
}

/// True when the address lies in `ADDRESS[/BITS]`; `None` when that is no range.
fn in_range(address: IpAddr, range: &str) -> Option<bool> {
    let (network, bits) = match range.split_once('/') {
        Some((network, bits)) => (network, Some(bits)),
        None => (range, None),
    };
    let network: IpAddr = network.parse().ok()?;
    let bits = match bits {
        Some(text) if text.bytes().all(|b| b.is_ascii_digit()) => Some(text.parse::<u32>().ok()?),
        Some(_) => return None,
        None => None,
    };
    match (address.to_canonical(), network) {
        (IpAddr::V4(a), IpAddr::V4(n)) => same_prefix(a.to_bits().into(), n.to_bits().into(), bits, 32),
        (IpAddr::V6(a), IpAddr::V6(n)) => same_prefix(a.to_bits(), n.to_bits(), bits, 128),
        (_, IpAddr::V4(_)) => (bits.unwrap_or(0) <= 32).then_some(false),
        (_, IpAddr::V6(_)) => (bits.unwrap_or(0) <= 128).then_some(false),
    }
}

fn same_prefix(address: u128, network: u128, bits: Option<u32>, width: u32) -> Option<bool> {
    let ignored = width.checked_sub(bits.unwrap_or(width))?;
    let differing = address ^ network;
    Some(differing.checked_shr(ignored).unwrap_or(0) == 0)
}
