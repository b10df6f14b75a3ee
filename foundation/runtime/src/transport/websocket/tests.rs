use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::{Bytes, Message};

use super::*;
use crate::relay::{Batch, Sink as _, Source as _};
use crate::transport::{Closed, Connection, Receiver, Sender, Stopped, abandoned_code, closed_code, connection_lost};

const SOON: Duration = Duration::from_secs(5);
const SILENT: KeepAlive = KeepAlive {
    idle: Duration::from_secs(12),
    every: None,
};
const SPEAKING: KeepAlive = KeepAlive {
    idle: Duration::from_secs(12),
    every: Some(Duration::from_secs(7)),
};

impl Carrier for DuplexStream {
    fn export(&self, _output: &mut [u8], _label: &[u8]) -> bool {
        false
    }
}

fn address() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 443))
}

/// Both ends of a WebSocket after its handshake; the client's first.
async fn raw_pair() -> (Raw, Raw) {
    let (near, far) = duplex(64 * 1024);
    let wrap = async |stream: DuplexStream, role| {
        let stream: Box<dyn Carrier> = Box::new(stream);
        Raw::from_raw_socket(stream, role, Some(limits())).await
    };
    (wrap(near, Role::Client).await, wrap(far, Role::Server).await)
}

/// Dials by handing the other end to the gateway's side.
struct Parking {
    gateway: WebSocket,
    dialled: AtomicUsize,
}

impl Dial for Parking {
    fn dial(&self, stream: u64) -> Dialling {
        self.dialled.fetch_add(1, Ordering::Relaxed);
        let gateway = self.gateway.clone();
        Box::pin(async move {
            let (near, far) = raw_pair().await;
            gateway.park(far, stream);
            Ok(near)
        })
    }

    fn remote_address(&self) -> SocketAddr {
        address()
    }
}

/// A link: the gateway's end, the agent's, and their control streams.
struct Link {
    gateway: Connection,
    agent: Connection,
    control: ((Sender, Receiver), (Sender, Receiver)),
    parking: Arc<Parking>,
}

async fn link_with(gateway: KeepAlive, agent: KeepAlive) -> Link {
    let (near, far) = raw_pair().await;
    let gateway = WebSocket::serving(far, address(), gateway);
    let parking = Arc::new(Parking {
        gateway: gateway.clone(),
        dialled: AtomicUsize::new(0),
    });
    let agent = Connection::from(WebSocket::linked(near, Arc::clone(&parking) as Arc<dyn Dial>, agent));
    let gateway = Connection::from(gateway);
    let control = (gateway.accept().await.unwrap(), agent.open().await.unwrap());
    Link {
        gateway,
        agent,
        control,
        parking,
    }
}

async fn link() -> Link {
    link_with(SILENT, SPEAKING).await
}

type Halves = (Sender, Receiver);

impl Link {
    /// A session's stream: the gateway's end and the agent's; the byte that made the agent see it is read.
    async fn stream(&mut self) -> (Halves, Halves) {
        self.agent.permit_streams(8);
        // The agent reads its control stream all the time, as its shell does.
        let ((_, _), (_, listening)) = &mut self.control;
        let opening = async {
            let (mut send, receive) = self.gateway.open().await.unwrap();
            send.write_all(b"!").await.unwrap();
            (send, receive)
        };
        let accepting = async {
            let mut byte = [0];
            tokio::select! {
                accepted = self.agent.accept() => accepted.unwrap(),
                _ = listening.read(&mut byte) => panic!("nothing is said on the control stream"),
            }
        };
        let (near, mut far) = timeout(SOON, async { tokio::join!(opening, accepting) }).await.unwrap();
        far.1.read_exact(&mut [0]).await.unwrap();
        (near, far)
    }
}

#[tokio::test]
async fn bytes_go_both_ways_and_each_direction_ends_by_itself() {
    let mut link = link().await;
    let ((mut send, mut receive), (mut agent_send, mut agent_receive)) = link.stream().await;
    let much = vec![7; 3 * MAX_PAYLOAD + 5];
    let mut heard = Vec::new();
    let (sent, read) = tokio::join!(
        async {
            send.write_all(&much).await?;
            send.finish().await
        },
        agent_receive.read_to_end(&mut heard)
    );
    assert!(sent.is_ok() && read.is_ok() && heard == much);
    assert_eq!(send.stopped().await, Stopped::Delivered);

    agent_send.write_all(b"still here").await.unwrap();
    agent_send.finish().await.unwrap();
    assert_eq!(receive.chunk().await.unwrap().unwrap(), "still here");
    assert!(receive.chunk().await.unwrap().is_none());
}

#[tokio::test]
async fn a_relay_takes_several_messages_at_once_and_loses_none() {
    let mut link = link().await;
    let ((mut send, _receive), (_agent_send, mut agent_receive)) = link.stream().await;
    for part in ["one ", "two ", "three"] {
        send.send(Bytes::from_static(part.as_bytes())).await.unwrap();
    }
    send.finish().await.unwrap();
    let (mut batch, mut heard) = (Batch::new(), Vec::new());
    while agent_receive.fill(&mut batch).await.unwrap() {
        while let Some(bytes) = batch.pop() {
            heard.extend_from_slice(&bytes);
        }
    }
    assert_eq!(heard, b"one two three");
}

