//! Clients whom another way in has identified and led to an endpoint that a face reads: inside a channel of `ssh -L`, a
//! stream of `fairlead connect`, or TLS that names no protocol.
//!
//! The face of the endpoint's protocol hears what the client says first, opens the session, and wraps the ends. They stay
//! their owner's, who carries the session in between.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fairlead_identity::name::Protocol;
use fairlead_policy::TlsFacts;
use fairlead_runtime::relay::{self, Batch, FromCaller, Sink, Source, ToCaller};
use fairlead_wire::id::SessionId;
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;

use super::ahead::Ahead;
use super::mqtt::{self, Judged, Met};
use super::postgres::led as postgres;
use super::rdp::led as rdp;
use super::{ClientStream, Door, Wanted};
use crate::access::{Caller, Denial};
use crate::session::{Carried, Session};

/// How long a client that is being parted with may take to hear it.
const FAREWELL: Duration = Duration::from_secs(2);
/// Bytes that it may still send meanwhile.
const FAREWELL_BYTES: usize = 64 * 1024;

/// Whom another way in has led here.
pub(super) struct Led<'a> {
    pub(super) door: &'a Door,
    pub(super) caller: &'a Arc<Caller>,
    pub(super) wanted: Wanted<'a>,
    /// As [`Door::approach`] gave them.
    pub(super) session: SessionId,
    pub(super) protocol: Protocol,
    /// The TLS that the caller speaks; empty for one who speaks none.
    pub(super) tls: TlsFacts,
    pub(super) client: SocketAddr,
}

/// Why there is no session; whatever could be said to the client was said.
pub(super) enum Unopened {
    /// The door says no.
    Denied(Denial),
    /// The client has gone, or has not spoken the protocol.
    NoStartup,
    /// It wanted an end of what another session does, and was heard.
    Cancelled,
}

/// The client's ends, to be carried by their owner.
pub(super) struct Ends<S, K> {
    pub(super) source: LedSource<S>,
    pub(super) sink: LedSink<K>,
}

/// What the client says, as the face lets it on.
pub(super) enum LedSource<S> {
    /// Only its first message is read.
    Ahead(Ahead<S>),
    Mqtt(Box<FromCaller<S, Judged>>),
}

/// What the client gets.
pub(super) enum LedSink<K> {
    Postgres(Box<postgres::Outgoing<K>>),
    Mqtt(ToCaller<K, Judged>),
    /// What passes is not read.
    Unread(K),
}

impl Led<'_> {
    /// Hears what the client says first and opens the session that it asks for.
    pub(super) async fn open<S: Source, K: Sink>(self, source: S, sink: K) -> Result<(Session, Ends<S, K>), Unopened> {
        match self.protocol {
            Protocol::Mqtt => {
                let (session, source, sink) = mqtt::open(self, source, sink).await?;
                let source = LedSource::Mqtt(Box::new(source));
                let sink = LedSink::Mqtt(sink);
                Ok((session, Ends { source, sink }))
            }
            Protocol::Rdp => {
                let (session, source, sink) = rdp::open(self, source, sink).await?;
                let source = LedSource::Ahead(source);
                let sink = LedSink::Unread(sink);
                Ok((session, Ends { source, sink }))
            }
            _ => {
                let (session, source, sink) = postgres::open(self, source, sink).await?;
                let source = LedSource::Ahead(source);
                let sink = LedSink::Postgres(Box::new(sink));
                Ok((session, Ends { source, sink }))
            }
        }
    }

    /// Serves a client inside TLS to the end of its session.
    pub(super) async fn serve(self, stream: TlsStream<ClientStream>) {
        // On the heap: what only leads to a session shall not take room in it for as long as it lives.
        match Box::pin(mqtt::meet(stream)).await {
            Some(Met::Plain(stream)) => {
                let (source, sink) = relay::split(stream);
                self.run(source, sink).await;
            }
            Some(Met::WebSocket(source, sink)) => self.run(source, sink).await,
            None => {}
        }
    }

    async fn run<S: Source, K: Sink>(self, mut source: S, mut sink: K) {
        // On the heap: what only leads to a session shall not take room in it for as long as it lives.
        if let Ok((session, mut ends)) = Box::pin(self.open(&mut source, &mut sink)).await {
            let carried = session.carry((&mut ends.source, &mut ends.sink)).await;
            ends.part(&carried).await;
        }
        // Closing while the client still sends would overtake the last words with a reset.
        let parted = async {
            sink.finish().await.ok()?;
            let mut heard = 0_usize;
            while heard < FAREWELL_BYTES {
                heard = heard.saturating_add(source.chunk().await.ok()??.len());
            }
            Some(())
        };
        let _heard = timeout(FAREWELL, parted).await;
    }
}

impl<S, K: Sink> Ends<S, K> {
    /// Says why the session was cut, where something can be said; whether it was. The sink is given back.
    pub(super) async fn part(self, carried: &Carried) -> (K, bool) {
        match self.sink {
            LedSink::Postgres(sink) => postgres::part(*sink, carried).await,
            LedSink::Mqtt(sink) => mqtt::part(sink, carried).await,
            LedSink::Unread(sink) => (sink, false),
        }
    }
}

impl<S: Source> Source for LedSource<S> {
    async fn chunk(&mut self) -> io::Result<Option<Bytes>> {
        match self {
            Self::Ahead(source) => source.chunk().await,
            Self::Mqtt(source) => source.chunk().await,
        }
    }

    async fn fill(&mut self, batch: &mut Batch) -> io::Result<bool> {
        match self {
            Self::Ahead(source) => source.fill(batch).await,
            Self::Mqtt(source) => source.fill(batch).await,
        }
    }
}

impl<K: Sink> Sink for LedSink<K> {
    async fn send(&mut self, bytes: Bytes) -> io::Result<()> {
        match self {
            Self::Postgres(sink) => sink.send(bytes).await,
            Self::Mqtt(sink) => sink.send(bytes).await,
            Self::Unread(sink) => sink.send(bytes).await,
        }
    }

    async fn send_batch(&mut self, batch: &mut Batch) -> io::Result<()> {
        match self {
            Self::Postgres(sink) => sink.send_batch(batch).await,
            Self::Mqtt(sink) => sink.send_batch(batch).await,
            Self::Unread(sink) => sink.send_batch(batch).await,
        }
    }

    async fn finish(&mut self) -> io::Result<()> {
        match self {
            Self::Postgres(sink) => sink.finish().await,
            Self::Mqtt(sink) => sink.finish().await,
            Self::Unread(sink) => sink.finish().await,
        }
    }
}
