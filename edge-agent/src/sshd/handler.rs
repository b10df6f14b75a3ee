//! What russh calls us about, on the connection's own task: nothing here waits for a program, a disk or the client.

use russh::keys::Certificate;
use russh::server::{Auth, ChannelOpenHandle, Handler, Msg, PublicKeyOffer, Session, VerifiedPublicKey};
use russh::{Channel, ChannelId, ChannelOpenFailure, Disconnect, Error, Pty, Sig};

use super::auth::Verdict;
use super::channels::{Entry, NoChannel};
use super::connection::Connection;
use super::outlet;
use super::settings::Act;
use super::terminal::{Description, Size};

/// Longest command, in bytes; Linux takes 128 KiB for one argument.
const MAX_COMMAND: usize = 64 * 1024;

impl Handler for Connection {
    type Error = Error;

    async fn auth_publickey_offered(&mut self, _user: &str, offer: PublicKeyOffer<'_>) -> Result<Auth, Error> {
        Ok(if self.may_sign(offer.public_key) {
            Auth::Accept
        } else {
            Auth::reject()
        })
    }

    async fn auth_publickey(&mut self, user: &str, key: VerifiedPublicKey<'_>) -> Result<Auth, Error> {
        Ok(self.prove_key(user, key.public_key).await)
    }

    async fn auth_openssh_certificate(&mut self, user: &str, certificate: &Certificate) -> Result<Auth, Error> {
        Ok(self.prove_certificate(user, certificate).await)
    }

    async fn auth_succeeded(&mut self, session: &mut Session) -> Result<(), Error> {
        match self.verdict() {
            Some(Verdict::Admitted(_)) => Ok(()),
            Some(Verdict::WrongUser(text)) => session.disconnect(Disconnect::IllegalUserName, text, ""),
            Some(Verdict::Refused(_)) | None => session.disconnect(Disconnect::ByApplication, "fairlead: denied", ""),
        }
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        session: &mut Session,
    ) -> Result<(), Error> {
        // The read half would block the whole connection when nobody reads it: data comes through `data` instead.
        let (_, half) = channel.split();
        match self.open_channel(half) {
            Ok(()) => reply.accept().await,
            Err(NoChannel::Stranger) => return refuse(reply).await,
            Err(NoChannel::Now) => reply.reject(ChannelOpenFailure::ResourceShortage).await,
            Err(NoChannel::Ever) => {
                session.disconnect(
                    Disconnect::TooManyConnections,
                    "fairlead: this connection is used up: connect again",
                    "",
                )?;
            }
        }
        Ok(())
    }

    async fn channel_close(&mut self, id: ChannelId, session: &mut Session) -> Result<(), Error> {
        if !self.close_channel(id) {
            self.entry(id, session)?;
        }
        Ok(())
    }

    async fn channel_eof(&mut self, id: ChannelId, session: &mut Session) -> Result<(), Error> {
        if let Some(entry) = self.entry(id, session)? {
            entry.intake.finish();
        }
        Ok(())
    }

    async fn data(&mut self, id: ChannelId, data: &[u8], session: &mut Session) -> Result<(), Error> {
        self.take_data(id, data, session)
    }

    // A client has no second stream to a program: what it sends as one is dropped.
    async fn extended_data(
        &mut self,
        id: ChannelId,
        _code: u32,
        _data: &[u8],
        session: &mut Session,
    ) -> Result<(), Error> {
        self.entry(id, session)?;
        Ok(())
    }

    fn adjust_window(&mut self, id: ChannelId, _current: u32) -> u32 {
        self.next_window(id)
    }

