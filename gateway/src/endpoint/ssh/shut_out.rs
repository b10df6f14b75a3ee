//! The answer to a source that is shut out: one packet that stock clients show to their user, and nothing that costs
//! more than writing it.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::admission::Penalty;
use crate::endpoint::ClientStream;

/// Time for the answer to arrive. The client's bytes are read meanwhile: closing a socket with bytes unread would throw
/// the answer away.
const FAREWELL: Duration = Duration::from_secs(1);
/// Bytes read of a client that goes on talking.
const READ_LIMIT: u64 = 8 * 1024;
/// SSH_MSG_DISCONNECT (RFC 4253 section 11.1).
const MSG_DISCONNECT: u8 = 1;
/// SSH_DISCONNECT_NO_MORE_AUTH_METHODS_AVAILABLE: what a client that used up its attempts is told.
const NO_MORE_AUTH: u32 = 14;

/// Tells the client why and for how long, then closes.
pub(super) async fn tell(mut stream: ClientStream, penalty: Penalty) {
    let farewell = async {
        stream.write_all(&answer(penalty)).await?;
        stream.shutdown().await?;
        tokio::io::copy(&mut stream.take(READ_LIMIT), &mut tokio::io::sink()).await
    };
    // The client may be gone already; there is nobody to tell then.
    drop(timeout(FAREWELL, farewell).await);
}

/// The identification line and a disconnect before any key exchange, unencrypted (RFC 4253 section 6).
fn answer(penalty: Penalty) -> Vec<u8> {
    let seconds = penalty.left.as_secs().saturating_add(1);
    let text = format!("fairlead: too many failed logins from this address; try again in {seconds} s");
    let mut payload = vec![MSG_DISCONNECT];
    payload.extend_from_slice(&NO_MORE_AUTH.to_be_bytes());
    for string in [text.as_str(), "en"] {
        payload.extend_from_slice(&u32::try_from(string.len()).unwrap_or_default().to_be_bytes());
        payload.extend_from_slice(string.as_bytes());
    }
    // Length, padding length, payload and at least four bytes of padding make a multiple of eight.
    let padding = 4 + (8 - (4 + 1 + payload.len() + 4) % 8) % 8;
    let length = u32::try_from(1 + payload.len() + padding).unwrap_or_default();
    let mut bytes = b"SSH-2.0-Fairlead\r\n".to_vec();
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.push(u8::try_from(padding).unwrap_or_default());
    bytes.extend_from_slice(&payload);
    bytes.resize(bytes.len() + padding, 0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_packet_is_whole_whatever_the_length_of_its_text() {
        for seconds in [0, 8, 9, 98, 99, 12_345] {
            let left = Duration::from_secs(seconds);
            let bytes = answer(Penalty { left });
            let packet = bytes.strip_prefix(b"SSH-2.0-Fairlead\r\n").unwrap();
            assert!(packet.len().is_multiple_of(8), "{}", packet.len());
            let length = u32::from_be_bytes(packet[..4].try_into().unwrap());
            assert_eq!(usize::try_from(length).unwrap(), packet.len() - 4);
            assert!(packet[4] >= 4);
            assert_eq!(packet[5], MSG_DISCONNECT);
        }
    }
}
