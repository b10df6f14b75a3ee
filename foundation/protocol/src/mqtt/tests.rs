use proptest::prelude::*;

use super::broker::Ceilings;
use super::*;

/// Header and body of one whole packet.
fn split(bytes: &[u8]) -> (Header, &[u8]) {
    let header = header(bytes).unwrap().unwrap();
    assert_eq!(header.packet(), bytes.len());
    (header, &bytes[header.length..])
}

/// CONNECT of version 5 as mosquitto_pub sends it: receive maximum 20, client `probe`, will, user and password.
const CONNECT_V5: &[u8] =
    b"\x10\x33\x00\x04MQTT\x05\xee\x00\x3c\x03\x21\x00\x14\x00\x05probe\x00\x00\x08site/p/w\x00\x03bye\x00\x04pump\x00\x06secret";

#[test]
fn a_connect_is_read_and_written_back_as_it_was() {
    let (header, body) = split(CONNECT_V5);
    assert_eq!(header.kind, Kind::Connect);
    let connect = Connect::read(body).unwrap();
    assert_eq!(
        (connect.version, connect.client_id, connect.keep_alive),
        (Version::V5, "probe", 60)
    );
    assert_eq!((connect.receive_maximum, connect.clean_start), (Some(20), true));
    let will = connect.will.as_ref().unwrap();
    assert_eq!(
        (will.topic, will.qos, will.retain),
        ("site/p/w", QoS::AtLeastOnce, true)
    );
    assert_eq!(connect.login.username, Some("pump"));
    assert_eq!(connect.to_bytes(connect.login), CONNECT_V5);
    assert!(!format!("{connect:?}").contains("secret"));
}

#[test]
fn another_login_takes_the_place_of_what_was_sent() {
    let connect = Connect::read(split(CONNECT_V5).1).unwrap();
    let login = Login {
        username: Some("broker-user"),
        password: Some(b"from a file"),
    };
    let bytes = connect.to_bytes(login);
    let again = Connect::read(split(&bytes).1).unwrap();
    assert_eq!(again.login, login);
    assert_eq!((again.client_id, again.will), (connect.client_id, connect.will.clone()));
    let none = connect.to_bytes(Login::default());
    assert_eq!(Connect::read(split(&none).1).unwrap().login, Login::default());
}

#[test]
fn connects_that_are_none_are_refused_each_for_its_cause() {
    let v4 = |flags: u8, rest: &[u8]| [b"\x00\x04MQTT\x04", &[flags, 0, 0][..], rest].concat();
    let cases: &[(Vec<u8>, Broken)] = &[
        (
            b"\x00\x06MQIsdp\x03\x02\x00\x00\x00\x00".to_vec(),
            Broken::Malformed("the protocol's name is not MQTT"),
        ),
        (b"\x00\x04MQTT\x03\x02\x00\x00\x00\x00".to_vec(), Broken::Version(3)),
        (v4(1, b"\x00\x00"), Broken::Malformed("the reserved flag of CONNECT")),
        (
            v4(0x20, b"\x00\x00"),
            Broken::Malformed("flags of a will without a will"),
        ),
        (
            v4(0x40, b"\x00\x00\x00\x01p"),
            Broken::Malformed("a password without a user name"),
        ),
        (v4(0, b"\x00\x01\xff"), Broken::Malformed("a text is not UTF-8")),
        (
            v4(0, b"\x00\x01\x00"),
            Broken::Malformed("a text has control characters"),
        ),
        (v4(0, b"\x00\x02a"), Broken::Malformed("a field goes beyond the packet")),
        (v4(0, b"\x00\x01a!"), Broken::Malformed("bytes behind the last field")),
        (
            v4(4, b"\x00\x01a\x00\x01#\x00\x00"),
            Broken::Malformed("the will's topic is no topic name"),
        ),
        (
            v4(0x1c, b"\x00\x01a\x00\x01t\x00\x00"),
            Broken::Malformed("a quality of service of 3"),
        ),
        (
            b"\x00\x04MQTT\x05\x02\x00\x00\x06\x21\x00\x01\x21\x00\x01\x00\x00".to_vec(),
            Broken::Protocol("a property that comes twice"),
        ),
        (
            b"\x00\x04MQTT\x05\x02\x00\x00\x03\x23\x00\x01\x00\x00".to_vec(),
            Broken::Protocol("a property that this packet does not have"),
        ),
    ];
    for (body, broken) in cases {
        assert_eq!(Connect::read(body), Err(*broken), "{body:?}");
    }
}

