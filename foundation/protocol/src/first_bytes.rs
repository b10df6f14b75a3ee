//! Tells protocols on one TCP port apart by the first bytes a client sends.
//!
//! | bytes (hex; `..` any) | verdict | source |
//! |---|---|---|
//! | `53 53 48 2d` ("SSH-") | [`FirstBytes::Ssh`] | RFC 4253 section 4.2 |
//! | `16 03` | [`FirstBytes::Tls`] | RFC 8446 section 5.1: handshake record, major version 3 |
//! | `03 00` | [`FirstBytes::Rdp`] | RFC 1006 section 6 (TPKT), used by MS-RDPBCGR section 2.2.1.1 |
//! | `00 00 00 08 04 d2 16 2f` | [`FirstBytes::Postgres`] | PostgreSQL "Message Formats": SSLRequest |
//! | `00 00 00 08 04 d2 16 30` | [`FirstBytes::Postgres`] | GSSENCRequest |
//! | `00 00 LL LL 04 d2 16 2e`, length 16 to 268 | [`FirstBytes::Postgres`] | CancelRequest, keys of 4 to 256 bytes |
//! | `00 00 LL LL 00 03 .. ..`, length 9 to 10000 | [`FirstBytes::Postgres`] | StartupMessage, protocol 3 |
//! | a proper beginning of one of these | [`FirstBytes::NeedMore`] | |
//! | anything else | [`FirstBytes::Unknown`] | |
//!
//! No two rows begin alike, so the verdict is final as soon as it is not [`FirstBytes::NeedMore`]: further bytes never
//! change it. The parser of the protocol itself judges the rest; this only chooses the parser.

/// Bytes after which a verdict always stands.
pub const FIRST_BYTES_MAX: usize = 8;

/// The longest startup packet a Postgres server reads (`MAX_STARTUP_PACKET_LENGTH`), in bytes with its length.
const POSTGRES_STARTUP_MAX: u32 = 10_000;

/// Which protocol a client began to speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FirstBytes {
    /// Too few bytes to tell; at most [`FIRST_BYTES_MAX`] are needed.
    NeedMore,
    /// An SSH identification string.
    Ssh,
    /// A TLS handshake record.
    Tls,
    /// A Postgres startup packet: SSLRequest, GSSENCRequest, CancelRequest or StartupMessage.
    Postgres,
    /// A TPKT header, as RDP clients send.
    Rdp,
    /// None of these.
    Unknown,
}

/// Classifies what a client has sent so far. Looks at no more than [`FIRST_BYTES_MAX`] bytes.
#[must_use]
pub fn classify(bytes: &[u8]) -> FirstBytes {
    match bytes.first() {
        None => FirstBytes::NeedMore,
        Some(b'S') => starts(bytes, b"SSH-", FirstBytes::Ssh),
        Some(0x16) => starts(bytes, &[0x16, 0x03], FirstBytes::Tls),
        Some(0x03) => starts(bytes, &[0x03, 0x00], FirstBytes::Rdp),
        Some(0x00) => postgres(bytes),
        Some(_) => FirstBytes::Unknown,
    }
}

fn starts(bytes: &[u8], magic: &[u8], verdict: FirstBytes) -> FirstBytes {
    if bytes.starts_with(magic) {
        verdict
    } else if magic.starts_with(bytes) {
        FirstBytes::NeedMore
    } else {
        FirstBytes::Unknown
    }
}

fn postgres(bytes: &[u8]) -> FirstBytes {
    let Some((length, rest)) = bytes.split_first_chunk::<4>() else {
        // Both high bytes of every permitted length are zero.
        let is_possible = bytes.iter().take(2).all(|&byte| byte == 0);
        return if is_possible {
            FirstBytes::NeedMore
        } else {
            FirstBytes::Unknown
        };
    };
    let length = u32::from_be_bytes(*length);
    if !(8..=POSTGRES_STARTUP_MAX).contains(&length) {
        return FirstBytes::Unknown;
    }
    let Some(&code) = rest.first_chunk::<4>() else {
        return FirstBytes::NeedMore;
    };
    let is_startup = match code {
        // SSLRequest and GSSENCRequest: "12340000 + 5679 or 5680" read as two 16-bit halves.
        [0x04, 0xd2, 0x16, 0x2f | 0x30] => length == 8,
        [0x04, 0xd2, 0x16, 0x2e] => (16..=268).contains(&length),
        // At least the final zero byte follows the version.
        [0x00, 0x03, _, _] => length > 8,
        _ => false,
    };
    if is_startup {
        FirstBytes::Postgres
    } else {
        FirstBytes::Unknown
    }
}

