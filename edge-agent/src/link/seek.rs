//! When another transport would do better than the one that carries the link, and whether it does: by a handshake on it.
//!
//! QUIC is better than WebSocket wherever it passes; WebSocket is better than a QUIC that has gone silent.

use std::sync::Arc;
use std::time::Duration;

use fairlead_runtime::quic::{KEEP_ALIVE, Role, SAVER_KEEP_ALIVE};
use fairlead_runtime::transport::{Connection, Kind};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::board::Board;
use super::course::Progress;
use super::{Credentials, Settings, Ways, dial_by};

/// How long after falling back QUIC is tried again, and how often at first.
const FIRST_PROBES: Duration = Duration::from_secs(25);
/// For so long it is tried that often; then each wait is twice the one before.
const EAGER: Duration = Duration::from_secs(600);
/// No wait is longer.
const LONGEST: Duration = Duration::from_secs(600);
/// How often is looked whether QUIC has gone silent.
const LOOK: Duration = Duration::from_millis(500);
/// Beyond the keep-alive, an answer takes this long on no path that people would use.
const ANSWER: Duration = Duration::from_millis(1500);
/// After a WebSocket that did not come about either.
const PAUSE: Duration = Duration::from_secs(1);

/// Looks for something better.
pub(super) struct Seeker {
    gateways: Vec<String>,
    domain: String,
    credentials: Arc<dyn Credentials>,
    ways: Ways,
    board: Board,
    role: Role,
    silence: Duration,
    probes: Probes,
    /// Of the connection that serves: packets heard, and since when no more came.
    heard: Option<(u64, Instant)>,
}

/// When QUIC is tried, after falling back.
#[derive(Debug)]
struct Probes {
    began: Option<Instant>,
    next: Instant,
    wait: Duration,
}

impl Seeker {
    pub(super) fn new(settings: &Settings, board: Board) -> Self {
        let (role, keep_alive) = if settings.data_saver {
            (Role::SavingAgent, SAVER_KEEP_ALIVE)
        } else {
            (Role::Agent, KEEP_ALIVE)
        };
        Self {
            gateways: settings.gateways.clone(),
            domain: settings.domain.clone(),
            credentials: Arc::clone(&settings.credentials),
            ways: settings.ways.clone(),
            board,
            role,
            silence: keep_alive.saturating_add(ANSWER),
            probes: Probes::new(Instant::now()),
            heard: None,
        }
    }

    /// A connection over a transport that does better than the serving one. Cancel safe: what was waited for is remembered.
    pub(super) async fn better(&mut self, serving: &mut watch::Receiver<Progress>) -> Connection {
        loop {
            let up = serving.wait_for(|progress| progress.up).await;
            let Ok(connection) = up.map(|progress| progress.connection.clone()) else {
                return std::future::pending().await;
            };
            let Some(connection) = connection else {
                sleep(LOOK).await;
                continue;
            };
            let found = match connection.kind() {
                Kind::WebSocket => self.quic_again().await,
                Kind::Quic => self.instead_of(&connection).await,
            };
            if let Some(found) = found {
                return found;
            }
        }
    }

    /// Waits for the next moment to try QUIC, and tries.
    async fn quic_again(&mut self) -> Option<Connection> {
        let until = self.probes.due(Instant::now());
        sleep_until(until).await;
        self.probes.tried(Instant::now());
        let found = self.dial(Kind::Quic).await;
        if found.is_some() {
            self.probes = Probes::new(Instant::now());
            self.heard = None;
        }
        found
    }

    /// Looks once whether QUIC has gone silent; then a WebSocket is tried.
    async fn instead_of(&mut self, quic: &Connection) -> Option<Connection> {
        self.probes = Probes::new(Instant::now());
        sleep(LOOK).await;
        let (now, count) = (Instant::now(), quic.packets_heard()?);
        match self.heard {
            Some((last, since)) if last == count => {
                if now.saturating_duration_since(since) < self.silence {
                    return None;
                }
            }
            _ => {
                self.heard = Some((count, now));
                return None;
            }
        }
        tracing::info!("QUIC has gone silent; trying WebSocket");
        let found = self.dial(Kind::WebSocket).await;
        if found.is_none() {
            sleep(PAUSE).await;
        }
        found
    }

    async fn dial(&self, kind: Kind) -> Option<Connection> {
        let tls = self.credentials.tls();
        let ways = self.ways.only(kind).except(self.board.taken());
        let dialled = dial_by(&ways, &self.gateways, &self.domain, &tls, self.role).await;
        dialled
            .inspect_err(|error| tracing::debug!(%error, %kind, "no better way yet"))
            .ok()
    }
}

impl Probes {
    fn new(now: Instant) -> Self {
        Self {
            began: None,
            next: now,
            wait: FIRST_PROBES,
        }
    }

    /// When to try next; the first time a little after this was asked first.
    fn due(&mut self, now: Instant) -> Instant {
        if self.began.is_none() {
            self.began = Some(now);
            self.next = now + self.wait;
        }
        self.next
    }

    fn tried(&mut self, now: Instant) {
        let eager = self
            .began
            .is_some_and(|began| now.saturating_duration_since(began) < EAGER);
        if !eager {
            self.wait = self.wait.saturating_mul(2).min(LONGEST);
        }
        self.next = now + self.wait;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quic_is_tried_within_half_a_minute_and_ever_more_rarely_after_ten() {
        let start = Instant::now();
        let mut probes = Probes::new(start);
        let mut tries = Vec::new();
        let mut now = start;
        while now.saturating_duration_since(start) < Duration::from_secs(7200) {
            now = probes.due(now);
            tries.push(now.saturating_duration_since(start));
            probes.tried(now);
        }
        assert!(tries[0] <= Duration::from_secs(30));
        let waits: Vec<Duration> = tries.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let early = tries.iter().take_while(|at| **at < EAGER).count();
        assert!(
            waits
                .iter()
                .take(early - 1)
                .all(|wait| *wait <= Duration::from_secs(30)),
            "{waits:?}"
        );
        assert!(waits.iter().all(|wait| *wait <= LONGEST));
        assert_eq!(waits.last(), Some(&LONGEST));
        assert!(tries.len() < 24 + 6 + 12, "{}", tries.len());
    }
}
