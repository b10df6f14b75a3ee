//! Over a real QUIC stream: TCP to stream at the gateway, stream to TCP at the agent.

use super::*;
use crate::transport::abandoned_code;
use quinn::{ReadError, VarInt};

#[tokio::test]
async fn a_session_through_both_programs_carries_every_byte_both_ways() {
    let pair = Pair::new().await;
    let (at_gateway, at_agent) = pair.stream().await;
    let (client, caller) = tcp().await;
    let (server, upstream) = tcp().await;
    let (counters, agent_counters) = (Counters::new(), Counters::new());
    let (up, down) = (pattern(9_000_001), pattern(7_000_003));
    let exchange = async |stream: TcpStream, send: &[u8]| {
        let (mut read, mut write) = stream.into_split();
        let mut heard = Vec::new();
        let sends = async {
            write.write_all(send).await.unwrap();
            write.shutdown().await.unwrap();
        };
        let ((), heard_bytes) = tokio::join!(sends, read.read_to_end(&mut heard));
        heard_bytes.unwrap();
        heard
    };
    let (gateway, agent, at_client, at_server) = within(async {
        tokio::join!(
            relay(caller, at_gateway, None, &counters, pending::<()>()),
            relay(at_agent, upstream, None, &agent_counters, pending::<()>()),
            exchange(client, &up),
            exchange(server, &down),
        )
    })
    .await;
    assert!(
        matches!((&gateway, &agent), (Ended::Finished, Ended::Finished)),
        "{gateway:?} {agent:?}"
    );
    assert!(at_server == up && at_client == down);
    for counters in [&counters, &agent_counters] {
        assert_eq!((counters.to_upstream(), counters.to_caller()), (9_000_001, 7_000_003));
    }
}

#[tokio::test]
async fn each_side_may_finish_first_and_still_listen() {
    for caller_first in [true, false] {
        let pair = Pair::new().await;
        let (at_gateway, at_agent) = pair.stream().await;
        let (client, caller) = tcp().await;
        let (server, upstream) = tcp().await;
        let (counters, agent_counters) = (Counters::new(), Counters::new());
        let script = async {
            let (mut first, mut second) = if caller_first {
                (client, server)
            } else {
                (server, client)
            };
            first.write_all(b"done").await.unwrap();
            first.shutdown().await.unwrap();
            let mut heard = Vec::new();
            second.read_to_end(&mut heard).await.unwrap();
            assert_eq!(heard, b"done");
            second.write_all(b"not yet").await.unwrap();
            let mut part = [0; 7];
            first.read_exact(&mut part).await.unwrap();
            assert_eq!(&part, b"not yet");
            second.shutdown().await.unwrap();
            assert_eq!(first.read(&mut part).await.unwrap(), 0);
        };
        let (gateway, agent, ()) = within(async {
            tokio::join!(
                relay(caller, at_gateway, None, &counters, pending::<()>()),
                relay(at_agent, upstream, None, &agent_counters, pending::<()>()),
                script
            )
        })
        .await;
        assert!(
            matches!((&gateway, &agent), (Ended::Finished, Ended::Finished)),
            "{gateway:?} {agent:?}"
        );
    }
}

#[tokio::test]
async fn a_quiet_session_ends_at_its_idle_limit_at_both_programs() {
    let pair = Pair::new().await;
    let (at_gateway, at_agent) = pair.stream().await;
    let (mut client, caller) = tcp().await;
    let (mut server, upstream) = tcp().await;
    let (counters, agent_counters) = (Counters::new(), Counters::new());
    let (gateway, agent) = within(async {
        tokio::join!(
            relay(
                caller,
                at_gateway,
                Some(Duration::from_millis(50)),
                &counters,
                pending::<()>()
            ),
            relay(at_agent, upstream, None, &agent_counters, pending::<()>()),
        )
    })
    .await;
    assert!(matches!(gateway, Ended::Idle), "{gateway:?}");
    let Ended::Failed(Side::Caller, error) = agent else {
        panic!("{agent:?}")
    };
    assert_eq!(abandoned_code(&error), Some(u64::from(NO_REASON)));
    for end in [&mut client, &mut server] {
        assert_eq!(
            within(end.read(&mut [0])).await.unwrap_err().kind(),
            ErrorKind::ConnectionReset
        );
    }
}

