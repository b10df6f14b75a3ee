//! A service that takes and gives bytes by the megabyte, and the two ends of a transfer over it. Whoever listens says where it
//! is; the same transfer runs through an agent or over plain TCP.

use std::sync::Arc;

use fairlead_runtime::stop::CancellationToken;
use fairlead_runtime::tasks::TaskGroup;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::DropGuard;

use crate::field::digest;

/// Which way the bytes go, as seen by who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// To the depot, which answers with their digest.
    Up,
    /// From the depot.
    Down,
}

/// Takes and gives. Ends when dropped.
pub struct Depot {
    /// Its port.
    pub port: u16,
    _end: DropGuard,
}

impl Depot {
    /// Serves `listener`; who asks for bytes gets `stock`.
    pub fn on(listener: TcpListener, stock: Arc<Vec<u8>>) -> Self {
        let port = listener.local_addr().expect("a bound listener").port();
        let stop = CancellationToken::new();
        let tasks = TaskGroup::new("depot", &stop);
        let each = tasks.clone();
        tasks.spawn("accept", async move {
            loop {
                let accepted = tokio::select! {
                    accepted = listener.accept() => accepted,
                    () = each.token().cancelled() => return,
                };
                let (Ok((stream, _)), stock) = (accepted, Arc::clone(&stock)) else {
                    continue;
                };
                each.spawn("transfer", async move {
                    // A client that vanishes is the client's affair.
                    drop(serve(stream, &stock).await);
                });
            }
        });
        Self {
            port,
            _end: stop.drop_guard(),
        }
    }
}

async fn serve(mut stream: TcpStream, stock: &[u8]) -> std::io::Result<()> {
    if stream.read_u8().await? == b'd' {
        stream.write_all(stock).await?;
    } else {
        let mut taken = Vec::new();
        stream.read_to_end(&mut taken).await?;
        stream.write_all(digest(&taken).as_bytes()).await?;
    }
    stream.shutdown().await
}

/// Transfers `stock` over a connection to a depot; fails the test unless it arrives as it is.
pub async fn transfer(mut stream: TcpStream, way: Way, stock: &[u8]) {
    let order: &[u8] = if way == Way::Up { b"u" } else { b"d" };
    stream.write_all(order).await.expect("the order is taken");
    let mut answer = Vec::new();
    if way == Way::Up {
        stream.write_all(stock).await.expect("the bytes are taken");
        stream.shutdown().await.expect("the end is taken");
        stream.read_to_end(&mut answer).await.expect("an answer");
        assert_eq!(
            String::from_utf8_lossy(&answer),
            digest(stock),
            "what was sent arrived changed"
        );
    } else {
        stream.read_to_end(&mut answer).await.expect("the bytes come");
        assert_eq!(digest(&answer), digest(stock), "what was fetched arrived changed");
    }
}
