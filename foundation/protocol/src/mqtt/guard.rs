//! Between one client and its broker: every packet is read, every act is judged, and what is refused is answered here.
//!
//! Without IO: bytes and the judge are arguments, bytes to either side are results. Whoever carries them calls
//! [`Guard::from_client`] and [`Guard::from_broker`] with what has come, and sends what these give in the order given.
//! Bounds: one packet of the client at a time ([`Limits::packet`]), and of a broker's packets only answers (64 KiB);
//! messages of the broker pass as they come. Tables are bounded by [`Limits`].

mod broker;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use bytes::{Bytes, BytesMut};

use super::answer::{self, Reason};
use super::broker::packet_id_of;
use super::frame::{Header, Kind, header};
use super::publish::Publish;
use super::subscribe::{Subscribe, Unsubscribe};
use super::{Broken, Connect, Login, QoS, Version};
use broker::Downstream;

/// What one connection may take up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a client's packet, its header included.
    pub packet: usize,
    /// Messages of the client that the broker has not acknowledged.
    pub in_flight: u16,
    /// Topic aliases of the client.
    pub aliases: u16,
    /// SUBSCRIBEs that the broker has not answered.
    pub unanswered: usize,
    /// Filters that a client holds at a time.
    pub filters: usize,
    /// Answers made here that wait for the broker's packet to end.
    pub replies: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            packet: 1 << 20,
            in_flight: 1024,
            aliases: 64,
            unanswered: 64,
            filters: 512,
            replies: 256,
        }
    }
}

/// Something that a client does, as policy reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act<'a> {
    /// A message, or a will, to a topic.
    Publish {
        /// The topic, written out.
        topic: &'a str,
        /// How surely.
        qos: QoS,
        /// Whether the broker keeps it.
        retain: bool,
    },
    /// Messages of every topic that a filter matches.
    Subscribe {
        /// The filter as sent.
        filter: &'a str,
        /// The most that messages are delivered with.
        qos: QoS,
    },
}

/// Says whether an act is allowed.
pub trait Judge {
    /// Whether it is.
    fn allows(&mut self, act: Act<'_>) -> bool;
}

impl<F: FnMut(Act<'_>) -> bool> Judge for F {
    fn allows(&mut self, act: Act<'_>) -> bool {
        self(act)
    }
}

/// What a client said of itself; kept for its connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The protocol's version.
    pub version: Version,
    /// Its name; empty where the broker shall choose one.
    pub client_id: String,
    /// The user name that it sent.
    pub username: Option<String>,
    /// Seconds after which its silence is death; 0 for never.
    pub keep_alive: u16,
    /// Whether it takes reasons in words.
    pub takes_words: bool,
    /// Whether it wants an authentication in which nobody here takes part.
    pub authentication: bool,
    will: Option<(String, QoS, bool)>,
}

/// Why a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum End {
    /// The client's packet is none, or must not come.
    #[error(transparent)]
    Client(#[from] Broken),
    /// The client did what it may not and its version has no other answer (3.1.1), or it went beyond a limit.
    #[error("{0}")]
    Limit(&'static str, Reason),
    /// The broker's bytes are no MQTT.
    #[error("the broker: {0}")]
    Broker(Broken),
}

impl End {
    /// The reason as a client is told it.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Client(Broken::Malformed(_)) => Reason::Malformed,
            Self::Client(Broken::Protocol(_)) => Reason::Protocol,
            Self::Client(Broken::Version(_)) => Reason::Version,
            Self::Client(Broken::TooLong(_)) => Reason::PacketTooLarge,
            Self::Limit(_, reason) => *reason,
            Self::Broker(_) => Reason::Unavailable,
        }
    }
}

/// What is to be sent.
#[derive(Debug, Default)]
pub struct Flow {
    /// To the broker, in this order.
    pub to_broker: Vec<Bytes>,
    /// To the client, in this order, ahead of everything that comes later.
    pub to_client: Vec<Bytes>,
    /// Whether the client has said that it goes.
    pub leaves: bool,
    /// Acts that were refused.
    pub refused: u32,
    /// Packets of the client that were read.
    pub packets: u32,
    /// Whether the client holds other filters than before.
    pub regranted: bool,
}

