//! Carries out what the link state decides. No decisions here.

use std::sync::Arc;
use std::time::Duration;

use fairlead_runtime::frame::FrameReader;
use fairlead_runtime::quic::Role;
use fairlead_runtime::relay::Sink;
use fairlead_runtime::transport::{Closed, Connection, Receiver, Sender};
use fairlead_wire::codec::{self, MAX_CONTROL_FRAME};
use fairlead_wire::control::{Body, Control, HostKeyReport, Offer, Renew, RootsKept};
use fairlead_wire::refusal::Reason;
use tokio::io::AsyncWriteExt;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::board::Board;
use super::course::{Progress, Stage};
use super::state::{Command, Event, LinkState};
use super::{GatewayStream, InUse, Sessions, Settings, Stop, dial_by};

/// A frame must leave within this, or the gateway counts as gone.
const WRITE_LIMIT: Duration = Duration::from_secs(10);
/// After another conversation has taken over, the gateway opens nothing more on this one.
const LAST_ONES: Duration = Duration::from_secs(3);
/// How often is looked whether the last session has ended.
const LOOK: Duration = Duration::from_secs(1);
/// How long the gateway may take to hear that the agent stops.
const FAREWELL: Duration = Duration::from_secs(1);

/// The connection of the moment.
struct Live {
    connection: Connection,
    send: Sender,
    frames: FrameReader<Receiver>,
}

/// A conversation's place in the course of the link.
pub(super) struct Place {
    /// What it is to the link now.
    pub(super) stage: watch::Receiver<Stage>,
    /// Where it says how far it has come.
    pub(super) progress: watch::Sender<Progress>,
    /// The connection that it begins on; it dials one where there is none.
    pub(super) given: Option<Connection>,
}

/// Talks to the gateway until `stop`, or until its place needs it no more.
pub(super) async fn talk(settings: Settings, sessions: Arc<dyn Sessions>, board: Board, stop: Stop, place: Place) {
    let mut shell = Shell {
        state: LinkState::new(settings.introduction.clone(), settings.seed),
        place,
        in_use: InUse::default(),
        settings,
        sessions,
        board,
        began: Instant::now(),
        live: None,
        must_renew: false,
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = shell.run() => {}
    }
    if let Some(mut live) = shell.live.take() {
        // A close is sent once and may be lost, or not leave before the process ends; the end of a stream is repeated
        // until it has arrived.
        // One that is broken has nothing to wait for.
        drop(Sink::finish(&mut live.send).await);
        live.send.delivered(FAREWELL).await;
        let (code, text) = if stop.is_cancelled() {
            (Reason::AgentStopping.code(), "the agent stops")
        } else {
            (0, "the link has moved to another transport")
        };
        live.connection.close(code, text);
    }
}

struct Shell {
    settings: Settings,
    place: Place,
    /// The sessions of the connection of the moment hold it.
    in_use: InUse,
    state: LinkState,
    sessions: Arc<dyn Sessions>,
    board: Board,
    began: Instant,
    live: Option<Live>,
    /// The gateway says that the certificate has ended, whatever this machine's clock says, or names who this agent was.
    must_renew: bool,
}

enum Happening {
    Time,
    Frame(Control),
    Stream((Sender, Receiver)),
    Offer(Offer),
    HostKeys(Vec<HostKeyReport>),
    NetworkChanged,
    Lost(String),
}

