//! `fairlead users`: who may come in, and with which keys.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use fairlead_identity::name::Label;
use fairlead_runtime::config_file::{self, MAX_SECRET_BYTES};
use hyper::Method;

use crate::admin_client::api::{AddKeys, AddUser, ChangeUser, User, UserKeys, Users};
use crate::admin_client::{AdminClient, Administration};
use crate::command::{CommandError, Context, Exit, key_value, label, label_change};
use crate::output::{self, Table};

/// Add, list and change users.
#[derive(Clone, Debug, Args)]
pub struct UsersArgs {
    #[command(flatten)]
    admin: Administration,
    #[command(subcommand)]
    act: UsersAct,
}

#[derive(Clone, Debug, Subcommand)]
enum UsersAct {
    /// Add a user who comes with stock ssh and a key of their own
    #[command(after_help = "Example:
  fairlead users add alice --ssh-key-file alice.pub --group field")]
    Add(Box<AddArgs>),
    /// List users
    List {
        /// Only users of this site
        #[arg(long, value_parser = label)]
        site: Option<Label>,
    },
    /// List a user's keys: those that were registered, and the login keys of the user's machines
    Keys {
        /// The user
        #[arg(value_parser = label)]
        name: Label,
    },
    /// Add SSH keys to a user; FIDO keys (ssh-keygen -t ed25519-sk, ecdsa-sk) are taken too
    #[command(after_help = "Example:
  fairlead users add-key alice --ssh-key-file yubikey.pub --label yubikey")]
    AddKey {
        /// The user
        #[arg(value_parser = label)]
        name: Label,
        /// File with public keys, one a line
        #[arg(long, value_name = "FILE", required = true)]
        ssh_key_file: Vec<PathBuf>,
        /// What people call these keys, at most 64 bytes
        #[arg(long, value_name = "NAME", default_value = "")]
        label: String,
    },
    /// Take a key away; sessions that came in by it end
    RemoveKey {
        /// The user
        #[arg(value_parser = label)]
        name: Label,
        /// The key's fingerprint, or an unmistakable beginning of it
        fingerprint: String,
    },
    /// Let a login key be good for another 90 days from now
    RenewKey {
        /// The user
        #[arg(value_parser = label)]
        name: Label,
        /// The key's fingerprint, or an unmistakable beginning of it
        fingerprint: String,
    },
    /// Replace a user's groups; none named takes all away
    Group {
        /// The user
        #[arg(value_parser = label)]
        name: Label,
        /// The groups from now on
        groups: Vec<String>,
    },
    /// Set labels, or take them away with KEY-
    #[command(after_help = "Example:
  fairlead users label alice team=north shift-")]
    Label {
        /// The user
        #[arg(value_parser = label)]
        name: Label,
        /// KEY=VALUE or KEY-
        #[arg(required = true, value_parser = label_change)]
        changes: Vec<(String, Option<String>)>,
    },
    /// Keep a user out for a while: nothing lets them in until they are enabled. To shut somebody out for good, revoke
    Disable {
        /// The user
        #[arg(value_parser = label)]
        name: Label,
    },
    /// Let a disabled user in again
    Enable {
        /// The user
        #[arg(value_parser = label)]
        name: Label,
    },
    /// Delete a user: sessions end, keys and join strings are good no longer, the name is free again
    Delete {
        /// The user
        #[arg(value_parser = label)]
        name: Label,
    },
}

#[derive(Clone, Debug, Args)]
struct AddArgs {
    /// The name, also the SSH user name at the gateway
    #[arg(value_parser = label)]
    name: Label,
    /// File with public keys, one a line; may be repeated
    #[arg(long, value_name = "FILE", required = true)]
    ssh_key_file: Vec<PathBuf>,
    /// A group of the user; may be repeated
    #[arg(long = "group", value_name = "GROUP")]
    groups: Vec<String>,
    /// Label for policy; may be repeated
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = key_value)]
    labels: Vec<(String, String)>,
    /// The one site the user never leaves
    #[arg(long, value_parser = label)]
    site: Option<Label>,
}

/// Runs the command.
///
/// # Errors
/// Those of the gateway and of the way to it; [`Exit::BadConfiguration`] for a key file that cannot be read.
pub async fn run(args: UsersArgs, context: &Context) -> Result<(), CommandError> {
    let client = AdminClient::new(&args.admin, context);
    let json = args.admin.json;
    match args.act {
        UsersAct::Add(add) => {
            let user: User = client.send(Method::POST, "/v1/users", &request(*add)?).await?;
            show_user(context, json, &user)
        }
        UsersAct::List { site } => {
            let query = site.map_or_else(String::new, |site| format!("?site={site}"));
            show_users(context, json, &client.get(&format!("/v1/users{query}")).await?)
        }
        UsersAct::Keys { name } => show_keys(context, json, &client.get(&format!("/v1/users/{name}/keys")).await?),
        UsersAct::AddKey {
            name,
            ssh_key_file,
            label,
        } => {
            let body = AddKeys {
                ssh_keys: key_lines(&ssh_key_file)?,
                label,
            };
            let keys: UserKeys = client
                .send(Method::POST, &format!("/v1/users/{name}/keys"), &body)
                .await?;
            show_keys(context, json, &keys)
        }
        UsersAct::RemoveKey { name, fingerprint } => {
            client.delete(&key_path(&name, &fingerprint)?).await?;
            context.note(&format!("{name} no longer has the key {fingerprint}."))
        }
        UsersAct::RenewKey { name, fingerprint } => {
            let path = key_path(&name, &fingerprint)?;
            let keys: UserKeys = client.send(Method::POST, &path, &()).await?;
            show_keys(context, json, &keys)
        }
        UsersAct::Delete { name } => {
            client.delete(&format!("/v1/users/{name}")).await?;
            context.note(&format!("User {name} is deleted; the name is free again."))
        }
        UsersAct::Group { name, groups } => {
            let groups = Some(groups.into_iter().collect());
            let body = ChangeUser {
                groups,
                ..ChangeUser::default()
            };
            change(&client, context, json, &name, &body).await
        }
        UsersAct::Label { name, changes } => {
            let body = ChangeUser {
                labels: changes.into_iter().collect(),
                ..ChangeUser::default()
            };
            change(&client, context, json, &name, &body).await
        }
        UsersAct::Disable { name } => change(&client, context, json, &name, &disabled(true)).await,
        UsersAct::Enable { name } => change(&client, context, json, &name, &disabled(false)).await,
    }
}

