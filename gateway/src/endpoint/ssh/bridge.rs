//! A channel as two halves that the relay understands.
//!
//! What the client sends goes from russh's callback into an [`Intake`], never through russh's own queue: one full queue
//! would stop every channel of the connection, and russh's reading and writing with it. While an intake is full the
//! client's window is not opened again (`adjust_window`), so a channel that is not read waits by itself.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use fairlead_runtime::channel::Intake;
use fairlead_runtime::relay::{Sink, Source};
use russh::ChannelWriteHalf;
use russh::server::Msg;

/// Data from the client.
pub(super) struct ChannelSource {
    pub(super) intake: Arc<Intake>,
}

/// Data to the client; waits for the channel's window.
pub(super) struct ChannelSink {
    pub(super) write: ChannelWriteHalf<Msg>,
}

impl Source for ChannelSource {
    async fn chunk(&mut self) -> io::Result<Option<Bytes>> {
        Ok(self.intake.take().await)
    }
}

impl Sink for ChannelSink {
    async fn send(&mut self, data: Bytes) -> io::Result<()> {
        self.write.data_bytes(data).await.map_err(io::Error::other)
    }

    async fn finish(&mut self) -> io::Result<()> {
        // A client that closed first, as ssh does at the end of a session, need not hear that nothing more comes.
        let _gone = self.write.eof().await;
        Ok(())
    }
}
