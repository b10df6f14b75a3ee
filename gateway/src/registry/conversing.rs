//! Between the two rooms that share the one port: callers' connections which the room of links accepts go to the face that
//! answers them, and TLS connections which the faces' driver meets but a link asks for go to the room of links.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio_rustls::StartHandshake;

use crate::admission::Slot;
use crate::endpoint::peer::Peer;
use crate::endpoint::{ClientStream, Presented, Uplinks};
use crate::link::{Answer, CallerConnection, Conversation, Links};

/// The face behind the UDP side of the port.
pub(crate) struct Conversing(pub(crate) Arc<Peer>);

impl Conversation for Conversing {
    fn converse(&self, caller: CallerConnection, slot: Slot) -> Answer<'_, Result<(), &'static str>> {
        let CallerConnection { connection, chain, who } = caller;
        Box::pin(async move { self.0.serve(connection, Presented { chain, who }, slot).await })
    }
}

/// The room of links behind the TCP side of the port.
pub(crate) struct Uplinking(pub(crate) Arc<Links>);

impl Uplinks for Uplinking {
    fn arrive(&self, begun: StartHandshake<ClientStream>, client: SocketAddr, slot: Slot) -> Answer<'_, ()> {
        Box::pin(Arc::clone(&self.0).arrive(begun, client, slot))
    }
}
