use rustls::{HandshakeKind, client::danger::ServerCertVerifier, version::TLS12};
use rustls_pki_types::ServerName;

use super::*;
use crate::{
    authority::create_root,
    lab::{AGENT, Ca, DAY, DOMAIN, GATEWAY, HOUR, USER, agent_params, now, p256},
    verify::{Usage, authenticate},
};

mod meeting;

use meeting::{Broken, Met, anything, meet, refused_by_client, refused_by_server};

const ALPN: &[u8] = b"fairlead/1";
type Chain = Vec<CertificateDer<'static>>;

/// A clock that stands still.
#[derive(Debug)]
struct At(SystemTime);

impl TimeProvider for At {
    fn current_time(&self) -> Option<UnixTime> {
        let since_epoch = self.0.duration_since(SystemTime::UNIX_EPOCH).ok()?;
        Some(UnixTime::since_unix_epoch(since_epoch))
    }
}

fn at_now() -> Arc<At> {
    Arc::new(At(now()))
}

fn server_with(ca: &Ca, chain: Chain, key: &PrivateKey) -> Arc<ServerConfig> {
    gateway_quic_at(chain, key, &ca.roots(), &[ALPN, b"fairlead-enroll/1"], at_now()).unwrap()
}

fn server(ca: &Ca) -> Arc<ServerConfig> {
    let (chain, key) = ca.chain(GATEWAY, &[DOMAIN]);
    server_with(ca, chain, &key)
}

fn agent(ca: &Ca, chain: Chain, key: &PrivateKey) -> Arc<ClientConfig> {
    agent_quic_at(Some((chain, key)), &ca.roots(), ALPN, at_now()).unwrap()
}

fn present(ca: &Ca, chain: Chain, key: &PrivateKey) -> Result<Met, Broken> {
    meet(&Arc::new(anything(Some((chain, key))).0), &server(ca), DOMAIN)
}

#[test]
fn an_agent_and_its_gateway_meet() {
    let ca = Ca::new();
    let (chain, key) = ca.chain(AGENT, &[]);
    let met = meet(&agent(&ca, chain.clone(), &key), &server(&ca), DOMAIN).unwrap();
    let presented = met.client_chain.unwrap();
    assert_eq!(presented, chain);
    let peer = authenticate(&presented, &ca.roots(), Usage::Client, DOMAIN, now()).unwrap();
    assert_eq!(peer.principal().to_string(), AGENT);
    assert_eq!(met.alpn.as_deref(), Some(ALPN));
    assert_eq!(met.group, Some(rustls::NamedGroup::X25519MLKEM768));
}

#[test]
fn a_client_without_a_certificate_is_left_to_the_caller() {
    let ca = Ca::new();
    let client = agent_quic_at(None, &ca.roots(), ALPN, at_now()).unwrap();
    assert!(meet(&client, &server(&ca), DOMAIN).unwrap().client_chain.is_none());
}

#[test]
fn a_presented_certificate_must_verify() {
    let (ca, other) = (Ca::new(), Ca::new());
    use rustls::CertificateError as Cause;
    let (foreign, foreign_key) = other.chain(AGENT, &[]);
    let refused = refused_by_server(present(&ca, foreign, &foreign_key));
    assert_eq!(refused, Cause::UnknownIssuer.into());

    let (gateway, gateway_key) = ca.chain(GATEWAY, &[DOMAIN]);
    let refused = refused_by_server(present(&ca, gateway, &gateway_key));
    assert_eq!(refused, Cause::InvalidPurpose.into());

    let forged = |change: &dyn Fn(&mut rcgen::CertificateParams)| {
        let mut params = agent_params();
        change(&mut params);
        let key = p256();
        let ours = PrivateKey::from_pem(&key.serialize_pem()).unwrap();
        let mut chain = vec![ca.forge(&params, &key)];
        chain.extend(ca.above());
        refused_by_server(present(&ca, chain, &ours))
    };
    let expired = forged(&|p| {
        p.not_before = (now() - Duration::from_secs(200)).into();
        p.not_after = (now() - Duration::from_secs(100)).into();
    });
    assert_eq!(expired, Cause::Expired.into());
    let future = forged(&|p| p.not_before = (now() + HOUR).into());
    assert_eq!(future, Cause::NotValidYet.into());
    let nameless = forged(&|p| p.subject_alt_names.clear());
    assert!(nameless.to_string().contains("no-name: "), "{nameless}");
}

