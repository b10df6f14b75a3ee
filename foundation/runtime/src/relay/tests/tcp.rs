//! Between two TCP connections.

use super::*;

#[tokio::test]
async fn bytes_go_both_ways_and_are_counted() {
    let (mut client, caller) = tcp().await;
    let (mut server, upstream) = tcp().await;
    let counters = Counters::new();
    let script = async {
        client.write_all(b"question").await.unwrap();
        let mut heard = [0; 8];
        server.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"question");
        server.write_all(b"ok").await.unwrap();
        client.read_exact(&mut heard[..2]).await.unwrap();
        assert_eq!(&heard[..2], b"ok");
        drop((client, server));
    };
    let (ended, ()) =
        within(async { tokio::join!(relay(caller, upstream, None, &counters, pending::<()>()), script) }).await;
    assert!(matches!(ended, Ended::Finished), "{ended:?}");
    assert_eq!((counters.to_upstream(), counters.to_caller()), (8, 2));
}

#[tokio::test]
async fn each_side_may_finish_first_and_still_listen() {
    for caller_first in [true, false] {
        let (client, caller) = tcp().await;
        let (server, upstream) = tcp().await;
        let counters = Counters::new();
        let script = async {
            let (mut first, mut second) = if caller_first {
                (client, server)
            } else {
                (server, client)
            };
            first.write_all(b"all I have").await.unwrap();
            first.shutdown().await.unwrap();
            let mut heard = Vec::new();
            second.read_to_end(&mut heard).await.unwrap();
            assert_eq!(heard, b"all I have");
            second.write_all(&pattern(300_000)).await.unwrap();
            second.shutdown().await.unwrap();
            heard.clear();
            first.read_to_end(&mut heard).await.unwrap();
            assert_eq!(heard, pattern(300_000));
        };
        let relayed = relay(caller, upstream, None, &counters, pending::<()>());
        let (ended, ()) = within(async { tokio::join!(relayed, script) }).await;
        assert!(matches!(ended, Ended::Finished), "{ended:?}");
    }
}

#[tokio::test]
async fn a_quiet_session_ends_at_its_idle_limit_and_both_sides_notice() {
    let (mut client, caller) = tcp().await;
    let (mut server, upstream) = tcp().await;
    let counters = Counters::new();
    let ended = within(relay(
        caller,
        upstream,
        Some(Duration::from_millis(50)),
        &counters,
        pending::<()>(),
    ))
    .await;
    assert!(matches!(ended, Ended::Idle), "{ended:?}");
    for end in [&mut client, &mut server] {
        assert_eq!(
            within(end.read(&mut [0])).await.unwrap_err().kind(),
            ErrorKind::ConnectionReset
        );
    }
}

#[tokio::test]
async fn a_lapse_ends_both_directions_with_bytes_in_flight() {
    let (mut client, caller) = tcp().await;
    let (mut server, upstream) = tcp().await;
    let counters = Counters::new();
    // Dropping the sender completes it.
    let (lapse, lapsed) = oneshot::channel::<()>();
    let mut lapse = Some(lapse);
    let data = pattern(1 << 20);
    let (mut client_read, mut client_write) = client.split();
    let (mut server_read, mut server_write) = server.split();
    let (ended, client_wrote, server_wrote, client_heard, server_heard) = within(async {
        tokio::join!(
            async { relay(caller, upstream, None, &counters, lapsed).await },
            flood(&mut client_write, &data),
            flood(&mut server_write, &data),
            read_to_cut(&mut client_read, || lapse = None),
            read_to_cut(&mut server_read, || ()),
        )
    })
    .await;
    assert!(matches!(ended, Ended::Lapsed), "{ended:?}");
    assert_reset(client_wrote, client_heard);
    assert_reset(server_wrote, server_heard);
}

#[tokio::test]
async fn a_lapse_that_came_before_carries_nothing() {
    let (mut client, caller) = tcp().await;
    let (_server, upstream) = tcp().await;
    client.write_all(b"too late").await.unwrap();
    let counters = Counters::new();
    let ended = within(relay(caller, upstream, None, &counters, async {})).await;
    assert!(matches!(ended, Ended::Lapsed), "{ended:?}");
    assert_eq!(counters.to_upstream(), 0);
}

#[tokio::test]
async fn an_aborted_caller_is_not_a_clean_end_for_the_upstream() {
    let (client, caller) = tcp().await;
    let (mut server, upstream) = tcp().await;
    let counters = Counters::new();
    let script = async {
        client.set_zero_linger().unwrap();
        drop(client);
        server.read(&mut [0]).await.unwrap_err().kind()
    };
    let relayed = relay(caller, upstream, None, &counters, pending::<()>());
    let (ended, at_server) = within(async { tokio::join!(relayed, script) }).await;
    assert!(matches!(ended, Ended::Failed(Side::Caller, _)), "{ended:?}");
    assert_eq!(at_server, ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_reader_that_stops_holds_back_the_sender_and_loses_nothing() {
    let (mut client, caller) = tcp().await;
    let (server, upstream) = tcp().await;
    let counters = Counters::new();
    let length = 64 << 20;
    let sent = AtomicU64::new(0);
    let (mut _server_read, mut server_write) = server.into_split();
    let sends = async {
        let data = pattern(1 << 20);
        for _ in 0..length >> 20 {
            server_write.write_all(&data).await.unwrap();
            sent.fetch_add(1 << 20, Ordering::Relaxed);
        }
        server_write.shutdown().await.unwrap();
    };
    let reads = async {
        // Until nothing moves any more, nobody reads.
        let mut before = u64::MAX;
        while before != sent.load(Ordering::Relaxed) {
            before = sent.load(Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let stalled_at = before;
        let mut all = Vec::new();
        client.read_to_end(&mut all).await.unwrap();
        client.shutdown().await.unwrap();
        (stalled_at, all.len())
    };
    let relayed = relay(caller, upstream, None, &counters, pending::<()>());
    let (ended, (), (stalled_at, read)) = within(async { tokio::join!(relayed, sends, reads) }).await;
    assert!(matches!(ended, Ended::Finished), "{ended:?}");
    // What was in flight lay in the kernel's buffers.
    assert!(stalled_at < 32 << 20, "{stalled_at}");
    assert_eq!(read, length);
}

#[tokio::test]
async fn a_face_that_kept_its_ends_says_its_last_words() {
    let (mut client, (mut from_caller, mut to_caller)) = tcp().await;
    let (_server, (mut from_upstream, mut to_upstream)) = tcp().await;
    let counters = Counters::new();
    let ended = relay_between(
        (&mut from_caller, &mut to_caller),
        (&mut from_upstream, &mut to_upstream),
        None,
        &counters,
        pin!(async {}),
    )
    .await;
    assert!(matches!(ended, Ended::Lapsed), "{ended:?}");
    to_caller.send(Bytes::from_static(b"57P01")).await.unwrap();
    to_caller.finish().await.unwrap();
    let mut heard = Vec::new();
    within(client.read_to_end(&mut heard)).await.unwrap();
    assert_eq!(heard, b"57P01");
}
