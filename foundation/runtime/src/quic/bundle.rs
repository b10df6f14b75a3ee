//! Datagrams of one turn leave with one system call.
//!
//! quinn hands the kernel ten datagrams at a time (UDP generic segmentation offload), a constant of the library, and on bulk
//! the call is what costs most: 40 at a time take a fifth less of the processor (docs/benchmarks.md). So while a driver is
//! polled, what it sends to one address is gathered here and leaves when the poll is over; a driver that has more to send is
//! polled again first. Nothing waits longer than that, and how much may be on its way is decided before, by quinn's pacer and
//! the congestion window.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use quinn::udp::{EcnCodepoint, RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};

/// Bytes of one bundle: what a UDP send may carry in all (65,507, the header of IPv4 not counted) in whole datagrams.
const MAX_BYTES: usize = 64_000;
/// How often a driver that has more to send is polled before its bundle leaves; each poll gives 20 datagrams at most.
const POLLS: usize = 2;

thread_local! {
    /// What the driver that is being polled on this thread has sent so far; `None` while none is.
    static BUNDLE: RefCell<Option<Bundle>> = const { RefCell::new(None) };
    /// The buffer of the last bundle, for the next.
    static SPARE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Where datagrams of one bundle go, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Header {
    destination: SocketAddr,
    source: Option<IpAddr>,
    ecn: Option<EcnCodepoint>,
    /// Bytes of each datagram; only the last may be shorter.
    size: usize,
}

/// Datagrams that one call sends.
#[derive(Debug)]
struct Bundle {
    bytes: Vec<u8>,
    sent_by: Option<(Arc<dyn AsyncUdpSocket>, Header)>,
}

impl Bundle {
    fn empty() -> Self {
        Self {
            bytes: SPARE.take(),
            sent_by: None,
        }
    }

    /// Whether `transmit` can follow what is there: same way, same size, no shorter datagram before it, and room.
    fn takes(&self, socket: &Arc<dyn AsyncUdpSocket>, transmit: &Transmit<'_>) -> bool {
        let Some((own, header)) = &self.sent_by else {
            return true;
        };
        let same_size = match transmit.segment_size {
            Some(size) => size == header.size,
            None => transmit.contents.len() <= header.size,
        };
        let bytes = self.bytes.len().saturating_add(transmit.contents.len());
        Arc::ptr_eq(own, socket)
            && same_size
            && Header::of(transmit, header.size) == *header
            && self.bytes.len().is_multiple_of(header.size)
            && bytes <= MAX_BYTES
            && bytes.div_ceil(header.size) <= socket.max_transmit_segments()
    }

    fn put(&mut self, socket: &Arc<dyn AsyncUdpSocket>, transmit: &Transmit<'_>) {
        self.sent_by.get_or_insert_with(|| {
            let size = transmit.segment_size.unwrap_or(transmit.contents.len()).max(1);
            (Arc::clone(socket), Header::of(transmit, size))
        });
        self.bytes.extend_from_slice(transmit.contents);
    }

    /// Sends what is there. When the kernel takes nothing now it stays.
    fn send(&mut self) -> io::Result<()> {
        let Some((socket, header)) = &self.sent_by else {
            return Ok(());
        };
        socket.try_send(&Transmit {
            destination: header.destination,
            ecn: header.ecn,
            contents: &self.bytes,
            segment_size: (self.bytes.len() > header.size).then_some(header.size),
            src_ip: header.source,
        })?;
        self.bytes.clear();
        self.sent_by = None;
        Ok(())
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        self.bytes.clear();
        SPARE.set(std::mem::take(&mut self.bytes));
    }
}

impl Header {
    fn of(transmit: &Transmit<'_>, size: usize) -> Self {
        Self {
            destination: transmit.destination,
            source: transmit.src_ip,
            ecn: transmit.ecn,
            size,
        }
    }
}

/// A socket that gathers what the driver sends which is being polled.
#[derive(Debug)]
pub(super) struct BundlingSocket(pub(super) Arc<dyn AsyncUdpSocket>);

impl AsyncUdpSocket for BundlingSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.0).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        BUNDLE.with_borrow_mut(|bundle| match bundle {
            Some(bundle) if self.0.max_transmit_segments() > 1 => {
                if !bundle.takes(&self.0, transmit) {
                    bundle.send()?;
                }
                bundle.put(&self.0, transmit);
                Ok(())
            }
            _ => self.0.try_send(transmit),
        })
    }

    fn poll_recv(
        &self,
        context: &mut Context<'_>,
        buffers: &mut [io::IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.0.poll_recv(context, buffers, meta)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.0.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.0.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.0.may_fragment()
    }
}

