//! The types that CEL's operators take and give.
//!
//! Stricter than the evaluator where it would answer with a constant or an error: comparing text with a number, adding lists
//! (a loop over the sum would have no bound), numbers of two kinds in one sum.

use crate::table::Type;
use cel_interpreter::common::ast::operators as op;

/// How an operator is written, for messages; `None` for names that are not operators.
pub(crate) fn symbol(name: &str) -> Option<&'static str> {
    Some(match name {
        op::CONDITIONAL => "?:",
        op::LOGICAL_AND => "&&",
        op::LOGICAL_OR => "||",
        op::LOGICAL_NOT => "!",
        op::SUBSTRACT | op::NEGATE => "-",
        op::ADD => "+",
        op::MULTIPLY => "*",
        op::DIVIDE => "/",
        op::MODULO => "%",
        op::EQUALS => "==",
        op::NOT_EQUALS => "!=",
        op::GREATER_EQUALS => ">=",
        op::LESS_EQUALS => "<=",
        op::GREATER => ">",
        op::LESS => "<",
        op::INDEX => "[]",
        op::IN => "in",
        op::NOT_STRICTLY_FALSE => "loop",
        _ => return None,
    })
}

/// The type of an operator's result, `None` where it does not take these operands.
pub(crate) fn result(name: &str, operands: &[&Type]) -> Option<Type> {
    match (name, operands) {
        (op::CONDITIONAL, [condition, yes, no]) => is_bool(condition).then(|| common(yes, no)).flatten(),
        (op::LOGICAL_AND | op::LOGICAL_OR, [a, b]) => (is_bool(a) && is_bool(b)).then_some(Type::Bool),
        (op::LOGICAL_NOT | op::NOT_STRICTLY_FALSE, [a]) => is_bool(a).then_some(Type::Bool),
        (op::NEGATE, [a]) => matches!(a, Type::Int | Type::Double | Type::Any).then(|| (*a).clone()),
        (op::EQUALS | op::NOT_EQUALS, [a, b]) => equatable(a, b).then_some(Type::Bool),
        (op::LESS | op::LESS_EQUALS | op::GREATER | op::GREATER_EQUALS, [a, b]) => ordered(a, b).then_some(Type::Bool),
        (op::ADD | op::SUBSTRACT | op::MULTIPLY | op::DIVIDE | op::MODULO, [a, b]) => arithmetic(name, a, b),
        (op::IN, [item, container]) => contains(item, container).then_some(Type::Bool),
        (op::INDEX, [container, key]) => indexed(container, key),
        _ => None,
    }
}

/// The type both values have, for list elements and the branches of `?:`.
pub(crate) fn common(a: &Type, b: &Type) -> Option<Type> {
    match (a, b) {
        (Type::Any, other) | (other, Type::Any) => Some(other.clone()),
        (Type::List(a), Type::List(b)) => common(a, b).map(|of| Type::List(Box::new(of))),
        (Type::Map(k, v), Type::Map(l, w)) => Some(Type::Map(Box::new(common(k, l)?), Box::new(common(v, w)?))),
        _ => (a == b).then(|| a.clone()),
    }
}

fn is_bool(of: &Type) -> bool {
    matches!(of, Type::Bool | Type::Any)
}

fn is_number(of: &Type) -> bool {
    matches!(of, Type::Int | Type::Uint | Type::Double)
}

fn equatable(a: &Type, b: &Type) -> bool {
    match (a, b) {
        (Type::Labels, _) | (_, Type::Labels) => false,
        (Type::List(a), Type::List(b)) => equatable(a, b),
        (Type::Map(k, v), Type::Map(l, w)) => equatable(k, l) && equatable(v, w),
        _ => (is_number(a) && is_number(b)) || common(a, b).is_some(),
    }
}

fn ordered(a: &Type, b: &Type) -> bool {
    let orders = |of: &Type| !matches!(of, Type::List(_) | Type::Map(..) | Type::Labels);
    orders(a) && orders(b) && ((is_number(a) && is_number(b)) || common(a, b).is_some())
}

fn arithmetic(name: &str, a: &Type, b: &Type) -> Option<Type> {
    let plus_or_minus = matches!(name, op::ADD | op::SUBSTRACT);
    match (a, b) {
        (Type::Any, other) | (other, Type::Any) => Some(other.clone()),
        (Type::Int, Type::Int) | (Type::Uint, Type::Uint) => Some(a.clone()),
        (Type::Double, Type::Double) => (name != op::MODULO).then_some(Type::Double),
        (Type::Text, Type::Text) | (Type::Bytes, Type::Bytes) => (name == op::ADD).then(|| a.clone()),
        (Type::Timestamp | Type::Duration, Type::Duration) => plus_or_minus.then(|| a.clone()),
        (Type::Timestamp, Type::Timestamp) => (name == op::SUBSTRACT).then_some(Type::Duration),
        _ => None,
    }
}

fn contains(item: &Type, container: &Type) -> bool {
    match container {
        Type::List(of) => equatable(item, of),
        Type::Map(key, _) => equatable(item, key),
        Type::Labels => matches!(item, Type::Text | Type::Any),
        Type::Any => true,
        _ => false,
    }
}

fn indexed(container: &Type, key: &Type) -> Option<Type> {
    match container {
        Type::List(of) => matches!(key, Type::Int | Type::Uint | Type::Any).then(|| (**of).clone()),
        Type::Map(keys, values) => equatable(key, keys).then(|| (**values).clone()),
        Type::Labels => matches!(key, Type::Text | Type::Any).then_some(Type::Text),
        Type::Any => Some(Type::Any),
        _ => None,
    }
}
