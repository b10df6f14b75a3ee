//! Connections to the control socket: bounded in number and length, one question each.

use std::sync::Arc;
use std::time::Duration;

use fairlead_runtime::socket_file::SocketFile;
use fairlead_runtime::tasks::TaskGroup;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::api::{Answer, Question};
use super::desk::Desk;

/// Connections at a time. More wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 16;
/// Longest question, in bytes.
const MAX_QUESTION: u64 = 4 * 1024;
/// From the connection to its end.
const CONNECTION_LIMIT: Duration = Duration::from_secs(15);
/// A pause after a failed accept, which means that the process is out of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Answers on the socket until the group's token is cancelled, then removes its file.
pub(crate) async fn serve(socket: SocketFile, desk: Arc<Desk>, tasks: TaskGroup) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let serving = async {
        while let Ok(place) = Arc::clone(&places).acquire_owned().await {
            match socket.listener().accept().await {
                Ok((stream, _)) => {
                    let desk = Arc::clone(&desk);
                    tasks.spawn("control", connection(stream, desk, place));
                }
                Err(error) => {
                    tracing::warn!(%error, "the control socket cannot take a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    };
    tasks.token().run_until_cancelled(serving).await;
    socket.remove();
}

async fn connection(stream: UnixStream, desk: Arc<Desk>, _place: OwnedSemaphorePermit) {
    let uid = match stream.peer_cred() {
        Ok(credentials) => credentials.uid(),
        Err(error) => return tracing::warn!(%error, "the kernel does not say who asks on the control socket"),
    };
    if uid != 0 && uid != nix::unistd::geteuid().as_raw() {
        return tracing::warn!(
            uid,
            "a user who is neither root nor the agent's own asked on the control socket"
        );
    }
    if timeout(CONNECTION_LIMIT, exchange(stream, &desk, uid)).await.is_err() {
        tracing::debug!("a control connection was cut after its time");
    }
}

async fn exchange(mut stream: UnixStream, desk: &Arc<Desk>, uid: u32) {
    let mut line = Vec::new();
    let (from, _) = stream.split();
    let read = BufReader::new(from.take(MAX_QUESTION))
        .read_until(b'\n', &mut line)
        .await;
    let answer = match read.map(|_| serde_json::from_slice::<Question>(&line)) {
        Ok(Ok(question)) => desk.answer(question, uid).await,
        Ok(Err(error)) => Answer::Refused(format!(
            "not understood: {error}; are program and agent of one release?"
        )),
        Err(_) => return,
    };
    let Ok(mut bytes) = serde_json::to_vec(&answer) else {
        return;
    };
    bytes.push(b'\n');
    // Whoever does not wait for the answer does not get it.
    drop(stream.write_all(&bytes).await);
    drop(stream.shutdown().await);
}
