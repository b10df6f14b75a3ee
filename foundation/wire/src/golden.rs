//! The bytes of every message, committed under golden/. A change there breaks deployed peers and needs an ADR.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::path::{Path, PathBuf};

use bytes::BytesMut;
use prost::Message;

use crate::call::{CallAnswer, CallRequest};
use crate::check::CheckError;
use crate::codec::{FrameError, MAX_CONTROL_FRAME, MAX_PREAUTH_FRAME, PREFIX_BYTES, decode, decode_body, encode};
use crate::control::Control;
use crate::enroll::{EnrollAnswer, EnrollRequest};
use crate::open::{Open, OpenAnswer};
use crate::samples;

/// Runs one check over every kind of frame.
macro_rules! for_every_message {
    ($check:ident) => {
        for (name, message) in samples::controls() {
            $check(name, &message, MAX_CONTROL_FRAME, Control::check);
        }
        $check("open", &samples::open(), MAX_CONTROL_FRAME, Open::check);
        $check("open-cancel", &samples::cancel(), MAX_CONTROL_FRAME, Open::check);
        $check("open-question", &samples::question(), MAX_CONTROL_FRAME, Open::check);
        for (name, message) in samples::open_answers() {
            $check(name, &message, MAX_CONTROL_FRAME, OpenAnswer::check);
        }
        $check(
            "enroll-request",
            &samples::enroll_request(),
            MAX_PREAUTH_FRAME,
            EnrollRequest::check,
        );
        $check(
            "enroll-request-proof",
            &samples::proof_request(),
            MAX_PREAUTH_FRAME,
            EnrollRequest::check,
        );
        for (name, message) in samples::enroll_answers() {
            $check(name, &message, MAX_CONTROL_FRAME, EnrollAnswer::check);
        }
        for (name, message) in samples::call_requests() {
            $check(name, &message, MAX_PREAUTH_FRAME, CallRequest::check);
        }
        for (name, message) in samples::call_answers() {
            $check(name, &message, MAX_CONTROL_FRAME, CallAnswer::check);
        }
    };
}

#[test]
fn every_message_has_its_golden_bytes_and_reads_back() {
    for_every_message!(matches_golden);
}

fn matches_golden<M: Message + Default + PartialEq + Debug>(
    name: &str,
    message: &M,
    max: usize,
    check: fn(&M) -> Result<(), CheckError>,
) {
    assert_eq!(check(message), Ok(()), "{name}: the sample is sound");
    let frame = encode(message, max).unwrap();
    let path = directory().join(format!("{name}.hex"));
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(
        hex(&frame),
        committed,
        "{} does not hold the bytes of this message",
        path.display()
    );
    let read: M = decode(&mut BytesMut::from(frame), max).unwrap().unwrap();
    assert_eq!(&read, message, "{name}");
}

#[test]
fn every_truncation_is_incomplete_or_refused_and_never_the_same_message() {
    for_every_message!(truncates);
}

fn truncates<M: Message + Default + PartialEq + Debug>(
    name: &str,
    message: &M,
    max: usize,
    check: fn(&M) -> Result<(), CheckError>,
) {
    let frame = encode(message, max).unwrap();
    for end in 0..frame.len() {
        let mut buffer = BytesMut::from(&frame[..end]);
        assert_eq!(decode::<M>(&mut buffer, max), Ok(None), "{name} cut at {end}");
        assert_eq!(
            buffer,
            frame[..end],
            "{name} cut at {end}: an incomplete frame stays in the buffer"
        );
    }
    // A peer may also lie about the length: the body then ends inside a field or before one.
    let body = &frame[PREFIX_BYTES..];
    for end in 0..body.len() {
        match decode_body::<M>(&body[..end]) {
            Err(FrameError::Empty) => assert_eq!(end, 0, "{name}"),
            Err(FrameError::Malformed(_)) => {}
            Err(error @ FrameError::TooLong { .. }) => panic!("{name} cut at {end}: {error}"),
            Ok(shorter) => {
                assert_ne!(&shorter, message, "{name} cut at {end}");
                let _ = check(&shorter);
            }
        }
    }
}

#[test]
fn every_flipped_bit_is_survived() {
    for_every_message!(survives_flips);
}

fn survives_flips<M: Message + Default + PartialEq + Debug>(
    _name: &str,
    message: &M,
    max: usize,
    check: fn(&M) -> Result<(), CheckError>,
) {
    let frame = encode(message, max).unwrap();
    for at in 0..frame.len() * 8 {
        let mut flipped = BytesMut::from(&frame[..]);
        flipped[at / 8] ^= 1 << (at % 8);
        if let Ok(Some(other)) = decode::<M>(&mut flipped, max) {
            let _ = check(&other);
        }
    }
}

#[test]
fn a_later_peers_additional_field_changes_nothing() {
    for_every_message!(skips_unknown);
}

fn skips_unknown<M: Message + Default + PartialEq + Debug>(
    name: &str,
    message: &M,
    max: usize,
    _check: fn(&M) -> Result<(), CheckError>,
) {
    let mut body = encode(message, max).unwrap()[PREFIX_BYTES..].to_vec();
    // Field 1000 as a varint and field 1001 as text.
    body.extend_from_slice(&[0xc0, 0x3e, 0x96, 0x01, 0xca, 0x3e, 0x02, b'h', b'i']);
    assert_eq!(decode_body::<M>(&body).as_ref(), Ok(message), "{name}");
}

#[test]
fn golden_holds_no_file_without_a_message() {
    let mut names: BTreeSet<&str> = BTreeSet::from([
        "open",
        "open-cancel",
        "open-question",
        "enroll-request",
        "enroll-request-proof",
    ]);
    names.extend(samples::controls().iter().map(|(name, _)| *name));
    names.extend(samples::open_answers().iter().map(|(name, _)| *name));
    names.extend(samples::enroll_answers().iter().map(|(name, _)| *name));
    names.extend(samples::call_requests().iter().map(|(name, _)| *name));
    names.extend(samples::call_answers().iter().map(|(name, _)| *name));
    for entry in std::fs::read_dir(directory()).unwrap() {
        let file = entry.unwrap().file_name().into_string().unwrap();
        assert!(
            names.remove(file.trim_end_matches(".hex")),
            "{file} belongs to no message"
        );
    }
    assert!(names.is_empty(), "no golden bytes for {names:?}");
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden")
}

/// Lower-case hex, 32 bytes to the line, a newline at the end.
fn hex(bytes: &[u8]) -> String {
    bytes
        .chunks(32)
        .map(|line| line.iter().map(|byte| format!("{byte:02x}")).collect::<String>() + "\n")
        .collect()
}
