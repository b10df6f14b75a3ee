//! Numbers of reasons as close codes (RFC 6455 section 7.4.2: 4000 to 4999 are for private use).

/// What a close frame means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// This stream is broken off, for the reason of this number.
    Abandoned(u32),
    /// The whole connection ends, for the reason of this number.
    Closed(u32),
    /// None of ours: the framing was broken, or something in between speaks.
    Foreign(u16),
}

const ABANDONED: u16 = 4000;
const CLOSED: u16 = 4500;
const END: u16 = 5000;

/// The code of a meaning; a number above 499 cannot be said and goes as 0.
pub(super) fn of(meaning: Meaning) -> u16 {
    let within = |code: u32| u16::try_from(code).ok().filter(|code| *code < CLOSED - ABANDONED);
    match meaning {
        Meaning::Abandoned(code) => ABANDONED.saturating_add(within(code).unwrap_or(0)),
        Meaning::Closed(code) => CLOSED.saturating_add(within(code).unwrap_or(0)),
        Meaning::Foreign(code) => code,
    }
}

/// The meaning of a code.
pub(super) fn meaning(code: u16) -> Meaning {
    match code {
        ABANDONED..CLOSED => Meaning::Abandoned(u32::from(code.saturating_sub(ABANDONED))),
        CLOSED..END => Meaning::Closed(u32::from(code.saturating_sub(CLOSED))),
        code => Meaning::Foreign(code),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_one_meaning_and_every_meaning_its_code() {
        for code in 0..=u16::MAX {
            assert_eq!(of(meaning(code)), code);
        }
        assert_eq!(of(Meaning::Abandoned(24)), 4024);
        assert_eq!(of(Meaning::Closed(11)), 4511);
        assert_eq!(of(Meaning::Abandoned(500)), 4000);
        assert_eq!(of(Meaning::Closed(u32::MAX)), 4500);
    }
}
