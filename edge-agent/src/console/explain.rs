//! `explain`: what the customer's file says about one caller and one endpoint, and why.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::time::SystemTime;

use clap::Args;
use fairlead_identity::name::{EndpointUrl, Protocol};
use fairlead_policy::{self as policy, CallerKind, Enforcement, Explanation, MqttAct, MqttFacts, SshFacts};
use fairlead_protocol::postgres::Startup;
use fairlead_wire::id::SessionId;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{Shown, in_force};
use crate::config::{Config, Upstream};
use crate::identity_files::IdentityFiles;
use crate::service::{Admission, AllowList, Asked, Explained};

/// Acts of the agent's own SSH server, and those of MQTT.
const ACTS: [&str; 5] = ["shell", "exec", "sftp", "publish", "subscribe"];

/// One question about the file.
#[derive(Debug, Args)]
pub struct Explain {
    /// The endpoint, such as ssh://pump-7.plant-7.internal.
    url: EndpointUrl,
    /// The caller's name.
    #[arg(long = "as", value_name = "CALLER")]
    caller: String,
    /// A group of the caller; may be given again.
    #[arg(long = "group", value_name = "G")]
    groups: Vec<String>,
    /// A label of the caller; may be given again.
    #[arg(long = "label", value_name = "K=V", value_parser = label)]
    labels: Vec<(String, String)>,
    /// What the caller is.
    #[arg(long, default_value = "user", value_parser = ["user", "workload", "unidentified"])]
    kind: String,
    /// The address the caller comes from.
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::UNSPECIFIED))]
    client_ip: IpAddr,
    /// An act of builtin:ssh (shell, exec or sftp), or of MQTT (publish or subscribe), which wants a topic.
    #[arg(long, value_parser = ACTS)]
    act: Option<String>,
    /// The command of `--act exec`.
    #[arg(long, default_value = "", requires = "act")]
    command: String,
    /// The account of the act, the agent's own unless given; or the user that is asked of a database.
    #[arg(long)]
    user: Option<String>,
    /// The database that is asked for; the user's name unless given.
    #[arg(long, requires = "user", conflicts_with = "act")]
    database: Option<String>,
    /// The name that the application gives itself.
    #[arg(long, requires = "user", conflicts_with = "act")]
    application_name: Option<String>,
    #[command(flatten)]
    supposed: Supposed,
    /// The time to decide for, RFC 3339, such as 2026-11-22T03:00:00Z; now unless given.
    #[arg(long, value_parser = moment)]
    at: Option<SystemTime>,
}

/// What an MQTT client says.
#[derive(Debug, Args)]
struct Supposed {
    /// The client identifier that CONNECT says; of MQTT only, like the following.
    #[arg(long, value_name = "ID")]
    client_id: Option<String>,
    /// The user name that CONNECT says.
    #[arg(long, value_name = "NAME")]
    username: Option<String>,
    /// The topic of `--act publish`, or the filter of `--act subscribe`.
    #[arg(long, requires = "act")]
    topic: Option<String>,
    /// The quality of service; 0 unless given.
    #[arg(long, requires = "topic", value_parser = clap::value_parser!(u8).range(0..=2))]
    qos: Option<u8>,
    /// The broker is to keep the message.
    #[arg(long, requires = "topic")]
    retain: bool,
}

impl Supposed {
    fn is_any(&self) -> bool {
        self.client_id.is_some() || self.username.is_some() || self.topic.is_some()
    }
}

impl Explain {
    /// Why there is no such question.
    fn mistake(&self) -> Option<String> {
        let protocol = self.url.protocol;
        if self.supposed.is_any() && protocol != Protocol::Mqtt {
            return Some(format!(
                "--client-id, --username and --topic are of mqtt, not of {protocol}"
            ));
        }
        let act = self.act.as_deref()?;
        let Some(Enforcement::Acts([_])) = Enforcement::one(protocol, act) else {
            return Some(format!("{act} is no act of {protocol}"));
        };
        let wants_topic = protocol == Protocol::Mqtt && self.supposed.topic.is_none();
        wants_topic.then(|| format!("--act {act} wants --topic"))
    }

    /// Answers from the file: exit code 0 for yes, 77 for no.
    pub(super) fn answer(self, config: Config, now: SystemTime) -> Shown {
        if let Some(mistake) = self.mistake() {
            return Shown::failed(mistake, 64);
        }
        // The file alone is enough: without an identity the question is about an agent of the endpoint's own name.
        let identity = IdentityFiles::look(&config.state_dir).and_then(|files| files.load());
        let own = identity.and_then(|identity| identity.name_and_site()).ok();
        let compared = in_force(&config);
        let (file, digest) = (config.file.clone(), config.digest.clone());
        let list = AllowList::new(config.endpoints, own, &digest);
        let now = self.at.unwrap_or(now);
        let act = self.act();
        let explained = list.explain(&self.asked(now), act, now);
        let code = if explained.verdict.is_ok() { 0 } else { 77 };
        let mut text = self.told(&explained);
        let _infallible = writeln!(text, "  file      {} (sha256 {digest}); {compared}", file.display());
        Shown {
            text,
            note: String::new(),
            code,
        }
    }

    fn asked(&self, at: SystemTime) -> Asked {
        Asked {
            session: SessionId::from_bytes([0; 16]),
            endpoint: self.url.clone(),
            caller: policy::Caller {
                name: self.caller.clone(),
                kind: CallerKind::from_name(&self.kind).unwrap_or(CallerKind::User),
                groups: self.groups.clone(),
                labels: BTreeMap::from_iter(self.labels.clone()),
                site: None,
            },
            ssh_keys: Vec::new(),
            client_ip: self.client_ip,
            client_port: 0,
            acts: self.act.iter().cloned().collect(),
            at,
            question: None,
            cancel: None,
            postgres: self.startup(),
            mqtt: None,
            supposed: self.supposed(),
        }
    }