/// The change that keeps somebody out, or lets them in again.
pub(crate) fn disabled(disabled: bool) -> ChangeUser {
    ChangeUser {
        disabled: Some(disabled),
        ..ChangeUser::default()
    }
}

/// A fingerprint goes into a path, so it must be one.
fn key_path(name: &Label, fingerprint: &str) -> Result<String, CommandError> {
    let digest = fingerprint.strip_prefix("SHA256:").unwrap_or(fingerprint);
    let base64 = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/');
    if digest.is_empty() || !digest.bytes().all(base64) {
        let text = format!("`{fingerprint}` is no fingerprint; copy it from `fairlead users keys {name}`");
        return Err(CommandError::usage(text));
    }
    Ok(format!("/v1/users/{name}/keys/SHA256:{digest}"))
}

async fn change(
    client: &AdminClient,
    context: &Context,
    json: bool,
    name: &Label,
    body: &ChangeUser,
) -> Result<(), CommandError> {
    let user: User = client.send(Method::PATCH, &format!("/v1/users/{name}"), body).await?;
    show_user(context, json, &user)
}

fn request(args: AddArgs) -> Result<AddUser, CommandError> {
    Ok(AddUser {
        name: args.name.to_string(),
        site: args.site.map(|site| site.to_string()),
        groups: args.groups.into_iter().collect::<BTreeSet<_>>(),
        labels: args.labels.into_iter().collect(),
        ssh_keys: key_lines(&args.ssh_key_file)?,
    })
}

/// The keys of the files; empty lines and remarks are left out. Whether each is a key says the gateway.
fn key_lines(files: &[PathBuf]) -> Result<Vec<String>, CommandError> {
    let mut lines = Vec::new();
    for file in files {
        let text = config_file::read(file, MAX_SECRET_BYTES)
            .map_err(|error| CommandError::new(Exit::BadConfiguration, error))?;
        let before = lines.len();
        let keys = text
            .text
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty() && !line.starts_with('#'));
        for line in keys {
            // Said here, before it travels: the file beside the right one is the private key.
            if line.starts_with("-----BEGIN") {
                return Err(private_key(file));
            }
            lines.push(line.to_owned());
        }
        if lines.len() == before {
            let text = format!(
                "{} holds no public key; it should have a line such as `ssh-ed25519 AAAA… name`",
                file.display()
            );
            return Err(CommandError::text(Exit::BadConfiguration, text));
        }
    }
    Ok(lines)
}

fn private_key(file: &Path) -> CommandError {
    let file = file.display();
    CommandError::text(
        Exit::BadConfiguration,
        format!("{file} is a private key, which never leaves its owner; give {file}.pub"),
    )
}

fn show_user(context: &Context, json: bool, user: &User) -> Result<(), CommandError> {
    if json {
        output::json(context, user)
    } else {
        context.print(&table(std::slice::from_ref(user)))
    }
}

fn show_users(context: &Context, json: bool, users: &Users) -> Result<(), CommandError> {
    if json {
        output::json(context, users)
    } else {
        context.print(&table(&users.users))
    }
}

fn table(users: &[User]) -> String {
    let mut table = Table::new(&["NAME", "SITE", "GROUPS", "LABELS", "STATE", "SINCE"]);
    for user in users {
        table.row([
            user.name.clone(),
            user.site.clone().unwrap_or_default(),
            output::names(&user.groups),
            output::labels(&user.labels),
            if user.disabled {
                "disabled".into()
            } else {
                "enabled".into()
            },
            output::moment(Some(user.created)),
        ]);
    }
    table.to_text()
}

fn show_keys(context: &Context, json: bool, keys: &UserKeys) -> Result<(), CommandError> {
    if json {
        return output::json(context, keys);
    }
    let mut table = Table::new(&["FINGERPRINT", "ALGORITHM", "KIND", "LABEL", "ADDED", "EXPIRES"]);
    for key in &keys.keys {
        table.row([
            key.fingerprint.clone(),
            key.algorithm.clone(),
            key.kind.clone(),
            key.label.clone(),
            output::moment(Some(key.added)),
            output::moment(key.expires),
        ]);
    }
    context.print(&table.to_text())
}