#[test]
fn headers_wait_for_bytes_and_no_length_is_spelt_twice() {
    assert_eq!(header(b""), Ok(None));
    assert_eq!(header(b"\x30"), Ok(None));
    assert_eq!(header(b"\x30\xff\xff\xff"), Ok(None));
    let longest = header(b"\x30\xff\xff\xff\x7f").unwrap().unwrap();
    assert_eq!(longest.body, 268_435_455);
    let refused: [&[u8]; 6] = [
        b"\x30\xff\xff\xff\xff",
        b"\x30\x80\x00",
        b"\x00\x00",
        b"\x11\x00",
        b"\x80\x00",
        b"\xc1\x00",
    ];
    for bytes in refused {
        assert!(header(bytes).is_err(), "{bytes:?}");
    }
}

fn publish_v5(topic: &str, properties: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    fields::put(&mut body, topic.as_bytes());
    body.extend_from_slice(&[0, 9]);
    frame::write_length(&mut body, properties.len());
    body.extend_from_slice(properties);
    body.extend_from_slice(payload);
    frame::packet(0x32, &body)
}

#[test]
fn an_alias_is_read_and_can_be_written_out() {
    let bytes = publish_v5("", b"\x01\x01\x23\x00\x05\x26\x00\x01k\x00\x01v", b"hello");
    let (header, body) = split(&bytes);
    let message = Publish::read(header, body, Version::V5).unwrap();
    assert_eq!(
        (message.topic, message.alias, message.packet_id),
        ("", Some(5), Some(9))
    );
    let whole = message.to_bytes("site/p/x");
    assert_eq!(
        whole,
        publish_v5("site/p/x", b"\x01\x01\x26\x00\x01k\x00\x01v", b"hello")
    );
    assert_eq!(message.payload(), b"hello");
}

#[test]
fn messages_to_nowhere_and_to_wildcards_are_refused() {
    for (topic, properties) in [
        ("", &b""[..]),
        ("a/#", b""),
        ("+", b""),
        ("a", b"\x23\x00\x00"),
        ("$share/g/a", b""),
    ] {
        let bytes = publish_v5(topic, properties, b"");
        let (header, body) = split(&bytes);
        assert!(
            Publish::read(header, body, Version::V5).is_err(),
            "{topic} {properties:?}"
        );
    }
    assert!(
        Publish::read(header(b"\x38\x03").unwrap().unwrap(), b"\x00\x01a", Version::V4).is_err(),
        "again at QoS 0"
    );
    assert!(
        Publish::read(header(b"\x32\x05").unwrap().unwrap(), b"\x00\x01a\x00\x00", Version::V4).is_err(),
        "number 0"
    );
    assert!(
        Publish::read(header(b"\x36\x05").unwrap().unwrap(), b"\x00\x01a\x00\x01", Version::V4).is_err(),
        "QoS 3"
    );
}

#[test]
fn a_subscribe_keeps_the_filters_that_are_left() {
    let body = b"\x00\x07\x02\x0b\x05\x00\x03a/b\x01\x00\x01#\x02\x00\x0a$share/g/x\x00";
    let subscribe = Subscribe::read(body, Version::V5).unwrap();
    let texts: Vec<_> = subscribe
        .filters
        .iter()
        .map(|filter| (filter.text, filter.qos.number()))
        .collect();
    assert_eq!(texts, [("a/b", 1), ("#", 2), ("$share/g/x", 0)]);
    assert_eq!(split(&subscribe.only(|_| true).unwrap()).1, body);
    let left = subscribe.only(|place| place != 1).unwrap();
    assert_eq!(
        split(&left).1,
        b"\x00\x07\x02\x0b\x05\x00\x03a/b\x01\x00\x0a$share/g/x\x00"
    );
    assert_eq!(subscribe.only(|_| false), None);

    let refused: [&[u8]; 7] = [
        b"\x00\x07",
        b"\x00\x00\x00\x01a\x00",
        b"\x00\x07\x00\x01a",
        b"\x00\x07\x00\x01a\x03",
        b"\x00\x07\x00\x01a\x04",
        b"\x00\x07\x00\x03a#b\x00",
        b"\x00\x07\x00\x00\x00",
    ];
    for body in refused {
        assert!(Subscribe::read(body, Version::V4).is_err(), "{body:?}");
    }
    assert!(
        Subscribe::read(b"\x00\x07\x00\x00\x0a$share/g/x\x04", Version::V5).is_err(),
        "no local, shared"
    );
    let many = [&b"\x00\x07"[..], &b"\x00\x01a\x00".repeat(MAX_FILTERS + 1)].concat();
    assert!(Subscribe::read(&many, Version::V4).is_err());
    assert!(Subscribe::read(&many[..many.len() - 4], Version::V4).is_ok());
    assert_eq!(
        Unsubscribe::read(b"\x00\x07\x00\x01a\x00\x01b", Version::V4)
            .unwrap()
            .filters,
        ["a", "b"]
    );
}

