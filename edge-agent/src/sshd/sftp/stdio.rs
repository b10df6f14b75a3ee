//! The same service in a process of its own, over standard input and output: how files are served as another user.

use std::io::{self, Read, Write};
use std::path::PathBuf;

use bytes::{Bytes, BytesMut};

use super::{HALF, Service, Unframed, cut};

/// Input read at once, in bytes.
const PIECE: usize = 32 * 1024;

/// Serves sftp until `input` ends, with the rights of this process and relative paths from `home`. Blocks.
///
/// # Errors
/// When the client breaks the protocol (`InvalidData`, for the client to read), or input or output fail.
pub fn serve_stdio(home: PathBuf, mut input: impl Read, mut output: impl Write) -> io::Result<()> {
    let unframed = |Unframed(text)| io::Error::new(io::ErrorKind::InvalidData, text.trim_end());
    let mut service = Service::at(home);
    let mut gathered = BytesMut::new();
    let mut piece = vec![0; PIECE];
    loop {
        while let Some(request) = cut(&mut gathered).map_err(unframed)? {
            let reply = Bytes::try_from(service.answer(request)).map_err(io::Error::other)?;
            output.write_all(&reply)?;
            output.flush()?;
        }
        match input.read(&mut piece) {
            Ok(0) if gathered.is_empty() => return Ok(()),
            Ok(0) => return Err(unframed(HALF)),
            Ok(read) => gathered.extend_from_slice(piece.get(..read).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(bytes: &[u8]) -> (io::Result<()>, Vec<u8>) {
        let mut output = Vec::new();
        let ended = serve_stdio("/".into(), bytes, &mut output);
        (ended, output)
    }

    #[test]
    fn a_version_is_answered_and_half_a_request_is_told() {
        let version = [0, 0, 0, 5, 1, 0, 0, 0, 3];
        let (ended, answer) = asked(&version);
        ended.unwrap();
        assert_eq!(answer[4..9], [2, 0, 0, 0, 3]);
        let (ended, answer) = asked(&version[..7]);
        assert_eq!(
            (ended.unwrap_err().kind(), answer.len()),
            (io::ErrorKind::InvalidData, 0)
        );
        let (ended, _) = asked(&[0xff, 0, 0, 0, 1]);
        assert!(ended.unwrap_err().to_string().contains("longer than 256 KiB"));
    }
}
