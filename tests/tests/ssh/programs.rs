//! Commands, shells and terminals: what comes back is what the device's program said.

use std::process::Stdio;

use fairlead_tests::clients::{Running, Terminal, run, run_with};
use sha2::{Digest, Sha256};
use tokio::io::AsyncWriteExt;

use crate::stage::account;

on_both_servers! {
    a_command_gives_its_output_errors_and_exit_code(stage) {
        let seven = run(stage.ssh(&["id -un; echo wrong >&2; exit 7"])).await;
        assert_eq!(seven.code(), Some(7), "{}", seven.stderr);
        assert_eq!((seven.text().trim(), seven.stderr.trim()), (account().as_str(), "wrong"));
        let missing = run(stage.ssh(&["no-such-program-at-all"])).await;
        assert_eq!(missing.code(), Some(127), "{}", missing.stderr);
        let killed = run(stage.ssh(&["kill -KILL $$"])).await;
        assert_eq!(killed.code(), Some(255), "a command that a signal ends is no success");
        stage.strike().await;
    }

    a_shell_reads_its_commands_from_standard_input(stage) {
        let shell = run_with(stage.ssh(&[]), b"echo one\nexit 3\n").await;
        assert_eq!((shell.text().as_str(), shell.code()), ("one\n", Some(3)), "{}", shell.stderr);
        stage.strike().await;
    }

    bytes_through_standard_input_and_output_are_the_same_bytes(stage) {
        // Every byte value, no line ends to speak of, and a length that no block divides.
        let bytes: Vec<u8> = (0..8 * 1024 * 1024_u32 + 13).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let copied = run_with(stage.ssh(&["cat"]), &bytes).await.succeeded();
        assert_eq!(Sha256::digest(&copied.stdout), Sha256::digest(&bytes), "{} bytes came back", copied.stdout.len());
        let summed = run_with(stage.ssh(&["sha256sum"]), &bytes).await.succeeded();
        let sum: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(summed.text().split(' ').next(), Some(sum.as_str()));
        stage.strike().await;
    }

    the_remote_end_of_input_does_not_end_the_output(stage) {
        let late = run_with(stage.ssh(&["cat >/dev/null; echo all of it read; exit 4"]), &[7; 300_000]).await;
        assert_eq!((late.text().as_str(), late.code()), ("all of it read\n", Some(4)), "{}", late.stderr);
        stage.strike().await;
    }

    a_terminal_has_the_size_of_the_callers_and_follows_it(stage) {
        let mut arguments = stage.alice.options();
        arguments.extend(["-tt", &stage.device, "tty -s && stty size; until [ \"$(stty size)\" = '25 81' ]; do sleep 0.1; done; echo it follows"].map(Into::into));
        let mut terminal = Terminal::start("ssh", arguments, 40, 133);
        terminal.shows("40 133").await;
        terminal.resize(25, 81);
        terminal.shows("it follows").await;
        let (code, seen) = terminal.finish().await;
        assert_eq!(code, Some(0), "{seen}");
        stage.strike().await;
    }

    top_runs_in_batch_and_on_a_terminal_that_is_left_with_q(stage) {
        let batch = run(stage.ssh(&["top -b -n1 | head -3"])).await.succeeded();
        assert!(batch.text().contains("load average"), "{}", batch.text());
        let mut arguments = stage.alice.options();
        arguments.extend(["-t", &stage.device, "top"].map(Into::into));
        let mut terminal = Terminal::start("ssh", arguments, 30, 100);
        terminal.shows("PID").await;
        terminal.types("q").await;
        let (code, seen) = terminal.finish().await;
        assert_eq!(code, Some(0), "{seen}");
        stage.strike().await;
    }

    control_c_on_a_terminal_interrupts_the_program(stage) {
        let mut arguments = stage.alice.options();
        arguments.extend(["-tt", &stage.device, "trap 'echo caught; exit 9' INT; echo ready; while :; do sleep 1; done"].map(Into::into));
        let mut terminal = Terminal::start("ssh", arguments, 24, 80);
        terminal.shows("ready").await;
        terminal.types("\u{3}").await;
        let (code, seen) = terminal.finish().await;
        assert!(code == Some(9) && seen.contains("caught"), "{code:?}: {seen}");
        stage.strike().await;
    }

    a_program_ends_when_its_caller_goes_away(stage) {
        let mut command = stage.ssh(&["echo $$; cat; :"]);
        command.stdin(Stdio::piped());
        let mut ssh = Running::start(command);
        let shell: u32 = ssh.line().await.parse().unwrap();
        ssh.stdin.as_mut().unwrap().write_all(b"still there\n").await.unwrap();
        assert_eq!(ssh.line().await, "still there");
        drop(ssh);
        let proc = format!("/proc/{shell}");
        fairlead_tests::lab::until("the end of the program", async || (!std::fs::exists(&proc).unwrap()).then_some(())).await;
        stage.strike().await;
    }
}
