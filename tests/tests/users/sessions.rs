//! Commands, terminals and files as another user, and their end.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Stdio;
use std::time::Duration;

use fairlead_tests::clients::{Running, Terminal, run, run_with, stock};
use fairlead_tests::netns;
use fairlead_tests::programs::until;

use crate::stage::{LISTED, Stage, deckhand, destination, processes_of};

/// A hang-up is followed by the kill after five seconds; this machine may be busy.
const GONE_LIMIT: Duration = Duration::from_secs(20);

async fn nothing_is_left() {
    until("nothing of the user's is left", GONE_LIMIT, async || {
        processes_of(deckhand()).is_empty().then_some(())
    })
    .await;
}

#[test]
fn a_command_runs_as_the_user_that_was_asked_for() {
    netns::alone("sessions::a_command_runs_as_the_user_that_was_asked_for", async {
        let stage = Stage::set(LISTED, None).await;
        let said = stage
            .on_as("deckhand", "id -un; id -gn; id -Gn; pwd; echo $HOME $USER $SHELL; umask; grep -E 'Cap(Prm|Eff)' /proc/self/status; env; echo wrong >&2; exit 7")
            .await;
        assert_eq!(said.code(), Some(7), "{}", said.stderr);
        assert_eq!(said.stderr, "wrong\n");
        let text = said.text();
        let lines: Vec<&str> = text.lines().collect();
        let home = stage.home().display().to_string();
        assert_eq!(lines[..3], ["deckhand", "deckhand", "deckhand deckhand-crew"], "{text}");
        assert_eq!(
            lines[3..5],
            [home.clone(), format!("{home} deckhand /bin/bash")],
            "{text}"
        );
        let none = "0000000000000000";
        assert_eq!(
            lines[6..8],
            [format!("CapPrm:\t{none}"), format!("CapEff:\t{none}")],
            "{text}"
        );
        assert!(text.contains("\nSSH_CLIENT=127.0.0.1 "), "{text}");
        assert!(
            !text.contains("FAIRLEAD") && !text.contains("CARGO"),
            "nothing of the agent's own: {text}"
        );

        let missing = stage.on_as("deckhand", "no-such-program-at-all").await;
        assert_eq!(missing.code(), Some(127), "{}", missing.stderr);
        let bytes: Vec<u8> = (0..1024 * 1024_u32 + 13)
            .map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8)
            .collect();
        let copied = run_with(stage.alice.ssh_command(&[&destination("deckhand"), "cat"]), &bytes)
            .await
            .succeeded();
        assert!(copied.stdout == bytes, "{} bytes came back", copied.stdout.len());
        let forbidden = stage.on_as("deckhand", "cat /etc/shadow").await;
        assert_eq!(forbidden.code(), Some(1), "{}", forbidden.text());
        nothing_is_left().await;
    });
}

#[test]
fn a_shell_on_a_terminal_is_the_users() {
    netns::alone("sessions::a_shell_on_a_terminal_is_the_users", async {
        let stage = Stage::set(LISTED, None).await;
        let ssh = stage.alice.ssh_command(&["-tt", &destination("deckhand")]);
        let arguments: Vec<_> = ssh.as_std().get_args().map(ToOwned::to_owned).collect();
        let mut terminal = Terminal::start("ssh", arguments, 40, 133);
        terminal
            .types("PS1=; echo $(id -un) owns $(stat -c %U $(tty)); shopt login_shell; stty size\r")
            .await;
        terminal.shows("deckhand owns deckhand").await;
        terminal.shows("login_shell    \ton").await;
        terminal.shows("40 133").await;
        terminal.resize(25, 81);
        terminal
            .types("until [ \"$(stty size)\" = '25 81' ]; do sleep 0.1; done; echo it fol''lows\r")
            .await;
        terminal.shows("it follows").await;
        terminal.types("echo rea''dy; sleep 1000\r").await;
        terminal.shows("ready").await;
        until("the program runs", GONE_LIMIT, async || {
            processes_of(deckhand())
                .iter()
                .any(|one| one.ends_with("sleep"))
                .then_some(())
        })
        .await;
        terminal.types("\u{3}").await;
        terminal.types("echo the co''de is $?\r").await;
        terminal.shows("the code is 130").await;
        terminal.types("exit 5\r").await;
        let (code, seen) = terminal.finish().await;
        assert_eq!(code, Some(5), "{seen}");
        nothing_is_left().await;
    });
}

