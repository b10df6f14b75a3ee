//! With a socket that remembers what it was asked to send and may be full, which no kernel is on demand.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

const SEGMENTS: usize = 64;

/// What one call was given.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Sent {
    to: SocketAddr,
    bytes: Vec<u8>,
    segment: Option<usize>,
}

#[derive(Debug, Default)]
struct Socket {
    sent: Mutex<Vec<Sent>>,
    full: AtomicBool,
    waiting: Mutex<Option<Waker>>,
}

impl Socket {
    fn sent(&self) -> Vec<Sent> {
        self.sent.lock().unwrap().clone()
    }

    fn has_room(&self) {
        self.full.store(false, Ordering::SeqCst);
        if let Some(waker) = self.waiting.lock().unwrap().take() {
            waker.wake();
        }
    }
}

#[derive(Debug)]
struct Poller(Arc<Socket>);

impl UdpPoller for Poller {
    fn poll_writable(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.0.full.load(Ordering::SeqCst) {
            *self.0.waiting.lock().unwrap() = Some(context.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Poller(self))
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        if self.full.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.sent.lock().unwrap().push(Sent {
            to: transmit.destination,
            bytes: transmit.contents.to_vec(),
            segment: transmit.segment_size,
        });
        Ok(())
    }

    fn poll_recv(
        &self,
        _: &mut Context<'_>,
        _: &mut [io::IoSliceMut<'_>],
        _: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        Poll::Pending
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(to(1))
    }

    fn max_transmit_segments(&self) -> usize {
        SEGMENTS
    }
}

fn to(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

/// To which port, what, and the bytes of each datagram.
type Order = (u16, Vec<u8>, Option<usize>);

/// A driver that sends these in each poll, asks for another while there are more, and ends when there are none.
struct Driver {
    socket: Arc<dyn AsyncUdpSocket>,
    polls: VecDeque<Vec<Order>>,
    refused: Arc<Mutex<usize>>,
}

impl Future for Driver {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let Some(transmits) = self.polls.pop_front() else {
            return Poll::Ready(());
        };
        for (port, bytes, segment) in transmits {
            let transmit = Transmit {
                destination: to(port),
                ecn: None,
                contents: &bytes,
                segment_size: segment,
                src_ip: None,
            };
            if self.socket.try_send(&transmit).is_err() {
                *self.refused.lock().unwrap() += 1;
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

/// The socket, the task of a driver of `polls`, and how often it was refused.
fn set(polls: Vec<Vec<Order>>) -> (Arc<Socket>, Bundled, Arc<Mutex<usize>>) {
    let socket = Arc::new(Socket::default());
    let refused = Arc::default();
    let driver = Driver {
        socket: Arc::new(BundlingSocket(Arc::clone(&socket) as Arc<dyn AsyncUdpSocket>)),
        polls: polls.into(),
        refused: Arc::clone(&refused),
    };
    (socket, Bundled::new(Box::pin(driver)), refused)
}

fn ten(byte: u8) -> Order {
    (9, vec![byte; 12_000], Some(1_200))
}

#[tokio::test]
async fn what_a_driver_sends_in_one_turn_leaves_in_one_call_and_in_order() {
    let (socket, task, _) = set(vec![vec![ten(1), ten(2)], vec![ten(3), ten(4)], vec![ten(5)]]);
    task.await;
    let sent = socket.sent();
    let sizes: Vec<_> = sent.iter().map(|sent| (sent.bytes.len(), sent.segment)).collect();
    assert_eq!(sizes, [(48_000, Some(1_200)), (12_000, Some(1_200))]);
    let firsts: Vec<_> = sent[0].bytes.chunks(12_000).map(|ten| ten[0]).collect();
    assert_eq!(firsts, [1, 2, 3, 4]);
}

#[tokio::test]
async fn only_the_last_datagram_of_a_call_is_shorter_and_nothing_else_is_mixed() {
    let one = |port, size| (port, vec![0; size], None);
    let (socket, task, _) = set(vec![vec![
        ten(1),
        one(9, 700),
        ten(2),
        one(9, 1_452),
        one(8, 1_452),
        one(8, 40),
        (9, vec![0; 2_500], Some(1_200)),
        ten(3),
    ]]);
    task.await;
    let shape: Vec<_> = socket
        .sent()
        .iter()
        .map(|sent| (sent.to.port(), sent.bytes.len(), sent.segment))
        .collect();
    assert_eq!(
        shape,
        [
            (9, 12_700, Some(1_200)),
            (9, 12_000, Some(1_200)),
            (9, 1_452, None),
            (8, 1_492, Some(1_452)),
            (9, 2_500, Some(1_200)),
            (9, 12_000, Some(1_200)),
        ]
    );
}

#[tokio::test]
async fn a_bundle_keeps_below_what_one_call_may_carry() {
    let (socket, task, _) = set(vec![
        vec![ten(1); 8],
        vec![ten(2); 8],
        vec![(9, vec![3; 40], Some(1)); 2],
    ]);
    task.await;
    for sent in socket.sent() {
        assert!(sent.bytes.len() <= MAX_BYTES, "{}", sent.bytes.len());
    }
    let sent: usize = socket.sent().iter().map(|sent| sent.bytes.len()).sum();
    assert_eq!(sent, 16 * 12_000 + 80);
}

#[tokio::test]
async fn what_the_kernel_does_not_take_waits_and_leaves_first() {
    let (socket, task, refused) = set(vec![vec![ten(1)], vec![], vec![ten(2); 6], vec![], vec![ten(3)]]);
    socket.full.store(true, Ordering::SeqCst);
    let mut task = std::pin::pin!(task);
    for _ in 0..4 {
        assert!(futures_util::poll!(task.as_mut()).is_pending());
        if *refused.lock().unwrap() > 0 {
            break;
        }
    }
    assert!(
        *refused.lock().unwrap() > 0,
        "quinn is told when more is there than one call carries"
    );
    assert_eq!(socket.sent(), []);
    socket.has_room();
    task.await;
    let firsts: Vec<_> = socket.sent().iter().flat_map(|sent| sent.bytes.clone()).collect();
    assert!(firsts.is_sorted(), "in order");
    assert_eq!(firsts[..12_000], [1; 12_000]);
    assert_eq!(firsts.last(), Some(&3));
}

#[tokio::test]
async fn a_task_whose_driver_has_nothing_more_is_woken_when_the_kernel_takes_what_is_stuck() {
    let socket = Arc::new(Socket::default());
    socket.full.store(true, Ordering::SeqCst);
    let bundling: Arc<dyn AsyncUdpSocket> = Arc::new(BundlingSocket(Arc::clone(&socket) as Arc<dyn AsyncUdpSocket>));
    let mut once = Some(ten(7));
    let driver = std::future::poll_fn(move |_| {
        if let Some((port, contents, segment_size)) = once.take() {
            let transmit = Transmit {
                destination: to(port),
                ecn: None,
                contents: &contents,
                segment_size,
                src_ip: None,
            };
            bundling.try_send(&transmit).unwrap();
        }
        Poll::<()>::Pending
    });
    let mut task = std::pin::pin!(Bundled::new(Box::pin(driver)));
    assert!(futures_util::poll!(task.as_mut()).is_pending());
    assert_eq!(socket.sent(), []);
    let waits = async {
        socket.has_room();
        tokio::task::yield_now().await;
        tokio::task::yield_now().await;
    };
    tokio::select! {
        biased;
        () = task => unreachable!("the driver never ends"),
        () = waits => {}
    }
    assert_eq!(socket.sent().len(), 1);
}

#[test]
fn outside_of_a_driver_nothing_is_gathered() {
    let (socket, task, _) = set(Vec::new());
    drop(task);
    let bundling = BundlingSocket(Arc::clone(&socket) as Arc<dyn AsyncUdpSocket>);
    let transmit = Transmit {
        destination: to(9),
        ecn: None,
        contents: b"reset",
        segment_size: None,
        src_ip: None,
    };
    bundling.try_send(&transmit).unwrap();
    assert_eq!(socket.sent().len(), 1);
}
