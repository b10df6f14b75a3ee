//! MQTT in a WebSocket (RFC 6455, section 6 of MQTT 5.0), told from MQTT itself by its first byte.

use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use fairlead_runtime::relay::{Sink, Source};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use tokio::io::AsyncReadExt;
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::{HeaderValue, StatusCode, header::SEC_WEBSOCKET_PROTOCOL};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{WebSocketStream, accept_hdr_async_with_config};

use crate::endpoint::ClientStream;

/// For the first bytes, and for the whole upgrade.
const BEGIN_LIMIT: Duration = Duration::from_secs(10);
/// Bytes of one message of the WebSocket; packets may be cut anywhere.
const MAX_MESSAGE: usize = 1 << 20;
/// Kept for each socket while nothing moves.
const READ_BUFFER: usize = 4 * 1024;
/// A client's request begins with this, and no packet of MQTT that may come first does.
const GET: u8 = b'G';

/// A client's connection, of which the first bytes were read.
type Inside = ClientStream<TlsStream<ClientStream>>;

/// What a client inside TLS speaks.
pub(in crate::endpoint) enum Met {
    /// The protocol itself.
    Plain(Box<Inside>),
    /// The protocol in a WebSocket.
    WebSocket(FromSocket, ToSocket),
}

/// Looks at what the client says first; `None` when it has gone, or its upgrade is none.
pub(in crate::endpoint) async fn meet(mut stream: TlsStream<ClientStream>) -> Option<Met> {
    let mut first = BytesMut::with_capacity(1);
    timeout(BEGIN_LIMIT, (&mut stream).take(1).read_buf(&mut first))
        .await
        .ok()?
        .ok()
        .filter(|read| *read > 0)?;
    let is_request = first.first() == Some(&GET);
    let stream = ClientStream::new(first.freeze(), stream);
    if !is_request {
        return Some(Met::Plain(Box::new(stream)));
    }
    let settings = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(0)
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE));
    let upgraded = accept_hdr_async_with_config(stream, speaks_mqtt, Some(settings));
    let socket = timeout(BEGIN_LIMIT, upgraded).await.ok()?;
    let socket = socket
        .map_err(|error| tracing::debug!(%error, "no upgrade to MQTT in a WebSocket"))
        .ok()?;
    let (sink, source) = socket.split();
    Some(Met::WebSocket(FromSocket(source), ToSocket(sink)))
}

/// Section 6: the client must offer the subprotocol `mqtt`, and the server choose it.
#[expect(clippy::result_large_err, reason = "the signature is the library's")]
fn speaks_mqtt(request: &Request, mut response: Response) -> Result<Response, ErrorResponse> {
    let offered = request.headers().get_all(SEC_WEBSOCKET_PROTOCOL).iter();
    let mut offered = offered
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    if !offered.any(|name| name.trim() == "mqtt") {
        let mut refused = ErrorResponse::new(Some("the subprotocol here is mqtt\n".to_owned()));
        *refused.status_mut() = StatusCode::BAD_REQUEST;
        return Err(refused);
    }
    let chosen = HeaderValue::from_static("mqtt");
    response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, chosen);
    Ok(response)
}

/// What the client says.
pub(in crate::endpoint) struct FromSocket(SplitStream<WebSocketStream<Inside>>);

/// What the client gets.
pub(in crate::endpoint) struct ToSocket(SplitSink<WebSocketStream<Inside>, Message>);

impl Source for FromSocket {
    async fn chunk(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            match self.0.next().await.transpose().map_err(io::Error::other)? {
                Some(Message::Binary(bytes)) => return Ok(Some(bytes)),
                Some(Message::Ping(_) | Message::Pong(_)) => {}
                Some(Message::Close(_)) | None => return Ok(None),
                Some(_) => return Err(io::Error::other("text in a WebSocket of MQTT")),
            }
        }
    }
}

impl Sink for ToSocket {
    async fn send(&mut self, bytes: Bytes) -> io::Result<()> {
        self.0.send(Message::Binary(bytes)).await.map_err(io::Error::other)
    }

    async fn finish(&mut self) -> io::Result<()> {
        self.0.close().await.map_err(io::Error::other)
    }
}
