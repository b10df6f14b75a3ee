use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::quic::loopback::Pair;
use crate::relay::Sink;

type Halves = (Sender, Receiver);

/// A stream that the gateway opened: its end and the agent's, the byte that made the agent see it taken out.
async fn stream(gateway: &Connection, agent: &Connection) -> (Halves, Halves) {
    let (mut send, receive) = gateway.open().await.unwrap();
    send.write_all(b"!").await.unwrap();
    let (agent_send, mut agent_receive) = agent.accept().await.unwrap();
    agent_receive.read_exact(&mut [0]).await.unwrap();
    ((send, receive), (agent_send, agent_receive))
}

fn over(pair: &Pair) -> (Connection, Connection) {
    (pair.gateway.clone().into(), pair.agent.clone().into())
}

#[tokio::test]
async fn delivery_is_told_from_a_peer_that_reads_no_further() {
    let pair = Pair::new().await;
    let (gateway, agent) = over(&pair);
    let ((mut send, _receive), (_agent_send, mut agent_receive)) = stream(&gateway, &agent).await;
    send.write_all(b"bye").await.unwrap();
    Sink::finish(&mut send).await.unwrap();
    let mut said = Vec::new();
    let (told, read) = tokio::join!(
        send.delivered(Duration::from_secs(5)),
        agent_receive.read_to_end(&mut said)
    );
    assert!(told);
    assert_eq!((read.unwrap(), said.as_slice()), (3, b"bye".as_slice()));

    let ((mut send, _receive), (_agent_send, mut agent_receive)) = stream(&gateway, &agent).await;
    send.write_all(b"bye").await.unwrap();
    Sink::finish(&mut send).await.unwrap();
    agent_receive.stop(3);
    assert!(!send.delivered(Duration::from_secs(5)).await);
}

#[tokio::test]
async fn as_many_streams_as_are_permitted_can_be_open_whatever_ended_before() {
    const PERMITTED: u32 = 300;
    let pair = Pair::new().await;
    let (gateway, agent) = over(&pair);
    agent.permit_streams(PERMITTED);
    // What has ended and is not told of yet is something else each time.
    for before in [0, 1, 20, 37, 38, 43, 44, 150, PERMITTED] {
        for _ in 0..before {
            let (ours, theirs) = stream(&gateway, &agent).await;
            for (send, mut receive) in [ours, theirs] {
                send.abort(0);
                receive.stop(0);
            }
        }
        let mut held = Vec::new();
        for number in 0..PERMITTED {
            let opened = tokio::time::timeout(Duration::from_secs(5), stream(&gateway, &agent)).await;
            held.push(opened.unwrap_or_else(|_| panic!("{number} of {PERMITTED} after {before} that ended")));
        }
    }
}

#[tokio::test]
async fn a_lost_connection_is_told_from_an_abandoned_stream() {
    let pair = Pair::new().await;
    let (gateway, agent) = over(&pair);
    let ((mut send, mut receive), (mut agent_send, mut agent_receive)) = stream(&gateway, &agent).await;
    agent_send.reset(3);
    agent_receive.stop(4);
    let read = receive.read(&mut [0]).await.unwrap_err();
    assert_eq!(send.stopped().await, Stopped::ByPeer(4));
    let written = send.write(b"?").await.unwrap_err();
    assert_eq!((abandoned_code(&read), abandoned_code(&written)), (Some(3), Some(4)));
    assert!(!connection_lost(&read) && !connection_lost(&written));

    let ((mut send, mut receive), _agent) = stream(&gateway, &agent).await;
    agent.close(12, "the agent stops");
    let read: io::Error = receive.read(&mut [0]).await.unwrap_err();
    let written = send.write(b"?").await.unwrap_err();
    assert!(connection_lost(&read) && connection_lost(&written));
    assert_eq!((abandoned_code(&read), abandoned_code(&written)), (None, None));
    assert_eq!((closed_code(&read), closed_code(&written)), (Some(12), Some(12)));
    assert!(matches!(gateway.closed().await, Closed::ByPeer { code: 12, .. }));
    assert!(matches!(agent.close_reason(), Some(Closed::Lost(_))));
}