/// One connection between its CONNECT and its end.
#[derive(Debug)]
pub struct Guard {
    limits: Limits,
    hello: Hello,
    /// What refusals say to people, where the version carries text.
    text: String,
    aliases: BTreeMap<u16, Alias>,
    alias_maximum: u16,
    in_flight: BTreeSet<u16>,
    /// For each SUBSCRIBE on its way, the code of each filter that was refused here.
    unanswered: BTreeMap<u16, Vec<Option<u8>>>,
    granted: BTreeMap<String, QoS>,
    downstream: Downstream,
    leaves: bool,
}

/// What an alias stands for.
#[derive(Debug)]
struct Alias {
    topic: String,
    /// The broker has heard of it; it has not where the message that brought it was refused.
    known: bool,
}

/// Reads a client's CONNECT out of what it has sent so far: what it said and how many bytes that took, or `None` where
/// bytes are missing.
///
/// # Errors
/// When no further byte can make it one, or it is longer than `limits.packet`.
pub fn read_hello(bytes: &[u8], limits: &Limits) -> Result<Option<(Hello, usize)>, Broken> {
    let Some((header, body)) = whole(bytes, limits.packet)? else {
        return Ok(None);
    };
    if header.kind != Kind::Connect {
        return Err(Broken::Protocol("a packet before CONNECT"));
    }
    let connect = Connect::read(body)?;
    let hello = Hello {
        version: connect.version,
        client_id: connect.client_id.to_owned(),
        username: connect.login.username.map(str::to_owned),
        keep_alive: connect.keep_alive,
        takes_words: connect.takes_words,
        authentication: connect.authentication,
        will: connect.will.map(|will| (will.topic.to_owned(), will.qos, will.retain)),
    };
    Ok(Some((hello, header.packet())))
}

/// One whole packet at the beginning of `bytes`. A header that says too much is refused before its body is waited for.
fn whole(bytes: &[u8], most: usize) -> Result<Option<(Header, &[u8])>, Broken> {
    let Some(header) = header(bytes)? else {
        return Ok(None);
    };
    if header.packet() > most {
        return Err(Broken::TooLong(header.packet()));
    }
    Ok(bytes.get(header.length..header.packet()).map(|body| (header, body)))
}

/// A client's whole CONNECT as it goes on: with a clean start (see [`Connect::to_bytes`]), and with another login where
/// there is one.
///
/// # Errors
/// When it is none.
pub fn connect_on(packet: &[u8], login: Option<Login<'_>>) -> Result<Vec<u8>, Broken> {
    let Some((_, body)) = whole(packet, usize::MAX)? else {
        return Err(Broken::Malformed("a part of a CONNECT"));
    };
    let connect = Connect::read(body)?;
    Ok(connect.to_bytes(login.unwrap_or(connect.login)))
}

/// The version that the beginning of a CONNECT speaks, as far as it can be seen: a refusal of what cannot be read is to be
/// read all the same.
#[must_use]
pub fn version_of(bytes: &[u8]) -> Version {
    let name = b"\x00\x04MQTT";
    let level = bytes.iter().take(16).enumerate().find_map(|(at, _)| {
        let rest = bytes.get(at..)?.strip_prefix(name)?;
        rest.first().copied()
    });
    if level.is_some_and(|level| level >= 5) {
        Version::V5
    } else {
        Version::V4
    }
}

impl Hello {
    /// The message that the broker shall publish in the client's name, as the act it is.
    #[must_use]
    pub fn will(&self) -> Option<Act<'_>> {
        let (topic, qos, retain) = self.will.as_ref()?;
        Some(Act::Publish {
            topic,
            qos: *qos,
            retain: *retain,
        })
    }
}

impl Guard {
    /// A guard for the connection that began with `hello`; `text` is what refusals say to people.
    #[must_use]
    pub fn new(hello: Hello, limits: Limits, text: String) -> Self {
        Self {
            downstream: Downstream::new(hello.version),
            text: if hello.takes_words { text } else { String::new() },
            limits,
            hello,
            aliases: BTreeMap::new(),
            alias_maximum: 0,
            in_flight: BTreeSet::new(),
            unanswered: BTreeMap::new(),
            granted: BTreeMap::new(),
            leaves: false,
        }
    }

