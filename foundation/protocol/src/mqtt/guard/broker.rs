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
        while bytes.has_remaining() {
            let side = &mut self.downstream;
            if side.passing > 0 {
                let now = side.passing.min(bytes.len());
                side.passing = side.passing.saturating_sub(now);
                flow.to_client.push(bytes.split_to(now));
                side.give(flow);
                continue;
            }
            // Few bytes: a packet is put together here only up to its header, or to its end where it is an answer.
            let begun = side.begun.len();
            let piece = bytes.len().min(MAX_ANSWER.saturating_sub(begun).max(1));
            side.begun.extend_from_slice(bytes.get(..piece).unwrap_or_default());
            let Some(head) = header(&side.begun).map_err(End::Broker)? else {
                bytes.advance(piece);
                continue;
            };
            if !is_answer(head.kind) {
                if !side.answered {
                    return Err(End::Broker(Broken::Protocol("a packet before CONNACK")));
                }
                // Its bytes pass as they are: those begun before, and those that are here.
                let earlier = side.begun.split_to(begun).freeze();
                side.begun.clear();
                side.passing = head.packet().saturating_sub(earlier.len());
                flow.to_client.extend((!earlier.is_empty()).then_some(earlier));
                continue;
            }
            if head.packet() > MAX_ANSWER {
                return Err(End::Broker(Broken::TooLong(head.packet())));
            }
            if side.begun.len() < head.packet() {
                bytes.advance(piece);
                continue;
            }
            bytes.advance(head.packet().saturating_sub(begun));
            let packet = side.begun.split_to(head.packet()).freeze();
            side.begun.clear();
            let given = self.answer(head.kind, packet, head.length).map_err(End::Broker)?;
            flow.to_client.push(given);
            self.downstream.give(flow);
        }
        Ok(())
    }

    fn answer(&mut self, kind: Kind, packet: Bytes, head: usize) -> Result<Bytes, Broken> {
        let body = packet.get(head..).unwrap_or_default();
        let answered = self.downstream.answered;
        match kind {
            Kind::ConnAck if answered => Err(Broken::Protocol("CONNACK twice")),
            Kind::ConnAck => self.welcome(body),
            _ if !answered => Err(Broken::Protocol("a packet before CONNACK")),
            Kind::SubAck => {
                let answer = SubAck::read(body, self.downstream.version)?;
                let Some(codes) = self.unanswered.remove(&answer.packet_id) else {
                    return Err(Broken::Protocol("a SUBACK for nothing"));
                };
                if codes.iter().all(Option::is_none) {
                    return Ok(packet);
                }
                let mut theirs = answer.codes.iter();
                let merged = codes.into_iter().map(|ours| ours.or_else(|| theirs.next().copied()));
                let merged: Option<Vec<u8>> = merged.collect();
                let merged = merged.ok_or(Broken::Protocol("a SUBACK with too few codes"))?;
                Ok(answer.with(&merged).into())
            }
            kind => {
                // PUBACK and PUBCOMP end a message, and so does PUBREC with a failure.
                if let Some((id, failed)) = packet_id_of(kind, body)?
                    && (failed || matches!(kind, Kind::PubAck | Kind::PubComp))
                {
                    self.in_flight.remove(&id);
                }
                Ok(packet)
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

/// Whether a packet is read whole.
fn is_answer(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::ConnAck | Kind::SubAck | Kind::PubAck | Kind::PubRec | Kind::PubComp
    )
}
