//! Tells the running gateway, by its administration socket, that the files have changed.

use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::admin::api::{CaReloaded, ErrorBody};

/// From the request to the answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(15);
/// Longest answer read, in bytes.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// Asks for the reload; `None` when no gateway runs.
///
/// # Errors
/// When it cannot be asked, or keeps what it has; in words.
pub(super) async fn reload(socket: &Path) -> anyhow::Result<Option<CaReloaded>> {
    let stream = match UnixStream::connect(socket).await {
        Ok(stream) => stream,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("cannot use {}", socket.display())),
    };
    let asked = timeout(ANSWER_LIMIT, ask(stream)).await;
    asked
        .context("the running gateway did not answer within 15 s")?
        .map(Some)
}

async fn ask(stream: UnixStream) -> anyhow::Result<CaReloaded> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::builder()
        .method(Method::POST)
        .uri("/v1/ca/reload")
        .header("host", "fairlead-gateway")
        .body(Empty::<Bytes>::new())?;
    let answered = async move {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await;
        let body = body.map_err(|error| anyhow::anyhow!("the running gateway's answer cannot be read: {error}"))?;
        Ok::<_, anyhow::Error>((status, body.to_bytes()))
    };
    // A fault of the connection shows in the answer as well.
    let (answer, _connection_ended) = tokio::join!(answered, connection);
    let (status, body) = answer?;
    if status.is_success() {
        return serde_json::from_slice(&body).context("the running gateway's answer is of another release");
    }
    match serde_json::from_slice::<ErrorBody>(&body) {
        Ok(refused) => bail!("the running gateway keeps what it has: {}", refused.reason),
        Err(_) => bail!("the running gateway refused with {status}; see its log"),
    }
}
