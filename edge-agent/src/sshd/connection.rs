//! One SSH connection: what it knows, and how an act begins or is denied. [`super::handler`] is how russh asks for it.

use std::sync::Arc;
use std::time::SystemTime;

use fairlead_runtime::tasks::TaskGroup;
use russh::keys::{Certificate, PublicKey};
use russh::server::{Auth, Msg, Session};
use russh::{ChannelId, ChannelWriteHalf, Disconnect, Error};

use super::auth::{Standing, Verdict, judge_certificate, judge_key};
use super::channels::{Channels, Entry, NoChannel, Prepared};
use super::outlet::{Outlet, STDERR};
use super::process::{self, Request};
use super::program::Wiring;
use super::settings::{Act, UnderWay};
use super::switching::{self, RunAs, What};
use super::{Acts, Login, Settings, sftp};
use fairlead_runtime::channel::Flow;

/// The exit status of an act that is denied: `EX_NOPERM` of sysexits, as everywhere in Fairlead.
const EXIT_DENIED: u32 = 77;
/// Why a channel is ended that holds up its siblings.
const STUCK_TEXT: &str =
    "fairlead: ended: the program took no input for 30 s while other channels of the connection waited for it\r\n";

/// Who owns what a connection starts.
pub(super) struct Owners {
    /// Programs and sftp, one task each.
    pub(super) programs: TaskGroup,
    /// Work that blocks on files.
    pub(super) blocking: TaskGroup,
}

/// One SSH connection.
pub(super) struct Connection {
    settings: Arc<Settings>,
    login: Login,
    acts: Arc<dyn Acts>,
    owners: Owners,
    standing: Arc<Standing>,
    flow: Arc<Flow>,
    channels: Channels,
    /// Set by a proven signature alone; nothing is done before.
    verdict: Option<Verdict>,
}

impl Connection {
    pub(super) fn new(
        settings: Arc<Settings>,
        login: Login,
        acts: Arc<dyn Acts>,
        owners: Owners,
        standing: Arc<Standing>,
        flow: Arc<Flow>,
    ) -> Self {
        let channels = Channels::new(owners.programs.token().clone(), Arc::clone(&flow));
        Self {
            settings,
            login,
            acts,
            owners,
            standing,
            flow,
            channels,
            verdict: None,
        }
    }

    /// Whether a signature with this key could be worth making. An offer proves nothing, and of a certificate it shows the
    /// bare key alone: with a CA any key may go on.
    pub(super) fn may_sign(&self, key: &PublicKey) -> bool {
        let registered = self
            .login
            .registered_keys
            .iter()
            .any(|registered| registered.key_data() == key.key_data());
        registered || !self.settings.user_cas.is_empty()
    }

    pub(super) async fn prove_key(&mut self, user: &str, key: &PublicKey) -> Auth {
        let judged = judge_key(&self.login, key);
        self.admit(user, judged).await
    }

    pub(super) async fn prove_certificate(&mut self, user: &str, certificate: &Certificate) -> Auth {
        let judged = judge_certificate(&self.settings, &self.login, certificate, SystemTime::now());
        self.admit(user, judged).await
    }

    /// Admits a caller, if it is the one, as the user whose name it came with.
    async fn admit(&mut self, user: &str, judged: Result<(), String>) -> Auth {
        let verdict = match judged {
            Err(why) => Verdict::Refused(why),
            Ok(()) => {
                let (settings, login) = (Arc::clone(&self.settings), self.login.clone());
                let chosen = choose(self.owners.blocking.clone(), settings, login, user.to_owned()).await;
                chosen.map_or_else(
                    |why| Verdict::WrongUser(format!("fairlead: denied: {why} (session {})", self.login.session)),
                    Verdict::Admitted,
                )
            }
        };
        self.conclude(verdict)
    }

    /// Turns a verdict into an answer. A caller under a wrong user name is let through authentication, because only then
    /// can the client be told what is wrong: [`super::handler`] disconnects after it.
    fn conclude(&mut self, verdict: Verdict) -> Auth {
        self.standing.note(&verdict);
        let answer = match &verdict {
            Verdict::Admitted(_) | Verdict::WrongUser(_) => Auth::Accept,
            Verdict::Refused(why) => {
                tracing::debug!(why, "an SSH login was refused");
                Auth::reject()
            }
        };
        self.verdict = Some(verdict);
        answer
    }

    pub(super) fn verdict(&self) -> Option<&Verdict> {
        self.verdict.as_ref()
    }

    /// Makes room for a channel; nobody gets one before the caller is proven.
    pub(super) fn open_channel(&mut self, half: ChannelWriteHalf<Msg>) -> Result<(), NoChannel> {
        self.run_as().ok_or(NoChannel::Stranger)?;
        self.channels.open(half)
    }

    /// As whom programs run; nobody, before the caller is proven.
    fn run_as(&self) -> Option<&RunAs> {
        match &self.verdict {
            Some(Verdict::Admitted(run_as)) => Some(run_as),
            _ => None,
        }
    }

    /// The client closed a channel.
    pub(super) fn close_channel(&mut self, id: ChannelId) -> bool {
        self.channels.close(id)
    }

