//! Links to every gateway of one authority: the first finds one by whatever is configured, up to three more go to the other
//! addresses, and each serves. All of them speak for one boot of this agent, told apart by their numbers.
//!
//! Each may have a [side link](super::side). The first is never given up. The others follow the [`Plan`]: an address is dialled for as long as names lead to it, and a
//! link that stands is left alone whatever names say. Addresses of both families under one name are one gateway.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::board::{Board, Status, StatusSender};
use super::{Sessions, Settings, Stop, course, side};

/// Links besides the first.
const MORE: usize = 3;
/// Looking up one name.
const LOOKUP_LIMIT: Duration = Duration::from_secs(5);
/// Addresses looked at of one name.
const ADDRESSES_PER_NAME: usize = 8;
/// How often names are asked again while all is well; a machine that saves data asks a sixth as often.
const ASK_EVERY: Duration = Duration::from_secs(600);
/// And while an address that is planned has no link.
const ASK_SOON: Duration = Duration::from_secs(60);

/// Keeps links to the gateways until `stop`; never ends for a reason of the network.
pub async fn run(settings: Settings, sessions: Arc<dyn Sessions>, status: StatusSender, stop: Stop) {
    let status = Arc::new(status);
    let plan = watch::Sender::new(Plan::default());
    let first = Board::new(Arc::clone(&status), 0);
    let first = course::run(settings.clone(), Arc::clone(&sessions), first, stop.clone());
    let more = |number: u32| {
        let board = Board::new(Arc::clone(&status), number);
        keep(
            number,
            settings.clone(),
            Arc::clone(&sessions),
            board,
            plan.subscribe(),
            stop.clone(),
        )
    };
    let beside = |number: u32| {
        side::keep(
            number,
            settings.clone(),
            Arc::clone(&sessions),
            Arc::clone(&status),
            stop.clone(),
        )
    };
    let sides = async { tokio::join!(beside(0), beside(1), beside(2), beside(3)) };
    let planning = async {
        tokio::select! {
            () = stop.cancelled() => {}
            () = make_plans(&settings, status.subscribe(), &plan) => {}
        }
    };
    tokio::join!(first, more(1), more(2), more(3), sides, planning);
}

/// Keeps the link of this number to whatever the plan says.
async fn keep(
    number: u32,
    settings: Settings,
    sessions: Arc<dyn Sessions>,
    board: Board,
    mut plan: watch::Receiver<Plan>,
    stop: Stop,
) {
    loop {
        let planned = plan.borrow_and_update().at(number);
        let Some(address) = planned else {
            tokio::select! {
                () = stop.cancelled() => return,
                changed = plan.changed() => match changed {
                    Ok(()) => continue,
                    Err(_) => return,
                },
            }
        };
        let stop_this = stop.child_token();
        let linking = course::run(
            settings.numbered(number, address),
            Arc::clone(&sessions),
            board.clone(),
            stop_this.clone(),
        );
        let replanned = async {
            // An error means that nobody plans any longer: then this link stays.
            if plan.wait_for(|plan| plan.at(number) != planned).await.is_err() {
                std::future::pending::<()>().await;
            }
            stop_this.cancel();
        };
        tokio::pin!(linking);
        tokio::select! {
            () = &mut linking => {}
            () = replanned => linking.await,
        }
        board.gone();
        if stop.is_cancelled() {
            return;
        }
    }
}

/// Looks up where the gateways are, once there is a first link, and again from time to time.
async fn make_plans(settings: &Settings, mut status: watch::Receiver<Status>, plan: &watch::Sender<Plan>) {
    let mut network = settings.network.clone();
    // A single address has no other to link to.
    if matches!(settings.gateways.as_slice(), [one] if one.parse::<SocketAddr>().is_ok()) {
        return std::future::pending().await;
    }
    loop {
        if status.wait_for(|status| status.up).await.is_err() {
            return std::future::pending().await;
        }
        let found = look_up(&settings.gateways).await;
        let (first, up) = {
            let status = status.borrow_and_update();
            let address = |number| status.links.get(&number).map(|link| link.connection.remote_address());
            (address(0), (1..=3).filter_map(address).collect::<Vec<_>>())
        };
        plan.send_if_modified(|plan| plan.revise(&found, first, &up));
        let all_up = up.len() == plan.borrow().count();
        let pause = match (all_up, settings.data_saver) {
            (true, true) => ASK_EVERY * 6,
            (true, false) => ASK_EVERY,
            (false, _) => ASK_SOON,
        };
        tokio::select! {
            () = sleep(pause) => {}
            Ok(()) = network.changed() => {}
        }
    }
}

