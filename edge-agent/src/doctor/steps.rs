//! The steps. Each is bounded in time, and says what it saw before what to do.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context;
use fairlead_identity::chain;
use fairlead_runtime::clock::SystemClock;
use fairlead_runtime::quic::Role;
use fairlead_runtime::transport::Kind;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::{Finding, Verdict};
use crate::config::Config;
use crate::control::{self, Answer, Question};
use crate::credentials::Held;
use crate::identity_files::IdentityFiles;
use crate::link::{self, Credentials, Ways};

/// Addresses that are tried.
const MOST: usize = 4;
/// One name.
const LOOKUP_LIMIT: Duration = Duration::from_secs(5);
/// One TCP connection, and the answer to the first words on it.
const TCP_LIMIT: Duration = Duration::from_secs(5);
/// For the size of packets to be found out after a handshake.
const MTU_SEARCH: Duration = Duration::from_secs(1);
/// Every path carries packets of this size (RFC 9000 section 14).
const SMALLEST: u16 = 1200;
/// 2020: no agent was made before.
const NOT_BEFORE: Duration = Duration::from_secs(1_577_836_800);

/// What the addresses came to.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Outcome {
    pub(super) linked: bool,
    pub(super) refused: bool,
}

impl Outcome {
    pub(super) fn add(&mut self, other: Self) {
        self.linked |= other.linked;
        self.refused |= other.refused;
    }
}

/// An agent that has an identity.
pub(super) struct Patient {
    credentials: Arc<Held>,
    gateways: Vec<String>,
    ways: Ways,
    domain: String,
    begins: SystemTime,
    ends: SystemTime,
}

/// Whether there is an identity that fits.
pub(super) fn identity(config: &Config, findings: &mut Vec<Finding>) -> Option<Patient> {
    match take_up(config) {
        Ok((patient, principal)) => {
            findings.push(Finding::good("identity", principal));
            Some(patient)
        }
        Err(error) => {
            let advice = "enrol this machine: fairlead-agent enroll --token-file FILE, with a join string from the gateway's \
                          administrator; or mend what is said above";
            findings.push(Finding::new("identity", Verdict::Bad, format!("{error:#}"), advice));
            None
        }
    }
}

fn take_up(config: &Config) -> anyhow::Result<(Patient, String)> {
    let files = IdentityFiles::look(&config.state_dir)?;
    let identity = files.load()?;
    let (begins, ends) = chain::validity(&identity.chain).context("the certificate cannot be read")?;
    let (principal, domain) = (identity.enrolled.principal.clone(), identity.enrolled.domain.clone());
    let gateways = match config.gateways.as_slice() {
        [] => identity.enrolled.gateways.clone(),
        some => some.to_vec(),
    };
    let credentials = Held::new(
        files,
        identity,
        gateways.clone(),
        config.ways.clone(),
        Arc::new(SystemClock),
    )?;
    let patient = Patient {
        credentials: Arc::new(credentials),
        gateways,
        ways: config.ways.clone(),
        domain,
        begins,
        ends,
    };
    Ok((patient, principal))
}

impl Patient {
    /// Whether the machine's clock can be right.
    pub(super) fn clock(&self) -> Finding {
        let now = SystemTime::now();
        let since_1970 = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        if since_1970 < NOT_BEFORE || now < self.begins {
            return Finding::new(
                "clock",
                Verdict::Poor,
                "this machine's clock shows a time before its own certificate",
                "the agent links all the same; set the clock (timedatectl, chrony) so that its audit shows the right time",
            );
        }
        if now > self.ends {
            return Finding::new(
                "clock",
                Verdict::Poor,
                "the certificate has ended by this machine's clock",
                "after a long absence the agent renews by itself when it links; if the clock is ahead, set it (timedatectl, \
                 chrony)",
            );
        }
        Finding::good("clock", "inside the life of the agent's certificate")
    }

    /// The addresses of the gateways, at most four.
    pub(super) async fn resolve(&self, findings: &mut Vec<Finding>) -> Vec<SocketAddr> {
        let mut addresses = Vec::new();
        for gateway in &self.gateways {
            let began = Instant::now();
            let found = timeout(LOOKUP_LIMIT, tokio::net::lookup_host(gateway.as_str())).await;
            let finding = match found {
                Ok(Ok(found)) => {
                    let found: Vec<SocketAddr> = found.collect();
                    let shown: Vec<String> = found.iter().map(|address| address.ip().to_string()).collect();
                    addresses.extend(found);
                    let seen = format!("{gateway} is {} ({} ms)", shown.join(", "), began.elapsed().as_millis());
                    Finding::good("dns", seen)
                }
                Ok(Err(error)) => Finding::new(
                    "dns",
                    Verdict::Bad,
                    format!("{gateway}: {error}"),
                    "check the name in agent.yaml and this machine's name server (/etc/resolv.conf); an IP address can stand in \
                     its place",
                ),
                Err(_) => Finding::new(
                    "dns",
                    Verdict::Bad,
                    format!("{gateway}: no answer within 5 s"),
                    "this machine's name server does not answer: check /etc/resolv.conf and that UDP and TCP port 53 pass",
                ),
            };
            findings.push(finding);
        }
        addresses.sort();
        addresses.dedup();
        addresses.truncate(MOST);
        addresses
    }

