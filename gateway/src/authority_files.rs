//! The authority's keys and certificates on disk, made once by `init`.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, bail};
use fairlead_identity::authority::{self, Authority};
use fairlead_identity::ssh::SshAuthority;
use fairlead_runtime::config_file::{private_dir, read_secret, write_private};
use secrecy::{ExposeSecret, SecretString};

/// Everything the gateway signs with.
pub(crate) struct Authorities {
    /// Issues X.509 certificates.
    pub(crate) x509: Authority,
    /// Issues SSH certificates.
    pub(crate) ssh: SshAuthority,
}

/// The files of a state directory.
#[derive(Clone, Debug)]
pub(crate) struct AuthorityFiles {
    dir: PathBuf,
}

/// Private and public half of one file pair, in the order they are written: the public one last, so that a pair counts
/// only when it is whole.
const FILES: [&str; 7] = [
    "ca/root.key.pem",
    "ca/root.pem",
    "ca/issuing.key.pem",
    "ca/issuing.pem",
    "ssh/user_ca",
    "ssh/host_ca",
    "ssh/host_key",
];

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

    /// Makes whatever is missing; what is there stays as it is. Returns whether anything was made.
    ///
    /// # Errors
    /// When a key exists without its certificate's other half, or a file cannot be written.
    pub(crate) fn create_missing(&self, trust_domain: &str, now: SystemTime) -> anyhow::Result<bool> {
        let mut made = false;
        if !self.exists("ca/root.pem") {
            let (key, certificate) = authority::create_root(trust_domain, now)?;
            self.write("ca/root.key.pem", key.to_pem().expose_secret())?;
            self.write("ca/root.pem", &certificate)?;
            made = true;
        }
        if !self.exists("ca/issuing.pem") {
            let root_key = fairlead_identity::keys::PrivateKey::from_pem(self.read("ca/root.key.pem")?.expose_secret())
                .context("ca/root.key.pem is damaged")?;
            let root = self.read("ca/root.pem")?;
            let (key, certificate) = authority::create_issuing(&root_key, root.expose_secret(), trust_domain, now)?;
            self.write("ca/issuing.key.pem", key.to_pem().expose_secret())?;
            self.write("ca/issuing.pem", &certificate)?;
            made = true;
        }
        for name in ["ssh/user_ca", "ssh/host_ca", "ssh/host_key"] {
            if !self.exists(name) {
                let key = fairlead_identity::ssh::SshKey::create()?;
                self.write(name, key.to_openssh()?.expose_secret())?;
                made = true;
            }
        }
        Ok(made)
    }

    /// Loads everything.
    ///
    /// # Errors
    /// When `init` was not run, or a file is damaged.
    pub(crate) fn load(&self) -> anyhow::Result<Authorities> {
        // The root's key may be kept elsewhere; nothing here needs it.
        let missing: Vec<&str> = FILES
            .into_iter()
            .filter(|name| *name != "ca/root.key.pem" && !self.exists(name))
            .collect();
        if !missing.is_empty() {
            bail!(
                "{} lacks {}: run `fairlead-gateway init --config FILE --domain NAME` first",
                self.dir.display(),
                missing.join(", ")
            );
        }
        let (issuing_key, issuing, root) = (
            self.read("ca/issuing.key.pem")?,
            self.read("ca/issuing.pem")?,
            self.read("ca/root.pem")?,
        );
        let x509 = Authority::load(
            issuing_key.expose_secret(),
            issuing.expose_secret(),
            root.expose_secret(),
        )
        .context("the CA cannot be loaded")?;
        let (user_ca, host_ca, host_key) = (
            self.read("ssh/user_ca")?,
            self.read("ssh/host_ca")?,
            self.read("ssh/host_key")?,
        );
        let ssh = SshAuthority::from_openssh(
            user_ca.expose_secret(),
            host_ca.expose_secret(),
            host_key.expose_secret(),
        )
        .context("the SSH keys cannot be loaded")?;
        Ok(Authorities { x509, ssh })
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
