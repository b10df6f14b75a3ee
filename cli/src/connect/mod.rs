//! `fairlead connect`: an endpoint on a local port, or on standard input and output, for clients that cannot present a
//! certificate.
//!
//! One conversation with the gateway carries every local connection, each as a session of its own. [`link`] keeps the
//! conversation, [`carry`] moves the bytes of one connection; what a client says is read by the gateway and the agent, never
//! here.

mod carry;
mod link;
mod stdio;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use fairlead_identity::name::EndpointUrl;
use fairlead_runtime::relay;
use fairlead_runtime::stop::{self, CancellationToken, Signal, Signals};
use fairlead_runtime::tasks::TaskGroup;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;

use crate::command::{CommandError, Context, Exit};
use crate::profile::Profile;
use link::{Keeper, Link};

/// Local connections at a time; further ones wait in the listener's queue.
const AT_ONCE: usize = 1024;
/// Lines about connections that wait to be printed.
const NOTES: usize = 256;
/// After the first signal connections have this long to end by themselves.
const DRAIN: Duration = Duration::from_secs(5);
/// What is cut off then has this long to say so to both sides.
const FAREWELL: Duration = Duration::from_secs(1);
/// After a failed accept (no file descriptors left), wait this long before the next.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Arguments of `fairlead connect`.
#[derive(Args, Debug)]
#[command(
    after_help = "Everything that reaches the local port acts as you: keep it on 127.0.0.1.
The way is encrypted, so clients speak plain to the local port (psql: sslmode=disable or prefer).
With --stdio a denial ends the program with 77.

Examples:
  fairlead connect postgres://billing.clinic1 --listen 127.0.0.1:15432
  psql -h 127.0.0.1 -p 15432 -U app billing
  ssh -o ProxyCommand='fairlead connect ssh://pump-7.plant-7 --stdio' pi@pump-7.plant-7.internal"
)]
pub struct Connect {
    /// The endpoint, such as postgres://billing.clinic1.internal
    #[arg(value_name = "URL")]
    url: EndpointUrl,
    /// Where local clients connect; port 0, which is the default, takes a free one
    #[arg(long, value_name = "ADDRESS:PORT", conflicts_with = "stdio")]
    listen: Option<SocketAddr>,
    /// One session on standard input and output, as for the ProxyCommand of ssh
    #[arg(long)]
    stdio: bool,
}

/// Runs the command until it is told to stop, or, with `--stdio`, until its session ends.
///
/// # Errors
/// 69 when the gateway cannot be reached, 77 when it refuses this person, or with `--stdio` the endpoint, 1 otherwise.
pub async fn run(connect: Connect, context: &Context) -> Result<(), CommandError> {
    let signals = stop::signals().map_err(CommandError::failed)?;
    let profile = Profile::locate().map_err(CommandError::failed)?;
    let url = connect.url.to_string();
    // Before the gateway is asked for anything: a port that is taken is the likelier mistake.
    let listener = match (connect.stdio, connect.listen) {
        (true, _) => None,
        (false, listen) => Some(bind(listen.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 0)))).await?),
    };
    let (notes, spoken) = mpsc::channel(NOTES);
    let (keeper, link) = Keeper::begin(profile, notes.clone(), context).await?;
    let stop = CancellationToken::new();
    let ended = match listener {
        None => {
            let session = stdio::run(link.clone(), url, stop.clone());
            tokio::pin!(session);
            tokio::select! {
                ended = &mut session => ended,
                fatal = keeper.run() => Err(fatal),
                () = print_notes(spoken, context) => Ok(()),
                () = told_to_stop(signals) => {
                    stop.cancel();
                    // Whoever waits for a gateway is not waited for.
                    timeout(FAREWELL, session).await.unwrap_or(Ok(()))
                }
            }
        }
        Some(listener) => {
            let listening = Listening {
                listener,
                link: link.clone(),
                url,
                notes,
                stop,
            };
            listening.serve(keeper, spoken, signals, context).await
        }
    };
    link.close().await;
    ended
}

