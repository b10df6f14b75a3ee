//! What the database sends, on its way to the client: followed message by message, so that a cut can be said between two.

use std::io;

use bytes::Bytes;
use fairlead_protocol::postgres::Server;
use fairlead_runtime::relay::{Batch, Sink};
use fairlead_runtime::stop::Lapse;
use fairlead_wire::refusal::Reason;

/// A sink that follows the server's messages.
pub(super) struct Outgoing<K> {
    inner: K,
    server: Server,
    lapse: Lapse<Reason>,
}

impl<K> Outgoing<K> {
    pub(super) fn new(inner: K, lapse: Lapse<Reason>) -> Self {
        Self {
            inner,
            server: Server::default(),
            lapse,
        }
    }

    /// The sink itself, and whether something can be said to the client now.
    pub(super) fn into_inner(self) -> (K, bool) {
        (self.inner, self.server.is_between_messages())
    }

    fn follow(&mut self, bytes: Bytes) -> io::Result<Vec<Bytes>> {
        let followed = self.server.follow(bytes);
        followed.map(|answered| answered.bytes).map_err(|error| {
            // Whoever speaks there, it is not the caller's fault.
            self.lapse.cancel(Reason::UpstreamFailed);
            io::Error::other(error)
        })
    }
}

impl<K: Sink> Sink for Outgoing<K> {
    async fn send(&mut self, bytes: Bytes) -> io::Result<()> {
        for bytes in self.follow(bytes)? {
            self.inner.send(bytes).await?;
        }
        Ok(())
    }

    async fn send_batch(&mut self, batch: &mut Batch) -> io::Result<()> {
        let mut followed = Batch::new();
        while let Some(bytes) = batch.pop() {
            self.follow(bytes)?.into_iter().for_each(|bytes| followed.push(bytes));
        }
        self.inner.send_batch(&mut followed).await
    }

    async fn finish(&mut self) -> io::Result<()> {
        self.inner.finish().await
    }
}