impl Shell {
    async fn run(&mut self) {
        let mut had_one = false;
        loop {
            had_one |= self.live.is_some();
            let stage = *self.place.stage.borrow_and_update();
            let is_over = stage == Stage::Leaving || (stage == Stage::Coming && had_one);
            if is_over && self.live.is_none() {
                return;
            }
            let due = self.state.deadline().map(|due| self.began + due);
            let happening = tokio::select! {
                happening = next(due, self.live.as_mut(), &mut self.settings) => happening,
                () = left(&mut self.place.stage, &self.in_use) => return,
            };
            let commands = match happening {
                Happening::Time => self.state.handle_time(self.began.elapsed()),
                Happening::Frame(frame) => self.state.handle(self.began.elapsed(), Event::Frame(frame)),
                Happening::Stream((to_caller, from_caller)) => {
                    let stream = GatewayStream {
                        from_caller,
                        to_caller,
                        in_use: self.in_use.clone(),
                    };
                    let sessions = Arc::clone(&self.sessions);
                    if self.state.is_welcome() {
                        sessions.begin(stream);
                    } else {
                        // A gateway asks for sessions after it has answered the agent's greeting.
                        sessions.turn_away(stream, Reason::Malformed);
                    }
                    continue;
                }
                Happening::Offer(offer) => self.state.handle(self.began.elapsed(), Event::Offer(offer)),
                Happening::HostKeys(keys) => self.state.handle(self.began.elapsed(), Event::HostKeys(keys)),
                Happening::NetworkChanged => self.state.handle(self.began.elapsed(), Event::NetworkChanged),
                Happening::Lost(why) => self.lose(why),
            };
            for command in commands {
                self.execute(command).await;
            }
        }
    }

    async fn execute(&mut self, command: Command) {
        match command {
            Command::Dial => {
                let event = self.dial().await;
                for command in self.state.handle(self.began.elapsed(), event) {
                    // Hello is the only command here; a failure to send it shows as the connection's end.
                    Box::pin(self.execute(command)).await;
                }
            }
            Command::Send(frame) => self.send(&frame).await,
            Command::TrustUserCas(lines) => self.sessions.trust_user_cas(&lines),
            Command::PresentHostCertificate(line) => self.sessions.present_host_certificate(&line),
            Command::Up(answer) => {
                if let Some(live) = &self.live {
                    // Only now: each stream that is permitted costs memory.
                    live.connection.permit_streams(self.sessions.at_once());
                }
                let name = |number| Reason::from_code(number).map_or("unknown", Reason::name).to_owned();
                for refused in &answer.refused {
                    tracing::warn!(
                        url = refused.url,
                        reason = name(refused.reason),
                        "the gateway does not take this endpoint"
                    );
                }
                tracing::info!(
                    endpoints = answer.accepted.len(),
                    transport = self.transport(),
                    "link up"
                );
                let refused = answer
                    .refused
                    .into_iter()
                    .map(|refused| (refused.url, name(refused.reason)))
                    .collect();
                if let Some(live) = &self.live {
                    self.board.up(&live.connection, answer.accepted, refused);
                    self.settings.book.keep(live.connection.remote_address());
                }
                self.place.progress.send_modify(|progress| progress.up = true);
                self.schedule_renewal();
            }
            Command::TrustAuthority(authority) => match self.settings.credentials.trust(&authority) {
                Ok(kept) => {
                    if let Some(roots_sha256) = kept {
                        tracing::info!(
                            roots = roots_sha256.len(),
                            "the roots of the gateway's authority were renewed"
                        );
                        self.send(&Body::RootsKept(RootsKept { roots_sha256 }).into()).await;
                    }
                    self.schedule_renewal();
                }
                Err(error) => tracing::warn!(error, "the gateway announces roots that cannot be trusted"),
            },
            // Another link has renewed it meanwhile.
            Command::Renew if !self.settings.credentials.renew_in().is_zero() => self.schedule_renewal(),
            Command::Renew => match self.settings.credentials.signing_request() {
                Ok(csr_der) => {
                    self.send(&Control {
                        body: Some(Body::Renew(Renew { csr_der })),
                    })
                    .await
                }
                Err(error) => tracing::warn!(error, "no signing request"),
            },
            Command::KeepCertificate(chain) => match self.settings.credentials.keep(chain) {
                Ok(()) => {
                    tracing::info!("certificate renewed");
                    self.schedule_renewal();
                }
                Err(error) => tracing::warn!(error, "the renewed certificate cannot be used"),
            },
            Command::Close(reason, text) => {
                if let Some(live) = self.live.take() {
                    live.connection.close(reason.code(), &text);
                }
                self.report_down(if text.is_empty() {
                    reason.name().to_owned()
                } else {
                    text
                });
            }
            Command::Draining(within) => {
                self.board.draining();
                tracing::info!(
                    ?within,
                    "the gateway will stop; sessions on this link may finish until then"
                );
            }
            Command::TurnedAway(refused) => {
                let reason = refused.known_reason();
                self.must_renew |= reason == Reason::Renamed;
                tracing::warn!(%reason, detail = refused.detail, "the gateway refuses");
            }
        }
    }

