//! A real mosquitto on loopback, which lets everybody in unless users are named.

use std::path::PathBuf;

use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Child;

use crate::clients::{run, stock};
use crate::lab::until;

/// Where Debian keeps the broker.
const PROGRAM: &str = "mosquitto";

/// A running broker; ends when dropped.
pub struct Mosquitto {
    /// The port on 127.0.0.1.
    pub port: u16,
    child: Option<Child>,
    dir: TempDir,
}

impl Mosquitto {
    /// Starts one that takes everybody.
    ///
    /// # Panics
    /// When there is none on this machine: these tests are not skipped. `apt-get install mosquitto` brings it.
    pub async fn start() -> Self {
        Self::start_with("allow_anonymous true\n").await
    }

    /// Starts one that takes this user alone.
    pub async fn start_for(user: &str, password: &str) -> Self {
        let dir = tempfile::tempdir().expect("a throw-away directory");
        let file = dir.path().join("users");
        let mut passwd = stock("mosquitto_passwd");
        passwd.args(["-b", "-c"]).arg(&file).args([user, password]);
        run(passwd).await.succeeded();
        let hashed = std::fs::read_to_string(&file).expect("the user is written");
        let broker = Self::prepared("allow_anonymous false\npassword_file PLACE\n", Some(&hashed)).await;
        drop(dir);
        broker
    }

    async fn start_with(lines: &str) -> Self {
        Self::prepared(lines, None).await
    }

    async fn prepared(lines: &str, users: Option<&str>) -> Self {
        let dir = tempfile::tempdir().expect("a throw-away directory");
        let port = free_port().await;
        let place = dir.path().join("users");
        if let Some(users) = users {
            std::fs::write(&place, users).expect("the users are written");
        }
        let lines = lines.replace("PLACE", &place.display().to_string());
        let config = format!("listener {port} 127.0.0.1\n{lines}user root\nmax_queued_messages 100\nsys_interval 1\n");
        std::fs::write(dir.path().join("mosquitto.conf"), config).expect("the configuration is written");
        let mut broker = Self { port, child: None, dir };
        broker.restart().await;
        broker
    }

    fn config(&self) -> PathBuf {
        self.dir.path().join("mosquitto.conf")
    }

    /// Ends the broker, if it runs, and starts it again on the same port.
    pub async fn restart(&mut self) {
        self.stop().await;
        let mut command = stock(PROGRAM);
        command
            .arg("-c")
            .arg(self.config())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .kill_on_drop(true);
        self.child = Some(
            command
                .spawn()
                .expect("no mosquitto on this machine: apt-get install mosquitto"),
        );
        let port = self.port;
        until("mosquitto", async || {
            TcpStream::connect(("127.0.0.1", port)).await.is_ok().then_some(())
        })
        .await;
    }

    /// Ends the broker.
    pub async fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().await.expect("the broker ends");
        }
    }

    /// The upstream URL of agent.yaml.
    pub fn upstream(&self) -> String {
        format!("tcp://127.0.0.1:{}", self.port)
    }
}

async fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    listener.local_addr().expect("its address").port()
}
