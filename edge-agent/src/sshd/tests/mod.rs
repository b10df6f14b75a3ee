//! The server against real clients: OpenSSH's programs and rsync, and russh's client where those cannot ask for something.
//!
//! One [`Device`] is a listener on a loopback port which serves every connection the way the agent would.

mod denials;
mod hostile;
mod manners;
mod programs;
mod raw;
mod transfers;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use fairlead_runtime::stop::CancellationToken;
use fairlead_runtime::tasks::TaskGroup;
use russh::keys::ssh_key::LineEnding;
use russh::keys::ssh_key::certificate::{Builder, CertType};
use russh::keys::{Algorithm, Certificate, PrivateKey};
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use super::{Account, Act, Acts, Ended, Login, Settings, Users, serve};

/// Longer than any single client run may take on a slow machine.
const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) fn key() -> PrivateKey {
    PrivateKey::random(&mut rand::rng(), Algorithm::Ed25519).unwrap()
}

/// A certificate for `key` and one principal as the gateway would issue it, signed by `ca`.
pub(super) fn certificate(key: &PrivateKey, principal: &str, ca: &PrivateKey, kind: CertType) -> Certificate {
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let mut builder =
        Builder::new_with_random_nonce(&mut rand::rng(), key.public_key(), now - 300, now + 3600).unwrap();
    builder
        .serial(7)
        .unwrap()
        .key_id(format!("spiffe://test/user/{principal}"))
        .unwrap()
        .cert_type(kind)
        .unwrap()
        .valid_principal(principal)
        .unwrap();
    builder.extension("permit-pty", "").unwrap();
    builder.sign(ca).unwrap()
}

/// What the agent's own rules saw and said.
#[derive(Default)]
pub(super) struct Rules {
    pub(super) seen: Mutex<Vec<String>>,
    pub(super) forbidden: Mutex<Option<String>>,
}

impl Acts for Rules {
    fn begin(&self, act: Act<'_>, user: &str) -> Result<super::UnderWay, String> {
        let what = if let Act::Exec { command } = act {
            command
        } else {
            act.name()
        };
        self.seen.lock().unwrap().push(format!("{user} {what}"));
        match &*self.forbidden.lock().unwrap() {
            Some(word) if what.contains(word) => Err(format!("the rule about '{word}' says no")),
            _ => Ok(Box::new(())),
        }
    }

    fn refused(&self, act: Act<'_>, user: &str) {
        self.seen.lock().unwrap().push(format!("{user} may not {}", act.name()));
    }
}

/// How a device differs from the usual one.
pub(super) struct Plan {
    pub(super) acts: &'static [&'static str],
    pub(super) shell: &'static str,
    pub(super) registered: bool,
    pub(super) host_certificate: bool,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            acts: &["shell", "exec", "sftp"],
            shell: "/bin/sh",
            registered: true,
            host_certificate: false,
        }
    }
}

/// A served loopback port, and a person with keys for it.
pub(super) struct Device {
    pub(super) port: u16,
    pub(super) account: Account,
    pub(super) files: tempfile::TempDir,
    pub(super) rules: Arc<Rules>,
    pub(super) ca: PrivateKey,
    pub(super) key: PrivateKey,
    ended: tokio::sync::Mutex<mpsc::Receiver<Ended>>,
    lapse: watch::Sender<Option<String>>,
    pub(super) stop: CancellationToken,
    listening: TaskGroup,
}

impl Device {
    pub(super) async fn start() -> Self {
        Self::with(Plan::default()).await
    }

