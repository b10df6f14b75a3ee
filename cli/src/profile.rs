//! What this person's machine keeps for a gateway: login key, certificates, and the files that stock ssh reads.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use fairlead_identity::chain;
use fairlead_identity::keys::PrivateKey;
use fairlead_identity::verify::{self, Roots, Usage};
use fairlead_runtime::config_file::{private_dir, read_secret, write_private};
use fairlead_wire::enroll::Enrolled;
use rustls::pki_types::CertificateDer;
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use std::time::SystemTime;

/// The variable that moves the profile to another directory.
pub const HOME_VARIABLE: &str = "FAIRLEAD_HOME";

/// The directory of one person's profile.
#[derive(Clone, Debug)]
pub struct Profile {
    dir: PathBuf,
}

/// What login learnt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Facts {
    /// The caller's name at the gateway.
    pub name: String,
    /// The name in the certificate, a SPIFFE URI.
    pub principal: String,
    /// The gateway's domain.
    pub domain: String,
    /// Gateways to call, `host:port`.
    pub gateways: Vec<String>,
    /// OpenSSH lines of the SSH host CAs.
    pub ssh_host_ca: Vec<String>,
}

impl Profile {
    /// The profile in `FAIRLEAD_HOME`, else in `$XDG_CONFIG_HOME/fairlead`, else in `~/.config/fairlead`.
    ///
    /// # Errors
    /// When none of these is known.
    pub fn locate() -> anyhow::Result<Self> {
        let variable = |name: &str| {
            std::env::var_os(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        let dir = variable(HOME_VARIABLE)
            .or_else(|| variable("XDG_CONFIG_HOME").map(|dir| dir.join("fairlead")))
            .or_else(|| variable("HOME").map(|dir| dir.join(".config/fairlead")))
            .with_context(|| format!("no home directory is known: set {HOME_VARIABLE}"))?;
        Ok(Self { dir })
    }

    /// The profile in `dir`.
    pub fn at(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// The directory, which is made (0700) if it is absent.
    ///
    /// # Errors
    /// When it cannot be made, or others may look into it.
    pub fn prepare(&self) -> anyhow::Result<&Path> {
        if let Some(parent) = self.dir.parent() {
            std::fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
        }
        private_dir(&self.dir)?;
        Ok(&self.dir)
    }

    /// The login key of this machine, made at the first call.
    ///
    /// # Errors
    /// When its file cannot be read or written.
    pub fn login_key(&self) -> anyhow::Result<PrivateKey> {
        self.prepare()?;
        let path = self.path("login.key.pem");
        if path.exists() {
            let pem = read_secret(&path)?;
            return PrivateKey::from_pem(pem.expose_secret()).with_context(|| format!("{} is damaged", path.display()));
        }
        let key = PrivateKey::generate()?;
        write_private(&path, key.to_pem().expose_secret().as_bytes(), 0o600)?;
        Ok(key)
    }

    /// Keeps what login gave; `facts.json` is written last and makes it count.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn save(
        &self,
        key: &PrivateKey,
        enrolled: &Enrolled,
        roots: &Roots,
        fallback: &[String],
    ) -> anyhow::Result<Facts> {
        let dir = self.prepare()?.to_owned();
        let write = |name: &str, text: &str| write_private(&dir.join(name), text.as_bytes(), 0o600);
        write("id", key.ssh_private()?.expose_secret())?;
        write("id.pub", &format!("{}\n", key.ssh_public(&enrolled.name)?))?;
        write("id-cert.pub", &format!("{}\n", enrolled.ssh_certificate))?;
        let chain = chain::from_ders(enrolled.certificate_chain.clone())?;
        let (_, presented) = chain.split_last().context("the gateway sent no certificate")?;
        let roots: Vec<_> = roots.certificates().collect();
        write("ca.pem", &chain::to_pem(&roots))?;
        write("cert.pem", &chain::to_pem(presented))?;
        let gateways = match enrolled.gateway_addresses.as_slice() {
            [] => fallback.to_vec(),
            some => some.to_vec(),
        };
        let facts = Facts {
            name: enrolled.name.clone(),
            principal: enrolled.principal.clone(),
            domain: enrolled.domain.clone(),
            gateways,
            ssh_host_ca: enrolled.ssh_host_ca.clone(),
        };
        write("facts.json", &serde_json::to_string_pretty(&facts)?)?;
        Ok(facts)
    }

    /// What login learnt.
    ///
    /// # Errors
    /// When nobody has logged in here.
    pub fn facts(&self) -> anyhow::Result<Facts> {
        let path = self.path("facts.json");
        if !path.exists() {
            bail!(
                "nobody has logged in here ({} is absent): run `fairlead login --token-file FILE` first",
                path.display()
            );
        }
        let text = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("{} is damaged: log in again", path.display()))
    }

    /// The roots that the gateway must lead to.
    ///
    /// # Errors
    /// When their file is absent or damaged.
    pub fn roots(&self) -> anyhow::Result<Roots> {
        let text = std::fs::read_to_string(self.path("ca.pem"))
            .context("cannot read ca.pem: log in again with a join string")?;
        Ok(Roots::from_pem(&text)?)
    }

    /// The certificate chain that login got, without the root.
    ///
    /// # Errors
    /// When its file is absent or damaged.
    pub fn chain(&self) -> anyhow::Result<Vec<CertificateDer<'static>>> {
        let text = std::fs::read_to_string(self.path("cert.pem")).context("cannot read cert.pem: log in again")?;
        Ok(chain::from_pem(&text)?)
    }

    /// When the certificates end, or why they are no good now.
    ///
    /// # Errors
    /// When they have ended, or a file is damaged.
    pub fn good_until(&self, now: SystemTime) -> anyhow::Result<SystemTime> {
        let read = |name: &str| std::fs::read_to_string(self.path(name)).with_context(|| format!("cannot read {name}"));
        let roots = self.roots()?;
        let chain = chain::from_pem(&read("cert.pem")?)?;
        let trust_domain = roots.trust_domain().to_owned();
        Ok(verify::authenticate(&chain, &roots, Usage::Client, &trust_domain, now)?.not_after())
    }

    /// A file of the profile.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}
