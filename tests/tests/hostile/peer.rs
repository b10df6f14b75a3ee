//! A QUIC peer that checks nothing and presents what it is told to.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use fairlead_runtime::frame;
use fairlead_tests::programs::{DOMAIN, PATIENCE, until};
use fairlead_wire::codec::{self, MAX_CONTROL_FRAME};
use fairlead_wire::control::{Body, Control, Hello};
use fairlead_wire::version::{ALPN_LINK, VERSION_MAX, VERSION_MIN};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::{CertifiedKey, Signer, SigningKey};
use rustls::{DigitallySignedStruct, SignatureAlgorithm, SignatureScheme};
use tokio::time::timeout;

use super::forge::Presented;

/// What came of an attempt to link.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The gateway said Welcome.
    In,
    /// It closed the connection, with these words.
    Refused(String),
}

/// A connection to the gateway's UDP port from `source`, with or without a certificate.
pub(crate) async fn connect(
    source: Ipv4Addr,
    gateway: SocketAddr,
    presented: Option<&Presented>,
    alpn: &[u8],
) -> Result<quinn::Connection, String> {
    let endpoint = quinn::Endpoint::client((source, 0).into()).unwrap();
    connect_by(&endpoint, gateway, presented, alpn).await
}

/// As [`connect`], by an endpoint that the test keeps.
pub(crate) async fn connect_by(
    endpoint: &quinn::Endpoint,
    gateway: SocketAddr,
    presented: Option<&Presented>,
    alpn: &[u8],
) -> Result<quinn::Connection, String> {
    let mut tls = rustls::ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(BelievesEverything))
        .with_client_cert_resolver(Arc::new(Presents(presented.map(certified))));
    tls.alpn_protocols = vec![alpn.to_vec()];
    let config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
    let connecting = endpoint.connect_with(config, gateway, DOMAIN).unwrap();
    let connected = timeout(PATIENCE, connecting).await.expect("an answer");
    connected.map_err(|error| error.to_string())
}

/// Tries to link, up to the gateway's answer to Hello.
pub(crate) async fn link(source: Ipv4Addr, gateway: SocketAddr, presented: Option<&Presented>) -> Outcome {
    let connection = match connect(source, gateway, presented, ALPN_LINK).await {
        Ok(connection) => connection,
        Err(why) => return Outcome::Refused(why),
    };
    let greeting = async {
        let (mut send, mut recv) = connection.open_bi().await.ok()?;
        send.write_all(&hello()).await.ok()?;
        let answer = frame::read_frame(&mut recv, MAX_CONTROL_FRAME).await.ok()??;
        let answer: Control = codec::decode_body(&answer).ok()?;
        Some(matches!(answer.body, Some(Body::Welcome(_))))
    };
    match timeout(PATIENCE, greeting).await.expect("an answer to Hello") {
        Some(true) => {
            connection.close(0_u32.into(), b"enough");
            Outcome::In
        }
        _ => {
            let closed = timeout(PATIENCE, connection.closed())
                .await
                .expect("the gateway closes");
            Outcome::Refused(closed.to_string())
        }
    }
}

fn hello() -> Vec<u8> {
    let hello = Hello {
        version_min: VERSION_MIN,
        version_max: VERSION_MAX,
        boot_id: vec![7; 16],
        software: "hostile".into(),
        ..Hello::default()
    };
    let frame = Control {
        body: Some(Body::Hello(hello)),
    };
    codec::encode(&frame, MAX_CONTROL_FRAME).unwrap().to_vec()
}

/// A server in a gateway's place. The port may be taken for a moment by the one before.
pub(crate) async fn gateway_at(address: SocketAddr, presented: &Presented) -> quinn::Endpoint {
    let mut tls = rustls::ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Presents(Some(certified(presented)))));
    tls.alpn_protocols = vec![ALPN_LINK.to_vec()];
    let config = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).unwrap()));
    until("the gateway's port is free", PATIENCE, async || {
        quinn::Endpoint::server(config.clone(), address).ok()
    })
    .await
}

/// Waits for one dialler, and for what becomes of it: true when it opened its control stream.
pub(crate) async fn is_believed(gateway: &quinn::Endpoint) -> bool {
    let dialled = async {
        let incoming = gateway.accept().await.expect("a dialler");
        let connection = incoming.await.ok()?;
        connection.accept_bi().await.ok()
    };
    timeout(Duration::from_secs(20), dialled)
        .await
        .expect("the agent dials")
        .is_some()
}

fn certified(presented: &Presented) -> Arc<CertifiedKey> {
    let key = signing(&presented.key);
    Arc::new(CertifiedKey::new(presented.chain.clone(), Arc::new(Stubborn(key))))
}

fn signing(key: &PrivateKeyDer<'static>) -> Arc<dyn SigningKey> {
    aws_lc_rs::sign::any_supported_type(key).expect("a key that can sign")
}

/// Presents one chain whatever it is asked for.
#[derive(Debug)]
struct Presents(Option<Arc<CertifiedKey>>);

impl rustls::client::ResolvesClientCert for Presents {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.clone()
    }

    fn has_certs(&self) -> bool {
        self.0.is_some()
    }
}

impl rustls::server::ResolvesServerCert for Presents {
    fn resolve(&self, _hello: rustls::server::ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.clone()
    }
}

/// Signs also with what the other side does not accept.
#[derive(Debug)]
struct Stubborn(Arc<dyn SigningKey>);

impl SigningKey for Stubborn {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        let all = [SignatureScheme::ECDSA_NISTP256_SHA256, SignatureScheme::RSA_PSS_SHA256];
        self.0.choose_scheme(offered).or_else(|| self.0.choose_scheme(&all))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        self.0.algorithm()
    }
}

#[derive(Debug)]
struct BelievesEverything;

impl ServerCertVerifier for BelievesEverything {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}
