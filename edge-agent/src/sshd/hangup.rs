//! Ending what was started: the program's process group, and with a terminal its whole session.
//!
//! SIGHUP first, SIGKILL after [`PATIENCE`]. The processes of a session are found in `/proc`, because an interactive shell
//! puts each job into a group of its own. A process that made itself a new session (`setsid`) is out of reach on purpose:
//! that is how something is meant to outlive its connection.

use std::fs;
use std::time::Duration;

use fairlead_runtime::tasks::TaskGroup;
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use tokio::time::{Instant, sleep};

/// From the hang-up to the kill.
const PATIENCE: Duration = Duration::from_secs(5);
/// From the kill to giving up on processes that the kernel does not let go (a dead network file system).
const AFTERMATH: Duration = Duration::from_secs(1);

/// A started program and its offspring. Dropped before [`Group::hang_up`] is done, it kills what it can reach.
pub(super) struct Group {
    leader: Pid,
    /// The leader has a session of its own, not only a group.
    owns_session: bool,
    /// The leader is `su`, which only waits: a signal is for the program, and `su` would take it for its own end.
    pub(super) waits_beside: bool,
    gone: bool,
}

impl Group {
    /// The group led by the process `leader`, which must have been started as a group's leader.
    pub(super) fn new(leader: u32, owns_session: bool) -> Option<Self> {
        let leader = i32::try_from(leader).ok().filter(|pid| *pid > 1)?;
        Some(Self {
            leader: Pid::from_raw(leader),
            owns_session,
            waits_beside: false,
            gone: false,
        })
    }

    /// Sends a signal to the group, or to `instead` where a terminal's foreground is another group.
    pub(super) async fn signal(&self, signal: Signal, instead: Option<Pid>, blocking: &TaskGroup) {
        let group = instead.unwrap_or(self.leader);
        // Going on is for everybody: `su` stops with its program.
        if self.waits_beside && group == self.leader && signal != Signal::SIGCONT {
            let (leader, mut found) = (self.leader, false);
            let program = move |pid: Pid, of: &Lineage| pid != leader && of.group == leader.as_raw();
            for member in scan(blocking, program).await {
                found |= kill(member, signal).is_ok();
            }
            if found {
                return;
            }
        }
        self.signal_all(signal, group);
    }

    fn signal_all(&self, signal: Signal, group: Pid) {
        if let Err(error) = killpg(group, signal) {
            tracing::debug!(%error, %signal, leader = self.leader.as_raw(), "a signal found nobody");
        }
    }

    /// Hangs up, waits, kills; returns when nothing is left, after 6 s at the latest.
    pub(super) async fn hang_up(mut self, blocking: &TaskGroup) {
        let start = Instant::now();
        let mut killed = false;
        let mut told = false;
        let mut pause = Duration::from_millis(10);
        while self.is_alive(blocking).await {
            if !told {
                self.tell(Signal::SIGHUP, blocking).await;
                self.tell(Signal::SIGCONT, blocking).await; // a stopped process gets the hang-up only when it goes on
                told = true;
            } else if start.elapsed() >= PATIENCE {
                self.tell(Signal::SIGKILL, blocking).await;
                killed = true;
            }
            if killed && start.elapsed() >= PATIENCE + AFTERMATH {
                tracing::warn!(
                    leader = self.leader.as_raw(),
                    "processes of an ended SSH channel survive SIGKILL"
                );
                break;
            }
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(250));
        }
        self.gone = true;
    }

    async fn is_alive(&self, blocking: &TaskGroup) -> bool {
        match killpg(self.leader, None) {
            // An empty group's number may be given to somebody else: it is never signalled again.
            Err(Errno::ESRCH) if !self.owns_session => false,
            _ => !self.members(blocking).await.is_empty(),
        }
    }

    async fn tell(&self, signal: Signal, blocking: &TaskGroup) {
        for member in self.members(blocking).await {
            if let Err(error) = kill(member, signal) {
                tracing::trace!(%error, "a process was gone before its signal");
            }
        }
    }

    /// Everything alive in the group or session, zombies left out: they have ended and wait for somebody else.
    async fn members(&self, blocking: &TaskGroup) -> Vec<Pid> {
        let (leader, owns_session) = (self.leader.as_raw(), self.owns_session);
        let ours = move |_: Pid, of: &Lineage| of.group == leader || (owns_session && of.session == leader);
        scan(blocking, ours).await
    }
}

