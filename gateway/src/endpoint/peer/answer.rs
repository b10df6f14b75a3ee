//! What each question is answered with.

use std::net::SocketAddr;
use std::sync::Arc;

use fairlead_identity::name::{EndpointUrl, Label, Protocol};
use fairlead_policy::{Enforcement, MqttAct, MqttFacts};
use fairlead_runtime::transport::Sender;
use fairlead_wire::call::{
    Body, CallAnswer, CallRequest, EndpointPage, ExplainRequest, Foreseen, HostKeys, HostKeysRequest, MAX_PAGE,
    Outlook, Question, ReachableEndpoint, RoutingToken, RoutingTokenRequest,
};
use fairlead_wire::check::MAX_FEW;
use fairlead_wire::codec::{self, MAX_CONTROL_FRAME};
use fairlead_wire::control::Mode;
use fairlead_wire::mqtt::Supposed;
use fairlead_wire::refusal::Reason;
use secrecy::ExposeSecret;
use tokio::io::AsyncWriteExt;

use super::{Peer, Refusal};
use crate::access::{self, Caller};
use crate::endpoint::{Reachable, Unrouted};

/// Most endpoints of one list; beyond it a caller asks for one site.
const LIST_LIMIT: usize = 10_000;

impl Peer {
    pub(super) async fn answer(
        &self,
        caller: &Caller,
        client: SocketAddr,
        request: &CallRequest,
        send: &mut Sender,
    ) -> Result<(), Refusal> {
        let Some(present) = self.door.present(caller).await else {
            return Err((Reason::Revoked, "log in again".into()));
        };
        match &request.question {
            Some(Question::Endpoints(asked)) => {
                let site = match asked.site.as_str() {
                    "" => None,
                    // What is no label is no site, and has no endpoints.
                    text => match text.parse::<Label>() {
                        Ok(site) => Some(site),
                        Err(_) => return page(send, Vec::new()).await,
                    },
                };
                self.list(&present, site.as_ref(), client, send).await
            }
            Some(Question::HostKeys(asked)) => {
                let keys = self.keys(Arc::new(present), asked, client).await?;
                let body = Body::HostKeys(HostKeys { public_keys: keys });
                write(send, &CallAnswer { body: Some(body) }).await
            }
            Some(Question::Explain(asked)) => {
                let outlook = self.outlook(Arc::new(present), asked, client).await;
                let foreseen = Foreseen {
                    outlook: outlook.into(),
                };
                let body = Body::Foreseen(foreseen);
                write(send, &CallAnswer { body: Some(body) }).await
            }
            Some(Question::RoutingToken(asked)) => {
                let token = self.routing_token(Arc::new(present), asked, client).await?;
                let body = Body::RoutingToken(token);
                write(send, &CallAnswer { body: Some(body) }).await
            }
            // That is no question (see `connect`).
            Some(Question::Connect(_)) | None => {
                Err((Reason::Unsupported, "this gateway does not know the question".into()))
            }
        }
    }

    async fn outlook(&self, caller: Arc<Caller>, asked: &ExplainRequest, client: SocketAddr) -> Outlook {
        // What is no URL is the URL of nothing.
        let Ok(url) = asked.url.parse::<EndpointUrl>() else {
            return Outlook::Denied;
        };
        let wanted = access::Inquiry {
            act: Some(asked.act.clone()).filter(|act| !act.is_empty()),
            mqtt: match &asked.mqtt {
                None => None,
                Some(supposed) => match supposed_facts(supposed, &asked.act) {
                    Some(facts) => Some(facts),
                    // MQTT has no such act, so nobody may do it.
                    None => return Outlook::Denied,
                },
            },
        };
        match self.door.outlook(&caller, &url, &wanted, client).await {
            (access::Outlook::Denied, _) => Outlook::Denied,
            (_, false) => Outlook::Offline,
            (access::Outlook::Allowed, true) => Outlook::Allowed,
            (access::Outlook::Depends, true) => Outlook::Depends,
        }
    }

