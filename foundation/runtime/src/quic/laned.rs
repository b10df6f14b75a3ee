//! quinn's tokio runtime, but for two things. The driver of a connection that is accepted by somebody in a
//! [lane](crate::lane) runs in that lane too, until the pass is released: a handshake's signatures and key exchanges are
//! made in there. And what a driver sends in one turn leaves [together](super::bundle).

use std::future::Future;
use std::io;
use std::net::UdpSocket;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use quinn::{AsyncTimer, AsyncUdpSocket, Runtime, TokioRuntime};

use super::bundle::{Bundled, BundlingSocket};
use crate::lane::Pass;

/// See the module.
#[derive(Debug)]
pub(super) struct LanedRuntime;

impl Runtime for LanedRuntime {
    fn new_timer(&self, at: Instant) -> Pin<Box<dyn AsyncTimer>> {
        TokioRuntime.new_timer(at)
    }

    fn spawn(&self, driver: Pin<Box<dyn Future<Output = ()> + Send>>) {
        let driver = Box::pin(Bundled::new(driver));
        match Pass::current() {
            Some(pass) => TokioRuntime.spawn(Box::pin(pass.run(driver))),
            None => TokioRuntime.spawn(driver),
        }
    }

    fn wrap_udp_socket(&self, socket: UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        Ok(Arc::new(BundlingSocket(TokioRuntime.wrap_udp_socket(socket)?)))
    }

    fn now(&self) -> Instant {
        TokioRuntime.now()
    }
}