#[cfg(test)]
mod tests {
    use super::FirstBytes::{NeedMore, Postgres, Rdp, Ssh, Tls, Unknown};
    use super::*;

    fn postgres_packet(length: u32, code: u32) -> Vec<u8> {
        [length.to_be_bytes(), code.to_be_bytes()].concat()
    }

    fn openings() -> Vec<(Vec<u8>, FirstBytes, usize)> {
        // Bytes, verdict, and after how many bytes it stands.
        vec![
            (b"SSH-2.0-OpenSSH_9.2p1 Debian\r\n".to_vec(), Ssh, 4),
            (b"SSH-1.99-x\r\n".to_vec(), Ssh, 4),
            (
                vec![0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03],
                Tls,
                2,
            ),
            (vec![0x16, 0x03, 0x03, 0x00, 0x7a, 0x01, 0x00, 0x00, 0x76], Tls, 2),
            (
                vec![0x03, 0x00, 0x00, 0x2f, 0x2a, 0xe0, 0x00, 0x00, 0x00, 0x00, 0x00],
                Rdp,
                2,
            ),
            (postgres_packet(8, 80_877_103), Postgres, 8),
            (postgres_packet(8, 80_877_104), Postgres, 8),
            ([postgres_packet(16, 80_877_102), vec![0; 8]].concat(), Postgres, 8),
            ([postgres_packet(268, 80_877_102), vec![0; 260]].concat(), Postgres, 8),
            (
                [postgres_packet(20, 0x0003_0000), b"user\0bob\0\0".to_vec()].concat(),
                Postgres,
                8,
            ),
            ([postgres_packet(9, 0x0003_0002), vec![0]].concat(), Postgres, 8),
            (postgres_packet(10_000, 0x0003_270f), Postgres, 8),
        ]
    }

    #[test]
    fn each_protocol_is_told_as_soon_as_its_bytes_allow() {
        for (bytes, verdict, enough) in openings() {
            for end in 0..=bytes.len() {
                let expected = if end < enough { NeedMore } else { verdict };
                assert_eq!(classify(&bytes[..end]), expected, "{:02x?}", &bytes[..end]);
            }
        }
    }

    #[test]
    fn other_openings_are_unknown() {
        for bytes in [
            b"GET / HTTP/1.1\r\n".as_slice(),
            b"PRI * HTTP/2.0\r\n",
            b"SSX",
            b"ssh-2.0-x",
            b"S\0",
            &[0x16, 0x02],
            &[0x15, 0x03],
            &[0x80, 0x2e, 0x01, 0x03],
            &[0x03, 0x01],
            &[0x10, 0x26, 0x00, 0x04, b'M', b'Q', b'T', b'T'],
            &[0x00, 0x01],
            &[0x00, 0x00, 0x27, 0x11],
            &[0x00, 0x00, 0x00, 0x07],
            &[0x00; 8],
            &[0xff; 8],
        ] {
            assert_eq!(classify(bytes), Unknown, "{bytes:02x?}");
        }
    }

    #[test]
    fn postgres_packets_with_a_wrong_length_or_version_are_unknown() {
        for (length, code) in [
            (9, 80_877_103),
            (7, 80_877_103),
            (9, 80_877_104),
            (8, 80_877_102),
            (15, 80_877_102),
            (269, 80_877_102),
            (8, 0x0003_0000),
            (10_001, 0x0003_0000),
            (20, 0x0002_0000),
            (20, 0x0004_0000),
            (8, 80_877_105),
        ] {
            assert_eq!(classify(&postgres_packet(length, code)), Unknown, "{length} {code:#x}");
        }
    }

    #[test]
    fn a_verdict_is_final_and_never_needs_more_than_the_maximum() {
        // Every sequence of up to five of the bytes that matter.
        let alphabet = [0x00, 0x01, 0x03, 0x04, 0x08, 0x10, 0x16, 0x27, b'S', b'H', b'-', 0xff];
        let mut level: Vec<Vec<u8>> = vec![Vec::new()];
        for _ in 0..5 {
            level = level
                .iter()
                .flat_map(|prefix| alphabet.map(|byte| [prefix.as_slice(), &[byte]].concat()))
                .collect();
            for bytes in &level {
                let before = classify(&bytes[..bytes.len() - 1]);
                assert!(before == NeedMore || classify(bytes) == before, "{bytes:02x?}");
            }
        }
        for bytes in level {
            let full = [bytes.as_slice(), &[0x03, 0x00, 0x00]].concat();
            assert_ne!(classify(&full), NeedMore, "{full:02x?}");
            let longer = [full.as_slice(), &[0xaa; 5]].concat();
            assert_eq!(classify(&longer), classify(&full), "{full:02x?}");
        }
    }
}
