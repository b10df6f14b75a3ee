//! What an MQTT client says in a test: `mqtt: { client_id, username, topic, qos, retain }`.

use crate::fields::{Fields, boolean, word};
use crate::mistake::{At, Report};
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
    let client_id = text(&mut fields, "client_id", report);
    let username = text(&mut fields, "username", report);
    let act = act(&mut fields, node.at, enforce, report);
    Some(Some(MqttFacts {
        client_id: client_id?.unwrap_or_default(),
        username: username?.unwrap_or_default(),
        act: act?,
    }))
}

/// Text that need not be there; `None` after a mistake.
fn text(fields: &mut Fields<'_>, key: &'static str, report: &mut Report<'_>) -> Option<Option<String>> {
    match fields.optional(key) {
        None => Some(None),
        Some(written) => word(written, key, report).map(|word| Some(word.text)),
    }
}

/// The message or subscription, where there is a topic; `None` after a mistake.
fn act(fields: &mut Fields<'_>, at: At, enforce: Enforcement, report: &mut Report<'_>) -> Option<Option<MqttAct>> {
    let topic = text(fields, "topic", report);
    let retain = fields
        .optional("retain")
        .map(|written| boolean(written, "retain", report));
    let qos = fields.optional("qos").map(|written| qos(written, report));
    let Some(topic) = topic? else {
        if qos.is_none() && retain.is_none() {
            return Some(None);
        }
        let help = Some("write `topic` beside them".to_owned());
        report.mistake(at, "`qos` and `retain` are those of a message or filter", help);
        return None;
    };
    let Enforcement::Acts([action]) = enforce else {
        let help = Some("write `act: publish` or `act: subscribe`".to_owned());
        report.mistake(at, "a topic is that of an act", help);
        return None;
    };
    let act = MqttAct {
        action,
        topic,
        qos: qos.unwrap_or(Some(0))?,
        retain: retain.unwrap_or(Some(false))?,
    };
    if let Some(why) = impossible(&act) {
        report.mistake(at, why, None);
        return None;
    }
    Some(Some(act))
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
