//! A client's CONNECT, and last words to one that gets no session.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use fairlead_protocol::mqtt::answer::{self, Reason as Code};
use fairlead_protocol::mqtt::guard::{self, End, Hello, Limits};
use fairlead_runtime::relay::{self, Source};
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;

use super::say;
use crate::endpoint::ClientStream;

/// From the beginning to the end of CONNECT.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// Bytes of a CONNECT, its will and password included.
const CONNECT_BYTES: usize = 128 * 1024;
/// How long a client that is turned away may take to hear it.
const FAREWELL: Duration = Duration::from_secs(2);

/// What a client says first.
pub(super) struct Heard {
    pub(super) hello: Hello,
    /// The packet as it goes on.
    pub(super) connect: Bytes,
    /// What came behind it.
    pub(super) ahead: BytesMut,
}

/// Reads CONNECT. What cannot be read is an error, with what is answered to it, where something is.
pub(super) async fn hear<S: Source>(source: &mut S) -> Result<Heard, Option<Bytes>> {
    let limits = Limits {
        packet: CONNECT_BYTES,
        ..Limits::default()
    };
    let mut held = BytesMut::new();
    let read = timeout(CONNECT_LIMIT, async {
        loop {
            match guard::read_hello(&held, &limits) {
                Ok(Some(heard)) => return Ok(heard),
                Ok(None) => {}
                Err(broken) => return Err(Some(broken)),
            }
            let chunk = source.chunk().await.ok().flatten().ok_or(None)?;
            held.extend_from_slice(&chunk);
        }
    });
    // Silence, also in the middle of the packet, has no answer (section 3.1.4).
    let (hello, length) = match read.await.map_err(|_| None)? {
        Ok(read) => read,
        Err(None) => return Err(None),
        // What begins with another packet is answered by the end alone.
        Err(Some(_)) if held.first() != Some(&0x10) => return Err(None),
        Err(Some(broken)) => {
            let version = guard::version_of(&held);
            let text = format!("fairlead: {broken}");
            return Err(Some(
                answer::connack(version, End::Client(broken).reason(), &text).into(),
            ));
        }
    };
    if hello.authentication {
        let text = "fairlead: no enhanced authentication here: the certificate says who you are";
        return Err(Some(
            answer::connack(hello.version, Code::AuthenticationMethod, text).into(),
        ));
    }
    let packet = held.split_to(length);
    let connect = guard::connect_on(&packet, None).map_err(|_| None)?;
    Ok(Heard {
        hello,
        connect: connect.into(),
        ahead: held,
    })
}

/// Hears a client that gets no session, so as to refuse it in its own version.
pub(super) async fn turn_away(stream: TlsStream<ClientStream>, code: Code, text: &str) {
    let (mut source, mut sink) = relay::split(stream);
    let words = match hear(&mut source).await {
        Ok(heard) => answer::connack(heard.hello.version, code, text).into(),
        Err(Some(words)) => words,
        Err(None) => return,
    };
    say(&mut sink, words).await;
    // Closing while the client still sends would overtake the words with a reset.
    let _heard = timeout(FAREWELL, source.chunk()).await;
}
