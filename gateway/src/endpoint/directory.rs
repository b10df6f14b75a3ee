//! What callers ask for in their own words, and where the door finds it.

use fairlead_identity::name::{EndpointUrl, Label, Protocol};

use super::Answer;
use crate::access::Target;

/// The longest part of a caller's words that goes into the audit.
pub(super) const ASKED_LIMIT: usize = 200;

/// Finds endpoints by what callers name: a host, its site and a port.
pub trait Directory: Send + Sync + 'static {
    /// The endpoint of HOST.SITE at `port` and the agent that owns it, whether or not the agent is online; several where
    /// they are a pool, none where there is no such endpoint.
    fn find<'a>(&'a self, host: &'a Label, site: &'a Label, port: u16) -> Answer<'a, Vec<Target>>;
    /// The next endpoints after `after`, in an order that stays; an empty page is the end, `None` a store that failed.
    fn page<'a>(&'a self, site: Option<&'a Label>, after: Option<&'a Target>) -> Answer<'a, Option<Vec<Target>>>;
    /// Everything that answers to HOST.SITE at `port`, with the SSH host keys that callers of it are to know.
    fn keyed<'a>(&'a self, host: &'a Label, site: &'a Label, port: u16) -> Answer<'a, Vec<Keyed>>;
    /// As [`Directory::find`], the endpoint that speaks the first of these protocols which the host has; none where it has
    /// several of that one, which a name alone does not tell apart.
    fn find_speaking<'a>(
        &'a self,
        host: &'a Label,
        site: &'a Label,
        protocols: &'a [Protocol],
    ) -> Answer<'a, Vec<Target>>;
}

/// What a caller asks for, in their own words.
#[derive(Clone, Copy, Debug)]
pub enum Wanted<'a> {
    /// What is at a port of a host.
    Port(&'a str, u16),
    /// What a host has of these protocols, the first of them that it has.
    Speaking(&'a str, &'a [Protocol]),
    /// The endpoint of this URL and no other.
    Exactly(&'a EndpointUrl),
}

impl Wanted<'_> {
    /// The words for the audit.
    pub(super) fn asked(&self) -> String {
        match self {
            Self::Port(host, port) => format!("{}:{port}", shown(host)),
            Self::Speaking(host, _) => shown(host),
            Self::Exactly(url) => url.to_string(),
        }
    }
}

/// An endpoint with its host keys.
#[derive(Clone, Debug)]
pub struct Keyed {
    /// The endpoint and its agent.
    pub target: Target,
    /// OpenSSH public key lines; none where none was reported, or the host presents a certificate.
    pub keys: Vec<String>,
}

/// An endpoint that a caller may reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reachable {
    /// Which.
    pub endpoint: EndpointUrl,
    /// Whether acts are enforced at the agent.
    pub builtin: bool,
    /// Whether its agent is linked.
    pub online: bool,
}

/// A caller's words as the audit may show them.
pub(super) fn shown(words: &str) -> String {
    words.chars().filter(|c| !c.is_control()).take(ASKED_LIMIT).collect()
}
