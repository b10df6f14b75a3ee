//! Why somebody may or may not reach something, and whom and what the policy is about.
//!
//! Asks the policy in force and the store; the agent is asked for its half over its link. Nothing is changed, opened or
//! audited.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::extract::State;
use fairlead_identity::name::{EndpointUrl, Protocol};
use fairlead_policy::{
    self as policy, CallerKind, Decision, Effect, Enforcement, Explanation, MAX_TOPIC_BYTES, MqttAct, MqttFacts,
    PartExplained, RuleExplained, RuleRef, Seen,
};

use super::api::{
    AccessExplained, AgentWord, ExplainAccess, FactSeen, Inventory, InventoryCaller, InventoryEndpoint, MAX_INVENTORY,
    MqttSupposed, PartSaid, RuleAt, RuleSaid,
};
use super::desk::{Office, unix};
use super::error::ApiError;
use super::extract::Body;
use super::live::AgentQuestion;
use crate::access::{BUILTIN_SSH_ACTS, Target, question};
use crate::store::{self, AgentId, CallerName, CallerRow, Candidate, Mode, OwnedEndpoint, SiteScope};

/// The address of a question that names none; reserved for documentation (RFC 5737).
const NOBODYS_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
/// The latest moment a question can be about: the end of the year 9999.
const MAX_UNIX: i64 = 253_402_300_799;

pub(super) async fn explain(
    State(office): State<Arc<Office>>,
    Body(asked): Body<ExplainAccess>,
) -> Result<Json<AccessExplained>, ApiError> {
    let question = Question::read(&office, &asked)?;
    let (name, url) = (asked.caller.clone(), question.endpoint.clone());
    let (user, owners) = office
        .ask(move |store| {
            let owners = store.endpoint_owner(url.site.as_str(), url.host.as_str(), url.port)?;
            // Names are unique across kinds.
            let user = store.caller(&CallerName::user(&name))?;
            let found = match user {
                Some(user) => Some(user),
                None => store.caller(&CallerName::workload(&name))?,
            };
            Ok((found, owners))
        })
        .await?;
    let user = user.ok_or_else(|| {
        let help = "see `fairlead users list` and `fairlead workloads list`";
        ApiError::not_found(format!("there is no user or workload `{}`", asked.caller), help)
    })?;
    let mut answer = question.unanswered(&office);
    if user.disabled {
        answer.reason = Some("disabled".into());
        answer.notes.push(format!(
            "the {} is disabled: no key or certificate lets them in, and no rule is asked",
            kind(&user).as_str()
        ));
        return Ok(Json(answer));
    }
    let protocol = question.endpoint.protocol.as_str();
    let owner = owners.iter().find(|owner| owner.protocol == protocol);
    let Some(target) = owner.and_then(|owner| target(&question.endpoint, owner)) else {
        answer.reason = Some("unknown-endpoint".into());
        answer.notes.push(unknown(&owners));
        return Ok(Json(answer));
    };
    let request = question.request(&user, &target, &mut answer)?;
    let (in_force, asked_of_rules) = (office.live().policy(), request.clone());
    let explanation = office
        .blocking("explain", move || in_force.explain(&asked_of_rules))
        .await?;
    told(&mut answer, explanation);
    let agent = AgentId::new(target.site.as_str(), target.agent.as_str());
    answer.agent = Some(agent.to_string());
    answer.agent_says = office.live().ask_agent(&AgentQuestion { agent, request }).await;
    Ok(Json(answer))
}

/// What was asked, in types.
struct Question {
    endpoint: EndpointUrl,
    act: Option<Enforcement>,
    mqtt: Option<MqttFacts>,
    at: SystemTime,
    client_ip: IpAddr,
}

