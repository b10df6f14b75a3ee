//! A machine with users of its own, a device on it that lets callers become them, and alice.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use fairlead_tests::clients::{Finished, run, stock};
use fairlead_tests::netns;
use fairlead_tests::programs::{AgentHome, DEVICE, Daemon, GatewayHome, UserHome, throw_away};
use tempfile::TempDir;
use tokio::process::Command;

/// `builtin_ssh` with those who may be asked for: an ordinary user, and others of whom one thing is wrong each; `gone` is in no file.
pub(crate) const LISTED: &str = "users: [deckhand, gone, mate, late, toor]";

/// Name, user id (`None`: [`deckhand`]), shell, and the day (since 1970) on which the account expires.
const MADE: [(&str, Option<u32>, &str, &str); 4] = [
    ("deckhand", None, "/bin/bash", ""),
    ("mate", Some(41_201), "/usr/sbin/nologin", ""),
    ("late", Some(41_202), "/bin/sh", "1"),
    ("toor", Some(0), "/bin/sh", ""),
];

/// deckhand's user id: another one in each test, since tests that run beside see each other's processes.
pub(crate) fn deckhand() -> u32 {
    100_000 + std::process::id()
}

/// Everything; inside of [`netns::alone`].
pub(crate) struct Stage {
    pub(crate) device: AgentHome,
    pub(crate) agent: Daemon,
    pub(crate) alice: UserHome,
    /// Open to everybody: homes, and the agent's program.
    pub(crate) machine: TempDir,
    _gateway: Daemon,
    // Last, so that it is removed after everything that writes into it.
    _dir: TempDir,
}

impl Stage {
    /// The agent's file has this in `builtin_ssh`, and the agent the drop-in's capabilities `without` one.
    pub(crate) async fn set(builtin_ssh: &str, without: Option<&str>) -> Self {
        netns::be_the_middle().await;
        let machine = tempfile::Builder::new().prefix("fairlead-machine-").tempdir().unwrap();
        fs::set_permissions(machine.path(), Permissions::from_mode(0o755)).unwrap();
        bind(machine.path(), "passwd", passwd).await;
        bind(machine.path(), "shadow", shadow).await;
        bind(machine.path(), "group", group).await;
        let home = machine.path().join("deckhand");
        fs::create_dir(&home).unwrap();
        fs::set_permissions(&home, Permissions::from_mode(0o700)).unwrap();
        chown(&home, Some(deckhand()), Some(deckhand())).unwrap();

        let dir = throw_away();
        let home = GatewayHome::set_up(&dir.path().join("gateway")).await;
        let gateway = home.start().await;
        let device = home
            .agent(&dir.path().join("device"), DEVICE, &AgentHome::builtin(DEVICE))
            .await;
        device.change("allow_service_account: true", builtin_ssh);
        let command = confined(&device, machine.path(), without);
        let agent = Daemon::start(command, &device.path("agent.log"));
        let alice = home.user(&dir.path().join("alice"), "alice", "field").await;
        home.linked(1).await;
        Self {
            device,
            agent,
            alice,
            machine,
            _gateway: gateway,
            _dir: dir,
        }
    }

    /// Runs a command on the device as this user.
    pub(crate) async fn on_as(&self, user: &str, command: &str) -> Finished {
        run(self.alice.ssh_command(&[&destination(user), command])).await
    }

    /// deckhand's home.
    pub(crate) fn home(&self) -> PathBuf {
        self.machine.path().join("deckhand")
    }
}

/// `USER@DEVICE`, as ssh wants it.
pub(crate) fn destination(user: &str) -> String {
    format!("{user}@{DEVICE}.default.internal")
}

/// Processes alive with this real user id.
pub(crate) fn processes_of(uid: u32) -> Vec<String> {
    let entries = fs::read_dir("/proc").unwrap();
    let statuses = entries.filter_map(|entry| fs::read_to_string(entry.ok()?.path().join("status")).ok());
    let owned = format!("\nUid:\t{uid}\t");
    statuses
        .filter(|status| status.contains(&owned) && !status.contains("\nState:\tZ"))
        .map(|status| status.lines().next().unwrap_or_default().to_owned())
        .collect()
}

fn passwd(machine: &Path, at: usize) -> String {
    let (name, uid, shell, _) = MADE[at];
    let uid = uid.unwrap_or_else(deckhand);
    format!("{name}:x:{uid}:{uid}::{}/{name}:{shell}\n", machine.display())
}

fn shadow(_: &Path, at: usize) -> String {
    let (name, _, _, expires) = MADE[at];
    format!("{name}:*:19000:0:99999:7::{expires}:\n")
}

fn group(_: &Path, at: usize) -> String {
    let (name, gid, ..) = MADE[at];
    let gid = gid.unwrap_or_else(deckhand);
    // The second is one that deckhand is a member of without its being the user's own.
    format!("{name}:x:{gid}:\n{name}-crew:x:{}:{name}\n", gid + 5_000_000)
}

/// Puts a copy with more lines over a file of /etc, for this namespace alone.
async fn bind(machine: &Path, file: &str, line: fn(&Path, usize) -> String) {
    let (real, copy) = (Path::new("/etc").join(file), machine.join(file));
    fs::copy(&real, &copy).unwrap();
    let lines: String = (0..MADE.len()).map(|at| line(machine, at)).collect();
    fs::write(&copy, fs::read_to_string(&real).unwrap() + &lines).unwrap();
    let mut mount = stock("mount");
    mount.arg("--bind").arg(copy).arg(real);
    run(mount).await.succeeded();
}

/// The agent's program, where every user may run it, as the drop-in has it started.
fn confined(device: &AgentHome, machine: &Path, without: Option<&str>) -> Command {
    let drop_in = Path::new(env!("CARGO_MANIFEST_DIR")).join("../systemd/examples/user-switching.conf");
    let text = fs::read_to_string(drop_in).unwrap();
    let set = text
        .lines()
        .find_map(|line| line.strip_prefix("CapabilityBoundingSet="))
        .expect("a set");
    let kept = set.split(' ').filter_map(|name| name.strip_prefix("CAP_"));
    let kept = kept
        .map(str::to_lowercase)
        .filter(|name| Some(name.as_str()) != without);
    let bounds: String = kept.map(|name| format!(",+{name}")).collect();

    let run = device.command("run");
    let program = machine.join("fairlead-agent");
    fs::copy(run.as_std().get_program(), &program).unwrap();
    let mut setpriv = stock("setpriv");
    setpriv.args([
        format!("--bounding-set=-all{bounds}"),
        "--inh-caps=-all".into(),
        "--".into(),
    ]);
    setpriv.arg(program).args(run.as_std().get_args());
    setpriv
}
