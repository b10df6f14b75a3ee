//! The authorities' keys and certificates on disk.
//!
//! `ca/root-N.pem`, `ca/issuing-N.pem` and a `.key.pem` beside each; `ca/order.json` says which is in force. A number
//! counts once its certificate is there, which is written after its key; what is in force changes with one file. So a
//! command that dies at any moment leaves what was, or what was wanted.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, bail};
use fairlead_identity::authority::{self, Above, Authority};
use fairlead_identity::keys::PrivateKey;
use fairlead_identity::ssh::{SshAuthority, SshKey};
use fairlead_identity::verify::MAX_ROOTS;
use fairlead_runtime::config_file::{private_dir, read_secret, write_private};
use secrecy::{ExposeSecret, SecretString};

use super::book::{Book, Issuing, Order};
use super::{Authorities, InForce};

/// Most issuing authorities on disk: one a year for a lifetime.
const MAX_ISSUING: usize = 64;
/// Says which issuing authority is in force; absent while that is the first.
const ORDER: &str = "ca/order.json";
const SSH: [&str; 3] = ["ssh/user_ca", "ssh/host_ca", "ssh/host_key"];

/// The files of a state directory.
#[derive(Clone, Debug)]
pub(crate) struct AuthorityFiles {
    dir: PathBuf,
}

