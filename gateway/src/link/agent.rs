//! One agent's link from its Hello to its end.

use std::net::IpAddr;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use fairlead_identity::verify::Authenticated;
use fairlead_runtime::frame;
use fairlead_runtime::relay::Sink;
use fairlead_runtime::transport::{Connection, Receiver, Sender};
use fairlead_wire::codec::{self, MAX_CONTROL_FRAME};
use fairlead_wire::control::{Authority, Body, Control, HostKeyReport, Offer, Refused};
use fairlead_wire::refusal::Reason;
use tokio::io::AsyncWriteExt;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::timeout;

use super::accept::Links;
use super::roster::{Link, Remarks, Turned};
use super::state::{Action, LinkState};

/// The control stream and Hello must come this soon after the handshake.
const HELLO_LIMIT: Duration = Duration::from_secs(10);
/// Frames waiting for an agent that does not read; one more ends the link.
const OUTBOX: usize = 32;
/// Requests of one agent that wait for the store; one more ends the link.
const REQUESTS: usize = 16;
/// How long an agent that ended its control stream may take to close the connection.
const FAREWELL: Duration = Duration::from_secs(1);
/// A frame must leave within this, or the agent counts as gone.
const WRITE_LIMIT: Duration = Duration::from_secs(10);

/// What the operator of a machine reads whose identity another one has. At most 512 bytes.
const IN_CONFLICT: &str = "another machine with this agent's identity is online and keeps serving. If this one is a copy: \
    delete its state directory and enrol it under a name of its own. If this one is the right one: have `fairlead token \
    create --agent NAME --replace` run at the gateway and enrol this machine with that join string, which shuts the other out";

/// Why a link ended, in the operator's words.
type Ended = Result<(), (Reason, String)>;

/// Serves a connection whose certificate named an agent.
pub(super) async fn serve(shared: &Links, connection: Connection, who: Authenticated) {
    let client = connection.remote_address().ip();
    let outcome = match timeout(HELLO_LIMIT, greet(shared, &connection, &who)).await {
        Ok(Ok(greeted)) => run(shared, greeted, client).await,
        Ok(Err(refused)) => Err(refused),
        Err(_) => Err((Reason::Malformed, "no Hello within 10 s".into())),
    };
    if let Err((reason, text)) = outcome {
        // Whoever is shut out may come again and again: what is worth keeping is in the audit, at its own rate.
        tracing::debug!(agent = %who.principal(), %client, %reason, text, "link refused");
        connection.close(reason.code(), &text);
    }
}

struct Greeted {
    link: Arc<Link>,
    state: LinkState,
    send: Sender,
    recv: Receiver,
    outbox: mpsc::Receiver<Control>,
    /// Changes when there is more to tell of the authority than Welcome told.
    authority: watch::Receiver<Authority>,
    /// The roots that the agent says it trusts.
    roots: Vec<Vec<u8>>,
}

/// What an agent asks for that takes the store; answered one after the other, while its frames are still read.
enum Request {
    Offer(Offer),
    CertifyHostKey(String),
    Renew(Vec<u8>),
    RootsKept(Vec<Vec<u8>>),
    HostKeys(HostKeyReport),
}

