//! Starting a shell or a command, with pipes or with a terminal.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};

use nix::errno::Errno;
use nix::unistd::{AccessFlags, access};
use tokio::process::{Child, Command};

use super::environment::Environment;
use super::hangup::Group;
use super::program::{Program, Wires};
use super::switching::{self, RunAs, What};
use super::terminal::{self, Description, Line, Terminal};
use super::{Account, Login, Users};

/// A terminal's descriptor is inheritable for a moment while it is opened: nothing may be started meanwhile, or it would hold
/// the terminal open for as long as it lives.
static STARTING: Mutex<()> = Mutex::new(());

/// What a client asked to run.
pub(super) struct Request<'a> {
    pub(super) run_as: &'a RunAs,
    pub(super) users: &'a Users,
    pub(super) login: &'a Login,
    pub(super) what: What<'a>,
    pub(super) environment: Environment,
    pub(super) terminal: Option<Description>,
}

/// Starts a program as the group leader of its own processes.
pub(super) fn start(request: Request<'_>) -> io::Result<Program> {
    let RunAs { account, switched } = request.run_as;
    let (directory, notice) = directory(account, *switched);
    let _nobody_else = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
    let opened = request.terminal.as_ref().map(terminal::open).transpose()?;
    let described = request.terminal.as_ref().zip(opened.as_ref());
    let device = described.map(|(description, (_, line))| (description.kind(), line.device.as_path()));
    let environment = request.environment.complete(account, request.login, device);

    let mut command = if *switched {
        let (program, arguments) = switching::command_line(account, &directory, request.what, request.users);
        let mut command = Command::new(program);
        command.args(arguments).current_dir("/");
        command
    } else {
        own_command(&account.login_shell(), &directory, request.what)
    };
    command.env_clear().envs(environment).kill_on_drop(true);
    let mut program = match opened {
        None => start_with_pipes(command, notice)?,
        Some((terminal, line)) => {
            if *switched {
                // Programs that open their terminal by its name, as screen and gpg do, must own it.
                chown(&line.device, Some(account.uid), None)?;
            }
            start_with_terminal(command, terminal, line, notice)?
        }
    };
    program.group.waits_beside = *switched;
    Ok(program)
}

/// The shell itself, as what the agent is.
fn own_command(shell: &Path, directory: &Path, what: What<'_>) -> Command {
    let mut command = Command::new(shell);
    command.current_dir(directory);
    match what {
        What::Command(line) => command.arg0(base_name(shell)).arg("-c").arg(line),
        // Files are served without a program here.
        What::Shell | What::Files => command.arg0(login_name(shell)),
    };
    command
}

fn start_with_pipes(mut command: Command, notice: Option<String>) -> io::Result<Program> {
    command
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn()?;
    let missing = || io::Error::other("a pipe to the program is missing");
    let wires = Wires::Pipes {
        stdin: child.stdin.take().ok_or_else(missing)?,
        stdout: child.stdout.take().ok_or_else(missing)?,
        stderr: child.stderr.take().ok_or_else(missing)?,
    };
    program(child, wires, false, notice)
}

fn start_with_terminal(
    command: Command,
    terminal: Terminal,
    line: Line,
    notice: Option<String>,
) -> io::Result<Program> {
    let child = pty_process::Command::from(command)
        .spawn(line.pts)
        .map_err(io::Error::other)?;
    program(child, Wires::Terminal(terminal), true, notice)
}

fn program(child: Child, wires: Wires, owns_session: bool, notice: Option<String>) -> io::Result<Program> {
    let group = child.id().and_then(|leader| Group::new(leader, owns_session));
    let group = group.ok_or_else(|| io::Error::other("the program ended before it was started"))?;
    Ok(Program {
        child,
        group,
        wires,
        notice,
    })
}

/// Where programs start: at home, or at the root with a notice, as sshd does.
fn directory(account: &Account, switched: bool) -> (PathBuf, Option<String>) {
    let home = account.home.as_path();
    let is_open = if switched {
        // Only the user knows whether it may go there; that it is there is all that can be said before.
        let is_there = home.is_absolute() && home.is_dir();
        is_there.then_some(()).ok_or(Errno::ENOENT)
    } else {
        access(home, AccessFlags::X_OK)
    };
    match is_open {
        Ok(()) => (home.to_owned(), None),
        Err(error) => {
            let notice = format!(
                "Could not change directory to home directory {}: {error}\r\n",
                home.display()
            );
            (PathBuf::from("/"), Some(notice))
        }
    }
}

fn base_name(shell: &Path) -> &OsStr {
    shell.file_name().unwrap_or(shell.as_os_str())
}

/// A leading dash is how a shell learns that it is a login shell.
fn login_name(shell: &Path) -> OsString {
    let mut name = OsString::from("-");
    name.push(base_name(shell));
    name
}
