//! What an agent says of its endpoints that is no matter of rights: kept with the link, as its last offer had it.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use fairlead_wire::control::Offer;

/// Endpoints by their canonical URLs; at most as many as an offer has.
#[derive(Debug, Default)]
pub(in crate::link) struct Remarks(Mutex<Said>);

#[derive(Debug, Default)]
struct Said {
    unwell: BTreeSet<String>,
    over_websocket: BTreeSet<String>,
}

impl Remarks {
    /// Takes the place of what was said before.
    pub(in crate::link) fn take(&self, offer: &Offer) {
        let of = |holds: fn(&fairlead_wire::control::OfferedEndpoint) -> bool| {
            let chosen = offer.endpoints.iter().filter(|endpoint| holds(endpoint));
            chosen.map(|endpoint| endpoint.url.clone()).collect()
        };
        let said = Said {
            unwell: of(|endpoint| endpoint.unwell),
            over_websocket: of(|endpoint| endpoint.over_websocket),
        };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = said;
    }

    /// Whether what stands behind the endpoint does not answer.
    pub(super) fn is_unwell(&self, url: &str) -> bool {
        let said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        said.unwell.contains(url)
    }

    /// Whether its sessions are to go over WebSocket.
    pub(super) fn asks_for_websocket(&self, url: &str) -> bool {
        let said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        said.over_websocket.contains(url)
    }
}

#[cfg(test)]
mod tests {
    use fairlead_wire::control::OfferedEndpoint;

    use super::*;

    #[test]
    fn the_last_offer_counts() {
        let remarks = Remarks::default();
        let endpoint = |url: &str, unwell, over_websocket| OfferedEndpoint {
            url: url.into(),
            unwell,
            over_websocket,
            ..OfferedEndpoint::default()
        };
        remarks.take(&Offer {
            endpoints: vec![endpoint("a", true, false), endpoint("b", false, true)],
        });
        assert!(remarks.is_unwell("a") && !remarks.is_unwell("b"));
        assert!(remarks.asks_for_websocket("b") && !remarks.asks_for_websocket("a"));
        remarks.take(&Offer {
            endpoints: vec![endpoint("a", false, false)],
        });
        assert!(!remarks.is_unwell("a") && !remarks.asks_for_websocket("b"));
    }
}