/// Every process alive that is meant.
async fn scan(blocking: &TaskGroup, is_meant: impl Fn(Pid, &Lineage) -> bool + Send + 'static) -> Vec<Pid> {
    let scan = move || {
        let Ok(entries) = fs::read_dir("/proc") else {
            return Vec::new();
        };
        entries
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter_map(|pid: i32| {
                let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
                Some((Pid::from_raw(pid), Lineage::parse(&stat)?))
            })
            .filter(|(pid, of)| of.alive && is_meant(*pid, of))
            .map(|(pid, _)| pid)
            .collect()
    };
    blocking.blocking("process scan", scan).await.unwrap_or_default()
}

impl Drop for Group {
    fn drop(&mut self) {
        if !self.gone {
            self.signal_all(Signal::SIGKILL, self.leader);
        }
    }
}

/// The three fields that matter of a line of `/proc/PID/stat` (proc(5)).
#[derive(Debug, PartialEq, Eq)]
struct Lineage {
    alive: bool,
    group: i32,
    session: i32,
}

impl Lineage {
    fn parse(stat: &str) -> Option<Self> {
        // The name in parentheses may hold anything, parentheses too: the fields start after the last one.
        let (_, fields) = stat.rsplit_once(')')?;
        let mut fields = fields.split_ascii_whitespace();
        let state = fields.next()?;
        let _parent = fields.next()?;
        Some(Self {
            alive: !matches!(state, "Z" | "X" | "x"),
            group: fields.next()?.parse().ok()?,
            session: fields.next()?.parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_line_is_read_past_any_name() {
        let line = "812 (a) b) S 1 700 600 34816 812 4194560 0";
        assert_eq!(
            Lineage::parse(line),
            Some(Lineage {
                alive: true,
                group: 700,
                session: 600
            })
        );
        assert_eq!(
            Lineage::parse("9 (x) Z 1 2 3 4"),
            Some(Lineage {
                alive: false,
                group: 2,
                session: 3
            })
        );
        for cut in 0..15 {
            assert_eq!(Lineage::parse(&line[..cut]), None);
        }
    }

    #[test]
    fn nobody_leads_everybody() {
        assert!(Group::new(0, false).is_none());
        assert!(Group::new(1, true).is_none());
        assert!(Group::new(u32::MAX, true).is_none());
    }

    #[tokio::test]
    async fn a_program_that_ignores_the_hang_up_is_killed_with_its_offspring() {
        let mut child = tokio::process::Command::new("/bin/sh")
            .args(["-c", "trap '' HUP; sleep 1000 & echo $!; wait"])
            .process_group(0)
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut output = tokio::io::BufReader::new(child.stdout.take().unwrap());
        tokio::io::AsyncBufReadExt::read_line(&mut output, &mut line)
            .await
            .unwrap();
        let offspring = Pid::from_raw(line.trim().parse().unwrap());
        let group = Group::new(child.id().unwrap(), false).unwrap();
        let blocking = TaskGroup::new("test", &fairlead_runtime::stop::CancellationToken::new());
        let start = Instant::now();
        let (_, status) = tokio::join!(group.hang_up(&blocking), child.wait());
        assert!(start.elapsed() >= PATIENCE);
        assert!(!status.unwrap().success());
        let of = fs::read_to_string(format!("/proc/{offspring}/stat"))
            .ok()
            .and_then(|stat| Lineage::parse(&stat));
        assert!(of.is_none_or(|of| !of.alive));
    }

    #[tokio::test]
    async fn a_signal_passes_by_whoever_only_waits() {
        // As su does it: the program is in its group, and its end is the program's.
        let mut child = tokio::process::Command::new("/bin/sh")
            .args(["-c", "trap 'exit 3' TERM; sh -c 'echo up; exec sleep 1000'; exit 5"])
            .process_group(0)
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut output = tokio::io::BufReader::new(child.stdout.take().unwrap());
        tokio::io::AsyncBufReadExt::read_line(&mut output, &mut line)
            .await
            .unwrap();
        let mut group = Group::new(child.id().unwrap(), false).unwrap();
        group.waits_beside = true;
        let blocking = TaskGroup::new("test", &fairlead_runtime::stop::CancellationToken::new());
        group.signal(Signal::SIGTERM, None, &blocking).await;
        assert_eq!(child.wait().await.unwrap().code(), Some(5));
        group.hang_up(&blocking).await;
    }
}
