//! Enrolment: a join string's secret and a key of one's own, for a certificate.
//!
//! One connection with [`crate::version::ALPN_ENROLL`], one bidirectional stream opened by the client, one
//! [`EnrollRequest`], one [`EnrollAnswer`]. The client has pinned the gateway by the fingerprint in the join string; the
//! gateway knows nothing of the client but the secret, so the request is bounded by
//! [`crate::codec::MAX_PREAUTH_FRAME`].

use std::collections::BTreeMap;
use std::fmt;

use crate::check::{self, CheckError, Checker, Problem};
pub use crate::refusal::Refused;

/// The client asks for a certificate. Since 1.
///
/// `Debug` does not print the secret.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
#[prost(skip_debug)]
pub struct EnrollRequest {
    /// Oldest wire version the client speaks, at least 1.
    #[prost(uint32, tag = "1")]
    pub version_min: u32,
    /// Newest wire version the client speaks, at least `version_min`.
    #[prost(uint32, tag = "2")]
    pub version_max: u32,
    /// Features without which the client does not want to be enrolled; at most 32 names.
    #[prost(string, repeated, tag = "3")]
    pub requires: Vec<String>,
    /// The join string's secret, 32 bytes; empty where `proof` stands for it.
    #[prost(bytes = "vec", tag = "4")]
    pub secret: Vec<u8>,
    /// A PKCS #10 request in DER, at most 4 KiB. Only its key is used; every name in it is ignored.
    #[prost(bytes = "vec", tag = "5")]
    pub csr_der: Vec<u8>,
    /// Facts the client tells about its machine; at most 64, values at most 256 bytes. Shown, never used in decisions.
    #[prost(btree_map = "string, string", tag = "6")]
    pub reported: BTreeMap<String, String>,
    /// The name a device of a fleet proposes for itself; empty when the token names it. At most 128 bytes.
    #[prost(string, tag = "7")]
    pub proposed_name: String,
    /// Renewal in place of enrolment: a signature by the key of `csr_der`, which the gateway knows, over
    /// [`PROOF_CONTEXT`] and this connection's 32 bytes of exported keying material (RFC 8446 section 7.5, label
    /// [`PROOF_EXPORTER`], no context). ECDSA in DER, at most 128 bytes; empty where `secret` is given.
    #[prost(bytes = "vec", tag = "8")]
    pub proof: Vec<u8>,
}

/// What a proof of key signs first, so that no other signature of the key can stand in for it.
pub const PROOF_CONTEXT: &[u8] = b"fairlead proof of key, version 1\0";

/// The exporter label of a proof of key.
pub const PROOF_EXPORTER: &[u8] = b"EXPORTER-fairlead-proof-of-key";

/// The gateway's answer to [`EnrollRequest`]. Since 1.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct EnrollAnswer {
    /// The answer; `None` is an answer of a newer peer and as good as a refusal.
    #[prost(oneof = "Body", tags = "1, 2")]
    pub body: Option<Body>,
}

/// The kinds of [`EnrollAnswer`].
#[expect(
    clippy::large_enum_variant,
    reason = "one answer per connection, and mostly the large one"
)]
#[derive(Clone, PartialEq, Eq, Hash, prost::Oneof)]
pub enum Body {
    /// A certificate and what is needed to use it.
    #[prost(message, tag = "1")]
    Enrolled(Enrolled),
    /// No certificate.
    #[prost(message, tag = "2")]
    Refused(Refused),
}

/// A certificate and what is needed to use it. Since 1.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Enrolled {
    /// DER: leaf, issuing CA, root; at most 4, each at most 4 KiB.
    #[prost(bytes = "vec", repeated, tag = "1")]
    pub certificate_chain: Vec<Vec<u8>>,
    /// The SPIFFE URI in the leaf; at most 512 bytes.
    #[prost(string, tag = "2")]
    pub principal: String,
    /// One OpenSSH user certificate line for users; empty for others. At most 8 KiB.
    #[prost(string, tag = "3")]
    pub ssh_certificate: String,
    /// OpenSSH public key lines of the SSH user CAs; at most 16.
    #[prost(string, repeated, tag = "4")]
    pub ssh_user_ca: Vec<String>,
    /// OpenSSH public key lines of the SSH host CAs; at most 16.
    #[prost(string, repeated, tag = "5")]
    pub ssh_host_ca: Vec<String>,
    /// The gateway's domain; at most 253 bytes.
    #[prost(string, tag = "6")]
    pub domain: String,
    /// `host:port` of every gateway to link to or call; at most 16.
    #[prost(string, repeated, tag = "7")]
    pub gateway_addresses: Vec<String>,
    /// The name that was given; at most 128 bytes.
    #[prost(string, tag = "8")]
    pub name: String,
    /// The site that was given; empty when bound to none. At most 128 bytes.
    #[prost(string, tag = "9")]
    pub site: String,
    /// DER of every root certificate to trust, the chain's own among them; at most 8. Empty: the chain's own alone.
    #[prost(bytes = "vec", repeated, tag = "10")]
    pub roots: Vec<Vec<u8>>,
}

