//! The agent's own SSH server (`builtin:ssh`), for devices that run no sshd.
//!
//! One call of [`serve`] is one SSH connection over any byte stream: it proves who is there, then runs shells, commands
//! and sftp as the user who runs the agent, or as another that the customer lists ([`Users`]). The gateway names the caller, the keys registered for that caller and the
//! acts it permits ([`Login`]); the agent's own rules have the last word before each act ([`Acts`]).
//!
//! This is the only room that uses russh, and russh's types leave it only in [`Settings`] and [`Login`], as keys.
//!
//! Deliberately not here: forwarding of any kind (TCP, Unix sockets, X11, agent), passwords,
//! message of the day, `~/.ssh` (neither keys nor `rc` nor `environment` are read), and serving under a service account:
//! the caller of `serve` asks [`Account::is_service_account`] first.
//!
//! What runs here ends here: a program's process group is hung up when its channel ends, and killed five seconds later.
//! A program that shall outlive the connection must leave that group (`setsid`).

mod account;
mod auth;
mod channels;
mod connection;
mod environment;
mod handler;
mod hangup;
mod outlet;
mod process;
mod program;
mod settings;
mod sftp;
mod shown;
mod switching;
mod terminal;

#[cfg(test)]
mod tests;

pub use account::{Account, AccountError};
pub use settings::{Act, Acts, Login, Settings, UnderWay};
pub use sftp::serve_stdio;
pub use shown::{Family, shown_key};
pub use switching::Users;

use std::sync::Arc;
use std::time::Duration;

use fairlead_runtime::channel::{Flow, Transport};
use fairlead_runtime::stop::CancellationToken;
use fairlead_runtime::tasks::TaskGroup;
use russh::server::{Config, Handle, RunningSession, run_stream};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{sleep, timeout};

use auth::Standing;
use connection::{Connection, Owners};

/// From the first byte to a proven caller. Afterwards the connection is closed without a word.
const ADMISSION_LIMIT: Duration = Duration::from_secs(30);
/// How long a client may take to read why it is cut off, and again to close its side.
const GOODBYE_LIMIT: Duration = Duration::from_secs(1);
/// Longer than a hang-up takes ([`hangup`] kills after 5 s), so that it is the hang-up which ends the programs.
const LEFTOVER_LIMIT: Duration = Duration::from_secs(8);

/// Why [`serve`] returned.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    /// The client, having been admitted, closed the connection or vanished.
    #[error("the client closed the connection")]
    Finished,
    /// Nobody was admitted; the text says what was wrong with the last attempt.
    #[error("nobody was admitted: {0}")]
    NotAdmitted(String),
    /// No caller was proven within 30 seconds.
    #[error("no caller was proven within {} seconds", ADMISSION_LIMIT.as_secs())]
    TimedOut,
    /// The permission lapsed, for the reason which the client was told.
    #[error("cut off: {0}")]
    Lapsed(String),
    /// The agent is stopping.
    #[error("the agent is stopping")]
    Stopping,
    /// The client broke the protocol, left no sign of life for two minutes, or the stream failed.
    #[error("the connection failed: {0}")]
    Failed(String),
}

/// Serves one SSH connection on `stream` until it ends, and everything it started with it.
///
/// `tasks` lends its token: when it is cancelled the connection ends as [`Ended::Stopping`]. `lapse` resolves when the
/// permission for this session is withdrawn; its text is shown to the client by SSH's disconnect message, and the stream is
/// closed within two seconds. Returns when no program of this connection is left, at most 8 s after the connection ended.
///
/// Await it to the end: dropped half-way it closes the stream and kills the programs without a hang-up.
pub async fn serve<S>(
    stream: S,
    settings: Arc<Settings>,
    login: Login,
    acts: Arc<dyn Acts>,
    tasks: &TaskGroup,
    lapse: impl Future<Output = String> + Send,
) -> Ended
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let protocol = settings.protocol();
    serve_protocol(protocol, stream, settings, login, acts, tasks, lapse).await
}

/// [`serve`], speaking what `protocol` says.
async fn serve_protocol<S>(
    protocol: Config,
    stream: S,
    settings: Arc<Settings>,
    login: Login,
    acts: Arc<dyn Acts>,
    tasks: &TaskGroup,
    lapse: impl Future<Output = String> + Send,
) -> Ended
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let cut = CancellationToken::new();
    let _cut_when_dropped = cut.clone().drop_guard();
    // Not under the agent's token: the client is told before its programs end, or it takes their end for its session's.
    let programs = TaskGroup::new("sshd", &CancellationToken::new());
    let _ended_when_dropped = programs.token().clone().drop_guard();
    // Nor this one: programs are still hung up, with its help, after the agent's token was cancelled.
    let blocking = TaskGroup::new("sshd blocking", &CancellationToken::new());
    let standing = Arc::new(Standing::default());
    let flow = Arc::new(Flow::default());
    let transport = Transport::new(stream, Arc::clone(&flow), cut.clone());
    let owners = Owners {
        programs: programs.clone(),
        blocking: blocking.clone(),
    };
    let connection = Connection::new(settings, login, acts, owners, Arc::clone(&standing), flow);

    let mut lapse = std::pin::pin!(lapse);
    let mut too_late = std::pin::pin!(sleep(ADMISSION_LIMIT));
    let mut session = tokio::select! {
        biased; // a withdrawn permission goes before anything the client does
        reason = &mut lapse => return Ended::Lapsed(reason),
        () = tasks.token().cancelled() => return Ended::Stopping,
        () = &mut too_late => return Ended::TimedOut,
        started = run_stream(Arc::new(protocol), transport, connection) => match started {
            Ok(session) => session,
            Err(error) => return Ended::Failed(error.to_string()),
        },
    };

    // Order: the client is told; the stream closes; programs are hung up; nothing is left when this returns.
    let ended = tokio::select! {
        biased; // as above
        reason = &mut lapse => {
            say_goodbye(&session.handle(), &reason).await;
            close_stream(session, &cut).await;
            Ended::Lapsed(reason)
        }
        () = tasks.token().cancelled() => {
            say_goodbye(&session.handle(), "fairlead: the agent is stopping").await;
            close_stream(session, &cut).await;
            Ended::Stopping
        }
        () = async { too_late.await; standing.stay_if_admitted().await } => {
            cut.cancel();
            close_stream(session, &cut).await;
            Ended::TimedOut
        }
        result = &mut session => standing.ending(result),
    };
    let leftover = programs.stop(LEFTOVER_LIMIT).await;
    if !leftover.is_empty() {
        tracing::warn!(tasks = leftover.count(), "an SSH connection's tasks were cut off");
    }
    blocking.stop(Duration::ZERO).await;
    ended
}

/// Sends SSH's disconnect message. A client that does not read does not get it: the stream is cut soon after.
async fn say_goodbye(handle: &Handle, text: &str) {
    let message = handle.disconnect(russh::Disconnect::ByApplication, text.to_owned(), String::new());
    if timeout(GOODBYE_LIMIT, message).await.is_err() {
        tracing::debug!("the client does not read: cut off without a reason");
    }
}

/// Waits for the client to close its side, then closes the stream from this one.
async fn close_stream(mut session: RunningSession<Connection>, cut: &CancellationToken) {
    if timeout(GOODBYE_LIMIT, &mut session).await.is_ok() {
        return;
    }
    cut.cancel();
    // A cut stream fails every read and write, which ends russh's task: the wait is for that task to let go of it.
    if timeout(GOODBYE_LIMIT, session).await.is_err() {
        tracing::warn!("an SSH connection did not let go of its closed stream");
    }
}
