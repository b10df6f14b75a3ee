//! Channels of one multiplexed connection (SSH): what a client sends is held per channel, bounded, and no channel that is
//! not read stops the others or the connection's own task.
//!
//! Knows no protocol: the owner feeds it what arrives and asks it which window to grant.

mod intake;
mod transport;

pub use intake::{Flow, Intake, Overrun, STUCK, WINDOW};
pub use transport::Transport;
