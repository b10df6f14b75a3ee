//! The relay's own rules, with ends made for the purpose and a clock that stands still.

use super::*;
use std::io::Error;

/// Gives what it was made with, then ends, fails or waits.
struct Scripted {
    chunks: VecDeque<Bytes>,
    then: Then,
    asked: Arc<AtomicU64>,
}

enum Then {
    End,
    Fail,
    Wait,
    Repeat(Duration),
}

impl Scripted {
    fn new(chunks: &[&'static str], then: Then) -> Self {
        let chunks = chunks
            .iter()
            .map(|chunk| Bytes::from_static(chunk.as_bytes()))
            .collect();
        Self {
            chunks,
            then,
            asked: Arc::new(AtomicU64::new(0)),
        }
    }
}

impl Source for Scripted {
    async fn chunk(&mut self) -> Result<Option<Bytes>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        if let Some(chunk) = self.chunks.pop_front() {
            return Ok(Some(chunk));
        }
        match self.then {
            Then::End => Ok(None),
            Then::Fail => Err(Error::from(ErrorKind::ConnectionReset)),
            Then::Wait => pending().await,
            Then::Repeat(pause) => {
                tokio::time::sleep(pause).await;
                Ok(Some(Bytes::from_static(b"tick")))
            }
        }
    }
}

/// What reached a [`Kept`] sink.
#[derive(Debug, Default, PartialEq)]
struct Heard {
    bytes: Vec<u8>,
    finished: bool,
    aborted: bool,
}

#[derive(Default)]
struct Kept {
    heard: Arc<Mutex<Heard>>,
    fails: bool,
    stuck: bool,
}

impl Kept {
    fn heard(&self) -> Arc<Mutex<Heard>> {
        Arc::clone(&self.heard)
    }
}

impl Sink for Kept {
    async fn send(&mut self, bytes: Bytes) -> Result<()> {
        if self.stuck {
            pending::<()>().await;
        }
        if self.fails {
            return Err(Error::from(ErrorKind::BrokenPipe));
        }
        self.heard.lock().unwrap().bytes.extend_from_slice(&bytes);
        Ok(())
    }

    async fn finish(&mut self) -> Result<()> {
        self.heard.lock().unwrap().finished = true;
        Ok(())
    }

    fn abort(self, _code: u32) {
        self.heard.lock().unwrap().aborted = true;
    }
}

fn never() -> impl Future<Output = ()> {
    pending()
}

#[tokio::test(start_paused = true)]
async fn an_answer_on_its_way_is_delivered_after_a_write_failed() {
    let caller = (Scripted::new(&["upload"], Then::Wait), Kept::default());
    let heard = caller.1.heard();
    let upstream = (
        Scripted::new(&["ans", "wer"], Then::End),
        Kept {
            fails: true,
            ..Kept::default()
        },
    );
    let ended = relay(caller, upstream, None, &Counters::new(), never()).await;
    let Ended::Failed(Side::Upstream, error) = ended else {
        panic!("{ended:?}")
    };
    assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    assert_eq!(heard.lock().unwrap().bytes, b"answer");
}

#[tokio::test(start_paused = true)]
async fn the_aftermath_of_a_failed_write_has_a_limit() {
    let caller = (Scripted::new(&["upload"], Then::Wait), Kept::default());
    let upstream = (
        Scripted::new(&[], Then::Repeat(Duration::from_secs(1))),
        Kept {
            fails: true,
            ..Kept::default()
        },
    );
    let start = Instant::now();
    let ended = relay(caller, upstream, None, &Counters::new(), never()).await;
    assert!(matches!(ended, Ended::Failed(Side::Upstream, _)), "{ended:?}");
    assert_eq!(start.elapsed(), AFTERMATH);
}

#[tokio::test(start_paused = true)]
async fn a_failed_read_ends_both_at_once_and_breaks_both_off() {
    let caller = (Scripted::new(&["half"], Then::Fail), Kept::default());
    let upstream = (Scripted::new(&[], Then::Wait), Kept::default());
    let (at_caller, at_upstream) = (caller.1.heard(), upstream.1.heard());
    let ended = relay(caller, upstream, None, &Counters::new(), never()).await;
    assert!(matches!(ended, Ended::Failed(Side::Caller, _)), "{ended:?}");
    assert!(at_caller.lock().unwrap().aborted);
    assert_eq!(
        *at_upstream.lock().unwrap(),
        Heard {
            bytes: b"half".to_vec(),
            finished: false,
            aborted: true
        }
    );
}