async fn bind(listen: SocketAddr) -> Result<TcpListener, CommandError> {
    TcpListener::bind(listen).await.map_err(|error| {
        let text = format!("cannot listen on {listen}: {error}; choose another port with --listen");
        CommandError::text(Exit::Failed, text)
    })
}

async fn told_to_stop(mut signals: Signals) {
    while signals.next().await != Signal::Stop {}
}

async fn print_notes(mut spoken: mpsc::Receiver<String>, context: &Context) {
    while let Some(line) = spoken.recv().await {
        // Where even standard error is closed, the work goes on.
        let _unsaid = context.note(&line);
    }
}

/// The program with a local port.
struct Listening {
    listener: TcpListener,
    link: Link,
    url: String,
    notes: mpsc::Sender<String>,
    stop: CancellationToken,
}

impl Listening {
    async fn serve(
        self,
        keeper: Keeper,
        spoken: mpsc::Receiver<String>,
        mut signals: Signals,
        context: &Context,
    ) -> Result<(), CommandError> {
        let address = self.listener.local_addr().map_err(CommandError::failed)?;
        if !address.ip().is_loopback() {
            context.note(&format!("whoever reaches {address} acts as you"))?;
        }
        context.print(&format!("{} on {address}", self.url))?;
        let connections = TaskGroup::new("connections", &self.stop);
        let printing = print_notes(spoken, context);
        let keeping = keeper.run();
        tokio::pin!(printing, keeping);
        let stopped = async { while signals.next().await != Signal::Stop {} };
        let ended = tokio::select! {
            () = self.accept(&connections) => Ok(()),
            fatal = &mut keeping => Err(fatal),
            () = &mut printing => Ok(()),
            () = stopped => Ok(()),
        };
        let Self { listener, stop, .. } = self;
        drop(listener);
        if ended.is_ok() && !connections.is_empty() {
            context.note(&format!(
                "{} connections are open; they have 5 s to end, or are cut at a second signal",
                connections.len()
            ))?;
            tokio::select! {
                () = emptied(&connections) => {}
                _ = timeout(DRAIN, told_to_stop(signals)) => {}
                _ = &mut keeping => {}
                () = &mut printing => {}
            }
        }
        stop.cancel();
        connections.stop(FAREWELL).await;
        ended
    }

    /// Takes local connections; does not end.
    async fn accept(&self, connections: &TaskGroup) {
        let room = Arc::new(Semaphore::new(AT_ONCE));
        loop {
            let Ok(place) = Arc::clone(&room).acquire_owned().await else {
                return;
            };
            let (stream, peer) = match self.listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    self.say(format!("cannot accept a connection: {error}")).await;
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let (link, url, notes, stop) = (
                self.link.clone(),
                self.url.clone(),
                self.notes.clone(),
                self.stop.clone(),
            );
            connections.spawn("connection", async move {
                let _place = place;
                if let Err(why) = serve_one(&link, &url, stream, &stop).await {
                    // Who reads the lines has gone: then nobody misses them.
                    let _unsaid = notes.send(format!("{url} for {peer}: {why}")).await;
                }
            });
        }
    }

    async fn say(&self, line: String) {
        let _unsaid = self.notes.send(line).await;
    }
}

/// One local connection from its beginning to its end; an error is what cut it.
async fn serve_one(link: &Link, url: &str, stream: TcpStream, stop: &CancellationToken) -> Result<(), CommandError> {
    // The connection is useless where even that fails.
    relay::prepare(&stream).map_err(CommandError::failed)?;
    let opened = tokio::select! {
        opened = link.open(url) => opened,
        () = stop.cancelled() => return Ok(()),
    };
    let (source, sink) = stream.into_split();
    match opened {
        Ok(opened) => carry::carry(opened, source, sink, stop).await,
        Err(why) => {
            relay::Sink::abort(sink, 0);
            Err(why)
        }
    }
}

async fn emptied(connections: &TaskGroup) {
    while !connections.is_empty() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
