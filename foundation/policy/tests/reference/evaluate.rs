//! The value of a tree on a request: a plain walk, written from docs/policy.md and the CEL language definition.

use super::calendar;
use super::tree::{Infix, Loop, Tree};
use fairlead_policy::Request;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::UNIX_EPOCH;

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Bool(bool),
    Int(i64),
    Text(String),
    /// Seconds since 1970.
    Moment(i64),
    /// Seconds.
    Span(i64),
    List(Vec<Value>),
    Labels(BTreeMap<String, String>),
}

/// Why there is no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Unknown,
    Failed,
}

type Outcome = Result<Value, Fault>;

pub(crate) struct Scene<'r> {
    pub(crate) request: &'r Request,
    /// What `ssh.action` is.
    pub act: Option<&'r str>,
}

impl Scene<'_> {
    pub(crate) fn is_true(&self, tree: &Tree) -> Result<bool, Fault> {
        self.bool(tree, None)
    }

    fn bool(&self, tree: &Tree, x: Option<&Value>) -> Result<bool, Fault> {
        match self.value(tree, x)? {
            Value::Bool(value) => Ok(value),
            _ => Err(Fault::Failed),
        }
    }

    fn value(&self, tree: &Tree, x: Option<&Value>) -> Outcome {
        match tree {
            Tree::Bool(value) => Ok(Value::Bool(*value)),
            Tree::Int(number) => Ok(Value::Int(*number)),
            Tree::Text(text) => Ok(Value::Text(text.clone())),
            Tree::Moment(at) => Ok(Value::Moment(*at)),
            Tree::Span(seconds) => Ok(Value::Span(*seconds)),
            Tree::List(items) => items
                .iter()
                .map(|item| self.value(item, x))
                .collect::<Result<_, _>>()
                .map(Value::List),
            Tree::Name("x") => Ok(x.unwrap().clone()),
            Tree::Name(name) => self.variable(name),
            Tree::Field(labels, key) => self.label(labels, key),
            Tree::Has(labels, key) => Ok(Value::Bool(self.labels(labels).contains_key(*key))),
            Tree::Index(container, key) => index(self.value(container, x)?, self.value(key, x)?),
            Tree::Not(inner) => self.bool(inner, x).map(|value| Value::Bool(!value)),
            Tree::Choice(condition, yes, no) => self.value(if self.bool(condition, x)? { yes } else { no }, x),
            Tree::Infix(Infix::And, left, right) => self.either(left, right, x, false),
            Tree::Infix(Infix::Or, left, right) => self.either(left, right, x, true),
            Tree::Infix(operator, left, right) => infix(*operator, self.value(left, x)?, self.value(right, x)?),
            Tree::Call(name, given) | Tree::Method(_, name, given) => {
                let target = if let Tree::Method(target, ..) = tree {
                    Some(&**target)
                } else {
                    None
                };
                let values: Result<Vec<Value>, Fault> =
                    target.into_iter().chain(given).map(|v| self.value(v, x)).collect();
                call(name, &values?)
            }
            Tree::Loop(kind, over, body) => self.repeat(*kind, self.value(over, x)?, body),
        }
    }

    /// `&&` and `||`: the deciding side decides even where the other has no value. Of two faults the right one is told.
    fn either(&self, left: &Tree, right: &Tree, x: Option<&Value>, decides: bool) -> Outcome {
        let left = self.bool(left, x);
        if left == Ok(decides) {
            return Ok(Value::Bool(decides));
        }
        match (left, self.bool(right, x)) {
            (_, Ok(right)) if right == decides => Ok(Value::Bool(decides)),
            (_, Err(fault)) | (Err(fault), Ok(_)) => Err(fault),
            (Ok(_), Ok(_)) => Ok(Value::Bool(!decides)),
        }
    }

    fn repeat(&self, kind: Loop, over: Value, body: &Tree) -> Outcome {
        let items = match over {
            Value::List(items) => items,
            Value::Labels(labels) => labels.into_keys().map(Value::Text).collect(),
            _ => return Err(Fault::Failed),
        };
        match kind {
            Loop::All | Loop::Exists => {
                let (decides, mut fault) = (kind == Loop::Exists, None);
                for item in &items {
                    match self.bool(body, Some(item)) {
                        Ok(value) if value == decides => return Ok(Value::Bool(decides)),
                        Ok(_) => {}
                        Err(other) => fault = Some(other),
                    }
                }
                fault.map_or(Ok(Value::Bool(!decides)), Err)
            }
            Loop::ExistsOne => {
                let true_ones: Result<Vec<bool>, Fault> =
                    items.iter().map(|item| self.bool(body, Some(item))).collect();
                Ok(Value::Bool(true_ones?.into_iter().filter(|one| *one).count() == 1))
            }
            Loop::Filter => {
                let mut kept = Vec::new();
                for item in items {
                    if self.bool(body, Some(&item))? {
                        kept.push(item);
                    }
                }
                Ok(Value::List(kept))
            }
            Loop::Map => items
                .iter()
                .map(|item| self.value(body, Some(item)))
                .collect::<Result<_, _>>()
                .map(Value::List),
        }
    }

    fn labels(&self, name: &str) -> &BTreeMap<String, String> {
        match name {
            "caller.labels" => &self.request.caller.labels,
            "agent.labels" => &self.request.agent.labels,
            other => panic!("{other} are no labels"),
        }
    }

    fn label(&self, labels: &str, key: &str) -> Outcome {
        Ok(Value::Text(self.labels(labels).get(key).cloned().unwrap_or_default()))
    }

    fn variable(&self, name: &str) -> Outcome {
        let Request {
            caller,
            agent,
            endpoint,
            conn,
            ssh,
            ..
        } = self.request;
        let moment =
            |at: std::time::SystemTime| i64::try_from(at.duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap();
        let text = |text: &str| Ok(Value::Text(text.to_owned()));
        let known = |fact: Option<&str>| fact.map(|f| Value::Text(f.to_owned())).ok_or(Fault::Unknown);
        match name {
            "caller.name" => text(&caller.name),
            "caller.kind" => text(caller.kind.as_str()),
            "caller.groups" => Ok(Value::List(
                caller.groups.iter().map(|g| Value::Text(g.clone())).collect(),
            )),
            "caller.site" => text(caller.site.as_deref().unwrap_or("")),
            "agent.name" => text(&agent.name),
            "agent.site" => text(&agent.site),
            "endpoint.host" => text(endpoint.host.as_str()),
            "endpoint.url" => text(&endpoint.to_string()),
            "endpoint.protocol" => text(endpoint.protocol.as_str()),
            "endpoint.port" => Ok(Value::Int(i64::from(endpoint.port))),
            "conn.client_ip" => text(&conn.client_ip.to_canonical().to_string()),
            "conn.client_port" => Ok(Value::Int(i64::from(conn.client_port))),
            "conn.ts.start" => Ok(Value::Moment(moment(conn.started))),
            "time.now" => Ok(Value::Moment(moment(self.request.now))),
            "caller.labels" | "agent.labels" => Ok(Value::Labels(self.labels(name).clone())),
            "ssh.user" => known(ssh.as_ref().map(|s| s.user.as_str())),
            "ssh.command" => known(ssh.as_ref().map(|s| s.command.as_str())),
            "ssh.action" => known(self.act),
            other => panic!("no variable {other} in this test"),
        }
    }
}

