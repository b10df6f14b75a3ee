//! The broker's side: its messages pass as they come, its answers are read whole, and ours take their place between them.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};

use super::{Broken, End, Flow, Guard, Kind, Reason, Version, answer, header, packet_id_of};
use crate::mqtt::{Ceilings, ConnAck, SubAck};

/// Longest answer of a broker, in bytes: CONNACK and SUBACK with all their properties.
const MAX_ANSWER: usize = 64 * 1024;

/// What is on its way to the client.
#[derive(Debug)]
pub(super) struct Downstream {
    version: Version,
    /// Bytes of a message that is passing.
    passing: usize,
    /// Bytes of a packet that has not come whole.
    begun: BytesMut,
    /// Made here; sent between two packets, and not before the broker has answered CONNECT.
    replies: VecDeque<Bytes>,
    answered: bool,
    refused: bool,
}

impl Downstream {
    pub(super) fn new(version: Version) -> Self {
        Self {
            version,
            passing: 0,
            begun: BytesMut::new(),
            replies: VecDeque::new(),
            answered: false,
            refused: false,
        }
    }

    pub(super) fn waiting(&self) -> usize {
        self.replies.len()
    }

    pub(super) fn is_between_packets(&self) -> bool {
        self.passing == 0
    }

    pub(super) fn reply(&mut self, bytes: Vec<u8>) {
        self.replies.push_back(bytes.into());
    }

    /// Gives the answers that wait, if the client can take them here.
    pub(super) fn give(&mut self, flow: &mut Flow) {
        if self.answered && self.is_between_packets() {
            flow.to_client.extend(self.replies.drain(..));
        }
    }
}

impl Guard {
    /// Takes what the broker has sent.
    ///
    /// # Errors
    /// When it is no MQTT, or an answer to nothing. What `flow` holds by then is still to be sent.
    pub fn from_broker(&mut self, mut bytes: Bytes, flow: &mut Flow) -> Result<(), End> {
        // Bytes at the beginning that pass as they are, in one piece.
        let mut run = 0_usize;
        let ended = loop {
            let side = &mut self.downstream;
            let now = side.passing.min(bytes.len().saturating_sub(run));
            side.passing = side.passing.saturating_sub(now);
            run = run.saturating_add(now);
            if side.waiting() > 0 && side.is_between_packets() {
                pass(&mut bytes, &mut run, flow);
                side.give(flow);
            }
            let rest = bytes.get(run..).unwrap_or_default();
            if rest.is_empty() {
                break Ok(());
            }
            let packet = match self.next_packet(rest) {
                Ok(Next::Passes) => continue,
                Ok(Next::Begun(taken)) => {
                    pass(&mut bytes, &mut run, flow);
                    bytes.advance(taken);
                    continue;
                }
                Ok(Next::Ahead(earlier)) => {
                    pass(&mut bytes, &mut run, flow);
                    flow.to_client.push(earlier);
                    continue;
                }
                Ok(Next::Answer(packet)) => packet,
                Ok(Next::Here(length)) => bytes.slice(run..run.saturating_add(length)),
                Err(broken) => break Err(End::Broker(broken)),
            };
            let length = packet.len();
            match self.answer(&packet) {
                Err(broken) => break Err(End::Broker(broken)),
                Ok(None) if self.downstream.begun.is_empty() => run = run.saturating_add(length),
                Ok(other) => {
                    pass(&mut bytes, &mut run, flow);
                    let begun = std::mem::take(&mut self.downstream.begun).len();
                    bytes.advance(length.saturating_sub(begun));
                    flow.to_client.push(other.unwrap_or(packet));
                }
            }
        };
        pass(&mut bytes, &mut run, flow);
        self.downstream.give(flow);
        ended
    }