#[tokio::test]
async fn a_lapse_with_bytes_in_flight_is_a_cut_at_both_ends() {
    let pair = Pair::new().await;
    let (at_gateway, (mut agent_recv, mut agent_send)) = pair.stream().await;
    let (mut client, caller) = tcp().await;
    let counters = Counters::new();
    // Dropping the sender completes it.
    let (lapse, lapsed) = oneshot::channel::<()>();
    let mut lapse = Some(lapse);
    let data = pattern(256 * 1024);
    let floods = async {
        loop {
            if let Err(error) = agent_send.write_all(&data).await {
                return error;
            }
        }
    };
    let (mut client_read, mut client_write) = client.split();
    let client_floods = flood(&mut client_write, &data);
    let client_reads = read_to_cut(&mut client_read, || lapse = None);
    let agent_reads = async {
        loop {
            match agent_recv.read_chunk(MAX_CHUNK, true).await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("a cut looked like a clean end"),
                Err(error) => return error,
            }
        }
    };
    let (ended, stopped, client_wrote, client_heard, at_agent) = within(async {
        tokio::join!(
            async { relay(caller, at_gateway, None, &counters, lapsed).await },
            floods,
            client_floods,
            client_reads,
            agent_reads
        )
    })
    .await;
    assert!(matches!(ended, Ended::Lapsed), "{ended:?}");
    assert_reset(client_wrote, client_heard);
    assert!(matches!(at_agent, ReadError::Reset(_)), "{at_agent}");
    assert!(matches!(stopped, quinn::WriteError::Stopped(_)), "{stopped}");
}

#[tokio::test]
async fn a_relay_that_is_dropped_breaks_its_streams_off() {
    let pair = Pair::new().await;
    let (at_gateway, (mut agent_recv, _agent_send)) = pair.stream().await;
    let (_client, caller) = tcp().await;
    let counters = Counters::new();
    let running = relay(caller, at_gateway, None, &counters, pending::<()>());
    tokio::time::timeout(Duration::from_millis(20), running)
        .await
        .unwrap_err();
    let seen = within(agent_recv.read_chunk(10, true)).await.unwrap_err();
    assert_eq!(seen, ReadError::Reset(VarInt::from_u32(NO_REASON)));
}

#[tokio::test]
async fn a_code_the_peer_gave_is_found_in_the_failure() {
    let pair = Pair::new().await;
    let (at_gateway, (_agent_recv, mut agent_send)) = pair.stream().await;
    let (_client, caller) = tcp().await;
    agent_send.reset(VarInt::from_u32(23)).unwrap();
    let ended = within(relay(caller, at_gateway, None, &Counters::new(), pending::<()>())).await;
    let Ended::Failed(Side::Upstream, error) = ended else {
        panic!("{ended:?}")
    };
    assert_eq!(abandoned_code(&error), Some(23));
}

#[tokio::test]
async fn bytes_before_a_reset_do_not_hide_it() {
    let pair = Pair::new().await;
    let ((mut recv, _send), (_agent_recv, mut agent_send)) = pair.stream().await;
    agent_send.write_all(b"partial").await.unwrap();
    let mut batch = Batch::new();
    assert!(within(recv.fill(&mut batch)).await.unwrap());
    assert_eq!(batch.pop().unwrap(), "partial");
    agent_send.reset(VarInt::from_u32(1)).unwrap();
    assert!(within(recv.fill(&mut batch)).await.is_err());
}

#[tokio::test]
async fn a_reader_that_stops_holds_back_the_sender_within_the_stream_window() {
    let pair = Pair::new().await;
    let ((mut recv, send), (agent_recv, agent_send)) = pair.stream().await;
    let (mut server, upstream) = tcp().await;
    let counters = Counters::new();
    let sent = AtomicU64::new(0);
    let total = 16_u64 << 20;
    let sends = async {
        let data = pattern(64 * 1024);
        while sent.load(Ordering::Relaxed) < total {
            server.write_all(&data).await.unwrap();
            sent.fetch_add(data.len() as u64, Ordering::Relaxed);
        }
        server.shutdown().await.unwrap();
    };
    let reads = async {
        let mut before = u64::MAX;
        while before != counters.to_caller() {
            before = counters.to_caller();
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let held = before;
        let mut read = 0;
        while let Some(chunk) = recv.read_chunk(MAX_CHUNK, true).await.unwrap() {
            read += chunk.bytes.len() as u64;
        }
        drop(send);
        (held, read)
    };
    let relayed = relay((agent_recv, agent_send), upstream, None, &counters, pending::<()>());
    let (ended, (), (held, read)) = within(async { tokio::join!(relayed, sends, reads) }).await;
    assert!(matches!(ended, Ended::Finished), "{ended:?}");
    assert!(
        held <= u64::from(crate::quic::STREAM_WINDOW) + MAX_CHUNK as u64,
        "{held}"
    );
    assert_eq!(read, total);
}
