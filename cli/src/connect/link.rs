//! The conversation that carries the sessions: dialled, dialled again when it is lost, and given to whoever opens one.
//!
//! A gateway that is restarted is back before most clients give up, so a local connection waits for the link, for a bounded
//! time. The certificate is renewed by the login key while the program runs, as `fairlead login` does.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use fairlead_agent::link::Backoff;
use fairlead_runtime::frame;
use fairlead_runtime::quic::{CONNECTION_WINDOW, STREAM_WINDOW};
use fairlead_runtime::transport::{Closed, Connection};
use fairlead_wire::call::{Body, ConnectRequest, Question};
use fairlead_wire::codec::MAX_CONTROL_FRAME;
use fairlead_wire::refusal::Reason;
use tokio::io::AsyncWriteExt;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::carry::Opened;
use crate::call::{answered, asked, connected, ended, exit_of, refused};
use crate::command::{CommandError, Context, Exit};
use crate::login;
use crate::profile::Profile;

/// How long a local connection waits for a link, and for the gateway's answer over it.
const WAIT: Duration = Duration::from_secs(30);
/// From the request for a session to its answer; the gateway's own limits lie below.
const ANSWER_LIMIT: Duration = Duration::from_secs(35);
/// A renewal that failed is tried again after this.
const RENEW_AGAIN: Duration = Duration::from_secs(60);
/// The shortest time between two renewals.
const RENEW_PAUSE: Duration = Duration::from_secs(1);
/// A link that lived for so long has proved good: after its end, dialling begins anew.
const PROVEN: Duration = Duration::from_secs(10);
/// A closed connection has this long to say so.
const FAREWELL: Duration = Duration::from_millis(100);

/// The way to the gateway, for those who open sessions. Clones are the same.
#[derive(Clone)]
pub(super) struct Link {
    live: watch::Receiver<Option<Connection>>,
    wanted: Arc<Notify>,
    open: Arc<AtomicU32>,
}

/// Keeps the link.
pub(super) struct Keeper {
    profile: Profile,
    live: watch::Sender<Option<Connection>>,
    wanted: Arc<Notify>,
    notes: mpsc::Sender<String>,
    backoff: Backoff,
}

/// A session's part of the connection's window; given back when dropped.
pub(super) struct Share {
    connection: Connection,
    open: Arc<AtomicU32>,
}

/// Why a session was not opened.
enum Unopened {
    /// Not by this connection, whose end is near or past.
    Elsewhere,
    /// The gateway's word.
    Refused(CommandError),
}

impl Keeper {
    /// Dials for the first time.
    ///
    /// # Errors
    /// As [`connected`].
    pub(super) async fn begin(
        profile: Profile,
        notes: mpsc::Sender<String>,
        context: &Context,
    ) -> Result<(Self, Link), CommandError> {
        let connection = connected(&profile, &|text| context.note(text)).await?;
        let (live, seen) = watch::channel(Some(connection));
        let wanted = Arc::new(Notify::new());
        let link = Link {
            live: seen,
            wanted: Arc::clone(&wanted),
            open: Arc::default(),
        };
        let keeper = Self {
            profile,
            live,
            wanted,
            notes,
            backoff: Backoff::new(rand::random()),
        };
        Ok((keeper, link))
    }

    /// Keeps a link until the gateway says that this person is shut out, and returns that.
    pub(super) async fn run(mut self) -> CommandError {
        loop {
            let Some(connection) = self.live.borrow().clone() else {
                match self.dial().await {
                    Ok(connection) => {
                        self.live.send_replace(Some(connection));
                    }
                    Err(fatal) => return fatal,
                }
                continue;
            };
            let began = Instant::now();
            let why = self.live_through(&connection).await;
            if began.elapsed() >= PROVEN {
                self.backoff.reset();
            }
            self.live.send_replace(None);
            let error = ended(&why);
            if is_for_silence(&why) {
                // Nobody needs it now; a gateway has better uses for a seat.
                self.wanted.notified().await;
            } else if error.exit() == Exit::Denied {
                return error;
            } else {
                self.say(format!("the link is lost ({why}); connecting again")).await;
            }
        }
    }

    /// Renews the certificate in time until the connection ends.
    async fn live_through(&self, connection: &Connection) -> Closed {
        loop {
            tokio::select! {
                why = connection.closed() => return why,
                () = self.renew() => {}
            }
        }
    }

    /// Dials until it succeeds, first within 200 ms, then ever more rarely up to every 8 s.
    async fn dial(&mut self) -> Result<Connection, CommandError> {
        let mut told = false;
        loop {
            sleep(self.backoff.wait()).await;
            let noted = self.notes.clone();
            let note = move |text: &str| {
                // A full queue has more to say than this.
                let _unsaid = noted.try_send(text.to_owned());
                Ok(())
            };
            match connected(&self.profile, &note).await {
                Ok(connection) => {
                    if told {
                        self.say("connected again".to_owned()).await;
                    }
                    return Ok(connection);
                }
                Err(error) if error.exit() == Exit::Denied => return Err(error),
                Err(error) if !told => {
                    told = true;
                    self.say(format!("{error}; trying again")).await;
                }
                Err(_) => {}
            }
        }
    }