    /// What a Postgres client would say, where the question is about one.
    fn startup(&self) -> Option<Startup> {
        let user = self.user.as_ref().filter(|_| self.url.protocol == Protocol::Postgres)?;
        let mut parameters = vec![("user".to_owned(), user.clone())];
        let more = [
            ("database", &self.database),
            ("application_name", &self.application_name),
        ];
        parameters.extend(
            more.iter()
                .filter_map(|(name, value)| Some(((*name).to_owned(), (*value).clone()?))),
        );
        Some(Startup { minor: 0, parameters })
    }

    /// What an MQTT client would say, where the question says it.
    fn supposed(&self) -> Option<MqttFacts> {
        let Supposed {
            client_id,
            username,
            topic,
            qos,
            retain,
        } = &self.supposed;
        let known = Enforcement::acts_of(Protocol::Mqtt);
        let action = known.iter().find(|known| self.act.as_deref() == Some(known));
        let act = topic.as_ref().zip(action).map(|(topic, action)| MqttAct {
            action,
            topic: topic.clone(),
            qos: qos.unwrap_or_default(),
            retain: *retain,
        });
        self.supposed.is_any().then(|| MqttFacts {
            client_id: client_id.clone().unwrap_or_default(),
            username: username.clone().unwrap_or_default(),
            act,
        })
    }

    fn act(&self) -> Option<SshFacts> {
        if self.url.protocol != Protocol::Ssh {
            return None;
        }
        let own = || nix::unistd::User::from_uid(nix::unistd::geteuid()).ok().flatten();
        Some(SshFacts {
            action: self.act.clone()?,
            user: self.user.clone().or_else(|| Some(own()?.name)).unwrap_or_default(),
            command: self.command.clone(),
        })
    }

    fn told(&self, explained: &Explained) -> String {
        let mut text = String::new();
        let word = if explained.verdict.is_ok() {
            "permitted"
        } else {
            "denied"
        };
        let act = self
            .act
            .as_deref()
            .map(|act| format!(", act {act}"))
            .unwrap_or_default();
        let about = self.supposed.topic.as_deref().map(|topic| format!(" {topic}"));
        let about = about.unwrap_or_default();
        let _infallible = writeln!(
            text,
            "{word}: {} {} to {}{act}{about}",
            self.kind, self.caller, self.url
        );
        let rule = match &explained.verdict {
            Ok(Admission {
                upstream,
                rule,
                credential,
                ..
            }) => {
                let _infallible = writeln!(text, "  upstream  {}", behind(upstream));
                if let Some(credential) = credential {
                    let _infallible = writeln!(text, "  login     {}", super::scope::injected(credential));
                }
                if rule.is_none() {
                    text.push_str("  rules     none: every caller that the gateway permits\n");
                }
                rule
            }
            Err(refusal) => {
                let detail = refusal.private.as_ref().map_or(&refusal.detail, |private| &private.1);
                let _infallible = writeln!(text, "  reason    {}: {detail}", refusal.reason);
                &refusal.rule
            }
        };
        if let Some(rule) = rule {
            let _infallible = writeln!(text, "  rule      {} ({}:{})", rule.name, rule.file, rule.line);
        }
        if let Some(why) = &explained.why {
            text.push_str(&said(why));
        }
        if explained.verdict.is_ok() {
            text.push_str(
                "  besides   the gateway's own policy must permit it, too; caller and address are its word\n",
            );
        }
        text
    }
}

/// What each rule said, and the values that it saw.
fn said(why: &Explanation) -> String {
    let mut text = String::new();
    for rule in &why.rules {
        let shadow = if rule.enforce { "" } else { ", in shadow" };
        let effect = match rule.effect {
            policy::Effect::Allow => "allow",
            policy::Effect::Deny => "deny",
        };
        let reference = &rule.rule;
        let _infallible = writeln!(
            text,
            "  {effect:<8}  {} ({}:{}{shadow}): {}",
            reference.name,
            reference.file,
            reference.line,
            rule.said.as_str()
        );
        for part in &rule.parts {
            let why = part.why.as_deref().map(|why| format!(" ({why})")).unwrap_or_default();
            let _infallible = writeln!(text, "              {}: {}{why}", part.said.as_str(), part.text);
        }
        for seen in &rule.saw {
            let _infallible = writeln!(text, "              saw {} = {}", seen.name, seen.value);
        }
    }
    if why.more > 0 {
        let _infallible = writeln!(text, "            and {} more rules", why.more);
    }
    for seen in &why.saw {
        let _infallible = writeln!(text, "            saw {} = {}", seen.name, seen.value);
    }
    text
}

/// What is dialled, and which addresses that may be.
pub(super) fn behind(upstream: &Upstream) -> String {
    match upstream {
        Upstream::BuiltinSsh => "builtin:ssh, the agent's own SSH server; dials nothing".into(),
        Upstream::Tcp(tcp) => {
            let tls = tcp.tls.as_ref();
            let tls = tls.map(|tls| format!(", TLS {}", tls.mode_name())).unwrap_or_default();
            format!("{upstream}{tls}, {}", super::scope::addresses(tcp))
        }
    }
}

fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

fn moment(text: &str) -> Result<SystemTime, String> {
    let at = OffsetDateTime::parse(text, &Rfc3339);
    at.map(SystemTime::from).map_err(|error| error.to_string())
}
