//! Logging in for callers: the customer's file says as whom, the password never leaves this side.
//!
//! One folder per protocol, one line each in [`KINDS`]. A kind gets a connection that was dialled and secured as the file
//! says, makes the upstream's login on it, and gives what the caller is told first. Deliberately not here: who may have which
//! credential (`service` asks the customer's rules, with the caller's own bytes), the dial, and everything after the login.

mod mqtt;
mod postgres;

use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use fairlead_identity::name::Protocol;
use fairlead_runtime::tasks::TaskGroup;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::config::Credential;
use crate::service::{Asked, Channel};

/// A protocol in which the agent can log in for callers.
pub(crate) struct Kind {
    protocol: Protocol,
    /// Makes the login. Whoever calls bounds the time.
    pub(crate) log_in: for<'a> fn(&'a mut dyn Wire, Attempt<'a>) -> Answer<'a>,
}

/// Every kind.
const KINDS: &[Kind] = &[postgres::KIND, mqtt::KIND];

/// The kind of this protocol, where there is one.
pub(crate) fn kind_of(protocol: Protocol) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| kind.protocol == protocol)
}

/// A connection to an upstream.
pub(crate) trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Wire for S {}

/// What a login comes to.
pub(crate) type Answer<'a> = Pin<Box<dyn Future<Output = Result<LoggedIn, LoginFailed>> + Send + 'a>>;

/// One login.
pub(crate) struct Attempt<'a> {
    /// What the caller asks for, read by the agent.
    pub(crate) asked: &'a Asked,
    /// As whom.
    pub(crate) credential: &'a Credential,
    /// What is known of the connection.
    pub(crate) channel: &'a Channel,
    /// For work that keeps a processor busy.
    pub(crate) tasks: &'a TaskGroup,
}

/// A login that was made.
pub(crate) struct LoggedIn {
    /// How, for the customer's audit.
    pub(crate) by: &'static str,
    /// What the caller gets first, in their protocol; bytes that the upstream has sent since among it.
    pub(crate) greeting: Bytes,
}

/// A login that was not made.
#[derive(Debug)]
pub(crate) struct LoginFailed {
    /// For the customer's audit; never a password.
    pub(crate) detail: String,
    /// What the caller is told.
    pub(crate) told: Told,
}

/// What a caller hears of a login that was not made.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// That it failed, in these words and no others.
    Outline(&'static str),
    /// The upstream's own words, in the caller's protocol.
    Words(Bytes),
}

impl LoginFailed {
    fn outline(told: &'static str, detail: impl std::fmt::Display) -> Self {
        Self {
            detail: detail.to_string(),
            told: Told::Outline(told),
        }
    }

    /// The upstream took longer than this.
    pub(crate) fn too_slow(limit: Duration) -> Self {
        let detail = format!("no login within {} s of dialling", limit.as_secs());
        Self::outline("the upstream does not answer a login", detail)
    }
}