    /// What the client said of itself.
    #[must_use]
    pub fn hello(&self) -> &Hello {
        &self.hello
    }

    /// The filters that are granted, for a judge that has changed its mind.
    pub fn granted(&self) -> impl Iterator<Item = Act<'_>> {
        self.granted
            .iter()
            .map(|(filter, qos)| Act::Subscribe { filter, qos: *qos })
    }

    /// Whether the client may be read: not while answers pile up behind a packet of the broker.
    #[must_use]
    pub fn takes_more(&self) -> bool {
        self.downstream.waiting() < self.limits.replies
    }

    /// Whether something can be said to the client: its last packet from the broker has ended.
    #[must_use]
    pub fn is_between_packets(&self) -> bool {
        self.downstream.is_between_packets()
    }

    /// Takes the client's whole packets out of `bytes`, as long as answers do not pile up; what is left is the beginning
    /// of another.
    ///
    /// # Errors
    /// Why the connection ends. What `flow` holds by then is still to be sent.
    pub fn from_client(&mut self, bytes: &mut BytesMut, judge: &mut impl Judge, flow: &mut Flow) -> Result<(), End> {
        // Packets that pass untouched and follow each other travel as one piece.
        let mut untouched = 0_usize;
        let ended = loop {
            if !self.takes_more() || self.leaves {
                break Ok(());
            }
            let rest = bytes.get(untouched..).unwrap_or_default();
            let packet = match whole(rest, self.limits.packet) {
                Ok(Some((header, body))) => self
                    .packet(header, body, judge, flow)
                    .map(|fate| (fate, header.packet())),
                Ok(None) => break Ok(()),
                Err(broken) => Err(broken.into()),
            };
            flow.packets = flow.packets.saturating_add(1);
            match packet {
                Ok((Fate::Passes, length)) => untouched = untouched.saturating_add(length),
                Ok((Fate::Instead(other), length)) => {
                    pass(bytes, &mut untouched, flow);
                    drop(bytes.split_to(length));
                    flow.to_broker.extend(other);
                }
                Err(end) => break Err(end),
            }
        };
        pass(bytes, &mut untouched, flow);
        self.downstream.give(flow);
        flow.leaves |= self.leaves;
        ended
    }

    fn packet(&mut self, header: Header, body: &[u8], judge: &mut impl Judge, flow: &mut Flow) -> Result<Fate, End> {
        match header.kind {
            Kind::Publish => self.publish(header, body, judge, flow),
            Kind::Subscribe => self.subscribe(body, judge, flow),
            Kind::Unsubscribe => {
                let filters = Unsubscribe::read(body, self.hello.version)?.filters;
                for filter in filters {
                    flow.regranted |= self.granted.remove(filter).is_some();
                }
                Ok(Fate::Passes)
            }
            kind @ (Kind::PubAck | Kind::PubRec | Kind::PubRel | Kind::PubComp) => {
                packet_id_of(kind, body)?;
                Ok(Fate::Passes)
            }
            Kind::PingReq if body.is_empty() => Ok(Fate::Passes),
            Kind::PingReq => Err(Broken::Malformed("a PINGREQ with a body").into()),
            Kind::Disconnect => {
                self.leaves = true;
                Ok(Fate::Passes)
            }
            Kind::Connect => Err(Broken::Protocol("CONNECT twice").into()),
            Kind::Auth => Err(Broken::Protocol("AUTH without an authentication method").into()),
            Kind::ConnAck | Kind::SubAck | Kind::UnsubAck | Kind::PingResp => {
                Err(Broken::Protocol("a packet that only servers send").into())
            }
        }
    }

    fn publish(&mut self, header: Header, body: &[u8], judge: &mut impl Judge, flow: &mut Flow) -> Result<Fate, End> {
        let message = Publish::read(header, body, self.hello.version)?;
        let (topic, known) = self.resolve(&message)?;
        let (qos, retain) = (message.qos, message.retain);
        let allowed = judge.allows(Act::Publish {
            topic: &topic,
            qos,
            retain,
        });
        if let (Some(alias), false) = (message.alias, message.topic.is_empty()) {
            let topic = topic.clone();
            self.aliases.insert(alias, Alias { topic, known: allowed });
        }
        if allowed {
            if let Some(id) = message.packet_id {
                self.in_flight.insert(id);
                if self.in_flight.len() > usize::from(self.limits.in_flight) {
                    let what = "more messages in flight than this endpoint takes";
                    return Err(End::Limit(what, Reason::ReceiveMaximum));
                }
            }
            return Ok(if known {
                Fate::Passes
            } else {
                Fate::Instead(Some(message.to_bytes(&topic).into()))
            });
        }
        flow.refused = flow.refused.saturating_add(1);
        match (message.packet_id, self.hello.version) {
            // Nothing can be said about a message that nobody acknowledges.
            (None, _) => {}
            (Some(id), Version::V5) => {
                self.downstream
                    .reply(answer::unpublished(qos == QoS::ExactlyOnce, id, &self.text));
            }
            // Section 3.3.5 of 3.1.1 leaves a lie or the end.
            (Some(_), Version::V4) => {
                return Err(End::Limit(
                    "a message to a topic that is not allowed",
                    Reason::NotAuthorized,
                ));
            }
        }
        Ok(Fate::Instead(None))
    }

    /// The topic that a message is for, and whether the broker finds it out by itself.
    fn resolve(&self, message: &Publish<'_>) -> Result<(String, bool), End> {
        match message.alias {
            None => Ok((message.topic.to_owned(), true)),
            Some(alias) if alias > self.alias_maximum => {
                Err(End::Limit("a topic alias beyond the maximum", Reason::TopicAlias))
            }
            Some(_) if !message.topic.is_empty() => Ok((message.topic.to_owned(), true)),
            Some(alias) => match self.aliases.get(&alias) {
                Some(Alias { topic, known }) => Ok((topic.clone(), *known)),
                None => Err(Broken::Protocol("a topic alias that stands for nothing").into()),
            },
        }
    }

    fn subscribe(&mut self, body: &[u8], judge: &mut impl Judge, flow: &mut Flow) -> Result<Fate, End> {
        let version = self.hello.version;
        let asked = Subscribe::read(body, version)?;
        if self.unanswered.contains_key(&asked.packet_id) {
            return Err(Broken::Protocol("the number of a SUBSCRIBE that is not answered yet").into());
        }
        if self.unanswered.len() >= self.limits.unanswered {
            return Err(End::Limit(
                "too many subscriptions that are not answered yet",
                Reason::ReceiveMaximum,
            ));
        }
        let mut codes = Vec::with_capacity(asked.filters.len());
        for filter in &asked.filters {
            let room = self.granted.len() < self.limits.filters || self.granted.contains_key(filter.text);
            let allowed = judge.allows(Act::Subscribe {
                filter: filter.text,
                qos: filter.qos,
            });
            codes.push(match (allowed, room) {
                (true, true) => {
                    self.granted.insert(filter.text.to_owned(), filter.qos);
                    flow.regranted = true;
                    None
                }
                (true, false) if version == Version::V5 => Some(Reason::Quota.code()),
                _ => Some(answer::refused_filter(version)),
            });
        }
        let refused = codes.iter().filter(|code| code.is_some()).count();
        flow.refused = flow.refused.saturating_add(u32::try_from(refused).unwrap_or(u32::MAX));
        let (id, whole) = (asked.packet_id, refused == 0);
        let Some(left) = asked.only(|place| codes.get(place).is_some_and(Option::is_none)) else {
            let codes: Vec<u8> = codes.into_iter().flatten().collect();
            self.downstream.reply(answer::suback(version, id, &codes, &self.text));
            return Ok(Fate::Instead(None));
        };
        self.unanswered.insert(id, codes);
        Ok(if whole {
            Fate::Passes
        } else {
            Fate::Instead(Some(left.into()))
        })
    }
}

/// What becomes of a client's packet.
enum Fate {
    Passes,
    Instead(Option<Bytes>),
}

fn pass(bytes: &mut BytesMut, untouched: &mut usize, flow: &mut Flow) {
    if *untouched > 0 {
        flow.to_broker.push(bytes.split_to(*untouched).freeze());
        *untouched = 0;
    }
}