#[test]
fn a_stolen_certificate_without_its_key_is_refused() {
    let ca = Ca::new();
    let (chain, _) = ca.chain(AGENT, &[]);
    let thief = PrivateKey::generate().unwrap();
    let refused = refused_by_server(present(&ca, chain, &thief));
    assert_eq!(refused, rustls::CertificateError::BadSignature.into());
}

#[test]
fn long_chains_end_the_handshake() {
    let ca = Ca::new();
    let (chain, key) = ca.chain(AGENT, &[]);
    let five: Chain = chain.iter().chain(&chain).take(5).cloned().collect();
    let refused = refused_by_server(present(&ca, five.clone(), &key)).to_string();
    assert!(refused.contains("chain-too-long: "), "{refused}");
    let too_long = agent_quic(Some((five, &key)), &ca.roots(), ALPN).map(|_| ());
    assert_eq!(
        too_long,
        Err(TlsError::BadChain),
        "and our own are refused before they are sent"
    );
}

#[test]
fn a_gateways_chain_is_bounded_too() {
    let ca = Ca::new();
    let (chain, key) = ca.chain(GATEWAY, &[DOMAIN]);
    let five: Chain = chain.iter().chain(&chain).take(5).cloned().collect();
    let mut config = ServerConfig::builder_with_details(provider(), at_now())
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(five, key.rustls_der())
        .unwrap();
    config.alpn_protocols = vec![ALPN.to_vec()];
    let config = Arc::new(config);
    let pinned = agent_quic_at(None, &ca.roots(), ALPN, at_now()).unwrap();
    let enroll = enroll_quic_at(ca.authority.root_sha256(), ALPN, at_now()).unwrap();
    for client in [pinned, enroll] {
        let refused = refused_by_client(meet(&client, &config, DOMAIN)).to_string();
        assert!(refused.contains("chain-too-long: "), "{refused}");
    }
}

#[test]
fn only_a_gateway_of_this_domain_is_believed() {
    use rustls::CertificateError as Cause;
    let (ca, other) = (Ca::new(), Ca::new());
    let client = agent_quic_at(None, &ca.roots(), ALPN, at_now()).unwrap();
    let refused = refused_by_client(meet(&client, &server(&other), DOMAIN));
    assert_eq!(refused, Cause::UnknownIssuer.into());
    for name in [
        "other.example.com",
        "example.com",
        "x.gw.example.com",
        "127.0.0.1",
        "::1",
    ] {
        let refused = refused_by_client(meet(&client, &server(&ca), name));
        assert_eq!(refused, Cause::NotValidForName.into(), "{name}");
    }
    // A device that poses as the gateway with the certificate it rightly holds.
    let (chain, key) = ca.chain(AGENT, &[]);
    let refused = refused_by_client(meet(&client, &server_with(&ca, chain, &key), DOMAIN));
    assert_eq!(refused, Cause::InvalidPurpose.into());
}

#[test]
fn a_gateway_of_another_trust_domain_is_not_believed() {
    let ca = Ca::new();
    let mut params = agent_params();
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    params.subject_alt_names = vec![
        crate::lab::uri("spiffe://other.example.com/gateway/gw-1"),
        crate::lab::dns(DOMAIN),
    ];
    let key = p256();
    let chain = [vec![ca.forge(&params, &key)], ca.above().to_vec()].concat();
    let ours = PrivateKey::from_pem(&key.serialize_pem()).unwrap();
    let client = agent_quic_at(None, &ca.roots(), ALPN, at_now()).unwrap();
    let refused = refused_by_client(meet(&client, &server_with(&ca, chain, &ours), DOMAIN));
    assert!(refused.to_string().contains("wrong-trust-domain: "), "{refused}");
}

#[test]
fn an_expired_gateway_is_not_believed() {
    let ca = Ca::new();
    let (chain, key) = ca.chain(GATEWAY, &[DOMAIN]);
    let later = Arc::new(At(now() + 15 * DAY));
    let client = agent_quic_at(None, &ca.roots(), ALPN, later).unwrap();
    let refused = refused_by_client(meet(&client, &server_with(&ca, chain, &key), DOMAIN));
    assert_eq!(refused, rustls::CertificateError::Expired.into());
}

