//! `fairlead policy matrix`: everybody times everything, decided here by the policy that is asked about.
//!
//! The gateway gives its inventory and the files in force; deciding a million pairs is no work for the machine that
//! carries sessions.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::{Duration, UNIX_EPOCH};

use clap::Args;
use fairlead_identity::name::EndpointUrl;
use fairlead_policy::{AccessPolicy, AgentFacts, Caller, CallerKind, Conn, Decision, Enforcement, Request, Source};
use serde::Serialize;

use super::{Circumstances, compile, compile_sources};
use crate::admin_client::api::{Inventory, InventoryCaller, InventoryEndpoint, PolicyFiles};
use crate::admin_client::{AdminClient, Administration};
use crate::command::{CommandError, Context, Exit};
use crate::output::{self, Table, moment, names};

/// Most pairs of a caller and an endpoint that are decided in one run: some 20 seconds of one core.
const MAX_PAIRS: usize = 4_000_000;

/// Who reaches what.
#[derive(Clone, Debug, Args)]
pub(super) struct Matrix {
    /// Files of the policy to ask, or directories [default: the policy in force]
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Only this caller
    #[arg(long, value_name = "NAME")]
    caller: Option<String>,
    /// Only this endpoint, by its URL
    #[arg(long, value_name = "URL")]
    endpoint: Option<EndpointUrl>,
    /// Files of an older policy, or directories: list what the change opens and closes
    #[arg(long, value_name = "OLD", num_args = 1)]
    against: Vec<PathBuf>,
    #[command(flatten)]
    circumstances: Circumstances,
}

/// One caller who reaches one endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Reach {
    caller: String,
    kind: String,
    endpoint: String,
    agent: String,
    /// The acts, where the endpoint enforces acts.
    acts: BTreeSet<String>,
    /// The rule that allows, `name (file:line)`.
    rule: String,
}

/// What a change does to one pair.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Change {
    caller: String,
    kind: String,
    endpoint: String,
    agent: String,
    /// Acts that come, or the pair itself.
    opens: BTreeSet<String>,
    /// Acts that go, or the pair itself.
    closes: BTreeSet<String>,
    /// The rule that decides by the new policy, where there is one.
    rule: String,
    /// Why the new policy denies, if it does.
    reason: Option<String>,
}

/// What stands for the pair itself where no acts are enforced.
const TUNNEL: &str = "tunnel";

pub(super) async fn run(asked: Matrix, admin: &Administration, context: &Context) -> Result<(), CommandError> {
    let client = AdminClient::new(admin, context);
    let inventory: Inventory = client.get("/v1/policy/inventory").await?;
    let policy = if asked.files.is_empty() {
        in_force(&client).await?
    } else {
        compile(&asked.files)?.1
    };
    let old = if asked.against.is_empty() {
        None
    } else {
        Some(compile(&asked.against)?.1)
    };
    let field = Field::of(&inventory, &asked)?;
    let mut asked_of = [Some(&policy), old.as_ref()].into_iter().flatten();
    if asked_of.any(AccessPolicy::reads_circumstances) {
        let (at, from) = (moment(Some(field.at)), field.from);
        context.note(&format!(
            "a rule reads the time or the caller's address: this is for {at} from {from}"
        ))?;
    }
    match &old {
        None => shown(&field, &field.reach(&policy), admin.json, context),
        Some(old) => compared(&field, &field.changes(old, &policy), admin.json, context),
    }
}

async fn in_force(client: &AdminClient) -> Result<AccessPolicy, CommandError> {
    let files: PolicyFiles = client.get("/v1/policy").await?;
    let sources = files.files.into_iter().map(|file| Source {
        name: file.name,
        text: file.text,
    });
    Ok(compile_sources(&sources.collect::<Vec<_>>())?.0)
}

fn shown(field: &Field<'_>, reach: &[Reach], json: bool, context: &Context) -> Result<(), CommandError> {
    if json {
        let document =
            serde_json::json!({ "at": field.at, "client_ip": field.from, "pairs": field.pairs(), "reach": reach });
        return output::json(context, &document);
    }
    let mut table = Table::new(&["CALLER", "ENDPOINT", "AGENT", "ACTS", "RULE"]);
    for one in reach {
        let Reach {
            caller,
            endpoint,
            agent,
            acts,
            rule,
            ..
        } = one.clone();
        table.row([caller, endpoint, agent, names(&acts), rule]);
    }
    context.print(&table.to_text())?;
    context.note(&format!("{} of {} pairs reach each other.", reach.len(), field.pairs()))
}

fn compared(field: &Field<'_>, changes: &[Change], json: bool, context: &Context) -> Result<(), CommandError> {
    if json {
        let document =
            serde_json::json!({ "at": field.at, "client_ip": field.from, "pairs": field.pairs(), "changes": changes });
        return output::json(context, &document);
    }
    let mut table = Table::new(&["CALLER", "ENDPOINT", "OPENS", "CLOSES", "BY"]);
    for one in changes {
        let Change {
            caller,
            endpoint,
            opens,
            closes,
            rule,
            reason,
            ..
        } = one.clone();
        let by = [reason.unwrap_or_default(), rule].join(" ");
        table.row([caller, endpoint, names(&opens), names(&closes), by.trim().to_owned()]);
    }
    if !changes.is_empty() {
        context.print(&table.to_text())?;
    }
    let (opened, closed) = (
        changes.iter().filter(|c| !c.opens.is_empty()).count(),
        changes.iter().filter(|c| !c.closes.is_empty()).count(),
    );
    context.note(&format!(
        "{opened} pairs open and {closed} close, of {}.",
        field.pairs()
    ))
}

