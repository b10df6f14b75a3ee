//! Messages of one WebSocket as this transport means them, and the heartbeat of a link's first one.

use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Sink, Stream};
use tokio::time::{Instant, Sleep};
use tokio_tungstenite::tungstenite::error::{CapacityError, Error, ProtocolError};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use super::close_code::{self, Meaning};
use super::{KeepAlive, Raw};

/// Pings answered in [`PING_SPAN`]; a peer that sends more is closed.
const PINGS: u32 = 64;
const PING_SPAN: Duration = Duration::from_secs(10);
/// Bytes of a reason in words, as a close frame has room for them (RFC 6455 section 5.5: 125 with the code).
const MAX_TEXT: usize = 120;

/// What came.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// Bytes of the stream; none: the direction has ended.
    Data(Bytes),
    /// An order.
    Text(Utf8Bytes),
    /// The stream is broken off.
    Abandoned(u32),
    /// The connection ends, with the peer's words.
    Closed(u32, String),
    /// The connection is gone.
    Lost(String),
}

#[derive(Debug)]
pub(super) struct Framing {
    raw: Raw,
    heartbeat: Option<Box<Heartbeat>>,
    pings: u32,
    pings_since: Instant,
}

#[derive(Debug)]
struct Heartbeat {
    keep_alive: KeepAlive,
    heard: Instant,
    spoke: Instant,
    asked: Option<Instant>,
    rtt: Option<Duration>,
    sleep: Pin<Box<Sleep>>,
}

impl Framing {
    pub(super) fn new(raw: Raw, keep_alive: Option<KeepAlive>) -> Self {
        let now = Instant::now();
        let heartbeat = keep_alive.map(|keep_alive| {
            Box::new(Heartbeat {
                keep_alive,
                heard: now,
                spoke: now,
                asked: None,
                rtt: None,
                sleep: Box::pin(tokio::time::sleep(Duration::ZERO)),
            })
        });
        Self {
            raw,
            heartbeat,
            pings: 0,
            pings_since: now,
        }
    }

    pub(super) fn rtt(&self) -> Option<Duration> {
        self.heartbeat.as_ref().and_then(|heartbeat| heartbeat.rtt)
    }

    pub(super) fn export(&self, output: &mut [u8], label: &[u8]) -> bool {
        self.raw.get_ref().export(output, label)
    }

    /// What comes next; pings are answered on the way. Cancel safe.
    pub(super) fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Seen> {
        loop {
            let came = match Pin::new(&mut self.raw).poll_next(context) {
                Poll::Ready(came) => came,
                Poll::Pending => return self.poll_heartbeat(context),
            };
            if let Some(heartbeat) = &mut self.heartbeat {
                heartbeat.heard = Instant::now();
            }
            let message = match came {
                Some(Ok(message)) => message,
                Some(Err(error)) => return Poll::Ready(self.broken(&error)),
                None => return Poll::Ready(Seen::Lost("the connection was closed".into())),
            };
            return Poll::Ready(match message {
                Message::Binary(bytes) => Seen::Data(bytes),
                Message::Text(text) => Seen::Text(text),
                Message::Close(frame) => seen_close(frame),
                Message::Ping(_) => {
                    if self.may_ping() {
                        continue;
                    }
                    self.close(u16::from(CloseCode::Policy), "too many pings");
                    Seen::Lost("the peer sends pings without end".into())
                }
                Message::Pong(_) => {
                    if let Some(heartbeat) = &mut self.heartbeat {
                        heartbeat.rtt = heartbeat.asked.take().map(|at| at.elapsed()).or(heartbeat.rtt);
                    }
                    continue;
                }
                Message::Frame(_) => continue,
            });
        }
    }

    fn may_ping(&mut self) -> bool {
        if self.pings_since.elapsed() > PING_SPAN {
            (self.pings, self.pings_since) = (0, Instant::now());
        }
        self.pings = self.pings.saturating_add(1);
        self.pings <= PINGS
    }

