//! One channel: through the door, then bytes; or a refusal in the client's own words.
//!
//! SSH can refuse a channel with a text, but russh's reply carries only a code. Where the channel is all that the
//! connection is for, the connection is ended with the text, which OpenSSH prints; with other channels alive, they are
//! worth more than the words, and the audit has them.

use std::sync::Arc;
use std::time::Duration;

use fairlead_policy::TlsFacts;
use fairlead_runtime::relay::{Sink, Source};
use fairlead_wire::refusal::Reason;
use russh::server::{ChannelOpenHandle, Handle, Msg};
use russh::{Channel, ChannelOpenFailure, Disconnect};
use tokio::time::timeout;

use super::Shared;
use super::bridge::{ChannelSink, ChannelSource};
use super::connection::{Carrier, ChannelPlace, Connection};
use crate::access::{Caller, Denial};
use crate::endpoint::led::Led;
use crate::endpoint::{Approach, Wanted};
use crate::session::{Carried, Session};

/// How long a disconnect message may take to leave.
const FAREWELL: Duration = Duration::from_secs(2);
/// How often a channel is looked at for holding up its siblings.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// After the client has closed its channel, bytes on their way to the agent have this long to arrive.
const FLUSH: Duration = Duration::from_secs(1);

/// A `direct-tcpip` request.
pub(super) struct Forward {
    pub(super) channel: Channel<Msg>,
    pub(super) host: String,
    pub(super) port: u16,
    /// Whether the connection is there for this channel only (`ssh -W`, `ssh -J`).
    pub(super) only_purpose: bool,
    pub(super) reply: ChannelOpenHandle,
    pub(super) place: ChannelPlace,
    pub(super) handle: Handle,
    /// As they stood at their login.
    pub(super) caller: Arc<Caller>,
}

impl Forward {
    pub(super) async fn run(self, shared: &Shared, connection: &Arc<Connection>) {
        let Self {
            channel,
            host,
            port,
            only_purpose,
            reply,
            place,
            handle,
            caller,
        } = self;
        // Not given up when the connection ends meanwhile: whatever was permitted gets its end in the audit.
        let wanted = Wanted::Port(&host, port);
        // On the heap: what only leads to a session shall not take room in it for as long as it lives.
        let approached = shared
            .door
            .approach(&caller, wanted, TlsFacts::default(), connection.client);
        let approached = Box::pin(approached).await;
        let approach = match approached {
            Ok(approach) => approach,
            Err(denial) => {
                if denial.told == Reason::Revoked {
                    part(denial, &handle, connection).await;
                    return hold(reply, connection).await;
                }
                // Where nothing else has gone through this connection, its words are worth more than its life.
                let say_it = only_purpose || (denial.told == Reason::Denied && !connection.has_served());
                return refuse(denial, say_it, reply, &handle, connection).await;
            }
        };
        let id = channel.id();
        let taken = connection.carry(id);
        let (unused, write) = channel.split();
        // Its queue is not used (see the bridge); dropped, it takes nothing and holds up nobody.
        drop(unused);
        reply.accept().await;
        connection.note_served();
        let source = ChannelSource {
            intake: Arc::clone(&taken.carrier.intake),
        };
        let sink = ChannelSink { write };
        let carried = match approach {
            Approach::Open(session) => carry(*session, &taken.carrier, (source, sink), connection).await,
            Approach::Unspoken(session, protocol) => {
                let led = Led {
                    door: &shared.door,
                    caller: &caller,
                    wanted,
                    session,
                    protocol,
                    tls: TlsFacts::default(),
                    client: connection.client,
                };
                let read = Box::pin(read(led, &taken.carrier, (source, sink), connection));
                let Some(carried) = read.await else {
                    let _not_closed = timeout(FAREWELL, taken.carrier.closed.cancelled()).await;
                    let _gone = timeout(FAREWELL, handle.close(id)).await;
                    return drop(place);
                };
                carried
            }
        };
        match carried.reason {
            // Whoever is shut out has lost every channel of the connection; an agent that is, only its own.
            Some(Reason::Revoked) if shared.door.present(&caller).await.is_none() => {
                part(carried.denial, &handle, connection).await;
            }
            Some(reason) if only_purpose && reason != Reason::CallerGone && connection.has_one_channel() => {
                part(carried.denial, &handle, connection).await;
            }
            reason => {
                if reason.is_none() && !only_purpose {
                    // russh forgets a channel only when the client's close comes first. OpenSSH sends it at once for a
                    // forward; `ssh -W` waits for ours, and its connection ends with the channel.
                    let _not_closed = timeout(FAREWELL, taken.carrier.closed.cancelled()).await;
                }
                let _gone = timeout(FAREWELL, handle.close(id)).await;
            }
        }
        drop(place);
    }
}

