//! Live sessions: from a permit to a stream, through to the line in the audit that ends it.

mod open;
mod table;

pub use open::{Carried, Session, Sessions};
pub use table::{Ceilings, SessionRow, Table};

#[cfg(test)]
mod tests;