/// Hello, admission, Welcome.
async fn greet(shared: &Links, connection: &Connection, who: &Authenticated) -> Result<Greeted, (Reason, String)> {
    let (mut send, mut recv) = connection
        .accept()
        .await
        .map_err(|error| (Reason::Malformed, format!("no control stream: {error}")))?;
    let mut state = LinkState::default();
    let frame = read(&mut recv)
        .await?
        .ok_or((Reason::Malformed, "the control stream ended before Hello".to_owned()))?;
    let (version, hello) = match state.handle(frame) {
        Action::Admit { version, hello } => (version, hello),
        Action::Close(reason, text) => return refuse(&mut send, reason, text).await,
        _ => return Err((Reason::Malformed, "the first message must be Hello".into())),
    };
    if shared.roster.is_draining() {
        return refuse(&mut send, Reason::GatewayStopping, "this gateway will stop".into()).await;
    }
    let boot = hello
        .boot_id()
        .map_err(|error| (Reason::Malformed, error.to_string()))?;
    let client = connection.remote_address().ip();
    let reported = hello.reported.into_iter().collect();
    let agent = match shared.registrar.admit(who, client, reported).await {
        Ok(agent) => agent,
        Err(reason) => return refuse(&mut send, reason, format!("this agent may not link: {reason}")).await,
    };
    let (sender, outbox) = mpsc::channel(OUTBOX);
    let link = Arc::new(Link {
        agent,
        boot,
        number: hello.link,
        spki: *who.spki_sha256(),
        connection: connection.clone(),
        since: SystemTime::now(),
        outbox: sender,
        pong: watch::Sender::new(0),
        confirmed: AtomicBool::new(false),
        took_over: OnceLock::new(),
        bindings_changed: Notify::new(),
        remarks: Remarks::default(),
    });
    let mut authority = shared.authority.clone();
    let mut welcome = shared.registrar.welcome(version);
    welcome.authority = Some(authority.borrow_and_update().clone());
    // Welcome goes out before the link is on the roster: nobody opens a stream to an agent that was not told it is in.
    write(&mut send, &Body::Welcome(welcome).into()).await?;
    Ok(Greeted {
        link,
        state,
        send,
        recv,
        outbox,
        authority,
        roots: hello.roots_sha256,
    })
}

async fn run(shared: &Links, greeted: Greeted, client: IpAddr) -> Ended {
    let Greeted {
        link,
        mut state,
        mut send,
        mut recv,
        mut outbox,
        authority,
        roots,
    } = greeted;
    match shared.roster.attach(Arc::clone(&link)).await {
        Ok(None) => {}
        Ok(Some(switch)) => {
            tracing::warn!(link = %link.boot, "the other of two machines with one identity serves from now on");
            shared.registrar.machine_changed(&link.agent, &switch);
        }
        Err(turned) => return turn_away(shared, &link, &mut send, turned).await,
    }

    let (requests, mut waiting) = mpsc::channel(REQUESTS);
    let mut up = false;
    // Frames are read whatever the store does: a slow store must not make a live agent miss a probe.
    let hearing = async {
        while let Some(frame) = read(&mut recv).await? {
            hear(&link, &requests, state.handle(frame))?;
        }
        Ok(())
    };
    let answering = async {
        confirm(shared, &link).await?;
        up = true;
        let changed = shared.registrar.link_changed(&link.agent, client, true, String::new());
        changed.await;
        tracing::info!(link = %link.boot, transport = link.connection.kind().name(), "link up");
        tracing::debug!(link = %link.boot, agent = %link.agent, %client, "the link's agent");
        shared.registrar.roots_kept(&link.agent, link.spki, roots).await;
        answer(shared, &link, &mut waiting, authority).await
    };
    let sending = async {
        while let Some(frame) = outbox.recv().await {
            write(&mut send, &frame).await?;
        }
        Ok(())
    };
    // Whichever ends first ends the link; all of them belong to this task, nothing outlives it.
    let ended: Ended = tokio::select! {
        ended = hearing => ended,
        ended = answering => ended,
        ended = sending => ended,
        error = link.connection.closed() => Err((Reason::Offline, error.to_string())),
        () = shared.stop.cancelled() => Err((Reason::GatewayStopping, "the gateway stops".into())),
    };
    shared.roster.detach(&link);
    if !up {
        return match ended {
            Ok(()) => Ok(()),
            Err((reason, text)) => refuse(&mut send, reason, text).await,
        };
    }
    let why = ended
        .as_ref()
        .err()
        .map_or_else(|| "the agent ended the link".to_owned(), |(_, text)| text.clone());
    shared
        .registrar
        .link_changed(&link.agent, client, false, why.clone())
        .await;
    tracing::info!(link = %link.boot, why, "link down");
    if ended.is_ok() {
        // The agent closes next; its sessions end by that, and with its reason.
        let _closed = timeout(FAREWELL, link.connection.closed()).await;
    }
    // Closing once more would put our reason in the place of the agent's.
    if link.connection.close_reason().is_none() {
        let (reason, text) = ended.err().unwrap_or((Reason::AgentStopping, String::new()));
        link.connection.close(reason.code(), &text);
    }
    Ok(())
}

