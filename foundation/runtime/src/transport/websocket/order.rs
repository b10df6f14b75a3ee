//! Text messages on a link's first connection: what the transports at both ends tell each other. Pure.

use std::fmt;

/// Connections asked for at once, at most.
pub(super) const MAX_DIALS: u32 = 64;
/// No order is longer, in bytes.
const MAX_ORDER: usize = 64;

/// An order from the gateway's transport to the agent's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Dial so many further connections; 1 to [`MAX_DIALS`].
    Dial(u32),
    /// The stream on the connection with this number is broken off, for the reason of this number. Its own close frame may
    /// wait behind bytes that nobody reads.
    Cut {
        /// The connection's number.
        stream: u64,
        /// The reason's number.
        code: u32,
    },
}

impl Order {
    /// Reads an order; `None` for one that this build does not know, which is skipped, and for nonsense.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > MAX_ORDER {
            return None;
        }
        let mut words = text.split(' ');
        let order = match words.next()? {
            "dial" => Self::Dial(number(words.next()?)?),
            "cut" => Self::Cut {
                stream: number(words.next()?)?,
                code: number(words.next()?)?,
            },
            _ => return None,
        };
        let sound = !matches!(order, Self::Dial(count) if count == 0 || count > MAX_DIALS);
        (sound && words.next().is_none()).then_some(order)
    }
}

/// Digits alone: no sign, no leading zero.
fn number<T: std::str::FromStr>(word: &str) -> Option<T> {
    let plain = word.bytes().all(|byte| byte.is_ascii_digit()) && (word == "0" || !word.starts_with('0'));
    plain.then(|| word.parse().ok()).flatten()
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dial(count) => write!(f, "dial {count}"),
            Self::Cut { stream, code } => write!(f, "cut {stream} {code}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_read_as_they_are_written() {
        for (order, text) in [
            (Order::Dial(1), "dial 1"),
            (Order::Dial(MAX_DIALS), "dial 64"),
            (Order::Cut { stream: 0, code: 24 }, "cut 0 24"),
            (
                Order::Cut {
                    stream: u64::MAX,
                    code: u32::MAX,
                },
                "cut 18446744073709551615 4294967295",
            ),
        ] {
            assert_eq!(order.to_string(), text);
            assert_eq!(Order::parse(text), Some(order));
        }
    }

    #[test]
    fn nonsense_is_no_order() {
        let long = format!("dial {}", "1".repeat(100));
        for text in [
            "",
            " ",
            "dial",
            "dial ",
            "dial 0",
            "dial 65",
            "dial +1",
            "dial -1",
            "dial 01",
            "dial 1 ",
            "dial 1 2",
            "Dial 1",
            "dial 99999999999",
            "cut 1",
            "cut 1 2 3",
            "cut x 1",
            "cut 1 4294967296",
            "cut  1 2",
            "stop",
            "dial\t1",
            "dial ١",
            &long,
        ] {
            assert_eq!(Order::parse(text), None, "{text:?}");
        }
    }
}