fn index(container: Value, key: Value) -> Outcome {
    match (container, key) {
        (Value::List(items), Value::Int(at)) => usize::try_from(at)
            .ok()
            .and_then(|at| items.get(at).cloned())
            .ok_or(Fault::Failed),
        (Value::Labels(labels), Value::Text(key)) => Ok(Value::Text(labels.get(&key).cloned().unwrap_or_default())),
        _ => Err(Fault::Failed),
    }
}

fn infix(operator: Infix, left: Value, right: Value) -> Outcome {
    let ordered = |holds: fn(Ordering) -> bool| {
        let order = match (&left, &right) {
            (Value::Int(a), Value::Int(b))
            | (Value::Moment(a), Value::Moment(b))
            | (Value::Span(a), Value::Span(b)) => a.cmp(b),
            (Value::Text(a), Value::Text(b)) => a.as_bytes().cmp(b.as_bytes()),
            _ => return Err(Fault::Failed),
        };
        Ok(Value::Bool(holds(order)))
    };
    match operator {
        Infix::Equal => Ok(Value::Bool(left == right)),
        Infix::NotEqual => Ok(Value::Bool(left != right)),
        Infix::Less => ordered(Ordering::is_lt),
        Infix::LessOrEqual => ordered(Ordering::is_le),
        Infix::Greater => ordered(Ordering::is_gt),
        Infix::GreaterOrEqual => ordered(Ordering::is_ge),
        Infix::In => match (left, right) {
            (item, Value::List(items)) => Ok(Value::Bool(items.contains(&item))),
            (Value::Text(key), Value::Labels(labels)) => Ok(Value::Bool(labels.contains_key(&key))),
            _ => Err(Fault::Failed),
        },
        _ => arithmetic(operator, left, right),
    }
}