#[tokio::test]
async fn a_stream_that_is_broken_off_says_why_in_both_directions() {
    let mut link = link().await;
    let ((send, mut receive), (mut agent_send, mut agent_receive)) = link.stream().await;
    receive.stop(24);
    send.abort(24);
    let read = agent_receive.read(&mut [0]).await.unwrap_err();
    assert_eq!((abandoned_code(&read), connection_lost(&read)), (Some(24), false));
    assert_eq!(agent_send.stopped().await, Stopped::ByPeer(24));
    let written = agent_send.write(b"?").await.unwrap_err();
    assert_eq!(abandoned_code(&written), Some(24));
    assert!(link.agent.close_reason().is_none(), "the link goes on");
    link.stream().await;
}

#[tokio::test]
async fn an_answer_that_was_finished_arrives_though_the_rest_is_not_read() {
    let mut link = link().await;
    let ((_send, mut receive), (mut agent_send, mut agent_receive)) = link.stream().await;
    agent_send.write_all(b"refused").await.unwrap();
    agent_send.finish().await.unwrap();
    agent_receive.stop(9);
    drop((agent_send, agent_receive));
    let mut heard = Vec::new();
    receive.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard, b"refused");
}

#[tokio::test]
async fn a_cut_reaches_an_agent_that_reads_nothing() {
    let mut link = link().await;
    let ((mut send, mut receive), (agent_send, mut agent_receive)) = link.stream().await;
    let stuck = timeout(Duration::from_millis(50), send.write_all(&vec![0; 1024 * 1024])).await;
    assert!(stuck.is_err(), "nobody reads");
    receive.stop(24);
    send.abort(24);
    let ((_, _), (_, listening)) = &mut link.control;
    let mut byte = [0];
    tokio::select! {
        stopped = agent_send.stopped() => assert_eq!(stopped, Stopped::ByPeer(24)),
        _ = listening.read(&mut byte) => panic!("nothing is said on the control stream"),
        () = tokio::time::sleep(SOON) => panic!("the agent is not told"),
    }
    let read = agent_receive.read(&mut [0]).await.unwrap_err();
    assert_eq!(abandoned_code(&read), Some(24));
}

#[tokio::test]
async fn a_closed_link_ends_its_streams_with_the_number_it_was_closed_with() {
    for by_gateway in [true, false] {
        let mut link = link().await;
        let (near, far) = link.stream().await;
        let (gateway_control, agent_control) = link.control;
        let (closing, other, mut stream, mut control) = if by_gateway {
            (&link.gateway, &link.agent, far, agent_control)
        } else {
            (&link.agent, &link.gateway, near, gateway_control)
        };
        closing.close(11, "the gateway stops");
        let heard = control.1.read(&mut [0]).await.unwrap_err();
        assert_eq!((connection_lost(&heard), closed_code(&heard)), (true, Some(11)));
        let read = stream.1.read(&mut [0]).await.unwrap_err();
        assert_eq!((connection_lost(&read), closed_code(&read)), (true, Some(11)), "{read}");
        assert!(connection_lost(&stream.0.write(b"?").await.unwrap_err()));
        assert_eq!(stream.0.stopped().await, Stopped::Lost);
        let told = Closed::ByPeer {
            code: 11,
            text: "the gateway stops".into(),
        };
        assert_eq!(other.closed().await, told);
        assert!(matches!(closing.closed().await, Closed::Lost(_)));
        assert!(other.open().await.is_err() && closing.accept().await.is_err());
    }
}

#[tokio::test]
async fn a_few_connections_wait_and_more_are_dialled_when_the_gateway_asks() {
    let mut link = link().await;
    let mut held = Vec::new();
    for _ in 0..5 {
        held.push(link.stream().await);
    }
    let dialled = link.parking.dialled.load(Ordering::Relaxed);
    assert!((5..=5 + 4).contains(&dialled), "{dialled}");
}

