//! Clients that keep to no rule.

use tokio::io::AsyncWriteExt;

use super::raw::*;
use super::*;

#[tokio::test]
async fn a_key_that_is_only_offered_opens_nothing() {
    let mut raw = Raw::connect().await;
    raw.ask_for_authentication().await;
    let offer = raw.request(&raw.account.name, &raw.key, None);
    raw.send(&offer).await;
    assert_eq!(raw.receive().await.unwrap()[0], USERAUTH_PK_OK);
    raw.is_locked_out().await;
}

#[tokio::test]
async fn an_offer_of_one_key_does_not_help_the_signature_of_another() {
    let mut raw = Raw::connect().await;
    raw.ask_for_authentication().await;
    let user = raw.account.name.clone();
    let offer = raw.request(&user, &raw.key, None);
    raw.send(&offer).await;
    assert_eq!(raw.receive().await.unwrap()[0], USERAUTH_PK_OK);
    let own = key();
    for (claimed, signer) in [(own.clone(), own.clone()), (raw.key.clone(), own)] {
        let request = raw.request(&user, &claimed, Some(&signer));
        raw.send(&request).await;
        assert_eq!(raw.receive().await.unwrap()[0], USERAUTH_FAILURE);
    }
    raw.is_locked_out().await;
}

#[tokio::test]
async fn a_change_of_user_keeps_nothing_of_the_first() {
    let mut raw = Raw::connect().await;
    raw.ask_for_authentication().await;
    let offer = raw.request("alice", &raw.key, None);
    raw.send(&offer).await;
    assert_eq!(raw.receive().await.unwrap()[0], USERAUTH_PK_OK);
    // A signature that was made for one user is worth nothing for another.
    let signed_for_alice = raw.request("alice", &raw.key, Some(&raw.key));
    let mut request = packet(USERAUTH_REQUEST, &[&"mallory"]);
    request.extend_from_slice(&signed_for_alice[1 + 4 + "alice".len()..]);
    raw.send(&request).await;
    assert_eq!(raw.receive().await.unwrap()[0], USERAUTH_FAILURE);
    raw.is_locked_out().await;
}

#[tokio::test]
async fn the_servers_own_messages_do_not_authenticate() {
    let mut raw = Raw::connect().await;
    raw.send(&[USERAUTH_SUCCESS]).await;
    raw.ask_for_authentication().await;
    raw.send(&[USERAUTH_SUCCESS]).await;
    raw.send(&packet(USERAUTH_PK_OK, &[&"ssh-ed25519", &""])).await;
    raw.is_locked_out().await;
}

#[tokio::test]
async fn other_methods_are_not_even_tried() {
    let mut raw = Raw::connect().await;
    raw.ask_for_authentication().await;
    let user = raw.account.name.clone();
    for request in [
        packet(USERAUTH_REQUEST, &[&user.as_str(), &"ssh-connection", &"none"]),
        packet(
            USERAUTH_REQUEST,
            &[&user.as_str(), &"ssh-connection", &"password", &false, &""],
        ),
        packet(
            USERAUTH_REQUEST,
            &[&user.as_str(), &"ssh-connection", &"keyboard-interactive", &"", &""],
        ),
    ] {
        raw.send(&request).await;
        let answer = raw.receive().await.unwrap();
        assert_eq!(answer, packet(USERAUTH_FAILURE, &[&"publickey", &false]));
    }
    raw.is_locked_out().await;
}

