//! Desktops on loopback: a real xrdp with its login window, an X server with a clock behind it, and a screen that stock
//! viewers draw on.

mod servers;

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::process::Command;

use crate::clients::{Running, run, stock};
use crate::lab::until;

pub use servers::{BACKGROUND, CLOCK, NLA_USER, Shadow, Vnc, Xrdp, clock};

/// What must be installed.
const PACKAGES: &str = "apt-get install xrdp xvfb freerdp2-x11 freerdp2-shadow-x11 tigervnc-standalone-server tigervnc-viewer x11-apps imagemagick";
/// Between two pictures.
const LOOK_AGAIN: Duration = Duration::from_millis(300);

/// An X server without a screen of glass, for viewers to draw on. Ends when dropped.
pub struct Screen {
    _server: Running,
    display: String,
}

impl Screen {
    /// Starts one of 640 by 480.
    pub async fn start() -> Self {
        let mut xvfb = stock("Xvfb");
        xvfb.args(["-displayfd", "1", "-screen", "0", "640x480x24", "-nolisten", "tcp"])
            .stdin(Stdio::null());
        let (server, display) = displaying(xvfb).await;
        Self {
            _server: server,
            display,
        }
    }

    /// Has a program draw here.
    pub fn put(&self, mut program: Command) -> Running {
        program.env("DISPLAY", &self.display).stdin(Stdio::null());
        Running::start(program)
    }

    /// The colour of one place, as six digits.
    pub async fn colour(&self, x: u16, y: u16) -> String {
        let place = format!("1x1+{x}+{y}");
        let rgb = self.picture(&["-crop", &place, "-depth", "8"], "rgb:-").await;
        rgb.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The corner where the clock is, as bytes.
    async fn corner(&self) -> Vec<u8> {
        self.picture(&["-crop", "200x200+20+20", "-depth", "8"], "rgb:-").await
    }

    /// Waits until a place has this colour.
    pub async fn shows(&self, (x, y): (u16, u16), colour: &str) {
        until(&format!("{colour} at {x},{y}"), async || {
            let seen = self.colour(x, y).await;
            if seen == colour {
                return Some(());
            }
            tokio::time::sleep(LOOK_AGAIN).await;
            None
        })
        .await;
    }

    /// Waits until the clock has moved.
    pub async fn moves(&self) {
        let before = self.corner().await;
        until("a clock that moves", async || {
            tokio::time::sleep(LOOK_AGAIN).await;
            (self.corner().await != before).then_some(())
        })
        .await;
    }

    /// Keeps the picture, to be looked at.
    pub async fn keep(&self, path: &Path) {
        self.picture(&[], path.to_str().expect("a path that is text")).await;
    }

    async fn picture(&self, arguments: &[&str], to: &str) -> Vec<u8> {
        let mut import = stock("import");
        import
            .env("DISPLAY", &self.display)
            .args(["-window", "root"])
            .args(arguments)
            .arg(to);
        run(import).await.succeeded().stdout
    }
}

/// A stock RDP client at `/v:HOST:PORT` or with an .rdp file, apart from whatever this account has used before.
pub fn xfreerdp(home: &Path, place: &str) -> Command {
    let mut client = stock("xfreerdp");
    client.arg(place).args(WITHOUT_QUESTIONS).env("HOME", home);
    client
}

/// Arguments with which xfreerdp asks nobody anything.
pub const WITHOUT_QUESTIONS: [&str; 2] = ["/cert:ignore", "/size:640x480"];

/// Starts an X server that says its display on standard output.
async fn displaying(server: Command) -> (Running, String) {
    let program = server.as_std().get_program().to_owned();
    let found = std::env::var_os("PATH")
        .is_some_and(|paths| std::env::split_paths(&paths).any(|path| path.join(&program).exists()));
    assert!(found, "no {program:?} on this machine: {PACKAGES}");
    let mut server = Running::start(server);
    let display = format!(":{}", server.line().await);
    (server, display)
}

async fn listening(port: u16) {
    until("a server that listens", async || {
        TcpStream::connect(("127.0.0.1", port)).await.is_ok().then_some(())
    })
    .await;
}
