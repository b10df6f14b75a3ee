//! `credentials:` of an endpoint: whom the agent logs in as when a caller asks for a user.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use fairlead_identity::name::EndpointUrl;
use fairlead_runtime::config_file;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_yaml::Spanned;

use super::{Checker, Secrets};
use crate::inject;

/// Most entries of one endpoint.
const MAX_CREDENTIALS: usize = 64;
/// The longest name of a user, in bytes.
const MAX_USER_BYTES: usize = 128;

/// One login that the agent makes for callers.
#[derive(Clone, Debug)]
pub struct Credential {
    /// The user that a caller asks for.
    pub requested: String,
    /// The user that the upstream sees.
    pub user: String,
    /// Where the password is.
    pub password_file: PathBuf,
    /// Absent where the file was read by somebody who only looks.
    password: Option<Arc<SecretString>>,
}

impl Credential {
    /// The password, wiped when the last holder lets it go.
    pub(crate) fn password(&self) -> Option<&str> {
        self.password.as_ref().map(|password| password.expose_secret())
    }

    /// Whether it is the same login, with whatever password: one that was changed ends no session.
    pub(crate) fn is_same_login(&self, other: &Self) -> bool {
        (&self.requested, &self.user) == (&other.requested, &other.user)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenCredential {
    #[serde(rename = "as")]
    requested: Spanned<String>,
    user: Spanned<String>,
    password_file: Spanned<PathBuf>,
}

impl Checker<'_> {
    pub(super) fn credentials(
        &mut self,
        written: &Spanned<Vec<WrittenCredential>>,
        url: Option<&EndpointUrl>,
        has_rules: bool,
    ) -> Vec<Credential> {
        if let Some(url) = url.filter(|url| inject::kind_of(url.protocol).is_none()) {
            let text = format!(
                "this release logs in for callers of postgres:// and mqtt:// endpoints only, not of {}://",
                url.protocol
            );
            self.at(written, text);
        }
        if !has_rules {
            let text =
                "an endpoint whose callers are logged in needs rules: say who may have these credentials, and for what";
            self.at(written, text);
        }
        if written.value.is_empty() || written.value.len() > MAX_CREDENTIALS {
            self.at(written, format!("one to {MAX_CREDENTIALS} credentials"));
        }
        let mut credentials: Vec<Credential> = Vec::new();
        for one in &written.value {
            for name in [&one.requested, &one.user] {
                if !is_user(&name.value) {
                    self.at(
                        name,
                        format!("a user's name has 1 to {MAX_USER_BYTES} bytes and no control character"),
                    );
                }
            }
            if credentials
                .iter()
                .any(|earlier| earlier.requested == one.requested.value)
            {
                self.at(
                    &one.requested,
                    format!("`as: {}` stands here twice", one.requested.value),
                );
            }
            credentials.extend(self.credential(one));
        }
        credentials
    }

    fn credential(&mut self, written: &WrittenCredential) -> Option<Credential> {
        let password = match self.secrets {
            Secrets::LeftAlone => None,
            Secrets::Read => match password(&written.password_file.value) {
                Ok(password) => Some(Arc::new(password)),
                Err(told) => {
                    self.at(&written.password_file, told);
                    return None;
                }
            },
        };
        Some(Credential {
            requested: written.requested.value.clone(),
            user: written.user.value.clone(),
            password_file: written.password_file.value.clone(),
            password,
        })
    }
}

pub(super) fn password(file: &Path) -> Result<SecretString, String> {
    let password = config_file::read_secret(file).map_err(|error| error.to_string())?;
    match password.expose_secret() {
        "" => Err(format!("{} is empty", file.display())),
        // It would end the message that carries it.
        text if text.contains('\0') => Err(format!("{} holds a zero byte, which no password has", file.display())),
        _ => Ok(password),
    }
}

fn is_user(name: &str) -> bool {
    (1..=MAX_USER_BYTES).contains(&name.len()) && !name.chars().any(char::is_control)
}
