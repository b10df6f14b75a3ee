//! The two ends of every measurement: a service that does what the first byte says, and clients of it.
//!
//! `e` echoes until the end; `c` echoes one byte and closes; `d` and `u`, with eight bytes of a length, send and take so
//! much. A client that comes by a routing token has an X.224 request ahead of that, which the gateway hands on; it is skipped.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use fairlead_runtime::stop::CancellationToken;
use fairlead_runtime::tasks::TaskGroup;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_util::sync::DropGuard;

/// What is written and read at a time where bytes are many.
const PIECE: usize = 256 * 1024;
/// The first byte of an X.224 request.
const TPKT: u8 = 3;
/// Of a request and of its answer.
pub(crate) const MESSAGE: usize = 64;
/// Longer than anything takes here.
pub(crate) const LIMIT: Duration = Duration::from_secs(120);

/// The service. Ends when dropped.
pub(crate) struct Target {
    pub(crate) port: u16,
    _end: DropGuard,
}

impl Target {
    /// Serves on a free port of 127.0.0.1.
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        Self::on(listener)
    }

    /// Serves a listener.
    pub(crate) fn on(listener: TcpListener) -> Self {
        let port = listener.local_addr().expect("its address").port();
        let stop = CancellationToken::new();
        let tasks = TaskGroup::new("target", &stop);
        let each = tasks.clone();
        tasks.spawn("accept", async move {
            loop {
                let accepted = tokio::select! {
                    accepted = listener.accept() => accepted,
                    () = each.token().cancelled() => return,
                };
                if let Ok((stream, _)) = accepted {
                    each.spawn("connection", async move {
                        // A client that vanishes is the client's affair.
                        drop(serve(stream).await);
                    });
                }
            }
        });
        Self {
            port,
            _end: stop.drop_guard(),
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }
}

async fn serve(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut order = stream.read_u8().await?;
    if order == TPKT {
        let mut head = [0; 3];
        stream.read_exact(&mut head).await?;
        let mut rest = vec![0; usize::from(u16::from_be_bytes([head[1], head[2]])) - 4];
        stream.read_exact(&mut rest).await?;
        order = stream.read_u8().await?;
    }
    match order {
        b'c' => {
            let byte = stream.read_u8().await?;
            stream.write_u8(byte).await?;
            stream.shutdown().await
        }
        b'd' => {
            let length = stream.read_u64().await?;
            send(&mut stream, length).await
        }
        b'u' => {
            let length = stream.read_u64().await?;
            take(&mut stream, length).await?;
            stream.write_u8(b'!').await
        }
        _ => {
            let mut piece = vec![0; 4096];
            loop {
                let read = stream.read(&mut piece).await?;
                if read == 0 {
                    return stream.shutdown().await;
                }
                stream.write_all(&piece[..read]).await?;
            }
        }
    }
}

async fn send(stream: &mut TcpStream, length: u64) -> std::io::Result<()> {
    let piece = vec![0x5a; PIECE];
    let mut left = length;
    while left > 0 {
        let now = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
        stream.write_all(&piece[..now]).await?;
        left -= now as u64;
    }
    Ok(())
}

async fn take(stream: &mut TcpStream, length: u64) -> std::io::Result<()> {
    let mut piece = vec![0; PIECE];
    let mut left = length;
    while left > 0 {
        let read = stream.read(&mut piece).await?;
        if read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        left -= read as u64;
    }
    Ok(())
}

/// Fetches so many bytes from a fresh connection to a target.
pub(crate) async fn down(stream: &mut TcpStream, length: u64) {
    stream.write_u8(b'd').await.expect("the order is taken");
    stream.write_u64(length).await.expect("the length is taken");
    take(stream, length).await.expect("all bytes come");
}

/// Brings so many bytes to a target by a fresh connection, and waits until it has them.
pub(crate) async fn up(stream: &mut TcpStream, length: u64) {
    stream.write_u8(b'u').await.expect("the order is taken");
    stream.write_u64(length).await.expect("the length is taken");
    send(stream, length).await.expect("all bytes are taken");
    assert_eq!(stream.read_u8().await.expect("a receipt"), b'!');
}

/// Makes a fresh connection one that echoes, and waits for the first echo.
pub(crate) async fn hello(stream: &mut TcpStream) {
    stream.write_all(b"e1").await.expect("the order is taken");
    assert_eq!(stream.read_u8().await.expect("an echo"), b'1');
}

/// How long one message took to come back.
pub(crate) async fn ping(stream: &mut TcpStream) -> Duration {
    let (message, mut answer) = ([7; MESSAGE], [0; MESSAGE]);
    let began = Instant::now();
    stream.write_all(&message).await.expect("the message is taken");
    stream.read_exact(&mut answer).await.expect("the answer comes");
    began.elapsed()
}

/// Runs them all at a time, each as a task; what they gave, in the order of their ends.
pub(crate) async fn together<T, F>(all: impl IntoIterator<Item = F>) -> Vec<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let tasks = TaskGroup::new("load", &CancellationToken::new());
    let (ends, mut ended) = mpsc::channel(64);
    let mut count = 0;
    for one in all {
        count += 1;
        let ends = ends.clone();
        tasks.spawn("one", async move {
            ends.send(one.await).await.expect("somebody waits for every end");
        });
    }
    drop(ends);
    let mut given = Vec::new();
    while let Some(one) = tokio::time::timeout(LIMIT, ended.recv())
        .await
        .expect("an end within two minutes")
    {
        given.push(one);
    }
    assert_eq!(given.len(), count, "one of the clients failed");
    given
}
