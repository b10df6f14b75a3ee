//! The functions we add to CEL, and the constants they work on.
//!
//! Patterns and literal address ranges are compiled when the policy is loaded: a bad one is a load error, and an evaluation
//! costs a match, not a compilation. `matches` is ours instead of CEL's for that reason, and because the smaller engine keeps
//! the agent small; its time is linear in the text, its classes are ASCII.

use crate::topics;
use cel_interpreter::common::types::{CelBool, CelString, STRING_TYPE, Type};
use cel_interpreter::common::value::{CowVal, StaticVal, Val};
use cel_interpreter::{Env, ExecutionError};
use ipnet::{IpNet, Ipv4Net};
use regex_lite::{Regex, RegexBuilder};
use std::any::Any;
use std::net::IpAddr;

/// Longest text a pattern is matched on, in bytes; longer is a failed evaluation.
const MAX_MATCHED_BYTES: usize = 8 * 1024;
/// Largest compiled pattern, in bytes. Repetitions multiply: `(a{100}){100}` is refused.
const MAX_PATTERN_BYTES: usize = 64 * 1024;

static PATTERN: Type = Type::new_unspecified_type("fairlead.pattern");
static NETWORK: Type = Type::new_unspecified_type("fairlead.network");

/// A value compiled at load, read by expressions under the name `@0`, `@1`, …, which no author can write.
#[derive(Debug)]
pub(crate) enum Constant {
    Pattern(Pattern),
    Network(Network),
}

