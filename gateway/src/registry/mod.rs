//! What other rooms ask about agents, endpoints and callers, answered from the store and the authority.
//!
//! The rooms state their questions as traits of their own ([`crate::link::Registrar`], [`crate::endpoint::Directory`],
//! [`crate::endpoint::Callers`]); this room is where the answers come from, so that links and faces know neither.

mod callers;
mod conversing;
mod enrolment;
pub(crate) mod host_keys;
mod links;

pub(crate) use callers::named;
pub(crate) use enrolment::LOGIN_KEY_LIFE_SECONDS;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fairlead_identity::name::Label;
use fairlead_runtime::clock::Clock;

use crate::access::Trail;
use crate::authority::Authorities;
use crate::config::Lives;
use crate::session::Table;
use crate::store::{AgentId, StoreHandle};

pub(crate) use conversing::{Conversing, Uplinking};

/// The answers.
pub(crate) struct Registry {
    pub(crate) store: StoreHandle,
    /// Told when a join string has changed a caller.
    pub(crate) table: Arc<Table>,
    pub(crate) authorities: Arc<Authorities>,
    pub(crate) trail: Trail,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) lives: Lives,
    pub(crate) domain: String,
    pub(crate) trust_domain: String,
    /// Ends an agent's sessions and its link as `revoked`: its key was replaced.
    pub(crate) shut_out: Arc<dyn Fn(&AgentId) + Send + Sync>,
    /// What agents and callers are told to dial.
    pub(crate) announce: Vec<String>,
}

impl Registry {
    fn unix_now(&self) -> i64 {
        unix(self.clock.now())
    }

    /// OpenSSH lines of the user CAs.
    pub(crate) fn ssh_user_cas(&self) -> Vec<String> {
        vec![self.authorities.ssh.user_ca().public_line()]
    }

    /// OpenSSH lines of the host CAs.
    pub(crate) fn ssh_host_cas(&self) -> Vec<String> {
        vec![self.authorities.ssh.host_ca().public_line()]
    }

    /// The names under which callers reach a host: inside SSH, and under the gateway's domain.
    fn host_names(&self, host: &str, site: &Label) -> Vec<String> {
        vec![
            format!("{host}.{site}.internal"),
            format!("{host}.{site}.{}", self.domain),
        ]
    }
}

/// Lower-case hex, as digests are kept and shown.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Seconds since 1970; a clock before that counts as 1970.
pub(crate) fn unix(at: SystemTime) -> i64 {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
