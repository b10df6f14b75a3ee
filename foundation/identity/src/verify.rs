//! From a presented certificate chain to [`Authenticated`], or a named refusal.
//!
//! The identity is read from the end-entity certificate alone, after that very certificate was
//! verified up to a pinned root; other certificates in the chain only help to build the path
//! (GHSA-mrpr-756c-xm47, GHSA-hhm9-wf63-g7qj). The chain is bounded before anything is parsed.
//! Revocation is the caller's next step, by [`Authenticated::serial_hex`] and
//! [`Authenticated::spki_sha256`]; no CRL is ever read.

use std::time::{Duration, SystemTime};

use rustls_pki_types::{CertificateDer, UnixTime};
use thiserror::Error;
use webpki::{EndEntityCert, KeyUsage};

use crate::{
    certificate::{ECDSA_P256, Parsed},
    name::printable,
    principal::{Kind, Principal},
};

mod roots;

pub(crate) use roots::trust_domain_of;
pub use roots::{MAX_ROOTS, Roots, RootsError};

/// Most certificates in a presented chain, the end entity's and the root's included.
pub const MAX_CHAIN_CERTIFICATES: usize = 4;
/// Most bytes of DER in a presented chain, all certificates together.
pub const MAX_CHAIN_BYTES: usize = 16 * 1024;

/// What the presenter wants to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    /// One that dials: agent, user or workload.
    Client,
    /// One that is dialled: a gateway.
    Server,
}

/// Why a chain was refused. [`VerifyError::reason`] gives the stable name.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum VerifyError {
    /// No path leads from the certificate to a pinned root.
    #[error("the certificate was not issued by this deployment's authority")]
    WrongCa,
    /// The certificate, or one above it, is past its end; it was ours and is otherwise in order.
    #[error("the certificate expired at {}", stamp(.not_after))]
    Expired {
        /// The last moment of validity.
        not_after: SystemTime,
    },
    /// The certificate, or one above it, begins later; it was ours and is otherwise in order.
    #[error(
        "the certificate is not valid before {}; check the clock of this machine and of its peer",
        stamp(.not_before)
    )]
    NotYetValid {
        /// The first moment of validity.
        not_before: SystemTime,
    },
    /// The certificate is for other uses, or its kind of principal does not act in this role.
    #[error("the certificate may not be used for this; client and server certificates differ")]
    WrongUsage,
    /// The certificate has no URI name.
    #[error("the certificate carries no identity (a spiffe:// URI); a common name is not read")]
    NoName,
    /// The URI name is not a principal.
    #[error("the certificate's identity is not one this version knows: {0}")]
    BadName(String),
    /// The certificate has several URI names.
    #[error("the certificate carries several identities; exactly one is accepted")]
    ManyNames,
    /// The principal is of another trust domain.
    #[error("the certificate belongs to the trust domain `{0}`")]
    WrongTrustDomain(String),
    /// The chain has too many certificates, too many bytes, or too many paths.
    #[error(
        "the certificate chain is too long; at most {MAX_CHAIN_CERTIFICATES} certificates and \
         {MAX_CHAIN_BYTES} bytes are read"
    )]
    ChainTooLong,
    /// A signature in the path does not fit the key that should have made it.
    #[error("a signature in the certificate chain is wrong")]
    BadSignature,
    /// A certificate cannot be read, or there is none.
    #[error("the certificate cannot be read")]
    Malformed,
    /// The certificate's key is not P-256.
    #[error("the certificate's key is not P-256")]
    WeakKey,
    /// A signature in the path is not ECDSA on P-256 with SHA-256.
    #[error("the certificate chain uses a signature algorithm other than ECDSA P-256 with SHA-256")]
    WeakSignature,
    /// An authority's certificate is presented as somebody's.
    #[error("an authority's certificate cannot be used as an identity")]
    CaAsLeaf,
    /// A certificate that is no authority's, or no longer within a path length, signed another.
    #[error("a certificate in the chain was signed by one that may not sign it")]
    NotAnIssuer,
    /// A name constraint in the path forbids the certificate's names.
    #[error("the certificate's names are outside what its authority may issue")]
    NameConstraint,
}

impl VerifyError {
    /// Every name that [`VerifyError::reason`] gives.
    pub(crate) const REASONS: &[&str] = &[
        "wrong-ca",
        "expired",
        "not-yet-valid",
        "wrong-usage",
        "no-name",
        "bad-name",
        "many-names",
        "wrong-trust-domain",
        "chain-too-long",
        "bad-signature",
        "malformed",
        "weak-key",
        "weak-signature",
        "ca-as-leaf",
        "not-an-issuer",
        "name-constraint",
    ];

