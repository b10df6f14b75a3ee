//! The MQTT face: mosquitto_sub, paho and every other client of 3.1.1 and 5 with a client certificate, in TLS or in a
//! WebSocket inside it.
//!
//! The certificate is the caller; the server name leads to the `mqtt://` endpoint of that host. CONNECT is decided on with
//! what it says of the client, and with its will; after it every PUBLISH and SUBSCRIBE is decided by itself, and what is
//! refused is answered here in the protocol's codes. The broker sees the rest, keep-alive included, as the client sent it.
//! Clients whom another way in has identified are led here too (`open`).

mod hello;
mod judged;
mod websocket;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fairlead_identity::name::Protocol;
use fairlead_policy::MqttFacts;
use fairlead_protocol::mqtt::answer::{self, Reason as Code};
use fairlead_protocol::mqtt::guard::{Guard, Limits};
use fairlead_runtime::relay::{Bounds, FromCaller, Sink, Source, ToCaller, between};
use fairlead_wire::refusal::Reason;
use tokio::time::timeout;

use super::handshake::{Nobody, identify};
use super::led::{Led, Unopened};
use super::{Answer, Approach, Arrival, Callers, Claim, Door, Face, Kind, Parts, TlsClient, Wanted};
use crate::access::Spoken;
use crate::admission::Slot;
use crate::session::{Carried, Session};
use hello::Heard;
pub(super) use judged::Judged;
pub(super) use websocket::{Met, meet};

/// The demultiplexer's entry for this kind.
pub(super) const KIND: Kind = Kind {
    name: "mqtt",
    leads_to: &[Protocol::Mqtt],
    claims: &[Claim::Alpn(b"mqtt")],
    names_inside: false,
    is_dedicable: true,
    reads: Some(Protocol::Mqtt),
    open: MqttFace::open,
};

/// How long the rest of a packet may take: 1 MiB over a bad line.
const UNFINISHED: Duration = Duration::from_secs(60);
/// Packets of one client in a second.
const RATE: u32 = 10_000;
/// For last words.
const FAREWELL: Duration = Duration::from_secs(2);

struct MqttFace {
    door: Arc<Door>,
    callers: Arc<dyn Callers>,
}

impl MqttFace {
    fn open(parts: &Parts) -> anyhow::Result<Arc<dyn Face>> {
        Ok(Arc::new(Self {
            door: Arc::clone(&parts.door),
            callers: Arc::clone(&parts.callers),
        }))
    }

    async fn run(&self, met: TlsClient, client: SocketAddr, slot: Slot) {
        let TlsClient {
            stream,
            server_name,
            facts,
            presented,
        } = met;
        let name = server_name.unwrap_or_default();
        let caller = match &presented {
            Some(presented) => identify(self.callers.as_ref(), presented).await,
            None => Err(Nobody {
                why: "no-certificate",
                told: Reason::Denied,
            }),
        };
        let caller = match caller {
            Ok(caller) => Arc::new(caller),
            Err(Nobody { why, told }) => {
                self.door.not_identified(why, Some(&name), client);
                let text = format!("fairlead: {told} ({why})");
                return Box::pin(hello::turn_away(stream, code_of(told), &text)).await;
            }
        };
        drop(slot);
        let wanted = Wanted::Speaking(&name, KIND.leads_to);
        // On the heap: what only leads to a session shall not take room in it for as long as it lives.
        let approach = Box::pin(self.door.approach(&caller, wanted, facts.clone(), client)).await;
        match approach {
            Ok(Approach::Unspoken(session, protocol)) => {
                let led = Led {
                    door: &self.door,
                    caller: &caller,
                    wanted,
                    session,
                    protocol,
                    tls: facts,
                    client,
                };
                Box::pin(led.serve(stream)).await;
            }
            // This kind leads to nothing that is not read.
            Ok(Approach::Open(_)) => {}
            Err(denial) => Box::pin(hello::turn_away(stream, code_of(denial.told), &denial.to_string())).await,
        }
    }
}

