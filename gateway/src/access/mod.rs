//! The one place where "may this caller reach that endpoint?" is answered.
//!
//! [`Gate::decide`] is the only constructor of a [`Permit`]; everything that opens a path to an agent takes a `Permit`
//! by value, so a new face cannot forget to ask. Deliberately not here: who the caller is (the faces), which agents are
//! online (`link::roster`), how bytes flow (`session`).

mod acts;
mod aftermath;
mod caller;
mod gate;
mod meters;
mod permit;
#[cfg(test)]
pub(crate) mod testing;
mod trail;

pub use acts::Acts;
pub use aftermath::settle;
pub use caller::{Caller, CallerId, CallerKind, Credential};
pub(crate) use gate::BUILTIN_SSH_ACTS;
pub use gate::{AccessRequest, Gate, Inquiry, Outlook, Present, Spoken, Target, decide_again_by, question};
pub use meters::Meters;
pub use permit::{Denial, Given, Lost, Permit};
pub use trail::{AuditUnavailable, Listens, Trail};
