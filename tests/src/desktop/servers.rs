//! What is shown: a clock behind VNC, behind xrdp, and behind a server that asks for NLA.

use std::process::Stdio;

use tempfile::TempDir;
use tokio::process::Command;

use super::{Screen, displaying, listening};
use crate::clients::{Running, run, stock};
use crate::programs::free_port;

/// A VNC server with a clock that shows seconds at its upper left. Ends when dropped.
pub struct Vnc {
    /// The port on 127.0.0.1.
    pub port: u16,
    _server: Running,
    _clock: Running,
}

impl Vnc {
    /// Starts one of 640 by 480 that asks for no password.
    pub async fn start() -> Self {
        let port = free_port();
        let mut server = stock("Xvnc");
        server
            .args(["-displayfd", "1", "-localhost", "-geometry", "640x480", "-depth", "24"])
            .args(["-SecurityTypes", "None", "-AlwaysShared", "-rfbport", &port.to_string()])
            .stdin(Stdio::null());
        let (server, display) = displaying(server).await;
        let mut clock = clock();
        clock.env("DISPLAY", display).stdin(Stdio::null());
        listening(port).await;
        Self {
            port,
            _server: server,
            _clock: Running::start(clock),
        }
    }

    /// The upstream URL of agent.yaml.
    pub fn upstream(&self) -> String {
        format!("tcp://127.0.0.1:{}", self.port)
    }
}

/// A clock that shows seconds at the upper left.
pub fn clock() -> Command {
    let mut clock = stock("xclock");
    clock.args(["-update", "1", "-geometry", "200x200+20+20", "-bg", "#2060a0"]);
    clock
}

/// A colour of the clock's face.
pub const CLOCK: ((u16, u16), &str) = ((25, 25), "2060a0");

/// A running xrdp; ends when dropped.
pub struct Xrdp {
    /// The port on 127.0.0.1.
    pub port: u16,
    _server: Running,
    _dir: TempDir,
}

/// Where the window of xrdp's login is not.
pub const BACKGROUND: (u16, u16) = (5, 5);

impl Xrdp {
    /// Starts one that shows its login on a background of this colour (six digits). Whoever brings a name and password is shown
    /// `desktop` at once.
    ///
    /// # Panics
    /// When there is none on this machine: these tests are not skipped.
    pub async fn start(colour: &str, desktop: Option<&Vnc>) -> Self {
        let dir = tempfile::tempdir().expect("a throw-away directory");
        let (key, certificate) = (dir.path().join("key.pem"), dir.path().join("cert.pem"));
        let mut openssl = stock("openssl");
        openssl
            .args([
                "req",
                "-x509",
                "-newkey",
                "rsa:2048",
                "-nodes",
                "-days",
                "2",
                "-subj",
                "/CN=desktop",
                "-keyout",
            ])
            .arg(&key)
            .arg("-out")
            .arg(&certificate);
        run(openssl).await.succeeded();
        let port = free_port();
        let config = include_str!("xrdp.ini")
            .replace("{port}", &port.to_string())
            .replace("{key}", &key.display().to_string())
            .replace("{certificate}", &certificate.display().to_string())
            .replace("{log}", &dir.path().join("xrdp.log").display().to_string())
            .replace("{colour}", colour)
            .replace("{vnc}", &desktop.map_or(1, |vnc| vnc.port).to_string());
        let place = dir.path().join("xrdp.ini");
        std::fs::write(&place, config).expect("the configuration is written");
        let mut xrdp = stock("xrdp");
        xrdp.arg("-n").arg("-c").arg(place).stdin(Stdio::null());
        let server = Running::start(xrdp);
        listening(port).await;
        Self {
            port,
            _server: server,
            _dir: dir,
        }
    }

    /// The upstream URL of agent.yaml.
    pub fn upstream(&self) -> String {
        format!("tcp://127.0.0.1:{}", self.port)
    }
}

/// FreeRDP's own server, which shows a screen to whoever proves a name and password by NLA; ends when dropped.
pub struct Shadow {
    /// The port on 127.0.0.1.
    pub port: u16,
    _server: Running,
    _dir: TempDir,
}

/// Who may see a [`Shadow`], with which password.
pub const NLA_USER: (&str, &str) = ("operator", "secret");
/// The MD4 of that password in UTF-16, as Windows keeps it.
const NT_HASH: &str = "878d8014606cda29677a44efa1353fc7";

impl Shadow {
    /// Starts one that shows this screen.
    pub async fn start(screen: &Screen) -> Self {
        let dir = tempfile::tempdir().expect("a throw-away directory");
        let users = dir.path().join("users");
        std::fs::write(&users, format!("{}:::{NT_HASH}:::\n", NLA_USER.0)).expect("the users are written");
        let port = free_port();
        let mut shadow = stock("freerdp-shadow-cli");
        shadow
            .args(["/bind-address:127.0.0.1", "/sec:nla"])
            .arg(format!("/port:{port}"))
            .arg(format!("/sam-file:{}", users.display()))
            .env("HOME", dir.path());
        let server = screen.put(shadow);
        listening(port).await;
        Self {
            port,
            _server: server,
            _dir: dir,
        }
    }

    /// The upstream URL of agent.yaml.
    pub fn upstream(&self) -> String {
        format!("tcp://127.0.0.1:{}", self.port)
    }
}
