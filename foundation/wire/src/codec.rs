//! Frames: a 4-byte big-endian length, then that many bytes of one protobuf message.
//!
//! The length is judged before a byte is reserved for the body, and an empty frame is refused: no message of this
//! protocol has an empty encoding, and a flood of them would cost the receiver more than the sender. After any error
//! the position in the stream is lost; the only sound answer is to end the stream.
//!
//! Memory: decoding allocates only what the body carries. The worst case is a list of empty sub-messages, two bytes each
//! on the wire, which stays under 32 times the body's length (2 MiB at [`MAX_CONTROL_FRAME`]) until `check()` refuses it.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::Message;

use crate::refusal::Reason;

/// Longest body, in bytes, on streams of an authenticated peer.
pub const MAX_CONTROL_FRAME: usize = 64 * 1024;

/// Longest body, in bytes, that is read from a peer before it has proved who it is.
pub const MAX_PREAUTH_FRAME: usize = 16 * 1024;

/// Bytes of the length prefix.
pub const PREFIX_BYTES: usize = 4;

/// Encodes `message` as one frame of at most `max` body bytes.
///
/// # Errors
/// [`FrameError::TooLong`] above `max`, [`FrameError::Empty`] for a message in which no field is set.
pub fn encode<M: Message>(message: &M, max: usize) -> Result<Bytes, FrameError> {
    let length = message.encoded_len();
    let prefix = bounded(length, max)?;
    let mut frame = BytesMut::with_capacity(PREFIX_BYTES + length);
    frame.put_u32(prefix);
    frame.extend_from_slice(&message.encode_to_vec());
    Ok(frame.freeze())
}

/// Decodes the body of one frame. Unknown fields are skipped; text must be UTF-8.
///
/// The caller has bounded the body with [`body_length`]; the fields are still to be bounded with the message's `check()`.
///
/// # Errors
/// [`FrameError::Empty`] or [`FrameError::Malformed`].
pub fn decode_body<M: Message + Default>(body: &[u8]) -> Result<M, FrameError> {
    if body.is_empty() {
        return Err(FrameError::Empty);
    }
    M::decode(body).map_err(FrameError::Malformed)
}

/// Takes the first frame out of `buffer`, or returns `None` and leaves `buffer` alone while the frame is incomplete.
///
/// Reserves nothing: whoever fills `buffer` decides how much to read, at most `max` plus [`PREFIX_BYTES`].
///
/// # Errors
/// As [`body_length`] and [`decode_body`]. A length that is refused is refused with the prefix alone.
pub fn decode<M: Message + Default>(buffer: &mut BytesMut, max: usize) -> Result<Option<M>, FrameError> {
    let Some(&prefix) = buffer.first_chunk::<PREFIX_BYTES>() else {
        return Ok(None);
    };
    let length = body_length(prefix, max)?;
    if buffer.len() - PREFIX_BYTES < length {
        return Ok(None);
    }
    buffer.advance(PREFIX_BYTES);
    decode_body(&buffer.split_to(length)).map(Some)
}

/// Reads the length prefix: the body's length in bytes, from 1 to `max`.
///
/// # Errors
/// [`FrameError::Empty`] for 0, [`FrameError::TooLong`] above `max`.
pub fn body_length(prefix: [u8; PREFIX_BYTES], max: usize) -> Result<usize, FrameError> {
    let announced = u32::from_be_bytes(prefix);
    // A length that does not fit usize (16-bit targets) is above every `max`.
    let length = usize::try_from(announced).unwrap_or(usize::MAX);
    bounded(length, max).map(|_| length)
}

/// A frame that cannot be sent, or that the peer should not have sent.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum FrameError {
    /// A frame without a body.
    #[error("an empty frame; every message has at least one field")]
    Empty,
    /// The body is, or says it is, longer than its place allows.
    #[error("a frame of {length} bytes where at most {max} are allowed")]
    TooLong {
        /// Bytes announced by the peer, or needed by the message to send.
        length: usize,
        /// The limit in bytes.
        max: usize,
    },
    /// The body is not the protobuf encoding of the expected message.
    #[error("a frame that is not the expected message")]
    Malformed(#[source] prost::DecodeError),
}

impl FrameError {
    /// The refusal that the peer is told when its frame causes this error.
    #[must_use]
    pub fn reason(&self) -> Reason {
        Reason::Malformed
    }
}

