//! Live sessions: from a permit to a stream, through to the line in the audit that ends it; decided again whenever what
//! they were permitted on may have changed.

mod cancel;
mod changes;
mod open;
mod pool;
mod review;
mod table;

pub use cancel::{CancelSeat, NotCancelled};
pub use changes::Changed;
pub use open::{Carried, Session, Sessions, Unopened};
pub use review::{Answer, Facts, Reviewer, WouldCut};
pub use table::{Ceilings, SessionRow, Table};

#[cfg(test)]
mod tests;