/// As [`carry`], for an endpoint whose face reads what the client says; `None` where that led to no session.
async fn read(
    led: Led<'_>,
    client: &Carrier,
    (source, sink): (ChannelSource, ChannelSink),
    connection: &Connection,
) -> Option<Carried> {
    let (session, mut ends) = Box::pin(led.open(source, sink)).await.ok()?;
    let carried = carry(session, client, (&mut ends.source, &mut ends.sink), connection).await;
    ends.part(&carried).await;
    Some(carried)
}

/// Carries the session, and ends it when the client has gone or a stalled channel holds up its siblings.
async fn carry<S: Source, K: Sink>(
    session: Session,
    client: &Carrier,
    ends: (S, K),
    connection: &Connection,
) -> Carried {
    let lapse = session.permit().lapse().clone();
    let carry = session.carry(ends);
    tokio::pin!(carry);
    let left = async {
        tokio::select! {
            () = client.closed.cancelled() => {}
            () = connection.ended.cancelled() => {}
        }
    };
    tokio::select! {
        carried = &mut carry => carried,
        () = holds_up_siblings(client, connection) => {
            lapse.cancel(Reason::SlowReader);
            carry.await
        }
        () = left => {
            // A connection that just ends, as that of `ssh -J` does after every session, has said no end of its channels.
            client.intake.finish();
            match timeout(FLUSH, &mut carry).await {
                Ok(carried) => carried,
                Err(_) => {
                    lapse.cancel(Reason::CallerGone);
                    carry.await
                }
            }
        }
    }
}

/// Resolves when the far side has not read for 30 s while the connection has other channels, whose windows are held back
/// meanwhile.
async fn holds_up_siblings(client: &Carrier, connection: &Connection) {
    while !client.intake.is_stuck() || connection.has_one_channel() {
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// A channel that leads to no endpoint.
pub(super) struct TurnedAway {
    pub(super) asked: &'static str,
    pub(super) reply: ChannelOpenHandle,
    pub(super) place: ChannelPlace,
    pub(super) handle: Handle,
    pub(super) caller: Arc<Caller>,
}

impl TurnedAway {
    pub(super) async fn run(self, shared: &Shared, connection: &Arc<Connection>) {
        let denial = shared.door.turn_away(&self.caller, self.asked, connection.client);
        if connection.has_one_channel() {
            let text = format!(
                "{denial}: this gateway has no shell, sftp or socket of its own; to reach a device: ssh -J {caller}@{domain} USER@HOST.SITE.internal",
                caller = self.caller.name,
                domain = shared.domain,
            );
            say(text, &self.handle, connection).await;
            hold(self.reply, connection).await;
        } else {
            self.reply.reject(ChannelOpenFailure::AdministrativelyProhibited).await;
        }
        drop(self.place);
    }
}

async fn refuse(denial: Denial, say_it: bool, reply: ChannelOpenHandle, handle: &Handle, connection: &Arc<Connection>) {
    if say_it && connection.has_one_channel() {
        part(denial, handle, connection).await;
        hold(reply, connection).await;
        return;
    }
    let code = match denial.told {
        Reason::Denied => ChannelOpenFailure::AdministrativelyProhibited,
        Reason::Limit => ChannelOpenFailure::ResourceShortage,
        _ => ChannelOpenFailure::ConnectFailed,
    };
    reply.reject(code).await;
}

/// Ends the connection with the denial's words.
async fn part(denial: Denial, handle: &Handle, connection: &Connection) {
    say(denial.to_string(), handle, connection).await;
}

/// Disconnects with a text. A client that does not leave is cut off.
async fn say(text: String, handle: &Handle, connection: &Connection) {
    let _gone = timeout(
        FAREWELL,
        handle.disconnect(Disconnect::ByApplication, text, String::new()),
    )
    .await;
    if timeout(FAREWELL, connection.ended.cancelled()).await.is_err() {
        connection.cut.cancel();
    }
}

/// Keeps an unanswered request until the connection is over: dropping it would answer it before the disconnect does.
async fn hold(reply: ChannelOpenHandle, connection: &Connection) {
    let _ended = timeout(FAREWELL, connection.ended.cancelled()).await;
    drop(reply);
}