/// Refuses a link that got no place.
async fn turn_away(shared: &Links, link: &Link, send: &mut Sender, turned: Turned) -> Ended {
    let (reason, text) = match &turned {
        Turned::Full => (Reason::Limit, "the gateway has as many links as it may have"),
        Turned::Conflict(conflict) => {
            shared.registrar.conflict(&link.agent, conflict);
            if conflict.to_be_told {
                let (serving, rival) = (conflict.serving, conflict.rival);
                tracing::warn!(link = %link.boot, tries = conflict.tries, "two machines have one agent's identity");
                tracing::debug!(link = %link.boot, agent = %link.agent, %serving, %rival, "the two machines");
            }
            (Reason::Conflict, IN_CONFLICT)
        }
    };
    refuse(send, reason, text.to_owned()).await
}

/// Asks the store again: an agent that was deleted between admission and its
/// place on the roster had no link yet that the deletion could end.
async fn confirm(shared: &Links, link: &Arc<Link>) -> Ended {
    match shared.registrar.still_admitted(&link.agent, link.spki).await {
        Ok(()) => Ok(()),
        Err(reason) => Err((reason, format!("this agent may not link: {reason}"))),
    }
}

/// Does what needs no store at once and queues the rest.
fn hear(link: &Link, requests: &mpsc::Sender<Request>, action: Action) -> Ended {
    let request = match action {
        Action::Offer(offer) => Request::Offer(offer),
        Action::CertifyHostKey(key) => Request::CertifyHostKey(key),
        Action::Renew(csr_der) => Request::Renew(csr_der),
        Action::RootsKept(roots) => Request::RootsKept(roots),
        Action::HostKeys(report) => Request::HostKeys(report),
        Action::Reply(reply) => return post(link, reply),
        Action::Alive(nonce) => {
            link.pong.send_replace(nonce);
            return Ok(());
        }
        Action::Ignore => return Ok(()),
        Action::Close(reason, text) => return Err((reason, text)),
        Action::Admit { .. } => return Err((Reason::Malformed, "Hello came twice".into())),
    };
    requests.try_send(request).map_err(|_| {
        let text = "the agent asks for more than the gateway can answer in time".to_owned();
        (Reason::Limit, text)
    })
}

/// Answers an agent's requests in their order; does not end but by an error.
async fn answer(
    shared: &Links,
    link: &Link,
    waiting: &mut mpsc::Receiver<Request>,
    mut authority: watch::Receiver<Authority>,
) -> Ended {
    // What stands until the agent says otherwise, to be looked at again when its bindings change.
    let (mut offered, mut host_key) = (None, None);
    let mut told = false;
    loop {
        let request = tokio::select! {
            request = waiting.recv() => request,
            () = link.bindings_changed.notified() => None,
            Ok(()) = authority.changed() => {
                let changed = authority.borrow_and_update().clone();
                post(link, Body::Authority(changed).into())?;
                continue;
            }
        };
        match request {
            Some(Request::Offer(offer)) => answer_offer(shared, link, offered.insert(offer)).await?,
            Some(Request::CertifyHostKey(key)) => certify(shared, link, host_key.insert(key)).await?,
            Some(Request::Renew(csr_der)) => renew(shared, link, csr_der).await?,
            Some(Request::RootsKept(roots)) => {
                shared.registrar.roots_kept(&link.agent, link.spki, roots).await;
            }
            Some(Request::HostKeys(report)) => told |= take_host_keys(shared, link, report, !told).await?,
            None => {
                if let Some(key) = &host_key {
                    certify(shared, link, key).await?;
                }
                if let Some(offer) = &offered {
                    answer_offer(shared, link, offer).await?;
                }
            }
        }
    }
}

