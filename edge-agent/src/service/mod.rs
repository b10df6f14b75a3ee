//! What the customer lets happen: the list, the addresses, the dial. The last word is here.
//!
//! Nothing in this room looks at where a request came from beyond what `Open` says; nothing outside it opens a
//! connection for a caller.

mod address;
mod allow;
mod asked;
mod dial;
mod refusal;
mod resolve;
mod surroundings;

pub use address::{Forbidden, Surroundings, admit, canonical};
pub use allow::{Admission, AllowList, Explained, packet};
pub use asked::{Asked, MqttSaid};
pub use dial::{Channel, DialError, Dialled, Trust, dial};
pub use refusal::Refusal;
pub use resolve::{Lookup, ResolveError, Resolver, SystemResolver, resolve};
pub use surroundings::Neighbourhood;
