//! The control conversation of one link, without input or output: a frame goes in, what to do comes out.

use fairlead_wire::control::{Body, Control, Hello, HostKeyReport, Offer};
use fairlead_wire::refusal::Reason;
use fairlead_wire::version;

/// Where the conversation stands.
#[derive(Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    AwaitHello,
    Up,
}

/// What the shell is to do with a frame.
#[derive(Debug, PartialEq)]
pub(super) enum Action {
    /// Ask the registrar, then welcome with this version.
    Admit { version: u32, hello: Hello },
    /// Ask the registrar which endpoints are this agent's.
    Offer(Offer),
    /// Have this host key certified.
    CertifyHostKey(String),
    /// Renew the certificate of the link's own key.
    Renew(Vec<u8>),
    /// Take what the servers behind the agent's endpoints show.
    HostKeys(HostKeyReport),
    /// Remember which roots the agent trusts, SHA-256 of each.
    RootsKept(Vec<Vec<u8>>),
    /// Send this.
    Reply(Control),
    /// The agent answered a ping.
    Alive(u64),
    /// Nothing; an optional message of a newer agent.
    Ignore,
    /// End the link; the agent is told the reason and the text.
    Close(Reason, String),
}

/// The gateway's side of a link's control conversation.
#[derive(Debug, Default)]
pub(super) struct LinkState {
    phase: Phase,
}

impl LinkState {
    /// Takes one frame from the agent.
    pub(super) fn handle(&mut self, frame: Control) -> Action {
        if let Err(error) = frame.check() {
            return Action::Close(Reason::Malformed, error.to_string());
        }
        let Some(body) = frame.body else { return Action::Ignore };
        match (&self.phase, body) {
            (Phase::AwaitHello, Body::Hello(hello)) => self.handle_hello(hello),
            (Phase::AwaitHello, _) => Action::Close(Reason::Malformed, "the first message must be Hello".into()),
            (Phase::Up, Body::Hello(_)) => Action::Close(Reason::Malformed, "Hello came twice".into()),
            (Phase::Up, Body::Offer(offer)) => Action::Offer(offer),
            (Phase::Up, Body::HostKeyRequest(request)) => Action::CertifyHostKey(request.public_key),
            (Phase::Up, Body::Renew(renew)) => Action::Renew(renew.csr_der),
            (Phase::Up, Body::HostKeyReport(report)) => Action::HostKeys(report),
            (Phase::Up, Body::RootsKept(kept)) => Action::RootsKept(kept.roots_sha256),
            (Phase::Up, Body::Ping(ping)) => Action::Reply(Control {
                body: Some(Body::Pong(fairlead_wire::control::Pong { nonce: ping.nonce })),
            }),
            (Phase::Up, Body::Pong(pong)) => Action::Alive(pong.nonce),
            (Phase::Up, _) => Action::Ignore,
        }
    }

    fn handle_hello(&mut self, hello: Hello) -> Action {
        if let Err(error) = version::check_required(&hello.requires) {
            return Action::Close(Reason::Unsupported, error.to_string());
        }
        match version::negotiate(hello.version_min, hello.version_max) {
            Ok(version) => {
                self.phase = Phase::Up;
                Action::Admit { version, hello }
            }
            Err(error) => Action::Close(Reason::Unsupported, error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fairlead_wire::control::{Ping, Pong};

    fn hello() -> Control {
        Control {
            body: Some(Body::Hello(Hello {
                version_min: version::VERSION_MIN,
                version_max: version::VERSION_MAX,
                boot_id: vec![7; 16],
                software: "fairlead-agent/test".into(),
                ..Hello::default()
            })),
        }
    }

    #[test]
    fn nothing_is_heard_before_hello() {
        let mut state = LinkState::default();
        let action = state.handle(Control {
            body: Some(Body::Ping(Ping { nonce: 1 })),
        });
        assert!(matches!(action, Action::Close(Reason::Malformed, _)));
    }

    #[test]
    fn an_unknown_requirement_is_refused_by_name() {
        let mut state = LinkState::default();
        let mut frame = hello();
        if let Some(Body::Hello(hello)) = &mut frame.body {
            hello.requires.push("teleportation".into());
        }
        let Action::Close(Reason::Unsupported, text) = state.handle(frame) else {
            panic!("not refused")
        };
        assert!(text.contains("teleportation"), "{text}");
    }

    #[test]
    fn pings_are_answered_once_up() {
        let mut state = LinkState::default();
        assert!(matches!(state.handle(hello()), Action::Admit { .. }));
        let action = state.handle(Control {
            body: Some(Body::Ping(Ping { nonce: 9 })),
        });
        assert_eq!(
            action,
            Action::Reply(Control {
                body: Some(Body::Pong(Pong { nonce: 9 }))
            })
        );
        assert!(
            matches!(state.handle(hello()), Action::Close(Reason::Malformed, _)),
            "Hello twice"
        );
    }
}
