//! Everything that must not be: who is not let in, and what is not done for those who are.

use std::process::Stdio;
use std::time::Duration;

use super::*;

async fn is_kept_out(device: &Device, key: &str, arguments: &[&str]) -> String {
    let output = run(device.ssh_with(key, arguments)).await;
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(255), "{said}");
    assert!(output.stdout.is_empty());
    assert!(device.rules.seen.lock().unwrap().is_empty(), "no act was begun");
    said
}

#[tokio::test]
async fn a_key_that_is_not_registered_is_refused() {
    let device = Device::start().await;
    device.write_key("other", &key());
    let said = is_kept_out(&device, "other", &["true"]).await;
    assert!(said.contains("Permission denied (publickey)"), "{said}");
    assert!(matches!(device.end().await, Ended::NotAdmitted(_)));
}

#[tokio::test]
async fn a_certificate_of_the_user_ca_for_the_caller_lets_in() {
    let device = Device::with(Plan {
        registered: false,
        ..Plan::default()
    })
    .await;
    let own = key();
    device.write_key("certified", &own);
    device.write_certificate("certified", &certificate(&own, "alice", &device.ca, CertType::User));
    assert_eq!(succeed(device.ssh_with("certified", &["echo in"])).await, "in\n");
}

#[tokio::test]
async fn certificates_that_are_not_the_callers_are_refused() {
    let device = Device::with(Plan {
        registered: false,
        ..Plan::default()
    })
    .await;
    let other_ca = key();
    let cases: [(&str, &str, &PrivateKey, CertType); 4] = [
        ("another CA", "alice", &other_ca, CertType::User),
        ("another principal", "bob", &device.ca, CertType::User),
        ("a host certificate", "alice", &device.ca, CertType::Host),
        ("the account instead of the caller", "root", &device.ca, CertType::User),
    ];
    for (index, (what, principal, ca, kind)) in cases.into_iter().enumerate() {
        let (own, name) = (key(), format!("wrong-{index}"));
        device.write_key(&name, &own);
        device.write_certificate(&name, &certificate(&own, principal, ca, kind));
        let said = is_kept_out(&device, &name, &["true"]).await;
        assert!(
            said.contains("Permission denied (publickey)") || said.contains("Certificate"),
            "{what}: {said}"
        );
    }
}

#[tokio::test]
async fn a_certificate_does_not_lend_its_rights_to_another_key() {
    let device = Device::with(Plan {
        registered: false,
        ..Plan::default()
    })
    .await;
    // The certificate is right, the private key beside it is not its own.
    device.write_key("stolen", &key());
    device.write_certificate("stolen", &certificate(&key(), "alice", &device.ca, CertType::User));
    is_kept_out(&device, "stolen", &["true"]).await;
}

#[tokio::test]
async fn a_wrong_user_name_is_told_the_right_one() {
    let device = Device::start().await;
    let said = is_kept_out(&device, "id", &["-l", "somebody-else", "--", "true"]).await;
    assert!(
        said.contains(&format!("logs everybody in as '{}'", device.account.name)),
        "{said}"
    );
    assert!(said.contains("alice@") && said.contains("session s-0001"), "{said}");
    // Only to those who have proven who they are.
    device.write_key("other", &key());
    let said = is_kept_out(&device, "other", &["-l", "somebody-else", "--", "true"]).await;
    assert!(!said.contains(&format!("'{}'", device.account.name)), "{said}");
}

#[tokio::test]
async fn an_act_without_permission_is_refused_in_the_clients_own_output() {
    for (allowed, arguments, act) in [
        (&["shell", "sftp"][..], &["true"][..], "exec"),
        (&["exec", "sftp"][..], &["-T"][..], "shell"),
        (&["exec", "sftp"][..], &["-tt"][..], "shell"),
        (&["exec", "shell"][..], &["-s", "--", "sftp"][..], "sftp"),
    ] {
        let device = Device::with(Plan {
            acts: allowed,
            ..Plan::default()
        })
        .await;
        let output = run(device.ssh(arguments)).await;
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(77));
        assert!(
            said.contains(&format!("fairlead: denied: {act} is not permitted (session s-0001)")),
            "{said}"
        );
        assert_eq!(
            *device.rules.seen.lock().unwrap(),
            [format!("{} may not {act}", device.account.name)],
            "the agent's rules are told, not asked"
        );
    }
}

