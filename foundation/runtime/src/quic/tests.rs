use super::loopback::{LOOPBACK, Pair, tls};
use super::*;
use quinn_proto::ConnectionIdGenerator;

const LONG: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_pair_connects_and_the_agent_lets_the_gateway_open_streams() {
    let pair = Pair::new().await;
    let ((mut recv, _send), (_agent_recv, mut agent_send)) = pair.stream().await;
    agent_send.write_all(b"hello").await.unwrap();
    agent_send.finish().unwrap();
    assert_eq!(recv.read_to_end(10).await.unwrap(), b"hello");
}

#[tokio::test]
async fn a_gateway_lets_few_streams_be_open_and_none_of_one_direction() {
    let pair = Pair::new().await;
    let mut held = Vec::new();
    for _ in 0..GATEWAY_STREAMS {
        held.push(pair.agent.open_bi().await.unwrap());
    }
    let one_more = tokio::time::timeout(Duration::from_millis(50), pair.agent.open_bi()).await;
    assert!(one_more.is_err());
    assert!(
        tokio::time::timeout(Duration::from_millis(50), pair.agent.open_uni())
            .await
            .is_err()
    );
}

#[test]
fn a_restarted_gateway_resets_the_flows_of_its_former_life() {
    let runtime = || {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap()
    };
    let (server_tls, client_tls) = tls();
    let gateway = |on: &tokio::runtime::Runtime, address, tls| {
        let _inside = on.enter();
        endpoint(
            socket(address).unwrap(),
            endpoint_config(&[9; 64]),
            Some(server_config(tls)),
        )
        .unwrap()
    };
    let (first_life, agents, second_life) = (runtime(), runtime(), runtime());
    let first = gateway(&first_life, LOOPBACK, server_tls);
    let address = first.local_addr().unwrap();
    // Each end's connection lives on the runtime that made it.
    let (accepted, agent) = std::thread::scope(|scope| {
        let accepting = scope.spawn(|| first_life.block_on(async { first.accept().await.unwrap().await.unwrap() }));
        let agent = agents.block_on(async {
            let dialling = endpoint(socket(LOOPBACK).unwrap(), EndpointConfig::default(), None).unwrap();
            dialling
                .connect_with(client_config(client_tls, Role::Agent), address, "gw.test")
                .unwrap()
                .await
                .unwrap()
        });
        (accepting.join().unwrap(), agent)
    });
    // Who would send a close is ended before the connection is dropped: a killed process says nothing.
    first_life.shutdown_timeout(LONG);
    drop((accepted, first));
    let _second = gateway(&second_life, address, tls().0);
    let lost = agents.block_on(async {
        // The reset may be there before the question: whatever was on its way to the first life is answered by the second.
        if let Ok((mut send, _recv)) = agent.open_bi().await {
            drop(send.write_all(b"anybody there?").await);
        }
        tokio::time::timeout(Duration::from_secs(5), agent.closed())
            .await
            .unwrap()
    });
    assert!(matches!(lost, quinn::ConnectionError::Reset), "{lost}");
}

#[test]
fn connection_ids_of_one_key_are_recognised_and_of_another_are_not() {
    let mut ours = HashedConnectionIdGenerator::from_key(connection_id_key(&[1; 64]));
    let id = ours.generate_cid();
    assert!(
        HashedConnectionIdGenerator::from_key(connection_id_key(&[1; 64]))
            .validate(&id)
            .is_ok()
    );
    assert!(
        HashedConnectionIdGenerator::from_key(connection_id_key(&[2; 64]))
            .validate(&id)
            .is_err()
    );
}

#[test]
fn a_socket_takes_both_families_and_large_buffers_where_allowed() {
    let v6 = "[::]:0".parse().unwrap();
    // A machine without IPv6 has nothing to test here.
    if let Ok(socket) = socket(v6) {
        assert!(!socket2::SockRef::from(&socket).only_v6().unwrap());
    }
    let socket = socket(LOOPBACK).unwrap();
    assert!(socket2::SockRef::from(&socket).recv_buffer_size().unwrap() > 0);
    assert!(socket2::SockRef::from(&socket).nonblocking().unwrap());
}