    /// A QUIC handshake with this agent's certificate, and the size of packets that pass.
    pub(super) async fn over_udp(&self, address: SocketAddr, findings: &mut Vec<Finding>) -> Outcome {
        let began = Instant::now();
        let tls = self.credentials.tls();
        let udp = self.ways.only(Kind::Quic);
        let dialled = link::dial_by(&udp, &[address.to_string()], &self.domain, &tls, Role::Agent).await;
        let connection = match dialled {
            Ok(connection) => connection,
            Err(error) if error.refused => {
                findings.push(Finding::good("udp", format!("{address} answers")));
                findings.push(Finding::new(
                    "tls",
                    Verdict::Bad,
                    error.tried,
                    why_refused(&self.domain),
                ));
                return Outcome {
                    linked: false,
                    refused: true,
                };
            }
            Err(error) => {
                findings.push(Finding::new(
                    "udp",
                    Verdict::Bad,
                    error.tried,
                    format!(
                        "no QUIC to {address}: have UDP port {} to that address let through (firewall, router, mobile network)",
                        address.port()
                    ),
                ));
                findings.push(Finding::skipped("tls", "there is no connection to ask on"));
                return Outcome::default();
            }
        };
        let took = began.elapsed().as_millis();
        findings.push(Finding::good("udp", format!("QUIC to {address} ({took} ms)")));
        findings.push(Finding::good(
            "tls",
            format!(
                "the gateway is {}, by the authority this agent enrolled with",
                self.domain
            ),
        ));
        sleep(MTU_SEARCH).await;
        findings.push(mtu(connection.packet_size()));
        connection.close(0, "fairlead-agent doctor");
        Outcome {
            linked: true,
            refused: false,
        }
    }
}

impl Patient {
    /// The way for networks that swallow UDP: WebSocket in TLS, through a proxy where one is set.
    pub(super) async fn over_websocket(&self, findings: &mut Vec<Finding>) -> Outcome {
        let (began, tls, tcp) = (Instant::now(), self.credentials.tls(), self.ways.only(Kind::WebSocket));
        for gateway in &self.gateways {
            findings.push(match self.ways.proxies.of(gateway) {
                Some(proxy) => Finding::good(
                    "proxy",
                    format!("{gateway} is reached through {proxy} where UDP does not pass"),
                ),
                None => Finding::skipped("proxy", format!("none is set for {gateway}")),
            });
        }
        match link::dial_by(&tcp, &self.gateways, &self.domain, &tls, Role::Agent).await {
            Ok(connection) => {
                let took = began.elapsed().as_millis();
                let seen = format!("WebSocket in TLS to {} ({took} ms)", connection.remote_address());
                findings.push(Finding::good("websocket", seen));
                connection.close(0, "fairlead-agent doctor");
                Outcome {
                    linked: true,
                    refused: false,
                }
            }
            Err(error) => {
                let advice = if error.refused {
                    why_refused(&self.domain)
                } else {
                    "this is what agents fall back to where UDP does not pass: have the gateway's TCP port let through, or set \
                     `proxy` in agent.yaml"
                        .to_owned()
                };
                findings.push(Finding::new("websocket", Verdict::Poor, error.tried, advice));
                Outcome {
                    linked: false,
                    refused: error.refused,
                }
            }
        }
    }
}

fn why_refused(domain: &str) -> String {
    format!(
        "whoever answers is not {domain} of this agent's authority, or does not take its certificate: `wrong-ca` and \
         `wrong-name` mean another gateway or something in between that opens TLS; `revoked` and `expired` mean that the \
         gateway's administrator must let this agent in again (fairlead token create --agent NAME --replace)"
    )
}

fn mtu(size: Option<u16>) -> Finding {
    match size {
        None => Finding::skipped("mtu", "the transport does not tell"),
        Some(size) if size > SMALLEST => Finding::good("mtu", format!("packets of {size} bytes pass")),
        Some(size) => Finding::new(
            "mtu",
            Verdict::Poor,
            format!("packets above {size} bytes do not pass"),
            "it works, more slowly; a tunnel or PPPoE on the way makes packets smaller, or drops those that are too large",
        ),
    }
}

/// Whether TCP gets through to somebody who answers as a gateway does: silence is greeted as SSH.
pub(super) async fn over_tcp(address: SocketAddr) -> Finding {
    let began = Instant::now();
    let greeted = timeout(TCP_LIMIT, async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(b"SSH-2.0-fairlead-doctor\r\n").await?;
        let mut greeting = [0_u8; 8];
        stream.read_exact(&mut greeting).await?;
        std::io::Result::Ok(greeting)
    });
    let blocked = format!(
        "have TCP port {} to {} let through (firewall, proxy); callers use it, and agents where UDP does not pass",
        address.port(),
        address.ip()
    );
    match greeted.await {
        Ok(Ok(greeting)) if &greeting == b"SSH-2.0-" => {
            let took = began.elapsed().as_millis();
            Finding::good("tcp", format!("{address} answers as a gateway ({took} ms)"))
        }
        Ok(Ok(_)) => Finding::new(
            "tcp",
            Verdict::Poor,
            format!("{address} answers, but not as a gateway"),
            "something in between answers in its place (a captive portal, a proxy), or another service has the port",
        ),
        Ok(Err(error)) => Finding::new("tcp", Verdict::Poor, format!("{address}: {error}"), blocked),
        Err(_) => Finding::new(
            "tcp",
            Verdict::Poor,
            format!("{address}: no answer within 5 s"),
            blocked,
        ),
    }
}

/// What the running agent says.
pub(super) fn running(config: &Config) -> Finding {
    match control::ask(&config.control_socket.path, &Question::Status) {
        Ok(Answer::Status(status)) if status.linked => Finding::good("agent", "the running agent is linked"),
        Ok(Answer::Status(status)) => Finding::new(
            "agent",
            Verdict::Poor,
            format!("the running agent is not linked: {}", status.last_error),
            "it tries again by itself, at the latest 8 s after the last try",
        ),
        Ok(_) => Finding::skipped("agent", "the running agent is of another release"),
        Err(error) => Finding::skipped("agent", error.to_string()),
    }
}
