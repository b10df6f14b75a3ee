//! Logging in to a broker: the caller's own CONNECT with the user name and the password of the customer's file.
//!
//! A password of MQTT travels as it is, so it goes only to a broker that has proven itself by TLS, or that is this very
//! machine.

use bytes::{Bytes, BytesMut};
use fairlead_identity::name::Protocol;
use fairlead_protocol::mqtt::guard::connect_on;
use fairlead_protocol::mqtt::{ConnAck, Kind as Packet, Login, answer, header};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use zeroize::Zeroizing;

use super::{Answer, Attempt, Kind, LoggedIn, LoginFailed, Told};
use crate::service::Trust;

pub(super) const KIND: Kind = Kind {
    protocol: Protocol::Mqtt,
    log_in,
};

/// Longest answer of a broker to CONNECT, in bytes.
const MAX_ANSWER: usize = 64 * 1024;
/// Read at once.
const CHUNK: usize = 4 * 1024;

const NOT_SPOKEN: &str = "the broker's login is not what the agent speaks";
const NOT_TAKEN: &str = "the broker does not take the login of the agent's file";
const TOO_WEAK: &str = "the broker is not one that the agent sends a password to";
const GONE: &str = "the broker ended the connection in the middle of the login";

fn log_in<'a>(wire: &'a mut dyn super::Wire, attempt: Attempt<'a>) -> Answer<'a> {
    Box::pin(async move {
        let asked = attempt.asked.mqtt.as_ref();
        let asked = asked.ok_or_else(|| LoginFailed::outline(NOT_SPOKEN, "no CONNECT was read"))?;
        if attempt.channel.trust == Trust::None {
            let detail = "a password of MQTT goes only to a broker proven by TLS (mode verify-full or verify-ca) or on this \
                          machine: set tls on the upstream";
            return Err(LoginFailed::outline(TOO_WEAK, detail));
        }
        let password = attempt.credential.password();
        let password = password.ok_or_else(|| LoginFailed::outline(NOT_TAKEN, "the password has not been read"))?;
        let login = Login {
            username: Some(&attempt.credential.user),
            password: Some(password.as_bytes()),
        };
        let connect = connect_on(&asked.packet, Some(login));
        let connect = Zeroizing::new(connect.map_err(|error| LoginFailed::outline(NOT_SPOKEN, error))?);
        let mut unread = BytesMut::new();
        wire.write_all(&connect).await.map_err(gone)?;
        wire.flush().await.map_err(gone)?;
        loop {
            if let Some(head) = header(&unread).map_err(|error| LoginFailed::outline(NOT_SPOKEN, error))? {
                if head.kind != Packet::ConnAck || head.packet() > MAX_ANSWER {
                    return Err(LoginFailed::outline(NOT_SPOKEN, "what came first is no CONNACK"));
                }
                if let Some(body) = unread.get(head.length..head.packet()) {
                    let said = ConnAck::read(body, asked.hello.version);
                    let said = said.map_err(|error| LoginFailed::outline(NOT_SPOKEN, error))?;
                    if said.reason != 0 {
                        return Err(refused(&attempt, said.reason));
                    }
                    return Ok(LoggedIn {
                        by: "password",
                        greeting: unread.freeze(),
                    });
                }
            }
            unread.reserve(CHUNK);
            if wire.read_buf(&mut unread).await.map_err(gone)? == 0 {
                return Err(LoginFailed::outline(GONE, GONE));
            }
        }
    })
}

/// The broker's no is not the caller's to know in detail: the login is the customer's.
fn refused(attempt: &Attempt<'_>, reason: u8) -> LoginFailed {
    let text = format!("fairlead: {NOT_TAKEN} (session {})", attempt.asked.session);
    let version = attempt.asked.mqtt.as_ref().map(|said| said.hello.version);
    let told = match version {
        Some(version) => {
            let words = answer::connack(version, answer::Reason::Unavailable, &text);
            Told::Words(Bytes::from(words))
        }
        None => Told::Outline(NOT_TAKEN),
    };
    LoginFailed {
        detail: format!("the broker answers CONNECT with {reason:#04x}"),
        told,
    }
}

fn gone(error: std::io::Error) -> LoginFailed {
    LoginFailed::outline(GONE, error)
}
