//! What an MQTT client says in a test: `mqtt: { client_id, username, topic, qos, retain }`.

use crate::fields::{Fields, boolean, word};
use crate::mistake::Report;
use crate::request::{Enforcement, MqttAct, MqttFacts};
use crate::shape;
use crate::topics;
use crate::yaml::{Data, Node};
use fairlead_identity::name::Protocol;

/// The facts as written; `None` after a mistake. With a topic they are about the one act that the test names.
pub(super) fn facts(
    node: Option<&Node>,
    protocol: Protocol,
    enforce: Enforcement,
    report: &mut Report<'_>,
) -> Option<Option<MqttFacts>> {
    let Some(node) = node else { return Some(None) };
    let mut fields = Fields::of(node, &shape::MQTT_OF_TEST, report)?;
    if protocol != Protocol::Mqtt {
        let help = Some("remove it, or name an endpoint mqtt://".to_owned());
        report.mistake(node.at, format!("{protocol} has no `mqtt`"), help);
        return None;
    }
    let mut text = |key: &'static str, report: &mut Report<'_>| match fields.optional(key) {
        None => Some(None),
        Some(written) => word(written, key, report).map(|word| Some((word.text, written))),
    };
    let (client_id, username) = (text("client_id", report), text("username", report));
    let topic = text("topic", report);
    let retain = fields
        .optional("retain")
        .map(|written| boolean(written, "retain", report));
    let qos = fields.optional("qos").map(|written| qos(written, report));
    let (client_id, username, topic) = (client_id?, username?, topic?);
    let plain = |said: Option<(String, &Node)>| said.map(|(text, _)| text).unwrap_or_default();
    let act = match topic {
        None if qos.is_some() || retain.is_some() => {
            let help = Some("write `topic` beside them".to_owned());
            report.mistake(node.at, "`qos` and `retain` are those of a message or filter", help);
            return None;
        }
        None => None,
        Some((topic, at)) => {
            let act = MqttAct {
                action: one(enforce).or_else(|| {
                    report.mistake(
                        at.at,
                        "a topic is that of an act",
                        Some("write `act: publish` or `act: subscribe`".to_owned()),
                    );
                    None
                })?,
                topic,
                qos: qos.unwrap_or(Some(0))?,
                retain: retain.unwrap_or(Some(false))?,
            };
            if let Some(why) = impossible(&act) {
                report.mistake(at.at, why, None);
                return None;
            }
            Some(act)
        }
    };
    Some(Some(MqttFacts {
        client_id: plain(client_id),
        username: plain(username),
        act,
    }))
}

/// The act, where it is one.
fn one(enforce: Enforcement) -> Option<&'static str> {
    match enforce {
        Enforcement::Acts([act]) => Some(act),
        _ => None,
    }
}

/// Why no client can ask for that: a test of it would pass or fail for nothing.
fn impossible(act: &MqttAct) -> Option<String> {
    if let Err(why) = topics::filter(&act.topic) {
        return Some(why);
    }
    let is_subscription = act.action == "subscribe";
    if !is_subscription && act.topic.contains(['+', '#']) {
        return Some("a message's topic has no wildcards".to_owned());
    }
    (is_subscription && act.retain).then(|| "`retain` is of messages, not of subscriptions".to_owned())
}

fn qos(node: &Node, report: &mut Report<'_>) -> Option<u8> {
    let qos = match node.data {
        Data::Int(number) => u8::try_from(number).ok().filter(|qos| *qos <= 2),
        _ => None,
    };
    if qos.is_none() {
        report.mistake(node.at, "`qos` is 0, 1 or 2", None);
    }
    qos
}
