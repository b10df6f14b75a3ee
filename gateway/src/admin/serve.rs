//! Connections: bounded in number, one request each, none longer than half a minute.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use fairlead_runtime::socket_file::SocketFile;
use fairlead_runtime::tasks::TaskGroup;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::extract::Actor;

/// Connections at a time, for each of the two listeners. More wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 64;
/// From the connection to the end of the request's head.
const HEAD_LIMIT: Duration = Duration::from_secs(10);
/// Longest head of a request, in bytes.
const MAX_HEAD_BYTES: usize = 32 * 1024;
/// From the connection to its end, so that a peer which does not read holds no place for long.
const CONNECTION_LIMIT: Duration = Duration::from_secs(30);
/// A pause after a failed accept, which means that the process is out of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Serves administration until the group's token is cancelled, then removes the socket's file.
pub(super) async fn unix(socket: SocketFile, routes: Router, tasks: TaskGroup) {
    accepting(socket.listener(), &tasks, |stream, place| {
        if let Some(actor) = actor(&stream) {
            let routes = routes.clone().layer(Extension(actor));
            tasks.spawn("admin-request", connection(stream, routes, place));
        }
    })
    .await;
    socket.remove();
}

/// Serves metrics and health until the group's token is cancelled.
pub(super) async fn tcp(listener: TcpListener, routes: Router, tasks: TaskGroup) {
    accepting(&listener, &tasks, |stream, place| {
        tasks.spawn("admin-scrape", connection(stream, routes.clone(), place));
    })
    .await;
}

/// What connections come from.
trait Listener: Sync {
    type Stream: Send;

    fn next(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

impl Listener for UnixListener {
    type Stream = UnixStream;

    async fn next(&self) -> io::Result<UnixStream> {
        Ok(self.accept().await?.0)
    }
}

impl Listener for TcpListener {
    type Stream = TcpStream;

    async fn next(&self) -> io::Result<TcpStream> {
        Ok(self.accept().await?.0)
    }
}

async fn accepting<L, F>(listener: &L, tasks: &TaskGroup, mut begin: F)
where
    L: Listener,
    F: FnMut(L::Stream, OwnedSemaphorePermit),
{
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let serving = async {
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else {
                return;
            };
            match listener.next().await {
                Ok(stream) => begin(stream, place),
                Err(error) => {
                    tracing::warn!(%error, "administration cannot take a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    };
    tasks.token().run_until_cancelled(serving).await;
}

/// A peer without credentials is not one of this machine's processes: it gets no answer.
fn actor(stream: &UnixStream) -> Option<Actor> {
    match stream.peer_cred() {
        Ok(credentials) => Some(Actor { uid: credentials.uid() }),
        Err(error) => {
            tracing::warn!(%error, "the kernel does not say who connected for administration");
            None
        }
    }
}

fn connection<S>(stream: S, routes: Router, place: OwnedSemaphorePermit) -> impl Future<Output = ()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_LIMIT)
        .keep_alive(false)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes));
    async move {
        match tokio::time::timeout(CONNECTION_LIMIT, served).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "an administration connection ended early"),
            Err(_) => tracing::debug!("an administration connection was cut after its time"),
        }
        drop(place);
    }
}
