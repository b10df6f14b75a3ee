//! Tells one broker: connects, hands over, and says the last word.

use std::collections::{BTreeSet, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use fairlead_runtime::clock::Clock;
use fairlead_runtime::stop::CancellationToken;
use rumqttc::{AsyncClient, ConnectionError, Event, EventLoop, LastWill, MqttOptions, Outgoing, Packet, QoS};
use secrecy::ExposeSecret;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::meters::Meters;
use super::said::Said;
use super::{AgentName, Broker, Fleet, Source};

/// Messages that the broker has not acknowledged.
const HANDED: u16 = 64;
/// Longest message, in bytes.
const MAX_PACKET: usize = 64 * 1024;
/// The broker publishes the will when it has heard nothing for one and a half of these.
const KEEP_ALIVE: Duration = Duration::from_secs(8);
/// Between two attempts to connect: from one to the other.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// Between two looks at the fleet, which cost as much as the fleet is large.
const LOOK: Duration = Duration::from_millis(500);
/// For the last word at the end.
const FAREWELL: Duration = Duration::from_secs(2);

type Polling = Pin<Box<dyn Future<Output = (EventLoop, Result<Event, ConnectionError>)> + Send>>;

/// Tells one broker.
pub struct Teller {
    broker: Broker,
    queue: mpsc::Receiver<Said>,
    fleet: Arc<dyn Fleet>,
    clock: Arc<dyn Clock>,
    meters: Meters,
    connected: bool,
    /// As last looked at.
    online: BTreeSet<AgentName>,
    /// Agents whose state the broker is to be told.
    untold: BTreeSet<AgentName>,
    /// Comes before everything else.
    first: VecDeque<Said>,
    /// Handed over and not acknowledged, in order.
    handed: VecDeque<Said>,
}

impl Teller {
    /// A teller of what `source` gives.
    pub fn new(source: Source, fleet: Arc<dyn Fleet>, clock: Arc<dyn Clock>) -> Self {
        Self {
            broker: source.broker,
            queue: source.queue,
            meters: source.meters,
            fleet,
            clock,
            connected: false,
            online: BTreeSet::new(),
            untold: BTreeSet::new(),
            first: VecDeque::new(),
            handed: VecDeque::new(),
        }
    }

    /// Tells until `stop`, and then that the gateway stops.
    pub async fn run(mut self, stop: CancellationToken) {
        let (client, events) = self.client();
        // Held over the rounds: dropped half-way, the client would lose what it has taken.
        let mut polling = poll(events);
        let mut pause = FIRST_PAUSE;
        let mut changes = self.fleet.changes();
        let mut next_look = Instant::now();
        while !stop.is_cancelled() {
            self.hand_over(&client);
            let may_take = self.connected && self.handed.len() < usize::from(HANDED);
            tokio::select! {
                () = stop.cancelled() => break,
                Some(said) = self.queue.recv(), if may_take => self.first.push_back(said),
                Ok(()) = async { sleep_until(next_look).await; changes.changed().await }, if self.connected => {
                    self.look();
                    next_look = Instant::now() + LOOK;
                }
                (events, polled) = &mut polling => {
                    polling = poll(events);
                    match polled {
                        Ok(event) => if self.heard(&event).await { pause = FIRST_PAUSE; },
                        Err(error) => {
                            self.lost(&error);
                            tokio::select! {
                                () = stop.cancelled() => break,
                                () = sleep(pause) => {}
                            }
                            pause = (pause * 2).min(LONGEST_PAUSE);
                        }
                    }
                }
            }
        }
        if self.connected {
            self.look();
            let _unheard = timeout(FAREWELL, self.part(&client, polling)).await;
        }
    }

    fn client(&self) -> (AsyncClient, EventLoop) {
        let Broker {
            host, port, client_id, ..
        } = &self.broker;
        let mut options = MqttOptions::new(client_id, host, *port);
        options.set_keep_alive(KEEP_ALIVE);
        options.set_max_packet_size(MAX_PACKET, MAX_PACKET);
        options.set_inflight(HANDED);
        options.set_clean_session(true);
        let gone = Said::gone();
        let topic = gone.topic(&self.broker.prefix);
        options.set_last_will(LastWill::new(topic, gone.payload, QoS::AtLeastOnce, true));
        if let Some((user, password)) = &self.broker.login {
            options.set_credentials(user, password.expose_secret());
        }
        AsyncClient::new(options, usize::from(HANDED))
    }

    /// Takes in what the broker says; whether that is a new connection.
    async fn heard(&mut self, event: &Event) -> bool {
        match event {
            Event::Incoming(Packet::ConnAck(_)) => {
                tracing::info!(
                    host = self.broker.host,
                    port = self.broker.port,
                    "events go to the broker"
                );
                self.connected = true;
                self.first.push_front(Said::own("online", self.clock.now()));
                self.online = self.fleet.online();
                self.untold.extend(self.online.iter().cloned());
                // Those that are linked are told even when the store does not answer.
                self.untold.extend(self.fleet.known().await.unwrap_or_default());
                true
            }
            Event::Incoming(Packet::PubAck(_)) => {
                self.handed.pop_front();
                self.meters.told.inc();
                false
            }
            _ => false,
        }
    }

    /// What was handed over and not acknowledged is told again; states are told anew in any case.
    fn lost(&mut self, error: &ConnectionError) {
        if self.connected {
            tracing::warn!(host = self.broker.host, port = self.broker.port, %error, "the broker of events is away");
        } else {
            tracing::debug!(%error, "the broker of events does not answer");
        }
        self.connected = false;
        self.untold.clear();
        let waiting = self.handed.drain(..).chain(self.first.drain(..));
        self.first = waiting.filter(|said| !said.retain).collect();
    }

    /// Looks who has come or gone.
    fn look(&mut self) {
        let online = self.fleet.online();
        self.untold.extend(self.online.symmetric_difference(&online).cloned());
        self.online = online;
    }

    fn next(&mut self) -> Option<Said> {
        if let Some(said) = self.first.pop_front() {
            return Some(said);
        }
        match self.untold.pop_first() {
            Some(agent) => Some(Said::agent(&agent, self.online.contains(&agent), self.clock.now())),
            None => self.queue.try_recv().ok(),
        }
    }

    /// Gives the client what it takes now; whether nothing is left.
    fn hand_over(&mut self, client: &AsyncClient) -> bool {
        while self.connected && self.handed.len() < usize::from(HANDED) {
            let Some(said) = self.next() else { return true };
            let topic = said.topic(&self.broker.prefix);
            if client
                .try_publish(topic, QoS::AtLeastOnce, said.retain, &*said.payload)
                .is_err()
            {
                self.first.push_front(said);
                return false;
            }
            self.handed.push_back(said);
        }
        false
    }

    /// Tells the rest and the last word, and leaves, so that the broker has no need of the will.
    async fn part(&mut self, client: &AsyncClient, mut polling: Polling) {
        let mut has_said_last = false;
        loop {
            if self.hand_over(client) && !has_said_last {
                has_said_last = true;
                self.first.push_back(Said::own("offline", self.clock.now()));
                self.hand_over(client);
            }
            if has_said_last && self.first.is_empty() && self.handed.is_empty() && client.try_disconnect().is_err() {
                return;
            }
            let (events, polled) = polling.await;
            match polled {
                Ok(Event::Outgoing(Outgoing::Disconnect)) | Err(_) => return,
                Ok(event) => drop(self.heard(&event).await),
            }
            polling = poll(events);
        }
    }
}

fn poll(mut events: EventLoop) -> Polling {
    Box::pin(async move {
        let polled = events.poll().await;
        (events, polled)
    })
}
