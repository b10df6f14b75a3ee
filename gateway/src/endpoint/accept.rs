//! The TCP side of the one port: slots, first bytes, then the kind that claims them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use fairlead_protocol::first_bytes::{self, FIRST_BYTES_MAX, FirstBytes};
use fairlead_runtime::lane::Pass;
use fairlead_runtime::relay;
use fairlead_runtime::stop::CancellationToken;
use fairlead_runtime::tasks::TaskGroup;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::StartHandshake;

use super::handshake::Met;
use super::{Arrival, Claim, ClientStream, Face, Handshake, KINDS, Kind, Parts, Uplinks};
use crate::admission::{Admission, Slot};

/// A client that says nothing for this long is greeted by the kind whose server speaks first.
const SILENCE: Duration = Duration::from_secs(2);
/// First bytes that arrive one by one, and the TLS handshake where there is one, must still be complete within this.
const ARRIVAL_LIMIT: Duration = Duration::from_secs(10);
/// After a failed accept (no file descriptors left), wait this long before the next.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A listening socket with the faces behind it.
pub struct Listener {
    socket: TcpListener,
    only: Option<&'static Kind>,
    behind: Arc<Behind>,
    admission: Arc<Admission>,
}

impl Listener {
    /// Puts every kind of [`KINDS`] behind `socket`.
    ///
    /// # Errors
    /// When a face cannot be made from its parts.
    pub fn new(socket: TcpListener, parts: &Parts, admission: Arc<Admission>) -> anyhow::Result<Self> {
        let mut faces = BTreeMap::new();
        for kind in KINDS {
            faces.insert(kind.name, (kind.open)(parts)?);
        }
        Ok(Self {
            socket,
            only: None,
            behind: Arc::new(Behind {
                faces,
                tls: Arc::clone(&parts.tls),
                uplinks: Arc::clone(&parts.uplinks),
            }),
            admission,
        })
    }

    /// The same faces behind another socket, where only the kind called `name` is spoken: nothing is told apart there, and
    /// who says nothing is greeted at once if the server of that kind speaks first.
    pub fn dedicated(&self, socket: TcpListener, name: &str) -> Self {
        Self {
            socket,
            only: KINDS.iter().find(|kind| kind.name == name),
            behind: Arc::clone(&self.behind),
            admission: Arc::clone(&self.admission),
        }
    }
}

/// Accepts until `stop`. Connections live on in `tasks` until their own end.
pub async fn serve(listener: Listener, tasks: TaskGroup, stop: CancellationToken) {
    let Listener {
        socket,
        only,
        behind,
        admission,
    } = listener;
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = socket.accept() => accepted,
        };
        let (stream, client) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (behind, admission) = (Arc::clone(&behind), Arc::clone(&admission));
        tasks.spawn("client", async move {
            let Some(slot) = admission.enter(client.ip()).await else {
                tracing::debug!(%client, "connection refused: too many handshakes in flight");
                return;
            };
            if let Err(error) = relay::prepare(&stream) {
                tracing::debug!(%client, %error, "cannot set socket options");
            }
            let evicted = slot.evicted();
            tokio::select! {
                () = meet(&behind, only, stream, client, slot) => {}
                () = evicted.cancelled() => tracing::debug!(%client, "a connection gave way to another address"),
            }
        });
    }
}

/// Where connections go.
struct Behind {
    faces: BTreeMap<&'static str, Arc<dyn Face>>,
    tls: Arc<Handshake>,
    uplinks: Arc<dyn Uplinks>,
}

