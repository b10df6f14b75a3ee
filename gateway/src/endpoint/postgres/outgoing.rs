//! What the database sends, on its way to the client: followed message by message, so that a cut can be said between two;
//! the cancel key among them is exchanged for one of ours.

use std::io;

use bytes::Bytes;
use fairlead_protocol::postgres::Server;
use fairlead_runtime::relay::{Batch, Sink};
use fairlead_runtime::stop::Lapse;
use fairlead_wire::refusal::Reason;

use crate::session::CancelSeat;

/// A sink that follows the server's messages.
pub(in crate::endpoint) struct Outgoing<K> {
    inner: K,
    server: Server,
    seat: CancelSeat,
    lapse: Lapse<Reason>,
    /// A write was begun and has not ended: what the client has of it is not known.
    writing: bool,
}

impl<K> Outgoing<K> {
    /// A sink whose client is shown a cancel key of ours in place of the database's.
    pub(super) fn new(inner: K, seat: CancelSeat, lapse: Lapse<Reason>) -> Self {
        Self {
            inner,
            server: Server::new(seat.offer()),
            seat,
            lapse,
            writing: false,
        }
    }

    /// The sink itself, and whether something can be said to the client now.
    pub(super) fn into_inner(self) -> (K, bool) {
        (self.inner, self.server.is_between_messages() && !self.writing)
    }

    fn follow(&mut self, bytes: Bytes) -> io::Result<Vec<Bytes>> {
        let followed = self.server.follow(bytes);
        // Before the client gets it: it may be used at once.
        if let Some((shown, given)) = self.server.cancel_keys() {
            self.seat.keep(shown, given);
        }
        followed.map(|answered| answered.bytes).map_err(|error| {
            // Whoever speaks there, it is not the caller's fault.
            self.lapse.cancel(Reason::UpstreamFailed);
            io::Error::other(error)
        })
    }
}

impl<K: Sink> Sink for Outgoing<K> {
    async fn send(&mut self, bytes: Bytes) -> io::Result<()> {
        let followed = self.follow(bytes)?;
        self.writing = true;
        for bytes in followed {
            self.inner.send(bytes).await?;
        }
        self.writing = false;
        Ok(())
    }

    async fn send_batch(&mut self, batch: &mut Batch) -> io::Result<()> {
        let mut followed = Batch::new();
        while let Some(bytes) = batch.pop() {
            self.follow(bytes)?.into_iter().for_each(|bytes| followed.push(bytes));
        }
        self.writing = true;
        let sent = self.inner.send_batch(&mut followed).await;
        self.writing = sent.is_err();
        sent
    }

    async fn finish(&mut self) -> io::Result<()> {
        self.inner.finish().await
    }
}
