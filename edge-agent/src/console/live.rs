//! `status`, `sessions` and orders, by way of the running agent.

use std::fmt::Write as _;

use serde_json::json;

use super::{Shown, moment};
use crate::config::Config;
use crate::control::{self, Answer, AskError, LinkShown, Question, SessionShown, StatusShown};

pub(super) fn status(config: &Config, as_json: bool) -> Shown {
    match ask(config, &Question::Status) {
        Ok(Answer::Status(status)) if as_json => Shown::good(format!("{:#}\n", json!(status))),
        Ok(Answer::Status(status)) => Shown::good(status_text(config, &status)),
        other => unexpected(other),
    }
}

pub(super) fn sessions(config: &Config, as_json: bool) -> Shown {
    match ask(config, &Question::Sessions) {
        Ok(Answer::Sessions(sessions)) if as_json => Shown::good(format!("{:#}\n", json!({ "sessions": sessions }))),
        Ok(Answer::Sessions(sessions)) => Shown::good(sessions_text(&sessions)),
        other => unexpected(other),
    }
}

pub(super) fn order(config: &Config, question: &Question) -> Shown {
    match ask(config, question) {
        Ok(Answer::Done { ended, warning }) => {
            let text = match question {
                Question::Pause => format!("paused; {ended} sessions ended. `fairlead-agent resume` ends the pause\n"),
                Question::Resume => "resumed\n".into(),
                _ => "ended\n".into(),
            };
            Shown {
                note: warning,
                ..Shown::good(text)
            }
        }
        other => unexpected(other),
    }
}

fn ask(config: &Config, question: &Question) -> Result<Answer, AskError> {
    control::ask(&config.control_socket.path, question)
}

fn unexpected(answer: Result<Answer, AskError>) -> Shown {
    match answer {
        Ok(Answer::Refused(why)) => Shown::failed(why, 1),
        Ok(_) => Shown::failed(
            "the agent gave another answer; are program and agent of one release?",
            1,
        ),
        Err(error @ AskError::NotPermitted { .. }) => Shown::failed(error.to_string(), 77),
        Err(error) => Shown::failed(error.to_string(), 1),
    }
}

fn status_text(config: &Config, status: &StatusShown) -> String {
    let mut text = format!("{}\n", status.principal);
    let mut line = |name: &str, value: &str| {
        let _infallible = writeln!(text, "  {name:<9} {value}");
    };
    match &status.paused {
        None => line("serving", "yes"),
        Some(paused) => {
            let by = paused.uid.map(|uid| format!(" by user id {uid}")).unwrap_or_default();
            line(
                "serving",
                &format!(
                    "NO: paused since {}{by}; `fairlead-agent resume` ends it",
                    moment(paused.since)
                ),
            );
        }
    }
    line("link", if status.linked { "up" } else { &status.last_error });
    for link in &status.links {
        line("", &link_text(link));
    }
    for (at, why) in &status.errors {
        line("error", &format!("{} {why}", moment(*at)));
    }
    for url in &status.accepted {
        line("offers", url);
    }
    for (url, reason) in &status.refused {
        line("refused", &format!("{url}: {reason}"));
    }
    line("sessions", &status.sessions.to_string());
    line("file", &format!("{} (sha256 {})", status.file, status.sha256));
    if status.sha256 != config.digest {
        line(
            "",
            &format!("{} has changed since: reload with SIGHUP", config.file.display()),
        );
    }
    if !status.after_restart.is_empty() {
        line(
            "restart",
            &format!(
                "these keys were changed and wait for one: {}",
                status.after_restart.join(", ")
            ),
        );
    }
    line("audit", &format!("{} lines", status.audit_seq));
    line("version", &status.version);
    text
}

fn link_text(link: &LinkShown) -> String {
    let mut text = format!("{} over {} since {}", link.gateway, link.transport, moment(link.since));
    if let Some(rtt) = link.rtt_us {
        let _infallible = write!(text, ", round trip {}.{} ms", rtt / 1000, rtt % 1000 / 100);
    }
    if let Some((sent, lost)) = link.packets {
        let _infallible = write!(text, ", {lost} of {sent} packets lost");
    }
    if link.draining {
        text.push_str("; the gateway will stop, sessions finish");
    }
    text
}

fn sessions_text(sessions: &[SessionShown]) -> String {
    if sessions.is_empty() {
        return "no sessions\n".into();
    }
    let mut text = String::new();
    for session in sessions {
        let _infallible = writeln!(text, "{}  {}  {}", session.session, session.caller, session.endpoint);
        let _infallible = writeln!(
            text,
            "  since {} from {}; {} bytes in, {} out",
            moment(session.since),
            session.client_ip,
            session.bytes_in,
            session.bytes_out
        );
        for (name, value) in [
            ("addresses", session.addresses.join(", ")),
            ("acts", session.acts.join(", ")),
            ("rule", session.rule.clone()),
        ] {
            if !value.is_empty() {
                let _infallible = writeln!(text, "  {name} {value}");
            }
        }
    }
    text
}
