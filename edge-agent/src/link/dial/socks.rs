//! SOCKS5 (RFC 1928) with user and password (RFC 1929), as far as a CONNECT to a name goes. Of our own: three messages of
//! fixed shape, and a crate for it would bring a second resolver and UDP that nobody needs.

use std::net::IpAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::proxy::{MAX_CREDENTIAL, ProxyError};

const VERSION: u8 = 5;
const NO_AUTHENTICATION: u8 = 0;
const PASSWORD: u8 = 2;
const NONE_ACCEPTABLE: u8 = 0xff;

/// Asks the proxy behind `stream` for a connection to `gateway`, `host:port`. The proxy looks the name up.
pub(super) async fn ask(
    stream: &mut TcpStream,
    gateway: &str,
    credentials: Option<(&str, &str)>,
) -> Result<(), ProxyError> {
    let method = if credentials.is_some() {
        PASSWORD
    } else {
        NO_AUTHENTICATION
    };
    stream.write_all(&[VERSION, 1, method]).await?;
    let chosen: [u8; 2] = read(stream).await?;
    match (chosen, credentials) {
        ([VERSION, NO_AUTHENTICATION], _) => {}
        ([VERSION, PASSWORD], Some((user, password))) => log_in(stream, user, password).await?,
        ([VERSION, NONE_ACCEPTABLE], None) => return Err(ProxyError::AsksForPassword),
        ([VERSION, NONE_ACCEPTABLE], Some(_)) => return Err(ProxyError::WrongPassword),
        _ => return Err(ProxyError::Foreign("SOCKS5")),
    }
    let request = request(gateway).ok_or(ProxyError::Foreign("SOCKS5"))?;
    stream.write_all(&request).await?;
    let [version, answer, _, kind]: [u8; 4] = read(stream).await?;
    if version != VERSION {
        return Err(ProxyError::Foreign("SOCKS5"));
    }
    let (gateway, why) = (gateway.to_owned(), in_words(answer).to_owned());
    match answer {
        0 => skip_address(stream, kind).await,
        2 => Err(ProxyError::Refused { gateway, why }),
        _ => Err(ProxyError::GatewayUnreachable { gateway, why }),
    }
}

async fn log_in(stream: &mut TcpStream, user: &str, password: &str) -> Result<(), ProxyError> {
    let length = |text: &str| u8::try_from(text.len().min(MAX_CREDENTIAL)).unwrap_or(u8::MAX);
    let message = [
        &[1, length(user)][..],
        user.as_bytes(),
        &[length(password)],
        password.as_bytes(),
    ]
    .concat();
    stream.write_all(&message).await?;
    match read(stream).await? {
        [_, 0] => Ok(()),
        _ => Err(ProxyError::WrongPassword),
    }
}

/// CONNECT to a name, or to an address where the gateway is written as one.
fn request(gateway: &str) -> Option<Vec<u8>> {
    let (host, port) = gateway.rsplit_once(':')?;
    let host = host.trim_matches(['[', ']']);
    let port: u16 = port.parse().ok()?;
    let mut request = vec![VERSION, 1, 0];
    match host.parse() {
        Ok(IpAddr::V4(address)) => {
            request.push(1);
            request.extend(address.octets());
        }
        Ok(IpAddr::V6(address)) => {
            request.push(4);
            request.extend(address.octets());
        }
        Err(_) => {
            request.extend([3, u8::try_from(host.len()).ok()?]);
            request.extend(host.as_bytes());
        }
    }
    request.extend(port.to_be_bytes());
    Some(request)
}

/// The address that the proxy dials from; nobody needs it.
async fn skip_address(stream: &mut TcpStream, kind: u8) -> Result<(), ProxyError> {
    let length = match kind {
        1 => 4,
        4 => 16,
        3 => usize::from(stream.read_u8().await?),
        _ => return Err(ProxyError::Foreign("SOCKS5")),
    };
    let mut rest = vec![0; length.saturating_add(2)];
    stream.read_exact(&mut rest).await?;
    Ok(())
}

async fn read<const N: usize>(stream: &mut TcpStream) -> Result<[u8; N], ProxyError> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}

fn in_words(answer: u8) -> &'static str {
    match answer {
        1 => "a failure of its own",
        2 => "not allowed by its rules",
        3 => "network unreachable",
        4 => "host unreachable",
        5 => "connection refused",
        6 => "timed out",
        7 => "it does not connect for others",
        8 => "it does not take names",
        _ => "no reason given",
    }
}
