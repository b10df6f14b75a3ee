//! The relay alone: the same transport and the same copying of bytes as Fairlead's, without identity, gate, audit, metrics and an
//! answer before bytes flow. What Fairlead costs beside it is what those cost.
//!
//! Two processes of this same program, started with `--bare near FOLDER` and `--bare far FOLDER PORT`.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use fairlead_runtime::quic::{self, Role};
use fairlead_runtime::relay::{self, Counters};
use fairlead_runtime::stop::CancellationToken;
use fairlead_runtime::tasks::TaskGroup;
use fairlead_tests::programs::{PATIENCE, throw_away, until};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;

use super::{Entry, Way, peers};
use crate::load::Target;

pub(super) const NAME: &str = "bare relay";
/// Who the near side is to the far one.
const HOST: &str = "localhost";
/// rustls takes no authority's certificate for a server's.
const NO_AUTHORITY: [&str; 2] = ["-addext", "basicConstraints=critical,CA:FALSE"];
const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

pub(super) async fn way(target: &Target) -> Way {
    let dir = throw_away();
    peers::certificate(dir.path(), &NO_AUTHORITY).await;
    let start = |side: &str, port: &str, workers: &str| {
        let mut again = Command::new(std::env::current_exe().expect("a program knows its own path"));
        again
            .args(["--bare", side])
            .arg(dir.path())
            .arg(port)
            // As the gateway and the agent do.
            .env("TOKIO_WORKER_THREADS", workers)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        again.spawn().expect("this program can be run again")
    };
    let cpus = std::thread::available_parallelism().map_or(1, usize::from).to_string();
    let near = start("near", "0", &cpus);
    let port = until("the near side listens", PATIENCE, async || port(dir.path(), "tcp")).await;
    let far = start("far", &target.port.to_string(), "1");
    let pids = [&near, &far].map(|child| child.id().expect("it runs"));
    let alive: Vec<Box<dyn std::any::Any + Send + Sync>> = vec![Box::new(near), Box::new(far), Box::new(dir)];
    Way {
        name: NAME,
        entry: Entry::plain(SocketAddr::from((Ipv4Addr::LOCALHOST, port))),
        near: vec![pids[0]],
        far: vec![pids[1]],
        _alive: alive,
    }
}

fn port(dir: &Path, of: &str) -> Option<u16> {
    std::fs::read_to_string(dir.join(of)).ok()?.parse().ok()
}

/// What a process is that was started so.
pub(crate) async fn run(arguments: &[String]) {
    let [side, dir, port] = arguments else {
        panic!("a side, a folder and a port");
    };
    let dir = Path::new(dir);
    if side == "near" {
        near(dir).await;
    } else {
        far(dir, port.parse().expect("a port")).await;
    }
}

/// Lets the far side dial, and opens a stream on that connection for each client.
async fn near(dir: &Path) {
    let certificate = CertificateDer::from_pem_file(dir.join("cert.pem")).expect("a certificate");
    let key = PrivateKeyDer::from_pem_file(dir.join("key.pem")).expect("its key");
    let tls = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .and_then(|config| config.with_no_client_auth().with_single_cert(vec![certificate], key));
    let tls: QuicServerConfig = tls.expect("settings").try_into().expect("settings of QUIC");
    let udp = quic::socket(LOOPBACK).expect("a UDP port");
    let endpoint = quic::endpoint(udp, quic::endpoint_config(&[7; 64]), Some(quic::server_config(tls)));
    let endpoint = endpoint.expect("an endpoint");
    let listener = TcpListener::bind(LOOPBACK).await.expect("a TCP port");
    let write = |name: &str, bytes: &[u8]| std::fs::write(dir.join(name), bytes).expect("a file");
    write(
        "udp",
        endpoint.local_addr().expect("its port").port().to_string().as_bytes(),
    );
    write(
        "tcp",
        listener.local_addr().expect("its port").port().to_string().as_bytes(),
    );
    let connection = endpoint
        .accept()
        .await
        .expect("the far side")
        .await
        .expect("a handshake");
    let tasks = TaskGroup::new("near", &CancellationToken::new());
    loop {
        let (stream, _) = listener.accept().await.expect("a client");
        let connection = connection.clone();
        tasks.spawn("client", async move {
            let (send, recv) = connection.open_bi().await.expect("a stream");
            carry(stream, (recv, send), true).await;
        });
    }
}

/// Dials the near side, and the target for each stream.
async fn far(dir: &Path, target: u16) {
    let mut roots = rustls::RootCertStore::empty();
    let certificate = CertificateDer::from_pem_file(dir.join("cert.pem")).expect("a certificate");
    roots.add(certificate).expect("a certificate");
    let tls = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("settings")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let tls: QuicClientConfig = tls.try_into().expect("settings of QUIC");
    let udp = quic::socket(LOOPBACK).expect("a UDP port");
    let endpoint = quic::endpoint(udp, quinn::EndpointConfig::default(), None).expect("an endpoint");
    let near = SocketAddr::from((Ipv4Addr::LOCALHOST, port(dir, "udp").expect("a port")));
    let dialled = endpoint.connect_with(quic::client_config(tls, Role::Agent), near, HOST);
    let connection = dialled.expect("a name").await.expect("the near side");
    // As many sessions as an agent takes.
    connection.set_max_concurrent_bi_streams(1171_u32.into());
    let tasks = TaskGroup::new("far", &CancellationToken::new());
    while let Ok((send, recv)) = connection.accept_bi().await {
        tasks.spawn("stream", async move {
            let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, target)).await;
            carry(stream.expect("the target"), (recv, send), false).await;
        });
    }
}

async fn carry(stream: TcpStream, link: (quinn::RecvStream, quinn::SendStream), is_caller: bool) {
    relay::prepare(&stream).expect("a socket of TCP");
    let (tcp, counters) = (stream.into_split(), Counters::new());
    let lapse = std::future::pending::<()>();
    let _ended = if is_caller {
        relay::relay(tcp, link, None, &counters, lapse).await
    } else {
        relay::relay(link, tcp, None, &counters, lapse).await
    };
}
