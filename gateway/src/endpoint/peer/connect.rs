//! One stream of `fairlead connect`: a session through the door, whose bytes follow the answer on the same stream.
//!
//! What ends it is said by number: a caller whose sending is stopped with a reason's code hears that reason, and a stream
//! that just ends has ended. Where the endpoint's protocol has words of its own, its face says them first.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use fairlead_identity::name::EndpointUrl;
use fairlead_policy::TlsFacts;
use fairlead_runtime::relay::Sink;
use fairlead_runtime::transport::{Receiver, Sender};
use fairlead_wire::call::{Body, CallAnswer, Connected};
use fairlead_wire::id::SessionId;
use fairlead_wire::refusal::{Reason, Refused};
use tokio::time::timeout;

use super::Peer;
use super::answer::write;
use crate::access::{Caller, Denial};
use crate::endpoint::led::{Led, Unopened};
use crate::endpoint::{Approach, Wanted};
use crate::session::{Carried, Session};

/// How long an answer may take to be taken.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// How long the last bytes may take to arrive.
const DELIVERY: Duration = Duration::from_secs(5);

impl Peer {
    /// Serves one stream whose caller asked for `url`, to the end of its session.
    pub(super) async fn connect(
        &self,
        caller: &Arc<Caller>,
        url: &str,
        client: SocketAddr,
        send: Sender,
        recv: Receiver,
    ) {
        let Ok(url) = url.parse::<EndpointUrl>() else {
            // What is no URL is the URL of nothing.
            let denial = self.door.turn_away(caller, url, client);
            return refuse(send, recv, denial).await;
        };
        let wanted = Wanted::Exactly(&url);
        // On the heap: what only leads to a session shall not take room in it for as long as it lives.
        let approach = Box::pin(self.door.approach(caller, wanted, TlsFacts::default(), client)).await;
        match approach {
            Err(denial) => refuse(send, recv, denial).await,
            Ok(Approach::Open(session)) => tunnel(*session, send, recv).await,
            Ok(Approach::Unspoken(session, protocol)) => {
                let led = Led {
                    door: &self.door,
                    caller,
                    wanted,
                    session,
                    protocol,
                    tls: TlsFacts::default(),
                    client,
                };
                Box::pin(read(led, send, recv)).await;
            }
        }
    }
}

async fn refuse(mut send: Sender, mut recv: Receiver, denial: Denial) {
    let answer = CallAnswer::refused(Refused::new(denial.told, &format!("session {}", denial.session)));
    // The caller may have gone, and then nobody needs the reason.
    let _gone = timeout(ANSWER_LIMIT, write(&mut send, &answer)).await;
    let _gone = send.finish().await;
    recv.stop(denial.told.code());
}

/// Whether the caller took the answer that the session is there.
async fn say_connected(send: &mut Sender, session: SessionId) -> bool {
    let session = session.as_bytes().to_vec();
    let answer = CallAnswer {
        body: Some(Body::Connected(Connected { session })),
    };
    matches!(timeout(ANSWER_LIMIT, write(send, &answer)).await, Ok(Ok(())))
}

/// A session whose bytes nobody reads.
async fn tunnel(session: Session, mut send: Sender, mut recv: Receiver) {
    if say_connected(&mut send, session.permit().session()).await {
        let carried = session.carry((&mut recv, &mut send)).await;
        part(&carried, send, recv).await;
    }
}

/// A session whose client says first, in the endpoint's own protocol, what it wants.
async fn read(led: Led<'_>, mut send: Sender, mut recv: Receiver) {
    if !say_connected(&mut send, led.session).await {
        return;
    }
    let (session, mut ends) = match Box::pin(led.open(&mut recv, &mut send)).await {
        Ok(opened) => opened,
        Err(unopened) => {
            match unopened {
                Unopened::Denied(denial) => recv.stop(denial.told.code()),
                Unopened::NoStartup => recv.stop(Reason::Malformed.code()),
                Unopened::Cancelled => {}
            }
            send.delivered(DELIVERY).await;
            return;
        }
    };
    let carried = session.carry((&mut ends.source, &mut ends.sink)).await;
    let (_, has_spoken) = ends.part(&carried).await;
    match carried.reason {
        // After last words the stream has its proper end.
        Some(_) if has_spoken => {
            recv.stop(carried.denial.told.code());
            send.delivered(DELIVERY).await;
        }
        _ => part(&carried, send, recv).await,
    }
}

/// Breaks off what did not end by itself, and waits until the end of what did has arrived: a conversation that is closed
/// because the gateway stops would take it back.
async fn part(carried: &Carried, send: Sender, mut recv: Receiver) {
    if carried.reason.is_none() {
        send.delivered(DELIVERY).await;
        return;
    }
    let told = carried.denial.told;
    recv.stop(told.code());
    send.abort(told.code());
}
