//! A no, with what the gateway hears of it and what only the customer does.

use fairlead_policy::{self as policy, RuleRef};
use fairlead_wire::refusal::Reason;

/// A no of the customer's file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The numbered reason, told to the gateway.
    pub reason: Reason,
    /// Detail for both audits; names no upstream.
    pub detail: String,
    /// The rule that decided, if one did.
    pub rule: Option<RuleRef>,
    /// What only the customer's own audit says in place of reason and detail.
    pub private: Option<Box<(&'static str, String)>>,
}

impl Refusal {
    /// A refusal that no rule made.
    pub fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self {
            reason,
            detail: detail.into(),
            rule: None,
            private: None,
        }
    }

    /// With what only the customer's own audit says: the name of the reason, and detail that may name upstreams.
    #[must_use]
    pub fn but_here(mut self, name: &'static str, detail: impl Into<String>) -> Self {
        self.private = Some(Box::new((name, detail.into())));
        self
    }

    pub(super) fn by_rule(denied: policy::Denied) -> Self {
        Self {
            rule: denied.rule,
            ..Self::new(Reason::Rule, format!("the agent's own rules: {}", denied.reason))
        }
    }
}
