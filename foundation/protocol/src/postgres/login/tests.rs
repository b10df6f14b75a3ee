use super::super::message_of;
use super::*;

fn request(code: u32, body: &[u8]) -> Vec<u8> {
    message_of(b'R', &[code.to_be_bytes().as_slice(), body].concat())
}

fn read(sent: &[u8]) -> Result<Vec<LoginStep>, LoginError> {
    let (mut login, mut bytes) = (Login::default(), BytesMut::from(sent));
    let mut steps = Vec::new();
    while let Some(step) = login.read(&mut bytes)? {
        steps.push(step);
    }
    Ok(steps)
}

fn scram() -> Vec<u8> {
    [
        message_of(b'v', &[0, 3, 0, 0, 0, 0, 0, 0]),
        message_of(b'N', b"SNOTICE\0Mhello\0\0"),
        request(10, b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0"),
        request(11, b"r=x"),
        request(12, b"v=y"),
        request(0, b""),
    ]
    .concat()
}

#[test]
fn a_login_is_read_step_by_step_however_it_is_cut_and_the_rest_is_left() {
    let sent = [scram(), message_of(b'S', b"a\0b\0")].concat();
    let expected = vec![
        LoginStep::Sasl(vec!["SCRAM-SHA-256-PLUS".into(), "SCRAM-SHA-256".into()]),
        LoginStep::SaslContinue(Bytes::from_static(b"r=x")),
        LoginStep::SaslFinal(Bytes::from_static(b"v=y")),
        LoginStep::Done(Some(message_of(b'v', &[0, 3, 0, 0, 0, 0, 0, 0]).into())),
    ];
    for cut in 1..sent.len() {
        let (mut login, mut bytes, mut steps) = (Login::default(), BytesMut::new(), Vec::new());
        for piece in sent.chunks(cut) {
            bytes.extend_from_slice(piece);
            while let Some(step) = login.read(&mut bytes).unwrap() {
                steps.push(step);
            }
        }
        assert_eq!(steps, expected, "cut {cut}");
        assert_eq!(bytes, message_of(b'S', b"a\0b\0"), "cut {cut}");
    }
}

#[test]
fn the_plain_ways_are_read() {
    for (sent, step) in [
        (request(3, b""), LoginStep::Cleartext),
        (request(5, &[1, 2, 3, 4]), LoginStep::Md5([1, 2, 3, 4])),
    ] {
        let whole = [sent, request(0, b"")].concat();
        assert_eq!(read(&whole), Ok(vec![step, LoginStep::Done(None)]));
    }
    assert_eq!(read(&request(0, b"")), Ok(vec![LoginStep::Done(None)]));
}

#[test]
fn a_step_out_of_order_ends_it() {
    let sasl = request(10, b"SCRAM-SHA-256\0\0");
    let continued = [sasl.clone(), request(11, b"x")].concat();
    for sent in [
        request(11, b"x"),
        request(12, b"x"),
        // An OK without the server's proof.
        [sasl.clone(), request(0, b"")].concat(),
        [continued.clone(), request(0, b"")].concat(),
        // The password itself, once it was refused by the better way.
        [sasl.clone(), request(3, b"")].concat(),
        [sasl.clone(), sasl.clone()].concat(),
        [continued.clone(), request(11, b"x")].concat(),
        [request(3, b""), request(3, b"")].concat(),
        [request(3, b""), request(5, &[0; 4])].concat(),
        message_of(b'Z', b"I"),
        message_of(b'K', &[0; 8]),
        [request(3, b""), message_of(b'v', &[0; 8])].concat(),
        [message_of(b'v', &[0; 8]), message_of(b'v', &[0; 8])].concat(),
    ] {
        assert!(matches!(read(&sent), Err(LoginError::OutOfOrder(_))), "{sent:02x?}");
    }
}

#[test]
fn what_is_no_login_ends_it() {
    for (sent, error) in [
        (b"R\0\0\0\x03".to_vec(), LoginError::Length(3)),
        (b"N\xff\xff\xff\xff".to_vec(), LoginError::Length(u32::MAX)),
        (b"E\0\0\x20\x01".to_vec(), LoginError::Length(8193)),
        (message_of(b'R', &[0; 3]), LoginError::Malformed),
        (request(0, b"x"), LoginError::Malformed),
        (request(5, &[0; 3]), LoginError::Malformed),
        (request(10, b""), LoginError::Malformed),
        (request(10, b"SCRAM-SHA-256\0"), LoginError::Malformed),
        (request(10, b"\0\0"), LoginError::Malformed),
        (request(10, &b"x\0".repeat(40)), LoginError::Malformed),
        (message_of(b'E', b"Mx"), LoginError::Malformed),
        (request(2, b""), LoginError::Unsupported("Kerberos 5")),
        (request(7, b""), LoginError::Unsupported("GSSAPI")),
        (request(9, b""), LoginError::Unsupported("SSPI")),
        (message_of(b'N', b"\0").repeat(33), LoginError::Endless),
        (message_of(b'N', &[0; 8000]).repeat(5), LoginError::Endless),
    ] {
        assert_eq!(read(&sent), Err(error), "{:02x?}", &sent[..sent.len().min(24)]);
    }
}

#[test]
fn what_a_server_says_is_cut_short_and_cleaned() {
    let long = format!("SFATAL\0C28P01\0Mno\x1b[31m\n{}\0Dsecret detail\0\0", "x".repeat(1000));
    let steps = read(&message_of(b'E', long.as_bytes())).unwrap();
    let [LoginStep::Refused(said)] = steps.as_slice() else {
        panic!("{steps:?}")
    };
    assert_eq!(said.sqlstate, "28P01");
    assert!(said.message.starts_with("no [31m xxx"), "{}", said.message);
    assert_eq!(said.message.chars().count(), MAX_SAID);
    let odd = read(&message_of(b'E', b"C28\xff\0\0")).unwrap();
    assert_eq!(
        odd,
        [LoginStep::Refused(ServerSaid {
            sqlstate: "XX000".into(),
            message: String::new()
        })]
    );
}

#[test]
fn answers_have_their_length() {
    assert_eq!(password_message(b"pw"), b"p\0\0\0\x07pw\0");
    assert_eq!(sasl_initial("S", b"ab"), b"p\0\0\0\x0cS\0\0\0\0\x02ab");
    assert_eq!(sasl_response(b"ab"), b"p\0\0\0\x06ab");
    assert_eq!(authentication_ok(), b"R\0\0\0\x08\0\0\0\0");
}
