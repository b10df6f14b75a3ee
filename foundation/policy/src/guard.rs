//! The parts of a rule that are cheap to look at: what must hold before any expression can be true.
//!
//! A guard is read out of a rule's sites, protocols and the top-level `&&` parts of its expressions that compare an always
//! known fact with words written out: `endpoint.host == 'x'`, `caller.name in ['a', 'b']`, `'g' in caller.groups`,
//! `agent.labels['k'] == 'v'`, and such parts joined by `||`. index.rs finds rules by them.
//!
//! INVARIANT: a guard that does not hold means that its rule is false. Two things make that so. A guard cannot fail: the
//! facts it reads are there in every request, and words compare with words. And what stands beside a false part does not
//! matter: `false && failing` and `failing && false` are both false, and so is a rule with one false expression.

use crate::facts::Facts;
use cel_interpreter::common::ast::{CallExpr, Expr, IdedExpr, LiteralValue, operators as op};
use std::collections::BTreeMap;

/// A fact that every request has, as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fact {
    CallerName,
    CallerKind,
    CallerSite,
    AgentName,
    AgentSite,
    Url,
    Host,
    Port,
    Protocol,
    ClientIp,
}

impl Fact {
    pub(crate) const ALL: [Self; 10] = [
        Self::CallerName,
        Self::CallerKind,
        Self::CallerSite,
        Self::AgentName,
        Self::AgentSite,
        Self::Url,
        Self::Host,
        Self::Port,
        Self::Protocol,
        Self::ClientIp,
    ];

    /// The variable of this fact.
    pub(crate) fn variable(self) -> &'static str {
        match self {
            Self::CallerName => "caller.name",
            Self::CallerKind => "caller.kind",
            Self::CallerSite => "caller.site",
            Self::AgentName => "agent.name",
            Self::AgentSite => "agent.site",
            Self::Url => "endpoint.url",
            Self::Host => "endpoint.host",
            Self::Port => "endpoint.port",
            Self::Protocol => "endpoint.protocol",
            Self::ClientIp => "conn.client_ip",
        }
    }
}

/// Whose labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Owner {
    Caller,
    Agent,
}

/// What is looked at.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Attribute {
    /// The fact is one of the words.
    Is(Fact),
    /// One of the caller's groups is one of the words.
    Group,
    /// There is a label of one of these names.
    HasLabel(Owner),
    /// The label of this name is one of the words; an absent one reads as `''`.
    Label(Owner, String),
}

/// Holds when one of its tests does: an attribute and the words it is compared with, sorted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Guard {
    pub(crate) tests: BTreeMap<Attribute, Vec<String>>,
}

impl Guard {
    /// A guard with one test.
    pub(crate) fn of(attribute: Attribute, mut words: Vec<String>) -> Self {
        words.sort_unstable();
        words.dedup();
        Self {
            tests: BTreeMap::from([(attribute, words)]),
        }
    }

    pub(crate) fn holds(&self, facts: &Facts<'_>) -> bool {
        self.tests.iter().any(|(attribute, words)| {
            let among = |text: &str| words.binary_search_by(|word| word.as_str().cmp(text)).is_ok();
            match attribute {
                Attribute::Is(fact) => among(facts.text(*fact)),
                Attribute::Group => facts.groups().iter().any(|group| among(group)),
                Attribute::HasLabel(owner) => words.iter().any(|key| facts.label(*owner, key).is_some()),
                Attribute::Label(owner, key) => among(facts.label(*owner, key).unwrap_or("")),
            }
        })
    }

    /// Whether requests can be looked up by it: the name of an absent label is not among a request's facts.
    pub(crate) fn can_be_looked_up(&self) -> bool {
        self.tests.iter().all(|(attribute, words)| {
            !matches!(attribute, Attribute::Label(..)) || words.first().is_none_or(|word| !word.is_empty())
        })
    }
}

/// The guards of a checked expression.
pub(crate) fn guards(tree: &IdedExpr) -> Vec<Guard> {
    let mut found = Vec::new();
    each_conjunct(tree, &mut |part| found.extend(guard(part)));
    found
}

