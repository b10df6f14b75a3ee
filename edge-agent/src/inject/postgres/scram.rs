//! SCRAM-SHA-256 (RFC 5802, RFC 7677): the computation is postgres-protocol's; which variant is begun is decided here.

use bytes::Bytes;
use fairlead_protocol::postgres;
use fairlead_runtime::tasks::TaskGroup;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramSha256};

use super::{LoginFailed, NOT_SPOKEN, NOT_TAKEN};
use crate::service::Channel;

const UNPROVEN: &str = "the database has not proven that it knows the password";

/// A mechanism that has begun.
pub(super) struct Scram {
    inner: ScramSha256,
    name: &'static str,
}

impl Scram {
    /// Begins the best mechanism of those offered; gives the first message too.
    pub(super) fn begin(offered: &[String], password: &str, channel: &Channel) -> Result<(Self, Vec<u8>), LoginFailed> {
        let offers = |mechanism: &str| offered.iter().any(|name| name == mechanism);
        let (mechanism, name, binding) = match &channel.binding {
            Some(binding) if offers(SCRAM_SHA_256_PLUS) => (
                SCRAM_SHA_256_PLUS,
                "scram-sha-256-plus",
                ChannelBinding::tls_server_end_point(binding.clone()),
            ),
            // Says that a binding could be had: a server that did offer it, to whom somebody in between did not let us listen,
            // notices.
            Some(_) if offers(SCRAM_SHA_256) => (SCRAM_SHA_256, "scram-sha-256", ChannelBinding::unrequested()),
            None if offers(SCRAM_SHA_256) => (SCRAM_SHA_256, "scram-sha-256", ChannelBinding::unsupported()),
            _ => {
                let detail = "the database offers no SASL mechanism that is spoken here";
                return Err(LoginFailed::outline(NOT_SPOKEN, detail));
            }
        };
        let inner = ScramSha256::new(password.as_bytes(), binding);
        let first = postgres::sasl_initial(mechanism, inner.message());
        Ok((Self { inner, name }, first))
    }

    /// For the customer's audit.
    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    /// Answers the server's challenge. The server sets how much work that is, at most 100,000 rounds, done where nobody
    /// waits for it.
    pub(super) async fn answer(mut self, challenge: Bytes, tasks: &TaskGroup) -> Result<(Self, Vec<u8>), LoginFailed> {
        let work = move || {
            let updated = self.inner.update(&challenge);
            updated.map(|()| {
                let next = postgres::sasl_response(self.inner.message());
                (self, next)
            })
        };
        let done = tasks.blocking("scram", work).await;
        let done = done.map_err(|error| LoginFailed::outline(NOT_SPOKEN, error))?;
        done.map_err(|error| LoginFailed::outline(NOT_SPOKEN, format!("SCRAM: {error}")))
    }

    /// Checks the server's own proof.
    pub(super) fn check_proof(mut self, said: &[u8]) -> Result<(), LoginFailed> {
        let proven = self.inner.finish(said);
        proven.map_err(|error| LoginFailed::outline(NOT_TAKEN, format!("{UNPROVEN}: {error}")))
    }
}
