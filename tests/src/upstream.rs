//! TCP services behind an agent, in this process: one that echoes, one that refuses, one that does not read, and one
//! that nobody may reach.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use fairlead_runtime::stop::CancellationToken;
use fairlead_runtime::tasks::TaskGroup;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_util::sync::DropGuard;

/// Says back what it is told, to the end, then ends its side. Ends when dropped.
pub struct Echo {
    /// Where it listens.
    pub address: SocketAddr,
    _end: DropGuard,
}

impl Echo {
    /// Starts it on a free port.
    pub async fn start() -> Self {
        let (address, end) = serve("echo", async |mut stream: TcpStream| {
            let (mut read, mut write) = stream.split();
            // A caller that vanishes is the caller's affair.
            drop(tokio::io::copy(&mut read, &mut write).await);
            drop(write.shutdown().await);
        })
        .await;
        Self { address, _end: end }
    }
}

/// Takes connections and never reads from them. Ends when dropped.
pub struct Deaf {
    /// Where it listens.
    pub address: SocketAddr,
    _end: DropGuard,
}

impl Deaf {
    /// Starts it on a free port.
    pub async fn start() -> Self {
        let (address, end) = serve("deaf", async |stream: TcpStream| {
            std::future::pending::<()>().await;
            drop(stream);
        })
        .await;
        Self { address, _end: end }
    }
}

/// Sends without end to whoever connects. Ends when dropped.
pub struct Flood {
    /// Where it listens.
    pub address: SocketAddr,
    _end: DropGuard,
}

impl Flood {
    /// Starts it on a free port.
    pub async fn start() -> Self {
        let (address, end) = serve("flood", async |mut stream: TcpStream| {
            let bytes = [0x5a; 32 * 1024];
            while stream.write_all(&bytes).await.is_ok() {}
        })
        .await;
        Self { address, _end: end }
    }
}

/// Counts the bytes of one connection at a time up to their end and then answers with the number. Ends when dropped.
pub struct Count {
    /// Where it listens.
    pub address: SocketAddr,
    _end: DropGuard,
}

impl Count {
    /// Starts it on a free port.
    pub async fn start() -> Self {
        let (address, end) = serve("count", async |mut stream: TcpStream| {
            let (mut bytes, mut total) = (vec![0; 64 * 1024], 0_usize);
            while let Ok(read) = stream.read(&mut bytes).await {
                if read == 0 {
                    drop(stream.write_all(format!("{total} bytes\n").as_bytes()).await);
                    return;
                }
                total += read;
            }
        })
        .await;
        Self { address, _end: end }
    }
}

/// Says `all said`, ends its side, and hears what still comes. Ends when dropped.
pub struct EarlyEnd {
    /// Where it listens.
    pub address: SocketAddr,
    heard: Arc<AtomicUsize>,
    _end: DropGuard,
}

impl EarlyEnd {
    /// Starts it on a free port.
    pub async fn start() -> Self {
        let heard = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&heard);
        let (address, end) = serve("early-end", move |mut stream: TcpStream| {
            let counter = Arc::clone(&counter);
            async move {
                drop(stream.write_all(b"all said\n").await);
                drop(stream.shutdown().await);
                let mut bytes = vec![0; 64 * 1024];
                while let Ok(read @ 1..) = stream.read(&mut bytes).await {
                    counter.fetch_add(read, Ordering::Relaxed);
                }
            }
        })
        .await;
        Self {
            address,
            heard,
            _end: end,
        }
    }

    /// Bytes heard so far.
    pub fn heard(&self) -> usize {
        self.heard.load(Ordering::Relaxed)
    }
}

/// Hears one piece and breaks the connection off. Ends when dropped.
pub struct Resetting {
    /// Where it listens.
    pub address: SocketAddr,
    _end: DropGuard,
}

impl Resetting {
    /// Starts it on a free port.
    pub async fn start() -> Self {
        let (address, end) = serve("resetting", async |mut stream: TcpStream| {
            let mut bytes = [0; 64];
            drop(stream.read(&mut bytes).await);
            // Closing then sends a reset instead of an end.
            stream.set_zero_linger().expect("a socket option");
        })
        .await;
        Self { address, _end: end }
    }
}

/// Hears one piece, says its words, once or without end, and holds on. Ends when dropped.
pub struct Says {
    /// Where it listens.
    pub address: SocketAddr,
    _end: DropGuard,
}

impl Says {
    /// Starts it on a free port.
    pub async fn start(words: &[u8], without_end: bool) -> Self {
        let words = Arc::new(words.to_vec());
        let (address, end) = serve("says", move |mut stream: TcpStream| {
            let words = Arc::clone(&words);
            async move {
                let mut bytes = [0; 1024];
                drop(stream.read(&mut bytes).await);
                while stream.write_all(&words).await.is_ok() && without_end {}
                std::future::pending::<()>().await;
            }
        })
        .await;
        Self { address, _end: end }
    }
}

/// A port that is taken and refuses every connection.
pub struct Refusing {
    /// The address.
    pub address: SocketAddr,
    // Bound and not listening: the kernel answers with a reset, and nobody else gets the port.
    _socket: TcpSocket,
}

impl Refusing {
    /// Takes a free port.
    pub fn bind() -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket
            .bind("127.0.0.1:0".parse().expect("an address"))
            .expect("a free port");
        Self {
            address: socket.local_addr().expect("its address"),
            _socket: socket,
        }
    }
}

/// A listening port that no connection may reach; the kernel keeps any that come until somebody looks.
pub struct Canary {
    /// Where it listens.
    pub address: SocketAddr,
    listener: StdListener,
}

impl Canary {
    /// Listens on a free port.
    pub fn listen() -> Self {
        let listener = StdListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("a socket that does not block");
        Self {
            address: listener.local_addr().expect("its address"),
            listener,
        }
    }

    /// Fails the test if anybody has connected.
    #[track_caller]
    pub fn is_untouched(&self) {
        match self.listener.accept() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => panic!("the canary cannot be asked: {error}"),
            Ok((_, from)) => panic!("somebody connected from {from}"),
        }
    }
}

async fn serve<F>(name: &'static str, each: impl Fn(TcpStream) -> F + Send + Sync + 'static) -> (SocketAddr, DropGuard)
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("its address");
    let end = CancellationToken::new();
    let tasks = TaskGroup::new(name, &end);
    let connections = tasks.clone();
    tasks.spawn(name, async move {
        let token = connections.token();
        while let Some(Ok((stream, _))) = token.run_until_cancelled(listener.accept()).await {
            let (token, work) = (token.clone(), each(stream));
            connections.spawn(name, async move {
                token.run_until_cancelled(work).await;
            });
        }
    });
    (address, end.drop_guard())
}
