//! The course of a link over time: one conversation serves; where another transport would do better, a second one comes
//! beside it, takes over once callers can reach the agent on it, and the first one ends when its sessions have.
//!
//! What is better is [`seek`](super::seek)'s to say, what is said on a connection the shell's.

use std::pin::Pin;
use std::sync::Arc;

use fairlead_runtime::transport::Connection;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::watch;

use super::board::Board;
use super::seek::Seeker;
use super::shell::{self, Place};
use super::{Choice, Sessions, Settings, Stop};

/// Conversations at a time: the serving one, and one that comes or finishes.
const CONVERSATIONS: usize = 2;
/// The second conversation's link has a number that is so much higher: to the gateway they are two links.
const SECOND: u32 = 4;

/// What a conversation is to the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// It dials whenever it has no connection.
    Serving,
    /// It has the connection that it was given, and ends with it; it may serve soon.
    Coming,
    /// It takes what the gateway still sends and ends with the last session.
    Leaving,
}

/// How far a conversation has come.
#[derive(Clone, Debug, Default)]
pub(super) struct Progress {
    /// The connection of the moment.
    pub(super) connection: Option<Connection>,
    /// Callers can reach the agent on it.
    pub(super) up: bool,
}

struct Conversation {
    number: u64,
    /// Whether its link has the higher of the two numbers.
    second: bool,
    stage: watch::Sender<Stage>,
    progress: watch::Receiver<Progress>,
}

struct Course {
    settings: Settings,
    sessions: Arc<dyn Sessions>,
    board: Board,
    stop: Stop,
    running: FuturesUnordered<Pin<Box<dyn Future<Output = u64> + Send>>>,
    next: u64,
}

/// Keeps a link to one gateway until `stop`; never ends for a reason of the network.
pub(super) async fn run(settings: Settings, sessions: Arc<dyn Sessions>, board: Board, stop: Stop) {
    let mut seeker = Seeker::new(&settings, board.clone());
    let may_move = settings.ways.choice == Choice::Auto;
    let mut course = Course {
        settings,
        sessions,
        board,
        stop,
        running: FuturesUnordered::new(),
        next: 0,
    };
    let mut serving = course.begin(None, false);
    let mut coming: Option<Conversation> = None;
    loop {
        let seeking = may_move && coming.is_none() && course.running.len() < CONVERSATIONS;
        tokio::select! {
            ended = course.running.next() => {
                if course.running.is_empty() {
                    return;
                }
                if coming.as_ref().is_some_and(|coming| Some(coming.number) == ended) {
                    coming = None;
                }
            }
            () = arrived(coming.as_mut()) => {
                if let Some(newer) = coming.take() {
                    tracing::info!("the link has moved to another transport; sessions on the other one finish there");
                    serving.stage.send_replace(Stage::Leaving);
                    newer.stage.send_replace(Stage::Serving);
                    serving = newer;
                }
            }
            connection = seeker.better(&mut serving.progress), if seeking => {
                coming = Some(course.begin(Some(connection), !serving.second));
            }
        }
    }
}

/// Resolves when callers can reach the agent on the conversation that comes.
async fn arrived(coming: Option<&mut Conversation>) {
    let up = match coming {
        Some(coming) => coming.progress.wait_for(|progress| progress.up).await.is_ok(),
        None => false,
    };
    if !up {
        // The end of one that comes shows among those that run.
        std::future::pending().await
    }
}

impl Course {
    /// Begins a conversation: on a connection that is there, or one that dials.
    fn begin(&mut self, connection: Option<Connection>, second: bool) -> Conversation {
        let first = if connection.is_some() {
            Stage::Coming
        } else {
            Stage::Serving
        };
        let (stage, told) = watch::channel(first);
        let (tell, progress) = watch::channel(Progress::default());
        let place = Place {
            stage: told,
            progress: tell,
            given: connection,
        };
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        let mut settings = self.settings.clone();
        if second {
            settings.introduction.hello.link = settings.introduction.hello.link.saturating_add(SECOND);
        }
        let talking = shell::talk(
            settings,
            Arc::clone(&self.sessions),
            self.board.clone(),
            self.stop.clone(),
            place,
        );
        self.running.push(Box::pin(async move {
            talking.await;
            number
        }));
        Conversation {
            number,
            second,
            stage,
            progress,
        }
    }
}
