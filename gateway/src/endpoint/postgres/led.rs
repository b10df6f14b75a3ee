//! A Postgres client whom another way in has identified and led to one endpoint: inside a channel of `ssh -L`, or a stream of
//! `fairlead connect`.
//!
//! That way is encrypted already, so the client is told to speak in clear (`N` to its SSLRequest). The rest is as in TLS:
//! the StartupMessage is decided on, refusals and cuts are ErrorResponses.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use fairlead_protocol::postgres::{self, DECLINE, Opening, OpeningError};
use fairlead_runtime::relay::{Sink, Source};
use fairlead_wire::refusal::Reason;
use tokio::time::timeout;

use super::hello::Wish;
pub(in crate::endpoint) use super::outgoing::Outgoing;
use super::{CUT, REFUSED, VIOLATION, hint, spoken};
use crate::endpoint::ahead::Ahead;
use crate::endpoint::led::{Led, Unopened};
use crate::session::{Carried, Session};

/// From the beginning to the StartupMessage.
const OPENING_LIMIT: Duration = Duration::from_secs(10);
/// Packets before the StartupMessage: GSSENCRequest, SSLRequest, and one for good measure.
const CLEAR_PACKETS: usize = 3;
/// How long last words may take to be taken.
const FAREWELL: Duration = Duration::from_secs(2);

/// Hears the client's StartupMessage and opens the session that it asks for.
pub(in crate::endpoint) async fn open<S: Source, K: Sink>(
    led: Led<'_>,
    source: S,
    mut sink: K,
) -> Result<(Session, Ahead<S>, Outgoing<K>), Unopened> {
    let mut source = Ahead::new(source, Bytes::new());
    let startup = match timeout(OPENING_LIMIT, wish(&mut source, &mut sink)).await {
        Ok(Ok(Ok(Wish::Session(startup)))) => startup,
        Ok(Ok(Ok(Wish::Cancel(key)))) => {
            // Nobody is told how it went.
            let _why = led.door.cancel(&key, Some(led.caller), led.client).await;
            let _gone = sink.finish().await;
            return Err(Unopened::Cancelled);
        }
        Ok(Ok(Err(error))) => {
            say(&mut sink, VIOLATION, &format!("fairlead: {error}"), "").await;
            return Err(Unopened::NoStartup);
        }
        Ok(Err(_)) | Err(_) => return Err(Unopened::NoStartup),
    };
    let entered = led.door.enter_as(
        led.session,
        led.caller,
        led.wanted,
        spoken(&startup, led.tls),
        led.client,
    );
    match entered.await {
        Ok(session) => {
            let sink = Outgoing::new(sink, session.cancel_seat(), session.permit().lapse().clone());
            Ok((session, source, sink))
        }
        Err(denial) => {
            say(&mut sink, REFUSED, &denial.to_string(), hint(denial)).await;
            Err(Unopened::Denied(denial))
        }
    }
}

/// Says why the session was cut, where something can be said; whether it could be. The sink is given back.
pub(in crate::endpoint) async fn part<K: Sink>(sink: Outgoing<K>, carried: &Carried) -> (K, bool) {
    let (mut sink, may_speak) = sink.into_inner();
    let is_cut = carried.reason.is_some_and(|reason| reason != Reason::CallerGone);
    if is_cut && may_speak {
        say(&mut sink, CUT, &carried.denial.to_string(), "").await;
    }
    (sink, may_speak)
}

/// The first message that counts; an error is the end of the stream, or what is no packet.
async fn wish<S: Source, K: Sink>(source: &mut Ahead<S>, sink: &mut K) -> io::Result<Result<Wish, OpeningError>> {
    for _ in 0..CLEAR_PACKETS {
        match source.message(postgres::read_opening).await? {
            Ok(Opening::Tls | Opening::Gss) => sink.send(Bytes::from_static(DECLINE)).await?,
            Ok(Opening::Startup(startup)) => return Ok(Ok(Wish::Session(startup))),
            Ok(Opening::Cancel(key)) => return Ok(Ok(Wish::Cancel(key))),
            Err(error) => return Ok(Err(error)),
        }
    }
    Err(io::ErrorKind::InvalidData.into())
}

async fn say<K: Sink>(sink: &mut K, sqlstate: &str, message: &str, hint: &str) {
    let words = Bytes::from(postgres::fatal(sqlstate, message, hint));
    let said = async {
        sink.send(words).await?;
        sink.finish().await
    };
    // Whoever does not listen is cut off.
    let _heard = timeout(FAREWELL, said).await;
}
