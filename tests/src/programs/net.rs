//! Ports for configurations that must know theirs before the program starts, and the smallest HTTP client.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// From the connection to the end of the answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// The system offers a port that is free for TCP; UDP may be taken.
const TRIES: usize = 100;

/// A port of 127.0.0.1 that is free for TCP and UDP, as the system gives it for port 0.
pub fn free_port() -> u16 {
    let free = || {
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).ok()?;
        let port = tcp.local_addr().ok()?.port();
        UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).is_ok().then_some(port)
    };
    (0..TRIES).find_map(|_| free()).expect("a free port")
}

/// A UDP port of 127.0.0.1 that is taken for as long as the socket lives, and free for TCP.
pub fn udp_port_taken() -> (UdpSocket, u16) {
    let taken = || {
        let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).ok()?;
        let port = udp.local_addr().ok()?.port();
        TcpListener::bind((Ipv4Addr::LOCALHOST, port))
            .is_ok()
            .then_some((udp, port))
    };
    (0..TRIES).find_map(|_| taken()).expect("a free port")
}

/// Status and body of `GET path`; `None` when nobody answers in time.
pub async fn http_get(address: SocketAddr, path: &str) -> Option<(u16, String)> {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await.ok()?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        Some((status, body.to_owned()))
    };
    timeout(ANSWER_LIMIT, exchange).await.ok()?
}
