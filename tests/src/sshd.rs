//! A real OpenSSH server on loopback, as a device would have one: its own host key, its own configuration, no PAM.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};

use crate::clients::{run, stock};
use crate::lab::until;

/// Where Debian and its like put the program; sshd insists on an absolute path.
const PLACES: &[&str] = &["/usr/sbin/sshd", "/usr/local/sbin/sshd", "/sbin/sshd"];
/// sshd drops its privileges into this folder, which a service manager would have made.
const PRIVILEGE_FOLDER: &str = "/run/sshd";
/// Another process may take the free port first.
const PORT_TRIES: usize = 5;

/// A running sshd; ends when dropped.
pub struct Sshd {
    /// The port on 127.0.0.1.
    pub port: u16,
    /// Its host key, an OpenSSH public line.
    pub host_key: String,
    program: &'static str,
    dir: PathBuf,
    child: Child,
}

/// Whom an sshd lets in.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    /// Public line of the CA whose user certificates it takes.
    pub user_ca: Option<String>,
    /// Principals of which a certificate must have one, for any account.
    pub principals: Vec<String>,
    /// Public lines of plain keys, for any account.
    pub keys: Vec<String>,
}

impl Sshd {
    /// Starts an sshd with its files in `dir`, which exists and is private.
    ///
    /// # Panics
    /// When there is no sshd on this machine: these tests are not skipped. `apt-get install openssh-server` brings it.
    pub async fn start(dir: &Path, trust: &Trust) -> Self {
        let program = PLACES.iter().find(|place| Path::new(place).exists());
        let program =
            program.expect("no sshd on this machine: apt-get install openssh-server (its service is not needed)");
        if nix::unistd::geteuid().is_root() && !Path::new(PRIVILEGE_FOLDER).exists() {
            std::fs::create_dir_all(PRIVILEGE_FOLDER).expect("/run/sshd can be made");
        }
        let host_key = make_key(dir, "ed25519", "host_key").await;
        for _ in 0..PORT_TRIES {
            let port = free_port().await;
            let config = dir.join("sshd_config");
            std::fs::write(&config, config_text(dir, port, trust)).expect("sshd_config is written");
            let mut child = spawn(program, &config, &dir.join("sshd.log"));
            if greets(&mut child, port).await {
                return Self {
                    port,
                    host_key,
                    program,
                    dir: dir.to_owned(),
                    child,
                };
            }
        }
        panic!(
            "sshd does not start: {}",
            std::fs::read_to_string(dir.join("sshd.log")).unwrap_or_default()
        );
    }

    /// Its process id.
    ///
    /// # Panics
    /// When it has ended.
    pub fn id(&self) -> u32 {
        self.child.id().expect("sshd runs")
    }

    /// The upstream URL of agent.yaml.
    pub fn upstream(&self) -> String {
        format!("tcp://127.0.0.1:{}", self.port)
    }

    /// Ends it and starts it again on its port, with another host key in the place of the one it had.
    pub async fn replace_host_key(&mut self) {
        self.child.kill().await.expect("sshd ends");
        for name in ["host_key", "host_key.pub"] {
            std::fs::remove_file(self.dir.join(name)).expect("the old key is there");
        }
        self.host_key = make_key(&self.dir, "ed25519", "host_key").await;
        self.child = spawn(self.program, &self.dir.join("sshd_config"), &self.dir.join("sshd.log"));
        assert!(
            greets(&mut self.child, self.port).await,
            "sshd does not come back on its port"
        );
    }

    /// Ends it; sessions of its own go on until their connections end.
    pub async fn stop(mut self) {
        self.child.kill().await.expect("sshd ends");
    }
}

/// Makes a host key; its public line.
pub async fn make_key(dir: &Path, kind: &str, name: &str) -> String {
    let mut keygen = stock("ssh-keygen");
    keygen
        .args(["-q", "-t", kind, "-N", "", "-C", "device", "-f"])
        .arg(dir.join(name));
    run(keygen).await.succeeded();
    let public = std::fs::read_to_string(dir.join(name).with_extension("pub")).expect("the host's public key");
    public.trim().to_owned()
}

fn spawn(program: &str, config: &Path, log: &Path) -> Child {
    let log = std::fs::File::create(log).expect("sshd's log");
    let mut sshd = Command::new(program);
    sshd.args(["-D", "-e", "-f"])
        .arg(config)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log);
    sshd.process_group(0)
        .kill_on_drop(true)
        .spawn()
        .expect("sshd can be run")
}

/// Waits for the greeting; false when this sshd ended instead (its port was taken).
async fn greets(child: &mut Child, port: u16) -> bool {
    until("the greeting of sshd", async || {
        if child.try_wait().expect("the child's state").is_some() {
            return Some(false);
        }
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
        let mut greeting = [0; 7];
        stream.read_exact(&mut greeting).await.ok()?;
        Some(greeting == *b"SSH-2.0")
    })
    .await
}

async fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
    listener.local_addr().expect("its address").port()
}

fn config_text(dir: &Path, port: u16, trust: &Trust) -> String {
    let write = |name: &str, lines: &[String]| {
        let path = dir.join(name);
        std::fs::write(&path, lines.join("\n") + "\n").expect("a file of sshd is written");
        path.display().to_string()
    };
    let mut text = format!(
        "Port {port}
ListenAddress 127.0.0.1
HostKey {dir}/host_key
PidFile none
UsePAM no
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
MaxStartups 100
AuthorizedKeysFile {keys}
Subsystem sftp internal-sftp
",
        dir = dir.display(),
        keys = write("authorized_keys", &trust.keys),
    );
    // A test that wants a second host key makes it before the start.
    if dir.join("host_key_ecdsa").exists() {
        text.push_str(&format!("HostKey {}/host_key_ecdsa\n", dir.display()));
    }
    if let Some(ca) = &trust.user_ca {
        let ca = write("user_ca.pub", std::slice::from_ref(ca));
        let principals = write("principals", &trust.principals);
        text.push_str(&format!(
            "TrustedUserCAKeys {ca}\nAuthorizedPrincipalsFile {principals}\n"
        ));
    }
    text
}
