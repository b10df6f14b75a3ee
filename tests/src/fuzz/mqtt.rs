//! MQTT: the readers, and the guard between a client and a broker.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use fairlead_protocol::mqtt::guard::{Act, Flow, Guard, Limits, connect_on, read_hello, version_of};
use fairlead_protocol::mqtt::{ConnAck, Connect, Kind, Publish, SubAck, Subscribe, Unsubscribe, Version, header};

/// Reads the input as a packet of each kind.
///
/// Holds: no panic; a CONNECT that is read goes on as one that says the same.
pub fn readers(data: &[u8]) {
    for version in [Version::V4, Version::V5] {
        let _none = ConnAck::read(data, version);
        let _none = Subscribe::read(data, version).map(|read| read.only(|place| place % 2 == 0));
        let _none = Unsubscribe::read(data, version);
        let _none = SubAck::read(data, version);
        if let Ok(Some(head)) = header(data)
            && let Some(body) = data.get(head.length..head.packet())
            && head.kind == Kind::Publish
            && let Ok(message) = Publish::read(head, body, version)
        {
            assert!(!message.topic.contains(['+', '#', '\0']));
        }
    }
    let _none = version_of(data);
    if let Ok(connect) = Connect::read(data) {
        let on = connect.to_bytes(connect.login);
        let (hello, length) = read_hello(
            &on,
            &Limits {
                packet: 1 << 22,
                ..Limits::default()
            },
        )
        .expect("what was written is read")
        .expect("and is whole");
        assert_eq!((hello.client_id.as_str(), length), (connect.client_id, on.len()));
        assert!(connect_on(&on, None).is_ok());
    }
}

fn own(topic: &str) -> bool {
    topic.starts_with("own/")
}

/// The first byte chooses the version; what follows is a conversation: each piece has a byte that says whose it is and a
/// byte that says how long.
///
/// Holds: no panic; nothing reaches the broker that is not a whole packet, a message to a topic of the client's own (aliases
/// as the broker understands them), or a subscription to one.
pub fn guard(data: &[u8]) {
    let Some((first, mut rest)) = data.split_first() else {
        return;
    };
    let hello: &[u8] = if first & 1 == 0 {
        b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01c"
    } else {
        b"\x10\x0e\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x01c"
    };
    let limits = Limits {
        packet: 4096,
        in_flight: 16,
        aliases: 8,
        unanswered: 8,
        filters: 16,
        replies: 16,
    };
    let Ok(Some((hello, _))) = read_hello(hello, &limits) else {
        panic!("the hello is one");
    };
    let version = hello.version;
    let mut guard = Guard::new(hello, limits, "no".to_owned());
    let mut broker = Broker {
        version,
        unread: BytesMut::new(),
        aliases: BTreeMap::new(),
    };
    let mut client = BytesMut::new();
    let mut judge = |act: Act<'_>| match act {
        Act::Publish { topic, .. } => own(topic),
        Act::Subscribe { filter, .. } => own(filter),
    };
    while let [who, length, more @ ..] = rest {
        let (piece, behind) = more.split_at(usize::from(*length).min(more.len()));
        rest = behind;
        let mut flow = Flow::default();
        let ended = if who & 1 == 0 {
            client.extend_from_slice(piece);
            guard.from_client(&mut client, &mut judge, &mut flow)
        } else {
            guard.from_broker(Bytes::copy_from_slice(piece), &mut flow)
        };
        flow.to_broker.iter().for_each(|bytes| broker.hear(bytes));
        assert!(
            guard
                .granted()
                .all(|act| matches!(act, Act::Subscribe { filter, .. } if own(filter)))
        );
        if ended.is_err() || flow.leaves {
            return;
        }
    }
}

/// What a broker makes of what reaches it.
struct Broker {
    version: Version,
    unread: BytesMut,
    aliases: BTreeMap<u16, String>,
}

impl Broker {
    fn hear(&mut self, bytes: &[u8]) {
        self.unread.extend_from_slice(bytes);
        while let Some(head) = header(&self.unread).expect("only packets reach the broker") {
            if self.unread.len() < head.packet() {
                return;
            }
            let packet = self.unread.split_to(head.packet());
            let body = packet.get(head.length..).unwrap_or_default();
            match head.kind {
                Kind::Publish => {
                    let message = Publish::read(head, body, self.version).expect("a message that can be read");
                    let topic = match (message.topic, message.alias) {
                        ("", Some(alias)) => self
                            .aliases
                            .get(&alias)
                            .expect("an alias that the broker knows")
                            .clone(),
                        (topic, Some(alias)) => {
                            self.aliases.insert(alias, topic.to_owned());
                            topic.to_owned()
                        }
                        (topic, None) => topic.to_owned(),
                    };
                    assert!(own(&topic), "a message to {topic} reached the broker");
                }
                Kind::Subscribe => {
                    let asked = Subscribe::read(body, self.version).expect("a subscription that can be read");
                    assert!(
                        asked.filters.iter().all(|filter| own(filter.text)),
                        "a filter of others"
                    );
                }
                _ => {}
            }
        }
    }
}