    /// The stable kebab-case name for audit records and metrics.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::WrongCa => "wrong-ca",
            Self::Expired { .. } => "expired",
            Self::NotYetValid { .. } => "not-yet-valid",
            Self::WrongUsage => "wrong-usage",
            Self::NoName => "no-name",
            Self::BadName(_) => "bad-name",
            Self::ManyNames => "many-names",
            Self::WrongTrustDomain(_) => "wrong-trust-domain",
            Self::ChainTooLong => "chain-too-long",
            Self::BadSignature => "bad-signature",
            Self::Malformed => "malformed",
            Self::WeakKey => "weak-key",
            Self::WeakSignature => "weak-signature",
            Self::CaAsLeaf => "ca-as-leaf",
            Self::NotAnIssuer => "not-an-issuer",
            Self::NameConstraint => "name-constraint",
        }
    }
}

/// Somebody whose certificate was verified. Only [`authenticate`] makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authenticated {
    principal: Principal,
    spki_sha256: [u8; 32],
    ssh_fingerprint: String,
    serial_hex: String,
    not_before: SystemTime,
    not_after: SystemTime,
}

impl Authenticated {
    /// Who it is.
    #[must_use]
    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    /// SHA-256 of the public key (SubjectPublicKeyInfo in DER); outlives renewals with one key.
    #[must_use]
    pub fn spki_sha256(&self) -> &[u8; 32] {
        &self.spki_sha256
    }

    /// The fingerprint of the same public key as an SSH key, as OpenSSH prints it: one login key has both certificates.
    #[must_use]
    pub fn ssh_fingerprint(&self) -> &str {
        &self.ssh_fingerprint
    }

    /// The certificate's serial in lower-case hex without leading zeros.
    #[must_use]
    pub fn serial_hex(&self) -> &str {
        &self.serial_hex
    }

    /// The first moment of the certificate's validity.
    #[must_use]
    pub fn not_before(&self) -> SystemTime {
        self.not_before
    }

    /// The last moment of the certificate's validity.
    #[must_use]
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }
}

