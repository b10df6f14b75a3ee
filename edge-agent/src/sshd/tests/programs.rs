//! Shells and commands.

use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

#[tokio::test]
async fn a_command_gives_its_output_and_exit_status() {
    let device = Device::start().await;
    let output = run(device.ssh(&["echo out; echo err >&2; exit 7"])).await;
    assert_eq!(output.status.code(), Some(7), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "out\n");
    assert_eq!(text(&output.stderr), "err\n");
    assert_eq!(
        *device.rules.seen.lock().unwrap(),
        [format!("{} echo out; echo err >&2; exit 7", device.account.name)]
    );
    assert!(matches!(device.end().await, Ended::Finished));
}

#[tokio::test]
async fn a_command_that_a_signal_ends_is_no_success() {
    let device = Device::start().await;
    assert_eq!(run(device.ssh(&["kill -TERM $$"])).await.status.code(), Some(255));
}

#[tokio::test]
async fn a_program_starts_at_home_with_the_documented_environment() {
    let device = Device::start().await;
    let mut ssh = device.ssh(&[
        "-o",
        "SendEnv=LANG LC_TIME SECRET",
        "-o",
        "SetEnv=COLORTERM=truecolor LD_PRELOAD=/x.so",
        "--",
        "pwd; env",
    ]);
    ssh.env("LANG", "de_DE.UTF-8").env("LC_TIME", "C").env("SECRET", "x");
    let output = succeed(ssh).await;
    let (directory, environment) = output.split_once('\n').unwrap();
    assert_eq!(directory, device.account.home.to_str().unwrap());
    let mut names: Vec<&str> = environment
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, _)| name)
        .collect();
    names.sort_unstable();
    // PWD and its like are the shell's own.
    names.retain(|name| !matches!(*name, "PWD" | "OLDPWD" | "_" | "SHLVL"));
    assert_eq!(
        names,
        [
            "COLORTERM",
            "HOME",
            "LANG",
            "LC_TIME",
            "LOGNAME",
            "PATH",
            "SHELL",
            "SSH_CLIENT",
            "SSH_CONNECTION",
            "USER"
        ]
    );
    assert!(environment.contains("LANG=de_DE.UTF-8\n"));
    assert!(environment.contains("SSH_CLIENT=127.0.0.1 0 22\n"));
}

#[tokio::test]
async fn a_shell_is_a_login_shell_and_reads_its_commands_from_the_client() {
    let device = Device::start().await;
    let mut ssh = device.ssh(&["-T"]);
    ssh.stdin(Stdio::piped());
    let mut child = ssh.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"echo \"$0\"\nexit 3\n").await.unwrap();
    drop(stdin);
    let output = child.wait_with_output().await.unwrap();
    assert_eq!(
        (text(&output.stdout).as_str(), output.status.code()),
        ("-sh\n", Some(3))
    );
}

#[tokio::test]
async fn the_callers_name_may_be_used_as_user_name() {
    let device = Device::start().await;
    assert_eq!(
        succeed(device.ssh(&["-l", "alice", "--", "id -u"])).await.trim(),
        device.account.uid.to_string()
    );
}

#[tokio::test]
async fn a_terminal_has_the_clients_size_type_and_name() {
    let device = Device::start().await;
    // `script` gives the client a terminal of its own, with a size.
    let options: Vec<String> = device
        .options("id")
        .iter()
        .map(|option| format!("'{option}'"))
        .collect();
    let line = format!(
        "stty rows 31 cols 97; ssh {} -tt 127.0.0.1 'stty size; echo $TERM; tty; echo $SSH_TTY'",
        options.join(" ")
    );
    let mut script = program("script");
    script
        .args(["-q", "-e", "-c", &line, "/dev/null"])
        .env("TERM", "xterm-256color");
    let output = succeed(script).await.replace('\r', "");
    // `script` itself echoes a NUL when its own input is at its end, wherever the output then is.
    let output = output.replace("^@", "");
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!(lines[..2], ["31 97", "xterm-256color"], "{output}");
    assert!(lines[2].starts_with("/dev/pts/"), "{output}");
    assert_eq!(lines[2], lines[3]);
}

#[tokio::test]
async fn a_shell_on_a_terminal_is_told_that_input_has_ended() {
    let device = Device::start().await;
    let mut ssh = device.ssh(&["-tt"]);
    ssh.stdin(Stdio::piped());
    let mut child = ssh.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"stty -echo; echo one$((1+1))\n").await.unwrap();
    drop(stdin);
    let output = timeout(PATIENCE, child.wait_with_output()).await.unwrap().unwrap();
    assert!(text(&output.stdout).contains("one2"), "{output:?}");
    assert_eq!(output.status.code(), Some(0));
}

