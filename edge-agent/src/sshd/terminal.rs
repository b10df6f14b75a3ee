//! Pseudo-terminals: opening one as the client described its own, and what can be asked of it afterwards.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use nix::sys::termios::{
    self, ControlFlags, InputFlags, LocalFlags, OutputFlags, SetArg, SpecialCharacterIndices as Key, Termios,
};
use nix::unistd::{Pid, tcgetpgrp, ttyname};
use pty_process::{OwnedReadPty, OwnedWritePty, Pts};
use russh::Pty as Mode;

/// Longest terminal type, in bytes.
const MAX_TYPE: usize = 64;

/// A terminal's size: characters, and pixels where the client knows them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) columns: u16,
    pub(super) rows: u16,
    pub(super) width: u16,
    pub(super) height: u16,
}

impl Size {
    /// From the protocol's numbers; what no terminal can have becomes the largest it can.
    pub(super) fn from_wire(columns: u32, rows: u32, width: u32, height: u32) -> Self {
        let narrow = |number: u32| u16::try_from(number).unwrap_or(u16::MAX);
        Self {
            columns: narrow(columns),
            rows: narrow(rows),
            width: narrow(width),
            height: narrow(height),
        }
    }
}

impl From<Size> for pty_process::Size {
    fn from(size: Size) -> Self {
        Self::new_with_pixel(size.rows, size.columns, size.width, size.height)
    }
}

/// What a client says about its terminal (RFC 4254, section 6.2).
#[derive(Debug, Clone)]
pub(super) struct Description {
    kind: String,
    size: Size,
    modes: Vec<(Mode, u32)>,
}

impl Description {
    /// `None` when the terminal's type is not one that belongs into an environment.
    pub(super) fn new(kind: &str, size: Size, modes: &[(Mode, u32)]) -> Option<Self> {
        let named = !kind.is_empty()
            && kind.len() <= MAX_TYPE
            && kind
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"+-._:/".contains(&b));
        // An empty type is legal and common from scripts; terminfo's own word for it is `dumb`.
        let kind = if kind.is_empty() { "dumb" } else { kind };
        (named || kind == "dumb").then(|| Self {
            kind: kind.to_owned(),
            size,
            modes: modes.to_vec(),
        })
    }

    pub(super) fn kind(&self) -> &str {
        &self.kind
    }
}

/// Our side of a pseudo-terminal. Dropping it hangs the terminal up.
pub(super) struct Terminal {
    pub(super) output: OwnedReadPty,
    pub(super) keys: OwnedWritePty,
    pub(super) state: State,
}

/// What can be asked of an open terminal.
pub(super) struct State(OwnedFd);

/// The program's side, until a program has it.
pub(super) struct Line {
    pub(super) pts: Pts,
    pub(super) device: PathBuf,
}

/// Opens a terminal like the client's.
pub(super) fn open(description: &Description) -> io::Result<(Terminal, Line)> {
    let (pty, pts) = pty_process::open().map_err(io::Error::other)?;
    pty.resize(description.size.into()).map_err(io::Error::other)?;
    let mut settings = termios::tcgetattr(&pts)?;
    for (mode, value) in &description.modes {
        apply(&mut settings, *mode, *value);
    }
    termios::tcsetattr(&pts, SetArg::TCSANOW, &settings)?;
    let device = ttyname(&pts)?;
    let state = State(pty.as_fd().try_clone_to_owned()?);
    let (output, keys) = pty.into_split();
    Ok((Terminal { output, keys, state }, Line { pts, device }))
}

impl State {
    /// The process group that has the terminal's keys: what the person at the client sees running.
    pub(super) fn foreground(&self) -> Option<Pid> {
        tcgetpgrp(&self.0).ok().filter(|group| group.as_raw() > 1)
    }

    /// The key that means "no more input" to a program which reads lines; `None` while it reads single keys.
    pub(super) fn end_of_input(&self) -> Option<u8> {
        let settings = termios::tcgetattr(&self.0).ok()?;
        let key = settings.control_chars.get(Key::VEOF as usize).copied()?;
        (settings.local_flags.contains(LocalFlags::ICANON) && key != 0).then_some(key)
    }
}

/// Sets one of the client's terminal modes; those which Linux does not have are left out (RFC 4254, section 8).
fn apply(settings: &mut Termios, mode: Mode, value: u32) {
    let on = value != 0;
    if let Some(key) = key(mode) {
        // 255 is the protocol's "no such key", 0 is the kernel's.
        let code = u8::try_from(value).unwrap_or(0);
        if let Some(slot) = settings.control_chars.get_mut(key as usize) {
            *slot = if code == 255 { 0 } else { code };
        }
    } else if let Some(flag) = input(mode) {
        settings.input_flags.set(flag, on);
    } else if let Some(flag) = local(mode) {
        settings.local_flags.set(flag, on);
    } else if let Some(flag) = output(mode) {
        settings.output_flags.set(flag, on);
    } else {
        control(settings, mode, on);
    }
}