/// A driver of quinn's whose datagrams leave together.
pub(super) struct Bundled {
    driver: Pin<Box<dyn Future<Output = ()> + Send>>,
    alarm: Arc<Alarm>,
    /// Wakes through `alarm`.
    waker: Waker,
    stuck: Option<Stuck>,
}

/// What the kernel did not take, and how to hear that it does.
struct Stuck {
    bundle: Bundle,
    _poller: Pin<Box<dyn UdpPoller>>,
}

impl Bundled {
    pub(super) fn new(driver: Pin<Box<dyn Future<Output = ()> + Send>>) -> Self {
        let alarm = Arc::new(Alarm::default());
        Self {
            driver,
            waker: Waker::from(Arc::clone(&alarm)),
            alarm,
            stuck: None,
        }
    }

    /// Sends what was gathered, or keeps it until the kernel takes more and asks to be woken then.
    fn send(&mut self, mut bundle: Bundle, context: &mut Context<'_>) {
        loop {
            match bundle.send() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // Sent; or lost, as quinn takes it where a path has gone: the peer's silence is noticed above.
                _ => return,
            }
            let Some((socket, _)) = &bundle.sent_by else { return };
            let mut poller = Arc::clone(socket).create_io_poller();
            match poller.as_mut().poll_writable(context) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return,
                Poll::Pending => {
                    self.stuck = Some(Stuck {
                        bundle,
                        _poller: poller,
                    });
                    return;
                }
            }
        }
    }
}

impl Future for Bundled {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        this.alarm.begin(context.waker());
        // Its poller goes: what is still stuck after this poll gets a new one.
        let left = this.stuck.take().map(|stuck| stuck.bundle);
        let gathering = Gathering::begin(left.unwrap_or_else(Bundle::empty));
        let mut again = POLLS;
        let polled = loop {
            let polled = this.driver.as_mut().poll(&mut Context::from_waker(&this.waker));
            again = again.saturating_sub(1);
            if again == 0 || polled.is_ready() || !this.alarm.take() {
                break polled;
            }
        };
        this.send(gathering.end(), context);
        this.alarm.end();
        polled
    }
}

/// From here on what is sent on this thread is gathered, until the end or until this is dropped in a panic.
struct Gathering;

impl Gathering {
    fn begin(bundle: Bundle) -> Self {
        BUNDLE.set(Some(bundle));
        Self
    }

    fn end(self) -> Bundle {
        BUNDLE.take().unwrap_or_else(Bundle::empty)
    }
}

impl Drop for Gathering {
    fn drop(&mut self) {
        drop(BUNDLE.take());
    }
}

/// The waker of a driver: says whether the driver asks for another poll in the middle of one.
#[derive(Debug, Default)]
struct Alarm(Mutex<AlarmState>);

#[derive(Debug, Default)]
struct AlarmState {
    /// Of the task; gone once it was woken, until it polls.
    task: Option<Waker>,
    polling: bool,
    rung: bool,
}

impl Alarm {
    fn begin(&self, task: &Waker) {
        let mut state = self.state();
        match &mut state.task {
            Some(own) => own.clone_from(task),
            none => *none = Some(task.clone()),
        }
        state.polling = true;
        state.rung = false;
    }

    /// Whether it was rung since the last look.
    fn take(&self) -> bool {
        std::mem::take(&mut self.state().rung)
    }

    /// Wakes the task, at the end of the poll if there is one.
    fn ring(&self) {
        let mut state = self.state();
        state.rung = true;
        let task = if state.polling { None } else { state.task.take() };
        drop(state);
        if let Some(task) = task {
            task.wake();
        }
    }

    fn end(&self) {
        let mut state = self.state();
        state.polling = false;
        let task = if state.rung { state.task.take() } else { None };
        drop(state);
        if let Some(task) = task {
            task.wake();
        }
    }

    fn state(&self) -> MutexGuard<'_, AlarmState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.ring();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ring();
    }
}

#[cfg(test)]
mod tests;