#[tokio::test]
async fn everything_that_goes_in_comes_out_though_neither_side_waits() {
    // A program that reads only while it can write: blocking on its input would stop its output, and so for ever.
    let device = Device::start().await;
    let sent = noise(48 * 1024 * 1024, 1);
    // New keys every mebibyte: nothing may be lost or stuck while they are made.
    let mut ssh = device.ssh(&["-o", "RekeyLimit=1M", "--", "cat"]);
    ssh.stdin(Stdio::piped());
    let mut child = ssh.spawn().unwrap();
    let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let input = sent.clone();
    let mut received = Vec::new();
    let feed = async {
        stdin.write_all(&input).await.unwrap();
        drop(stdin);
    };
    let drain = async {
        // The client is slow to begin with: first everything fills up in both directions.
        tokio::time::sleep(Duration::from_millis(1500)).await;
        stdout.read_to_end(&mut received).await.unwrap();
    };
    timeout(PATIENCE, async { tokio::join!(feed, drain) })
        .await
        .expect("no deadlock");
    assert!(received == sent, "{} bytes of {}", received.len(), sent.len());
    assert!(child.wait().await.unwrap().success());
}

#[tokio::test]
async fn a_client_that_does_not_read_stops_the_program_and_not_the_memory() {
    let device = Device::start().await;
    let counter = device.home("count");
    let mut ssh = device.ssh(&["i=0; while head -c 65536 /dev/zero; do i=$((i+1)); echo $i > count; done"]);
    let mut child = ssh.spawn().unwrap();
    let written = || {
        std::fs::read_to_string(&counter)
            .ok()
            .and_then(|text| text.trim().parse::<u64>().ok())
            .unwrap_or(0)
            * 65536
    };
    // It stops by itself: two readings a second apart agree.
    let mut before = u64::MAX;
    let settled = timeout(PATIENCE, async {
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let now = written();
            if now > 0 && now == before {
                return now;
            }
            before = now;
        }
    });
    // 2 MiB are OpenSSH's own window, 64 KiB each the pipes, the rest is ours and the kernel's socket buffers.
    let held = settled.await.expect("it stops");
    assert!(held < 12 * 1024 * 1024, "{held}");
    child.kill().await.unwrap();
}

#[tokio::test]
async fn a_killed_client_leaves_no_program() {
    let device = Device::start().await;
    // A shell in between, a job that ignores the hang-up, and one that has closed everything.
    for (terminal, mark) in [("-T", mark(271_828)), ("-tt", mark(271_829))] {
        let command =
            format!("(trap '' HUP; sleep {mark}.1 & sleep {mark}.2 </dev/null >/dev/null 2>&1 & wait); sleep {mark}.3");
        let mut ssh = device.ssh(&[terminal, "--", &command]);
        ssh.stdin(Stdio::piped());
        let mut child = ssh.spawn().unwrap();
        eventually("the programs run", || {
            is_running(&format!("sleep {mark}.1")) && is_running(&format!("sleep {mark}.2"))
        })
        .await;
        child.kill().await.unwrap();
        let end = device.end().await;
        assert!(matches!(end, Ended::Finished), "{end:?}");
        assert!(!is_running(&format!("sleep {mark}")), "something is left of {terminal}");
    }
}

#[tokio::test]
async fn jobs_of_a_shell_end_with_its_terminal() {
    let device = Device::with(Plan {
        shell: "/bin/bash",
        ..Plan::default()
    })
    .await;
    let mut ssh = device.ssh(&["-tt"]);
    ssh.stdin(Stdio::piped());
    let mut child = ssh.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // Job control gives each job a process group of its own.
    stdin
        .write_all(
            format!(
                "(trap '' HUP; exec sleep {}.1) &\n(trap '' HUP; exec sleep {}.2)\n",
                mark(314_159),
                mark(314_159)
            )
            .as_bytes(),
        )
        .await
        .unwrap();
    eventually("the jobs run", || {
        is_running(&format!("sleep {}.1", mark(314_159))) && is_running(&format!("sleep {}.2", mark(314_159)))
    })
    .await;
    child.kill().await.unwrap();
    let end = device.end().await;
    assert!(matches!(end, Ended::Finished), "{end:?}");
    assert!(!is_running(&format!("sleep {}", mark(314_159))), "a job is left");
}