    fn schedule_renewal(&mut self) {
        let wait = self.settings.credentials.renew_in();
        let _nothing_to_do = self.state.handle(self.began.elapsed(), Event::RenewIn(wait));
    }

    async fn dial(&mut self) -> Event {
        if let Some(given) = self.place.given.take() {
            return self.greet(Ok(given)).await;
        }
        if self.must_renew || self.settings.credentials.expired() {
            if let Err(why) = self.settings.credentials.renew_by_proof().await {
                tracing::warn!(why, "the certificate has ended and could not be renewed");
                self.report_down(why);
                return Event::Lost;
            }
            self.must_renew = false;
        }
        let role = if self.settings.data_saver {
            Role::SavingAgent
        } else {
            Role::Agent
        };
        let (ways, domain, tls) = (
            &self.settings.ways.except(self.board.taken()),
            &self.settings.domain,
            self.settings.credentials.tls(),
        );
        let mut dialled = dial_by(ways, &self.settings.gateways, domain, &tls, role).await;
        if dialled.as_ref().is_err_and(|error| error.unresolved) {
            // A name server that is broken must not strand a device.
            let known: Vec<String> = self.settings.book.known().iter().map(ToString::to_string).collect();
            if !known.is_empty() {
                dialled = dial_by(ways, &known, domain, &tls, role).await;
            }
        }
        let dialled = dialled.map_err(|error| {
            self.must_renew |= error.expired;
            error.to_string()
        });
        self.greet(dialled).await
    }

    /// Opens the control stream of a connection.
    async fn greet(&mut self, dialled: Result<Connection, String>) -> Event {
        let opened = match dialled {
            Ok(connection) => {
                self.sessions.gateway_is_at(connection.remote_address().ip());
                match timeout(WRITE_LIMIT, connection.open()).await {
                    Ok(Ok((send, recv))) => Ok(Live {
                        connection,
                        send,
                        frames: FrameReader::new(recv, MAX_CONTROL_FRAME),
                    }),
                    Ok(Err(error)) => Err(error.to_string()),
                    Err(_) => Err("the gateway takes no control stream".into()),
                }
            }
            Err(why) => Err(why),
        };
        match opened {
            Ok(live) => {
                self.in_use = InUse::default();
                self.place.progress.send_replace(Progress {
                    connection: Some(live.connection.clone()),
                    up: false,
                });
                self.live = Some(live);
                Event::Connected(self.settings.credentials.roots_sha256())
            }
            Err(why) => {
                tracing::info!(why, "no link yet");
                self.report_down(why);
                Event::Lost
            }
        }
    }

    async fn send(&mut self, frame: &Control) {
        let Some(live) = &mut self.live else { return };
        let sent = match codec::encode(frame, MAX_CONTROL_FRAME) {
            Ok(bytes) => timeout(WRITE_LIMIT, live.send.write_all(&bytes))
                .await
                .map_err(|_| "the gateway does not read".to_owned()),
            Err(error) => Err(error.to_string()),
        };
        if let Err(error) | Ok(Err(error)) = sent.map(|written| written.map_err(|error| error.to_string())) {
            // The next event is the connection's end; the state learns of it there.
            live.connection.close(Reason::Internal.code(), &error);
        }
    }