#[tokio::test]
async fn sftp_without_permission_says_so_in_scp() {
    let device = Device::with(Plan {
        acts: &["exec"],
        ..Plan::default()
    })
    .await;
    let mut scp = program("scp");
    scp.args(device.options("id")).arg("/etc/hostname").arg("127.0.0.1:x");
    let output = run(scp).await;
    assert!(!output.status.success());
    assert!(
        text(&output.stderr).contains("sftp is not permitted"),
        "{}",
        text(&output.stderr)
    );
    assert!(!device.home("x").exists());
}

#[tokio::test]
async fn the_agents_own_rules_have_the_last_word() {
    let device = Device::start().await;
    *device.rules.forbidden.lock().unwrap() = Some("reboot".into());
    let output = run(device.ssh(&["touch made; reboot --dry"])).await;
    assert!(!output.status.success());
    let said = text(&output.stderr);
    assert!(
        said.contains("fairlead: denied: the rule about 'reboot' says no (session s-0001)"),
        "{said}"
    );
    assert!(!device.home("made").exists());
    assert_eq!(succeed(device.ssh(&["echo fine"])).await, "fine\n");
}

#[tokio::test]
async fn forwarding_from_the_client_is_refused() {
    let device = Device::start().await;
    let target = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = target.local_addr().unwrap().port();
    let reached = async { target.accept().await };
    let tried = async {
        let output = run(device.ssh(&["-W", &format!("127.0.0.1:{port}")])).await;
        assert!(!output.status.success());
        assert!(
            text(&output.stderr).contains("administratively prohibited"),
            "{}",
            text(&output.stderr)
        );
        // A Unix socket, through a local one.
        let local = device.path("forward");
        let forward = format!("{}:/run/systemd/private", local.display());
        let mut ssh = device.ssh(&["-N", "-L", &forward]).spawn().unwrap();
        eventually("the client listens", || local.exists()).await;
        let mut stream = tokio::net::UnixStream::connect(&local).await.unwrap();
        let mut byte = [0; 1];
        let end = timeout(PATIENCE, tokio::io::AsyncReadExt::read(&mut stream, &mut byte))
            .await
            .unwrap();
        assert!(matches!(end, Ok(0) | Err(_)));
        ssh.kill().await.unwrap();
    };
    tokio::select! {
        _ = reached => panic!("something was reached"),
        () = tried => {}
    }
}

#[tokio::test]
async fn forwarding_to_the_client_is_refused() {
    let device = Device::start().await;
    for forward in ["0:127.0.0.1:1", "/tmp/fairlead-test-forward:127.0.0.1:1"] {
        let output = run(device.ssh(&["-o", "ExitOnForwardFailure=yes", "-R", forward, "--", "echo in"])).await;
        assert!(!output.status.success(), "{forward}");
        assert!(output.stdout.is_empty());
        assert!(
            text(&output.stderr).contains("remote port forwarding failed"),
            "{}",
            text(&output.stderr)
        );
    }
    assert!(!Path::new("/tmp/fairlead-test-forward").exists());
}

#[tokio::test]
async fn agent_and_display_are_not_forwarded() {
    let device = Device::start().await;
    let agent = device.path("agent");
    let _agent = tokio::net::UnixListener::bind(&agent).unwrap();
    let mut ssh = device.ssh(&[
        "-A",
        "-X",
        "-o",
        "ForwardX11Trusted=yes",
        "--",
        "echo agent=$SSH_AUTH_SOCK display=$DISPLAY",
    ]);
    ssh.env("SSH_AUTH_SOCK", &agent).env("DISPLAY", "127.0.0.1:99");
    assert_eq!(succeed(ssh).await, "agent= display=\n");
}