#[tokio::test]
async fn what_a_command_leaves_behind_ends_with_its_channel() {
    let device = Device::start().await;
    let start = Instant::now();
    succeed(device.ssh(&[&format!(
        "sleep {}.1 </dev/null >/dev/null 2>&1 & echo started",
        mark(161_803)
    )]))
    .await;
    assert!(start.elapsed() < Duration::from_secs(5), "the client need not wait");
    eventually("nothing is left", || !is_running(&format!("sleep {}.1", mark(161_803)))).await;
}

#[tokio::test]
async fn a_withdrawn_permission_ends_the_session_with_its_reason() {
    let device = Device::start().await;
    let mut child = device
        .ssh(&[&format!("echo ready; sleep {}.1", mark(577_215))])
        .spawn()
        .unwrap();
    let mut ready = [0; 6];
    child.stdout.as_mut().unwrap().read_exact(&mut ready).await.unwrap();
    let start = Instant::now();
    device.lapse("fairlead: revoked (session s-0001)");
    let output = timeout(PATIENCE, child.wait_with_output()).await.unwrap().unwrap();
    assert!(start.elapsed() < Duration::from_secs(2));
    assert!(
        text(&output.stderr).contains("fairlead: revoked (session s-0001)"),
        "{}",
        text(&output.stderr)
    );
    assert!(matches!(device.end().await, Ended::Lapsed(_)));
    assert!(!is_running(&format!("sleep {}.1", mark(577_215))));
}

#[tokio::test]
async fn a_withdrawn_permission_ends_a_session_whose_client_does_not_read() {
    let device = Device::start().await;
    let endless = format!("yes {}.1", mark(141_421));
    let mut child = device.ssh(&[&endless]).spawn().unwrap();
    eventually("the program runs", || is_running(&endless)).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let start = Instant::now();
    device.lapse("fairlead: revoked");
    let end = device.end().await;
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
    assert!(matches!(end, Ended::Lapsed(_)));
    assert!(!is_running(&endless));
    child.kill().await.unwrap();
}

#[tokio::test]
async fn a_stopping_agent_says_so() {
    let device = Device::start().await;
    let child = device.ssh(&[&format!("sleep {}.1", mark(173_205))]).spawn().unwrap();
    eventually("the program runs", || is_running(&format!("sleep {}.1", mark(173_205)))).await;
    device.stop.cancel();
    let output = timeout(PATIENCE, child.wait_with_output()).await.unwrap().unwrap();
    assert!(
        text(&output.stderr).contains("the agent is stopping"),
        "{}",
        text(&output.stderr)
    );
    eventually("nothing is left", || !is_running(&format!("sleep {}.1", mark(173_205)))).await;
}

#[tokio::test]
async fn a_missing_home_is_said_and_does_not_keep_anybody_out() {
    let device = Device::start().await;
    std::fs::remove_dir(&device.account.home).unwrap();
    let output = run(device.ssh(&["pwd"])).await;
    assert_eq!(text(&output.stdout), "/\n");
    assert!(
        text(&output.stderr).contains("home directory"),
        "{}",
        text(&output.stderr)
    );
}

#[tokio::test]
async fn several_channels_share_a_connection() {
    let device = Device::start().await;
    let socket = device.path("control");
    let control = format!("ControlPath={}", socket.display());
    let mut master = device.ssh(&["-o", &control, "-M", "-N"]).spawn().unwrap();
    eventually("the master is up", || socket.exists()).await;
    let commands: Vec<_> = (0..8).map(|number| format!("echo {number}; exit {number}")).collect();
    let all = commands
        .iter()
        .map(|command| run(device.ssh(&["-o", &control, "--", command])));
    for (number, output) in futures_in_order(all).await.into_iter().enumerate() {
        assert_eq!(
            (text(&output.stdout), output.status.code()),
            (format!("{number}\n"), Some(i32::try_from(number).unwrap()))
        );
    }
    master.kill().await.unwrap();
}

/// Runs futures side by side, results in their order.
async fn futures_in_order<F: Future<Output = Output>>(all: impl Iterator<Item = F>) -> Vec<Output> {
    let mut running: Vec<_> = all.map(|future| (Box::pin(future), None)).collect();
    std::future::poll_fn(|context| {
        for (future, result) in &mut running {
            if result.is_none()
                && let std::task::Poll::Ready(output) = future.as_mut().poll(context)
            {
                *result = Some(output);
            }
        }
        if running.iter().all(|(_, result)| result.is_some()) {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
    running.into_iter().filter_map(|(_, result)| result).collect()
}
