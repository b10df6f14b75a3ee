//! What systemd is told: ready, stopping, reloading, alive. Where there is no systemd every call does nothing.
//!
//! Whether the program is healthy is decided elsewhere; here it is only passed on.

use std::time::Duration;

use systemd::daemon::{self, NotifyState};

/// Bytes of a status text, at most: it is one line for people.
const MAX_STATUS: usize = 256;

/// Tells systemd that the program serves (also after a reload).
pub fn ready() {
    send(&[NotifyState::Ready]);
}

/// Tells systemd that the program is draining and will end.
pub fn stopping() {
    send(&[NotifyState::Stopping]);
}

/// Tells systemd that the configuration is being read again; [`ready`] ends that state.
pub fn reloading() {
    send(&[NotifyState::Reloading]);
}

/// Shows `text` in `systemctl status`. Line breaks become spaces: a second line would be read as an order of its own.
pub fn status(text: &str) {
    send(&[NotifyState::Status(one_line(text))]);
}

/// Tells systemd that the program is alive; due within [`watchdog_interval`].
pub fn watchdog() {
    send(&[NotifyState::Watchdog]);
}

/// How often [`watchdog`] should be called: half the time after which systemd would end the process. `None` where
/// systemd does not watch.
pub fn watchdog_interval() -> Option<Duration> {
    daemon::watchdog_enabled(false)
        .map(|limit| limit / 2)
        .filter(|interval| !interval.is_zero())
}

/// Calls [`watchdog`] for as long as `healthy` says so, until dropped; returns at once where systemd does not watch.
///
/// While `healthy` is false nothing is sent: systemd restarts the process when its patience ends.
pub async fn keep_watchdog_fed(healthy: impl Fn() -> bool) {
    let Some(interval) = watchdog_interval() else { return };
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if healthy() {
            watchdog();
        } else {
            tracing::warn!("the program is not healthy; the watchdog is not fed");
        }
    }
}

fn send(state: &[NotifyState]) {
    if let Err(error) = daemon::notify(false, state) {
        tracing::warn!(%error, "systemd cannot be notified");
    }
}

fn one_line(text: &str) -> String {
    text.chars()
        .map(|letter| if letter.is_control() { ' ' } else { letter })
        .take(MAX_STATUS)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::own_process;
    use std::os::unix::net::UnixDatagram;

    #[test]
    fn systemd_hears_every_message() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let status = own_process::command("notify::tests::speaks")
            .env("FAIRLEAD_TEST", "1")
            .env("NOTIFY_SOCKET", &path)
            .env("WATCHDOG_USEC", "20000")
            .env_remove("WATCHDOG_PID")
            .status()
            .unwrap();
        assert!(status.success());
        let mut buffer = [0; 100];
        for expected in [
            "READY=1\n",
            "RELOADING=1\n",
            "STATUS=serving READY=1\n",
            "STOPPING=1\n",
            "WATCHDOG=1\n",
        ] {
            let length = socket.recv(&mut buffer).unwrap();
            assert_eq!(std::str::from_utf8(&buffer[..length]).unwrap(), expected);
        }
    }

    #[test]
    fn without_systemd_nothing_happens() {
        let status = own_process::command("notify::tests::speaks")
            .env("FAIRLEAD_TEST", "1")
            .env_remove("NOTIFY_SOCKET")
            .env_remove("WATCHDOG_USEC")
            .status()
            .unwrap();
        assert!(status.success());
    }

    #[tokio::test]
    #[ignore = "needs a process of its own; run by the tests above"]
    async fn speaks() {
        if std::env::var_os("FAIRLEAD_TEST").is_none() {
            return;
        }
        ready();
        reloading();
        status("serving\nREADY=1");
        stopping();
        if let Some(interval) = watchdog_interval() {
            assert_eq!(interval, Duration::from_millis(10));
            tokio::time::timeout(Duration::from_millis(50), keep_watchdog_fed(|| true))
                .await
                .unwrap_err();
        } else {
            keep_watchdog_fed(|| true).await;
        }
    }

    #[test]
    fn a_status_cannot_smuggle_a_second_order() {
        assert_eq!(one_line("fine\nREADY=1"), "fine READY=1");
        assert_eq!(one_line(&"x".repeat(1_000)).len(), MAX_STATUS);
    }
}
