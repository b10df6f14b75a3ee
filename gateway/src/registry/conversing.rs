//! Hands callers' connections, which the room of links accepts, to the face that answers them.

use std::sync::Arc;

use crate::admission::Slot;
use crate::endpoint::Presented;
use crate::endpoint::peer::Peer;
use crate::link::{Answer, CallerConnection, Conversation};

/// The face behind the UDP side of the port.
pub(crate) struct Conversing(pub(crate) Arc<Peer>);

impl Conversation for Conversing {
    fn converse(&self, caller: CallerConnection, slot: Slot) -> Answer<'_, Result<(), &'static str>> {
        let CallerConnection { connection, chain, who } = caller;
        Box::pin(async move { self.0.serve(connection, Presented { chain, who }, slot).await })
    }
}
