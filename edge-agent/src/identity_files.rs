//! The agent's identity on disk: key, certificate chain, roots, and what enrolment said.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use fairlead_identity::chain;
use fairlead_identity::keys::PrivateKey;
use fairlead_identity::name::Label;
use fairlead_identity::principal::{Kind, Principal};
use fairlead_identity::verify::Roots;
use fairlead_runtime::config_file::{private_dir, read_secret, write_private};
use rustls::pki_types::CertificateDer;
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};

use crate::machine::{self, CopiedState};

/// An enrolled agent's identity.
pub struct Identity {
    /// The agent's key; it was made here and never left.
    pub key: PrivateKey,
    /// Leaf, issuing certificate, root.
    pub chain: Vec<CertificateDer<'static>>,
    /// The roots that gateways must lead to.
    pub roots: Roots,
    /// The host key of the agent's own SSH server, OpenSSH PEM.
    pub ssh_host_key: secrecy::SecretString,
    /// What enrolment said.
    pub enrolled: Enrolled,
}

/// What enrolment said beside the certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Enrolled {
    /// The name in the certificate, a SPIFFE URI.
    pub principal: String,
    /// The name in gateways' certificates.
    pub domain: String,
    /// Gateways to dial, `host:port`.
    pub gateways: Vec<String>,
}

impl Identity {
    /// The agent's name and site.
    ///
    /// # Errors
    /// When the stored principal is no agent's.
    pub fn name_and_site(&self) -> anyhow::Result<(Label, Label)> {
        let principal: Principal = self
            .enrolled
            .principal
            .parse()
            .context("the stored identity is damaged")?;
        match (principal.kind(), principal.site()) {
            (Kind::Agent, Some(site)) => Ok((principal.name().clone(), site.clone())),
            _ => bail!("{} is not an agent's identity", self.enrolled.principal),
        }
    }
}

/// The files of a state directory.
#[derive(Clone, Debug)]
pub struct IdentityFiles {
    dir: PathBuf,
    /// Whether what is missing may be made.
    writes: bool,
}

impl IdentityFiles {
    /// The files in `state_dir`, which is made (0700) if it is absent.
    ///
    /// # Errors
    /// When the directory cannot be made, or others may look into it.
    pub fn open(state_dir: &Path) -> anyhow::Result<Self> {
        private_dir(state_dir)?;
        Ok(Self {
            dir: state_dir.to_owned(),
            writes: true,
        })
    }

    /// The files in `state_dir` for somebody who only looks: nothing is made.
    ///
    /// # Errors
    /// When the directory is open to others; one that is absent is only not enrolled.
    pub fn look(state_dir: &Path) -> anyhow::Result<Self> {
        if state_dir.symlink_metadata().is_ok() {
            private_dir(state_dir)?;
        }
        Ok(Self {
            dir: state_dir.to_owned(),
            writes: false,
        })
    }

    /// Whether an enrolment has been completed here. `enrolled.json` is written last.
    pub fn is_enrolled(&self) -> bool {
        self.path("enrolled.json").exists()
    }

    /// The key of an enrolment that was begun, or a new one; a repeated enrolment must present the same key.
    ///
    /// # Errors
    /// When the file cannot be read or written, and [`CopiedState`] when another machine made the key.
    pub fn key(&self) -> anyhow::Result<PrivateKey> {
        if let Some(key) = self.present_key()? {
            return Ok(key);
        }
        // First, so that no key is without it.
        if let Some(machine) = machine::this_machine() {
            write_private(&self.path("machine"), machine.as_bytes(), 0o600)?;
        }
        let key = PrivateKey::generate()?;
        write_private(&self.path("key.pem"), key.to_pem().expose_secret().as_bytes(), 0o600)?;
        Ok(key)
    }

    fn present_key(&self) -> anyhow::Result<Option<PrivateKey>> {
        let path = self.path("key.pem");
        if !path.exists() {
            return Ok(None);
        }
        self.is_of_this_machine()?;
        let pem = read_secret(&path)?;
        let key = PrivateKey::from_pem(pem.expose_secret());
        key.map(Some).with_context(|| format!("{} is damaged", path.display()))
    }

    /// A directory without the file was made where machines have no id; so nothing can be said of it.
    fn is_of_this_machine(&self) -> anyhow::Result<()> {
        let path = self.path("machine");
        if !path.exists() {
            return Ok(());
        }
        let made_on = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        match machine::this_machine() {
            Some(here) if here != made_on.trim() => Err(CopiedState { dir: self.dir.clone() }.into()),
            _ => Ok(()),
        }
    }