    /// The window that channels shall have from now on; `id` is one whose client is about to send more. Channels that
    /// hold it up for too long are ended.
    pub(super) fn next_window(&self, id: ChannelId) -> u32 {
        for stuck in self.channels.stuck_beside(id) {
            stuck.ending.end(Some(STUCK_TEXT));
        }
        self.flow.next_window()
    }

    /// The channel's entry. russh vouches for the number; where it is wrong, the connection cannot be trusted any more.
    pub(super) fn entry(&mut self, id: ChannelId, session: &mut Session) -> Result<Option<&mut Entry>, Error> {
        let entry = self.channels.get(id);
        if entry.is_none() {
            session.disconnect(Disconnect::ProtocolError, "fairlead: no such channel", "")?;
        }
        Ok(entry)
    }

    /// Starts an act, if everybody permits it; the client hears success or a reason.
    pub(super) fn begin(&mut self, id: ChannelId, act: Act<'_>, session: &mut Session) -> Result<(), Error> {
        let Some(entry) = self.entry(id, session)? else {
            return Ok(());
        };
        let Some(prepared) = entry.take_prepared() else {
            return session.channel_failure(id);
        };
        let (intake, ending) = (Arc::clone(&entry.intake), entry.ending.clone());
        let Some(run_as) = self.run_as().cloned() else {
            return session.channel_failure(id);
        };
        let under_way = match self.permit(act, &run_as.account.name) {
            Ok(under_way) => under_way,
            Err(why) => return self.deny(id, &why, session),
        };
        let Prepared {
            half,
            environment,
            terminal,
            signals,
            size,
            occupancy,
        } = prepared;
        let outlet = Outlet::new(half, session.handle());
        let blocking = self.owners.blocking.clone();
        let started = match act {
            Act::Sftp if !run_as.switched => {
                let home = run_as.account.home;
                self.owners.programs.spawn("ssh sftp", async move {
                    sftp::run(&intake, outlet, &ending, home, blocking).await;
                    drop((occupancy, under_way));
                })
            }
            Act::Shell | Act::Exec { .. } | Act::Sftp => {
                let what = match act {
                    Act::Shell => What::Shell,
                    Act::Exec { command } => What::Command(command),
                    Act::Sftp => What::Files,
                };
                let request = Request {
                    run_as: &run_as,
                    users: &self.settings.users,
                    login: &self.login,
                    what,
                    environment,
                    // Files are served over pipes, whatever the client asked for before.
                    terminal: terminal.filter(|_| act != Act::Sftp),
                };
                let program = match process::start(request) {
                    Ok(program) => program,
                    Err(error) => return self.deny(id, &format!("{} did not start: {error}", act.name()), session),
                };
                let wiring = Wiring {
                    intake,
                    outlet,
                    signals,
                    size,
                    ending,
                    blocking,
                };
                self.owners.programs.spawn("ssh program", async move {
                    program.run(wiring).await;
                    drop((occupancy, under_way));
                })
            }
        };
        if started {
            session.channel_success(id)
        } else {
            self.deny(id, "the agent is stopping", session)
        }
    }

    /// The gateway's permission, then the agent's own rules, which also record the act.
    fn permit(&self, act: Act<'_>, user: &str) -> Result<UnderWay, String> {
        if !self.login.acts.contains(act.name()) {
            self.acts.refused(act, user);
            return Err(format!("{} is not permitted", act.name()));
        }
        self.acts.begin(act, user)
    }

    /// Denies an act that is not even looked at, unless something runs on the channel already.
    pub(super) fn deny_unseen(&mut self, id: ChannelId, why: &str, session: &mut Session) -> Result<(), Error> {
        match self.entry(id, session)?.and_then(Entry::take_prepared) {
            Some(_) => self.deny(id, why, session),
            None => session.channel_failure(id),
        }
    }

    /// Says why on the channel's standard error and closes it. The request itself is answered with success: after a failure
    /// OpenSSH closes the channel without showing what came on it, and the person would read only "request failed".
    fn deny(&mut self, id: ChannelId, why: &str, session: &mut Session) -> Result<(), Error> {
        let text = format!("fairlead: denied: {why} (session {})\r\n", self.login.session);
        session.channel_success(id)?;
        session.extended_data(id, STDERR, text.into_bytes())?;
        session.exit_status_request(id, EXIT_DENIED)?;
        session.eof(id)?;
        session.close(id)
    }

    pub(super) fn take_data(&mut self, id: ChannelId, data: &[u8], session: &mut Session) -> Result<(), Error> {
        let Some(entry) = self.entry(id, session)? else {
            return Ok(());
        };
        if entry.intake.put(data).is_err() {
            session.disconnect(
                Disconnect::ProtocolError,
                "fairlead: more data than the window allowed",
                "",
            )?;
        }
        Ok(())
    }
}

/// As whom a caller runs. Where that takes the user database, which may be on a network, it is read on a thread of its own.
async fn choose(blocking: TaskGroup, settings: Arc<Settings>, login: Login, user: String) -> Result<RunAs, String> {
    let needs_database = !settings.users.listed.is_empty();
    let choose = move || switching::choose(&settings, &login, &user).map_err(|refusal| refusal.to_string());
    if !needs_database {
        return choose();
    }
    let chosen = blocking.blocking("user lookup", choose).await;
    chosen.unwrap_or_else(|_| Err("the agent is stopping".to_owned()))
}