impl Constant {
    pub(crate) fn value(&self) -> &(dyn Val + 'static) {
        match self {
            Self::Pattern(pattern) => pattern,
            Self::Network(network) => network,
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Pattern(Regex);

#[derive(Clone, Debug)]
pub(crate) struct Network(IpNet);

/// Compiles a pattern; `Err` says why not.
pub(crate) fn pattern(text: &str) -> Result<Constant, String> {
    let regex = RegexBuilder::new(text).size_limit(MAX_PATTERN_BYTES).build();
    regex
        .map(|r| Constant::Pattern(Pattern(r)))
        .map_err(|error| error.to_string())
}

/// Reads an address range; `Err` says why not.
pub(crate) fn network(text: &str) -> Result<Constant, String> {
    parse_network(text).map(|n| Constant::Network(Network(n)))
}

/// Reads an address, IPv4-mapped IPv6 as IPv4.
pub(crate) fn address(text: &str) -> Result<IpAddr, String> {
    text.parse::<IpAddr>()
        .map(|ip| ip.to_canonical())
        .map_err(|_| format!("`{text}` is not an IP address"))
}

fn parse_network(text: &str) -> Result<IpNet, String> {
    let written: IpNet = text.parse().map_err(|_| match text.parse::<IpAddr>() {
        Ok(ip) => format!(
            "`{text}` lacks the prefix length: write `{ip}/{}`",
            if ip.is_ipv4() { 32 } else { 128 }
        ),
        Err(_) => format!("`{text}` is not an address range such as `10.0.0.0/8` or `2001:db8::/32`"),
    })?;
    let IpNet::V6(six) = written else { return Ok(written) };
    // One spelling of one range: addresses are compared in canonical form too.
    let mapped = six.addr().to_ipv4_mapped().zip(six.prefix_len().checked_sub(96));
    Ok(mapped
        .and_then(|(ip, prefix)| Ipv4Net::new(ip, prefix).ok())
        .map_or(written, IpNet::V4))
}

/// Adds our functions to CEL's.
pub(crate) fn register(env: &mut Env) {
    // The names and signatures below are declared once, here; a clash could only come from a new version of CEL's library,
    // and then the tests of this file fail.
    let _ = env.add_member_overload(
        "matches",
        "text_matches",
        STRING_TYPE,
        vec![PATTERN.to_owned()],
        matches,
    );
    let _ = env.add_overload(
        "matches",
        "matches_text",
        vec![STRING_TYPE, PATTERN.to_owned()],
        matches,
    );
    let _ = env.add_overload(
        "inCidrRange",
        "in_range",
        vec![STRING_TYPE, NETWORK.to_owned()],
        in_range,
    );
    let _ = env.add_overload("inCidrRange", "in_text_range", vec![STRING_TYPE, STRING_TYPE], in_range);
    let two = || vec![STRING_TYPE, STRING_TYPE];
    let _ = env.add_overload("inTopicFilter", "in_filter", two(), in_filter);
    let _ = env.add_overload("touchesTopicFilter", "touches_filter", two(), touches_filter);
}

fn in_filter<'b, 'v>(arguments: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    compared("inTopicFilter", &arguments, topics::holds)
}

fn touches_filter<'b, 'v>(arguments: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    compared("touchesTopicFilter", &arguments, topics::touches)
}

fn compared<'b, 'v>(
    function: &str,
    arguments: &[CowVal<'b, 'v>],
    how: fn(&str, &str) -> bool,
) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let fail = |why: String| ExecutionError::function_error(function, why);
    let [topic, filter] = arguments else {
        return Err(fail("takes two arguments".to_owned()));
    };
    let text = |value: &CowVal<'b, 'v>| value.downcast_ref::<CelString<'_>>().map(|s| s.inner().to_owned());
    let (topic, filter) = (text(topic).unwrap_or_default(), text(filter).unwrap_or_default());
    topics::filter(&filter).map_err(fail)?;
    topics::filter(&topic).map_err(fail)?;
    Ok(CowVal::owned(CelBool::from(how(&filter, &topic))))
}

fn matches<'b, 'v>(arguments: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let fail = |why: &str| ExecutionError::function_error("matches", why);
    let [text, pattern] = arguments.as_slice() else {
        return Err(fail("takes two arguments"));
    };
    let text = text
        .downcast_ref::<CelString<'_>>()
        .ok_or_else(|| fail("works on text"))?
        .inner();
    let pattern = pattern
        .downcast_ref::<Pattern>()
        .ok_or_else(|| fail("takes a pattern"))?;
    if text.len() > MAX_MATCHED_BYTES {
        return Err(fail("the text is too long"));
    }
    Ok(CowVal::owned(CelBool::from(pattern.0.is_match(text))))
}

fn in_range<'b, 'v>(arguments: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let fail = |why: String| ExecutionError::function_error("inCidrRange", why);
    let text = |value: &CowVal<'b, 'v>| value.downcast_ref::<CelString<'_>>().map(|s| s.inner().to_owned());
    let [ip, range] = arguments.as_slice() else {
        return Err(fail("takes two arguments".to_owned()));
    };
    let ip = address(&text(ip).unwrap_or_default()).map_err(fail)?;
    let inside = match range.downcast_ref::<Network>() {
        Some(network) => network.0.contains(&ip),
        None => parse_network(&text(range).unwrap_or_default())
            .map_err(fail)?
            .contains(&ip),
    };
    Ok(CowVal::owned(CelBool::from(inside)))
}

impl Val for Pattern {
    fn get_type(&self) -> &Type {
        &PATTERN
    }

    fn cel_type() -> &'static Type {
        &PATTERN
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v> {
        Box::new(self.clone())
    }

    fn as_any(&self) -> Option<&dyn Any> {
        Some(self)
    }
}

impl StaticVal for Pattern {}

impl Val for Network {
    fn get_type(&self) -> &Type {
        &NETWORK
    }

    fn cel_type() -> &'static Type {
        &NETWORK
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v> {
        Box::new(self.clone())
    }

    fn as_any(&self) -> Option<&dyn Any> {
        Some(self)
    }
}

impl StaticVal for Network {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_have_one_spelling() {
        let range = |text| parse_network(text).unwrap().trunc().to_string();
        assert_eq!(range("10.1.2.3/8"), "10.0.0.0/8");
        assert_eq!(range("::ffff:10.0.0.0/104"), "10.0.0.0/8");
        assert_eq!(range("2001:db8::/32"), "2001:db8::/32");
        for bad in [
            "10.0.0.0/33",
            "10.0.0/8",
            "2001:db8::/129",
            "fe80::1%eth0/64",
            "",
            "0x0a.0.0.0/8",
            "10.0.0.1",
        ] {
            assert!(parse_network(bad).is_err(), "{bad}");
        }
        assert!(parse_network("10.0.0.1").unwrap_err().contains("10.0.0.1/32"));
    }

    #[test]
    fn patterns_are_bounded() {
        assert!(pattern("^[a-z]+-[0-9]{1,4}$").is_ok());
        for bad in ["(", "a{1000}{1000}", "(?=x)", "(a{200}){200}"] {
            assert!(pattern(bad).is_err(), "{bad}");
        }
    }
}
