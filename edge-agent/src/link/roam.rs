//! Whether the network of this machine has changed under its links.
//!
//! The kernel tells of every change of an address, a route or an interface (rtnetlink(7)); what it says is not read, only
//! that it says something. The sockets of links are bound to no address, so their packets leave by whatever leads to the
//! gateway now; what a link does on a change is to send one, by which the gateway learns where the agent is. Where the
//! kernel refuses to tell, that happens with the next packet or keep-alive.

use std::io;
use std::os::fd::AsRawFd;
use std::time::Duration;

use nix::libc;
use nix::sys::socket::{AddressFamily, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, socket};
use tokio::net::UnixDatagram;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

/// Changes come in groups: an address goes, its routes go, others come. They are one change when they are this close.
const SETTLES: Duration = Duration::from_millis(150);
/// A network that never settles is looked at this often all the same.
const AT_LATEST: Duration = Duration::from_secs(1);
/// What is read of a message in one go; the rest of it is thrown away.
const MESSAGE: usize = 4096;

/// Counts the changes of this machine's network in `changes`; ends only with its task.
pub async fn watch_network(changes: watch::Sender<u64>) {
    let news = match News::listen() {
        Ok(news) => news,
        Err(error) => {
            tracing::warn!(%error, "changes of the network are noticed late: the kernel does not tell of them");
            return std::future::pending().await;
        }
    };
    loop {
        if let Err(error) = news.next().await {
            tracing::warn!(%error, "changes of the network are noticed late from now on");
            return std::future::pending().await;
        }
        let settled = async { while let Ok(Ok(())) = timeout(SETTLES, news.next()).await {} };
        // Either end of the wait will do.
        let _settled = timeout(AT_LATEST, settled).await;
        changes.send_modify(|count| *count = count.wrapping_add(1));
        // A machine whose routes change all the time shall not keep this one busy.
        sleep(SETTLES).await;
    }
}

/// The kernel's news of the network.
struct News {
    /// A netlink socket. Only `recv` is called on it, which is the same for datagrams of every family.
    socket: UnixDatagram,
}

impl News {
    fn listen() -> io::Result<Self> {
        let groups = libc::RTMGRP_LINK
            | libc::RTMGRP_IPV4_IFADDR
            | libc::RTMGRP_IPV4_ROUTE
            | libc::RTMGRP_IPV6_IFADDR
            | libc::RTMGRP_IPV6_ROUTE;
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let family = AddressFamily::Netlink;
        let socket = socket(family, SockType::Raw, flags, SockProtocol::NetlinkRoute)?;
        bind(
            socket.as_raw_fd(),
            &NetlinkAddr::new(0, u32::try_from(groups).unwrap_or(0)),
        )?;
        Ok(Self {
            socket: UnixDatagram::from_std(socket.into())?,
        })
    }

    /// Waits for one piece of news. Cancel safe.
    async fn next(&self) -> io::Result<()> {
        match self.socket.recv(&mut [0_u8; MESSAGE]).await {
            Ok(_) => Ok(()),
            // There was more than the kernel could keep: something has changed.
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_kernel_lets_an_ordinary_process_listen() {
        let news = News::listen().unwrap();
        assert!(timeout(Duration::from_millis(1), news.next()).await.is_err() || news.next().await.is_ok());
    }
}