    /// What comes next, at the beginning of `rest` or with what was begun before.
    fn next_packet(&mut self, rest: &[u8]) -> Result<Next, Broken> {
        let side = &mut self.downstream;
        let earlier = side.begun.len();
        // A header has at most five bytes: no more is copied to read one.
        let mut head = [0_u8; 5];
        let seen = side.begun.iter().chain(rest).take(head.len());
        let count = head.iter_mut().zip(seen).map(|(to, from)| *to = *from).count();
        let Some(head) = header(head.get(..count).unwrap_or_default())? else {
            side.begun.extend_from_slice(rest);
            return Ok(Next::Begun(rest.len()));
        };
        if !side.answered && head.kind != Kind::ConnAck {
            return Err(Broken::Protocol("a packet before CONNACK"));
        }
        if !is_answer(head.kind) {
            side.passing = head.packet().saturating_sub(earlier);
            if earlier == 0 {
                return Ok(Next::Passes);
            }
            // The part of the header that came before goes ahead of the rest.
            return Ok(Next::Ahead(std::mem::take(&mut side.begun).freeze()));
        }
        if head.packet() > MAX_ANSWER {
            return Err(Broken::TooLong(head.packet()));
        }
        let missing = head.packet().saturating_sub(earlier);
        match rest.get(..missing) {
            Some(_) if earlier == 0 => Ok(Next::Here(missing)),
            Some(last) => {
                let mut whole = BytesMut::with_capacity(head.packet());
                whole.extend_from_slice(&side.begun);
                whole.extend_from_slice(last);
                Ok(Next::Answer(whole.freeze()))
            }
            None => {
                side.begun.extend_from_slice(rest);
                Ok(Next::Begun(rest.len()))
            }
        }
    }

    /// What the client gets in place of an answer; `None` where it passes as it is.
    fn answer(&mut self, packet: &Bytes) -> Result<Option<Bytes>, Broken> {
        let Some(head) = header(packet)? else { return Ok(None) };
        let body = packet.get(head.length..).unwrap_or_default();
        match head.kind {
            Kind::ConnAck if self.downstream.answered => Err(Broken::Protocol("CONNACK twice")),
            Kind::ConnAck => self.welcome(body).map(Some),
            Kind::SubAck => {
                let answer = SubAck::read(body, self.downstream.version)?;
                let Some(codes) = self.unanswered.remove(&answer.packet_id) else {
                    return Err(Broken::Protocol("a SUBACK for nothing"));
                };
                if codes.iter().all(Option::is_none) {
                    return Ok(None);
                }
                let mut theirs = answer.codes.iter();
                let merged = codes.into_iter().map(|ours| ours.or_else(|| theirs.next().copied()));
                let merged: Option<Vec<u8>> = merged.collect();
                let merged = merged.ok_or(Broken::Protocol("a SUBACK with too few codes"))?;
                Ok(Some(answer.with(&merged).into()))
            }
            kind => {
                // PUBACK and PUBCOMP end a message, and so does PUBREC with a failure.
                if let Some((id, failed)) = packet_id_of(kind, body)?
                    && (failed || matches!(kind, Kind::PubAck | Kind::PubComp))
                {
                    self.in_flight.remove(&id);
                }
                Ok(None)
            }
        }
    }

    fn welcome(&mut self, body: &[u8]) -> Result<Bytes, Broken> {
        let answer = ConnAck::read(body, self.downstream.version)?;
        let size = u32::try_from(self.limits.packet).unwrap_or(u32::MAX);
        let ceilings = Ceilings {
            topic_alias_maximum: self.limits.aliases,
            receive_maximum: self.limits.in_flight,
            maximum_packet_size: size,
        };
        self.alias_maximum = answer.topic_alias_maximum.min(self.limits.aliases);
        if answer.session_present {
            // Its subscriptions were judged by nobody here; a clean start was asked for.
            return Err(Broken::Protocol(
                "a session that was kept, where a clean start was asked for",
            ));
        }
        self.downstream.answered = true;
        self.downstream.refused = answer.reason != 0;
        Ok(answer.within(ceilings).into())
    }

    /// The last packet to the client, where one can be said: before CONNACK a CONNACK, afterwards a DISCONNECT (version 5).
    #[must_use]
    pub fn farewell(&self, reason: Reason, text: &str) -> Option<Vec<u8>> {
        let side = &self.downstream;
        match (side.answered, side.is_between_packets() && !side.refused) {
            (false, _) => Some(answer::connack(side.version, reason, text)),
            (true, true) => answer::disconnect(side.version, reason, text),
            (true, false) => None,
        }
    }
}

/// What a broker's bytes begin with.
enum Next {
    /// A packet that passes; how long it is stands in [`Downstream::passing`].
    Passes,
    /// So many bytes of a packet that has not come whole, which were kept.
    Begun(usize),
    /// The part of a passing packet's header that came before.
    Ahead(Bytes),
    /// An answer, put together from what was begun before.
    Answer(Bytes),
    /// An answer of so many bytes.
    Here(usize),
}

fn pass(bytes: &mut Bytes, run: &mut usize, flow: &mut Flow) {
    if *run > 0 {
        flow.to_client.push(bytes.split_to(*run));
        *run = 0;
    }
}

/// Whether a packet is read whole.
fn is_answer(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::ConnAck | Kind::SubAck | Kind::PubAck | Kind::PubRec | Kind::PubComp
    )
}