#[tokio::test(start_paused = true)]
async fn finished_ends_are_not_broken_off() {
    let caller = (Scripted::new(&["a"], Then::End), Kept::default());
    let upstream = (Scripted::new(&["b"], Then::End), Kept::default());
    let (at_caller, at_upstream) = (caller.1.heard(), upstream.1.heard());
    let ended = relay(caller, upstream, None, &Counters::new(), never()).await;
    assert!(matches!(ended, Ended::Finished), "{ended:?}");
    assert_eq!(
        *at_caller.lock().unwrap(),
        Heard {
            bytes: b"b".to_vec(),
            finished: true,
            aborted: false
        }
    );
    assert_eq!(
        *at_upstream.lock().unwrap(),
        Heard {
            bytes: b"a".to_vec(),
            finished: true,
            aborted: false
        }
    );
}

#[tokio::test(start_paused = true)]
async fn traffic_in_either_direction_keeps_a_session_from_being_idle() {
    let tick = Duration::from_secs(20);
    for up in [true, false] {
        let quiet = || (Scripted::new(&[], Then::Wait), Kept::default());
        let busy = || (Scripted::new(&[], Then::Repeat(tick)), Kept::default());
        let (caller, upstream) = if up { (busy(), quiet()) } else { (quiet(), busy()) };
        let day = tokio::time::sleep(Duration::from_secs(86_400));
        let ended = relay(caller, upstream, Some(Duration::from_secs(30)), &Counters::new(), day).await;
        assert!(matches!(ended, Ended::Lapsed), "{ended:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_idle_limit_counts_from_the_last_byte() {
    let caller = (Scripted::new(&["a"], Then::Wait), Kept::default());
    let upstream = (Scripted::new(&[], Then::Wait), Kept::default());
    let start = Instant::now();
    let ended = relay(
        caller,
        upstream,
        Some(Duration::from_secs(30)),
        &Counters::new(),
        never(),
    )
    .await;
    assert!(matches!(ended, Ended::Idle), "{ended:?}");
    assert_eq!(start.elapsed(), Duration::from_secs(30));
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_is_stuck_is_idle_too_and_its_source_is_not_drained() {
    let source = Scripted::new(&["1", "2", "3"], Then::Wait);
    let asked = Arc::clone(&source.asked);
    let caller = (source, Kept::default());
    let upstream = (
        Scripted::new(&[], Then::Wait),
        Kept {
            stuck: true,
            ..Kept::default()
        },
    );
    let counters = Counters::new();
    let ended = relay(caller, upstream, Some(Duration::from_secs(30)), &counters, never()).await;
    assert!(matches!(ended, Ended::Idle), "{ended:?}");
    assert_eq!((asked.load(Ordering::Relaxed), counters.to_upstream()), (1, 0));
}

/// On the real clock: a clock that stands still moves only when nothing is ready.
#[tokio::test]
async fn endless_traffic_does_not_keep_a_lapse_from_being_seen() {
    let caller = (Scripted::new(&[], Then::Repeat(Duration::ZERO)), Kept::default());
    let upstream = (Scripted::new(&[], Then::Wait), Kept::default());
    let lapse = tokio::time::sleep(Duration::from_millis(5));
    let ended = relay(caller, upstream, None, &Counters::new(), lapse).await;
    assert!(matches!(ended, Ended::Lapsed), "{ended:?}");
}

#[tokio::test]
async fn any_stream_can_be_an_end() {
    let (near, mut client) = duplex(100);
    let (far, mut server) = duplex(100);
    let counters = Counters::new();
    let script = async {
        client.write_all(&pattern(100_000)).await.unwrap();
        client.shutdown().await.unwrap();
        let mut heard = Vec::new();
        client.read_to_end(&mut heard).await.unwrap();
        heard
    };
    let answer = async {
        let mut heard = BytesMut::new();
        while server.read_buf(&mut heard).await.unwrap() > 0 {}
        server.write_all(b"ok").await.unwrap();
        server.shutdown().await.unwrap();
        heard
    };
    let relayed = relay(split(near), split(far), None, &counters, never());
    let (ended, at_client, at_server) = within(async { tokio::join!(relayed, script, answer) }).await;
    assert!(matches!(ended, Ended::Finished), "{ended:?}");
    assert_eq!(at_client, b"ok");
    assert_eq!(at_server, pattern(100_000));
}

#[tokio::test]
async fn an_idle_session_costs_its_future_and_no_buffer() {
    let pair = Pair::new().await;
    let (at_gateway, _at_agent) = pair.stream().await;
    let (_client, caller) = tcp().await;
    let counters = Counters::new();
    let lapse = crate::stop::Lapse::<u32>::new();
    let running = relay(caller, at_gateway, Some(LONG), &counters, lapse.cancelled());
    fn sent_between_threads<F: Future + Send>(future: &F) -> usize {
        size_of_val(future)
    }
    let bytes = sent_between_threads(&running);
    assert!(bytes <= 1_600, "{bytes}");
}