impl Question {
    fn read(office: &Office, asked: &ExplainAccess) -> Result<Self, ApiError> {
        let endpoint: EndpointUrl = asked
            .to
            .parse()
            .map_err(|error| ApiError::invalid(format!("{error}"), "write it as in ssh://pump-7.plant-7.internal"))?;
        let act = asked.act.as_deref().map(|act| {
            let known = Enforcement::acts_of(endpoint.protocol).join(", ");
            Enforcement::one(endpoint.protocol, act).ok_or_else(|| {
                let help = if known.is_empty() {
                    "leave it out".to_owned()
                } else {
                    format!("it has {known}")
                };
                ApiError::invalid(format!("{} has no act `{act}`", endpoint.protocol), help)
            })
        });
        let act = act.transpose()?;
        let supposed = asked.mqtt.as_ref().map(|supposed| mqtt(supposed, &endpoint, act));
        let client_ip = asked.client_ip.as_deref().map(|ip| {
            let bad = |_| ApiError::invalid(format!("`{ip}` is not an IP address"), "");
            ip.parse::<IpAddr>().map(|ip| ip.to_canonical()).map_err(bad)
        });
        let at = asked.at.unwrap_or_else(|| office.now());
        let seconds = u64::try_from(at).ok().filter(|_| at <= MAX_UNIX);
        let seconds = seconds.ok_or_else(|| ApiError::invalid("the time is not between 1970 and 9999", ""))?;
        Ok(Self {
            endpoint,
            act,
            mqtt: supposed.transpose()?,
            at: UNIX_EPOCH + Duration::from_secs(seconds),
            client_ip: client_ip.transpose()?.unwrap_or(NOBODYS_ADDRESS),
        })
    }

    fn unanswered(&self, office: &Office) -> AccessExplained {
        AccessExplained {
            allowed: false,
            reason: None,
            rule: None,
            acts: Default::default(),
            policy: office.live().policy().digest(),
            agent: None,
            at: unix(self.at),
            client_ip: self.client_ip.to_string(),
            rules: Vec::new(),
            more_rules: 0,
            rules_elsewhere: 0,
            saw: Vec::new(),
            notes: Vec::new(),
            agent_says: AgentWord {
                reason: Some("not asked".into()),
                ..AgentWord::default()
            },
        }
    }

    fn request(
        &self,
        user: &CallerRow,
        target: &Target,
        answer: &mut AccessExplained,
    ) -> Result<policy::Request, ApiError> {
        let caller = policy::Caller {
            name: user.id.name.clone(),
            kind: kind(user),
            groups: user.groups.iter().cloned().collect(),
            labels: user.labels.clone(),
            site: user.site.clone(),
        };
        let client = SocketAddr::new(self.client_ip, 40_000);
        let mut request = question(caller, target, client, self.at, self.at);
        request.mqtt.clone_from(&self.mqtt);
        match (self.act, request.enforce) {
            (Some(act), Enforcement::Acts(_)) => request.enforce = act,
            (Some(_), Enforcement::Tunnel) => {
                let note = "this endpoint is a tunnel: nobody here sees its acts, and the answer is the tunnel's";
                answer.notes.push(note.into());
            }
            (None, _) => {}
        }
        Ok(request)
    }
}

/// What an MQTT client is supposed to say, as rules read it.
fn mqtt(supposed: &MqttSupposed, endpoint: &EndpointUrl, act: Option<Enforcement>) -> Result<MqttFacts, ApiError> {
    if endpoint.protocol != Protocol::Mqtt {
        let reason = format!(
            "{} has no client identifier, topic or quality of service",
            endpoint.protocol
        );
        return Err(ApiError::invalid(reason, "leave them out"));
    }
    let texts = [&supposed.client_id, &supposed.username]
        .into_iter()
        .chain(&supposed.topic);
    if texts.into_iter().any(|text| text.len() > MAX_TOPIC_BYTES) || supposed.qos > 2 {
        return Err(ApiError::invalid(
            "a text has at most 4096 bytes, the quality of service is 0, 1 or 2",
            "",
        ));
    }
    let act = match (&supposed.topic, act) {
        (None, _) => None,
        (Some(topic), Some(Enforcement::Acts([action]))) => Some(MqttAct {
            action,
            topic: topic.clone(),
            qos: supposed.qos,
            retain: supposed.retain,
        }),
        (Some(_), _) => {
            let help = "say which: publish or subscribe";
            return Err(ApiError::invalid("a topic is that of an act", help));
        }
    };
    Ok(MqttFacts {
        client_id: supposed.client_id.clone(),
        username: supposed.username.clone(),
        act,
    })
}

fn target(endpoint: &EndpointUrl, owner: &Candidate) -> Option<Target> {
    Some(Target {
        endpoint: endpoint.clone(),
        agent: owner.agent.name.parse().ok()?,
        site: endpoint.site.clone(),
        labels: owner.labels.clone(),
        builtin: owner.mode == Mode::Builtin,
    })
}