#[tokio::test]
async fn the_seventh_attempt_is_the_end() {
    let mut raw = Raw::connect().await;
    raw.ask_for_authentication().await;
    let wrong = key();
    for attempt in 1..=7 {
        let request = raw.request("alice", &wrong, Some(&wrong));
        raw.send(&request).await;
        let answer = raw.receive().await.unwrap()[0];
        assert_eq!(
            answer,
            if attempt <= 6 { USERAUTH_FAILURE } else { DISCONNECT },
            "{attempt}"
        );
    }
    drop(raw.stream);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_says_nothing_is_dropped_in_time() {
    let mut raw = Raw::connect().await;
    let start = tokio::time::Instant::now();
    assert!(matches!(raw.end().await, Ended::TimedOut));
    assert!((29..=33).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
}

#[tokio::test]
async fn numbers_of_channels_that_were_never_opened_reach_nothing() {
    let mut raw = Raw::connect().await;
    raw.log_in().await;
    let channel = raw.open_well().await;
    for wrong in [0u32, 7, u32::MAX] {
        assert_ne!(wrong, channel);
        raw.send(&packet(CHANNEL_DATA, &[&wrong, &"x"])).await;
        raw.exec(wrong, "touch made").await;
        raw.send(&packet(CHANNEL_CLOSE, &[&wrong])).await;
    }
    raw.exec(channel, "echo here").await;
    raw.receive_kind(CHANNEL_SUCCESS).await;
    assert_eq!(raw.receive_kind(CHANNEL_DATA).await[9..], *b"here\n");
    assert_eq!(
        *raw.rules.seen.lock().unwrap(),
        [format!("{} echo here", raw.account.name)]
    );
}

#[tokio::test]
async fn a_channel_without_room_for_packets_leaves_no_task_behind() {
    let mut raw = Raw::connect().await;
    raw.log_in().await;
    raw.send(&packet(CHANNEL_OPEN, &[&"session", &0u32, &1024u32, &0u32]))
        .await;
    assert_eq!(raw.receive().await, None, "the connection ends");
    assert!(matches!(raw.end().await, Ended::Failed(_)));
    // No window is legal; it must not keep anything alive beyond the connection.
    let mut raw = Raw::connect().await;
    raw.log_in().await;
    let answer = raw.open(0, 1024).await;
    let channel = u32::from_be_bytes(answer[5..9].try_into().unwrap());
    raw.exec(channel, "echo never").await;
    raw.receive_kind(CHANNEL_SUCCESS).await;
    raw.stream.shutdown().await.unwrap();
    assert!(matches!(raw.end().await, Ended::Finished));
}

#[tokio::test]
async fn a_channel_runs_one_program() {
    let mut raw = Raw::connect().await;
    raw.log_in().await;
    let channel = raw.open_well().await;
    raw.exec(channel, "cat").await;
    raw.receive_kind(CHANNEL_SUCCESS).await;
    raw.exec(channel, "touch made").await;
    assert_eq!(raw.receive().await.unwrap()[0], 100, "CHANNEL_FAILURE");
    raw.send(&packet(CHANNEL_DATA, &[&channel, &"still here"])).await;
    assert_eq!(raw.receive_kind(CHANNEL_DATA).await[9..], *b"still here");
    assert_eq!(raw.rules.seen.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn more_data_than_the_window_allows_ends_the_connection() {
    let mut raw = Raw::connect().await;
    raw.log_in().await;
    let channel = raw.open_well().await;
    raw.exec(channel, &format!("sleep {}.1", mark(223_606))).await;
    raw.receive_kind(CHANNEL_SUCCESS).await;
    let flood = packet(CHANNEL_DATA, &[&channel, &vec![0; 32 * 1024].as_slice()]);
    let mut sent = 0;
    while raw.try_send(&flood).await.is_ok() && sent < 64 * 1024 * 1024 {
        sent += flood.len();
    }
    assert!(sent < 64 * 1024 * 1024, "it never ends");
    let end = raw.end().await;
    assert!(matches!(end, Ended::Finished | Ended::Failed(_)), "{end:?}");
    assert!(!is_running(&format!("sleep {}.1", mark(223_606))));
}

#[tokio::test]
async fn a_client_that_says_goodbye_and_stays_is_left() {
    let mut raw = Raw::connect().await;
    raw.log_in().await;
    let channel = raw.open_well().await;
    raw.exec(channel, &format!("sleep {}.1", mark(316_227))).await;
    raw.receive_kind(CHANNEL_SUCCESS).await;
    raw.send(&packet(DISCONNECT, &[&11u32, &"", &""])).await;
    let start = std::time::Instant::now();
    let end = raw.end().await;
    assert!(matches!(end, Ended::Finished), "{end:?}");
    assert!(start.elapsed() < Duration::from_secs(5));
    assert!(!is_running(&format!("sleep {}.1", mark(316_227))));
}

#[tokio::test]
async fn a_flood_of_extensions_costs_nothing() {
    let mut raw = Raw::connect().await;
    raw.log_in().await;
    for _ in 0..20_000 {
        raw.send(&packet(EXT_INFO, &[&1u32, &"server-sig-algs", &"x"])).await;
    }
    let channel = raw.open_well().await;
    raw.exec(channel, "echo here").await;
    assert_eq!(raw.receive_kind(CHANNEL_DATA).await[9..], *b"here\n");
}

#[tokio::test]
async fn sftp_requests_that_are_none_are_answered_or_end_the_channel() {
    let mut raw = Raw::connect().await;
    raw.log_in().await;
    let sftp = |bytes: &[u8]| {
        let mut framed = Vec::new();
        bytes.put(&mut framed);
        framed
    };
    let channel = raw.open_well().await;
    raw.send(&packet(CHANNEL_REQUEST, &[&channel, &"subsystem", &true, &"sftp"]))
        .await;
    raw.receive_kind(CHANNEL_SUCCESS).await;
    for (request, code) in [
        (&[17, 0, 0, 0, 9, 0, 0, 0, 1, b'/'][..], 5), // before the version
        (&[1, 0, 0, 0, 3][..], 0),                    // the version
        (&[17, 0, 0, 0, 9, 0xff, 0xff, 0xff, 0xff][..], 5),
        (&[99, 0, 0, 0, 9][..], 8),
        (&[][..], 8),
        (&[4, 0, 0, 0, 9, 0, 0, 0, 1, b'7'][..], 4),
    ] {
        raw.send(&packet(CHANNEL_DATA, &[&channel, &sftp(request).as_slice()]))
            .await;
        let answer = raw.receive_kind(CHANNEL_DATA).await;
        if code == 0 {
            assert_eq!(answer[13], 2, "the version's answer");
        } else {
            assert_eq!(
                (answer[13], u32::from_be_bytes(answer[18..22].try_into().unwrap())),
                (101, code),
                "{request:?}"
            );
        }
    }
    raw.send(&packet(CHANNEL_DATA, &[&channel, &&[0x7f, 0xff, 0xff, 0xff, 5][..]]))
        .await;
    raw.receive_kind(CHANNEL_CLOSE).await;
}
