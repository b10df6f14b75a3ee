//! The last word on a TLS connection: why it is ended, as an alert that stock clients print.
//!
//! rustls chooses its alerts itself and offers none to its user. Once the handshake is done and everything sent has left,
//! the sending keys are taken out of the connection, which ends its use, and seal the one record that follows.

use rustls::{
    ConnectionTrafficSecrets, ContentType, ProtocolVersion, ServerConnection, SupportedCipherSuite,
    crypto::cipher::{MessageEncrypter, OutboundChunks, OutboundPlainMessage},
};

/// Bytes of the fixed part of an AES-GCM nonce in TLS 1.2 (RFC 5288, section 3).
const GCM_FIXED: usize = 4;
/// The level of every alert sent here (RFC 8446, section 6).
const FATAL: u8 = 2;

/// Why a connection is ended (RFC 8446, section 6.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alert {
    /// The certificate or who it names was revoked.
    CertificateRevoked,
    /// The certificate is past its time.
    CertificateExpired,
    /// Access control says no.
    AccessDenied,
    /// Something on this side or behind it failed, or a limit was reached.
    InternalError,
    /// No certificate was presented.
    CertificateRequired,
}

impl Alert {
    fn code(self) -> u8 {
        match self {
            Self::CertificateRevoked => 44,
            Self::CertificateExpired => 45,
            Self::AccessDenied => 49,
            Self::InternalError => 80,
            Self::CertificateRequired => 116,
        }
    }
}

/// The bytes that end a connection made with [`super::callers`] with a fatal alert.
///
/// `None` where that cannot be: the handshake is not done, or bytes still wait in the connection. It can only be closed
/// then.
#[must_use]
pub fn last_alert(connection: ServerConnection, alert: Alert) -> Option<Vec<u8>> {
    if connection.is_handshaking() || connection.wants_write() {
        return None;
    }
    let suite = connection.negotiated_cipher_suite()?;
    let (sequence, secrets) = connection.dangerous_extract_secrets().ok()?.tx;
    let payload = [FATAL, alert.code()];
    let message = OutboundPlainMessage {
        typ: ContentType::Alert,
        version: ProtocolVersion::TLSv1_2,
        payload: OutboundChunks::Single(&payload),
    };
    let sealed = encrypter(suite, secrets)?.encrypt(message, sequence).ok()?;
    Some(sealed.encode())
}

fn encrypter(suite: SupportedCipherSuite, secrets: ConnectionTrafficSecrets) -> Option<Box<dyn MessageEncrypter>> {
    use ConnectionTrafficSecrets::{Aes128Gcm, Aes256Gcm, Chacha20Poly1305};
    match (suite, secrets) {
        (
            SupportedCipherSuite::Tls13(suite),
            Aes128Gcm { key, iv } | Aes256Gcm { key, iv } | Chacha20Poly1305 { key, iv },
        ) => Some(suite.aead_alg.encrypter(key, iv)),
        (SupportedCipherSuite::Tls12(suite), Aes128Gcm { key, iv } | Aes256Gcm { key, iv }) => {
            let (fixed, explicit) = iv.as_ref().split_at_checked(GCM_FIXED)?;
            Some(suite.aead_alg.encrypter(key, fixed, explicit))
        }
        (SupportedCipherSuite::Tls12(suite), Chacha20Poly1305 { key, iv }) => {
            Some(suite.aead_alg.encrypter(key, iv.as_ref(), &[]))
        }
        // Suites and secrets of a kind that this version does not know.
        _ => None,
    }
}
