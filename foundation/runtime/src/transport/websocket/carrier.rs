//! What a WebSocket runs over: TLS, seen as bytes that can also say what both ends alone know.

use tokio::io::{AsyncRead, AsyncWrite};

/// A TLS connection after its handshake.
pub trait Carrier: AsyncRead + AsyncWrite + Send + Unpin + 'static {
    /// Fills `output` with keying material (RFC 8446 section 7.5); false when there is none.
    fn export(&self, output: &mut [u8], label: &[u8]) -> bool;
}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> Carrier for tokio_rustls::client::TlsStream<S> {
    fn export(&self, output: &mut [u8], label: &[u8]) -> bool {
        let (_, connection) = self.get_ref();
        connection.export_keying_material(output, label, Some(b"")).is_ok()
    }
}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> Carrier for tokio_rustls::server::TlsStream<S> {
    fn export(&self, output: &mut [u8], label: &[u8]) -> bool {
        let (_, connection) = self.get_ref();
        connection.export_keying_material(output, label, Some(b"")).is_ok()
    }
}

impl std::fmt::Debug for dyn Carrier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Carrier")
    }
}
