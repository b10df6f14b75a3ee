//! Why somebody is told no: one numbered, named list for links, sessions, enrolments and endings.
//!
//! Numbers are for machines and never change meaning; names are for people, audit and metrics. The detail behind a
//! refusal stays in the log of the side that refused.

use std::fmt;

use crate::check::{self, CheckError, Checker};

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $code:literal, $name:literal;)*) => {
        /// Why a link, a session or an enrolment was refused or ended. The list may grow; numbers are never reused.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u32)]
        pub enum Reason {
            $($(#[$doc])* $variant = $code,)*
        }

        impl Reason {
            /// Every reason, in the order of its number.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The number on the wire.
            #[must_use]
            pub const fn code(self) -> u32 {
                self as u32
            }

            /// The reason of a number; `None` for numbers of a newer peer, to be treated as [`Reason::Internal`].
            #[must_use]
            pub const fn from_code(code: u32) -> Option<Self> {
                match code {
                    $($code => Some(Self::$variant),)*
                    _ => None,
                }
            }

            /// The name in audit, metrics and messages: lower case, hyphens.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

reasons! {
    /// The policy does not allow it, or the name does not exist; which of the two is not said.
    Denied = 1, "denied";
    /// No agent that offers the endpoint is linked.
    Offline = 2, "offline";
    /// The agent could not reach the endpoint's upstream.
    UpstreamFailed = 3, "upstream-failed";
    /// A configured or built-in limit is reached.
    Limit = 4, "limit";
    /// The agent offered an endpoint on a host that is neither its name nor bound to it.
    NotBound = 5, "not-bound";
    /// The rule names acts or reads facts that nobody can see in a tunnel.
    NeedsTerminated = 6, "needs-terminated";
    /// The certificate is past its time.
    Expired = 7, "expired";
    /// The certificate, the agent or the caller was revoked.
    Revoked = 8, "revoked";
    /// The endpoint is not in the agent's own file.
    NotListed = 9, "not-listed";
    /// The agent's own rules say no.
    Rule = 10, "rule";
    /// The gateway is stopping.
    GatewayStopping = 11, "gateway-stopping";
    /// The agent is stopping or paused.
    AgentStopping = 12, "agent-stopping";
    /// No common version, an unknown required feature, or a mode this build does not have.
    Unsupported = 13, "unsupported";
    /// The peer sent bytes that are no valid message here.
    Malformed = 14, "malformed";
    /// No byte moved for the session's idle limit.
    IdleLimit = 15, "idle-limit";
    /// The session's time is over.
    SessionLimit = 16, "session-limit";
    /// The audit record could not be written, so the act must not happen.
    AuditFailed = 17, "audit-failed";
    /// The join string's secret is not known.
    BadToken = 18, "bad-token";
    /// The join string was used as often as it may be.
    TokenSpent = 19, "token-spent";
    /// The join string is past its time.
    TokenExpired = 20, "token-expired";
    /// The name is taken by somebody else.
    Conflict = 21, "conflict";
    /// A fault of the side that refuses; its log tells more.
    Internal = 22, "internal";
    /// The receiver did not take bytes for too long.
    SlowReader = 23, "slow-reader";
    /// An administrator, or the customer at the agent, ended this session.
    Killed = 24, "killed";
    /// The policy, the caller, the agent or its labels changed and the session is no longer allowed.
    PolicyChanged = 25, "policy-changed";
    /// The caller closed the connection while bytes were on their way.
    CallerGone = 26, "caller-gone";
    /// The name is held for this key and waits for an administrator's approval; ask again with the same key.
    Pending = 27, "pending";
    /// The join string does not allow the name that the device proposes.
    BadName = 28, "bad-name";
    /// The agent has another name than its certificate says; it renews by proof of its key and gets it.
    Renamed = 29, "renamed";
}

impl Reason {
    /// The application error code of QUIC close, reset and stop; equal to [`Reason::code`]. 0 is the plain end.
    #[must_use]
    pub const fn quic_code(self) -> u64 {
        self as u64
    }

    /// The reason of a QUIC application error code; `None` for 0 and for codes of a newer peer.
    #[must_use]
    pub fn from_quic_code(code: u64) -> Option<Self> {
        u32::try_from(code).ok().and_then(Self::from_code)
    }

    /// What a caller may learn. `permitted`: the gate has allowed this caller the endpoint in this session.
    ///
    /// Nobody learns from an answer whether a name exists, is listed or is online unless they may use it. What concerns
    /// the caller's own certificate, join string or bytes, and a gateway that stops, is said in any case.
    #[must_use]
    pub const fn told_to_caller(self, permitted: bool) -> Self {
        match self {
            Self::Denied | Self::NotBound | Self::NeedsTerminated | Self::NotListed | Self::Rule | Self::Renamed => {
                Self::Denied
            }
            Self::Expired
            | Self::Revoked
            | Self::GatewayStopping
            | Self::Malformed
            | Self::BadToken
            | Self::TokenSpent
            | Self::TokenExpired
            | Self::Conflict
            | Self::Pending
            | Self::BadName => self,
            _ if !permitted => Self::Denied,
            Self::AuditFailed => Self::Internal,
            _ => self,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A refusal as it travels. Sent in place of the hoped-for answer on a link, a data stream or an enrolment. Since 1.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Refused {
    /// A [`Reason`]'s number, never 0. Numbers of a newer peer are kept as they are.
    #[prost(uint32, tag = "1")]
    pub reason: u32,
    /// One line for the peer's operator: what to do about it. At most 512 bytes, no control characters, may be empty.
    /// Never shown to a caller.
    #[prost(string, tag = "2")]
    pub detail: String,
}

impl Refused {
    /// Makes a refusal that passes [`Refused::check`]: control characters become spaces, the detail is cut to 512 bytes.
    #[must_use]
    pub fn new(reason: Reason, detail: &str) -> Self {
        Self {
            reason: reason.code(),
            detail: check::one_line(detail, check::MAX_DETAIL_BYTES),
        }
    }

    /// The reason, where a number this build does not know reads as [`Reason::Internal`].
    #[must_use]
    pub fn known_reason(&self) -> Reason {
        Reason::from_code(self.reason).unwrap_or(Reason::Internal)
    }

    /// Bounds every field.
    ///
    /// # Errors
    /// [`CheckError`] naming the first field out of bounds.
    pub fn check(&self) -> Result<(), CheckError> {
        let fields = Checker::of("Refused");
        fields.present("reason", self.reason != 0)?;
        fields.text("detail", &self.detail, check::MAX_DETAIL_BYTES)
    }
}

#[cfg(test)]
mod tests;