fn key(mode: Mode) -> Option<Key> {
    Some(match mode {
        Mode::VINTR => Key::VINTR,
        Mode::VQUIT => Key::VQUIT,
        Mode::VERASE => Key::VERASE,
        Mode::VKILL => Key::VKILL,
        Mode::VEOF => Key::VEOF,
        Mode::VEOL => Key::VEOL,
        Mode::VEOL2 => Key::VEOL2,
        Mode::VSTART => Key::VSTART,
        Mode::VSTOP => Key::VSTOP,
        Mode::VSUSP => Key::VSUSP,
        Mode::VREPRINT => Key::VREPRINT,
        Mode::VWERASE => Key::VWERASE,
        Mode::VLNEXT => Key::VLNEXT,
        Mode::VDISCARD => Key::VDISCARD,
        _ => return None,
    })
}

fn input(mode: Mode) -> Option<InputFlags> {
    Some(match mode {
        Mode::IGNPAR => InputFlags::IGNPAR,
        Mode::PARMRK => InputFlags::PARMRK,
        Mode::INPCK => InputFlags::INPCK,
        Mode::ISTRIP => InputFlags::ISTRIP,
        Mode::INLCR => InputFlags::INLCR,
        Mode::IGNCR => InputFlags::IGNCR,
        Mode::ICRNL => InputFlags::ICRNL,
        Mode::IXON => InputFlags::IXON,
        Mode::IXANY => InputFlags::IXANY,
        Mode::IXOFF => InputFlags::IXOFF,
        Mode::IMAXBEL => InputFlags::IMAXBEL,
        Mode::IUTF8 => InputFlags::IUTF8,
        _ => return None,
    })
}

fn local(mode: Mode) -> Option<LocalFlags> {
    Some(match mode {
        Mode::ISIG => LocalFlags::ISIG,
        Mode::ICANON => LocalFlags::ICANON,
        Mode::ECHO => LocalFlags::ECHO,
        Mode::ECHOE => LocalFlags::ECHOE,
        Mode::ECHOK => LocalFlags::ECHOK,
        Mode::ECHONL => LocalFlags::ECHONL,
        Mode::NOFLSH => LocalFlags::NOFLSH,
        Mode::TOSTOP => LocalFlags::TOSTOP,
        Mode::IEXTEN => LocalFlags::IEXTEN,
        Mode::ECHOCTL => LocalFlags::ECHOCTL,
        Mode::ECHOKE => LocalFlags::ECHOKE,
        Mode::PENDIN => LocalFlags::PENDIN,
        _ => return None,
    })
}

fn output(mode: Mode) -> Option<OutputFlags> {
    Some(match mode {
        Mode::OPOST => OutputFlags::OPOST,
        Mode::OLCUC => OutputFlags::OLCUC,
        Mode::ONLCR => OutputFlags::ONLCR,
        Mode::OCRNL => OutputFlags::OCRNL,
        Mode::ONOCR => OutputFlags::ONOCR,
        Mode::ONLRET => OutputFlags::ONLRET,
        _ => return None,
    })
}

fn control(settings: &mut Termios, mode: Mode, on: bool) {
    let flags = &mut settings.control_flags;
    match mode {
        // The two sizes share bits: one is chosen by setting it, never by clearing the other.
        Mode::CS7 if on => {
            flags.remove(ControlFlags::CSIZE);
            flags.insert(ControlFlags::CS7);
        }
        Mode::CS8 if on => {
            flags.remove(ControlFlags::CSIZE);
            flags.insert(ControlFlags::CS8);
        }
        Mode::PARENB => flags.set(ControlFlags::PARENB, on),
        Mode::PARODD => flags.set(ControlFlags::PARODD, on),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_that_is_not_a_name_is_refused() {
        let describe = |kind: &str| Description::new(kind, Size::default(), &[]).map(|d| d.kind().to_owned());
        assert_eq!(describe("xterm-256color").as_deref(), Some("xterm-256color"));
        assert_eq!(describe("").as_deref(), Some("dumb"));
        assert_eq!(describe("a b"), None);
        assert_eq!(describe("x\n"), None);
        assert_eq!(describe(&"x".repeat(65)), None);
    }

    #[test]
    fn sizes_are_clamped() {
        assert_eq!(
            Size::from_wire(u32::MAX, 24, 0, 70_000),
            Size {
                columns: u16::MAX,
                rows: 24,
                width: 0,
                height: u16::MAX
            }
        );
    }

    #[tokio::test]
    async fn the_clients_modes_are_set_and_its_end_of_input_key_is_known() {
        let modes = [(Mode::ECHO, 0), (Mode::VEOF, 5), (Mode::VINTR, 255), (Mode::ICANON, 1)];
        let (terminal, line) =
            open(&Description::new("xterm", Size::from_wire(80, 24, 0, 0), &modes).unwrap()).unwrap();
        let settings = termios::tcgetattr(&line.pts).unwrap();
        assert!(!settings.local_flags.contains(LocalFlags::ECHO));
        assert_eq!(settings.control_chars[Key::VINTR as usize], 0);
        assert_eq!(terminal.state.end_of_input(), Some(5));
        assert!(line.device.starts_with("/dev"));
    }
}