fn bounded(length: usize, max: usize) -> Result<u32, FrameError> {
    match u32::try_from(length) {
        Ok(0) => Err(FrameError::Empty),
        Ok(prefix) if length <= max => Ok(prefix),
        _ => Err(FrameError::TooLong { length, max }),
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error;

    use super::*;
    use crate::control::{Body, Control, HostCertificate, Ping};

    fn ping(nonce: u64) -> Control {
        Control::from(Body::Ping(Ping { nonce }))
    }

    #[test]
    fn frames_come_out_in_the_order_they_went_in() {
        let mut buffer = BytesMut::new();
        for nonce in 1..=3 {
            buffer.extend_from_slice(&encode(&ping(nonce), MAX_CONTROL_FRAME).unwrap());
        }
        for nonce in 1..=3 {
            assert_eq!(decode(&mut buffer, MAX_CONTROL_FRAME), Ok(Some(ping(nonce))));
        }
        assert_eq!(decode::<Control>(&mut buffer, MAX_CONTROL_FRAME), Ok(None));
        assert!(buffer.is_empty());
    }

    #[test]
    fn a_frame_that_arrives_byte_by_byte_is_whole_only_at_the_end() {
        let frame = encode(&ping(u64::MAX), MAX_CONTROL_FRAME).unwrap();
        let mut buffer = BytesMut::new();
        for (at, byte) in frame.iter().enumerate() {
            buffer.put_u8(*byte);
            let expected = (at + 1 == frame.len()).then(|| ping(u64::MAX));
            assert_eq!(decode(&mut buffer, MAX_CONTROL_FRAME), Ok(expected), "after byte {at}");
        }
    }

    #[test]
    fn a_length_above_the_limit_is_refused_with_the_prefix_alone_and_reserves_nothing() {
        for (announced, max) in [
            (u32::MAX, MAX_CONTROL_FRAME),
            (1 << 31, MAX_CONTROL_FRAME),
            (64 * 1024 + 1, MAX_CONTROL_FRAME),
            (16 * 1024 + 1, MAX_PREAUTH_FRAME),
        ] {
            let mut buffer = BytesMut::from(announced.to_be_bytes().as_slice());
            let capacity = buffer.capacity();
            let expected = FrameError::TooLong {
                length: announced as usize,
                max,
            };
            assert_eq!(decode::<Control>(&mut buffer, max), Err(expected));
            assert_eq!((buffer.len(), buffer.capacity()), (4, capacity));
        }
    }

    #[test]
    fn a_length_at_the_limit_is_accepted() {
        assert_eq!(body_length(0x0001_0000_u32.to_be_bytes(), MAX_CONTROL_FRAME), Ok(65536));
        assert_eq!(body_length(1_u32.to_be_bytes(), 1), Ok(1));
        let with_text = |length| {
            Control::from(Body::HostCertificate(HostCertificate {
                certificate: "x".repeat(length),
                valid_seconds: 0,
            }))
        };
        // Two field headers of one byte and two lengths of three bytes stand around the text.
        let largest = encode(&with_text(MAX_CONTROL_FRAME - 8), MAX_CONTROL_FRAME).unwrap();
        assert_eq!(largest.len(), MAX_CONTROL_FRAME + PREFIX_BYTES);
        assert!(
            decode::<Control>(&mut BytesMut::from(largest), MAX_CONTROL_FRAME)
                .unwrap()
                .is_some()
        );
        let over = encode(&with_text(MAX_CONTROL_FRAME - 7), MAX_CONTROL_FRAME);
        assert_eq!(
            over,
            Err(FrameError::TooLong {
                length: MAX_CONTROL_FRAME + 1,
                max: MAX_CONTROL_FRAME
            })
        );
    }

    #[test]
    fn empty_frames_are_refused_both_ways() {
        assert_eq!(
            decode::<Control>(&mut BytesMut::from([0; 4].as_slice()), MAX_CONTROL_FRAME),
            Err(FrameError::Empty)
        );
        assert_eq!(decode_body::<Control>(&[]), Err(FrameError::Empty));
        assert_eq!(encode(&Control::default(), MAX_CONTROL_FRAME), Err(FrameError::Empty));
    }

    #[test]
    fn bytes_that_are_no_message_keep_their_cause() {
        let error = decode_body::<Control>(&[0xff; 3]).unwrap_err();
        assert!(matches!(error, FrameError::Malformed(_)));
        assert!(error.source().is_some());
        assert_eq!(error.reason(), Reason::Malformed);
    }

    #[test]
    fn unknown_fields_are_skipped() {
        let mut body = encode(&ping(7), MAX_CONTROL_FRAME)
            .unwrap()
            .slice(PREFIX_BYTES..)
            .to_vec();
        // Field 1000, length-delimited, three bytes.
        body.extend_from_slice(&[0xc2, 0x3e, 3, b'n', b'e', b'w']);
        assert_eq!(decode_body(&body), Ok(ping(7)));
    }

    #[test]
    fn text_that_is_not_utf8_is_refused() {
        // Body 8 (HostKeyRequest) with a public_key of one byte 0xff.
        assert!(matches!(
            decode_body::<Control>(&[0x42, 3, 0x0a, 1, 0xff]),
            Err(FrameError::Malformed(_))
        ));
    }
}
