//! Routing tokens: how a client that can present no certificate is led to the one endpoint that its person asked for.
//!
//! A token is 128 random bits, good for a minute until its first use, then for ten seconds and only from the address that
//! showed it first: clients connect again while they negotiate. It stands for a caller, what they proved and one endpoint,
//! all of which the door asks about anew at every use. Kept in memory, by its SHA-256, so that neither a look at the table nor the
//! time of a comparison tells a token. Time is the monotonic clock, given by whoever asks.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fairlead_identity::name::EndpointUrl;
use fairlead_wire::refusal::Reason;
use secrecy::SecretString;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use crate::access::{Caller, Denial};

/// From its making to its first use.
pub(super) const VALID_FOR: Duration = Duration::from_secs(60);
/// From its first use on.
const REUSABLE_FOR: Duration = Duration::from_secs(10);
/// A token that has ended is known for so much longer, so that one that comes late is not taken for a guess.
const REMEMBERED_FOR: Duration = Duration::from_secs(600);
/// Tokens known in all. When they are as many, those that have ended go first; then no further one is made.
const TOTAL: usize = 4096;
/// Tokens of one caller that can still be used; then no further one is made for them.
const PER_CALLER: usize = 32;
/// What tokens begin with: they are found by it where they should not be.
const PREFIX: &str = "fl1-";

/// The tokens that were given out.
#[derive(Debug, Default)]
pub(super) struct Routing {
    rows: Mutex<BTreeMap<[u8; 32], Row>>,
}

#[derive(Debug)]
struct Row {
    route: Route,
    first_client: Option<IpAddr>,
    ends: Instant,
}

/// Where a token leads.
#[derive(Clone, Debug)]
pub(super) struct Route {
    /// Who asked for it; their name and what they proved count, the rest is asked anew.
    pub(super) caller: Arc<Caller>,
    /// The endpoint.
    pub(super) endpoint: EndpointUrl,
}

/// There are as many tokens as there may be, of this caller or in all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full;

/// Why a token leads nowhere.
#[derive(Clone, Debug)]
pub(super) enum Stale {
    /// Nobody was given it, or it ended long ago.
    Unknown,
    /// It has ended.
    Expired(Route),
    /// It was shown first from another address.
    Elsewhere(Route),
}

/// Why a routing token opens nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stray {
    /// It leads nowhere, any longer or from there.
    Stale {
        /// Nobody was given it.
        is_guess: bool,
    },
    /// It leads to an endpoint, and the door says no.
    Denied(Denial),
}

/// Why there is no routing token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unrouted {
    /// The caller may not reach the endpoint, or there is none.
    Denied(Denial),
    /// They may, and cannot be led there now, for this reason.
    NotNow(Reason),
}

impl Routing {
    /// A new token.
    ///
    /// # Errors
    /// [`Full`] at a limit.
    pub(super) fn issue(&self, caller: &Caller, endpoint: &EndpointUrl, now: Instant) -> Result<SecretString, Full> {
        let mut rows = self.rows();
        rows.retain(|_, row| now.saturating_duration_since(row.ends) < REMEMBERED_FOR);
        if rows.len() >= TOTAL {
            rows.retain(|_, row| row.is_good(now));
        }
        let id = caller.id();
        let own = rows
            .values()
            .filter(|row| row.is_good(now) && row.route.caller.id() == id);
        if rows.len() >= TOTAL || own.count() >= PER_CALLER {
            return Err(Full);
        }
        let token = fresh();
        let route = Route {
            caller: Arc::new(Caller {
                groups: Vec::new(),
                labels: BTreeMap::new(),
                ssh_keys: Vec::new(),
                ..caller.clone()
            }),
            endpoint: endpoint.clone(),
        };
        let row = Row {
            route,
            first_client: None,
            ends: now + VALID_FOR,
        };
        rows.insert(digest(&token), row);
        Ok(token.into())
    }

    /// Where a token leads that was shown from `client`.
    ///
    /// # Errors
    /// [`Stale`] when it leads nowhere; a token that is shown from elsewhere stays good where it is.
    pub(super) fn follow(&self, token: &str, client: IpAddr, now: Instant) -> Result<Route, Stale> {
        let client = client.to_canonical();
        let mut rows = self.rows();
        let row = rows.get_mut(&digest(token)).ok_or(Stale::Unknown)?;
        if !row.is_good(now) {
            return Err(Stale::Expired(row.route.clone()));
        }
        match row.first_client {
            Some(first) if first != client => return Err(Stale::Elsewhere(row.route.clone())),
            Some(_) => {}
            None => {
                row.first_client = Some(client);
                row.ends = now + REUSABLE_FOR;
            }
        }
        Ok(row.route.clone())
    }

    fn rows(&self) -> MutexGuard<'_, BTreeMap<[u8; 32], Row>> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Row {
    fn is_good(&self, now: Instant) -> bool {
        now < self.ends
    }
}

impl Stale {
    /// The stable name, for the audit.
    pub(super) fn why(&self) -> &'static str {
        match self {
            Self::Unknown => "routing-token-unknown",
            Self::Expired(_) => "routing-token-expired",
            Self::Elsewhere(_) => "routing-token-elsewhere",
        }
    }

    /// Where it would have led.
    pub(super) fn route(&self) -> Option<&Route> {
        match self {
            Self::Unknown => None,
            Self::Expired(route) | Self::Elsewhere(route) => Some(route),
        }
    }
}

