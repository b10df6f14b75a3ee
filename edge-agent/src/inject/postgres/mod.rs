//! Logging in to PostgreSQL: the StartupMessage with the database's own user, then whatever the server asks for.
//!
//! SCRAM-SHA-256 is answered to any server, bound to the TLS connection where that can be. The password itself, and the MD5
//! hash that is as good as it, go only to a server that has proven itself by TLS, or that is this very machine. What the
//! server says is read by `fairlead_protocol::postgres::Login`, which bounds it.

mod scram;

use bytes::{Bytes, BytesMut};
use fairlead_identity::name::Protocol;
use fairlead_protocol::postgres::{self, Login, LoginStep, ServerSaid};
use postgres_protocol::authentication::md5_hash;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use zeroize::Zeroizing;

use super::{Answer, Attempt, Kind, LoggedIn, LoginFailed, Told, Wire};
use crate::service::Trust;
use scram::Scram;

pub(super) const KIND: Kind = Kind {
    protocol: Protocol::Postgres,
    log_in,
};

/// Read at once.
const CHUNK: usize = 4 * 1024;

const NOT_SPOKEN: &str = "the database's login is not what the agent speaks";
const NOT_TAKEN: &str = "the database does not take the login of the agent's file";
const TOO_WEAK: &str = "the database asks for a weaker login than the agent makes";
const GONE: &str = "the database ended the connection in the middle of the login";

fn log_in<'a>(wire: &'a mut dyn Wire, attempt: Attempt<'a>) -> Answer<'a> {
    Box::pin(async move {
        let mut startup = attempt.asked.postgres.clone().ok_or_else(nobody_asked)?;
        // A caller who names no database means the one of their own name, not of the user they become.
        let database = startup.database().to_owned();
        startup.set("database", &database);
        startup.set("user", &attempt.credential.user);
        send(wire, &startup.to_bytes()).await?;
        Conversation {
            wire,
            attempt,
            login: Login::default(),
            unread: BytesMut::new(),
            by: "none asked for",
        }
        .run()
        .await
    })
}

struct Conversation<'a> {
    wire: &'a mut dyn Wire,
    attempt: Attempt<'a>,
    login: Login,
    unread: BytesMut,
    by: &'static str,
}

impl Conversation<'_> {
    async fn run(mut self) -> Result<LoggedIn, LoginFailed> {
        let mut scram = None;
        loop {
            match self.step().await? {
                LoginStep::Cleartext => self.cleartext().await?,
                LoginStep::Md5(salt) => self.md5(salt).await?,
                LoginStep::Sasl(offered) => {
                    let (begun, first) = Scram::begin(&offered, self.password()?, self.attempt.channel)?;
                    self.by = begun.name();
                    send(self.wire, &first).await?;
                    scram = Some(begun);
                }
                LoginStep::SaslContinue(said) => {
                    let begun = scram.take().ok_or_else(nobody_asked)?;
                    let (answered, next) = begun.answer(said, self.attempt.tasks).await?;
                    send(self.wire, &next).await?;
                    scram = Some(answered);
                }
                LoginStep::SaslFinal(said) => scram.take().ok_or_else(nobody_asked)?.check_proof(&said)?,
                LoginStep::Done(negotiated) => return Ok(self.logged_in(negotiated)),
                LoginStep::Refused(said) => return Err(self.refused(&said)),
            }
        }
    }

    async fn step(&mut self) -> Result<LoginStep, LoginFailed> {
        loop {
            let read = self.login.read(&mut self.unread);
            if let Some(step) = read.map_err(|error| LoginFailed::outline(NOT_SPOKEN, error))? {
                return Ok(step);
            }
            self.unread.reserve(CHUNK);
            match self.wire.read_buf(&mut self.unread).await {
                Ok(0) => return Err(LoginFailed::outline(GONE, GONE)),
                Ok(_) => {}
                Err(error) => return Err(LoginFailed::outline(GONE, error)),
            }
        }
    }

    async fn cleartext(&mut self) -> Result<(), LoginFailed> {
        self.by = "password";
        self.must_be_proven("the password itself")?;
        let message = Zeroizing::new(postgres::password_message(self.password()?.as_bytes()));
        send(self.wire, &message).await
    }

    async fn md5(&mut self, salt: [u8; 4]) -> Result<(), LoginFailed> {
        self.by = "md5";
        self.must_be_proven("an MD5 hash of the password")?;
        let user = self.attempt.credential.user.as_bytes();
        let hash = Zeroizing::new(md5_hash(user, self.password()?.as_bytes(), salt));
        let message = Zeroizing::new(postgres::password_message(hash.as_bytes()));
        send(self.wire, &message).await
    }

    fn must_be_proven(&self, what: &str) -> Result<(), LoginFailed> {
        if self.attempt.channel.trust == Trust::None {
            let detail = format!(
                "the database asks for {what}, which goes only to one proven by TLS (mode verify-full or verify-ca) or on this \
                 machine: let it ask for scram-sha-256, or set tls on the upstream"
            );
            return Err(LoginFailed::outline(TOO_WEAK, detail));
        }
        Ok(())
    }

    fn password(&self) -> Result<&str, LoginFailed> {
        let password = self.attempt.credential.password();
        password.ok_or_else(|| LoginFailed::outline(NOT_TAKEN, "the password has not been read"))
    }

    fn logged_in(self, negotiated: Option<Bytes>) -> LoggedIn {
        let mut greeting = BytesMut::from(negotiated.unwrap_or_default());
        greeting.extend_from_slice(&postgres::authentication_ok());
        greeting.extend_from_slice(&self.unread);
        LoggedIn {
            by: self.by,
            greeting: greeting.freeze(),
        }
    }

    /// A database that is full, starting or unknown is the caller's to know; what it says about the login is not.
    fn refused(&self, said: &ServerSaid) -> LoginFailed {
        let ServerSaid { sqlstate, message } = said;
        // Nobody who was told a password may say it on.
        let is_secret = self.password().is_ok_and(|password| message.contains(password));
        let message = if is_secret { "(not repeated)" } else { message };
        let told = if sqlstate.starts_with("28") || is_secret {
            Told::Outline(NOT_TAKEN)
        } else {
            let hint = format!("said by the database, session {}", self.attempt.asked.session);
            Told::Words(postgres::fatal(sqlstate, message, &hint).into())
        };
        LoginFailed {
            detail: format!("the database says {sqlstate}: {message}"),
            told,
        }
    }
}

async fn send(wire: &mut dyn Wire, bytes: &[u8]) -> Result<(), LoginFailed> {
    let sent = async {
        wire.write_all(bytes).await?;
        wire.flush().await
    };
    sent.await.map_err(|error| LoginFailed::outline(GONE, error))
}

/// The session room reads the StartupMessage before it asks for a login, and `Login` keeps the order of steps.
fn nobody_asked() -> LoginFailed {
    LoginFailed::outline(NOT_SPOKEN, "a step of the login that nothing led to")
}

#[cfg(test)]
mod tests;