    /// The name that this device proposed when it was told to wait for approval.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn proposed_name(&self) -> anyhow::Result<Option<Label>> {
        let path = self.path("proposed_name");
        if !path.exists() {
            return Ok(None);
        }
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let name = text.trim().parse();
        name.map(Some)
            .with_context(|| format!("{} is damaged; remove it", path.display()))
    }

    /// Remembers that name: a host name may change while the device waits, what the key holds does not.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn keep_proposed_name(&self, name: &Label) -> anyhow::Result<()> {
        Ok(write_private(
            &self.path("proposed_name"),
            name.as_str().as_bytes(),
            0o600,
        )?)
    }

    /// Keeps the outcome of an enrolment. Each file is whole or absent; the last one makes it count.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn save(&self, chain: &[Vec<u8>], roots: &[Vec<u8>], enrolled: &Enrolled) -> anyhow::Result<()> {
        self.save_roots(roots)?;
        self.save_chain(chain)?;
        self.save_enrolled(enrolled)
    }

    /// Keeps what enrolment said, or what changed of it since.
    ///
    /// # Errors
    /// When the file cannot be written; the one before stays.
    pub fn save_enrolled(&self, enrolled: &Enrolled) -> anyhow::Result<()> {
        let text = serde_json::to_vec_pretty(enrolled)?;
        Ok(write_private(&self.path("enrolled.json"), &text, 0o600)?)
    }

    /// Keeps a renewed certificate chain.
    ///
    /// # Errors
    /// When the file cannot be written; the one before stays.
    pub fn save_chain(&self, chain: &[Vec<u8>]) -> anyhow::Result<()> {
        Ok(write_private(
            &self.path("chain.pem"),
            chain::to_pem(chain).as_bytes(),
            0o600,
        )?)
    }

    /// Keeps the roots that gateways must lead to.
    ///
    /// # Errors
    /// When the file cannot be written; the one before stays.
    pub fn save_roots(&self, roots: &[Vec<u8>]) -> anyhow::Result<()> {
        Ok(write_private(
            &self.path("roots.pem"),
            chain::to_pem(roots).as_bytes(),
            0o600,
        )?)
    }

    /// The identity.
    ///
    /// # Errors
    /// When this agent is not enrolled, or a file is damaged.
    pub fn load(&self) -> anyhow::Result<Identity> {
        if !self.is_enrolled() {
            bail!(
                "this agent is not enrolled ({} has no enrolled.json): ask the gateway's operator for a join string \
                 (`fairlead token create --agent NAME`), then run `fairlead-agent enroll --token-file FILE`",
                self.dir.display()
            );
        }
        let read = |name: &str| {
            let path = self.path(name);
            std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
        };
        let damaged = |name: &str| format!("{} is damaged; enrol again", self.path(name).display());
        let enrolled: Enrolled =
            serde_json::from_slice(&read("enrolled.json")?).with_context(|| damaged("enrolled.json"))?;
        let pem = String::from_utf8(read("chain.pem")?).with_context(|| damaged("chain.pem"))?;
        let chain = chain::from_pem(&pem).with_context(|| damaged("chain.pem"))?;
        let pem = String::from_utf8(read("roots.pem")?).with_context(|| damaged("roots.pem"))?;
        let roots = Roots::from_pem(&pem).with_context(|| damaged("roots.pem"))?;
        let dir = self.dir.display();
        let missing = || format!("{dir}/key.pem is missing; enrol again, after moving {dir} away");
        let key = self.present_key()?.with_context(missing)?;
        Ok(Identity {
            key,
            roots,
            ssh_host_key: self.ssh_host_key()?,
            chain,
            enrolled,
        })
    }

    /// The SSH host key, made at the first call; for somebody who only looks it is one that nobody keeps.
    fn ssh_host_key(&self) -> anyhow::Result<secrecy::SecretString> {
        let path = self.path("ssh_host_ed25519_key");
        if path.exists() {
            return Ok(read_secret(&path)?);
        }
        let key = fairlead_identity::ssh::SshKey::create()?.to_openssh()?;
        if self.writes {
            write_private(&path, key.expose_secret().as_bytes(), 0o600)?;
        }
        Ok(key)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

#[cfg(test)]
mod tests;