#[tokio::test]
async fn other_subsystems_are_refused() {
    let device = Device::start().await;
    let output = run(device.ssh(&["-s", "--", "netconf"])).await;
    assert!(!output.status.success());
    assert!(
        text(&output.stderr).contains("the subsystem is not served here"),
        "{}",
        text(&output.stderr)
    );
}

#[tokio::test]
async fn a_command_that_the_rules_cannot_read_is_refused() {
    let device = Device::start().await;
    let mut ssh = device.ssh(&[]);
    ssh.arg(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(
        b"echo \xff",
    ));
    let output = run(ssh).await;
    assert!(!output.status.success());
    assert!(
        text(&output.stderr).contains("the command is not text"),
        "{}",
        text(&output.stderr)
    );
    let output = run(device.ssh(&[&format!("true {}", "x".repeat(64 * 1024))])).await;
    assert!(
        text(&output.stderr).contains("longer than 65536 bytes"),
        "{}",
        text(&output.stderr)
    );
    assert!(device.rules.seen.lock().unwrap().is_empty());
}

#[tokio::test]
async fn an_eleventh_channel_is_refused() {
    let device = Device::start().await;
    let socket = device.path("control");
    let control = format!("ControlPath={}", socket.display());
    let mut master = device.ssh(&["-o", &control, "-M", "-N"]).spawn().unwrap();
    eventually("the master is up", || socket.exists()).await;
    let mut running: Vec<_> = (0..10)
        .map(|_| {
            let mut ssh = device.ssh(&["-o", &control, "--", "echo up; cat"]);
            ssh.stdin(Stdio::piped());
            ssh.spawn().unwrap()
        })
        .collect();
    for child in &mut running {
        let mut up = [0; 3];
        tokio::io::AsyncReadExt::read_exact(child.stdout.as_mut().unwrap(), &mut up)
            .await
            .unwrap();
    }
    let output = run(device.ssh(&["-o", &control, "-o", "ControlMaster=no", "--", "echo in"])).await;
    assert!(
        text(&output.stderr).contains("Session open refused by peer"),
        "{}",
        text(&output.stderr)
    );
    // A place that becomes free can be taken.
    running.pop().unwrap().kill().await.unwrap();
    let mut free = false;
    for _ in 0..50 {
        if run(device.ssh(&["-o", &control, "--", "echo in"]))
            .await
            .stderr
            .is_empty()
        {
            free = true;
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(free);
    master.kill().await.unwrap();
}

#[tokio::test]
async fn weak_algorithms_are_not_spoken() {
    let device = Device::start().await;
    for option in [
        "KexAlgorithms=diffie-hellman-group14-sha256",
        "KexAlgorithms=ecdh-sha2-nistp256",
        "Ciphers=aes128-ctr",
        "Ciphers=aes256-cbc",
        "HostKeyAlgorithms=rsa-sha2-512",
    ] {
        let output = run(device.ssh(&["-o", option, "--", "true"])).await;
        assert!(
            text(&output.stderr).contains("no matching"),
            "{option}: {}",
            text(&output.stderr)
        );
    }
    for option in [
        "Ciphers=chacha20-poly1305@openssh.com",
        "Ciphers=aes128-gcm@openssh.com",
        "KexAlgorithms=curve25519-sha256",
        "Compression=yes",
    ] {
        assert_eq!(
            succeed(device.ssh(&["-o", option, "--", "echo in"])).await,
            "in\n",
            "{option}"
        );
    }
}

#[tokio::test]
async fn the_host_is_known_by_its_certificate() {
    let device = Device::with(Plan {
        host_certificate: true,
        ..Plan::default()
    })
    .await;
    assert_eq!(succeed(device.ssh(&["echo in"])).await, "in\n");
    let other = Device::start().await;
    std::fs::copy(device.path("known_hosts"), other.path("known_hosts")).unwrap();
    let output = run(other.ssh(&["echo in"])).await;
    assert!(
        text(&output.stderr).contains("Host key verification failed"),
        "{}",
        text(&output.stderr)
    );
}
