//! What a client says after its login, followed message by message: how many statements, and their texts where somebody
//! wants them.

use thiserror::Error;

use super::server::HEADER;

/// The client does not speak the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ClientError {
    /// A message says a length that none has.
    #[error("a message of the caller says it is {0} bytes long")]
    Length(u32),
}

/// A message with the text of a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spoken {
    /// Query: run at once; one text may hold several statements.
    Query,
    /// Parse: prepared, to be run later.
    Parse,
}

/// The text of one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// Which message.
    pub spoken: Spoken,
    /// The text; what is no UTF-8 is replaced.
    pub text: String,
    /// Bytes of the message, its length included.
    pub bytes: u32,
    /// Whether the text goes on beyond what is kept.
    pub is_cut: bool,
}

/// Follows a client. It keeps nothing of a message but the beginning of a statement, and that only where texts are wanted.
#[derive(Debug, Default)]
pub struct Client {
    /// The beginning of a message whose header is not whole.
    header: [u8; HEADER],
    held: usize,
    /// Bytes of the message under way that are still to come.
    left: usize,
    statements: u64,
    /// Bytes of a statement's message that are kept; 0: texts are not wanted.
    keep: usize,
    taking: Option<Taking>,
}

#[derive(Debug)]
struct Taking {
    spoken: Spoken,
    length: u32,
    bytes: Vec<u8>,
}

impl Client {
    /// Follows a client from the first message after its StartupMessage; `keep` bytes of each statement's message at most
    /// are kept, none where it is 0.
    #[must_use]
    pub fn new(keep: usize) -> Self {
        Self {
            keep,
            ..Self::default()
        }
    }

    /// How many statements were asked to run: Query, Execute and FunctionCall messages.
    #[must_use]
    pub fn statements(&self) -> u64 {
        self.statements
    }

    /// Follows the next bytes, and gives each statement that ends in them to `heard`.
    ///
    /// # Errors
    /// When the client does not speak the protocol; what follows cannot be told apart.
    pub fn follow(&mut self, mut bytes: &[u8], mut heard: impl FnMut(Statement)) -> Result<(), ClientError> {
        while !bytes.is_empty() {
            if self.left == 0 {
                bytes = self.begin(bytes)?;
            }
            let (body, rest) = bytes.split_at(self.left.min(bytes.len()));
            self.left = self.left.saturating_sub(body.len());
            bytes = rest;
            if let Some(taking) = &mut self.taking {
                let room = self.keep.saturating_sub(taking.bytes.len());
                taking.bytes.extend(body.iter().take(room));
            }
            if self.left == 0
                && self.held == 0
                && let Some(taken) = self.taking.take()
            {
                heard(taken.into_statement());
            }
        }
        Ok(())
    }

    /// Reads a header, or the next part of it; gives what follows.
    fn begin<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], ClientError> {
        let missing = self.header.get_mut(self.held..).unwrap_or_default();
        let (part, rest) = bytes.split_at(missing.len().min(bytes.len()));
        missing.iter_mut().zip(part).for_each(|(to, from)| *to = *from);
        self.held = self.held.saturating_add(part.len());
        if self.held < HEADER {
            return Ok(rest);
        }
        self.held = 0;
        let [kind, a, b, c, d] = self.header;
        let said = u32::from_be_bytes([a, b, c, d]);
        let length = usize::try_from(said).unwrap_or(usize::MAX);
        if !(4..=1 << 30).contains(&length) {
            return Err(ClientError::Length(said));
        }
        self.left = length.saturating_sub(4);
        let spoken = match kind {
            b'Q' => Some(Spoken::Query),
            b'P' => Some(Spoken::Parse),
            _ => None,
        };
        if matches!(kind, b'Q' | b'E' | b'F') {
            self.statements = self.statements.saturating_add(1);
        }
        self.taking = spoken.filter(|_| self.keep > 0).map(|spoken| Taking {
            spoken,
            length: said,
            // By what has come, not by what is said to come.
            bytes: Vec::new(),
        });
        Ok(rest)
    }
}

impl Taking {
    /// A Query is its text; a Parse has a name before it. Each ends in a zero byte.
    fn into_statement(self) -> Statement {
        let mut parts = self.bytes.split(|byte| *byte == 0);
        if self.spoken == Spoken::Parse {
            parts.next();
        }
        let text = parts.next().unwrap_or_default();
        Statement {
            spoken: self.spoken,
            text: String::from_utf8_lossy(text).into_owned(),
            bytes: self.length,
            // A text that ended has its zero byte among what was kept.
            is_cut: parts.next().is_none(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::message_of;
    use super::*;

    fn heard(sent: &[u8], cut: usize, keep: usize) -> (Vec<Statement>, u64) {
        let (mut client, mut statements) = (Client::new(keep), Vec::new());
        for piece in sent.chunks(cut) {
            client.follow(piece, |statement| statements.push(statement)).unwrap();
        }
        (statements, client.statements())
    }

    fn statement(spoken: Spoken, text: &str, bytes: u32, is_cut: bool) -> Statement {
        Statement {
            spoken,
            text: text.into(),
            bytes,
            is_cut,
        }
    }

    #[test]
    fn statements_are_heard_however_the_bytes_are_cut() {
        let sent = [
            message_of(b'p', b"a password"),
            message_of(b'Q', b"select 1; select 2\0"),
            message_of(b'P', b"name\0select $1\0\0\x01\0\0\0\x17"),
            message_of(b'B', &[0; 20]),
            message_of(b'E', b"\0\0\0\0\0"),
            message_of(b'S', b""),
            message_of(b'E', b"\0\0\0\0\0"),
            message_of(b'd', &[b'Q'; 300]),
            message_of(b'Q', b"\0"),
            message_of(b'X', b""),
        ]
        .concat();
        let expected = vec![
            statement(Spoken::Query, "select 1; select 2", 23, false),
            statement(Spoken::Parse, "select $1", 25, false),
            statement(Spoken::Query, "", 5, false),
        ];
        for cut in 1..sent.len() {
            assert_eq!(heard(&sent, cut, 100), (expected.clone(), 4), "cut {cut}");
            assert_eq!(heard(&sent, cut, 0), (Vec::new(), 4), "cut {cut}");
        }
    }

    #[test]
    fn a_long_statement_is_cut_and_says_so() {
        let long = message_of(b'Q', &[[b'x'; 1000].as_slice(), &[0]].concat());
        let cut = statement(Spoken::Query, &"x".repeat(64), 1005, true);
        assert_eq!(heard(&long, 7, 64), (vec![cut], 1));
        let named = message_of(b'P', &[[b'n'; 100].as_slice(), b"\0select 1\0\0\0"].concat());
        assert_eq!(heard(&named, 1000, 64).0, [statement(Spoken::Parse, "", 116, true)]);
    }

    #[test]
    fn a_client_that_lies_about_lengths_ends() {
        for (sent, said) in [(b"Q\0\0\0\x03", 3), (b"Q\xff\xff\xff\xff", u32::MAX)] {
            let told = Client::new(10).follow(sent, |_| panic!());
            assert_eq!(told, Err(ClientError::Length(said)));
        }
    }
}