    async fn routing_token(
        &self,
        caller: Arc<Caller>,
        asked: &RoutingTokenRequest,
        client: SocketAddr,
    ) -> Result<RoutingToken, Refusal> {
        let url = asked.url.parse::<EndpointUrl>();
        // Of other protocols the clients have no words for a token.
        let url = url.ok().filter(|url| url.protocol == Protocol::Rdp);
        let url = url.ok_or_else(|| (Reason::Malformed, "a token leads to rdp:// endpoints only".to_owned()))?;
        match self.door.route(&caller, &url, client).await {
            Ok((token, valid_for)) => Ok(RoutingToken {
                token: token.expose_secret().to_owned(),
                valid_for_s: u32::try_from(valid_for.as_secs()).unwrap_or(u32::MAX),
            }),
            Err(Unrouted::Denied(denial)) => Err((denial.told, format!("session {}", denial.session))),
            Err(Unrouted::NotNow(Reason::Limit)) => Err((
                Reason::Limit,
                "too many tokens are unused; in a minute they have ended".into(),
            )),
            Err(Unrouted::NotNow(reason)) => Err((reason, String::new())),
        }
    }

    async fn keys(
        &self,
        caller: Arc<Caller>,
        asked: &HostKeysRequest,
        client: SocketAddr,
    ) -> Result<Vec<String>, Refusal> {
        let port = asked.port().map_err(|error| (Reason::Malformed, error.to_string()))?;
        match self.door.host_keys(&caller, &asked.host, port, client).await {
            Ok(mut keys) => {
                keys.truncate(MAX_FEW);
                Ok(keys)
            }
            Err(denial) => Err((denial.told, format!("session {}", denial.session))),
        }
    }

    async fn list(
        &self,
        caller: &Caller,
        site: Option<&Label>,
        client: SocketAddr,
        send: &mut Sender,
    ) -> Result<(), Refusal> {
        let Ok(_turn) = self.lists.acquire().await else {
            return Err((Reason::GatewayStopping, String::new()));
        };
        // A caller of one site asks for nothing else, so that the rest is not even gone through.
        let site = caller.site.as_ref().or(site);
        let (mut after, mut waiting, mut count) = (None, Vec::<Reachable>::new(), 0_usize);
        loop {
            let failed = |reason: Reason| (reason, "the endpoints cannot be listed now".to_owned());
            let next = self.door.reachable(caller, site, after.as_ref(), client).await;
            let Some((found, last)) = next.map_err(failed)? else {
                return page(send, waiting).await;
            };
            after = Some(last);
            count = count.saturating_add(found.len());
            if count > LIST_LIMIT {
                return Err((Reason::Limit, "there are more than 10000: ask for one site".into()));
            }
            for reachable in found {
                match waiting.last_mut() {
                    // Several agents of a pool offer the same.
                    Some(same) if same.endpoint == reachable.endpoint => same.online |= reachable.online,
                    _ => {
                        if waiting.len() >= MAX_PAGE {
                            page(send, std::mem::take(&mut waiting)).await?;
                        }
                        waiting.push(reachable);
                    }
                }
            }
            // Other callers' tasks have their turn between two pages of decisions.
            tokio::task::yield_now().await;
        }
    }
}

/// What an MQTT client is supposed to say, as rules read it; `None` where the act beside a topic is none of MQTT's.
fn supposed_facts(supposed: &Supposed, act: &str) -> Option<MqttFacts> {
    let about = match &supposed.about {
        None => None,
        Some(about) => Some(MqttAct {
            action: Enforcement::acts_of(Protocol::Mqtt)
                .iter()
                .find(|known| **known == act)?,
            topic: about.topic.clone(),
            qos: u8::try_from(about.qos).ok()?,
            retain: about.retain,
        }),
    };
    Some(MqttFacts {
        client_id: supposed.client_id.clone(),
        username: supposed.username.clone(),
        act: about,
    })
}

async fn page(send: &mut Sender, endpoints: Vec<Reachable>) -> Result<(), Refusal> {
    let shown = endpoints.into_iter().map(|reachable| ReachableEndpoint {
        url: reachable.endpoint.to_string(),
        mode: if reachable.builtin { Mode::Builtin } else { Mode::Tunnel }.into(),
        online: reachable.online,
    });
    let body = Body::Endpoints(EndpointPage {
        endpoints: shown.collect(),
    });
    write(send, &CallAnswer { body: Some(body) }).await
}

pub(super) async fn write(send: &mut Sender, answer: &CallAnswer) -> Result<(), Refusal> {
    let bytes = codec::encode(answer, MAX_CONTROL_FRAME).map_err(|error| (Reason::Internal, error.to_string()))?;
    let written = send.write_all(&bytes).await;
    written.map_err(|error| (Reason::CallerGone, error.to_string()))
}