    async fn pty_request(
        &mut self,
        id: ChannelId,
        term: &str,
        columns: u32,
        rows: u32,
        width: u32,
        height: u32,
        modes: &[(Pty, u32)],
        session: &mut Session,
    ) -> Result<(), Error> {
        let description = Description::new(term, Size::from_wire(columns, rows, width, height), modes);
        let Some(prepared) = self.entry(id, session)?.and_then(Entry::prepared) else {
            return session.channel_failure(id);
        };
        if description.is_none() || prepared.terminal.is_some() {
            return session.channel_failure(id);
        }
        prepared.terminal = description;
        session.channel_success(id)
    }

    async fn env_request(
        &mut self,
        id: ChannelId,
        name: &str,
        value: &str,
        session: &mut Session,
    ) -> Result<(), Error> {
        let granted = self
            .entry(id, session)?
            .and_then(Entry::prepared)
            .is_some_and(|to| to.environment.ask(name, value));
        if granted {
            session.channel_success(id)
        } else {
            session.channel_failure(id)
        }
    }

    async fn shell_request(&mut self, id: ChannelId, session: &mut Session) -> Result<(), Error> {
        self.begin(id, Act::Shell, session)
    }

    async fn exec_request(&mut self, id: ChannelId, data: &[u8], session: &mut Session) -> Result<(), Error> {
        if data.len() > MAX_COMMAND {
            return self.deny_unseen(id, &format!("the command is longer than {MAX_COMMAND} bytes"), session);
        }
        // Rules and audit must see exactly what runs.
        match std::str::from_utf8(data) {
            Ok(command) if !command.contains('\0') => self.begin(id, Act::Exec { command }, session),
            _ => self.deny_unseen(id, "the command is not text", session),
        }
    }

    async fn subsystem_request(&mut self, id: ChannelId, name: &str, session: &mut Session) -> Result<(), Error> {
        if name == "sftp" {
            return self.begin(id, Act::Sftp, session);
        }
        self.deny_unseen(id, "the subsystem is not served here", session)
    }

    async fn window_change_request(
        &mut self,
        id: ChannelId,
        columns: u32,
        rows: u32,
        width: u32,
        height: u32,
        session: &mut Session,
    ) -> Result<(), Error> {
        if let Some(entry) = self.entry(id, session)? {
            entry.size.send_replace(Size::from_wire(columns, rows, width, height));
        }
        session.channel_success(id)
    }

    async fn signal(&mut self, id: ChannelId, signal: Sig, session: &mut Session) -> Result<(), Error> {
        if let (Some(entry), Some(signal)) = (self.entry(id, session)?, outlet::signal(&signal))
            && entry.signals.try_send(signal).is_err()
        {
            tracing::debug!(%signal, "a signal was dropped: nothing runs, or too many wait");
        }
        Ok(())
    }

    // Everything below is refused. What is not named here russh refuses: unknown channel types, global requests, and the
    // client's own opening of forwarded-streamlocal and agent channels.

    async fn channel_open_x11(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Error> {
        refuse(reply).await
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: u32,
        _: &str,
        _: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Error> {
        refuse(reply).await
    }

    async fn channel_open_forwarded_tcpip(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: u32,
        _: &str,
        _: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Error> {
        refuse(reply).await
    }

    async fn channel_open_direct_streamlocal(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Error> {
        refuse(reply).await
    }

    async fn x11_request(
        &mut self,
        id: ChannelId,
        _: bool,
        _: &str,
        _: &str,
        _: u32,
        session: &mut Session,
    ) -> Result<(), Error> {
        session.channel_failure(id)
    }

    async fn agent_request(&mut self, _: ChannelId, _: &mut Session) -> Result<bool, Error> {
        Ok(false)
    }

    async fn tcpip_forward(&mut self, _: &str, _: &mut u32, _: &mut Session) -> Result<bool, Error> {
        Ok(false)
    }

    async fn streamlocal_forward(&mut self, _: &str, _: &mut Session) -> Result<bool, Error> {
        Ok(false)
    }
}

async fn refuse(reply: ChannelOpenHandle) -> Result<(), Error> {
    reply.reject(ChannelOpenFailure::AdministrativelyProhibited).await;
    Ok(())
}