/// The callers and endpoints that are asked about, and the circumstances.
struct Field<'i> {
    callers: Vec<&'i InventoryCaller>,
    endpoints: Vec<(EndpointUrl, &'i InventoryEndpoint)>,
    at: i64,
    from: IpAddr,
}

impl<'i> Field<'i> {
    fn of(inventory: &'i Inventory, asked: &Matrix) -> Result<Self, CommandError> {
        let wanted = |caller: &&InventoryCaller| asked.caller.as_ref().is_none_or(|name| *name == caller.name);
        let endpoints = inventory
            .endpoints
            .iter()
            .filter_map(|e| Some((e.url.parse().ok()?, e)));
        let field = Self {
            callers: inventory.callers.iter().filter(wanted).collect(),
            endpoints: endpoints
                .filter(|(url, _)| asked.endpoint.as_ref().is_none_or(|e| e == url))
                .collect(),
            at: asked.circumstances.at.unwrap_or(inventory.now),
            from: asked
                .circumstances
                .from
                .unwrap_or(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1))),
        };
        let nothing = |what: &str, list: &str| {
            CommandError::text(Exit::Failed, format!("there is no such {what}; see `fairlead {list}`"))
        };
        match (&asked.caller, &asked.endpoint) {
            (Some(_), _) if field.callers.is_empty() => return Err(nothing("caller", "users list")),
            (_, Some(_)) if field.endpoints.is_empty() => return Err(nothing("endpoint", "agents show NAME.SITE")),
            _ => {}
        }
        if field.pairs() > MAX_PAIRS {
            let text = format!(
                "{} callers times {} endpoints are more than {MAX_PAIRS} pairs; choose with --caller or --endpoint",
                field.callers.len(),
                field.endpoints.len()
            );
            return Err(CommandError::text(Exit::Usage, text));
        }
        Ok(field)
    }

    fn pairs(&self) -> usize {
        self.callers.len().saturating_mul(self.endpoints.len())
    }

    fn each(&self) -> impl Iterator<Item = (&InventoryCaller, &InventoryEndpoint, Request)> {
        self.callers.iter().flat_map(move |caller| {
            let question = move |(url, endpoint): &'_ (EndpointUrl, &'i InventoryEndpoint)| {
                (*caller, *endpoint, self.question(caller, url, endpoint))
            };
            self.endpoints.iter().map(question)
        })
    }

    fn question(&self, caller: &InventoryCaller, url: &EndpointUrl, endpoint: &InventoryEndpoint) -> Request {
        let at = UNIX_EPOCH + Duration::from_secs(u64::try_from(self.at).unwrap_or(0));
        let enforce = if endpoint.acts.is_empty() {
            Enforcement::Tunnel
        } else {
            Enforcement::Acts(Enforcement::acts_of(url.protocol))
        };
        Request {
            caller: Caller {
                name: caller.name.clone(),
                kind: CallerKind::from_name(&caller.kind).unwrap_or(CallerKind::Unidentified),
                groups: caller.groups.clone(),
                labels: caller.labels.clone(),
                site: caller.site.clone(),
            },
            agent: AgentFacts {
                name: endpoint.agent.clone(),
                site: endpoint.site.clone(),
                labels: endpoint.labels.clone(),
            },
            endpoint: url.clone(),
            conn: Conn {
                client_ip: self.from,
                client_port: 40_000,
                started: at,
                tls: None,
            },
            now: at,
            enforce,
            ssh: None,
            postgres: None,
            mqtt: None,
        }
    }

    fn reach(&self, policy: &AccessPolicy) -> Vec<Reach> {
        let allowed = |(caller, endpoint, request): (&InventoryCaller, &InventoryEndpoint, Request)| {
            let Decision::Allow(allowed) = policy.decide(&request) else {
                return None;
            };
            Some(Reach {
                caller: caller.name.clone(),
                kind: caller.kind.clone(),
                endpoint: endpoint.url.clone(),
                agent: endpoint.agent.clone(),
                acts: allowed.acts,
                rule: place(&allowed.rule),
            })
        };
        self.each().filter_map(allowed).collect()
    }

    fn changes(&self, old: &AccessPolicy, new: &AccessPolicy) -> Vec<Change> {
        let changed = |(caller, endpoint, request): (&InventoryCaller, &InventoryEndpoint, Request)| {
            let (before, after) = (ways(&old.decide(&request)), new.decide(&request));
            let now = ways(&after);
            let (rule, reason) = match &after {
                Decision::Allow(allowed) => (place(&allowed.rule), None),
                Decision::Deny(denied) => (
                    denied.rule.as_ref().map(place).unwrap_or_default(),
                    Some(denied.reason.to_string()),
                ),
            };
            (before != now).then(|| Change {
                caller: caller.name.clone(),
                kind: caller.kind.clone(),
                endpoint: endpoint.url.clone(),
                agent: endpoint.agent.clone(),
                opens: now.difference(&before).cloned().collect(),
                closes: before.difference(&now).cloned().collect(),
                rule,
                reason,
            })
        };
        self.each().filter_map(changed).collect()
    }
}

/// The ways a decision leaves open: acts, or the tunnel.
fn ways(decision: &Decision) -> BTreeSet<String> {
    match decision {
        Decision::Allow(allowed) if allowed.acts.is_empty() => BTreeSet::from([TUNNEL.to_owned()]),
        Decision::Allow(allowed) => allowed.acts.clone(),
        Decision::Deny(_) => BTreeSet::new(),
    }
}

fn place(rule: &fairlead_policy::RuleRef) -> String {
    format!("{} ({}:{})", rule.name, rule.file, rule.line)
}
