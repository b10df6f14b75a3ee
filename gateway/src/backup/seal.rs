//! Sealing: the age format (age-encryption.org/v1), so that the `age` program opens a backup where ours is not at hand.

use std::io::{Read, Write};
use std::str::FromStr;

use age::secrecy::SecretString;
use age::x25519;
use anyhow::{Context, bail};
use secrecy::ExposeSecret;

/// Work that the key of a passphrase may ask of whoever opens it: 2^22 of scrypt, some ten seconds and 4 GiB. A backup made
/// on a faster machine is opened, one made to exhaust this machine is not.
const MAX_WORK: u8 = 22;
/// A passphrase shorter than this is guessed.
const SHORTEST: usize = 12;

/// Who may open a backup that is being made.
pub enum Lock {
    /// Whoever knows the passphrase.
    Passphrase(SecretString),
    /// Whoever has the key of one of these recipients.
    Recipients(Vec<x25519::Recipient>),
}

impl Lock {
    /// A passphrase, as it stands in a file: its first line.
    ///
    /// # Errors
    /// When it is short.
    pub fn passphrase(text: &SecretString) -> anyhow::Result<Self> {
        let line = first_line(text);
        if line.chars().count() < SHORTEST {
            bail!(
                "the passphrase is shorter than {SHORTEST} characters; the backup holds the authority, so take a long one"
            );
        }
        Ok(Self::Passphrase(SecretString::from(line.to_owned())))
    }

    /// Recipients, as `age-keygen` prints them (`age1…`).
    ///
    /// # Errors
    /// When one cannot be read, or there is none.
    pub fn recipients(texts: &[String]) -> anyhow::Result<Self> {
        let read = |text: &String| {
            let recipient = x25519::Recipient::from_str(text);
            recipient.map_err(|why| anyhow::anyhow!("{text} is no age recipient ({why}); `age-keygen` makes keys"))
        };
        let recipients = texts.iter().map(read).collect::<anyhow::Result<Vec<_>>>()?;
        if recipients.is_empty() {
            bail!("say who may open the backup: --passphrase-file FILE or --recipient age1…");
        }
        Ok(Self::Recipients(recipients))
    }

    /// Writes `bytes` sealed.
    ///
    /// # Errors
    /// When `out` takes no more.
    pub(super) fn seal(&self, bytes: &[u8], out: &mut dyn Write) -> anyhow::Result<()> {
        let encryptor = match self {
            Self::Passphrase(passphrase) => age::Encryptor::with_user_passphrase(passphrase.clone()),
            Self::Recipients(recipients) => {
                age::Encryptor::with_recipients(recipients.iter().map(|one| one as &dyn age::Recipient))?
            }
        };
        let mut sealed = encryptor.wrap_output(out).context("the backup cannot be written")?;
        sealed.write_all(bytes).context("the backup cannot be written")?;
        sealed.finish().context("the backup cannot be written")?;
        Ok(())
    }
}

/// What opens a backup.
pub enum Key {
    /// Its passphrase.
    Passphrase(SecretString),
    /// Keys of recipients.
    Identities(Vec<x25519::Identity>),
}

impl Key {
    /// A passphrase, as it stands in a file: its first line.
    pub fn passphrase(text: &SecretString) -> Self {
        Self::Passphrase(SecretString::from(first_line(text).to_owned()))
    }

    /// The keys in a file of `age-keygen`.
    ///
    /// # Errors
    /// When a line is neither a key nor a remark.
    pub fn identities(text: &SecretString) -> anyhow::Result<Self> {
        let lines = text.expose_secret().lines().map(str::trim);
        let keys = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
        let read = |line| x25519::Identity::from_str(line).map_err(|why| anyhow::anyhow!("no age key: {why}"));
        Ok(Self::Identities(keys.map(read).collect::<anyhow::Result<_>>()?))
    }

    /// Opens what was sealed.
    ///
    /// # Errors
    /// With another key, or when it is damaged.
    pub(super) fn open(&self, sealed: &[u8]) -> anyhow::Result<Vec<u8>> {
        let decryptor = age::Decryptor::new(sealed).context("this is no backup of a gateway (no age file)")?;
        let mut reader = match self {
            Self::Passphrase(passphrase) => {
                let mut identity = age::scrypt::Identity::new(passphrase.clone());
                identity.set_max_work_factor(MAX_WORK);
                decryptor.decrypt(std::iter::once(&identity as &dyn age::Identity))
            }
            Self::Identities(identities) => decryptor.decrypt(identities.iter().map(|one| one as &dyn age::Identity)),
        }
        .context("the backup does not open with this passphrase or key")?;
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).context("the backup is damaged")?;
        Ok(bytes)
    }
}

fn first_line(text: &SecretString) -> &str {
    text.expose_secret().lines().next().unwrap_or_default().trim()
}
