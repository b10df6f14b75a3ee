//! Why a handshake was refused: handed to rustls, and read back out of the words it leaves.
//!
//! rustls tells its caller no more than a text, and QUIC sends that text to the peer. The reason travels in it under its
//! stable name, so that the audit and both sides' logs say the same word.

use std::{fmt, sync::Arc};

use rustls::{CertificateError, Error, OtherError};

use crate::verify::{RootsError, VerifyError};

/// The handshake ended for a cause that is no certificate: no TLS, no common algorithm, no known application protocol.
const NO_HANDSHAKE: &str = "no-handshake";

/// What rustls says, and its name here. Longer phrases before those they contain.
const WORDS: &[(&str, &str)] = &[
    // The signature over the handshake is by another key than the certificate's.
    ("invalid peer certificate: BadSignature", "key-not-proven"),
    ("invalid peer certificate: Expired", "expired"),
    ("invalid peer certificate: NotValidYet", "not-yet-valid"),
    ("invalid peer certificate: UnknownIssuer", "wrong-ca"),
    ("invalid peer certificate: InvalidPurpose", "wrong-usage"),
    ("invalid peer certificate: BadEncoding", "malformed"),
    ("invalid peer certificate: NotValidForName", "wrong-name"),
    ("invalid peer certificate", "malformed"),
    ("HandshakePayloadTooLarge", "message-too-long"),
    ("CertificatePayloadTooLarge", "message-too-long"),
    ("peer sent no certificates", "no-certificate"),
    // The peer signs with nothing that is accepted here.
    ("NoSignatureSchemesInCommon", "weak-signature"),
    ("SignedHandshakeWithUnadvertisedSigScheme", "weak-signature"),
    ("MissingCertificateVerify", "key-not-proven"),
    ("CertificateVerify", "key-not-proven"),
    ("peer doesn't support any known protocol", "unknown-protocol"),
];

/// The name that a refusal carries through rustls's text, before its sentence.
struct Named {
    reason: &'static str,
    sentence: String,
}

// rustls formats what it does not know with Debug.
impl fmt::Debug for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason, self.sentence)
    }
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence)
    }
}

impl std::error::Error for Named {}

/// The refusal in rustls's words where it has the word, so that the peer gets the right alert.
pub(super) fn refused(error: VerifyError) -> Error {
    match error {
        VerifyError::Expired { .. } => CertificateError::Expired.into(),
        VerifyError::NotYetValid { .. } => CertificateError::NotValidYet.into(),
        VerifyError::WrongCa => CertificateError::UnknownIssuer.into(),
        VerifyError::WrongUsage => CertificateError::InvalidPurpose.into(),
        VerifyError::Malformed => CertificateError::BadEncoding.into(),
        other => named(other.reason(), other.to_string()),
    }
}

/// The refusal of a root that is not the pinned one.
pub(super) fn not_pinned(error: RootsError) -> Error {
    match error {
        RootsError::NotPresented => CertificateError::UnknownIssuer.into(),
        RootsError::ChainTooLong => refused(VerifyError::ChainTooLong),
        other => named("wrong-ca", other.to_string()),
    }
}

fn named(reason: &'static str, sentence: String) -> Error {
    CertificateError::Other(OtherError(Arc::new(Named { reason, sentence }))).into()
}

/// The stable kebab-case name of why this side ended a handshake, out of the text that rustls or QUIC gives for it:
/// [`VerifyError::reason`]'s names, `wrong-name` (a gateway of another domain), `key-not-proven` (a certificate without
/// its key), `no-certificate`, `message-too-long`, `weak-signature`, `unknown-protocol`, or `no-handshake` for all else.
///
/// Only for texts made by this side: a peer's words prove nothing.
#[must_use]
pub fn handshake_refusal(text: &str) -> &'static str {
    if let Some((_, told)) = text.split_once("OtherError(") {
        let known = VerifyError::REASONS.iter().find(|reason| {
            let rest = told.strip_prefix(**reason);
            rest.is_some_and(|rest| rest.starts_with(':'))
        });
        if let Some(reason) = known {
            return reason;
        }
    }
    let word = WORDS.iter().find(|(phrase, _)| text.contains(phrase));
    word.map_or(NO_HANDSHAKE, |(_, reason)| reason)
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn every_refusal_keeps_its_name_through_rustls() {
        let at = SystemTime::UNIX_EPOCH;
        let all = [
            VerifyError::WrongCa,
            VerifyError::Expired { not_after: at },
            VerifyError::NotYetValid { not_before: at },
            VerifyError::WrongUsage,
            VerifyError::NoName,
            VerifyError::BadName("wrong-ca: x".into()),
            VerifyError::ManyNames,
            VerifyError::WrongTrustDomain("expired".into()),
            VerifyError::ChainTooLong,
            VerifyError::BadSignature,
            VerifyError::Malformed,
            VerifyError::WeakKey,
            VerifyError::WeakSignature,
            VerifyError::CaAsLeaf,
            VerifyError::NotAnIssuer,
            VerifyError::NameConstraint,
        ];
        let mut names: Vec<&str> = all.iter().map(VerifyError::reason).collect();
        for refusal in all {
            let reason = refusal.reason();
            let text = format!("error 46: {}", refused(refusal));
            assert_eq!(handshake_refusal(&text), reason, "{text}");
        }
        names.sort_unstable();
        names.dedup();
        let mut listed = VerifyError::REASONS.to_vec();
        listed.sort_unstable();
        assert_eq!(names, listed);
    }

    #[test]
    fn what_rustls_finds_by_itself_has_a_name_too() {
        use rustls::{InvalidMessage, PeerIncompatible};
        for (error, reason) in [
            (Error::from(CertificateError::BadSignature), "key-not-proven"),
            (CertificateError::NotValidForName.into(), "wrong-name"),
            (InvalidMessage::HandshakePayloadTooLarge.into(), "message-too-long"),
            (InvalidMessage::CertificatePayloadTooLarge.into(), "message-too-long"),
            (Error::NoCertificatesPresented, "no-certificate"),
            (PeerIncompatible::NoSignatureSchemesInCommon.into(), "weak-signature"),
            (Error::NoApplicationProtocol, "unknown-protocol"),
            (Error::DecryptError, NO_HANDSHAKE),
        ] {
            assert_eq!(handshake_refusal(&error.to_string()), reason, "{error}");
        }
    }
}