    /// Renews the certificate when two thirds of what is left of it have passed.
    async fn renew(&self) {
        let left = self.profile.good_until(SystemTime::now()).ok();
        let left = left.and_then(|until| until.duration_since(SystemTime::now()).ok());
        let Some(left) = left else {
            // The next dial logs in again before it uses it.
            return std::future::pending().await;
        };
        sleep(left.mul_f64(2.0 / 3.0).max(RENEW_PAUSE)).await;
        if let Err(error) = login::again(&self.profile).await {
            self.say(format!("the certificate was not renewed: {error}; trying again"))
                .await;
            sleep(RENEW_AGAIN).await;
        }
    }

    async fn say(&self, line: String) {
        // Who reads the lines has gone: then nobody misses them.
        let _unsaid = self.notes.send(line).await;
    }
}

impl Link {
    /// Opens a session, over this link or the next.
    ///
    /// # Errors
    /// The gateway's refusal with the session's id; 69 when there was no link within 30 s.
    pub(super) async fn open(&self, url: &str) -> Result<Opened, CommandError> {
        let deadline = Instant::now() + WAIT;
        let none = |_| CommandError::text(Exit::Unreachable, "the gateway was not reached within 30 s");
        loop {
            let connection = timeout_at(deadline, self.connection()).await.map_err(none)??;
            match self.exchange(&connection, url).await {
                Ok(opened) => return Ok(opened),
                Err(Unopened::Refused(why)) => return Err(why),
                Err(Unopened::Elsewhere) => {
                    timeout_at(deadline, connection.closed()).await.map_err(none)?;
                }
            }
        }
    }

    /// Ends the conversation.
    pub(super) async fn close(&self) {
        let live = self.live.borrow().clone();
        if let Some(connection) = live {
            connection.close(0, "done");
            // The packet that says so is sent by another task.
            sleep(FAREWELL).await;
        }
    }

    async fn connection(&self) -> Result<Connection, CommandError> {
        self.wanted.notify_one();
        let mut live = self.live.clone();
        let is_live = |live: &Option<Connection>| live.as_ref().is_some_and(|link| link.close_reason().is_none());
        let found = live.wait_for(is_live).await;
        let gone = || CommandError::text(Exit::Failed, "the program stops");
        found.map_err(|_| gone())?.clone().ok_or_else(gone)
    }

    /// Nothing that a client has sent goes out before the answer, so that a request without one can be made again.
    async fn exchange(&self, connection: &Connection, url: &str) -> Result<Opened, Unopened> {
        let request = ConnectRequest { url: url.to_owned() };
        let bytes = asked(Question::Connect(request)).map_err(Unopened::Refused)?;
        let share = self.share(connection);
        let lost = |_: &dyn std::fmt::Display| Unopened::Elsewhere;
        let asking = async {
            let opened = timeout(connection.opens_within(), connection.open()).await;
            let (mut send, mut recv) = opened.map_err(|_| full())?.map_err(|error| lost(&error))?;
            send.write_all(&bytes).await.map_err(|error| lost(&error))?;
            let frame = frame::read_frame(&mut recv, MAX_CONTROL_FRAME).await;
            let frame = frame.map_err(|error| lost(&error))?.ok_or(Unopened::Elsewhere)?;
            Ok((send, recv, frame))
        };
        let answered_in_time = timeout(ANSWER_LIMIT, asking).await;
        let (send, recv, frame) = answered_in_time.unwrap_or_else(|_| {
            let text = "the gateway did not answer within 35 s";
            Err(Unopened::Refused(CommandError::text(Exit::Unreachable, text)))
        })?;
        match answered(&frame).map_err(Unopened::Refused)? {
            Some(Body::Connected(connected)) => {
                let session = connected.session_id().map_err(CommandError::failed);
                Ok(Opened {
                    session: session.map_err(Unopened::Refused)?,
                    send,
                    recv,
                    share,
                })
            }
            Some(Body::Refused(said)) if said.known_reason() == Reason::GatewayStopping => Err(Unopened::Elsewhere),
            Some(Body::Refused(said)) => Err(Unopened::Refused(refused(&said))),
            _ => {
                let text = "the gateway gave an answer that this program does not know";
                Err(Unopened::Refused(CommandError::text(Exit::Failed, text)))
            }
        }
    }

    fn share(&self, connection: &Connection) -> Share {
        self.open.fetch_add(1, Ordering::AcqRel);
        let share = Share {
            connection: connection.clone(),
            open: Arc::clone(&self.open),
        };
        share.widen();
        share
    }
}

impl Share {
    /// Each session has a stream's window of its own: a local client that does not read holds up no other.
    fn widen(&self) {
        let open = self.open.load(Ordering::Acquire);
        let window = open.saturating_mul(STREAM_WINDOW).saturating_add(CONNECTION_WINDOW);
        self.connection.permit_bytes(window);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::AcqRel);
        self.widen();
    }
}

/// The gateway lets one connection carry only so many sessions, and none has ended for a while.
fn full() -> Unopened {
    let text = format!(
        "{}: the gateway lets no further session be open over one connection",
        Reason::Limit
    );
    Unopened::Refused(CommandError::text(exit_of(Reason::Limit), text))
}

/// Whether the gateway closed a conversation in which nothing was asked.
fn is_for_silence(why: &Closed) -> bool {
    matches!(why, Closed::ByPeer { code, .. } if Reason::from_quic_code(*code) == Some(Reason::IdleLimit))
}
