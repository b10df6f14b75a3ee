//! What the customer lets happen: the list, the addresses, the dial. The last word is here.
//!
//! Nothing in this room looks at where a request came from beyond what `Open` says; nothing outside it opens a
//! connection for a caller.

mod allow;
mod dial;
mod resolve;

pub use allow::{AllowList, Asked, Refusal};
pub use dial::{DialError, dial};
pub use resolve::{ResolveError, Resolver, SystemResolver, resolve};
