//! Two sides of a handshake in memory, and a client that obeys nobody.

use std::sync::Mutex;

use rustls::{
    ClientConnection, HandshakeKind, ServerConnection, SignatureScheme,
    client::{
        ResolvesClientCert,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    sign::CertifiedKey,
};
use rustls_pki_types::ServerName;

use super::{super::*, ALPN, Chain, at_now};

/// What a handshake came to.
#[derive(Debug)]
pub(super) struct Met {
    pub(super) client_chain: Option<Chain>,
    pub(super) alpn: Option<Vec<u8>>,
    pub(super) kind: Option<HandshakeKind>,
    pub(super) group: Option<rustls::NamedGroup>,
}

/// Which side ended a handshake, and its error.
#[derive(Debug, PartialEq)]
pub(super) enum Broken {
    Client(rustls::Error),
    Server(rustls::Error),
}

/// Runs a handshake in memory, to the point where both sides have said and read everything.
pub(super) fn meet(client: &Arc<ClientConfig>, server: &Arc<ServerConfig>, name: &str) -> Result<Met, Broken> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = ClientConnection::new(Arc::clone(client), name).map_err(Broken::Client)?;
    let mut server = ServerConnection::new(Arc::clone(server)).map_err(Broken::Server)?;
    for _ in 0..16 {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            server.read_tls(&mut rest).unwrap();
            server.process_new_packets().map_err(Broken::Server)?;
        }
        let mut bytes = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut bytes).unwrap();
        }
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            client.process_new_packets().map_err(Broken::Client)?;
        }
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    Ok(Met {
        client_chain: server.peer_certificates().map(<[_]>::to_vec),
        alpn: server.alpn_protocol().map(<[_]>::to_vec),
        kind: server.handshake_kind(),
        group: server.negotiated_key_exchange_group().map(|group| group.name()),
    })
}

pub(super) fn refused_by_server(met: Result<Met, Broken>) -> rustls::Error {
    match met {
        Err(Broken::Server(error)) => error,
        other => panic!("the server should have refused: {other:?}"),
    }
}

pub(super) fn refused_by_client(met: Result<Met, Broken>) -> rustls::Error {
    match met {
        Err(Broken::Client(error)) => error,
        other => panic!("the client should have refused: {other:?}"),
    }
}

/// A client under nobody's control: presents any chain with any key and believes every server.
#[derive(Debug)]
pub(super) struct Anything {
    pub(super) key: Option<Arc<CertifiedKey>>,
    pub(super) scheme: SignatureScheme,
    pub(super) seen: Mutex<usize>,
}

impl ResolvesClientCert for Anything {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.key.clone()
    }

    fn has_certs(&self) -> bool {
        self.key.is_some()
    }
}

impl ServerCertVerifier for Anything {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        *self.seen.lock().unwrap() += 1;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![self.scheme]
    }
}

pub(super) fn anything(identity: Option<(Chain, &PrivateKey)>) -> (ClientConfig, Arc<Anything>) {
    let key = identity.map(|(chain, key)| {
        let signer = provider().key_provider.load_private_key(key.rustls_der()).unwrap();
        Arc::new(CertifiedKey::new(chain, signer))
    });
    let anything = Arc::new(Anything {
        key,
        scheme: SignatureScheme::ECDSA_NISTP256_SHA256,
        seen: Mutex::new(0),
    });
    let resolver: Arc<dyn ResolvesClientCert> = anything.clone();
    let verifier: Arc<dyn ServerCertVerifier> = anything.clone();
    let mut config = ClientConfig::builder_with_details(provider(), at_now())
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_cert_resolver(resolver);
    config.alpn_protocols = vec![ALPN.to_vec()];
    (config, anything)
}