#[test]
fn a_brokers_promises_are_brought_down_to_the_ceilings() {
    let ceilings = Ceilings {
        topic_alias_maximum: 32,
        receive_maximum: 100,
        maximum_packet_size: 1 << 20,
    };
    // Alias maximum 10 and an assigned name, as mosquitto answers.
    let body = b"\x00\x00\x0a\x22\x00\x0a\x12\x00\x04auto";
    let answer = ConnAck::read(body, Version::V5).unwrap();
    assert_eq!(
        (answer.topic_alias_maximum, answer.assigned_client_id),
        (10, Some("auto"))
    );
    let within = answer.within(ceilings);
    let told = ConnAck::read(split(&within).1, Version::V5).unwrap();
    assert_eq!((told.topic_alias_maximum, told.receive_maximum), (10, 100));
    assert_eq!(
        (told.maximum_packet_size, told.assigned_client_id),
        (Some(1 << 20), Some("auto"))
    );

    let old = ConnAck::read(b"\x01\x00", Version::V4).unwrap();
    assert_eq!(old.within(ceilings), b"\x20\x02\x01\x00");
    let refused = ConnAck::read(b"\x00\x87\x00", Version::V5).unwrap();
    assert_eq!(refused.within(ceilings), b"\x20\x03\x00\x87\x00");
    assert_eq!(
        SubAck::read(b"\x00\x07\x00\x01\x02", Version::V5)
            .unwrap()
            .with(&[1, 0x87, 2]),
        b"\x90\x06\x00\x07\x00\x01\x87\x02"
    );
}

#[test]
fn refusals_are_packets_of_their_version() {
    assert_eq!(
        answer::connack(Version::V4, answer::Reason::NotAuthorized, "no"),
        b"\x20\x02\x00\x05"
    );
    assert_eq!(
        answer::connack(Version::V5, answer::Reason::NotAuthorized, "no"),
        b"\x20\x08\x00\x87\x05\x1f\x00\x02no"
    );
    assert_eq!(
        answer::disconnect(Version::V4, answer::Reason::Administrative, "no"),
        None
    );
    assert_eq!(
        answer::disconnect(Version::V5, answer::Reason::Administrative, "").unwrap(),
        b"\xe0\x02\x98\x00"
    );
    assert_eq!(answer::unpublished(true, 9, ""), b"\x50\x04\x00\x09\x87\x00");
    assert_eq!(
        answer::suback(Version::V4, 9, &[answer::refused_filter(Version::V4)], "no"),
        b"\x90\x03\x00\x09\x80"
    );
}

#[test]
fn filters_that_are_none_are_told() {
    for text in [
        "",
        "a#",
        "#/a",
        "a+/b",
        "$share/g",
        "$share//a",
        "$share/g+/a",
        "$share/g/",
    ] {
        assert!(!topic::is_filter(text), "{text}");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_a_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), v5 in any::<bool>()) {
        let version = if v5 { Version::V5 } else { Version::V4 };
        let _none = header(&bytes);
        let _none = Connect::read(&bytes);
        let _none = ConnAck::read(&bytes, version);
        let _none = Subscribe::read(&bytes, version);
        let _none = Unsubscribe::read(&bytes, version);
        let _none = SubAck::read(&bytes, version);
        let any = Header { kind: Kind::Publish, flags: 2, length: 2, body: bytes.len() };
        let _none = Publish::read(any, &bytes, version);
    }
}