    fn lose(&mut self, why: String) -> Vec<Command> {
        if let Some(live) = self.live.take() {
            self.must_renew |= live.connection.close_reason().as_ref().is_some_and(says_expired);
            // Not yet closed when only the control stream failed.
            live.connection
                .close(Reason::Malformed.code(), "the control stream ended");
        }
        tracing::info!(why, "link down");
        self.report_down(why);
        self.state.handle(self.began.elapsed(), Event::Lost)
    }

    /// The name of the transport of the moment.
    fn transport(&self) -> &'static str {
        self.live.as_ref().map_or("none", |live| live.connection.kind().name())
    }

    fn report_down(&self, why: String) {
        self.place.progress.send_replace(Progress::default());
        // While it comes or leaves another conversation has the word.
        if *self.place.stage.borrow() == Stage::Serving {
            self.board.down(why);
        }
    }
}

/// Resolves when a conversation that leaves has no session any more, nor one on its way. Cancel safe.
async fn left(stage: &mut watch::Receiver<Stage>, in_use: &InUse) {
    if stage.wait_for(|stage| *stage == Stage::Leaving).await.is_err() {
        return std::future::pending().await;
    }
    // What the gateway had begun to open arrives within this.
    tokio::time::sleep(LAST_ONES).await;
    while in_use.others() > 0 {
        tokio::time::sleep(LOOK).await;
    }
}

/// Waits for whatever happens next. Cancel safe.
async fn next(due: Option<Instant>, live: Option<&mut Live>, settings: &mut Settings) -> Happening {
    let Settings {
        offers,
        host_keys,
        network,
        ..
    } = settings;
    let time = async {
        match due {
            Some(due) => tokio::time::sleep_until(due).await,
            None => std::future::pending().await,
        }
    };
    let offer = async {
        match offers.changed().await {
            Ok(()) => Happening::Offer(offers.borrow_and_update().clone()),
            // Nobody will read the file again.
            Err(_) => std::future::pending().await,
        }
    };
    let keys = async {
        match host_keys.changed().await {
            Ok(()) => Happening::HostKeys(host_keys.borrow_and_update().clone()),
            // This build does not read them.
            Err(_) => std::future::pending().await,
        }
    };
    let moved = async {
        match network.changed().await {
            Ok(()) => Happening::NetworkChanged,
            // Nobody watches it.
            Err(_) => std::future::pending().await,
        }
    };
    let Some(Live { connection, frames, .. }) = live else {
        return tokio::select! {
            () = time => Happening::Time,
            offer = offer => offer,
            keys = keys => keys,
            moved = moved => moved,
        };
    };
    tokio::select! {
        () = time => Happening::Time,
        offer = offer => offer,
        keys = keys => keys,
        moved = moved => moved,
        frame = frames.next() => match frame {
            Ok(Some(body)) => match codec::decode_body(&body) {
                Ok(frame) => Happening::Frame(frame),
                Err(error) => Happening::Lost(error.to_string()),
            },
            Ok(None) => Happening::Lost(ended(connection, "the gateway ended the control stream")),
            Err(error) => Happening::Lost(ended(connection, &error.to_string())),
        },
        stream = connection.accept() => match stream {
            Ok(stream) => Happening::Stream(stream),
            Err(error) => Happening::Lost(error.to_string()),
        },
    }
}

/// The TLS alert `certificate_expired` (45, RFC 8446 section 6.2).
fn says_expired(closed: &Closed) -> bool {
    matches!(closed, Closed::Refused { alert: 45, .. })
}

/// The connection's own word on its end where it has one, which says more than the stream's.
fn ended(connection: &Connection, otherwise: &str) -> String {
    connection
        .close_reason()
        .map_or_else(|| otherwise.to_owned(), |reason| reason.to_string())
}