/// Calls `visit` for each part of a chain of `&&`, in the order written.
pub(crate) fn each_conjunct<'t>(tree: &'t IdedExpr, visit: &mut impl FnMut(&'t IdedExpr)) {
    match call(tree, op::LOGICAL_AND) {
        Some([left, right]) => {
            each_conjunct(left, visit);
            each_conjunct(right, visit);
        }
        _ => visit(tree),
    }
}

fn guard(tree: &IdedExpr) -> Option<Guard> {
    if let Some([left, right]) = call(tree, op::LOGICAL_OR) {
        let (mut either, other) = (guard(left)?, guard(right)?);
        for (attribute, words) in other.tests {
            let all = either.tests.entry(attribute).or_default();
            all.extend(words);
            all.sort_unstable();
            all.dedup();
        }
        return Some(either);
    }
    let (attribute, words) = match (call(tree, op::EQUALS), call(tree, op::IN)) {
        (Some([a, b]), _) => comparison(a, b).or_else(|| comparison(b, a))?,
        (_, Some([item, container])) => membership(item, container)?,
        _ => return None,
    };
    Some(Guard::of(attribute, words))
}

fn call<'t>(tree: &'t IdedExpr, name: &str) -> Option<&'t [IdedExpr]> {
    match &tree.expr {
        Expr::Call(CallExpr { func_name, args, .. }) if func_name == name => Some(args),
        _ => None,
    }
}

/// `endpoint.host == 'x'`.
fn comparison(read: &IdedExpr, word: &IdedExpr) -> Option<(Attribute, Vec<String>)> {
    let attribute = attribute(read)?;
    Some((attribute.clone(), vec![word_for(&attribute, word)?]))
}

/// `caller.name in ['a', 'b']`, `'g' in caller.groups`, `'k' in agent.labels`.
fn membership(item: &IdedExpr, container: &IdedExpr) -> Option<(Attribute, Vec<String>)> {
    if let Expr::List(list) = &container.expr {
        let attribute = attribute(item)?;
        let words: Option<Vec<String>> = list.elements.iter().map(|e| word_for(&attribute, e)).collect();
        return Some((attribute, words?));
    }
    let attribute = match variable(container)? {
        "caller.groups" => Attribute::Group,
        name => Attribute::HasLabel(owner(name)?),
    };
    Some((attribute, vec![text(item)?]))
}

/// What a part reads, when that is one fact or one label written out.
fn attribute(tree: &IdedExpr) -> Option<Attribute> {
    if let Some(name) = variable(tree) {
        return Fact::ALL.into_iter().find(|f| f.variable() == name).map(Attribute::Is);
    }
    label(tree).map(|(owner, key)| Attribute::Label(owner, key))
}

/// The label that a part reads: `agent.labels['k']` or `agent.labels.k`.
pub(crate) fn label(tree: &IdedExpr) -> Option<(Owner, String)> {
    match &tree.expr {
        Expr::Select(select) => Some((owner(variable(&select.operand)?)?, select.field.clone())),
        _ => match call(tree, op::INDEX) {
            Some([labels, key]) => Some((owner(variable(labels)?)?, text(key)?)),
            _ => None,
        },
    }
}

/// The variable that a part is. The checker has made each dotted name one; no author can write a name with a dot.
pub(crate) fn variable(tree: &IdedExpr) -> Option<&str> {
    match &tree.expr {
        Expr::Ident(name) if name.contains('.') => Some(name),
        _ => None,
    }
}

fn owner(variable: &str) -> Option<Owner> {
    match variable {
        "caller.labels" => Some(Owner::Caller),
        "agent.labels" => Some(Owner::Agent),
        _ => None,
    }
}

/// The text of a literal as the fact's text is written: numbers for the port, text for all others.
fn word_for(attribute: &Attribute, tree: &IdedExpr) -> Option<String> {
    match (attribute, &tree.expr) {
        (Attribute::Is(Fact::Port), Expr::Literal(LiteralValue::Int(number))) => Some(number.inner().to_string()),
        (Attribute::Is(Fact::Port), _) => None,
        _ => text(tree),
    }
}

pub(crate) fn text(tree: &IdedExpr) -> Option<String> {
    match &tree.expr {
        Expr::Literal(LiteralValue::String(text)) => Some(text.inner().to_owned()),
        _ => None,
    }
}