impl EnrollRequest {
    /// Bounds every field.
    ///
    /// # Errors
    /// [`CheckError`] naming the first field out of bounds.
    pub fn check(&self) -> Result<(), CheckError> {
        let fields = Checker::of("EnrollRequest");
        fields.versions(self.version_min, self.version_max)?;
        fields.requires(&self.requires)?;
        if self.proof.is_empty() {
            fields.exactly("secret", &self.secret, check::SECRET_BYTES)?;
        } else {
            fields.exactly("secret", &self.secret, 0)?;
            fields.bytes("proof", &self.proof, check::MAX_PROOF_BYTES)?;
        }
        fields.bytes("csr_der", &self.csr_der, check::MAX_CSR_BYTES)?;
        fields.reported(&self.reported)?;
        fields.text("proposed_name", &self.proposed_name, check::MAX_NAME_BYTES)
    }
}

impl fmt::Debug for EnrollRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EnrollRequest")
            .field("version_min", &self.version_min)
            .field("version_max", &self.version_max)
            .field("requires", &self.requires)
            .field("csr_der_bytes", &self.csr_der.len())
            .field("reported", &self.reported)
            .field("proposed_name", &self.proposed_name)
            .finish_non_exhaustive()
    }
}

impl EnrollAnswer {
    /// The answer that carries a certificate.
    #[must_use]
    pub const fn enrolled(enrolled: Enrolled) -> Self {
        Self {
            body: Some(Body::Enrolled(enrolled)),
        }
    }

    /// The answer that there is none.
    #[must_use]
    pub const fn refused(refused: Refused) -> Self {
        Self {
            body: Some(Body::Refused(refused)),
        }
    }

    /// Bounds every field.
    ///
    /// # Errors
    /// [`CheckError`] naming the first field out of bounds, or `body` when there is no known answer.
    pub fn check(&self) -> Result<(), CheckError> {
        match &self.body {
            None => Err(Checker::of("EnrollAnswer").error("body", Problem::Missing)),
            Some(Body::Enrolled(enrolled)) => enrolled.check(),
            Some(Body::Refused(refused)) => refused.check(),
        }
    }
}

impl Enrolled {
    /// Bounds every field.
    ///
    /// # Errors
    /// [`CheckError`] naming the first field out of bounds.
    pub fn check(&self) -> Result<(), CheckError> {
        let fields = Checker::of("Enrolled");
        fields.chain(&self.certificate_chain)?;
        fields.full_text("principal", &self.principal, check::MAX_PRINCIPAL_BYTES)?;
        fields.text(
            "ssh_certificate",
            &self.ssh_certificate,
            check::MAX_SSH_CERTIFICATE_BYTES,
        )?;
        fields.texts(
            "ssh_user_ca",
            &self.ssh_user_ca,
            check::MAX_FEW,
            check::MAX_SSH_KEY_BYTES,
        )?;
        fields.texts(
            "ssh_host_ca",
            &self.ssh_host_ca,
            check::MAX_FEW,
            check::MAX_SSH_KEY_BYTES,
        )?;
        fields.full_text("domain", &self.domain, check::MAX_DOMAIN_BYTES)?;
        fields.texts(
            "gateway_addresses",
            &self.gateway_addresses,
            check::MAX_FEW,
            check::MAX_ADDRESS_BYTES,
        )?;
        fields.full_text("name", &self.name, check::MAX_NAME_BYTES)?;
        fields.text("site", &self.site, check::MAX_NAME_BYTES)?;
        fields.certificates("roots", &self.roots, check::MAX_ROOTS)
    }
}

#[cfg(test)]
mod tests;