/// Held by whoever changes the files; given back when dropped.
pub(crate) struct Turn(#[expect(dead_code, reason = "the lock goes with the file")] File);

/// Where a root's private key is.
#[derive(Clone, Copy, Debug)]
pub(super) enum RootKey<'a> {
    /// Beside the root's certificate.
    Here,
    /// In a file elsewhere, for instance on a medium that is taken out.
    At(&'a Path),
}

impl AuthorityFiles {
    /// The files below `state_dir`, which is made (0700) if it is absent.
    ///
    /// # Errors
    /// When a directory cannot be made, or others may look into it.
    pub(crate) fn open(state_dir: &Path) -> anyhow::Result<Self> {
        for dir in Self::dirs(state_dir) {
            private_dir(&dir)?;
        }
        Ok(Self {
            dir: state_dir.to_owned(),
        })
    }

    /// The files below `state_dir` for somebody who only looks: nothing is made. What is absent shows when it is loaded.
    ///
    /// # Errors
    /// When others may look into a directory.
    pub(crate) fn look(state_dir: &Path) -> anyhow::Result<Self> {
        let present = |dir: &PathBuf| dir.symlink_metadata().is_ok();
        for dir in Self::dirs(state_dir).into_iter().filter(present) {
            private_dir(&dir)?;
        }
        Ok(Self {
            dir: state_dir.to_owned(),
        })
    }

    fn dirs(state_dir: &Path) -> [PathBuf; 3] {
        [state_dir.to_owned(), state_dir.join("ca"), state_dir.join("ssh")]
    }

    /// Makes whatever is missing of a new gateway; what is there stays as it is. Returns whether anything was made.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub(crate) fn create_missing(&self, trust_domain: &str, now: SystemTime) -> anyhow::Result<bool> {
        let _turn = self.turn()?;
        let mut made = false;
        if self.numbers("issuing")?.is_empty() {
            let root = match self.numbers("root")?.last() {
                Some(root) => *root,
                None => self.create_root(1, RootKey::Here, trust_domain, now)?,
            };
            self.create_issuing(1, root, RootKey::Here, trust_domain, now)?;
            made = true;
        }
        for name in SSH {
            if !self.exists(name) {
                self.write(name, SshKey::create()?.to_openssh()?.expose_secret())?;
                made = true;
            }
        }
        Ok(made)
    }

    /// Loads everything, as it is to be in force at `now`.
    ///
    /// # Errors
    /// When `init` was not run, or a file is damaged.
    pub(crate) fn load(&self, now: SystemTime) -> anyhow::Result<Authorities> {
        let missing: Vec<&str> = SSH.into_iter().filter(|name| !self.exists(name)).collect();
        if !missing.is_empty() || self.numbers("issuing").is_ok_and(|found| found.is_empty()) {
            let missing = [["ca/issuing-1.pem"].as_slice(), &missing].concat().join(", ");
            bail!(
                "{} lacks {missing}: run `fairlead-gateway init --config FILE --domain NAME` first",
                self.dir.display()
            );
        }
        let [user_ca, host_ca, host_key] = SSH.map(|name| self.read(name));
        let ssh = SshAuthority::from_openssh(
            user_ca?.expose_secret(),
            host_ca?.expose_secret(),
            host_key?.expose_secret(),
        )
        .context("the SSH keys cannot be loaded")?;
        Ok(Authorities::new(self.in_force(now)?, ssh))
    }

    /// The issuing authority that the files put in force, and what is trusted beside it.
    ///
    /// # Errors
    /// When a file is absent or damaged.
    pub(crate) fn in_force(&self, now: SystemTime) -> anyhow::Result<InForce> {
        let book = self.book()?;
        let active = book.active()?;
        let (key, certificate, root) = (
            self.read(&format!("ca/issuing-{}.key.pem", active.number))?,
            self.read(&format!("ca/issuing-{}.pem", active.number))?,
            self.read(&format!("ca/root-{}.pem", active.root))?,
        );
        let issuer = Authority::load(key.expose_secret(), certificate.expose_secret(), root.expose_secret())
            .context("the CA cannot be loaded")?;
        Ok(InForce {
            number: active.number,
            issuer,
            roots: book.trusted(now)?,
        })
    }

    /// Every authority on disk, by its certificates alone.
    ///
    /// # Errors
    /// When a file is damaged, or an issuing certificate has no root here.
    pub(super) fn book(&self) -> anyhow::Result<Book> {
        let order = if self.exists(ORDER) {
            let text = self.read(ORDER)?;
            serde_json::from_str(text.expose_secret()).with_context(|| format!("{ORDER} is damaged"))?
        } else {
            Order::default()
        };
        let mut roots = Vec::new();
        for number in self.numbers("root")? {
            roots.push((number, self.read(&format!("ca/root-{number}.pem"))?));
        }
        let mut book = Book {
            order,
            ..Book::default()
        };
        for number in self.numbers("issuing")? {
            let pem = self.read(&format!("ca/issuing-{number}.pem"))?;
            let above = |root: &SecretString| Above::read(pem.expose_secret(), root.expose_secret());
            let found = roots.iter().find_map(|(root, text)| Some((*root, above(text).ok()?)));
            let (root, above) = found.with_context(|| {
                format!("the CA cannot be loaded: ca/issuing-{number}.pem is damaged, or its root is not in ca/")
            })?;
            book.issuing.insert(number, Issuing { number, root, above });
        }
        Ok(book)
    }

    /// Makes the next issuing authority, under the newest root or under a new one.
    ///
    /// # Errors
    /// When the root's key is not to be had, there are too many authorities, or a file cannot be written.
    pub(super) fn prepare(
        &self,
        _turn: &Turn,
        new_root: bool,
        root_key: RootKey<'_>,
        now: SystemTime,
    ) -> anyhow::Result<u32> {
        let book = self.book()?;
        let trust_domain = book.active()?.above.trust_domain().to_owned();
        let issuing = self.numbers("issuing")?;
        if issuing.len() >= MAX_ISSUING {
            bail!("there are {MAX_ISSUING} issuing authorities already; move retired ones away from ca/ first");
        }
        // Beyond every number that ever was, half-made ones included.
        let last = issuing.iter().chain(&self.numbers("root")?).max().copied();
        let number = last.unwrap_or(0).saturating_add(1);
        let root = match book.issuing.last_key_value() {
            Some((_, newest)) if !new_root => newest.root,
            _ => {
                if book.trusted(now)?.certificates().count() >= MAX_ROOTS {
                    bail!("{MAX_ROOTS} roots are trusted already; wait until the oldest is not");
                }
                self.create_root(number, root_key, &trust_domain, now)?
            }
        };
        self.create_issuing(number, root, root_key, &trust_domain, now)?;
        Ok(number)
    }

    /// Puts `next` in force.
    ///
    /// # Errors
    /// When it is not the next one any longer, or the file cannot be written.
    pub(super) fn put_in_force(&self, _turn: &Turn, next: u32, now: SystemTime) -> anyhow::Result<()> {
        let book = self.book()?;
        if book.next().is_none_or(|expected| expected.number != next) {
            bail!("issuing authority {next} is not the next one any longer; look again with `ca status`");
        }
        let order = serde_json::to_string_pretty(&book.order.after_rotation(next, now))?;
        self.write(ORDER, &order)
    }

    /// Whether a root's key lies here.
    pub(super) fn has_root_key(&self, root: u32) -> bool {
        self.exists(&format!("ca/root-{root}.key.pem"))
    }

    /// The right to change the files, for one at a time.
    ///
    /// # Errors
    /// When another command has it.
    pub(crate) fn turn(&self) -> anyhow::Result<Turn> {
        let path = self.dir.join("ca/lock");
        if !path.exists() {
            write_private(&path, b"", 0o600)?;
        }
        let file = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
        file.try_lock()
            .map_err(|_| anyhow::anyhow!("another `ca` command is at work here; wait for it"))?;
        Ok(Turn(file))
    }

    fn create_root(
        &self,
        number: u32,
        root_key: RootKey<'_>,
        trust_domain: &str,
        now: SystemTime,
    ) -> anyhow::Result<u32> {
        let (key, certificate) = authority::create_root(trust_domain, now)?;
        let pem = key.to_pem();
        match root_key {
            RootKey::Here => self.write(&format!("ca/root-{number}.key.pem"), pem.expose_secret())?,
            RootKey::At(file) if file.symlink_metadata().is_ok() => bail!(
                "{} is there already; a new root's key is written to a new file",
                file.display()
            ),
            RootKey::At(file) => write_private(file, pem.expose_secret().as_bytes(), 0o600)?,
        }
        self.write(&format!("ca/root-{number}.pem"), &certificate)?;
        Ok(number)
    }

    fn create_issuing(
        &self,
        number: u32,
        root: u32,
        root_key: RootKey<'_>,
        trust_domain: &str,
        now: SystemTime,
    ) -> anyhow::Result<()> {
        let (root_key, shown) = match root_key {
            RootKey::At(file) => (read_secret(file)?, file.display().to_string()),
            RootKey::Here if self.has_root_key(root) => {
                let name = format!("ca/root-{root}.key.pem");
                (self.read(&name)?, name)
            }
            RootKey::Here => bail!(
                "the key of root {root} is not in ca/: name its file with --root-key-file; it is read and not kept"
            ),
        };
        let root_key = PrivateKey::from_pem(root_key.expose_secret()).with_context(|| format!("{shown} is damaged"))?;
        let root = self.read(&format!("ca/root-{root}.pem"))?;
        let (key, certificate) = authority::create_issuing(&root_key, root.expose_secret(), trust_domain, now)?;
        self.write(&format!("ca/issuing-{number}.key.pem"), key.to_pem().expose_secret())?;
        self.write(&format!("ca/issuing-{number}.pem"), &certificate)
    }

    /// The numbers N of the files `ca/KIND-N.pem`, in order.
    fn numbers(&self, kind: &str) -> anyhow::Result<Vec<u32>> {
        let dir = self.dir.join("ca");
        let entries = std::fs::read_dir(&dir).with_context(|| format!("cannot read {}", dir.display()))?;
        let mut found = Vec::new();
        for entry in entries {
            let name = entry
                .with_context(|| format!("cannot read {}", dir.display()))?
                .file_name();
            let number = name.to_str().and_then(|name| {
                let number = name.strip_prefix(kind)?.strip_prefix('-')?.strip_suffix(".pem")?;
                number.parse::<u32>().ok().filter(|number| *number > 0)
            });
            found.extend(number);
        }
        found.sort_unstable();
        Ok(found)
    }

    fn exists(&self, name: &str) -> bool {
        self.dir.join(name).exists()
    }

    fn read(&self, name: &str) -> anyhow::Result<SecretString> {
        Ok(read_secret(&self.dir.join(name))?)
    }

    fn write(&self, name: &str, text: &str) -> anyhow::Result<()> {
        Ok(write_private(&self.dir.join(name), text.as_bytes(), 0o600)?)
    }
}

#[cfg(test)]
mod tests;