async fn answer_offer(shared: &Links, link: &Link, offer: &Offer) -> Ended {
    let answer = shared.registrar.offer(&link.agent, link.spki, offer.clone()).await;
    let answer = answer.map_err(|reason| (reason, format!("the offer was not taken: {reason}")))?;
    link.remarks.take(offer);
    if let Some(first) = answer.refused.first() {
        // One line however many there are: a hostile agent must not fill the log.
        let reason = Reason::from_code(first.reason).map_or("unknown", Reason::name);
        let (refused, url) = (answer.refused.len(), first.url.as_str());
        tracing::warn!(link = %link.boot, refused, reason, "an agent offers endpoints that it may not offer");
        tracing::debug!(link = %link.boot, agent = %link.agent, url, "the first endpoint refused");
    }
    post(
        link,
        Control {
            body: Some(Body::OfferAnswer(answer)),
        },
    )?;
    // From here on the agent has all it needs to serve: its host certificate, if it asked for one, went before.
    shared.roster.confirm(link);
    Ok(())
}

async fn certify(shared: &Links, link: &Link, key: &str) -> Ended {
    let certified = shared
        .registrar
        .certify_host_key(&link.agent, link.spki, key.to_owned());
    let body = match certified.await {
        Ok(certificate) => Body::HostCertificate(certificate),
        Err(Reason::Revoked) => return Err((Reason::Revoked, "the agent's key was replaced".into())),
        Err(reason) => Body::Refused(Refused::new(reason, "the host key was not certified")),
    };
    post(link, Control { body: Some(body) })
}

/// Whether some of the report were refused: told once for a link, whatever the agent goes on reporting.
async fn take_host_keys(
    shared: &Links,
    link: &Link,
    report: HostKeyReport,
    tell_refused: bool,
) -> Result<bool, (Reason, String)> {
    let taken = shared.registrar.host_keys(&link.agent, link.spki, report, tell_refused);
    match taken.await {
        Ok(refused) => Ok(refused > 0),
        Err(Reason::Revoked) => Err((Reason::Revoked, "the agent's key was replaced".into())),
        // It will report again.
        Err(reason) => {
            tracing::debug!(link = %link.boot, %reason, "host keys not taken");
            Ok(false)
        }
    }
}

async fn renew(shared: &Links, link: &Link, csr_der: Vec<u8>) -> Ended {
    let body = match shared.registrar.renew(&link.agent, link.spki, csr_der).await {
        Ok(renewed) => Body::Renewed(renewed),
        Err(reason) => Body::Refused(Refused::new(reason, "the certificate was not renewed")),
    };
    post(link, Control { body: Some(body) })
}

fn post(link: &Link, frame: Control) -> Ended {
    link.outbox.try_send(frame).map_err(|_| {
        (
            Reason::SlowReader,
            "the agent does not read its control stream".to_owned(),
        )
    })
}

async fn read(recv: &mut Receiver) -> Result<Option<Control>, (Reason, String)> {
    let body = frame::read_frame(recv, MAX_CONTROL_FRAME)
        .await
        .map_err(|error| (Reason::Malformed, error.to_string()))?;
    body.map(|body| codec::decode_body(&body))
        .transpose()
        .map_err(|error| (Reason::Malformed, error.to_string()))
}

async fn write(send: &mut Sender, frame: &Control) -> Ended {
    let bytes = codec::encode(frame, MAX_CONTROL_FRAME).map_err(|error| (Reason::Internal, error.to_string()))?;
    match timeout(WRITE_LIMIT, send.write_all(&bytes)).await {
        Ok(written) => written.map_err(|error| (Reason::Offline, error.to_string())),
        Err(_) => Err((Reason::SlowReader, "the agent does not read its control stream".into())),
    }
}

/// Tells the agent why in words it can log, and lets the bytes arrive before the connection closes.
async fn refuse<T>(send: &mut Sender, reason: Reason, text: String) -> Result<T, (Reason, String)> {
    let frame = Control {
        body: Some(Body::Refused(Refused::new(reason, &text))),
    };
    write(send, &frame).await?;
    let _already_finished = Sink::finish(send).await;
    let _peer_gone = send.delivered(Duration::from_secs(2)).await;
    Err((reason, text))
}