#[test]
fn the_first_contact_believes_the_pinned_root_and_nothing_else() {
    use rustls::CertificateError as Cause;
    let (ca, other) = (Ca::new(), Ca::new());
    let enroll = |ca: &Ca| enroll_quic_at(ca.authority.root_sha256(), ALPN, at_now()).unwrap();
    let met = meet(&enroll(&ca), &server(&ca), DOMAIN).unwrap();
    assert!(met.client_chain.is_none());
    let refused = refused_by_client(meet(&enroll(&other), &server(&ca), DOMAIN));
    assert_eq!(refused, Cause::UnknownIssuer.into());
    let refused = refused_by_client(meet(&enroll(&ca), &server(&ca), "other.example.com"));
    assert_eq!(refused, Cause::NotValidForName.into());

    let (chain, key) = ca.chain(GATEWAY, &[DOMAIN]);
    let rootless = server_with(&ca, chain[..2].to_vec(), &key);
    let refused = refused_by_client(meet(&enroll(&ca), &rootless, DOMAIN));
    assert_eq!(refused, Cause::UnknownIssuer.into(), "the root must travel");

    // Somebody in the middle adds the real root to a chain of their own.
    let (theirs, their_key) = other.chain(GATEWAY, &[DOMAIN]);
    let mixed = [theirs, ca.above()[1..].to_vec()].concat();
    let refused = refused_by_client(meet(&enroll(&ca), &server_with(&ca, mixed, &their_key), DOMAIN));
    assert_eq!(refused, Cause::UnknownIssuer.into());

    // The fingerprint of something else than a root opens nothing.
    let of_leaf = sha2::Digest::finalize(<sha2::Sha256 as sha2::Digest>::new_with_prefix(&chain[0]));
    let pinned_leaf = enroll_quic_at(of_leaf.into(), ALPN, at_now()).unwrap();
    let refused = refused_by_client(meet(&pinned_leaf, &server_with(&ca, chain, &key), DOMAIN));
    assert!(refused.to_string().contains("wrong-ca: "), "{refused}");
}

#[test]
fn tls_1_2_is_refused() {
    let ca = Ca::new();
    let verifier: Arc<dyn ServerCertVerifier> = anything(None).1;
    let old = ClientConfig::builder_with_details(provider(), at_now())
        .with_protocol_versions(&[&TLS12])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    let refused = refused_by_server(meet(&Arc::new(old), &server(&ca), DOMAIN));
    assert!(matches!(refused, rustls::Error::PeerIncompatible(_)), "{refused}");
}

#[test]
fn foreign_alpn_is_refused() {
    let ca = Ca::new();
    let client = agent_quic_at(None, &ca.roots(), b"h3", at_now()).unwrap();
    let refused = refused_by_server(meet(&client, &server(&ca), DOMAIN));
    assert_eq!(refused, rustls::Error::NoApplicationProtocol);
    let client = agent_quic_at(None, &ca.roots(), b"fairlead-enroll/1", at_now()).unwrap();
    let met = meet(&client, &server(&ca), DOMAIN).unwrap();
    assert_eq!(met.alpn.as_deref(), Some(&b"fairlead-enroll/1"[..]));
}

#[test]
fn nothing_is_ever_resumed() {
    let ca = Ca::new();
    let (chain, key) = ca.chain(USER, &[]);
    let server = server(&ca);
    // This client would store and use every ticket, and send early data.
    let (mut config, seen) = anything(Some((chain.clone(), &key)));
    config.enable_early_data = true;
    let eager = Arc::new(config);
    for _ in 0..3 {
        let met = meet(&eager, &server, DOMAIN).unwrap();
        assert_eq!(met.kind, Some(HandshakeKind::Full));
        assert!(met.client_chain.is_some());
    }
    assert_eq!(*seen.seen.lock().unwrap(), 3);
    assert_eq!((server.send_tls13_tickets, server.max_early_data_size), (0, 0));
    assert!(!server.session_storage.can_cache() && !server.ticketer.enabled());

    // And our clients offer nothing to a server that hands out tickets.
    let (gateway, gateway_key) = ca.chain(GATEWAY, &[DOMAIN]);
    let mut generous = ServerConfig::builder_with_details(provider(), at_now())
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(gateway, gateway_key.rustls_der())
        .unwrap();
    generous.alpn_protocols = vec![ALPN.to_vec()];
    assert!(generous.send_tls13_tickets > 0);
    let generous = Arc::new(generous);
    let client = agent(&ca, chain, &key);
    for _ in 0..3 {
        assert_eq!(
            meet(&client, &generous, DOMAIN).unwrap().kind,
            Some(HandshakeKind::Full)
        );
    }
    assert!(!client.enable_early_data);
}

