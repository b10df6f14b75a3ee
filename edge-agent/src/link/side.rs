//! Side links: beside a link over QUIC one over WebSocket to the same gateway, where an endpoint asks for that transport. The
//! gateway leads the sessions of such endpoints to it, and those of all others to the link itself.
//!
//! A side link outlives the loss of the link it stands beside: its sessions are cut by nothing but their own transport.

use std::net::SocketAddr;
use std::sync::Arc;

use fairlead_runtime::transport::Kind;
use fairlead_wire::check::FIRST_SIDE_LINK;
use fairlead_wire::control::Offer;
use tokio::sync::watch;

use super::board::{Board, Status, StatusSender};
use super::course::{Progress, Stage};
use super::shell::{self, Place};
use super::{Choice, Sessions, Settings, Stop, Ways};

/// Keeps the side link of the link of this number until `stop`, as long as an endpoint asks for one.
pub(super) async fn keep(
    number: u32,
    mut settings: Settings,
    sessions: Arc<dyn Sessions>,
    status: Arc<StatusSender>,
    stop: Stop,
) {
    if settings.ways.choice != Choice::Auto {
        // Either there may be none, or every link is one.
        return;
    }
    let number_of_side = number.saturating_add(FIRST_SIDE_LINK);
    let board = Board::new(Arc::clone(&status), number_of_side);
    let mut links = status.subscribe();
    loop {
        let address = tokio::select! {
            () = stop.cancelled() => return,
            address = asked_for(number, &mut links, &mut settings.offers) => address,
        };
        let mut side = settings.numbered(number_of_side, address);
        // A memory of its own: that this transport works says nothing of the other.
        side.ways = Ways::new(Choice::WebSocket, settings.ways.proxies.clone());
        let (stage, told) = watch::channel(Stage::Serving);
        let place = Place {
            stage: told,
            progress: watch::Sender::new(Progress::default()),
            given: None,
        };
        let talking = shell::talk(side, Arc::clone(&sessions), board.clone(), stop.clone(), place);
        tokio::pin!(talking);
        tokio::select! {
            () = &mut talking => {}
            () = no_longer(number, address, &mut links, &mut settings.offers) => {
                stage.send_replace(Stage::Leaving);
                talking.await;
            }
        }
        board.gone();
        if stop.is_cancelled() {
            return;
        }
    }
}

/// Resolves when a side link is wanted, with where it goes. Cancel safe.
async fn asked_for(
    number: u32,
    links: &mut watch::Receiver<Status>,
    offers: &mut watch::Receiver<Offer>,
) -> SocketAddr {
    loop {
        let asks = asks(&offers.borrow_and_update());
        let link = main_link(number, &links.borrow_and_update());
        if let (true, Some((Kind::Quic, address))) = (asks, link) {
            return address;
        }
        change(links, offers).await;
    }
}

/// Resolves when no endpoint asks any more, or the link goes to another gateway. Cancel safe.
async fn no_longer(
    number: u32,
    address: SocketAddr,
    links: &mut watch::Receiver<Status>,
    offers: &mut watch::Receiver<Offer>,
) {
    loop {
        let asks = asks(&offers.borrow_and_update());
        let link = main_link(number, &links.borrow_and_update());
        if !asks || link.is_some_and(|(_, there)| there != address) {
            return;
        }
        change(links, offers).await;
    }
}

async fn change(links: &mut watch::Receiver<Status>, offers: &mut watch::Receiver<Offer>) {
    tokio::select! {
        Ok(()) = links.changed() => {}
        Ok(()) = offers.changed() => {}
        // Neither changes any more: the agent ends.
        else => std::future::pending().await,
    }
}

fn asks(offer: &Offer) -> bool {
    offer.endpoints.iter().any(|endpoint| endpoint.over_websocket)
}

fn main_link(number: u32, status: &Status) -> Option<(Kind, SocketAddr)> {
    let connection = &status.links.get(&number)?.connection;
    Some((connection.kind(), connection.remote_address()))
}
