//! A real pair of QUIC connections over loopback, for tests.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{Connection, Endpoint, RecvStream, SendStream};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::{Role, client_config, endpoint, endpoint_config, server_config, socket};

pub(crate) const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// TLS settings of both ends, around one fresh certificate.
pub(crate) fn tls() -> (QuicServerConfig, QuicClientConfig) {
    let made = rcgen::generate_simple_self_signed(["gw.test".to_owned()]).unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let chain = vec![made.cert.der().clone()];
    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let server = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (server.try_into().unwrap(), client.try_into().unwrap())
}

/// A gateway and an agent that dialled it.
pub(crate) struct Pair {
    pub(crate) gateway: Connection,
    pub(crate) agent: Connection,
    _endpoints: (Endpoint, Endpoint),
}

impl Pair {
    pub(crate) async fn new() -> Self {
        let (server_tls, client_tls) = tls();
        let accepting = endpoint(
            socket(LOOPBACK).unwrap(),
            endpoint_config(&[7; 64]),
            Some(server_config(server_tls)),
        )
        .unwrap();
        let dialling = endpoint(socket(LOOPBACK).unwrap(), quinn::EndpointConfig::default(), None).unwrap();
        let address = accepting.local_addr().unwrap();
        let connecting = dialling
            .connect_with(client_config(client_tls, Role::Agent), address, "gw.test")
            .unwrap();
        let (gateway, agent) = tokio::join!(async { accepting.accept().await.unwrap().await.unwrap() }, async {
            connecting.await.unwrap()
        });
        Self {
            gateway,
            agent,
            _endpoints: (accepting, dialling),
        }
    }

    /// A stream the gateway opened: the gateway's end and the agent's. Its first byte, which makes the agent see it, is
    /// consumed.
    pub(crate) async fn stream(&self) -> ((RecvStream, SendStream), (RecvStream, SendStream)) {
        let (mut send, recv) = self.gateway.open_bi().await.unwrap();
        send.write_all(b"!").await.unwrap();
        let (agent_send, mut agent_recv) = self.agent.accept_bi().await.unwrap();
        agent_recv.read_exact(&mut [0]).await.unwrap();
        ((recv, send), (agent_recv, agent_send))
    }
}
