use bytes::Bytes;

use super::*;

fn startup() -> Startup {
    Startup {
        minor: 0,
        parameters: vec![
            ("user".into(), "app".into()),
            ("database".into(), "billing".into()),
            ("application_name".into(), String::new()),
        ],
    }
}

fn openings() -> Vec<(Vec<u8>, Opening)> {
    let key = CancelKey {
        process: 7,
        secret: vec![9; 4],
    };
    let long = CancelKey {
        process: 7,
        secret: vec![9; MAX_CANCEL_KEY],
    };
    vec![
        (tls_request(), Opening::Tls),
        (packet(GSSENC_REQUEST, &[]), Opening::Gss),
        (key.to_request(), Opening::Cancel(key)),
        (long.to_request(), Opening::Cancel(long)),
        (startup().to_bytes(), Opening::Startup(startup())),
    ]
}

#[test]
fn every_opening_is_read_whole_and_never_before() {
    for (bytes, opening) in openings() {
        for end in 0..bytes.len() {
            assert_eq!(read_opening(&bytes[..end]), Ok(None), "{end} of {opening:?}");
        }
        let more = [bytes.as_slice(), b"more"].concat();
        assert_eq!(read_opening(&more), Ok(Some((opening, bytes.len()))));
    }
}

#[test]
fn what_is_no_opening_is_refused_as_soon_as_it_shows() {
    let user = b"user\0app\0";
    for (bytes, error) in [
        (7_u32.to_be_bytes().to_vec(), OpeningError::Length(7)),
        (10_001_u32.to_be_bytes().to_vec(), OpeningError::Length(10_001)),
        (u32::MAX.to_be_bytes().to_vec(), OpeningError::Length(u32::MAX)),
        (packet(SSL_REQUEST, &[0]), OpeningError::Length(9)),
        (packet(CANCEL_REQUEST, &[0; 7]), OpeningError::Length(15)),
        (packet(CANCEL_REQUEST, &[0; 261]), OpeningError::Length(269)),
        (packet(0x0002_0000, b"\0"), OpeningError::Version(2, 0)),
        (packet(0x0003_0000, b""), OpeningError::Parameters),
        (packet(0x0003_0000, b"\0"), OpeningError::Parameters),
        (packet(0x0003_0000, b"user\0\0\0"), OpeningError::Parameters),
        (packet(0x0003_0000, b"database\0x\0\0"), OpeningError::Parameters),
        (
            packet(0x0003_0000, b"user\0app\0user\0root\0\0"),
            OpeningError::Parameters,
        ),
        (packet(0x0003_0000, b"user\0app\0odd\0\0"), OpeningError::Parameters),
        (packet(0x0003_0000, b"user\0app"), OpeningError::Parameters),
        (packet(0x0003_0000, b"user\0a\x1bp\0\0"), OpeningError::Parameters),
        (packet(0x0003_0000, b"user\0\xff\0\0"), OpeningError::Parameters),
        (
            packet(0x0003_0000, &[user.as_slice(), &b"a\0".repeat(0), b"\0\0"].concat()),
            OpeningError::Parameters,
        ),
    ] {
        assert_eq!(read_opening(&bytes), Err(error), "{bytes:02x?}");
    }
    let many: String = (0..MAX_PARAMETERS).map(|n| format!("p{n}\0x\0")).collect();
    let many = packet(0x0003_0000, format!("user\0app\0{many}\0").as_bytes());
    assert_eq!(read_opening(&many), Err(OpeningError::Parameters));
}

#[test]
fn a_startup_packet_is_changed_and_written_again() {
    let mut startup = startup();
    assert_eq!((startup.user(), startup.database()), ("app", "billing"));
    startup.set("user", "fairlead_ro");
    startup.remove("database");
    startup.set("options", "-c work_mem=1MB");
    assert_eq!(startup.database(), "fairlead_ro");
    let bytes = startup.to_bytes();
    assert_eq!(read_opening(&bytes), Ok(Some((Opening::Startup(startup), bytes.len()))));
}

#[test]
fn a_refusal_carries_state_message_and_hint() {
    let bytes = fatal("28000", "fairlead: denied\0", "ask");
    assert_eq!(bytes, b"E\0\0\0\x31SFATAL\0VFATAL\0C28000\0Mfairlead: denied\0Hask\0\0");
}