    pub(super) async fn with(plan: Plan) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let files = tempfile::tempdir().unwrap();
        let home = files.path().join("home");
        std::fs::create_dir(&home).unwrap();
        let account = Account {
            home,
            shell: plan.shell.into(),
            ..Account::current().unwrap()
        };
        let (ca, host_ca, key, host_key) = (key(), key(), key(), key());
        let host_certificate = plan
            .host_certificate
            .then(|| certificate(&host_key, "127.0.0.1", &host_ca, CertType::Host));
        let known = if plan.host_certificate {
            format!("@cert-authority * {}\n", host_ca.public_key().to_openssh().unwrap())
        } else {
            format!("* {}\n", host_key.public_key().to_openssh().unwrap())
        };
        std::fs::write(files.path().join("known_hosts"), known).unwrap();
        let settings = Arc::new(Settings {
            host_key,
            host_certificate,
            user_cas: vec![ca.public_key().clone()],
            account: account.clone(),
            own_login: true,
            users: Users::default(),
        });
        let login = Login {
            caller: "alice".into(),
            registered_keys: if plan.registered {
                vec![key.public_key().clone()]
            } else {
                Vec::new()
            },
            acts: plan.acts.iter().map(|act| (*act).to_owned()).collect::<BTreeSet<_>>(),
            client_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
            session: "s-0001".into(),
        };
        let rules = Arc::new(Rules::default());
        let (lapse, lapsing) = watch::channel(None::<String>);
        let (report, ended) = mpsc::channel(64);
        let stop = CancellationToken::new();
        let (tasks, listening) = (
            TaskGroup::new("test", &stop),
            TaskGroup::new("listener", &CancellationToken::new()),
        );
        let connections = listening.clone();
        let acts = Arc::clone(&rules);
        let accept = async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                let (settings, login, tasks) = (Arc::clone(&settings), login.clone(), tasks.clone());
                let (acts, mut lapsing, report) = (Arc::clone(&acts), lapsing.clone(), report.clone());
                connections.spawn("connection", async move {
                    let lapse = async move { lapsing.wait_for(Option::is_some).await.unwrap().clone().unwrap() };
                    let _closed = report
                        .send(serve(stream, settings, login, acts, &tasks, lapse).await)
                        .await;
                });
            }
        };
        listening.spawn("accept", accept);
        let device = Self {
            port,
            account,
            files,
            rules,
            ca,
            key,
            ended: tokio::sync::Mutex::new(ended),
            lapse,
            stop,
            listening,
        };
        device.write_key("id", &device.key);
        device
    }

    /// How the next session to end ended.
    pub(super) async fn end(&self) -> Ended {
        timeout(Duration::from_secs(45), async {
            self.ended.lock().await.recv().await.unwrap()
        })
        .await
        .expect("the session ends")
    }

    /// Withdraws the permission for every session.
    pub(super) fn lapse(&self, reason: &str) {
        self.lapse.send_replace(Some(reason.to_owned()));
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    pub(super) fn home(&self, name: &str) -> PathBuf {
        self.account.home.join(name)
    }

    /// Puts a private key where OpenSSH takes one from.
    pub(super) fn write_key(&self, name: &str, key: &PrivateKey) {
        use std::io::Write;
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(self.path(name))
            .unwrap();
        file.write_all(key.to_openssh(LineEnding::LF).unwrap().as_bytes())
            .unwrap();
    }

    /// Puts a certificate beside a key of [`Device::write_key`].
    pub(super) fn write_certificate(&self, name: &str, certificate: &Certificate) {
        std::fs::write(
            self.path(&format!("{name}-cert.pub")),
            certificate.to_openssh().unwrap(),
        )
        .unwrap();
    }

    /// OpenSSH's options for this device; nothing of the person who runs the tests plays a part.
    pub(super) fn options(&self, key: &str) -> Vec<String> {
        let mut options = vec![
            "-F".to_owned(),
            "/dev/null".to_owned(),
            "-i".to_owned(),
            self.path(key).display().to_string(),
        ];
        for option in [
            "IdentitiesOnly=yes".to_owned(),
            "IdentityAgent=none".to_owned(),
            "BatchMode=yes".to_owned(),
            "StrictHostKeyChecking=yes".to_owned(),
            "GlobalKnownHostsFile=/dev/null".to_owned(),
            format!("UserKnownHostsFile={}", self.path("known_hosts").display()),
            format!("User={}", self.account.name),
            format!("Port={}", self.port),
            "LogLevel=INFO".to_owned(),
        ] {
            options.extend(["-o".to_owned(), option]);
        }
        options
    }

    /// `ssh` to the device with more arguments.
    pub(super) fn ssh(&self, arguments: &[&str]) -> Command {
        self.ssh_with("id", arguments)
    }

    pub(super) fn ssh_with(&self, key: &str, arguments: &[&str]) -> Command {
        let (options, command): (Vec<&&str>, Vec<&&str>) = {
            let at = arguments.iter().position(|argument| *argument == "--").unwrap_or(0);
            let skip = usize::from(arguments.get(at) == Some(&"--"));
            (
                arguments[..at].iter().collect(),
                arguments[at + skip..].iter().collect(),
            )
        };
        let mut ssh = program("ssh");
        // OpenSSH takes the first value it is given for an option.
        ssh.args(options).args(self.options(key)).arg("127.0.0.1").args(command);
        ssh
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.stop.cancel();
        self.listening.token().cancel();
    }
}

/// A client program with nothing inherited that could change what it does.
pub(super) fn program(name: &str) -> Command {
    let mut command = Command::new(name);
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", "/nonexistent");
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// Runs a client to its end.
pub(super) async fn run(mut command: Command) -> Output {
    let child = command.spawn().unwrap_or_else(|error| {
        panic!(
            "{:?} does not start ({error}): these tests need openssh-client and rsync",
            command.as_std().get_program()
        )
    });
    timeout(PATIENCE, child.wait_with_output())
        .await
        .expect("the client ends in time")
        .unwrap()
}

pub(super) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs a client that must succeed, and gives its output.
pub(super) async fn succeed(command: Command) -> String {
    let output = run(command).await;
    assert!(
        output.status.success(),
        "{:?}: {}{}",
        output.status,
        text(&output.stdout),
        text(&output.stderr)
    );
    text(&output.stdout)
}

/// Waits for a state of the world, which no event tells of.
pub(super) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let waited = timeout(Duration::from_secs(20), async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    assert!(waited.await.is_ok(), "{what} within 20 s");
}

/// Bytes which no compression or repetition could fake, the same for the same seed.
pub(super) fn noise(length: usize, mut seed: u64) -> Vec<u8> {
    let mut data = Vec::with_capacity(length + 8);
    while data.len() < length {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        data.extend_from_slice(&(seed ^ (seed >> 29)).to_le_bytes());
    }
    data.truncate(length);
    data
}

/// How long a program sleeps that a test looks for: nobody else's does, not even that of another run of the same test.
pub(super) fn mark(number: u32) -> String {
    format!("{number}{:07}", std::process::id())
}

/// Whether a program runs with this beginning of a command line; not the client that asked for it, to which it is one word.
pub(super) fn is_running(command: &str) -> bool {
    let mark = command.replace(' ', "\0");
    std::fs::read_dir("/proc").unwrap().flatten().any(|entry| {
        let ours = entry
            .file_name()
            .to_str()
            .is_some_and(|name| name.parse::<u32>().is_ok_and(|pid| pid != std::process::id()));
        ours && std::fs::read(entry.path().join("cmdline")).is_ok_and(|line| text(&line).contains(&mark))
    })
}

pub(super) fn write(path: &Path, data: &[u8]) {
    std::fs::write(path, data).unwrap();
}