impl Face for MqttFace {
    fn serve<'a>(&'a self, arrival: Arrival, client: SocketAddr, slot: Slot) -> Answer<'a, ()> {
        Box::pin(async move {
            if let Arrival::Tls(met) = arrival {
                self.run(*met, client, slot).await;
            }
        })
    }
}

/// A session with the ends that its packets go through.
type Opened<S, K> = (Session, FromCaller<S, Judged>, ToCaller<K, Judged>);

/// Hears the client's CONNECT and opens the session that it asks for.
pub(super) async fn open<S: Source, K: Sink>(
    led: Led<'_>,
    mut source: S,
    mut sink: K,
) -> Result<Opened<S, K>, Unopened> {
    let Heard { hello, connect, ahead } = match hello::hear(&mut source).await {
        Ok(heard) => heard,
        Err(Some(refusal)) => {
            say(&mut sink, refusal).await;
            return Err(Unopened::NoStartup);
        }
        Err(None) => return Err(Unopened::NoStartup),
    };
    let version = hello.version;
    let spoken = Spoken {
        mqtt: Some(MqttFacts {
            client_id: hello.client_id.clone(),
            username: hello.username.clone().unwrap_or_default(),
            act: None,
        }),
        will: hello.will().map(judged::named),
        tls: led.tls,
        first_bytes: connect,
        ..Spoken::default()
    };
    let entered = led
        .door
        .enter_as(led.session, led.caller, led.wanted, spoken, led.client);
    let session = match entered.await {
        Ok(session) => session,
        Err(denial) => {
            let refusal = answer::connack(version, code_of(denial.told), &denial.to_string());
            say(&mut sink, refusal.into()).await;
            return Err(Unopened::Denied(denial));
        }
    };
    let text = format!("fairlead: {} (session {})", Reason::Denied, led.session);
    let guard = Guard::new(hello, Limits::default(), text);
    let lapse = session.permit().lapse().clone();
    let judged = Judged::new(guard, led.door.acts(session.permit()), led.door.clock(), lapse);
    let bounds = Bounds {
        unfinished: UNFINISHED,
        rate: RATE,
    };
    let (source, sink, wake) = between((source, sink), ahead, judged, bounds);
    Ok((session.woken_by(wake), source, sink))
}

/// Says why the session was cut, where its version has words for it; whether it was said.
pub(super) async fn part<K: Sink>(sink: ToCaller<K, Judged>, carried: &Carried) -> (K, bool) {
    let is_cut = carried.reason.is_some_and(|reason| reason != Reason::CallerGone);
    let (mut sink, words) = sink.part(|judged| judged.farewell(carried));
    match words.filter(|_| is_cut) {
        Some(words) => {
            say(&mut sink, words).await;
            (sink, true)
        }
        None => (sink, false),
    }
}

async fn say<K: Sink>(sink: &mut K, words: Bytes) {
    let said = async {
        sink.send(words).await?;
        sink.finish().await
    };
    // Whoever does not listen is cut off.
    let _heard = timeout(FAREWELL, said).await;
}

/// What a client is told, in its own numbers.
fn code_of(reason: Reason) -> Code {
    match reason {
        Reason::Denied
        | Reason::Revoked
        | Reason::Expired
        | Reason::PolicyChanged
        | Reason::Rule
        | Reason::NotListed => Code::NotAuthorized,
        Reason::Killed => Code::Administrative,
        Reason::GatewayStopping | Reason::AgentStopping => Code::ShuttingDown,
        Reason::Limit | Reason::SlowReader => Code::Quota,
        Reason::IdleLimit => Code::KeepAlive,
        Reason::SessionLimit => Code::ConnectTime,
        Reason::Malformed => Code::Malformed,
        _ => Code::Unavailable,
    }
}
