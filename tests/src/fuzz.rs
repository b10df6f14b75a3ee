//! The bodies of the fuzz targets, as plain functions over bytes.
//!
//! The room exists so that one text serves twice: tests/fuzz runs it under libFuzzer, and the test `corpus` replays every
//! committed input without a fuzzer or a nightly compiler. It is compiled both as a module of this crate and as the
//! library of tests/fuzz, and so imports nothing of the house but the parsers under test.
//!
//! A body returns when the input is harmless and panics when a promise is broken.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::{Bytes, BytesMut};
use fairlead_identity::join::{JoinString, PREFIX};
use fairlead_protocol::first_bytes::{FIRST_BYTES_MAX, FirstBytes, classify};
use fairlead_protocol::postgres::{
    CancelKey, Client, Login, LoginError, LoginStep, MAX_LOGIN_BYTES, MAX_LOGIN_MESSAGE, MAX_LOGIN_MESSAGES,
    MAX_OPENING, Opening, Server, read_opening,
};
use fairlead_protocol::rdp::{Failure, MAX_REQUEST, read_request};
use fairlead_wire::call::{CallAnswer, CallRequest, Question};
use fairlead_wire::codec::{self, FrameError, MAX_CONTROL_FRAME, MAX_PREAUTH_FRAME, PREFIX_BYTES};
use fairlead_wire::control::{Body, Control};
use fairlead_wire::enroll::{EnrollAnswer, EnrollRequest};
use fairlead_wire::open::{Open, OpenAnswer};
use prost::Message;
use secrecy::ExposeSecret as _;
use sha2::{Digest as _, Sha256};

#[path = "fuzz/mqtt.rs"]
pub mod mqtt;

/// A fuzz target's body.
pub type Target = fn(&[u8]);

/// Every target by the name of its corpus folder and binary.
pub const TARGETS: &[(&str, Target)] = &[
    ("first_bytes", first_bytes),
    ("frame", frame),
    ("join_string", join_string),
    ("mqtt", mqtt::readers),
    ("mqtt_guard", mqtt::guard),
    ("postgres", postgres),
    ("postgres_login", postgres_login),
    ("rdp", rdp),
];

/// Reads the input as a stream of frames, and as the body of one frame, of each message.
///
/// Holds: no panic; an incomplete frame stays untouched; how the bytes were cut on their way does not matter; a message
/// that passes `check()` reads as its types and survives encoding and decoding.
pub fn frame(data: &[u8]) {
    each_way(data, MAX_CONTROL_FRAME, |message: &Control| {
        message.check().is_ok_and(|()| match &message.body {
            Some(Body::Hello(hello)) => hello.boot_id().is_ok(),
            _ => true,
        })
    });
    each_way(data, MAX_CONTROL_FRAME, |message: &Open| {
        message.check().is_ok_and(|()| {
            assert!(message.session_id().is_ok() && message.caller().is_ok());
            assert!(message.client_ip().is_ok() && message.client_port().is_ok());
            true
        })
    });
    each_way(data, MAX_CONTROL_FRAME, |message: &OpenAnswer| message.check().is_ok());
    each_way(data, MAX_PREAUTH_FRAME, |message: &EnrollRequest| {
        message.check().is_ok()
    });
    each_way(data, MAX_CONTROL_FRAME, |message: &EnrollAnswer| {
        message.check().is_ok()
    });
    each_way(data, MAX_PREAUTH_FRAME, |message: &CallRequest| {
        message.check().is_ok_and(|()| match &message.question {
            Some(Question::HostKeys(request)) => request.port().is_ok(),
            _ => true,
        })
    });
    each_way(data, MAX_CONTROL_FRAME, |message: &CallAnswer| message.check().is_ok());
}

/// Classifies every beginning of the input.
///
/// Holds: no panic; a verdict stands after [`FIRST_BYTES_MAX`] bytes at the latest and is final.
pub fn first_bytes(data: &[u8]) {
    let mut before = classify(&[]);
    assert_eq!(before, FirstBytes::NeedMore);
    for (at, _) in data.iter().enumerate().take(2 * FIRST_BYTES_MAX) {
        let verdict = classify(data.get(..=at).unwrap_or_default());
        assert!(
            before == FirstBytes::NeedMore || verdict == before,
            "{before:?} became {verdict:?}"
        );
        assert!(
            verdict != FirstBytes::NeedMore || at + 1 < FIRST_BYTES_MAX,
            "no verdict after {} bytes",
            at + 1
        );
        before = verdict;
    }
    assert!(
        data.is_empty() || classify(data) == before,
        "far bytes changed the verdict"
    );
}

