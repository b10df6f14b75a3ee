//! A name server that says what a test wants said, lies and silence among it: over UDP and TCP, RFC 1035 as far as the
//! system's resolver needs it. Names that it was told nothing about do not exist.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fairlead_runtime::stop::CancellationToken;
use fairlead_runtime::tasks::TaskGroup;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};
use tokio_util::sync::DropGuard;

const A: u16 = 1;
const CNAME: u16 = 5;
const AAAA: u16 = 28;

/// What is said about a name.
#[derive(Clone, Debug)]
pub enum Says {
    /// These addresses, each in the answer to its own question.
    These(Vec<IpAddr>),
    /// The first of these at the first question, then the next; the last for ever.
    InTurn(Vec<Vec<IpAddr>>),
    /// Another name, and another, through these to the addresses.
    Through(Vec<String>, Vec<IpAddr>),
    /// These addresses after a wait.
    Late(Duration, Vec<IpAddr>),
    /// Nothing, for ever.
    Silence,
    /// Bytes that are no answer.
    Garbage,
    /// The answer to another question than the one that was asked, then the right one.
    Forged(Vec<IpAddr>, Vec<IpAddr>),
    /// This error code, such as 2 for SERVFAIL.
    Error(u8),
}

/// The running server.
pub struct NameServer {
    asked: Arc<Mutex<BTreeMap<String, usize>>>,
    _end: DropGuard,
}

struct Script {
    names: BTreeMap<String, Says>,
    asked: Arc<Mutex<BTreeMap<String, usize>>>,
}

/// What is sent for one question.
enum Reply {
    Nothing,
    Now(Vec<Vec<u8>>),
    After(Duration, Vec<u8>),
}

impl NameServer {
    /// Serves these names at `address` until dropped.
    pub async fn start(address: SocketAddr, names: BTreeMap<String, Says>) -> Self {
        let asked = Arc::new(Mutex::new(BTreeMap::new()));
        let script = Arc::new(Script {
            names,
            asked: Arc::clone(&asked),
        });
        let end = CancellationToken::new();
        let tasks = TaskGroup::new("name-server", &end);
        let udp = Arc::new(UdpSocket::bind(address).await.expect("the port of name servers"));
        let tcp = TcpListener::bind(address).await.expect("the port of name servers");
        let (group, book) = (tasks.clone(), Arc::clone(&script));
        tasks.spawn("udp", async move {
            let token = group.token().clone();
            let mut bytes = [0; 1500];
            while let Some(Ok((length, from))) = token.run_until_cancelled(udp.recv_from(&mut bytes)).await {
                let (udp, reply) = (Arc::clone(&udp), book.reply(&bytes[..length], 512));
                group.spawn("answer", async move {
                    for answer in waited(reply).await {
                        drop(udp.send_to(&answer, from).await);
                    }
                });
            }
        });
        let group = tasks.clone();
        tasks.spawn("tcp", async move {
            let token = group.token().clone();
            while let Some(Ok((mut stream, _))) = token.run_until_cancelled(tcp.accept()).await {
                let book = Arc::clone(&script);
                group.spawn("stream", async move {
                    while let Ok(length) = stream.read_u16().await {
                        let mut question = vec![0; usize::from(length)];
                        if stream.read_exact(&mut question).await.is_err() {
                            return;
                        }
                        for answer in waited(book.reply(&question, usize::from(u16::MAX))).await {
                            drop(stream.write_u16(u16::try_from(answer.len()).expect("a message")).await);
                            drop(stream.write_all(&answer).await);
                        }
                    }
                });
            }
        });
        Self {
            asked,
            _end: end.drop_guard(),
        }
    }

    /// How often the IPv4 addresses of a name were asked for over UDP.
    pub fn asked(&self, name: &str) -> usize {
        self.asked.lock().unwrap().get(name).copied().unwrap_or(0)
    }
}

async fn waited(reply: Reply) -> Vec<Vec<u8>> {
    match reply {
        Reply::Nothing => Vec::new(),
        Reply::Now(answers) => answers,
        Reply::After(wait, answer) => {
            tokio::time::sleep(wait).await;
            vec![answer]
        }
    }
}

