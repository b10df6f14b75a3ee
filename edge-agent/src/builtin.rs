//! `builtin:ssh` between the session room and the SSH server: current keys, and the customer's rules for each act.

#[cfg(not(feature = "builtin-ssh"))]
pub(crate) use disabled::Builtin;
#[cfg(feature = "builtin-ssh")]
pub(crate) use enabled::Builtin;

#[cfg(feature = "builtin-ssh")]
mod enabled {
    use std::pin::pin;
    use std::sync::{Arc, Mutex, OnceLock, PoisonError};

    use anyhow::{Context, bail};
    use fairlead_identity::ssh;
    use fairlead_policy::{Limits, SshFacts};
    use fairlead_runtime::audit::Record;
    use fairlead_runtime::transport::{Receiver, Sender};
    use fairlead_wire::refusal::Reason;

    use crate::caller_stream::{CallerStream, Cut};
    use crate::config::BuiltinSsh;
    use crate::counted::{Counted, silent};
    use crate::session::{Ending, Live, Services, rule_name, withdrawn};
    use crate::sshd::{self, Account, Act, Acts, Ended, Login, Settings, UnderWay, Users};

    /// The agent's own SSH server with the keys of the moment.
    pub(crate) struct Builtin {
        host_key_line: String,
        // Replaced whole at each change, so that a connection keeps what it began with.
        settings: Mutex<Arc<Settings>>,
    }

    impl Builtin {
        /// # Errors
        /// When there is no account to be logged in to, or the host key is damaged.
        pub(crate) fn new(host_key_pem: &str, written: &BuiltinSsh) -> anyhow::Result<Self> {
            let account = Account::current()?;
            let own_login = written.allow_service_account || !account.is_service_account();
            if !own_login && written.users.is_empty() {
                bail!(
                    "builtin:ssh would give callers the account `{}`, which is root or a service: run the agent as a person's \
                     account, list users that callers may become in builtin_ssh: {{ users: [] }}, or set there \
                     allow_service_account: true if that is meant",
                    account.name
                );
            }
            let host_key = ssh::SshKey::from_openssh(host_key_pem).context("the SSH host key is damaged")?;
            let host_key_line = host_key.public_line();
            let host_key = host_key.private_key().clone();
            let settings = Settings {
                host_key,
                host_certificate: None,
                user_cas: Vec::new(),
                account,
                own_login,
                users: Users {
                    listed: written.users.clone(),
                    // Now: an upgrade puts another file in its place, and then only the name is right.
                    program: std::env::current_exe().context("this program's own path is not to be had")?,
                },
            };
            Ok(Self {
                host_key_line,
                settings: Mutex::new(Arc::new(settings)),
            })
        }

        pub(crate) fn host_key_line(&self) -> String {
            self.host_key_line.clone()
        }

        pub(crate) fn trust_user_cas(&self, lines: &[String]) {
            let user_cas = lines
                .iter()
                .filter_map(|line| ssh::parse_public_line(line).ok())
                .collect();
            let mut settings = self.settings.lock().unwrap_or_else(PoisonError::into_inner);
            *settings = Arc::new(Settings {
                user_cas,
                ..Settings::clone(&settings)
            });
        }

        pub(crate) fn present_host_certificate(&self, line: &str) {
            let mut settings = self.settings.lock().unwrap_or_else(PoisonError::into_inner);
            match Settings::clone(&settings).with_host_certificate(line) {
                Ok(changed) => *settings = Arc::new(changed),
                Err(error) => tracing::warn!(error, "the gateway's host certificate cannot be used"),
            }
        }

        pub(crate) async fn serve(
            &self,
            services: &Arc<Services>,
            live: &Arc<Live>,
            limits: Limits,
            from_caller: Receiver,
            to_caller: Sender,
        ) -> Option<Ending> {
            let settings = Arc::clone(&self.settings.lock().unwrap_or_else(PoisonError::into_inner));
            let asked = &live.asked;
            let login = Login {
                caller: asked.caller.name.clone(),
                registered_keys: asked
                    .ssh_keys
                    .iter()
                    .filter_map(|line| ssh::parse_public_line(line).ok())
                    .collect(),
                acts: asked.acts.clone(),
                client_ip: asked.client_ip,
                session: asked.session.to_string(),
            };
            let acts = Arc::new(CustomersWord {
                services: Arc::clone(services),
                live: Arc::clone(live),
            });
            let cut = Cut {
                reason: Arc::new(OnceLock::new()),
                stopping: services.tasks.token().clone(),
            };
            let (withdrawn, ending) = (pin!(withdrawn(&to_caller)), OnceLock::new());
            let lapse = async {
                let why = tokio::select! {
                    why = services.lapsed(live, limits, withdrawn) => why,
                    () = silent(&live.counters, limits.idle) => Ending::of(Reason::IdleLimit),
                };
                if matches!(why.reason, Reason::CallerGone | Reason::AgentStopping) && why.name != "paused" {
                    // The protocol sees by itself that its client leaves, or that the agent stops, and knows better how far
                    // the client had come.
                    std::future::pending().await
                }
                // Where the gateway withdrew, its streams are closed already and take no second reason.
                let _first = cut.reason.set(why.reason);
                let why = ending.get_or_init(|| why);
                let (reason, words) = told(why);
                format!("fairlead: {reason} (session {}){words}", asked.session)
            };
            let stream = CallerStream::new(from_caller, to_caller, cut.clone());
            let stream = Counted::new(stream, Arc::clone(live));
            let ended = sshd::serve(stream, settings, login, acts, &services.tasks, lapse).await;
            match ended {
                Ended::Finished => None,
                Ended::NotAdmitted(why) => Some(Ending::with(Reason::Denied, why)),
                Ended::TimedOut => Some(Ending::with(Reason::Limit, ended.to_string())),
                Ended::Lapsed(_) => ending.into_inner(),
                Ended::Stopping => Some(Ending::of(Reason::AgentStopping)),
                Ended::Failed(why) => Some(Ending::with(Reason::CallerGone, why)),
            }
        }
    }