/// Parses the input as a join string, and as the inside of one under a right checksum.
///
/// Holds: no panic; what parses is written back letter for letter, and reads back equal.
pub fn join_string(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        parse_and_write_back(text);
    }
    parse_and_write_back(&sealed(data));
}

/// Reads the input as a Postgres client's first packet, as what a client says after it, and as what a server says.
///
/// Holds: no panic; a packet that reads is written back and reads back equal; how the bytes were cut on their way does not
/// matter; nothing that a server says is changed but its cancel key, which no client sees.
pub fn postgres(data: &[u8]) {
    if let Ok(Some((opening, length))) = read_opening(data) {
        assert!(
            length <= data.len() && length <= MAX_OPENING,
            "more was read than was there"
        );
        let written = match &opening {
            Opening::Startup(startup) => Some(startup.to_bytes()),
            Opening::Cancel(key) => Some(key.to_request()),
            Opening::Tls | Opening::Gss => None,
        };
        if let Some(written) = written {
            assert!(read_opening(&written).is_ok_and(|again| again == Some((opening, written.len()))));
        }
        for end in 0..length {
            assert_eq!(
                read_opening(data.get(..end).unwrap_or_default()),
                Ok(None),
                "cut at {end}"
            );
        }
    }
    assert_eq!(
        heard_of_client(data, data.len().max(1)),
        heard_of_client(data, 3),
        "the cut changed what was heard"
    );
    let (whole, in_pieces) = (passed_by_server(data, data.len().max(1)), passed_by_server(data, 3));
    assert_eq!(whole.1, in_pieces.1, "the cut changed whether it is Postgres");
    assert!(whole.1 || whole.0 == in_pieces.0, "the cut changed what was passed on");
}

/// What a client says, in pieces: its statements, or that it does not speak the protocol.
fn heard_of_client(data: &[u8], piece_bytes: usize) -> Option<(u64, Vec<String>)> {
    let mut client = Client::new(64);
    let mut texts = Vec::new();
    for piece in data.chunks(piece_bytes) {
        client.follow(piece, |statement| texts.push(statement.text)).ok()?;
    }
    Some((client.statements(), texts))
}

/// What is passed on of a server's bytes that come in pieces, and whether it ends in an error.
fn passed_by_server(data: &[u8], piece_bytes: usize) -> (Vec<u8>, bool) {
    let shown = CancelKey {
        process: 1,
        secret: vec![0x5a; 32],
    };
    let mut server = Server::new(shown);
    let mut passed = Vec::new();
    for piece in data.chunks(piece_bytes) {
        let Ok(answered) = server.follow(Bytes::copy_from_slice(piece)) else {
            return (passed, true);
        };
        answered.bytes.iter().for_each(|bytes| passed.extend_from_slice(bytes));
        if server.cancel_keys().is_none() {
            assert!(data.starts_with(&passed), "bytes of the server were changed");
        }
    }
    (passed, false)
}

/// Reads the input as an RDP client's first packet.
///
/// Holds: no panic; a packet that reads is within its bound, is written back as it was (but for the destination's
/// reference, which no request has yet), and stays a request of the same offer without its line of text; a packet that was
/// cut is waited for.
pub fn rdp(data: &[u8]) {
    let Ok(Some((request, length))) = read_request(data) else {
        return;
    };
    let mut packet = data.get(..length).unwrap_or_default().to_vec();
    assert!(
        packet.len() == length && length <= MAX_REQUEST,
        "more was read than was there"
    );
    if let Some(destination) = packet.get_mut(6..8) {
        destination.fill(0);
    }
    assert_eq!(request.to_bytes(), packet, "changed on the way");
    for end in 0..length {
        assert_eq!(
            read_request(data.get(..end).unwrap_or_default()),
            Ok(None),
            "cut at {end}"
        );
    }
    let bare = request.without_text();
    let again = read_request(&bare);
    assert!(
        again.is_ok_and(|again| again.is_some_and(|(bare, _)| bare.text.is_empty()
            && bare.protocols == request.protocols
            && bare.token().is_none()))
    );
    assert!(request.refusal(Failure::UserRequired).len() <= MAX_REQUEST);
}

/// Reads the input as a database's half of a login.
///
/// Holds: no panic; how the bytes were cut on their way does not matter; a login ends within its bounds, and what follows it
/// stays untouched.
pub fn postgres_login(data: &[u8]) {
    let whole = login(data, data.len().max(1));
    let in_pieces = login(data, 7);
    assert_eq!(whole, in_pieces, "the cut of the bytes changed the login");
}

