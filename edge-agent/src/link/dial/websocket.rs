//! A handshake over WebSocket: TCP, TLS with the same trust as QUIC, HTTP upgrade. A link's further connections are made
//! in the same way.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use fairlead_identity::tls;
use fairlead_runtime::quic::{IDLE, KEEP_ALIVE, Role, SAVER_IDLE, SAVER_KEEP_ALIVE};
use fairlead_runtime::transport::Connection;
use fairlead_runtime::transport::websocket::{self, Dial, Dialling, KeepAlive, Raw, WebSocket};
use fairlead_wire::upgrade::{self, ALPN_WEBSOCKET, SESSION_PATH};
use fairlead_wire::version::ALPN_LINK;
use rustls::pki_types::ServerName;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::client_async_with_config;
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::client::{Request, Response};
use tokio_tungstenite::tungstenite::http::HeaderValue;

use super::tcp::Target;
use super::{Failure, HANDSHAKE_LIMIT};

pub(super) async fn connect(
    target: Target,
    domain: &str,
    settings: &Arc<rustls::ClientConfig>,
    role: Role,
) -> Result<Connection, Failure> {
    let alpn = settings.alpn_protocols.first().cloned().unwrap_or_default();
    let mut way = Way {
        target,
        domain: domain.to_owned(),
        settings: tls::over_tcp(settings, ALPN_WEBSOCKET),
        path: upgrade::path_of(&alpn),
        header: None,
        remote: SocketAddr::from(([0, 0, 0, 0], 0)),
    };
    if alpn != ALPN_LINK {
        let (raw, remote, _) = way.meet(None).await?;
        way.remote = remote;
        return Ok(WebSocket::asking(raw, Arc::new(way)).into());
    }
    let keep_alive = keep_alive(role);
    let idle = keep_alive.idle.as_secs().to_string();
    let (raw, remote, answer) = way.meet(Some((upgrade::IDLE, &idle))).await?;
    let link = answer.headers().get(upgrade::LINK);
    let link = link.ok_or_else(|| Failure::plain(&"the gateway gives the link no name"))?;
    (way.remote, way.header, way.path) = (remote, Some(link.clone()), SESSION_PATH.to_owned());
    Ok(WebSocket::linked(raw, Arc::new(way), keep_alive).into())
}

fn keep_alive(role: Role) -> KeepAlive {
    let (idle, every) = match role {
        Role::SavingAgent => (SAVER_IDLE, SAVER_KEEP_ALIVE),
        _ => (IDLE, KEEP_ALIVE),
    };
    KeepAlive {
        idle,
        every: Some(every),
    }
}

/// All that a further connection needs.
#[derive(Clone)]
struct Way {
    target: Target,
    domain: String,
    settings: Arc<rustls::ClientConfig>,
    path: String,
    /// The link's name, where it is one.
    header: Option<HeaderValue>,
    remote: SocketAddr,
}

impl Way {
    async fn meet(&self, header: Option<(&'static str, &str)>) -> Result<(Raw, SocketAddr, Response), Failure> {
        let (tcp, remote) = self.target.connect().await?;
        let name = ServerName::try_from(self.domain.clone()).map_err(|error| Failure::plain(&error))?;
        let connector = TlsConnector::from(Arc::clone(&self.settings));
        let tls = connector.connect(name, tcp).await;
        let tls = tls.map_err(|error| Failure::of_tls(&error))?;
        let carrier: Box<dyn websocket::Carrier> = Box::new(tls);
        let met = client_async_with_config(self.request(header)?, carrier, Some(websocket::limits())).await;
        let (raw, answer) = met.map_err(|error| match error {
            // Also what the gateway thinks of our certificate: TLS 1.3 says it after the client has finished.
            Error::Io(error) => Failure::of_tls(&error),
            Error::Http(answer) => Failure::plain(&format!("the gateway answers HTTP {}", answer.status())),
            error => Failure::plain(&error),
        })?;
        Ok((raw, remote, answer))
    }

    fn request(&self, header: Option<(&'static str, &str)>) -> Result<Request, Failure> {
        let request = format!("wss://{}{}", self.domain, self.path).into_client_request();
        let mut request = request.map_err(|error| Failure::plain(&error))?;
        if let Some((name, value)) = header {
            let value = HeaderValue::from_str(value).map_err(|error| Failure::plain(&error))?;
            request.headers_mut().insert(name, value);
        }
        if let Some(link) = &self.header {
            request.headers_mut().insert(upgrade::LINK, link.clone());
        }
        Ok(request)
    }
}

impl Dial for Way {
    fn dial(&self, stream: u64) -> Dialling {
        let way = self.clone();
        Box::pin(async move {
            let number = stream.to_string();
            let header = way.header.is_some().then_some((upgrade::NUMBER, number.as_str()));
            let met = timeout(HANDSHAKE_LIMIT, way.meet(header)).await;
            match met {
                Ok(Ok((raw, _, _))) => Ok(raw),
                Ok(Err(failure)) => Err(io::Error::other(failure.text)),
                Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "no handshake in time")),
            }
        })
    }

    fn remote_address(&self) -> SocketAddr {
        self.remote
    }
}
