use super::*;
use crate::quic::loopback::Pair;
use bytes::BytesMut;
use std::collections::VecDeque;
use std::future::pending;
use std::io::ErrorKind;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::oneshot;

mod quic;
mod shape;
mod tcp;

const LONG: Duration = Duration::from_secs(20);

async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(LONG, future).await.expect("in time")
}

/// A TCP connection: the outer end and the halves a relay takes.
async fn tcp() -> (TcpStream, (OwnedReadHalf, OwnedWriteHalf)) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dialled = TcpSocket::new_v4().unwrap();
    // Small, so that a peer that does not read is felt soon.
    dialled.set_recv_buffer_size(64 * 1024).unwrap();
    let address = listener.local_addr().unwrap();
    let (outer, inner) = tokio::join!(dialled.connect(address), listener.accept());
    let inner = inner.unwrap().0;
    prepare(&inner).unwrap();
    (outer.unwrap(), inner.into_split())
}

/// Bytes in which every place is told from its neighbours.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at % 251) as u8 ^ (at / 65_536) as u8).collect()
}

/// Writes until it fails.
async fn flood(write: &mut (impl tokio::io::AsyncWrite + Unpin), data: &[u8]) -> ErrorKind {
    loop {
        if let Err(error) = write.write_all(data).await {
            return error.kind();
        }
    }
}

/// Reads to the end or the failure, and says when 4 MiB have come.
async fn read_to_cut(read: &mut (impl tokio::io::AsyncRead + Unpin), mut enough: impl FnMut()) -> Option<ErrorKind> {
    let (mut buffer, mut total) = (vec![0; 65_536], 0);
    loop {
        match read.read(&mut buffer).await {
            Ok(0) => return None,
            Ok(count) => total += count,
            Err(error) => return Some(error.kind()),
        }
        if total > 4 << 20 {
            enough();
        }
    }
}

/// The kernel tells of a reset once: to the write or to the read, whichever comes first.
fn assert_reset(wrote: ErrorKind, heard: Option<ErrorKind>) {
    let reset = ErrorKind::ConnectionReset;
    assert!(wrote == reset || heard == Some(reset), "{wrote:?} {heard:?}");
}
