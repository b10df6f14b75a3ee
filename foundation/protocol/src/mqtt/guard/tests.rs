use super::*;
use crate::mqtt::fields::put;
use crate::mqtt::frame::{packet, write_length};

fn connect(version: u8) -> Vec<u8> {
    let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', version, 2, 0, 60];
    if version == 5 {
        body.push(0);
    }
    put(&mut body, b"pump-7");
    packet(0x10, &body)
}

/// A guard whose broker has answered, with alias maximum 10 in version 5.
fn welcomed(version: u8, limits: Limits) -> Guard {
    let bytes = connect(version);
    let (hello, length) = read_hello(&bytes, &limits).unwrap().unwrap();
    assert_eq!((length, hello.client_id.as_str()), (bytes.len(), "pump-7"));
    let mut guard = Guard::new(hello, limits, "no".into());
    let mut flow = Flow::default();
    let answer: &[u8] = if version == 5 {
        b"\x20\x06\x00\x00\x03\x22\x00\x0a"
    } else {
        b"\x20\x02\x00\x00"
    };
    guard.from_broker(Bytes::from_static(answer), &mut flow).unwrap();
    assert_eq!(flow.to_client.len(), 1);
    guard
}

fn publish(first: u8, topic: &str, id: Option<u16>, properties: Option<&[u8]>) -> Vec<u8> {
    let mut body = Vec::new();
    put(&mut body, topic.as_bytes());
    body.extend(id.into_iter().flat_map(u16::to_be_bytes));
    if let Some(list) = properties {
        write_length(&mut body, list.len());
        body.extend_from_slice(list);
    }
    body.extend_from_slice(b"hello");
    packet(first, &body)
}

fn own(act: Act<'_>) -> bool {
    match act {
        Act::Publish { topic, .. } => topic.starts_with("own/"),
        Act::Subscribe { filter, .. } => filter.starts_with("own/"),
    }
}

/// What goes to the broker, what goes to the client, and how it ended.
fn said(guard: &mut Guard, bytes: &[u8]) -> (Vec<u8>, Vec<u8>, Result<(), End>) {
    let (mut bytes, mut flow) = (BytesMut::from(bytes), Flow::default());
    let ended = guard.from_client(&mut bytes, &mut own, &mut flow);
    (flow.to_broker.concat(), flow.to_client.concat(), ended)
}

fn heard(guard: &mut Guard, bytes: &[u8]) -> Result<Vec<u8>, End> {
    let mut flow = Flow::default();
    guard.from_broker(Bytes::copy_from_slice(bytes), &mut flow)?;
    Ok(flow.to_client.concat())
}

#[test]
fn what_is_allowed_passes_as_it_came_in_one_piece() {
    let mut guard = welcomed(4, Limits::default());
    let sent = [
        publish(0x30, "own/a", None, None),
        publish(0x32, "own/b", Some(1), None),
        b"\xc0\x00".to_vec(),
    ]
    .concat();
    let (mut bytes, mut flow) = (BytesMut::from(&[&sent[..], b"\x30"].concat()[..]), Flow::default());
    guard.from_client(&mut bytes, &mut own, &mut flow).unwrap();
    assert_eq!(
        (flow.to_broker.len(), &flow.to_broker[0][..], &bytes[..]),
        (1, &sent[..], &b"\x30"[..])
    );
    assert_eq!(heard(&mut guard, b"\x40\x02\x00\x01").unwrap(), b"\x40\x02\x00\x01");
    assert!(guard.in_flight.is_empty());
}

#[test]
fn refused_messages_get_their_codes() {
    let mut guard = welcomed(5, Limits::default());
    let sent = [
        publish(0x30, "other", None, Some(b"")),
        publish(0x32, "other", Some(1), Some(b"")),
        publish(0x34, "other", Some(2), Some(b"")),
        publish(0x30, "own/a", None, Some(b"")),
    ];
    let (to_broker, to_client, ended) = said(&mut guard, &sent.concat());
    assert_eq!((to_broker, ended), (sent[3].clone(), Ok(())));
    assert_eq!(
        to_client,
        b"\x40\x09\x00\x01\x87\x05\x1f\x00\x02no\x50\x09\x00\x02\x87\x05\x1f\x00\x02no"
    );

    let mut old = welcomed(4, Limits::default());
    assert_eq!(
        said(&mut old, &publish(0x30, "other", None, None)),
        (vec![], vec![], Ok(()))
    );
    let (_, _, ended) = said(&mut old, &publish(0x32, "other", Some(1), None));
    assert_eq!(ended.unwrap_err().reason(), Reason::NotAuthorized);
}

