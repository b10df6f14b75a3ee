use proptest::prelude::*;

use super::*;

/// As xfreerdp sends it with `/load-balance-info`: the token, then TLS and CredSSP offered.
fn with_token() -> Vec<u8> {
    let mut body = b"Cookie: msts=fl1-0123\r\n".to_vec();
    body.extend_from_slice(&[1, 0, 8, 0, 3, 0, 0, 0]);
    x224(CONNECTION_REQUEST, 0, 0x1234, &body)
}

#[test]
fn a_request_tells_its_token_and_what_it_offers() {
    let bytes = with_token();
    let (request, length) = read_request(&bytes).unwrap().unwrap();
    assert_eq!(length, bytes.len());
    assert_eq!((request.token(), request.shown_user()), (Some("fl1-0123"), None));
    assert_eq!((request.protocols, request.reference), (Some(3), 0x1234));
    assert_eq!(
        request.without_text(),
        b"\x03\x00\x00\x13\x0e\xe0\x00\x00\x12\x34\x00\x01\x00\x08\x00\x03\x00\x00\x00"
    );
    assert_eq!(
        request.refusal(Failure::UserRequired),
        b"\x03\x00\x00\x13\x0e\xd0\x12\x34\x00\x00\x00\x03\x00\x08\x00\x05\x00\x00\x00"
    );
}

#[test]
fn a_request_is_waited_for_byte_by_byte() {
    let bytes = with_token();
    for end in 0..bytes.len() {
        assert_eq!(read_request(&bytes[..end]), Ok(None), "{end}");
    }
    let longer = [&bytes[..], b"more"].concat();
    assert_eq!(read_request(&longer).unwrap().unwrap().1, bytes.len());
}

#[test]
fn the_oldest_clients_offer_nothing_and_show_a_name() {
    let bytes = x224(CONNECTION_REQUEST, 0, 0, b"Cookie: mstshash=eltons\r\n");
    let (request, _) = read_request(&bytes).unwrap().unwrap();
    assert_eq!(
        (request.shown_user(), request.token(), request.protocols),
        (Some("eltons"), None, None)
    );
    assert_eq!(
        request.refusal(Failure::TlsRequired),
        b"\x03\x00\x00\x0b\x06\xd0\x00\x00\x00\x00\x00"
    );
    let broker = x224(
        CONNECTION_REQUEST,
        0,
        0,
        b"tsv://MS Terminal Services Plugin.1.farm\r\n\x01\0\x08\0\x03\0\0\0",
    );
    let (request, _) = read_request(&broker).unwrap().unwrap();
    assert_eq!(
        (request.token(), request.shown_user(), request.protocols),
        (None, None, Some(3))
    );
    assert_eq!(request.to_bytes(), broker);
    let bare = x224(CONNECTION_REQUEST, 0, 0, b"");
    assert_eq!(read_request(&bare).unwrap().unwrap().0.text, "");
    let mut correlated = vec![1, 8, 8, 0, 1, 0, 0, 0, CORRELATION, 0, 36, 0];
    correlated.extend_from_slice(&[7; 32]);
    let bytes = x224(CONNECTION_REQUEST, 0, 0, &correlated);
    assert_eq!(read_request(&bytes).unwrap().unwrap().0.protocols, Some(1));
}

#[test]
fn what_is_no_request_is_refused_each_for_its_cause() {
    let negotiation = |bytes: &[u8]| x224(CONNECTION_REQUEST, 0, 0, bytes);
    let cases: &[(Vec<u8>, RequestError)] = &[
        (b"GET / HTTP/1.1".to_vec(), RequestError::Tpkt),
        (b"\x03\x01\x00\x0b".to_vec(), RequestError::Tpkt),
        (b"\x03\x00\x00\x0a".to_vec(), RequestError::Length(10)),
        (b"\x03\x00\xff\xff".to_vec(), RequestError::Length(65_535)),
        (
            b"\x03\x00\x00\x0b\x07\xe0\x00\x00\x00\x00\x00".to_vec(),
            RequestError::Length(7),
        ),
        (
            b"\x03\x00\x00\x0b\x06\xd0\x00\x00\x00\x00\x00".to_vec(),
            RequestError::Kind,
        ),
        (
            b"\x03\x00\x00\x0b\x06\xe0\x00\x00\x00\x00\x10".to_vec(),
            RequestError::Kind,
        ),
        (negotiation(b"Cookie: msts=endless"), RequestError::Text),
        (negotiation(b"Cookie: msts=\x00\r\n"), RequestError::Text),
        (negotiation(b"\x01\x00\x08"), RequestError::Negotiation),
        (
            negotiation(b"\x01\x08\x08\x00\x01\x00\x00\x00"),
            RequestError::Negotiation,
        ),
        (negotiation(b"junk"), RequestError::Text),
        (negotiation(b"\x7fjunk"), RequestError::Negotiation),
        (negotiation(b"tsv://farm\r\njunk"), RequestError::Negotiation),
    ];
    for (bytes, error) in cases {
        assert_eq!(read_request(bytes), Err(*error), "{bytes:?}");
    }
}

proptest! {
    #[test]
    fn whatever_is_read_is_written_again_and_survives_losing_its_text(body in proptest::collection::vec(any::<u8>(), 0..60), text in "[!-~][ -~]{0,100}", with_text in any::<bool>()) {
        let line = if with_text { format!("{text}\r\n") } else { String::new() };
        let bytes = x224(CONNECTION_REQUEST, 0, 7, &[line.as_bytes(), &body].concat());
        if let Ok(Some((request, length))) = read_request(&bytes) {
            prop_assert_eq!(length, bytes.len());
            prop_assert_eq!(&request.to_bytes(), &bytes);
            let bare = request.without_text();
            let (again, _) = read_request(&bare).unwrap().unwrap();
            prop_assert_eq!(again.protocols, request.protocols);
            prop_assert_eq!(again.text, "");
        }
    }

    #[test]
    fn no_bytes_make_the_reader_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..300), shaped in any::<bool>()) {
        if shaped {
            bytes = x224(CONNECTION_REQUEST, 0, 0, bytes.get(..200).unwrap_or(&bytes));
        }
        let _none = read_request(&bytes);
    }
}
