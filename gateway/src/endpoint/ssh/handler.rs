//! russh's callbacks. They run inside the connection's loop, so none of them waits for the network: channels are opened
//! by tasks of their own.

use std::sync::Arc;

use fairlead_runtime::channel::Overrun;
use russh::keys::Certificate;
use russh::server::{Auth, ChannelOpenHandle, Msg, PublicKeyOffer, Session, VerifiedPublicKey};
use russh::{Channel, ChannelId, ChannelOpenFailure};

use super::connection::Connection;
use super::{Shared, forward};
use crate::access::Caller;
use crate::admission::Slot;

/// One SSH connection.
pub(super) struct Handler {
    shared: Arc<Shared>,
    connection: Arc<Connection>,
    slot: Option<Slot>,
    caller: Option<Arc<Caller>>,
}

impl Handler {
    pub(super) fn new(shared: Arc<Shared>, connection: Arc<Connection>, slot: Slot) -> Self {
        Self {
            shared,
            connection,
            slot: Some(slot),
            caller: None,
        }
    }

    /// Sets the caller from this authentication alone, so that nothing of an earlier one survives (advisory 11).
    fn conclude(&mut self, login: &str, proven: Result<Arc<Caller>, &'static str>) -> Auth {
        self.connection.asked.cancel();
        self.caller = None;
        match proven {
            Ok(proven) => {
                self.caller = Some(proven);
                Auth::Accept
            }
            Err(why) => {
                self.connection.note_refused(login, why);
                Auth::reject()
            }
        }
    }

    /// Refuses a channel that is no way to an endpoint, in words where the client can show them.
    fn turn_away(&self, asked: &'static str, reply: ChannelOpenHandle, session: &Session) {
        let (Some(caller), Some(place)) = (self.caller.clone(), self.connection.enter()) else {
            return;
        };
        let turned = forward::TurnedAway {
            asked,
            reply,
            place,
            handle: session.handle(),
            caller,
        };
        let (shared, connection) = (Arc::clone(&self.shared), Arc::clone(&self.connection));
        self.shared
            .tasks
            .spawn("ssh-refusal", async move { turned.run(&shared, &connection).await });
    }

    /// Records the refusal of a request whose answer has no room for words.
    fn record_refusal(&self, asked: &'static str) {
        if let Some(caller) = &self.caller {
            let denial = self.shared.door.turn_away(caller, asked, self.connection.client);
            tracing::info!(session = %denial.session, asked, "refused");
        }
    }
}

impl russh::server::Handler for Handler {
    type Error = russh::Error;

    async fn auth_publickey_offered(&mut self, user: &str, offer: PublicKeyOffer<'_>) -> Result<Auth, Self::Error> {
        // Nothing is decided on an offer (advisories 9 and 10); it only spares people signing with keys that cannot do. A
        // certificate is offered by the key inside it, which enrolment has made known.
        self.connection.asked.cancel();
        if self.shared.identifier.knows(user, offer.public_key).await {
            Ok(Auth::Accept)
        } else {
            self.connection.note_refused(user, "unknown-key");
            Ok(Auth::reject())
        }
    }

    async fn auth_publickey(&mut self, user: &str, key: VerifiedPublicKey<'_>) -> Result<Auth, Self::Error> {
        let source = self.connection.client.ip();
        let proven = self.shared.identifier.by_key(user, key.public_key, source).await;
        Ok(self.conclude(user, proven.ok_or("unregistered-key")))
    }

    async fn auth_openssh_certificate(&mut self, user: &str, certificate: &Certificate) -> Result<Auth, Self::Error> {
        let source = self.connection.client.ip();
        let proven = self.shared.identifier.by_certificate(user, certificate, source).await;
        Ok(self.conclude(user, proven))
    }

    async fn auth_succeeded(&mut self, _session: &mut Session) -> Result<(), Self::Error> {
        if self.caller.is_none() {
            return Err(russh::Error::NotAuthenticated);
        }
        self.slot = None;
        self.shared.failures.succeeded(self.connection.client.ip());
        self.connection.proven.cancel();
        Ok(())
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        channel: Channel<Msg>,
        host: &str,
        port: u32,
        _originator_address: &str,
        originator_port: u32,
        reply: ChannelOpenHandle,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let Some(caller) = self.caller.clone() else {
            return Err(russh::Error::NotAuthenticated);
        };
        let Some(place) = self.connection.enter() else {
            reply.reject(ChannelOpenFailure::ResourceShortage).await;
            return Ok(());
        };
        let forward = forward::Forward {
            channel,
            host: host.to_owned(),
            port: u16::try_from(port).unwrap_or(0),
            // OpenSSH's -W and -J open their one channel with this port; -L with the local client's.
            only_purpose: originator_port == 65535,
            reply,
            place,
            handle: session.handle(),
            caller,
        };
        let (shared, connection) = (Arc::clone(&self.shared), Arc::clone(&self.connection));
        self.shared
            .tasks
            .spawn("ssh-forward", async move { forward.run(&shared, &connection).await });
        Ok(())
    }

    async fn channel_open_session(
        &mut self,
        _channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.turn_away("session on the gateway", reply, session);
        Ok(())
    }

    async fn channel_open_direct_streamlocal(
        &mut self,
        _channel: Channel<Msg>,
        _socket_path: &str,
        reply: ChannelOpenHandle,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.turn_away("socket forward on the gateway", reply, session);
        Ok(())
    }

    async fn channel_open_x11(
        &mut self,
        _channel: Channel<Msg>,
        _originator_address: &str,
        _originator_port: u32,
        reply: ChannelOpenHandle,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.turn_away("X11 on the gateway", reply, session);
        Ok(())
    }

    async fn tcpip_forward(
        &mut self,
        _address: &str,
        _port: &mut u32,
        _session: &mut Session,
    ) -> Result<bool, Self::Error> {
        self.record_refusal("remote forward on the gateway");
        Ok(false)
    }

    async fn streamlocal_forward(&mut self, _socket_path: &str, _session: &mut Session) -> Result<bool, Self::Error> {
        self.record_refusal("remote socket forward on the gateway");
        Ok(false)
    }

    async fn data(&mut self, channel: ChannelId, data: &[u8], _session: &mut Session) -> Result<(), Self::Error> {
        // Data for a channel that carries nothing (not opened yet, refused, or over) is dropped.
        match self.connection.carrier(channel).map(|carrier| carrier.intake.put(data)) {
            Some(Err(Overrun)) => {
                tracing::debug!(client = %self.connection.client, "the client ignores its window");
                Err(russh::Error::WrongChannel)
            }
            _ => Ok(()),
        }
    }

    async fn channel_eof(&mut self, channel: ChannelId, _session: &mut Session) -> Result<(), Self::Error> {
        if let Some(carrier) = self.connection.carrier(channel) {
            carrier.intake.finish();
        }
        Ok(())
    }

    async fn channel_close(&mut self, channel: ChannelId, _session: &mut Session) -> Result<(), Self::Error> {
        if let Some(carrier) = self.connection.carrier(channel) {
            carrier.intake.finish();
            carrier.closed.cancel();
        }
        Ok(())
    }

    fn adjust_window(&mut self, _channel: ChannelId, _current: u32) -> u32 {
        self.connection.flow.next_window()
    }
}
