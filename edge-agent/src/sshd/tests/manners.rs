//! What OpenSSH's client has no option for: signals, exit signals and sizes on a live channel.

use russh::client::{self, Handle, Handler};
use russh::keys::{PrivateKeyWithHashAlg, PublicKeyOrCertificate};
use russh::{ChannelMsg, Sig};

use super::*;

struct AnyHost;

impl Handler for AnyHost {
    type Error = russh::Error;

    async fn check_server_key(&mut self, _: &PublicKeyOrCertificate) -> Result<bool, russh::Error> {
        Ok(true)
    }
}

async fn log_in(device: &Device) -> Handle<AnyHost> {
    let config = Arc::new(client::Config::default());
    let mut handle = client::connect(config, (Ipv4Addr::LOCALHOST, device.port), AnyHost)
        .await
        .unwrap();
    let key = PrivateKeyWithHashAlg::new(Arc::new(device.key.clone()), None);
    assert!(
        handle
            .authenticate_publickey(&device.account.name, key)
            .await
            .unwrap()
            .success()
    );
    handle
}

/// Everything a channel says until it is closed, or until its output contains `stop`.
async fn listen(channel: &mut russh::Channel<client::Msg>, stop: &str) -> (String, Vec<String>) {
    let (mut output, mut rest) = (String::new(), Vec::new());
    let heard = timeout(PATIENCE, async {
        while let Some(message) = channel.wait().await {
            match message {
                ChannelMsg::Data { data } => output.push_str(&text(&data)),
                ChannelMsg::Close => break,
                ChannelMsg::Success | ChannelMsg::WindowAdjusted { .. } => {}
                other => rest.push(format!("{other:?}")),
            }
            if !stop.is_empty() && output.contains(stop) {
                break;
            }
        }
    });
    heard
        .await
        .unwrap_or_else(|_| panic!("still waiting after {output:?} {rest:?}"));
    (output, rest)
}

#[tokio::test]
async fn a_signal_reaches_the_whole_group_and_its_exit_is_told() {
    let device = Device::start().await;
    let handle = log_in(&device).await;
    let mut channel = handle.channel_open_session().await.unwrap();
    channel
        .exec(
            true,
            format!("sh -c 'echo ready; sleep {}.1; echo no'; echo never", mark(244_948)),
        )
        .await
        .unwrap();
    listen(&mut channel, "ready").await;
    eventually("it sleeps", || is_running(&format!("sleep {}.1", mark(244_948)))).await;
    channel.signal(Sig::TERM).await.unwrap();
    let (output, rest) = listen(&mut channel, "").await;
    assert_eq!(output, "");
    assert_eq!(rest.len(), 2, "{rest:?}");
    assert_eq!(rest[0], "Eof");
    assert!(
        rest[1].starts_with("ExitSignal { signal_name: TERM, core_dumped: false"),
        "{rest:?}"
    );
    assert!(!is_running(&format!("sleep {}.1", mark(244_948))));
}

#[tokio::test]
async fn a_program_can_handle_its_signals() {
    let device = Device::start().await;
    let handle = log_in(&device).await;
    let mut channel = handle.channel_open_session().await.unwrap();
    let command = "trap 'echo one' INT; trap 'echo two' USR1; trap 'exit 9' HUP; echo ready; while :; do read x || sleep 0.02; done";
    channel.exec(true, command).await.unwrap();
    listen(&mut channel, "ready").await;
    channel.signal(Sig::INT).await.unwrap();
    listen(&mut channel, "one").await;
    channel.signal(Sig::USR1).await.unwrap();
    listen(&mut channel, "two").await;
    channel.signal(Sig::HUP).await.unwrap();
    // The shell may complain about its `sleep`, which the group's signals end too.
    let (_, rest) = listen(&mut channel, "").await;
    assert!(rest.contains(&"ExitStatus { exit_status: 9 }".to_owned()), "{rest:?}");
}

#[tokio::test]
async fn a_terminals_signal_goes_to_what_is_in_the_foreground() {
    let device = Device::with(Plan {
        shell: "/bin/bash",
        ..Plan::default()
    })
    .await;
    let handle = log_in(&device).await;
    let mut channel = handle.channel_open_session().await.unwrap();
    channel.request_pty(true, "xterm", 80, 24, 0, 0, &[]).await.unwrap();
    channel.request_shell(true).await.unwrap();
    channel
        .data(format!("sleep {}.1; echo st$((1))ll here\n", mark(264_575)).as_bytes())
        .await
        .unwrap();
    eventually("it sleeps", || is_running(&format!("sleep {}.1", mark(264_575)))).await;
    channel.signal(Sig::KILL).await.unwrap();
    listen(&mut channel, "st1ll here").await;
    channel.data(&b"exit 4\n"[..]).await.unwrap();
    let (_, rest) = listen(&mut channel, "").await;
    assert!(rest.contains(&"ExitStatus { exit_status: 4 }".to_owned()), "{rest:?}");
}

#[tokio::test]
async fn a_change_of_size_is_seen_by_the_program() {
    let device = Device::start().await;
    let handle = log_in(&device).await;
    let mut channel = handle.channel_open_session().await.unwrap();
    channel
        .request_pty(true, "xterm", 80, 24, 0, 0, &[(russh::Pty::ECHO, 0)])
        .await
        .unwrap();
    channel
        .exec(
            true,
            "trap 'stty size' WINCH; echo ready; while :; do read x || sleep 0.02; done",
        )
        .await
        .unwrap();
    listen(&mut channel, "ready").await;
    channel.window_change(132, 43, 0, 0).await.unwrap();
    assert!(listen(&mut channel, "43 132").await.0.contains("43 132"));
    // The control key goes through the terminal like any other.
    channel.data(&b"\x03"[..]).await.unwrap();
    let (_, rest) = listen(&mut channel, "").await;
    assert!(
        rest.iter().any(|told| told.contains("INT") || told.contains("130")),
        "{rest:?}"
    );
}

#[tokio::test]
async fn the_key_for_the_end_of_input_ends_a_program_that_reads_lines() {
    let device = Device::start().await;
    let handle = log_in(&device).await;
    for (input, echoed) in [("one\n", "one\r\n"), ("within a line", "within a line")] {
        let mut channel = handle.channel_open_session().await.unwrap();
        channel
            .request_pty(true, "xterm", 80, 24, 0, 0, &[(russh::Pty::ECHO, 0)])
            .await
            .unwrap();
        channel.exec(true, "cat").await.unwrap();
        channel.data(input.as_bytes()).await.unwrap();
        channel.eof().await.unwrap();
        let (output, rest) = listen(&mut channel, "").await;
        assert_eq!(output, echoed);
        assert!(rest.contains(&"ExitStatus { exit_status: 0 }".to_owned()), "{rest:?}");
    }
}

#[tokio::test]
async fn closing_a_channel_ends_its_program_and_nothing_else() {
    let device = Device::start().await;
    let handle = log_in(&device).await;
    let mut first = handle.channel_open_session().await.unwrap();
    let mut second = handle.channel_open_session().await.unwrap();
    first
        .exec(true, format!("echo ready; sleep {}.1", mark(282_842)))
        .await
        .unwrap();
    second.exec(true, "cat").await.unwrap();
    listen(&mut first, "ready").await;
    eventually("it sleeps", || is_running(&format!("sleep {}.1", mark(282_842)))).await;
    first.close().await.unwrap();
    eventually("it is gone", || !is_running(&format!("sleep {}.1", mark(282_842)))).await;
    second.data(&b"alive"[..]).await.unwrap();
    listen(&mut second, "alive").await;
}
