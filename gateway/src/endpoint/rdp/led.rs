//! An RDP client whom another way in has identified and led to one endpoint: inside a channel of `ssh -L`, or a stream of
//! `fairlead connect`.
//!
//! A token is not needed there. The client's own line of text goes on to the desktop, since a broker may stand there; a token
//! of ours, which has strayed here, does not.

use bytes::Bytes;
use fairlead_runtime::relay::{Sink, Source};

use super::{failure, hello};
use crate::access::Spoken;
use crate::endpoint::ahead::Ahead;
use crate::endpoint::is_token;
use crate::endpoint::led::{Led, Unopened};
use crate::session::Session;

/// Hears the client's Connection Request and opens the session.
pub(in crate::endpoint) async fn open<S: Source, K: Sink>(
    led: Led<'_>,
    source: S,
    mut sink: K,
) -> Result<(Session, Ahead<S>, K), Unopened> {
    let mut source = Ahead::new(source, Bytes::new());
    let Ok(request) = hello::request(&mut source).await else {
        return Err(Unopened::NoStartup);
    };
    let spoken = Spoken {
        tls: led.tls,
        ..Spoken::default()
    };
    let entered = led
        .door
        .enter_as(led.session, led.caller, led.wanted, spoken, led.client);
    match entered.await {
        Ok(session) => {
            let is_ours = request.token().is_some_and(is_token);
            source.put_back(&if is_ours {
                request.without_text()
            } else {
                request.to_bytes()
            });
            Ok((session, source, sink))
        }
        Err(denial) => {
            // The client may have gone, and then nobody needs the reason.
            let _gone = hello::tell(&request, failure(denial.told), &mut sink).await;
            Err(Unopened::Denied(denial))
        }
    }
}