#[tokio::test]
async fn before_sessions_are_permitted_nothing_is_dialled() {
    let link = link().await;
    let accepted = timeout(Duration::from_millis(50), link.agent.accept()).await;
    assert!(accepted.is_err());
    assert_eq!(link.parking.dialled.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn a_link_lives_by_its_heartbeat_and_dies_of_silence() {
    let mut link = link().await;
    let ((_, gateway), (_, agent)) = &mut link.control;
    let (mut near, mut far) = ([0], [0]);
    let both = async { tokio::join!(gateway.read(&mut near), agent.read(&mut far)) };
    assert!(timeout(Duration::from_secs(600), both).await.is_err(), "it lives");
    assert!(link.agent.rtt().is_some());

    // The agent is stopped: it neither reads nor speaks.
    let ((_, gateway), _) = &mut link.control;
    let began = tokio::time::Instant::now();
    let lost = gateway.read(&mut near).await.unwrap_err();
    assert!(connection_lost(&lost));
    assert!(began.elapsed() <= Duration::from_secs(12), "{:?}", began.elapsed());
    assert!(matches!(link.gateway.closed().await, Closed::Lost(why) if why.contains("timed out")));
}

#[tokio::test]
async fn who_sends_what_no_peer_of_ours_sends_is_closed_with_a_code() {
    let text = Message::text("dial 1");
    let huge = Message::binary(vec![0; MAX_MESSAGE + 1]);
    for (message, times, told) in [
        (text, 1, 1003),
        (huge, 1, 1009),
        (Message::Ping(Bytes::new()), 70, 1008),
    ] {
        let (mut near, far) = raw_pair().await;
        let connection = Connection::from(WebSocket::one(far, address()));
        let (_send, mut receive) = connection.accept().await.unwrap();
        let mut byte = [0];
        let (read, closed) = tokio::join!(receive.read(&mut byte), async {
            for _ in 0..times {
                drop(near.send(message.clone()).await);
            }
            loop {
                match timeout(SOON, near.next()).await.expect("an answer") {
                    Some(Ok(Message::Close(Some(frame)))) => return u16::from(frame.code),
                    Some(Ok(_)) => {}
                    other => panic!("{other:?}"),
                }
            }
        });
        assert!(connection_lost(&read.unwrap_err()));
        assert_eq!(closed, told);
    }
}

#[tokio::test]
async fn unmasked_frames_and_lengths_that_are_lies_close_the_connection_and_reserve_nothing() {
    let long_ping = [&[0x89, 0xfe, 0x00, 0x7e][..], &[0; 4 + 0x7e]].concat();
    let frames: [&[u8]; 6] = [
        // Unmasked; a length of 2^63 - 1; reserved bits (compression); a continuation of nothing; a long ping; an unknown kind.
        &[0x82, 0x01, 0x00],
        &[0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0],
        &[0xc2, 0x81, 0, 0, 0, 0, 7],
        &[0x80, 0x81, 0, 0, 0, 0, 7],
        &long_ping,
        &[0x83, 0x80, 0, 0, 0, 0],
    ];
    for bytes in frames {
        let (mut near, far) = duplex(1024);
        let far: Box<dyn Carrier> = Box::new(far);
        let far = Raw::from_raw_socket(far, Role::Server, Some(limits())).await;
        let connection = Connection::from(WebSocket::one(far, address()));
        let (_send, mut receive) = connection.accept().await.unwrap();
        near.write_all(bytes).await.unwrap();
        let read = timeout(SOON, receive.read(&mut [0])).await.expect("an end");
        assert!(connection_lost(&read.unwrap_err()), "{bytes:x?}");
        let mut answer = [0; 4];
        near.read_exact(&mut answer).await.unwrap();
        let code = u16::from_be_bytes([answer[2], answer[3]]);
        assert!(
            answer[0] == 0x88 && matches!(code, 1002 | 1009),
            "{bytes:x?}: {answer:x?}"
        );
    }
}

#[tokio::test]
async fn the_bytes_on_the_line_are_those_of_the_description() {
    // From the gateway nothing is masked, so that the bytes are always the same.
    let (mut near, far) = duplex(1024);
    let far: Box<dyn Carrier> = Box::new(far);
    let far = Raw::from_raw_socket(far, Role::Server, Some(limits())).await;
    let gateway = WebSocket::serving(far, address(), SILENT);
    let (parked, parked_far) = {
        let (near, far) = duplex(1024);
        let far: Box<dyn Carrier> = Box::new(far);
        (near, Raw::from_raw_socket(far, Role::Server, Some(limits())).await)
    };
    gateway.park(parked_far, 7);
    let gateway = Connection::from(gateway);
    let (mut control, _receive) = gateway.accept().await.unwrap();
    control.write_all(b"hello").await.unwrap();
    let (session, _) = gateway.open().await.unwrap();
    session.abort(24);
    let none_waits = timeout(Duration::from_millis(20), gateway.open()).await;
    assert!(none_waits.is_err());
    control.finish().await.unwrap();
    gateway.close(11, "the gateway stops");

    let mut said = Vec::new();
    let read = async |mut stream: DuplexStream, said: &mut Vec<u8>| drop(timeout(SOON, stream.read_to_end(said)).await);
    drop((control, _receive, gateway));
    read(std::mem::replace(&mut near, duplex(1).0), &mut said).await;
    let expected: Vec<u8> = [
        &b"\x82\x05hello"[..],
        b"\x81\x08cut 7 24",
        b"\x81\x06dial 1",
        b"\x82\x00",
        b"\x88\x13\x11\x9fthe gateway stops",
    ]
    .concat();
    assert_eq!(said, expected, "{}", String::from_utf8_lossy(&said));
    let mut said = Vec::new();
    read(parked, &mut said).await;
    assert_eq!(said, b"\x88\x02\x0f\xb8");
}