/// The addresses of each gateway; none where its name is not answered.
async fn look_up(gateways: &[String]) -> Vec<Vec<SocketAddr>> {
    let mut found = Vec::new();
    for gateway in gateways.iter().take(MORE + 1) {
        let looked = timeout(LOOKUP_LIMIT, tokio::net::lookup_host(gateway.as_str())).await;
        found.push(match looked {
            Ok(Ok(addresses)) => addresses.take(ADDRESSES_PER_NAME).collect(),
            _ => Vec::new(),
        });
    }
    found
}

/// Which address each further link goes to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Plan {
    addresses: [Option<SocketAddr>; MORE],
}

impl Plan {
    /// The address of the link of this number, 1 to 3.
    fn at(&self, number: u32) -> Option<SocketAddr> {
        let index = usize::try_from(number).ok()?.checked_sub(1)?;
        self.addresses.get(index).copied().flatten()
    }

    fn count(&self) -> usize {
        self.addresses.iter().flatten().count()
    }

    /// Takes up what names say, where the first link is, and which of the others stand. True when something has changed.
    fn revise(&mut self, found: &[Vec<SocketAddr>], first: Option<SocketAddr>, up: &[SocketAddr]) -> bool {
        let before = self.clone();
        let wanted: Vec<SocketAddr> = found
            .iter()
            .flat_map(|addresses| one_family(addresses, first))
            .collect();
        for place in &mut self.addresses {
            // Names that are not answered for a while are no reason to cut what stands.
            let stays =
                |address: &SocketAddr| up.contains(address) || (wanted.contains(address) && Some(*address) != first);
            *place = place.filter(stays);
        }
        for address in wanted {
            if Some(address) == first || self.addresses.contains(&Some(address)) {
                continue;
            }
            if let Some(free) = self.addresses.iter_mut().find(|place| place.is_none()) {
                *free = Some(address);
            }
        }
        *self != before
    }
}

/// Of the addresses of one name, those of the family that the first link uses, where it has some.
fn one_family(addresses: &[SocketAddr], first: Option<SocketAddr>) -> Vec<SocketAddr> {
    let same = |address: &&SocketAddr| first.is_none_or(|first| first.is_ipv4() == address.is_ipv4());
    let of_family: Vec<SocketAddr> = addresses.iter().filter(same).copied().collect();
    if of_family.is_empty() {
        addresses.to_vec()
    } else {
        of_family
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn every_other_address_gets_a_link_and_no_more_than_three() {
        let mut plan = Plan::default();
        let found: Vec<Vec<SocketAddr>> = (1..=6)
            .map(|last| vec![SocketAddr::from(([192, 0, 2, last], 443))])
            .collect();
        assert!(plan.revise(&found, Some(at("192.0.2.2:443")), &[]));
        let planned: Vec<_> = (1..=3).filter_map(|number| plan.at(number)).collect();
        assert_eq!(planned, [at("192.0.2.1:443"), at("192.0.2.3:443"), at("192.0.2.4:443")]);
        assert!(
            !plan.revise(&found, Some(at("192.0.2.2:443")), &[]),
            "the same again changes nothing"
        );
    }

    #[test]
    fn a_link_that_stands_is_left_alone_whatever_names_say() {
        let mut plan = Plan::default();
        let (a, b, c) = (at("192.0.2.1:443"), at("192.0.2.2:443"), at("192.0.2.3:443"));
        plan.revise(&[vec![a, b]], Some(a), &[]);
        assert_eq!(plan.at(1), Some(b));
        assert!(!plan.revise(&[Vec::new()], Some(a), &[b]), "no answer");
        assert!(plan.revise(&[vec![a, c]], Some(a), &[b]), "another one came");
        assert_eq!((plan.at(1), plan.at(2)), (Some(b), Some(c)));
        assert!(
            plan.revise(&[vec![a, c]], Some(a), &[c]),
            "the one that is gone has no link"
        );
        assert_eq!((plan.at(1), plan.at(2)), (None, Some(c)));
    }

    #[test]
    fn two_families_of_one_name_are_one_gateway() {
        let mut plan = Plan::default();
        let both = vec![at("[2001:db8::1]:443"), at("192.0.2.1:443")];
        assert!(!plan.revise(std::slice::from_ref(&both), Some(at("[2001:db8::1]:443")), &[]));
        assert!(plan.revise(&[both, vec![at("192.0.2.9:443")]], Some(at("[2001:db8::1]:443")), &[]));
        assert_eq!(plan.at(1), Some(at("192.0.2.9:443")));
    }
}