#[test]
fn chain_and_key_must_belong_together() {
    let ca = Ca::new();
    let (chain, _) = ca.chain(AGENT, &[]);
    let other = PrivateKey::generate().unwrap();
    let client = agent_quic(Some((chain.clone(), &other)), &ca.roots(), ALPN).map(|_| ());
    assert!(matches!(client, Err(TlsError::KeyMismatch(_))));
    let server = gateway_quic(chain, &other, &ca.roots(), &[ALPN]).map(|_| ());
    assert!(matches!(server, Err(TlsError::KeyMismatch(_))));
    let empty = gateway_quic(Vec::new(), &other, &ca.roots(), &[ALPN]).map(|_| ());
    assert_eq!(empty, Err(TlsError::BadChain));
    let junk = vec![CertificateDer::from(vec![1, 2, 3])];
    let junk = agent_quic(Some((junk, &other)), &ca.roots(), ALPN).map(|_| ());
    assert_eq!(junk, Err(TlsError::BadChain));
}

#[test]
fn quic_takes_these_settings() {
    use rustls::quic::{ClientConnection, ServerConnection, Version};
    let ca = Ca::new();
    let (chain, key) = ca.chain(AGENT, &[]);
    assert!(ServerConnection::new(server(&ca), Version::V1, Vec::new()).is_ok());
    let name = ServerName::try_from(DOMAIN).unwrap();
    let client = agent(&ca, chain, &key);
    assert!(ClientConnection::new(client, Version::V1, name, Vec::new()).is_ok());
}

#[test]
fn a_clock_that_is_known_to_be_behind_is_not_asked_whether_a_gateway_has_begun() {
    let ca = Ca::new();
    let (chain, key) = ca.chain(AGENT, &[]);
    // Made a day after the device was heard last.
    let later = now() + DAY;
    let gateway_key = PrivateKey::generate().unwrap();
    let (csr, who) = (gateway_key.csr_der().unwrap(), GATEWAY.parse().unwrap());
    let issued = ca
        .authority
        .issue(&csr, &who, &[DOMAIN.to_owned()], DAY, later, [1; 16]);
    let gateway_chain = crate::chain::from_ders(issued.unwrap().chain_der).unwrap();
    let server = gateway_quic_at(gateway_chain, &gateway_key, &ca.roots(), &[ALPN], clock(move || later)).unwrap();
    let meets = |shown: SystemTime| {
        let client = agent_quic_at(Some((chain.clone(), &key)), &ca.roots(), ALPN, clock(move || shown));
        meet(&client.unwrap(), &server, DOMAIN)
    };
    meets(later).unwrap();
    meets(SystemTime::UNIX_EPOCH).unwrap();
    meets(now() - DAY).unwrap();
    use rustls::CertificateError as Cause;
    // A clock that may be right is believed.
    assert_eq!(refused_by_client(meets(now() + HOUR)), Cause::NotValidYet.into());
    assert_eq!(refused_by_client(meets(later + 2 * DAY)), Cause::Expired.into());
    let enroll = |shown| enroll_quic_at(ca.authority.root_sha256(), ALPN, clock(move || shown)).unwrap();
    meet(&enroll(SystemTime::UNIX_EPOCH), &server, DOMAIN).unwrap();
    let refused = refused_by_client(meet(&enroll(now() + HOUR), &server, DOMAIN));
    assert_eq!(refused, Cause::NotValidYet.into());
}

#[test]
fn the_real_clock_serves_by_default() {
    let (root_key, root_pem) = create_root(DOMAIN, SystemTime::now()).unwrap();
    let ca = Ca::under(root_key, root_pem, SystemTime::now());
    let issue = |who: &str, dns: &[String]| {
        let key = PrivateKey::generate().unwrap();
        let csr = key.csr_der().unwrap();
        let who = who.parse().unwrap();
        let issued = ca
            .authority
            .issue(&csr, &who, dns, DAY, SystemTime::now(), [1; 16])
            .unwrap();
        (crate::chain::from_ders(issued.chain_der).unwrap(), key)
    };
    let (gateway_chain, gateway_key) = issue(GATEWAY, &[DOMAIN.to_owned()]);
    let (chain, key) = issue(AGENT, &[]);
    let server = gateway_quic(gateway_chain, &gateway_key, &ca.roots(), &[ALPN]).unwrap();
    let client = agent_quic(Some((chain, &key)), &ca.roots(), ALPN).unwrap();
    assert!(meet(&client, &server, DOMAIN).unwrap().client_chain.is_some());
    let enroll = enroll_quic(ca.authority.root_sha256(), ALPN).unwrap();
    assert!(meet(&enroll, &server, DOMAIN).is_ok());
}

#[test]
fn settings_do_not_print_keys() {
    let ca = Ca::new();
    let (chain, key) = ca.chain(AGENT, &[]);
    let scalar = format!("{:?}", key.rustls_der().secret_der());
    let shown = format!("{:?}", agent(&ca, chain, &key));
    assert!(!shown.contains(&scalar[1..scalar.len() - 1]));
}
