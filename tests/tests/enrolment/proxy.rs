//! A UDP relay between one machine at a time and a gateway, which loses what comes back once a condition holds.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fairlead_runtime::stop::CancellationToken;
use fairlead_runtime::tasks::TaskGroup;
use tokio::net::UdpSocket;

/// Every answer is held this long before the condition is looked at, so that a condition which the gateway brings about
/// before it answers holds by then.
const HOLD: Duration = Duration::from_millis(100);

/// A running relay; ends when dropped.
pub(crate) struct Proxy {
    /// Where machines send.
    pub(crate) port: u16,
    state: Arc<State>,
    _tasks: TaskGroup,
}

#[derive(Default)]
struct State {
    healed: AtomicBool,
    lost: AtomicBool,
}

impl Proxy {
    /// Relays to `gateway` on 127.0.0.1; answers are lost once `losing` holds.
    pub(crate) async fn start(gateway: u16, losing: impl Fn() -> bool + Send + 'static) -> Self {
        let (front, back) = (socket().await, socket().await);
        back.connect((Ipv4Addr::LOCALHOST, gateway)).await.unwrap();
        let port = front.local_addr().unwrap().port();
        let (state, tasks) = (
            Arc::new(State::default()),
            TaskGroup::new("proxy", &CancellationToken::new()),
        );
        let shared = Arc::clone(&state);
        tasks.spawn("proxy", async move { relay(&front, &back, &shared, losing).await });
        Self {
            port,
            state,
            _tasks: tasks,
        }
    }

    /// Whether an answer has been lost.
    pub(crate) fn has_lost_something(&self) -> bool {
        self.state.lost.load(Ordering::Relaxed)
    }

    /// Loses nothing any longer.
    pub(crate) fn heal(&self) {
        self.state.healed.store(true, Ordering::Relaxed);
    }
}

async fn relay(front: &UdpSocket, back: &UdpSocket, state: &State, losing: impl Fn() -> bool) {
    let (mut request, mut answer) = ([0; 2048], [0; 2048]);
    let mut machine: Option<SocketAddr> = None;
    loop {
        tokio::select! {
            received = front.recv_from(&mut request) => if let Ok((length, from)) = received {
                machine = Some(from);
                // A gateway that is not up yet refuses; QUIC sends again.
                drop(back.send(&request[..length]).await);
            },
            received = back.recv(&mut answer) => if let (Ok(length), Some(machine)) = (received, machine) {
                let healed = state.healed.load(Ordering::Relaxed);
                if !healed {
                    tokio::time::sleep(HOLD).await;
                }
                if !healed && losing() {
                    state.lost.store(true, Ordering::Relaxed);
                } else {
                    drop(front.send_to(&answer[..length], machine).await);
                }
            },
        }
    }
}

async fn socket() -> UdpSocket {
    UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap()
}