fn shown() -> CancelKey {
    CancelKey {
        process: 1,
        secret: vec![2; 32],
    }
}

#[test]
fn a_server_with_a_long_key_has_its_client_shown_a_long_one() {
    let mut server = Server::new(shown());
    let given = message_of(b'K', &[[0, 0, 0, 7].as_slice(), &[9; 64]].concat());
    let answered = server.follow(Bytes::from(given)).unwrap();
    assert_eq!(
        answered.bytes.concat(),
        message_of(b'K', &[[0, 0, 0, 1].as_slice(), &[2; 32]].concat())
    );
    assert_eq!(server.cancel_keys().unwrap().1.secret, [9; 64]);
}

/// AuthenticationOk, a parameter, the key, ReadyForQuery, then rows that look like keys.
fn conversation() -> (Vec<u8>, Vec<u8>) {
    let key = |process: u32, secret: u8| message_of(b'K', &[process.to_be_bytes(), [secret; 4]].concat());
    let parts = |key: Vec<u8>| {
        let before = [message_of(b'R', &[0; 4]), message_of(b'S', b"a\0b\0")].concat();
        let after = [
            message_of(b'Z', b"I"),
            message_of(b'D', &[b'K'; 300]),
            message_of(b'K', &[0; 8]),
        ]
        .concat();
        [before, key, after].concat()
    };
    (parts(key(77, 9)), parts(key(1, 2)))
}

#[test]
fn the_key_is_exchanged_however_the_bytes_are_cut_and_nothing_else_changes() {
    let (sent, expected) = conversation();
    for cut in 1..sent.len() {
        let mut server = Server::new(shown());
        let mut got = Vec::new();
        for piece in sent.chunks(cut) {
            for bytes in server.follow(Bytes::copy_from_slice(piece)).unwrap().bytes {
                got.extend_from_slice(&bytes);
            }
            assert!(server.held.len() <= server::HEADER + MAX_CANCEL_KEY + 4);
        }
        assert_eq!(got, expected, "cut {cut}");
        assert!(server.is_between_messages());
        let (shown, given) = server.cancel_keys().unwrap();
        assert_eq!((shown.process, shown.secret.as_slice()), (1, [2; 4].as_slice()));
        assert_eq!((given.process, given.secret.as_slice()), (77, [9; 4].as_slice()));
    }
}

#[test]
fn somebody_in_the_middle_of_a_message_is_known_to_be() {
    let mut server = Server::new(shown());
    assert!(server.is_between_messages());
    let message = message_of(b'D', &[1; 10]);
    for end in 1..message.len() {
        server.follow(Bytes::copy_from_slice(&message[end - 1..end])).unwrap();
        assert!(!server.is_between_messages(), "{end}");
    }
    server
        .follow(Bytes::copy_from_slice(&message[message.len() - 1..]))
        .unwrap();
    assert!(server.is_between_messages());
}

#[test]
fn a_server_that_lies_about_lengths_ends() {
    for (bytes, error) in [
        (b"D\0\0\0\x03".to_vec(), ServerError::Length(3)),
        (b"D\xff\xff\xff\xff".to_vec(), ServerError::Length(u32::MAX)),
        (
            b"HTTP/1.1 200".to_vec(),
            ServerError::Length(u32::from_be_bytes(*b"TTP/")),
        ),
        (message_of(b'K', &[0; 300]), ServerError::CancelKey),
        (message_of(b'K', &[0; 7]), ServerError::CancelKey),
        (message_of(b'K', &[0; 8]).repeat(2), ServerError::CancelKey),
    ] {
        assert_eq!(Server::new(shown()).follow(Bytes::from(bytes)), Err(error));
    }
}

#[test]
fn physical_replication_is_no_single_database() {
    let asked = |value: &str| {
        let mut startup = startup();
        startup.set("replication", value);
        startup.database().to_owned()
    };
    for value in ["true", "T", "on", "yes", "1", "o", "what"] {
        assert_eq!(asked(value), "replication", "{value}");
    }
    for value in ["", "database", "false", "F", "no", "OFF", "0"] {
        assert_eq!(asked(value), "billing", "{value}");
    }
}