/// Verifies a chain as a peer presented it, end-entity certificate first, and says who it is.
///
/// Pure: same arguments, same answer. Whether the peer holds the key is proven elsewhere, by the
/// TLS handshake or a signed request. `trust_domain` is the only one accepted.
///
/// # Errors
/// One variant per cause; time errors only for chains that would otherwise be accepted.
pub fn authenticate(
    chain: &[CertificateDer<'_>],
    roots: &Roots,
    usage: Usage,
    trust_domain: &str,
    now: SystemTime,
) -> Result<Authenticated, VerifyError> {
    let bytes: usize = chain.iter().map(|certificate| certificate.len()).sum();
    if chain.len() > MAX_CHAIN_CERTIFICATES || bytes > MAX_CHAIN_BYTES {
        return Err(VerifyError::ChainTooLong);
    }
    let attempt = |at| {
        verify_path(chain, roots, usage, at)?;
        read_leaf(chain, usage, trust_domain)
    };
    let refused = match attempt(now) {
        Ok(authenticated) => return Ok(authenticated),
        Err(refused) => refused,
    };
    // Whoever is told `expired` may be led to a renewal, so that word is kept for chains that
    // would have been accepted while they were valid. What we issue lies within the validity of
    // everything above it; a chain without any moment of validity was made elsewhere.
    match refused {
        VerifyError::Expired { not_after: at } | VerifyError::NotYetValid { not_before: at } => match attempt(at) {
            Ok(_) => Err(refused),
            Err(VerifyError::Expired { .. } | VerifyError::NotYetValid { .. }) => Err(VerifyError::WrongCa),
            Err(worse) => Err(worse),
        },
        other => Err(other),
    }
}

/// Builds and checks the path from the end-entity certificate to a root, at a time.
fn verify_path(chain: &[CertificateDer<'_>], roots: &Roots, usage: Usage, at: SystemTime) -> Result<(), VerifyError> {
    let (leaf, rest) = chain.split_first().ok_or(VerifyError::Malformed)?;
    let end_entity = EndEntityCert::try_from(leaf).map_err(|error| refusal(&error))?;
    let key_usage = match usage {
        Usage::Client => KeyUsage::client_auth(),
        Usage::Server => KeyUsage::server_auth(),
    };
    let since_epoch = at.duration_since(SystemTime::UNIX_EPOCH);
    let time = UnixTime::since_unix_epoch(since_epoch.unwrap_or(Duration::ZERO));
    let path = end_entity
        .verify_for_usage(&[ECDSA_P256], roots.anchors(), rest, time, key_usage, None, None)
        .map_err(|error| refusal(&error))?;
    roots.check_time(path.anchor(), at)
}

/// Reads the identity out of the end-entity certificate, which the path check has accepted.
fn read_leaf(chain: &[CertificateDer<'_>], usage: Usage, trust_domain: &str) -> Result<Authenticated, VerifyError> {
    let leaf = chain.first().and_then(Parsed::new);
    let leaf = leaf.ok_or(VerifyError::Malformed)?;
    if !leaf.is_p256() {
        return Err(VerifyError::WeakKey);
    }
    let principal = read_principal(&leaf)?;
    if principal.trust_domain() != trust_domain {
        let theirs = principal.trust_domain().to_owned();
        return Err(VerifyError::WrongTrustDomain(theirs));
    }
    if !usage_fits(&leaf, usage, principal.kind()) {
        return Err(VerifyError::WrongUsage);
    }
    Ok(Authenticated {
        principal,
        spki_sha256: leaf.spki_sha256(),
        ssh_fingerprint: leaf.ssh_fingerprint().ok_or(VerifyError::WeakKey)?,
        serial_hex: leaf.serial_hex(),
        not_before: leaf.not_before(),
        not_after: leaf.not_after(),
    })
}

fn read_principal(leaf: &Parsed<'_>) -> Result<Principal, VerifyError> {
    let names = leaf.names().ok_or(VerifyError::Malformed)?;
    match names.uris.as_slice() {
        _ if names.unreadable => Err(VerifyError::BadName("it is not text".to_owned())),
        [] => Err(VerifyError::NoName),
        [uri] => uri.parse().map_err(|_| VerifyError::BadName(printable(uri))),
        _ => Err(VerifyError::ManyNames),
    }
}

/// A client certificate serves clients only and a server certificate servers only, so that a
/// stolen device certificate can never stand in for a gateway.
fn usage_fits(leaf: &Parsed<'_>, usage: Usage, kind: Kind) -> bool {
    let Some(named) = leaf.usages() else {
        return false;
    };
    let only_this = match usage {
        Usage::Client => named.client && !named.server,
        Usage::Server => named.server && !named.client,
    };
    let kind_acts = match usage {
        Usage::Client => kind != Kind::Gateway,
        Usage::Server => kind == Kind::Gateway,
    };
    only_this && kind_acts && !named.anything_else && leaf.may_sign()
}

/// True when the end-entity certificate of a chain names `dns` exactly; wildcards name nothing.
///
/// Only meaningful for a chain that [`authenticate`] has accepted.
pub(crate) fn names_dns(chain: &[CertificateDer<'_>], dns: &str) -> bool {
    let leaf = chain.first().and_then(Parsed::new);
    let dns = dns.strip_suffix('.').unwrap_or(dns);
    leaf.as_ref()
        .and_then(Parsed::names)
        .is_some_and(|names| names.dns.iter().any(|name| name.eq_ignore_ascii_case(dns)))
}

pub(crate) fn refusal(error: &webpki::Error) -> VerifyError {
    use webpki::Error as Cause;
    match error {
        Cause::CertExpired { not_after, .. } => VerifyError::Expired {
            not_after: system_time(*not_after),
        },
        Cause::CertNotValidYet { not_before, .. } => VerifyError::NotYetValid {
            not_before: system_time(*not_before),
        },
        Cause::UnknownIssuer => VerifyError::WrongCa,
        Cause::InvalidSignatureForPublicKey => VerifyError::BadSignature,
        Cause::RequiredEkuNotFoundContext(_) | Cause::EmptyEkuExtension => VerifyError::WrongUsage,
        Cause::CaUsedAsEndEntity => VerifyError::CaAsLeaf,
        Cause::EndEntityUsedAsCa | Cause::PathLenConstraintViolated => VerifyError::NotAnIssuer,
        Cause::NameConstraintViolation | Cause::MalformedNameConstraint | Cause::InvalidNetworkMaskConstraint => {
            VerifyError::NameConstraint
        }
        Cause::UnsupportedSignatureAlgorithmContext(_)
        | Cause::UnsupportedSignatureAlgorithmForPublicKeyContext(_)
        | Cause::SignatureAlgorithmMismatch => VerifyError::WeakSignature,
        Cause::MaximumNameConstraintComparisonsExceeded
        | Cause::MaximumPathBuildCallsExceeded
        | Cause::MaximumPathDepthExceeded
        | Cause::MaximumSignatureChecksExceeded => VerifyError::ChainTooLong,
        _ => VerifyError::Malformed,
    }
}

fn system_time(time: UnixTime) -> SystemTime {
    SystemTime::UNIX_EPOCH
        .checked_add(Duration::from_secs(time.as_secs()))
        .unwrap_or(SystemTime::UNIX_EPOCH)
}

/// A time as people read it, in UTC to the second.
fn stamp(time: &SystemTime) -> String {
    use time::{OffsetDateTime, format_description::well_known::Rfc3339};
    let seconds = time.duration_since(SystemTime::UNIX_EPOCH);
    seconds
        .ok()
        .and_then(|d| i64::try_from(d.as_secs()).ok())
        .and_then(|s| OffsetDateTime::from_unix_timestamp(s).ok())
        .and_then(|t| t.format(&Rfc3339).ok())
        .unwrap_or_else(|| "an unknown time".to_owned())
}

#[cfg(test)]
mod tests;
