//! The customer's hand on the running agent: status, live sessions, cut, pause and resume, on a unix socket.
//!
//! One line of JSON asks, one line answers, then the connection ends. The kernel says who asks: root and the agent's own
//! user are answered, nobody else, whatever the socket's mode. There is no listener besides it.
//!
//! Deliberately not in here: anything that widens what the agent may do. What it may reach stands in its file alone.

mod api;
mod ask;
mod desk;
mod serve;

pub use api::{Answer, LinkShown, Question, SessionShown, StatusShown};
pub use ask::{AskError, ask};

pub(crate) use desk::Desk;
pub(crate) use serve::serve;