    /// The peer's framing is broken, or the line: says so to it as RFC 6455 section 7.4.1 has it.
    fn broken(&mut self, error: &Error) -> Seen {
        match error {
            Error::Capacity(CapacityError::MessageTooLong { .. }) => self.raw_close(CloseCode::Size, ""),
            Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => {
                return Seen::Lost("the connection was closed without a word".into());
            }
            Error::Protocol(_) | Error::Utf8(_) => self.raw_close(CloseCode::Protocol, ""),
            _ => {}
        }
        Seen::Lost(error.to_string())
    }

    /// Speaks when it is time, and notices silence.
    fn poll_heartbeat(&mut self, context: &mut Context<'_>) -> Poll<Seen> {
        loop {
            let Some(heartbeat) = &mut self.heartbeat else {
                return Poll::Pending;
            };
            let now = Instant::now();
            let lost_at = heartbeat.heard + heartbeat.keep_alive.idle;
            if now >= lost_at {
                return Poll::Ready(Seen::Lost("timed out".into()));
            }
            let mut next = lost_at;
            if let Some(every) = heartbeat.keep_alive.every {
                if now >= heartbeat.spoke + every {
                    heartbeat.spoke = now;
                    heartbeat.asked.get_or_insert(now);
                    self.send(Message::Ping(Bytes::new()));
                    continue;
                }
                next = next.min(heartbeat.spoke + every);
            }
            if heartbeat.sleep.deadline() != next {
                heartbeat.sleep.as_mut().reset(next);
            }
            ready!(heartbeat.sleep.as_mut().poll(context));
        }
    }

    /// # Errors
    /// In words, when the connection is gone.
    pub(super) fn binary(&mut self, bytes: Bytes) -> Result<(), String> {
        Pin::new(&mut self.raw)
            .start_send(Message::Binary(bytes))
            .map_err(|error| error.to_string())
    }

    /// # Errors
    /// In words, when the connection is gone.
    pub(super) fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<Result<(), String>> {
        Pin::new(&mut self.raw)
            .poll_flush(context)
            .map_err(|error| error.to_string())
    }

    pub(super) fn text(&mut self, text: &str) {
        self.send(Message::Text(text.into()));
    }

    pub(super) fn abandon(&mut self, code: u32) {
        self.close(close_code::of(Meaning::Abandoned(code)), "");
    }

    pub(super) fn close_all(&mut self, code: u32, text: &str) {
        self.close(close_code::of(Meaning::Closed(code)), text);
    }

    /// The peer sent what it may not.
    pub(super) fn breach(&mut self) {
        self.close(u16::from(CloseCode::Unsupported), "");
    }

    fn close(&mut self, code: u16, text: &str) {
        self.raw_close(CloseCode::from(code), text);
    }

    fn raw_close(&mut self, code: CloseCode, text: &str) {
        let frame = CloseFrame {
            code,
            reason: cut_to(text, MAX_TEXT).into(),
        };
        self.send(Message::Close(Some(frame)));
    }

    /// Sends as far as it goes without waiting; the rest goes with what is sent next.
    fn send(&mut self, message: Message) {
        let mut raw = Pin::new(&mut self.raw);
        if raw.as_mut().start_send(message).is_ok() {
            let _left = raw.poll_flush(&mut Context::from_waker(Waker::noop()));
        }
    }
}

fn seen_close(frame: Option<CloseFrame>) -> Seen {
    let Some(frame) = frame else {
        return Seen::Lost("the peer closed the WebSocket".into());
    };
    match close_code::meaning(u16::from(frame.code)) {
        Meaning::Abandoned(code) => Seen::Abandoned(code),
        Meaning::Closed(code) => Seen::Closed(code, frame.reason.to_string()),
        Meaning::Foreign(code) => Seen::Lost(format!("the peer closed the WebSocket (code {code}) {}", frame.reason)),
    }
}

/// At most `max` bytes of `text`, whole characters.
fn cut_to(text: &str, max: usize) -> &str {
    let end = (0..=max.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    end.and_then(|end| text.get(..end)).unwrap_or_default()
}
