//! The tests that fields are put to, each naming message and field in its error.

use std::collections::BTreeMap;

use super::{CheckError, MAX_NAME_BYTES, MAX_REPORTED, MAX_REPORTED_BYTES, MAX_REQUIRES, Problem};

/// Checks the fields of one message, and names message and field in its errors.
pub(crate) struct Checker {
    message: &'static str,
}

impl Checker {
    pub(crate) const fn of(message: &'static str) -> Self {
        Self { message }
    }

    pub(crate) const fn error(&self, field: &'static str, problem: Problem) -> CheckError {
        CheckError {
            message: self.message,
            field,
            problem,
        }
    }

    pub(crate) fn present(&self, field: &'static str, is_present: bool) -> Result<(), CheckError> {
        if is_present {
            Ok(())
        } else {
            Err(self.error(field, Problem::Missing))
        }
    }

    pub(crate) fn holds(&self, field: &'static str, holds: bool, expected: &'static str) -> Result<(), CheckError> {
        if holds {
            Ok(())
        } else {
            Err(self.error(field, Problem::Value { expected }))
        }
    }

    /// Text that may be empty.
    pub(crate) fn text(&self, field: &'static str, text: &str, max: usize) -> Result<(), CheckError> {
        self.length(field, text.len(), max)?;
        if text.chars().any(char::is_control) {
            return Err(self.error(field, Problem::ControlCharacter));
        }
        Ok(())
    }

    /// Text that may not be empty.
    pub(crate) fn full_text(&self, field: &'static str, text: &str, max: usize) -> Result<(), CheckError> {
        self.present(field, !text.is_empty())?;
        self.text(field, text, max)
    }

    /// A list of texts, none of them empty.
    pub(crate) fn texts(
        &self,
        field: &'static str,
        list: &[String],
        max_entries: usize,
        max_bytes: usize,
    ) -> Result<(), CheckError> {
        self.count(field, list.len(), max_entries)?;
        list.iter().try_for_each(|text| self.full_text(field, text, max_bytes))
    }

    /// A map from names to texts that may be empty.
    pub(crate) fn map(
        &self,
        field: &'static str,
        map: &BTreeMap<String, String>,
        max_entries: usize,
        max_value_bytes: usize,
    ) -> Result<(), CheckError> {
        self.count(field, map.len(), max_entries)?;
        map.iter().try_for_each(|(key, value)| {
            self.full_text(field, key, MAX_NAME_BYTES)?;
            self.text(field, value, max_value_bytes)
        })
    }

    pub(crate) fn requires(&self, list: &[String]) -> Result<(), CheckError> {
        self.texts("requires", list, MAX_REQUIRES, MAX_NAME_BYTES)
    }

    pub(crate) fn reported(&self, map: &BTreeMap<String, String>) -> Result<(), CheckError> {
        self.map("reported", map, MAX_REPORTED, MAX_REPORTED_BYTES)
    }

    pub(crate) fn versions(&self, min: u32, max: u32) -> Result<(), CheckError> {
        self.present("version_min", min != 0)?;
        self.holds("version_max", max >= min, "at least version_min")
    }

    /// Bytes that may not be none.
    pub(crate) fn bytes(&self, field: &'static str, bytes: &[u8], max: usize) -> Result<(), CheckError> {
        self.present(field, !bytes.is_empty())?;
        self.length(field, bytes.len(), max)
    }

    pub(crate) fn exactly(&self, field: &'static str, bytes: &[u8], expected: usize) -> Result<(), CheckError> {
        if bytes.len() == expected {
            return Ok(());
        }
        Err(self.error(
            field,
            Problem::WrongLength {
                bytes: bytes.len(),
                expected,
            },
        ))
    }

    pub(crate) fn count(&self, field: &'static str, count: usize, max: usize) -> Result<(), CheckError> {
        if count <= max {
            Ok(())
        } else {
            Err(self.error(field, Problem::TooMany { count, max }))
        }
    }

    /// A certificate chain: at least one certificate, each bounded.
    pub(crate) fn chain(&self, chain: &[Vec<u8>]) -> Result<(), CheckError> {
        const FIELD: &str = "certificate_chain";
        self.present(FIELD, !chain.is_empty())?;
        self.certificates(FIELD, chain, super::MAX_CHAIN)
    }

    /// Certificates that may be none, each bounded.
    pub(crate) fn certificates(&self, field: &'static str, list: &[Vec<u8>], max: usize) -> Result<(), CheckError> {
        self.count(field, list.len(), max)?;
        list.iter()
            .try_for_each(|certificate| self.bytes(field, certificate, super::MAX_CERTIFICATE_BYTES))
    }

    /// SHA-256 digests that may be none.
    pub(crate) fn digests(&self, field: &'static str, list: &[Vec<u8>], max: usize) -> Result<(), CheckError> {
        self.count(field, list.len(), max)?;
        list.iter()
            .try_for_each(|digest| self.exactly(field, digest, super::DIGEST_BYTES))
    }

    fn length(&self, field: &'static str, bytes: usize, max: usize) -> Result<(), CheckError> {
        if bytes <= max {
            Ok(())
        } else {
            Err(self.error(field, Problem::TooLong { bytes, max }))
        }
    }
}
