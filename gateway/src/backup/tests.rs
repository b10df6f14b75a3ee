use super::*;

use crate::init;
use crate::store::{AgentId, NewAgent, Store};

const PASSPHRASE: &str = "correct horse battery staple";

struct Machine {
    dir: tempfile::TempDir,
}

impl Machine {
    fn empty() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("etc/gateway.yaml")
    }

    fn settings(&self) -> String {
        let dir = self.dir.path().display();
        format!(
            "version: 1\ndomain: gw.test\nstate_dir: \"{dir}/state\"\naccess: [\"{dir}/etc/access.d\"]\nadmin: {{ socket: \"{dir}/admin.sock\" }}\n"
        )
    }

    fn set_up(&self) -> Config {
        let access = self.dir.path().join("etc/access.d");
        std::fs::create_dir_all(&access).unwrap();
        std::fs::write(access.join("access.yaml"), "version: 1\nrules: []\n").unwrap();
        std::fs::write(self.file(), self.settings()).unwrap();
        init::init(&self.file(), Some("gw.test"), SystemTime::now())
            .unwrap()
            .config
    }
}

fn lock() -> Lock {
    Lock::passphrase(&secrecy::SecretString::from(PASSPHRASE)).unwrap()
}

fn key(text: &str) -> Key {
    Key::passphrase(&secrecy::SecretString::from(text))
}

fn agent(name: &str) -> AgentId {
    AgentId::new("default", name)
}

#[test]
fn what_was_taken_is_put_back_on_an_empty_machine_and_nowhere_else() {
    let (old, new) = (Machine::empty(), Machine::empty());
    let config = old.set_up();
    // As long as it lives it is a gateway that runs.
    let mut store = SqliteStore::open(&state_file(&config.state_dir)).unwrap();
    store
        .import_agents(&[NewAgent {
            id: agent("pump-7"),
            labels: [("tier".to_owned(), "edge".to_owned())].into(),
        }])
        .unwrap();

    let now = SystemTime::now();
    let taken = take(&old.file(), &config, now).unwrap();
    let mut sealed = Vec::new();
    write(&taken, &lock(), &mut sealed).unwrap();
    assert!(sealed.starts_with(b"age-encryption.org/v1"));
    assert!(
        !sealed
            .windows(10)
            .any(|bytes| bytes == b"-----BEGIN" || bytes == b"SQLite for")
    );

    assert!(open(&sealed, &key("another passphrase")).is_err());
    let opened = open(&sealed, &key(PASSPHRASE)).unwrap();
    assert!(
        opened
            .names()
            .all(|name| !name.contains("audit") && !name.contains("lock"))
    );

    // The machine has settings of its own: they stay.
    std::fs::create_dir_all(new.file().parent().unwrap()).unwrap();
    std::fs::write(new.file(), new.settings()).unwrap();
    let (restored, made) = restore_settings(&opened, &new.file()).unwrap();
    assert_eq!(made, [new.dir.path().join("etc/access.d/access.yaml")]);
    restore_state(&opened, &restored, now).unwrap();
    let there = SqliteStore::open(&state_file(&restored.state_dir)).unwrap();
    assert_eq!(there.agent(&agent("pump-7")).unwrap().unwrap().labels["tier"], "edge");
    let root = |config: &Config| std::fs::read(config.state_dir.join("ca/root-1.pem")).unwrap();
    assert_eq!(root(&config), root(&restored));

    let refused = restore_state(&opened, &restored, now).unwrap_err().to_string();
    assert!(refused.contains("is not empty"), "{refused}");
}

#[test]
fn a_backup_of_another_kind_or_with_other_names_is_refused() {
    for bytes in [b"".as_slice(), b"not a tar file", &[0; 4_096]] {
        assert!(Archive::unpack(bytes).is_err());
    }
    let mut archive = Archive::new(SystemTime::now());
    for name in ["../etc/passwd", "/etc/passwd", "state/../../x", "", "state/"] {
        assert!(archive.add(name, Vec::new()).is_err(), "{name}");
    }
    archive.add("state/x", Vec::new()).unwrap();
    assert!(archive.add("state/x", Vec::new()).is_err());
    let damaged = |at: usize| {
        let mut sealed = Vec::new();
        write(&archive, &lock(), &mut sealed).unwrap();
        let place = sealed.len() - at;
        sealed[place] ^= 1;
        open(&sealed, &key(PASSPHRASE)).map(drop)
    };
    assert!(damaged(1).is_err() && damaged(900).is_err());
}

#[test]
fn a_key_of_age_keygen_opens_what_its_recipient_was_given() {
    let identity = age::x25519::Identity::generate();
    let archive = Archive::new(SystemTime::now());
    let mut sealed = Vec::new();
    let lock = Lock::recipients(&[identity.to_public().to_string()]).unwrap();
    write(&archive, &lock, &mut sealed).unwrap();
    let secret = secrecy::ExposeSecret::expose_secret(&identity.to_string()).to_owned();
    let file = secrecy::SecretString::from(format!("# created: today\n{secret}\n"));
    open(&sealed, &Key::identities(&file).unwrap()).unwrap();
    assert!(open(&sealed, &key(PASSPHRASE)).is_err());
    assert!(Lock::recipients(&["age1nothing".into()]).is_err() && Lock::recipients(&[]).is_err());
    assert!(Lock::passphrase(&secrecy::SecretString::from("short")).is_err());
}
