//! Live sessions are decided again: when the file is read again, and as time passes where a rule reads it.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use fairlead_runtime::stop::CancellationToken;

use super::Services;
use super::table::{Ending, Live};
use crate::config::Upstream;
use crate::service::{AllowList, Refusal, admit};
use fairlead_wire::refusal::Reason;

/// How often rules that read the time are asked again.
const EVERY: Duration = Duration::from_secs(5);

impl Services {
    /// Puts another file in force and ends the sessions that lost their answer; returns how many.
    pub(crate) fn put_in_force(&self, list: Arc<AllowList>) -> usize {
        *self.list.lock().unwrap_or_else(PoisonError::into_inner) = list;
        self.decide_again()
    }

    /// Asks the file in force about every live session; those that lost their answer end with the reason. Returns how many.
    pub(crate) fn decide_again(&self) -> usize {
        let list = self.list();
        let ended = self.live.list().into_iter().filter(|live| {
            let lost = self.still(&list, live).err();
            lost.is_some_and(|refusal| live.lapse.cancel(Ending::withdrawn(refusal)))
        });
        ended.count()
    }

    /// Whether the file still says what a session was settled by.
    pub(super) fn still(&self, list: &AllowList, live: &Live) -> Result<(), Refusal> {
        let now = self.clock.now();
        let admission = list.admit(&live.asked, now)?;
        for act in live.acts() {
            list.admit_act(&live.asked, act, now)?;
        }
        for act in live.held() {
            list.admit_packet(&live.asked, &act, now)?;
        }
        // One that is not settled yet asks once it is.
        let Some(settled) = live.settled.get() else {
            return Ok(());
        };
        let is_same_login = match (&settled.credential, &admission.credential) {
            (Some(before), Some(after)) => before.is_same_login(after),
            (before, after) => before.is_none() && after.is_none(),
        };
        if !is_same_login {
            return Err(Refusal::new(Reason::Rule, "the file has another login for this user"));
        }
        match (&settled.upstream, &admission.upstream) {
            (before, after) if before == after => Ok(()),
            // Only the ranges were changed: the address it is connected to must lie in the new ones.
            (Upstream::Tcp(before), Upstream::Tcp(after))
                if (&before.host, before.port, &before.tls) == (&after.host, after.port, &after.tls) =>
            {
                let within = |address: &std::net::SocketAddr| {
                    after.literal().is_some() || admit(address.ip(), &after.allow_cidrs, &Default::default()).is_ok()
                };
                if settled.addresses.iter().all(within) {
                    Ok(())
                } else {
                    Err(Refusal::new(
                        Reason::NotListed,
                        "the upstream's address is outside the new allow_cidrs",
                    ))
                }
            }
            _ => Err(Refusal::new(
                Reason::NotListed,
                "the file has another upstream for this endpoint",
            )),
        }
    }
}

/// Every 5 s asks about live sessions again while the file in force has a rule that reads the time. Ends with `stop`.
pub(crate) async fn watch_time(services: Arc<Services>, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        if services.list().reads_time() {
            services.decide_again();
        }
    }
}