#[test]
fn the_end_of_a_session_ends_all_of_the_users_programs_in_it() {
    netns::alone(
        "sessions::the_end_of_a_session_ends_all_of_the_users_programs_in_it",
        async {
            let stage = Stage::set(LISTED, None).await;
            let mut ssh = stage.alice.ssh_command(&[
                &destination("deckhand"),
                "trap '' HUP; sleep 1000 & (trap '' HUP; sleep 1001) & echo begun; cat; wait",
            ]);
            ssh.stdin(Stdio::piped());
            let mut running = Running::start(ssh);
            assert_eq!(running.line().await, "begun");
            until("all of them run", GONE_LIMIT, async || {
                let sleeping = processes_of(deckhand())
                    .iter()
                    .filter(|one| one.ends_with("sleep"))
                    .count();
                (sleeping == 2).then_some(())
            })
            .await;
            drop(running);
            nothing_is_left().await;

            // An interactive shell puts each job into a group of its own.
            let ssh = stage.alice.ssh_command(&["-tt", &destination("deckhand")]);
            let arguments: Vec<_> = ssh.as_std().get_args().map(ToOwned::to_owned).collect();
            let mut terminal = Terminal::start("ssh", arguments, 40, 133);
            terminal
                .types("set -m; nohup sleep 1002 & nohup sleep 1003 & echo jo''bs\r")
                .await;
            terminal.shows("jobs").await;
            until("both jobs run", GONE_LIMIT, async || {
                (processes_of(deckhand())
                    .iter()
                    .filter(|one| one.ends_with("sleep"))
                    .count()
                    == 2)
                    .then_some(())
            })
            .await;
            drop(terminal);
            nothing_is_left().await;
        },
    );
}

#[test]
fn files_are_carried_with_the_users_rights() {
    netns::alone("sessions::files_are_carried_with_the_users_rights", async {
        let stage = Stage::set(LISTED, None).await;
        let here = stage.machine.path().join("cargo");
        let bytes: Vec<u8> = (0..3 * 1024 * 1024_u32 + 7)
            .map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8)
            .collect();
        fs::write(&here, &bytes).unwrap();
        let back = stage.machine.path().join("back");
        let batch = format!("put {} hold\nls -l\nget hold {}\n", here.display(), back.display());
        let sftp = |program: &str| {
            let mut command = stock(program);
            command
                .arg("-F")
                .arg(stage.alice.dir().join("ssh_config"))
                .args(["-o", "BatchMode=yes"]);
            command
        };
        let mut put = sftp("sftp");
        put.args(["-b", "-", &destination("deckhand")]);
        run_with(put, batch.as_bytes()).await.succeeded();
        assert!(fs::read(&back).unwrap() == bytes, "what came back is what went");
        let stored = fs::metadata(stage.home().join("hold")).unwrap();
        assert_eq!(
            (stored.uid(), stored.gid(), stored.len()),
            (deckhand(), deckhand(), bytes.len() as u64)
        );

        let mut scp = sftp("scp");
        scp.arg(&here).arg(format!("{}:by-scp", destination("deckhand")));
        run(scp).await.succeeded();
        assert_eq!(fs::metadata(stage.home().join("by-scp")).unwrap().uid(), deckhand());
        let mut secret = sftp("scp");
        secret
            .arg(format!("{}:/etc/shadow", destination("deckhand")))
            .arg(&back);
        let refused = run(secret).await;
        assert!(
            refused.code() != Some(0) && refused.stderr.to_lowercase().contains("permission denied"),
            "{}",
            refused.stderr
        );
        nothing_is_left().await;
    });
}

#[test]
fn a_caller_may_leave_the_name_out_where_one_user_is_listed() {
    netns::alone(
        "sessions::a_caller_may_leave_the_name_out_where_one_user_is_listed",
        async {
            let mut stage = Stage::set("users: [deckhand]", None).await;
            assert_eq!(stage.on_as("alice", "id -un").await.succeeded().text(), "deckhand\n");
            assert!(stage.agent.is_alive());
        },
    );
}
