//! What a caller asks a database to do, followed on its way: counted, and written down where the customer wants that.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use fairlead_protocol::postgres::{Client, Spoken, Startup, Statement};
use fairlead_runtime::clock::Clock;
use fairlead_runtime::relay::{Batch, Sink};
use fairlead_wire::refusal::Reason;
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::table::{Ending, Live};
use crate::statement_log::StatementLog;

/// Bytes of a statement's message that are kept for the log. A line is at most six times as long and some more.
const KEPT: usize = 8 * 1024;

/// A sink towards the upstream that follows what the caller says, where the agent knows how the session began.
pub(super) struct Followed<'a, K> {
    inner: K,
    follower: Option<Follower<'a>>,
}

struct Follower<'a> {
    client: Client,
    startup: &'a Startup,
    live: &'a Live,
    clock: &'a dyn Clock,
    log: Option<Arc<StatementLog>>,
}

/// One line of the log.
#[derive(Serialize)]
struct Line<'a> {
    ts: &'a str,
    session: &'a str,
    caller: &'a str,
    endpoint: &'a str,
    user: &'a str,
    database: &'a str,
    spoken: &'static str,
    statement: &'a str,
    bytes: u32,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    cut: bool,
}

impl<'a, K> Followed<'a, K> {
    pub(super) fn new(inner: K, live: &'a Live, clock: &'a dyn Clock) -> Self {
        let log = live.settled.get().and_then(|settled| settled.statement_log.clone());
        let follower = live.asked.postgres.as_ref().map(|startup| Follower {
            client: Client::new(if log.is_some() { KEPT } else { 0 }),
            startup,
            live,
            clock,
            log,
        });
        Self { inner, follower }
    }
}

impl Follower<'_> {
    /// Follows bytes that have not gone on yet. Statements that cannot be written down do not go on, and the session ends.
    fn follow<'b>(&mut self, chunks: impl Iterator<Item = &'b Bytes>) -> io::Result<()> {
        let mut statements = Vec::new();
        for chunk in chunks {
            let followed = self.client.follow(chunk, |statement| statements.push(statement));
            followed.map_err(|error| self.end(Reason::Malformed, error.to_string()))?;
        }
        self.live.statements.store(self.client.statements(), Ordering::Relaxed);
        let Some(log) = self.log.as_ref().filter(|_| !statements.is_empty()) else {
            return Ok(());
        };
        let lines = self.lines(&statements)?;
        let written = log.write(&lines);
        written.map_err(|error| self.end(Reason::AuditFailed, error.to_string()))
    }

    fn lines(&self, statements: &[Statement]) -> io::Result<Vec<u8>> {
        let asked = &self.live.asked;
        let (session, endpoint) = (asked.session.to_string(), asked.endpoint.to_string());
        let ts = OffsetDateTime::from(self.clock.now())
            .format(&Rfc3339)
            .unwrap_or_default();
        let mut lines = Vec::new();
        for statement in statements {
            let line = Line {
                ts: &ts,
                session: &session,
                caller: &asked.caller.name,
                endpoint: &endpoint,
                user: self.startup.user(),
                database: self.startup.database(),
                spoken: match statement.spoken {
                    Spoken::Query => "query",
                    Spoken::Parse => "parse",
                },
                statement: &statement.text,
                bytes: statement.bytes,
                cut: statement.is_cut,
            };
            serde_json::to_writer(&mut lines, &line)?;
            lines.push(b'\n');
        }
        Ok(lines)
    }

    fn end(&self, reason: Reason, detail: String) -> io::Error {
        self.live.lapse.cancel(Ending::with(reason, detail.clone()));
        io::Error::other(detail)
    }
}

impl<K: Sink> Sink for Followed<'_, K> {
    async fn send(&mut self, bytes: Bytes) -> io::Result<()> {
        if let Some(follower) = &mut self.follower {
            follower.follow(std::iter::once(&bytes))?;
        }
        self.inner.send(bytes).await
    }

    async fn send_batch(&mut self, batch: &mut Batch) -> io::Result<()> {
        if let Some(follower) = &mut self.follower {
            follower.follow(batch.iter())?;
        }
        self.inner.send_batch(batch).await
    }

    async fn finish(&mut self) -> io::Result<()> {
        self.inner.finish().await
    }

    fn abort(self, code: u32) {
        self.inner.abort(code);
    }
}
