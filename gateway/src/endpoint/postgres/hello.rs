//! The opening packets of a Postgres client, in clear and inside TLS, and the last words to it.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use fairlead_protocol::postgres::{self, ACCEPT_TLS, CancelKey, DECLINE, Opening, OpeningError, Startup};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::tls_required;
use crate::endpoint::{ClientStream, Handshake, TlsClient};

/// From the first packet to a finished handshake.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// For the StartupMessage after it.
const STARTUP_LIMIT: Duration = Duration::from_secs(10);
/// Packets in clear: GSSENCRequest, SSLRequest, and one for good measure.
const CLEAR_PACKETS: usize = 3;
/// How long last words may take, and the client to hear them.
const FAREWELL: Duration = Duration::from_secs(2);
/// Bytes that a client which is being parted with may still send.
const FAREWELL_BYTES: usize = 64 * 1024;

/// Where the packets in clear lead.
pub(super) enum Greeted {
    /// Into TLS.
    Tls(Box<TlsClient>),
    /// To a CancelRequest, as clients send it whose session is in TLS (libpq before 17); the connection waits for its end.
    Cancel(CancelKey, ClientStream),
    /// Nowhere: the client has gone, or was sent away.
    Gone,
}

/// Leads a client from its first packet in clear.
pub(super) async fn greet(mut stream: ClientStream, tls: &Handshake, kind: &str, client: SocketAddr) -> Greeted {
    let meeting = async {
        for _ in 0..CLEAR_PACKETS {
            match packet(&mut stream).await.ok()? {
                Ok(Opening::Gss) => stream.write_all(DECLINE).await.ok()?,
                Ok(Opening::Tls) => {
                    // Nothing was read beyond the packet, so that nothing said in clear is taken for said inside
                    // (CVE-2021-23222).
                    stream.write_all(ACCEPT_TLS).await.ok()?;
                    return tls
                        .meet_inside(kind, stream, client)
                        .await
                        .map(|met| Greeted::Tls(Box::new(met)));
                }
                Ok(Opening::Startup(_)) => {
                    let words = tls_required();
                    say(&mut stream, &words).await;
                    return None;
                }
                Ok(Opening::Cancel(key)) => return Some(Greeted::Cancel(key, stream)),
                Err(_) => return None,
            }
        }
        None
    };
    let met = timeout(HANDSHAKE_LIMIT, meeting).await.ok().flatten();
    met.unwrap_or(Greeted::Gone)
}

/// What a client wants inside TLS.
pub(super) enum Wish {
    /// A session.
    Session(Startup),
    /// An end of what another session does.
    Cancel(CancelKey),
}

/// Reads the first packet inside TLS; `None` when the client has gone, is too slow, or wants something else.
///
/// # Errors
/// When the packet is none.
pub(super) async fn wish(stream: &mut (impl AsyncRead + Unpin)) -> Result<Option<Wish>, OpeningError> {
    match timeout(STARTUP_LIMIT, packet(stream)).await {
        Ok(Ok(Ok(Opening::Startup(startup)))) => Ok(Some(Wish::Session(startup))),
        Ok(Ok(Ok(Opening::Cancel(key)))) => Ok(Some(Wish::Cancel(key))),
        Ok(Ok(Ok(_))) | Ok(Err(_)) | Err(_) => Ok(None),
        Ok(Ok(Err(error))) => Err(error),
    }
}

/// Closes a connection that is answered by its end alone.
pub(super) async fn close(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    say(&mut stream, &[]).await;
}

/// Reads one packet and not a byte more.
async fn packet(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Result<Opening, OpeningError>> {
    let mut bytes = vec![0; 8];
    stream.read_exact(&mut bytes).await?;
    loop {
        match postgres::read_opening(&bytes) {
            Ok(Some((opening, _))) => return Ok(Ok(opening)),
            Err(error) => return Ok(Err(error)),
            Ok(None) => {}
        }
        // The length was found to be one that a first packet has.
        let said = bytes.first_chunk::<4>().map_or(0, |length| u32::from_be_bytes(*length));
        let (read, whole) = (bytes.len(), usize::try_from(said).unwrap_or(0));
        if whole <= read {
            return Err(io::ErrorKind::InvalidData.into());
        }
        bytes.resize(whole, 0);
        let rest = bytes.get_mut(read..).unwrap_or_default();
        stream.read_exact(rest).await?;
    }
}

/// Ends a connection with an ErrorResponse.
pub(super) async fn refuse(mut stream: impl AsyncRead + AsyncWrite + Unpin, sqlstate: &str, message: &str, hint: &str) {
    let words = postgres::fatal(sqlstate, message, hint);
    say(&mut stream, &words).await;
}

/// Says last words and waits until the client has heard them: closing while the client still sends would overtake them
/// with a reset.
async fn say(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), words: &[u8]) {
    let said = async {
        stream.write_all(words).await.ok()?;
        stream.flush().await.ok()?;
        stream.shutdown().await.ok()?;
        let (mut heard, mut bytes) = (0_usize, [0; 1024]);
        while heard < FAREWELL_BYTES {
            heard = heard.saturating_add(stream.read(&mut bytes).await.ok().filter(|read| *read > 0)?);
        }
        Some(())
    };
    // Whoever does not listen is cut off.
    let _heard = timeout(FAREWELL, said).await;
}