/// The steps that came out, and whether an error ended them.
fn login(data: &[u8], piece_bytes: usize) -> (Vec<LoginStep>, Option<LoginError>) {
    let (mut login, mut bytes, mut steps) = (Login::default(), BytesMut::new(), Vec::new());
    let mut taken = 0_usize;
    for piece in data.chunks(piece_bytes) {
        bytes.extend_from_slice(piece);
        loop {
            let held = bytes.len();
            match login.read(&mut bytes) {
                Ok(None) => {
                    taken += held - bytes.len();
                    break;
                }
                Ok(Some(step)) => {
                    taken += held - bytes.len();
                    steps.push(step);
                }
                Err(error) => return (steps, Some(error)),
            }
        }
        assert!(taken <= MAX_LOGIN_BYTES && steps.len() <= MAX_LOGIN_MESSAGES);
    }
    let is_over = matches!(steps.last(), Some(LoginStep::Done(_) | LoginStep::Refused(_)));
    assert!(is_over || bytes.len() <= MAX_LOGIN_MESSAGE, "a whole message was left");
    (steps, None)
}

/// Puts a checksum under the inside of a join string, without which nearly every input would end at the checksum.
fn sealed(content: &[u8]) -> String {
    let sum = Sha256::new_with_prefix(b"fairlead join string 1")
        .chain_update(content)
        .finalize();
    let bytes: Vec<u8> = content.iter().chain(sum.iter().take(8)).copied().collect();
    format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))
}

fn parse_and_write_back(text: &str) {
    let Ok(join) = JoinString::parse(text) else {
        return;
    };
    let written = join.encode();
    assert!(written.is_ok(), "a join string that parses cannot be written");
    if let Ok(written) = written {
        assert_eq!(written.expose_secret(), text.trim());
        assert!(JoinString::parse(written.expose_secret()).is_ok_and(|again| again == join));
    }
}

fn each_way<M: Message + Default + PartialEq>(data: &[u8], max: usize, is_sound: fn(&M) -> bool) {
    if data.len() <= max
        && let Ok(message) = codec::decode_body::<M>(data)
        && is_sound(&message)
    {
        survives(&message, max);
    }
    let whole = stream::<M>(data, data.len().max(1), max, is_sound);
    let in_pieces = stream::<M>(data, 7, max, is_sound);
    assert_eq!(whole, in_pieces, "the cut of the bytes changed what was read");
}

/// Feeds the input in pieces; returns how many frames came out and whether the stream ended in an error.
fn stream<M: Message + Default + PartialEq>(
    data: &[u8],
    piece_bytes: usize,
    max: usize,
    is_sound: fn(&M) -> bool,
) -> (usize, bool) {
    let mut buffer = BytesMut::new();
    let mut frames = 0_usize;
    for piece in data.chunks(piece_bytes) {
        buffer.extend_from_slice(piece);
        loop {
            let held = buffer.len();
            match codec::decode::<M>(&mut buffer, max) {
                Ok(None) => {
                    assert_eq!(buffer.len(), held, "an incomplete frame lost bytes");
                    break;
                }
                Ok(Some(message)) => {
                    assert!(held - buffer.len() > PREFIX_BYTES, "a frame without a body");
                    frames += 1;
                    if is_sound(&message) {
                        survives(&message, max);
                    }
                }
                Err(_) => return (frames, true),
            }
        }
    }
    (frames, false)
}

fn survives<M: Message + Default + PartialEq>(message: &M, max: usize) {
    // Our encoding can be longer than the peer's: a negative number in five bytes becomes one in ten.
    match codec::encode(message, 2 * max) {
        Ok(frame) => {
            let body = frame.get(PREFIX_BYTES..).unwrap_or_default();
            assert!(
                codec::decode_body::<M>(body).is_ok_and(|again| again == *message),
                "lost on the way"
            );
        }
        // Only fields that this build does not know were set.
        Err(FrameError::Empty) => assert!(*message == M::default()),
        Err(error) => assert!(matches!(error, FrameError::Empty), "cannot be encoded: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_put_under_inputs_is_the_one_join_strings_have() {
        let parts: &[&[u8]] = &[&[1, 1, 5], b"g:443", &[11], b"example.com", &[7; 64]];
        let text = sealed(&parts.concat());
        assert!(JoinString::parse(&text).is_ok(), "{text}");
    }
}
