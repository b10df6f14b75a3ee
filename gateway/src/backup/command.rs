//! `backup` and `restore` as they are typed. Root's go on as the account that the state belongs to; files that root names
//! are read and written by root.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::{IsTerminal, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::SystemTime;

use anyhow::{Context, bail};
use clap::Args;
use fairlead_runtime::account::Account;
use fairlead_runtime::config_file::{read_secret_or_stdin, write_private};
use secrecy::{ExposeSecret, SecretString};

use super::{Archive, Key, Lock};
use crate::config::{self, Config};
use crate::init::account;

/// What a backup needs to know.
#[derive(Args, Debug)]
pub struct Backup {
    /// The file to make; `-` is standard output.
    #[arg(long)]
    out: PathBuf,
    /// File whose first line is the passphrase; `-` reads standard input.
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// Whoever has the key of this recipient can open it (`age1…`, made by age-keygen); more than once for several.
    #[arg(long, value_name = "RECIPIENT", conflicts_with = "passphrase_file")]
    recipient: Vec<String>,
}

/// What putting one back needs to know.
#[derive(Args, Debug)]
pub struct Restore {
    /// The backup.
    file: PathBuf,
    /// File whose first line is its passphrase; `-` reads standard input.
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// File of age-keygen with a recipient's key.
    #[arg(long, value_name = "FILE", conflicts_with = "passphrase_file")]
    identity_file: Option<PathBuf>,
    /// Root has opened it and gives it on standard input.
    #[arg(long, hide = true)]
    opened: bool,
}

impl Backup {
    /// Makes it. Gives what to tell the person.
    ///
    /// # Errors
    /// Those of [`super::take`] and [`super::write`]; also when the file is there already.
    pub fn run(self, config_file: &Path, config: &Config, now: SystemTime) -> anyhow::Result<String> {
        let passphrase = self.passphrase_file.as_deref().map(read_secret_or_stdin).transpose()?;
        let lock = match &passphrase {
            Some(text) => Lock::passphrase(text)?,
            None => Lock::recipients(&self.recipient)?,
        };
        let is_stdout = self.out == Path::new("-");
        if is_stdout && std::io::stdout().is_terminal() {
            bail!("a backup is no text: name a file, or redirect standard output");
        }
        if !is_stdout && self.out.symlink_metadata().is_ok() {
            bail!("{} is there already; name a new file", self.out.display());
        }
        match Account::owning(&config.state_dir)? {
            Some(account) => self.run_as(&account, config_file, passphrase.as_ref())?,
            None => {
                let archive = super::take(config_file, config, now)?;
                let mut sealed = Vec::new();
                super::write(&archive, &lock, &mut sealed)?;
                if is_stdout {
                    std::io::stdout()
                        .write_all(&sealed)
                        .context("the backup cannot be written")?;
                } else {
                    write_private(&self.out, &sealed, 0o600)?;
                }
            }
        }
        Ok(format!(
            "{} holds this gateway's authority, database, settings and access policy; keep it where nobody else reads it, and \
             what opens it elsewhere. The audit log is not in it",
            self.out.display()
        ))
    }

    /// The account reads its state, root writes the file.
    fn run_as(&self, account: &Account, config_file: &Path, passphrase: Option<&SecretString>) -> anyhow::Result<()> {
        let mut arguments: Vec<OsString> = vec!["--config".into(), std::path::absolute(config_file)?.into()];
        arguments.extend(["backup", "--out", "-"].map(OsString::from));
        if passphrase.is_some() {
            arguments.extend(["--passphrase-file", "-"].map(OsString::from));
        }
        for recipient in &self.recipient {
            arguments.extend(["--recipient".into(), recipient.into()]);
        }
        let input = passphrase
            .map(|text| text.expose_secret().as_bytes())
            .unwrap_or_default();
        if self.out == Path::new("-") {
            return ended(account.run_again(&arguments, input, Stdio::inherit())?);
        }
        let mut part = self.out.clone().into_os_string();
        part.push(".part");
        drop(std::fs::remove_file(&part));
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part);
        let file = file.with_context(|| format!("cannot make {}", self.out.display()))?;
        let kept = file.try_clone()?;
        let done = ended(account.run_again(&arguments, input, file.into())?)
            .and_then(|()| kept.sync_all().map_err(anyhow::Error::from))
            .and_then(|()| std::fs::rename(&part, &self.out).map_err(anyhow::Error::from));
        if done.is_err() {
            drop(std::fs::remove_file(&part));
        }
        done
    }
}

impl Restore {
    /// Puts it back. Gives what to tell the person.
    ///
    /// # Errors
    /// Those of [`super::open`], [`super::restore_settings`] and [`super::restore_state`].
    pub fn run(self, config_file: &Path, now: SystemTime) -> anyhow::Result<String> {
        if self.opened {
            let mut packed = Vec::new();
            std::io::stdin().read_to_end(&mut packed)?;
            let config = config::load(config_file).map_err(|_| anyhow::anyhow!("the settings have mistakes"))?;
            return state(&Archive::unpack(&packed)?, &config, now);
        }
        let sealed = std::fs::read(&self.file).with_context(|| format!("cannot read {}", self.file.display()))?;
        let archive = super::open(&sealed, &self.key()?)?;
        let (config, made) = super::restore_settings(&archive, config_file)?;
        super::is_empty(&config.state_dir)?;
        account::make_state_dir(config_file, &config.state_dir)?;
        let mut told: Vec<String> = made.iter().map(|file| format!("made {}", file.display())).collect();
        match Account::owning(&config.state_dir)? {
            Some(account) => {
                let mut arguments: Vec<OsString> = vec!["--config".into(), std::path::absolute(config_file)?.into()];
                arguments.extend(["restore", "-", "--opened"].map(OsString::from));
                ended(account.run_again(&arguments, &archive.pack()?, Stdio::inherit())?)?;
            }
            None => told.push(state(&archive, &config, now)?),
        }
        Ok(told.join("\n"))
    }

    fn key(&self) -> anyhow::Result<Key> {
        match (&self.passphrase_file, &self.identity_file) {
            (Some(file), _) => Ok(Key::passphrase(&read_secret_or_stdin(file)?)),
            (None, Some(file)) => Key::identities(&read_secret_or_stdin(file)?),
            (None, None) => bail!("say what opens the backup: --passphrase-file FILE or --identity-file FILE"),
        }
    }
}

fn state(archive: &Archive, config: &Config, now: SystemTime) -> anyhow::Result<String> {
    let ended = super::restore_state(archive, config, now)?;
    Ok(format!(
        "{} is as it was {} ago; {ended} join strings that were good then are void.\n\
         What was revoked after that must be revoked again; what was enrolled after that must be enrolled again",
        config.domain,
        super::age_of(archive, now)
    ))
}

fn ended(code: u8) -> anyhow::Result<()> {
    // It has said itself what is wrong.
    if code == 0 { Ok(()) } else { Err(Told(code).into()) }
}

/// A part of the command that another process did has failed, and has said why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it was not done")]
pub struct Told(
    /// Its exit code.
    pub u8,
);