/// Whether a text looks like one of these tokens.
pub(super) fn is_token(text: &str) -> bool {
    text.starts_with(PREFIX)
}

fn fresh() -> String {
    let mut token = PREFIX.to_owned();
    for byte in rand::random::<[u8; 16]>() {
        // Writing to a String does not fail.
        let _written = write!(token, "{byte:02x}");
    }
    token
}

fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token).into()
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;
    use crate::access::{CallerKind, Credential};

    fn caller(name: &str) -> Caller {
        Caller {
            name: name.parse().unwrap(),
            kind: CallerKind::User,
            groups: vec!["field".into()],
            labels: BTreeMap::new(),
            site: None,
            by: Credential::Certificate {
                fingerprint: "SHA256:x".into(),
            },
            ssh_keys: vec!["ssh-ed25519 AAAA".into()],
        }
    }

    fn url(text: &str) -> EndpointUrl {
        text.parse().unwrap()
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    const HMI: &str = "rdp://hmi.plant-7.internal";

    #[test]
    fn a_token_leads_to_its_endpoint_within_a_minute_and_not_after_it() {
        let (routing, now) = (Routing::default(), Instant::now());
        for (wait, is_good) in [(0, true), (59, true), (60, false), (61, false), (600, false)] {
            let token = routing.issue(&caller("alice"), &url(HMI), now).unwrap();
            let shown = token.expose_secret();
            assert!(shown.len() == 36 && shown.starts_with("fl1-"), "{shown}");
            let followed = routing.follow(shown, address("192.0.2.1"), now + Duration::from_secs(wait));
            assert_eq!(followed.is_ok(), is_good, "{wait}");
            match followed {
                Ok(route) => {
                    assert_eq!((route.caller.name.as_str(), route.endpoint), ("alice", url(HMI)));
                    assert!(route.caller.groups.is_empty(), "what the store says now is asked anew");
                }
                Err(stale) => assert_eq!(stale.why(), "routing-token-expired"),
            }
        }
    }

    #[test]
    fn the_first_address_may_come_again_for_ten_seconds_and_no_other_may() {
        let (routing, now) = (Routing::default(), Instant::now());
        let token = routing.issue(&caller("alice"), &url(HMI), now).unwrap();
        let follow = |from: &str, seconds: u64| {
            let at = now + Duration::from_secs(seconds);
            let followed = routing.follow(token.expose_secret(), address(from), at);
            followed.map(drop).map_err(|stale| stale.why())
        };
        assert_eq!(follow("192.0.2.1", 30), Ok(()));
        assert_eq!(follow("192.0.2.2", 31), Err("routing-token-elsewhere"));
        assert_eq!(follow("::ffff:192.0.2.1", 39), Ok(()), "one address in two spellings");
        assert_eq!(follow("192.0.2.1", 40), Err("routing-token-expired"));
        assert_eq!(follow("192.0.2.2", 40), Err("routing-token-expired"));
    }

    #[test]
    fn what_nobody_was_given_is_unknown_and_so_is_a_token_that_ended_long_ago() {
        let (routing, now) = (Routing::default(), Instant::now());
        let token = routing.issue(&caller("alice"), &url(HMI), now).unwrap();
        let token = token.expose_secret();
        let follow = |text: &str, at| routing.follow(text, address("192.0.2.1"), at).unwrap_err().why();
        for wrong in ["", "fl1-", &token[..35], &format!("{token}0"), &token.to_uppercase()] {
            assert_eq!(follow(wrong, now), "routing-token-unknown", "{wrong}");
        }
        let long_after = now + VALID_FOR + REMEMBERED_FOR;
        routing.issue(&caller("bob"), &url(HMI), long_after).unwrap();
        assert_eq!(follow(token, long_after), "routing-token-unknown");
        assert_eq!(routing.rows().len(), 1);
    }

    #[test]
    fn the_table_is_bounded_for_one_caller_and_in_all() {
        let (routing, now) = (Routing::default(), Instant::now());
        for _ in 0..PER_CALLER {
            routing.issue(&caller("alice"), &url(HMI), now).unwrap();
        }
        assert_eq!(routing.issue(&caller("alice"), &url(HMI), now).unwrap_err(), Full);
        let mut workload = caller("alice");
        workload.kind = CallerKind::Workload;
        routing.issue(&workload, &url(HMI), now).unwrap();
        let minute_later = now + VALID_FOR;
        routing.issue(&caller("alice"), &url(HMI), minute_later).unwrap();
        let mut number = 0;
        while routing
            .issue(&caller(&format!("u{number}")), &url(HMI), minute_later)
            .is_ok()
        {
            number += 1;
        }
        assert_eq!(routing.rows().len(), TOTAL, "those that had ended made room");
        assert_eq!(number, TOTAL - 1);
    }

    #[test]
    fn a_token_is_nowhere_in_what_is_kept() {
        let routing = Routing::default();
        let token = routing.issue(&caller("alice"), &url(HMI), Instant::now()).unwrap();
        let kept = format!("{routing:?} {token:?}");
        assert!(
            !kept.contains(token.expose_secret()) && !kept.contains("fl1-"),
            "{kept}"
        );
    }
}