    /// What the caller reads: the reason's name, and what happened in words where the name alone does not say it.
    fn told(ending: &Ending) -> (Reason, &'static str) {
        let words = match ending.reason {
            _ if ending.name == "paused" => ": this device is paused by its owner",
            // Only this side says why; what the gateway withdraws comes as a bare reason.
            Reason::PolicyChanged if !ending.detail.is_empty() => {
                ": the rules of this device do not permit it any more"
            }
            _ => "",
        };
        (ending.reason.told_to_caller(true), words)
    }

    /// The customer's rules and audit, asked before each act.
    struct CustomersWord {
        services: Arc<Services>,
        live: Arc<Live>,
    }

    impl Acts for CustomersWord {
        fn begin(&self, act: Act<'_>, user: &str) -> Result<UnderWay, String> {
            let facts = SshFacts {
                user: user.to_owned(),
                action: act.name().to_owned(),
                command: command_of(act).to_owned(),
            };
            // Noted before it is asked: a file that is read in between decides about it.
            let under_way = self.live.begin_act(facts.clone());
            let list = self.services.list();
            let decided = list.admit_act(&self.live.asked, facts, self.services.clock.now());
            let mut record = self.record(act, user);
            record.decision = Some(if decided.is_ok() { "allow" } else { "deny" }.into());
            let rule = match &decided {
                Ok(rule) => rule.as_ref(),
                Err(refusal) => {
                    record.reason = Some(refusal.reason.name().into());
                    refusal.rule.as_ref()
                }
            };
            record.rule = rule.map(rule_name);
            let logged = self.services.append(&record);
            match (decided, logged) {
                (Err(_), _) => Err(format!("{} is not permitted by this device", act.name())),
                (Ok(_), Err(())) => Err("this device cannot write its audit log".into()),
                (Ok(_), Ok(())) => Ok(Box::new(under_way)),
            }
        }

        fn refused(&self, act: Act<'_>, user: &str) {
            let mut record = self.record(act, user);
            record.decision = Some("deny".into());
            record.reason = Some(Reason::Denied.name().into());
            // A refusal stays one when it cannot be logged.
            self.services.append(&record).unwrap_or_default();
        }
    }

    impl CustomersWord {
        fn record(&self, act: Act<'_>, user: &str) -> Record {
            let mut record = self.services.record("session.act", &self.live.asked);
            record.act = Some(act.name().into());
            record.fact("user", user);
            let command = command_of(act);
            if !command.is_empty() {
                record.fact("command", command.chars().take(1024).collect::<String>());
            }
            record
        }
    }

    fn command_of(act: Act<'_>) -> &str {
        match act {
            Act::Exec { command } => command,
            _ => "",
        }
    }
}

#[cfg(not(feature = "builtin-ssh"))]
mod disabled {
    use std::sync::Arc;

    use fairlead_policy::Limits;
    use fairlead_runtime::transport::{Receiver, Sender};

    use crate::config::BuiltinSsh;
    use crate::session::{Ending, Live, Services};

    /// Never made: the configuration refuses `builtin:ssh` in this build.
    pub(crate) enum Builtin {}

    impl Builtin {
        pub(crate) fn new(_host_key_pem: &str, _written: &BuiltinSsh) -> anyhow::Result<Self> {
            anyhow::bail!("this build of the agent has no SSH server of its own")
        }

        pub(crate) fn host_key_line(&self) -> String {
            match *self {}
        }

        pub(crate) fn trust_user_cas(&self, _lines: &[String]) {
            match *self {}
        }

        pub(crate) fn present_host_certificate(&self, _line: &str) {
            match *self {}
        }

        pub(crate) async fn serve(
            &self,
            _services: &Arc<Services>,
            _live: &Arc<Live>,
            _limits: Limits,
            _from_caller: Receiver,
            _to_caller: Sender,
        ) -> Option<Ending> {
            match *self {}
        }
    }
}
