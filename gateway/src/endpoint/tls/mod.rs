//! The TLS face: any protocol inside mutual TLS, led by the server name (`HOST.SITE.<domain>`, `HOST--SITE.<domain>`) to
//! the `tls://` endpoint of that host, else to its one `tcp://` endpoint, else to its `mqtt://` endpoint, for clients of
//! MQTT that do not say so by ALPN.
//!
//! TLS ends here; the bytes inside are not looked at, except by the face of MQTT. A refusal and a cut are fatal alerts, which stock clients print;
//! the audit has their session and their reason.

use std::net::SocketAddr;
use std::sync::Arc;

use fairlead_identity::name::Protocol;
use fairlead_identity::tls::Alert;
use fairlead_runtime::relay;
use fairlead_wire::refusal::Reason;

use super::handshake::{Nobody, alert_of, identify, part};
use super::led::Led;
use super::{Answer, Approach, Arrival, Callers, Claim, Door, Face, Kind, Parts, TlsClient, Wanted};
use crate::admission::Slot;

/// The demultiplexer's entry for this kind.
pub(super) const KIND: Kind = Kind {
    name: "tls",
    leads_to: &[Protocol::Tls, Protocol::Tcp, Protocol::Mqtt],
    claims: &[Claim::AnyTls],
    names_inside: false,
    is_dedicable: true,
    reads: None,
    open: TlsFace::open,
};

struct TlsFace {
    door: Arc<Door>,
    callers: Arc<dyn Callers>,
}

impl TlsFace {
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
        let Some(presented) = presented else {
            self.door.not_identified("no-certificate", Some(&name), client);
            return part(stream, Alert::CertificateRequired).await;
        };
        let caller = match identify(self.callers.as_ref(), &presented).await {
            Ok(caller) => Arc::new(caller),
            Err(Nobody { why, told }) => {
                self.door.not_identified(why, Some(&name), client);
                return Box::pin(part(stream, alert_of(told))).await;
            }
        };
        drop(slot);
        let wanted = Wanted::Speaking(&name, KIND.leads_to);
        // On the heap: what only leads to a session shall not take room in it for as long as it lives.
        let approach = Box::pin(self.door.approach(&caller, wanted, facts.clone(), client)).await;
        let session = match approach {
            Ok(Approach::Open(session)) => session,
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
                return Box::pin(led.serve(stream)).await;
            }
            Err(denial) => return Box::pin(part(stream, alert_of(denial.told))).await,
        };
        let (mut source, mut sink) = relay::split(stream);
        let carried = session.carry((&mut source, &mut sink)).await;
        match carried.reason {
            None | Some(Reason::CallerGone) => {}
            // An upstream that failed must not look like one that has finished.
            Some(_) => Box::pin(part(source.0.unsplit(sink.0), alert_of(carried.denial.told))).await,
        }
    }
}

impl Face for TlsFace {
    fn serve<'a>(&'a self, arrival: Arrival, client: SocketAddr, slot: Slot) -> Answer<'a, ()> {
        Box::pin(async move {
            if let Arrival::Tls(met) = arrival {
                self.run(*met, client, slot).await;
            }
        })
    }
}