impl Script {
    fn reply(&self, question: &[u8], most: usize) -> Reply {
        let Some((name, kind)) = read_question(question) else {
            return Reply::Nothing;
        };
        let turn = if kind == A && most == 512 {
            let mut asked = self.asked.lock().unwrap();
            let count = asked.entry(name.clone()).or_default();
            *count += 1;
            *count - 1
        } else {
            self.asked.lock().unwrap().get(&name).copied().unwrap_or(1).max(1) - 1
        };
        let plain = |addresses: &[IpAddr]| answer(question, kind, &[], addresses, most);
        match self.names.get(&name) {
            None => Reply::Now(vec![error(question, 3)]),
            Some(Says::These(addresses)) => Reply::Now(vec![plain(addresses)]),
            Some(Says::InTurn(turns)) => Reply::Now(vec![plain(&turns[turn.min(turns.len() - 1)])]),
            Some(Says::Through(names, addresses)) => Reply::Now(vec![answer(question, kind, names, addresses, most)]),
            Some(Says::Late(wait, addresses)) => Reply::After(*wait, plain(addresses)),
            Some(Says::Silence) => Reply::Nothing,
            Some(Says::Garbage) => Reply::Now(vec![vec![0xff; 40]]),
            Some(Says::Forged(wrong, right)) => {
                let mut forged = plain(wrong);
                // Another number than that of the question.
                forged[0] ^= 0xff;
                Reply::Now(vec![forged, plain(right)])
            }
            Some(Says::Error(code)) => Reply::Now(vec![error(question, *code)]),
        }
    }
}

fn read_question(bytes: &[u8]) -> Option<(String, u16)> {
    let mut labels = Vec::new();
    let mut at = 12;
    loop {
        let length = usize::from(*bytes.get(at)?);
        if length == 0 {
            break;
        }
        labels.push(String::from_utf8_lossy(bytes.get(at + 1..at + 1 + length)?).to_lowercase());
        at += 1 + length;
    }
    let kind = u16::from_be_bytes([*bytes.get(at + 1)?, *bytes.get(at + 2)?]);
    Some((labels.join("."), kind))
}

/// Header and question, echoed; without additional records.
fn opening(question: &[u8], flags: [u8; 2], answers: u16) -> Vec<u8> {
    let mut end = 12;
    while question[end] != 0 {
        end += 1 + usize::from(question[end]);
    }
    let mut bytes = question[..2].to_vec();
    bytes.extend(flags);
    bytes.extend([0, 1]);
    bytes.extend(answers.to_be_bytes());
    bytes.extend([0; 4]);
    bytes.extend(&question[12..end + 5]);
    bytes
}

fn error(question: &[u8], code: u8) -> Vec<u8> {
    opening(question, [0x84, 0x80 | code], 0)
}

fn answer(question: &[u8], kind: u16, through: &[String], addresses: &[IpAddr], most: usize) -> Vec<u8> {
    let data = |address: &IpAddr| match (address, kind) {
        (IpAddr::V4(v4), A) => Some(v4.octets().to_vec()),
        (IpAddr::V6(v6), AAAA) => Some(v6.octets().to_vec()),
        _ => None,
    };
    let found: Vec<Vec<u8>> = addresses.iter().filter_map(data).collect();
    let count = u16::try_from(through.len() + found.len()).expect("a count");
    let mut bytes = opening(question, [0x84, 0x80], count);
    // The name of the question stands at byte 12.
    let mut owner = vec![0xc0, 12];
    for name in through {
        let encoded = encoded(name);
        record(&mut bytes, &owner, CNAME, &encoded);
        owner = encoded;
    }
    for data in &found {
        record(&mut bytes, &owner, kind, data);
    }
    if bytes.len() > most {
        // Truncated: the resolver asks again over TCP.
        return opening(question, [0x86, 0x80], 0);
    }
    bytes
}

fn record(bytes: &mut Vec<u8>, owner: &[u8], kind: u16, data: &[u8]) {
    bytes.extend(owner);
    bytes.extend(kind.to_be_bytes());
    // Class IN, kept for no time at all.
    bytes.extend([0, 1, 0, 0, 0, 0]);
    bytes.extend(u16::try_from(data.len()).expect("a length").to_be_bytes());
    bytes.extend(data);
}

fn encoded(name: &str) -> Vec<u8> {
    let labels = name.split('.').flat_map(|label| {
        let length = u8::try_from(label.len()).expect("a label");
        [&[length], label.as_bytes()].concat()
    });
    labels.chain([0]).collect()
}

/// IPv4 addresses as a name server tells them.
pub fn v4(text: &str) -> IpAddr {
    IpAddr::V4(
        text.parse::<Ipv4Addr>()
            .unwrap_or_else(|_| panic!("{text} is an IPv4 address")),
    )
}

/// IPv6 addresses as a name server tells them.
pub fn v6(text: &str) -> IpAddr {
    IpAddr::V6(
        text.parse::<Ipv6Addr>()
            .unwrap_or_else(|_| panic!("{text} is an IPv6 address")),
    )
}
