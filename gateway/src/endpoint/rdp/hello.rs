//! The Connection Request of an RDP client, and the last words to it.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use fairlead_protocol::rdp::{self, Failure, Request};
use fairlead_runtime::relay::{Sink, Source};
use tokio::time::timeout;

use crate::endpoint::ahead::Ahead;

/// From the connection's beginning to the end of the request.
const REQUEST_LIMIT: Duration = Duration::from_secs(10);
/// How long last words may take, and the client to hear them.
const FAREWELL: Duration = Duration::from_secs(2);
/// Chunks of a client that is being parted with.
const FAREWELL_CHUNKS: usize = 8;

/// Reads the request.
///
/// # Errors
/// When what comes is none, or does not come in time.
pub(super) async fn request<S: Source>(source: &mut Ahead<S>) -> io::Result<Request> {
    let read = timeout(REQUEST_LIMIT, source.message(rdp::read_request)).await;
    read.map_err(io::Error::from)??.map_err(io::Error::other)
}

/// Ends a connection with a negotiation failure, and waits until the client has heard it: closing while the client still
/// sends would overtake it with a reset.
pub(super) async fn refuse<S: Source, K: Sink>(request: &Request, failure: Failure, mut source: S, mut sink: K) {
    let said = async {
        tell(request, failure, &mut sink).await.ok()?;
        for _ in 0..FAREWELL_CHUNKS {
            source.chunk().await.ok()??;
        }
        Some(())
    };
    // Whoever does not listen is cut off.
    let _heard = timeout(FAREWELL, said).await;
}

/// Says the failure, and that nothing follows.
pub(super) async fn tell<K: Sink>(request: &Request, failure: Failure, sink: &mut K) -> io::Result<()> {
    let said = async {
        sink.send(Bytes::from(request.refusal(failure))).await?;
        sink.finish().await
    };
    timeout(FAREWELL, said).await.map_err(io::Error::from)?
}