/// Where one connection goes.
enum Arrived {
    /// To the face of this kind.
    Claimed(&'static str, Arrival),
    /// To the room of links.
    Uplink(Box<StartHandshake<ClientStream>>),
}

/// Serves one connection to its end.
async fn meet(behind: &Behind, only: Option<&'static Kind>, stream: TcpStream, client: SocketAddr, slot: Slot) {
    let pass = slot.pass();
    let Behind { faces, tls, uplinks } = behind;
    let arrival = async {
        match only {
            None => arrive(stream, tls, client, &pass).await,
            Some(kind) => arrive_at(kind, stream, tls, client, &pass).await,
        }
    };
    match timeout(ARRIVAL_LIMIT, arrival).await {
        Ok(Some(Arrived::Claimed(kind, arrival))) => {
            if let Some(face) = faces.get(kind) {
                face.serve(arrival, client, slot).await;
            }
        }
        Ok(Some(Arrived::Uplink(begun))) => uplinks.arrive(*begun, client, slot).await,
        Ok(None) => tracing::debug!(%client, "first bytes are no protocol of this port"),
        Err(_) => tracing::debug!(%client, "first bytes or TLS handshake not complete within 10 s"),
    }
}

/// The kind that claims the connection, if need be after the TLS handshake; `None` when nobody does.
async fn arrive(stream: TcpStream, tls: &Handshake, client: SocketAddr, pass: &Pass) -> Option<Arrived> {
    let (class, stream) = demultiplex(stream).await?;
    let claim = match class {
        FirstBytes::Tls => {
            return Some(match pass.run(tls.meet(stream, client)).await? {
                Met::Client(kind, met) => Arrived::Claimed(kind, Arrival::Tls(met)),
                Met::Uplink(begun) => Arrived::Uplink(begun),
            });
        }
        FirstBytes::NeedMore => Claim::Silence,
        class => Claim::FirstBytes(class),
    };
    let kind = KINDS.iter().find(|kind| kind.claims(claim))?;
    Some(Arrived::Claimed(kind.name, Arrival::Plain(stream)))
}

/// As [`arrive`] where only one kind is spoken.
async fn arrive_at(
    kind: &'static Kind,
    stream: TcpStream,
    tls: &Handshake,
    client: SocketAddr,
    pass: &Pass,
) -> Option<Arrived> {
    if kind.claims(Claim::Silence) {
        let stream = ClientStream::new(Bytes::new(), stream);
        return Some(Arrived::Claimed(kind.name, Arrival::Plain(stream)));
    }
    let (class, stream) = demultiplex(stream).await?;
    let arrival = match class {
        FirstBytes::Tls => Arrival::Tls(Box::new(pass.run(tls.meet_inside(kind.name, stream, client)).await?)),
        class if kind.claims(Claim::FirstBytes(class)) => Arrival::Plain(stream),
        _ => return None,
    };
    Some(Arrived::Claimed(kind.name, arrival))
}

/// Reads until the first bytes tell the protocol; [`FirstBytes::NeedMore`] for a client that says nothing.
async fn demultiplex(mut stream: TcpStream) -> Option<(FirstBytes, ClientStream)> {
    let mut seen = BytesMut::with_capacity(FIRST_BYTES_MAX);
    loop {
        let class = match timeout(SILENCE, read_some(&mut stream, &mut seen)).await {
            Ok(class) => class?,
            Err(_) if seen.is_empty() => return Some((FirstBytes::NeedMore, ClientStream::new(Bytes::new(), stream))),
            Err(_) => continue,
        };
        match class {
            FirstBytes::NeedMore => {}
            class => return Some((class, ClientStream::new(seen.freeze(), stream))),
        }
    }
}

/// One read; what the bytes so far are, or `None` when the client has gone.
async fn read_some(stream: &mut TcpStream, seen: &mut BytesMut) -> Option<FirstBytes> {
    let room = FIRST_BYTES_MAX.saturating_sub(seen.len());
    let read = stream.take(u64::try_from(room).ok()?).read_buf(seen).await.ok()?;
    (read > 0).then(|| first_bytes::classify(seen))
}

/// The address a listener got, where port 0 was asked for.
impl Listener {
    /// The local address.
    ///
    /// # Errors
    /// When the socket has none, which does not happen to a listening one.
    pub fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.socket.local_addr()
    }
}