fn unknown(owners: &[Candidate]) -> String {
    match owners.first() {
        Some(other) => format!("agent {} offers {} at that host and port", other.agent, other.protocol),
        None => "no agent that is let in offers it; see `fairlead agents show` of the one that should".into(),
    }
}

fn told(answer: &mut AccessExplained, explanation: Explanation) {
    match explanation.decision {
        Decision::Allow(allowed) => {
            answer.allowed = true;
            answer.rule = Some(allowed.rule.into());
            answer.acts = allowed.acts;
        }
        Decision::Deny(denied) => {
            answer.reason = Some(denied.reason.to_string());
            answer.rule = denied.rule.map(RuleAt::from);
        }
    }
    answer.rules = explanation.rules.into_iter().map(RuleSaid::from).collect();
    answer.more_rules = explanation.more;
    answer.rules_elsewhere = explanation.elsewhere;
    answer.saw = explanation.saw.into_iter().map(FactSeen::from).collect();
}

impl From<RuleRef> for RuleAt {
    fn from(rule: RuleRef) -> Self {
        let RuleRef { name, file, line } = rule;
        Self { name, file, line }
    }
}

impl From<RuleExplained> for RuleSaid {
    fn from(rule: RuleExplained) -> Self {
        let effect = match rule.effect {
            Effect::Allow => "allow",
            Effect::Deny => "deny",
        };
        Self {
            rule: rule.rule.into(),
            effect: effect.to_owned(),
            enforce: rule.enforce,
            decides: rule.decides,
            said: rule.said.as_str().to_owned(),
            hidden: rule.hidden,
            parts: rule.parts.into_iter().map(PartSaid::from).collect(),
            saw: rule.saw.into_iter().map(FactSeen::from).collect(),
        }
    }
}

impl From<PartExplained> for PartSaid {
    fn from(part: PartExplained) -> Self {
        Self {
            text: part.text,
            said: part.said.as_str().to_owned(),
            why: part.why,
        }
    }
}

impl From<Seen> for FactSeen {
    fn from(seen: Seen) -> Self {
        let Seen { name, value } = seen;
        Self { name, value }
    }
}

pub(super) async fn inventory(State(office): State<Arc<Office>>) -> Result<Json<Inventory>, ApiError> {
    let now = office.now();
    let (users, endpoints) = office
        .ask(|db| {
            Ok((
                [
                    db.callers(store::CallerKind::User, &SiteScope::Every)?,
                    db.callers(store::CallerKind::Workload, &SiteScope::Every)?,
                ]
                .concat(),
                db.owned_endpoints(MAX_INVENTORY.saturating_add(1))?,
            ))
        })
        .await?;
    let callers: Vec<InventoryCaller> = users.into_iter().filter(|u| !u.disabled).map(caller).collect();
    if callers.len() > MAX_INVENTORY || endpoints.len() > MAX_INVENTORY {
        let reason = format!("more than {MAX_INVENTORY} callers, or more endpoints than that");
        return Err(ApiError::limit(
            reason,
            "ask about one of them with `fairlead policy explain`",
        ));
    }
    let endpoints = endpoints.into_iter().filter_map(endpoint).collect();
    Ok(Json(Inventory {
        now,
        callers,
        endpoints,
    }))
}

fn kind(row: &CallerRow) -> CallerKind {
    match row.id.kind {
        store::CallerKind::User => CallerKind::User,
        store::CallerKind::Workload => CallerKind::Workload,
    }
}

fn caller(user: CallerRow) -> InventoryCaller {
    InventoryCaller {
        kind: kind(&user).as_str().to_owned(),
        name: user.id.name,
        groups: user.groups.into_iter().collect(),
        labels: user.labels,
        site: user.site,
    }
}

fn endpoint(owned: OwnedEndpoint) -> Option<InventoryEndpoint> {
    let OwnedEndpoint { host, port, owner } = owned;
    let url = EndpointUrl {
        protocol: owner.protocol.parse().ok()?,
        host: host.parse().ok()?,
        site: owner.agent.site.parse().ok()?,
        port,
    };
    let acts = match owner.mode {
        Mode::Builtin => BUILTIN_SSH_ACTS.iter().map(|act| (*act).to_owned()).collect(),
        Mode::Tunnel => Vec::new(),
    };
    Some(InventoryEndpoint {
        url: url.to_string(),
        agent: owner.agent.name,
        site: owner.agent.site,
        labels: owner.labels,
        acts,
    })
}