#[test]
fn an_alias_is_judged_by_what_it_stands_for() {
    let mut guard = welcomed(5, Limits::default());
    let named = publish(0x30, "own/a", None, Some(b"\x23\x00\x01"));
    let short = publish(0x30, "", None, Some(b"\x23\x00\x01"));
    assert_eq!(said(&mut guard, &named).0, named);
    assert_eq!(said(&mut guard, &short).0, short);
    // The alias comes to stand for what is refused: the broker does not hear of it, and neither of what it stands for.
    assert_eq!(
        said(&mut guard, &publish(0x30, "other", None, Some(b"\x23\x00\x01"))).0,
        b""
    );
    assert_eq!(said(&mut guard, &short).0, b"");
    // Once it is allowed, the topic is written out, since the broker takes the alias for `own/a`.
    let (mut bytes, mut flow) = (BytesMut::from(&short[..]), Flow::default());
    guard
        .from_client(&mut bytes, &mut |_: Act<'_>| true, &mut flow)
        .unwrap();
    assert_eq!(flow.to_broker.concat(), publish(0x30, "other", None, Some(b"")));

    let unknown = said(&mut guard, &publish(0x30, "", None, Some(b"\x23\x00\x02")))
        .2
        .unwrap_err();
    assert_eq!(unknown.reason(), Reason::Protocol);
    let beyond = said(&mut guard, &publish(0x30, "own/a", None, Some(b"\x23\x00\x0b")))
        .2
        .unwrap_err();
    assert_eq!(beyond.reason(), Reason::TopicAlias);
}

#[test]
fn refused_filters_are_answered_in_their_places() {
    let mut guard = welcomed(5, Limits::default());
    let all = packet(0x82, b"\x00\x07\x00\x00\x01#\x01\x00\x05own/x\x02\x00\x06$SYS/#\x00");
    let left = packet(0x82, b"\x00\x07\x00\x00\x05own/x\x02");
    assert_eq!(said(&mut guard, &all).0, left);
    let held = Act::Subscribe {
        filter: "own/x",
        qos: QoS::ExactlyOnce,
    };
    assert_eq!(guard.granted().collect::<Vec<_>>(), [held]);
    assert_eq!(
        heard(&mut guard, b"\x90\x04\x00\x07\x00\x02").unwrap(),
        b"\x90\x06\x00\x07\x00\x87\x02\x87"
    );
    assert!(
        heard(&mut guard, b"\x90\x04\x00\x07\x00\x02").is_err(),
        "answered twice"
    );

    let none = packet(0x82, b"\x00\x08\x00\x00\x01#\x01");
    let (to_broker, to_client, _) = said(&mut guard, &none);
    assert_eq!(
        (&to_broker[..], &to_client[..]),
        (&b""[..], &b"\x90\x09\x00\x08\x05\x1f\x00\x02no\x87"[..])
    );
    let mut old = welcomed(4, Limits::default());
    assert_eq!(
        said(&mut old, &packet(0x82, b"\x00\x08\x00\x01#\x01")).1,
        b"\x90\x03\x00\x08\x80"
    );
}

#[test]
fn answers_made_here_wait_for_the_end_of_a_message() {
    let mut guard = welcomed(
        5,
        Limits {
            replies: 2,
            ..Limits::default()
        },
    );
    let message = publish(0x30, "any/thing", None, Some(b""));
    let (one, two) = message.split_at(6);
    assert_eq!(heard(&mut guard, one).unwrap(), one);
    assert!(!guard.is_between_packets() && guard.farewell(Reason::Administrative, "").is_none());
    let refused = publish(0x32, "other", Some(1), Some(b""));
    let (_, to_client, _) = said(&mut guard, &refused.repeat(3));
    assert_eq!((to_client.as_slice(), guard.takes_more()), (&b""[..], false));
    let now = heard(&mut guard, two).unwrap();
    assert_eq!(
        (&now[..two.len()], &now[two.len()..two.len() + 2]),
        (two, &b"\x40\x09"[..])
    );
    assert!(guard.takes_more());
    assert_eq!(guard.farewell(Reason::Administrative, "").unwrap(), b"\xe0\x02\x98\x00");
}

#[test]
fn what_must_not_come_ends_the_connection_with_its_reason() {
    let hello = |bytes: &[u8]| read_hello(bytes, &Limits::default());
    assert_eq!(hello(b"\xc0\x00"), Err(Broken::Protocol("a packet before CONNECT")));
    assert_eq!(hello(b"\x10\xff\xff\xff\x7f"), Err(Broken::TooLong(268_435_460)));
    assert_eq!(hello(&connect(4)[..9]), Ok(None));
    for (bytes, reason) in [
        (connect(5), Reason::Protocol),
        (b"\xf0\x00".to_vec(), Reason::Protocol),
        (b"\x20\x02\x00\x00".to_vec(), Reason::Protocol),
        (b"\xc0\x01\x00".to_vec(), Reason::Malformed),
        (b"\x00\x00".to_vec(), Reason::Malformed),
        (b"\x30\xff\xff\xff\x7f".to_vec(), Reason::PacketTooLarge),
    ] {
        let ended = said(&mut welcomed(5, Limits::default()), &bytes).2;
        assert_eq!(ended.unwrap_err().reason(), reason, "{bytes:?}");
    }
    let limits = Limits {
        in_flight: 2,
        filters: 1,
        unanswered: 1,
        ..Limits::default()
    };
    let mut guard = welcomed(5, limits);
    let flood: Vec<u8> = (1..=3)
        .flat_map(|id| publish(0x34, "own/a", Some(id), Some(b"")))
        .collect();
    assert_eq!(said(&mut guard, &flood).2.unwrap_err().reason(), Reason::ReceiveMaximum);
    let mut guard = welcomed(5, limits);
    assert!(
        said(&mut guard, &packet(0x82, b"\x00\x07\x00\x00\x05own/x\x00"))
            .2
            .is_ok()
    );
    let more = packet(0x82, b"\x00\x08\x00\x00\x05own/y\x00");
    assert_eq!(said(&mut guard, &more).2.unwrap_err().reason(), Reason::ReceiveMaximum);
    heard(&mut guard, b"\x90\x04\x00\x07\x00\x00").unwrap();
    assert!(said(&mut guard, &more).1.ends_with(&[Reason::Quota.code()]));
}

#[test]
fn a_broker_that_speaks_out_of_turn_is_no_broker() {
    let limits = Limits::default();
    let fresh = || {
        Guard::new(
            read_hello(&connect(5), &limits).unwrap().unwrap().0,
            limits,
            String::new(),
        )
    };
    for bytes in [
        &b"\xd0\x00"[..],
        b"\x90\x03\x00\x01\x00",
        b"220 smtp",
        b"\x20\xff\xff\xff\x7f",
        b"\x20\x02\x02\x00",
    ] {
        assert!(heard(&mut fresh(), bytes).is_err(), "{bytes:?}");
    }
    assert!(
        heard(&mut welcomed(5, limits), b"\x20\x03\x00\x00\x00").is_err(),
        "CONNACK twice"
    );
    assert!(
        fresh()
            .farewell(Reason::Unavailable, "gone")
            .unwrap()
            .starts_with(b"\x20")
    );
    // Refused by the broker: its CONNACK was the last word.
    let mut refused = fresh();
    assert_eq!(
        heard(&mut refused, b"\x20\x03\x00\x87\x00").unwrap(),
        b"\x20\x03\x00\x87\x00"
    );
    assert_eq!(refused.farewell(Reason::Unavailable, ""), None);
}

#[test]
fn many_small_packets_pass_in_one_piece() {
    let mut guard = welcomed(5, Limits::default());
    let pings = b"\xd0\x00".repeat(30_000);
    let mut flow = Flow::default();
    guard.from_broker(pings.clone().into(), &mut flow).unwrap();
    assert_eq!((flow.to_client.len(), flow.to_client.concat()), (1, pings));
}

#[test]
fn a_session_that_a_broker_kept_is_not_taken_up() {
    let bytes = connect(4);
    let limits = Limits::default();
    let (hello, _) = read_hello(&bytes, &limits).unwrap().unwrap();
    assert!(heard(&mut Guard::new(hello, limits, String::new()), b"\x20\x02\x01\x00").is_err());
    let kept = [b"\x00\x04MQTT\x04\x00\x00\x3c", &b"\x00\x01a"[..]].concat();
    let asked = Connect::read(&kept).unwrap();
    assert!(!asked.clean_start);
    let sent = asked.to_bytes(asked.login);
    assert!(Connect::read(&sent[2..]).unwrap().clean_start);
}

#[test]
fn every_cut_of_the_same_bytes_comes_to_the_same() {
    let to_client = [
        b"\xd0\x00".to_vec(),
        publish(0x30, "any/thing", None, Some(b"")),
        b"\x40\x02\x00\x01\xb0\x04\x00\x09\x00\x00".to_vec(),
    ]
    .concat();
    let to_broker = [
        publish(0x32, "own/a", Some(1), Some(b"")),
        publish(0x32, "x", Some(2), Some(b"")),
        b"\xc0\x00".to_vec(),
    ]
    .concat();
    for cut in 0..=to_client.len() {
        let mut guard = welcomed(5, Limits::default());
        let (one, two) = to_client.split_at(cut);
        assert_eq!(
            [heard(&mut guard, one).unwrap(), heard(&mut guard, two).unwrap()].concat(),
            to_client,
            "{cut}"
        );
    }
    for cut in 0..=to_broker.len() {
        let mut guard = welcomed(5, Limits::default());
        let (mut bytes, mut flow) = (BytesMut::new(), Flow::default());
        for part in [&to_broker[..cut], &to_broker[cut..]] {
            bytes.extend_from_slice(part);
            guard.from_client(&mut bytes, &mut own, &mut flow).unwrap();
        }
        let passed = [publish(0x32, "own/a", Some(1), Some(b"")), b"\xc0\x00".to_vec()].concat();
        assert_eq!((flow.to_broker.concat(), bytes.len()), (passed, 0), "{cut}");
        assert_eq!(
            flow.to_client.concat(),
            b"\x40\x09\x00\x02\x87\x05\x1f\x00\x02no",
            "{cut}"
        );
    }
}