fn arithmetic(operator: Infix, left: Value, right: Value) -> Outcome {
    let number = |result: Option<i64>| result.map(Value::Int).ok_or(Fault::Failed);
    match (operator, left, right) {
        (Infix::Plus, Value::Text(a), Value::Text(b)) => Ok(Value::Text(a + &b)),
        (Infix::Plus, Value::Int(a), Value::Int(b)) => number(a.checked_add(b)),
        (Infix::Minus, Value::Int(a), Value::Int(b)) => number(a.checked_sub(b)),
        (Infix::Times, Value::Int(a), Value::Int(b)) => number(a.checked_mul(b)),
        (Infix::Over, Value::Int(a), Value::Int(b)) => number(a.checked_div(b)),
        (Infix::Rest, Value::Int(a), Value::Int(b)) => number(a.checked_rem(b)),
        (Infix::Minus, Value::Moment(a), Value::Moment(b)) => Ok(Value::Span(a - b)),
        (Infix::Plus, Value::Moment(a), Value::Span(b)) => Ok(Value::Moment(a + b)),
        (Infix::Minus, Value::Moment(a), Value::Span(b)) => Ok(Value::Moment(a - b)),
        _ => Err(Fault::Failed),
    }
}

fn call(name: &str, values: &[Value]) -> Outcome {
    let bool = |value| Ok(Value::Bool(value));
    match (name, values) {
        ("size", [Value::Text(text)]) => Ok(Value::Int(i64::try_from(text.chars().count()).unwrap())),
        ("size", [Value::List(items)]) => Ok(Value::Int(i64::try_from(items.len()).unwrap())),
        ("size", [Value::Labels(labels)]) => Ok(Value::Int(i64::try_from(labels.len()).unwrap())),
        ("startsWith", [Value::Text(text), Value::Text(part)]) => bool(text.starts_with(part)),
        ("endsWith", [Value::Text(text), Value::Text(part)]) => bool(text.ends_with(part)),
        ("contains", [Value::Text(text), Value::Text(part)]) => bool(text.contains(part)),
        ("int", [Value::Text(text)]) => text.parse().map(Value::Int).map_err(|_| Fault::Failed),
        ("string", [Value::Int(number)]) => Ok(Value::Text(number.to_string())),
        ("matches", [Value::Text(text), Value::Text(pattern)]) => bool(matches(text, pattern)),
        ("inCidrRange", [Value::Text(ip), Value::Text(range)]) => {
            in_range(ip, range).map(Value::Bool).ok_or(Fault::Failed)
        }
        (_, [Value::Moment(at), zone @ ..]) => {
            let zone = match zone {
                [Value::Text(zone)] => zone.as_str(),
                _ => "UTC",
            };
            let fields = calendar::fields(at + calendar::offset(zone, *at));
            Ok(Value::Int(match name {
                "getFullYear" => fields.year,
                "getMonth" => fields.month,
                "getDate" => fields.day,
                "getDayOfMonth" => fields.day - 1,
                "getDayOfYear" => fields.day_of_year,
                "getDayOfWeek" => fields.weekday,
                "getHours" => fields.hours,
                "getMinutes" => fields.minutes,
                "getSeconds" => fields.seconds,
                other => panic!("no {other} in this test"),
            }))
        }
        _ => Err(Fault::Failed),
    }
}

/// The few patterns of this test, each by hand.
pub(crate) const PATTERNS: &[&str] = &["^[a-z]+$", "[0-9]", "^pump-", "^$", "a|7"];

fn matches(text: &str, pattern: &str) -> bool {
    match pattern {
        "^[a-z]+$" => !text.is_empty() && text.bytes().all(|b| b.is_ascii_lowercase()),
        "[0-9]" => text.bytes().any(|b| b.is_ascii_digit()),
        "^pump-" => text.starts_with("pump-"),
        "^$" => text.is_empty(),
        "a|7" => text.contains(['a', '7']),
        other => panic!("no pattern {other} in this test"),
    }
}

fn bits(ip: IpAddr) -> (u128, u32) {
    match ip.to_canonical() {
        IpAddr::V4(ip) => (u128::from(u32::from(ip)), 32),
        IpAddr::V6(ip) => (u128::from(ip), 128),
    }
}

fn in_range(ip: &str, range: &str) -> Option<bool> {
    let (ip, width) = bits(ip.parse().ok()?);
    let (network, prefix) = range.split_once('/')?;
    let network: IpAddr = network.parse().ok()?;
    let written: u32 = prefix.parse().ok()?;
    let (bits, own) = bits(network);
    // An IPv4 range in IPv6 clothes is the IPv4 range.
    let prefix = if network.is_ipv6() && own == 32 {
        written.checked_sub(96)?
    } else {
        written
    };
    if prefix > own {
        return None;
    }
    Some(width == own && (prefix == 0 || ip >> (width - prefix) == bits >> (own - prefix)))
}
