//! `fairlead users`: who may come in, and with which keys.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use fairlead_identity::name::Label;
use fairlead_runtime::config_file::{self, MAX_SECRET_BYTES};
use hyper::Method;

use crate::admin_client::api::{AddKeys, AddUser, ChangeUser, User, UserKeys, Users};
use crate::admin_client::{AdminClient, Administration};
use crate::command::{CommandError, Context, Exit, key_value, label};
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
    /// List a user's keys
    Keys {
        /// The user
        #[arg(value_parser = label)]
        name: Label,
    },
    /// Add SSH keys to a user
    AddKey {
        /// The user
        #[arg(value_parser = label)]
        name: Label,
        /// File with public keys, one a line
        #[arg(long, value_name = "FILE", required = true)]
        ssh_key_file: Vec<PathBuf>,
    },
    /// Replace a user's groups; none named takes all away
    Group {
        /// The user
        #[arg(value_parser = label)]
        name: Label,
        /// The groups from now on
        groups: Vec<String>,
    },
    /// Keep a user out
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
        UsersAct::AddKey { name, ssh_key_file } => {
            let body = AddKeys {
                ssh_keys: key_lines(&ssh_key_file)?,
            };
            let keys: UserKeys = client
                .send(Method::POST, &format!("/v1/users/{name}/keys"), &body)
                .await?;
            show_keys(context, json, &keys)
        }
        UsersAct::Group { name, groups } => {
            let groups = Some(groups.into_iter().collect());
            change(&client, context, json, &name, &ChangeUser { groups, disabled: None }).await
        }
        UsersAct::Disable { name } => {
            change(
                &client,
                context,
                json,
                &name,
                &ChangeUser {
                    groups: None,
                    disabled: Some(true),
                },
            )
            .await
        }
        UsersAct::Enable { name } => {
            change(
                &client,
                context,
                json,
                &name,
                &ChangeUser {
                    groups: None,
                    disabled: Some(false),
                },
            )
            .await
        }
    }
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
    let mut table = Table::new(&["FINGERPRINT", "KIND", "ADDED", "EXPIRES"]);
    for key in &keys.keys {
        table.row([
            key.fingerprint.clone(),
            key.kind.clone(),
            output::moment(Some(key.added)),
            output::moment(key.expires),
        ]);
    }
    context.print(&table.to_text())
}
