//! The way to a gateway's administration: HTTP on its unix socket.
//!
//! The only module of this crate, `quickstart` aside, that names the gateway's: for the types of its requests and answers.

#[cfg(test)]
mod tests;

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
pub use fairlead_gateway::admin::api;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use crate::command::{CommandError, Context, Exit};

/// Where the package puts the socket.
pub const DEFAULT_SOCKET: &str = "/run/fairlead-gateway/admin.sock";
/// From the connection to the whole answer; the gateway gives itself 10 s.
const ANSWER_LIMIT: Duration = Duration::from_secs(15);
/// Longest answer read, in bytes: 20,000 agents with everything they report.
const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;

/// Options of every command that administers.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Administration {
    /// The gateway's administration socket [default: $FAIRLEAD_ADMIN_SOCKET, else /run/fairlead-gateway/admin.sock]
    #[arg(long, value_name = "PATH", global = true)]
    pub admin_socket: Option<PathBuf>,
    /// Print JSON for programs
    #[arg(long, global = true)]
    pub json: bool,
}

/// A client of one gateway; each request is a connection of its own.
#[derive(Clone, Debug)]
pub struct AdminClient {
    socket: PathBuf,
}

impl AdminClient {
    /// The client for the socket that was named: by option, by environment, or where the package puts it.
    pub fn new(options: &Administration, context: &Context) -> Self {
        let named = options.admin_socket.as_ref().or(context.admin_socket());
        Self {
            socket: named.cloned().unwrap_or_else(|| DEFAULT_SOCKET.into()),
        }
    }

    /// Asks for something.
    ///
    /// # Errors
    /// [`Exit::Unreachable`] when nobody answers, [`Exit::Denied`] when the socket may not be used, and what the gateway says.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, CommandError> {
        let answer = self.exchange(Method::GET, path, Bytes::new()).await?;
        parsed(&answer)
    }

    /// Sends something and reads the answer.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &(impl Serialize + Sync),
    ) -> Result<T, CommandError> {
        let body = serde_json::to_vec(body).map_err(anyhow::Error::new)?;
        let answer = self.exchange(method, path, body.into()).await?;
        parsed(&answer)
    }

    /// Takes something away.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn delete(&self, path: &str) -> Result<(), CommandError> {
        self.exchange(Method::DELETE, path, Bytes::new()).await.map(drop)
    }

    async fn exchange(&self, method: Method, path: &str, body: Bytes) -> Result<Bytes, CommandError> {
        let exchanged = tokio::time::timeout(ANSWER_LIMIT, self.exchange_in_any_time(method, path, body)).await;
        let unanswered = |_| {
            let text = format!(
                "the gateway did not answer within {} s; see its log",
                ANSWER_LIMIT.as_secs()
            );
            CommandError::text(Exit::Unreachable, text)
        };
        let (status, answer) = exchanged.map_err(unanswered)??;
        if status.is_success() {
            Ok(answer)
        } else {
            Err(refused(status, &answer))
        }
    }

    async fn exchange_in_any_time(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes), CommandError> {
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|error| unreachable(&self.socket, &error))?;
        let cut = || CommandError::text(Exit::Unreachable, "the gateway ended the connection; see its log");
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|_| cut())?;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "fairlead-gateway")
            .header("content-type", "application/json")
            .body(Full::new(body))
            .context("this request cannot be written")?;
        let answered = async move {
            let response = sender.send_request(request).await.map_err(|_| cut())?;
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await;
            let body = body.map_err(|error| anyhow::anyhow!("the gateway's answer cannot be read: {error}"))?;
            Ok((status, body.to_bytes()))
        };
        // A fault of the connection shows in the answer as well.
        let (answer, _connection_ended) = tokio::join!(answered, connection);
        answer
    }
}

fn unreachable(socket: &Path, error: &std::io::Error) -> CommandError {
    let socket = socket.display();
    if error.kind() == ErrorKind::PermissionDenied {
        let text = format!(
            "you may not administer this gateway: no access to {socket}; use an account of the socket's group (see ls -l {socket}) or sudo"
        );
        return CommandError::text(Exit::Denied, text);
    }
    let text = format!(
        "no gateway answers on {socket}: {error}; administration works on the gateway's own machine: see `systemctl status fairlead-gateway`, or name the socket of gateway.yaml with --admin-socket"
    );
    CommandError::text(Exit::Unreachable, text)
}

fn refused(status: StatusCode, answer: &[u8]) -> CommandError {
    let Ok(body) = serde_json::from_slice::<api::ErrorBody>(answer) else {
        return CommandError::text(
            Exit::Failed,
            format!("the gateway refused with {status} and no reason; see its log"),
        );
    };
    let exit = match (status, body.error.as_str()) {
        (_, "policy") => Exit::BadConfiguration,
        (StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY, _) => Exit::Usage,
        (StatusCode::FORBIDDEN, _) => Exit::Denied,
        _ => Exit::Failed,
    };
    let help = if body.help.is_empty() {
        String::new()
    } else {
        format!("\n  help: {}", body.help)
    };
    CommandError::text(exit, format!("{}{help}", body.reason))
}

fn parsed<T: DeserializeOwned>(answer: &[u8]) -> Result<T, CommandError> {
    let parsed = serde_json::from_slice(answer);
    Ok(parsed.context("the gateway's answer is not what this release expects: compare `--version` of both")?)
}
