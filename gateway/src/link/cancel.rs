//! Has an agent cancel what a live session does. Like a session it takes a [`Permit`]: that of the session itself.

use fairlead_protocol::postgres::CancelKey;
use fairlead_wire::open::{self, Open};
use fairlead_wire::refusal::Reason;
use fairlead_wire::version::CANCEL;
use tokio::time::timeout;

use super::AgentKey;
use super::roster::{ANSWER_LIMIT, OpenError, Roster, open_message};
use crate::access::Permit;

impl Roster {
    /// Asks the agent of a live session's permit to have its upstream cancel what the session does.
    ///
    /// # Errors
    /// `offline` when the agent has no link now, otherwise what it answered.
    pub async fn cancel(&self, permit: &Permit, key: CancelKey) -> Result<(), OpenError> {
        let target = permit.target();
        let agent = AgentKey {
            site: target.site.clone(),
            name: target.agent.clone(),
        };
        let link = self.find(&agent).filter(|link| link.is_confirmed());
        let link = link.ok_or_else(|| OpenError::new(Reason::Offline, ""))?;
        let answered = timeout(ANSWER_LIMIT, link.exchange(message(permit, key), &[])).await;
        let late = |_| {
            Err(OpenError::new(
                Reason::UpstreamFailed,
                "the agent did not answer within 15 s",
            ))
        };
        match answered.unwrap_or_else(late)?.0 {
            open::Body::Opened(_) => Ok(()),
            open::Body::Refused(refused) => Err(OpenError::new(refused.known_reason(), refused.detail)),
            open::Body::Explained(_) => Err(OpenError::new(Reason::Malformed, "an answer to another question")),
        }
    }
}

fn message(permit: &Permit, key: CancelKey) -> Open {
    Open {
        // INVARIANT: with this an agent opens nothing, and one that does not know it refuses.
        requires: vec![CANCEL.to_owned()],
        acts: Vec::new(),
        cancel: Some(open::CancelKey {
            process: key.process,
            secret: key.secret,
        }),
        ..open_message(permit)
    }
}
