//! The proxies that a customer's network may demand for TCP: HTTP CONNECT (RFC 9110 section 9.3.6) and SOCKS5.
//!
//! A proxy carries TLS and sees none of it; one that ends TLS itself is found out by the pinned root.

use std::fmt;
use std::io;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fairlead_runtime::config_file::HostPort;
use secrecy::{ExposeSecret, SecretString};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::socks;

/// A proxy's answer is no longer, in bytes.
const MAX_ANSWER: usize = 8 * 1024;
/// Longest user name and password (RFC 1929), in bytes.
pub(super) const MAX_CREDENTIAL: usize = 255;

/// Which proxy is used for which gateway.
#[derive(Clone, Debug, Default)]
pub struct Proxies {
    proxy: Option<Proxy>,
    /// Names and suffixes that are reached without it.
    except: Vec<String>,
}

/// A proxy.
#[derive(Clone)]
pub struct Proxy {
    kind: Kind,
    /// `host:port`.
    at: String,
    user: Option<String>,
    password: Option<Arc<SecretString>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Http,
    Socks5,
}

/// Why there is no way through a proxy, in words for the person who set it up.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// The setting is no proxy's URL.
    #[error("`{0}` is no proxy: write http://[user@]host:port or socks5://[user@]host:port, the password in a file")]
    NotAProxy(String),
    /// The proxy itself cannot be reached.
    #[error("the proxy cannot be reached: {0}")]
    Unreachable(io::Error),
    /// It asks who we are.
    #[error("the proxy asks for a user and a password: set `proxy: http://USER@…` and `proxy_password_file`")]
    AsksForPassword,
    /// It does not take what it was told.
    #[error("the proxy does not take this user and password")]
    WrongPassword,
    /// It does not let us through.
    #[error("the proxy does not let this host connect to {gateway} ({why}): ask for an exception for it")]
    Refused {
        /// Where to.
        gateway: String,
        /// What it says, shortened.
        why: String,
    },
    /// It let us through to nothing.
    #[error("the proxy could not reach {gateway} ({why})")]
    GatewayUnreachable {
        /// Where to.
        gateway: String,
        /// What it says, shortened.
        why: String,
    },
    /// What answers is no such proxy.
    #[error("what answers there is no {0} proxy")]
    Foreign(&'static str),
    /// The connection ended.
    #[error("the proxy ended the connection: {0}")]
    Gone(#[from] io::Error),
}

impl Proxies {
    /// This one for every gateway.
    pub fn always(proxy: Proxy) -> Self {
        Self {
            proxy: Some(proxy),
            except: Vec::new(),
        }
    }

    /// As `HTTPS_PROXY` and `NO_PROXY` say, in either case.
    ///
    /// # Errors
    /// [`ProxyError::NotAProxy`].
    pub fn from_environment() -> Result<Self, ProxyError> {
        let read = |name: &str| {
            let set = std::env::var(name).or_else(|_| std::env::var(name.to_ascii_lowercase()));
            set.ok().filter(|value| !value.is_empty())
        };
        Self::from_words(read("HTTPS_PROXY").as_deref(), read("NO_PROXY").as_deref())
    }

    fn from_words(proxy: Option<&str>, except: Option<&str>) -> Result<Self, ProxyError> {
        let Some(proxy) = proxy else { return Ok(Self::default()) };
        let words = except.unwrap_or_default().split([',', ' ']).map(str::trim);
        let words = words.filter(|word| !word.is_empty());
        Ok(Self {
            proxy: Some(Proxy::of_environment(proxy)?),
            except: words
                .map(|word| {
                    word.trim_start_matches("*.")
                        .trim_start_matches('.')
                        .to_ascii_lowercase()
                })
                .collect(),
        })
    }

    /// The proxy for a gateway, `host:port`.
    pub fn of(&self, gateway: &str) -> Option<&Proxy> {
        let host = gateway.rsplit_once(':').map_or(gateway, |(host, _)| host);
        let host = host.trim_matches(['[', ']']).to_ascii_lowercase();
        let excepted = |word: &String| {
            word == "*" || host == *word || host.strip_suffix(word.as_str()).is_some_and(|rest| rest.ends_with('.'))
        };
        self.proxy.as_ref().filter(|_| !self.except.iter().any(excepted))
    }
}

impl Proxy {
    /// Of a URL without password, as `agent.yaml` has it.
    ///
    /// # Errors
    /// [`ProxyError::NotAProxy`], for a URL with a password too: that belongs in a file.
    pub fn parse(url: &str, password: Option<SecretString>) -> Result<Self, ProxyError> {
        let none = || ProxyError::NotAProxy(without_password(url));
        let (kind, rest) = match url.split_once("://") {
            Some(("http", rest)) => (Kind::Http, rest),
            Some(("socks5" | "socks5h", rest)) => (Kind::Socks5, rest),
            _ => return Err(none()),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (user, at) = match rest.rsplit_once('@') {
            Some((user, at)) => (Some(user), at),
            None => (None, rest),
        };
        let plain = |user: &&str| {
            !user.is_empty()
                && user.len() <= MAX_CREDENTIAL
                && !user.contains([':', '/', '%', '@'])
                && !user.chars().any(char::is_control)
        };
        if user.is_some_and(|user| !plain(&user)) || (password.is_some() && user.is_none()) {
            return Err(none());
        }
        let at = at
            .parse::<HostPort>()
            .ok()
            .filter(|at| at.port() != 0)
            .ok_or_else(none)?;
        Ok(Self {
            kind,
            at: at.to_string(),
            user: user.map(str::to_owned),
            password: password.map(Arc::new),
        })
    }

    /// As [`Self::parse`]; environments have the password in the URL, for want of a better place.
    fn of_environment(url: &str) -> Result<Self, ProxyError> {
        let with_scheme = if url.contains("://") {
            url.to_owned()
        } else {
            format!("http://{url}")
        };
        let inside = with_scheme.split_once("://").and_then(|(scheme, rest)| {
            let (who, at) = rest.rsplit_once('@')?;
            let (user, password) = who.split_once(':')?;
            Some((
                format!("{scheme}://{user}@{at}"),
                SecretString::from(password.to_owned()),
            ))
        });
        match inside {
            Some((url, password)) => Self::parse(&url, Some(password)),
            None => Self::parse(&with_scheme, None),
        }
    }

    /// A connection through it to `gateway`, `host:port`.
    ///
    /// # Errors
    /// See [`ProxyError`].
    pub(super) async fn connect(&self, gateway: &str) -> Result<TcpStream, ProxyError> {
        let mut stream = TcpStream::connect(&self.at).await.map_err(ProxyError::Unreachable)?;
        stream.set_nodelay(true)?;
        match self.kind {
            Kind::Http => self.ask_http(&mut stream, gateway).await?,
            Kind::Socks5 => socks::ask(&mut stream, gateway, self.credentials()).await?,
        }
        Ok(stream)
    }

    /// User and password, the latter empty where there is none.
    fn credentials(&self) -> Option<(&str, &str)> {
        let user = self.user.as_deref()?;
        let password = self.password.as_ref().map_or("", |password| password.expose_secret());
        Some((user, password))
    }

    async fn ask_http(&self, stream: &mut TcpStream, gateway: &str) -> Result<(), ProxyError> {
        let mut request = format!("CONNECT {gateway} HTTP/1.1\r\nHost: {gateway}\r\n");
        if let Some((user, password)) = self.credentials() {
            let word = STANDARD.encode(format!("{user}:{password}"));
            request.push_str(&format!("Proxy-Authorization: Basic {word}\r\n"));
        }
        request.push_str("\r\n");
        stream.write_all(request.as_bytes()).await?;
        let head = read_head(stream).await?;
        let (status, words) = status_of(&head).ok_or(ProxyError::Foreign("HTTP"))?;
        let (gateway, why) = (gateway.to_owned(), format!("{status} {words}").trim_end().to_owned());
        match status {
            200..=299 => Ok(()),
            // Some say 401 for a password that is wrong, as an origin would (tinyproxy 1.11).
            401 | 407 if self.user.is_some() => Err(ProxyError::WrongPassword),
            401 | 407 => Err(ProxyError::AsksForPassword),
            500..=599 => Err(ProxyError::GatewayUnreachable { gateway, why }),
            _ => Err(ProxyError::Refused { gateway, why }),
        }
    }
}

/// Up to the empty line and not a byte further: what follows is the gateway's.
async fn read_head(stream: &mut TcpStream) -> Result<Vec<u8>, ProxyError> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() >= MAX_ANSWER {
            return Err(ProxyError::Foreign("HTTP"));
        }
        head.push(stream.read_u8().await?);
    }
    Ok(head)
}

/// The status and its words, which are the proxy's: shortened, and no control characters.
fn status_of(head: &[u8]) -> Option<(u16, String)> {
    let line = head.split(|byte| *byte == b'\r').next()?;
    let line = String::from_utf8_lossy(line);
    let rest = line.strip_prefix("HTTP/1.").and_then(|rest| rest.get(1..))?;
    let mut words = rest.trim_start().splitn(2, ' ');
    let status = words.next()?.parse().ok()?;
    let said = words.next().unwrap_or_default();
    Some((status, said.chars().filter(|c| !c.is_control()).take(80).collect()))
}

fn without_password(url: &str) -> String {
    match url.rsplit_once('@') {
        Some((_, at)) => format!("…@{at}"),
        None => url.to_owned(),
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.kind {
            Kind::Http => "http",
            Kind::Socks5 => "socks5",
        };
        write!(f, "the proxy {scheme}://{}", self.at)
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests;
