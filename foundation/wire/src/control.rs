//! The control stream of a link: who are you, what do you offer, are you alive, go elsewhere.
//!
//! One bidirectional stream per link, opened by the agent right after the handshake. Every frame on it is one
//! [`Control`]. Sessions have streams of their own ([`crate::open`]).

use std::collections::BTreeMap;

use crate::check::{self, CheckError, Checker};
use crate::id::BootId;
pub use crate::refusal::Refused;

/// One frame of the control stream. Since 1.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Control {
    /// The message; `None` is a kind that this build does not know, to be skipped.
    ///
    /// Number 11 is kept for Revoke.
    #[prost(oneof = "Body", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 13, 14, 15, 16")]
    pub body: Option<Body>,
}

/// The kinds of [`Control`].
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Body {
    /// Agent, first frame.
    #[prost(message, tag = "1")]
    Hello(Hello),
    /// Gateway, answers [`Hello`].
    #[prost(message, tag = "2")]
    Welcome(Welcome),
    /// Agent, after [`Welcome`] and whenever its list changes.
    #[prost(message, tag = "3")]
    Offer(Offer),
    /// Gateway, answers [`Offer`].
    #[prost(message, tag = "4")]
    OfferAnswer(OfferAnswer),
    /// Either side, after [`Welcome`].
    #[prost(message, tag = "5")]
    Ping(Ping),
    /// Answers [`Ping`].
    #[prost(message, tag = "6")]
    Pong(Pong),
    /// Gateway, when it is about to stop.
    #[prost(message, tag = "7")]
    Drain(Drain),
    /// Agent with `builtin:ssh`, after [`Welcome`] and before its host certificate runs out.
    #[prost(message, tag = "8")]
    HostKeyRequest(HostKeyRequest),
    /// Gateway, answers [`HostKeyRequest`].
    #[prost(message, tag = "9")]
    HostCertificate(HostCertificate),
    /// Gateway, in place of [`Welcome`] (the link then closes), of [`HostCertificate`] or of [`Renewed`].
    #[prost(message, tag = "10")]
    Refused(Refused),
    /// Agent, when a third of its certificate's life has passed.
    #[prost(message, tag = "12")]
    Renew(Renew),
    /// Gateway, answers [`Renew`].
    #[prost(message, tag = "13")]
    Renewed(Renewed),
    /// Gateway, when its authority has changed.
    #[prost(message, tag = "14")]
    Authority(Authority),
    /// Agent, when it has kept other roots than it had.
    #[prost(message, tag = "15")]
    RootsKept(RootsKept),
    /// Agent, once its offer is answered, and when a host key of an upstream has changed.
    #[prost(message, tag = "16")]
    HostKeyReport(HostKeyReport),
}

/// The agent introduces itself. Who it is stands in its certificate, never here. Since 1.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Hello {
    /// Oldest wire version the agent speaks, at least 1.
    #[prost(uint32, tag = "1")]
    pub version_min: u32,
    /// Newest wire version the agent speaks, at least `version_min`.
    #[prost(uint32, tag = "2")]
    pub version_max: u32,
    /// Features without which the agent does not want the link; at most 32 names.
    #[prost(string, repeated, tag = "3")]
    pub requires: Vec<String>,
    /// 16 bytes chosen when the agent's process started ([`BootId`]).
    #[prost(bytes = "vec", tag = "4")]
    pub boot_id: Vec<u8>,
    /// Program and version such as `fairlead-agent/0.1.0`; at most 64 bytes.
    #[prost(string, tag = "5")]
    pub software: String,
    /// Facts the agent tells about its machine (os, arch, hostname); at most 64, values at most 256 bytes. Shown, never
    /// used in decisions.
    #[prost(btree_map = "string, string", tag = "6")]
    pub reported: BTreeMap<String, String>,
    /// SHA-256 of each root certificate that the agent trusts; at most 8.
    #[prost(bytes = "vec", repeated, tag = "7")]
    pub roots_sha256: Vec<Vec<u8>>,
    /// Which of the agent's links this is, 0 to 15: links of one boot with other numbers stand beside each other, one with the
    /// same number takes the place of the one before. From 8 on it is a side link, for endpoints that ask for its transport.
    #[prost(uint32, tag = "8")]
    pub link: u32,
}

/// The gateway takes the link. Since 1.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Welcome {
    /// The version of this link, inside the range of [`Hello`].
    #[prost(uint32, tag = "1")]
    pub version: u32,
    /// Features without which the gateway does not want the link; at most 32 names.
    #[prost(string, repeated, tag = "2")]
    pub requires: Vec<String>,
    /// The gateway's name, as in its certificate; at most 128 bytes.
    #[prost(string, tag = "3")]
    pub gateway: String,
    /// OpenSSH public key lines of the SSH user CAs to trust now; at most 16.
    #[prost(string, repeated, tag = "4")]
    pub ssh_user_ca: Vec<String>,
    /// The gateway's domain, under which callers name endpoints; at most 253 bytes.
    #[prost(string, tag = "5")]
    pub domain: String,
    /// The authority behind certificates now; absent from a gateway that does not say.
    #[prost(message, optional, tag = "6")]
    pub authority: Option<Authority>,
}

/// The authority behind the certificates of a deployment. Since 1.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Authority {
    /// DER of every root certificate to trust from now on, in place of those before; 1 to 8, each at most 4 KiB. An agent
    /// takes them only if it trusts one of them already.
    #[prost(bytes = "vec", repeated, tag = "1")]
    pub roots: Vec<Vec<u8>>,
    /// SHA-256 of the issuing certificate (DER) that new certificates come from. An agent whose own came from another
    /// renews soon, at a moment of its own choice.
    #[prost(bytes = "vec", tag = "2")]
    pub issuing_sha256: Vec<u8>,
}

/// The agent trusts these roots from now on, also after a restart. Since 1.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct RootsKept {
    /// SHA-256 of each root certificate; 1 to 8.
    #[prost(bytes = "vec", repeated, tag = "1")]
    pub roots_sha256: Vec<Vec<u8>>,
}

/// Everything the agent offers now; it replaces the offer before. Since 1.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Offer {
    /// At most 256 endpoints; none is a valid offer.
    #[prost(message, repeated, tag = "1")]
    pub endpoints: Vec<OfferedEndpoint>,
}

/// One endpoint of an [`Offer`]. Since 1.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct OfferedEndpoint {
    /// The endpoint's canonical URL; at most 256 bytes. No upstream address travels.
    #[prost(string, tag = "1")]
    pub url: String,
    /// Who reads the protocol. A number this build does not know reads as [`Mode::Unspecified`]: refuse that endpoint as
    /// `unsupported`, not the link.
    #[prost(enumeration = "Mode", tag = "2")]
    pub mode: i32,
    /// Whether other agents may offer the same URL beside this one.
    #[prost(bool, tag = "3")]
    pub pooling_enabled: bool,
    /// The agent looks after what stands behind it, and it does not answer: of a pool, this one is asked last.
    #[prost(bool, tag = "4")]
    pub unwell: bool,
    /// Its sessions are to go over WebSocket where the agent has such a link.
    #[prost(bool, tag = "5")]
    pub over_websocket: bool,
}

/// Who reads the protocol inside a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum Mode {
    /// Not said, or a mode of a newer peer.
    Unspecified = 0,
    /// Opaque bytes between the caller and the upstream.
    Tunnel = 1,
    /// The agent's own server (`builtin:ssh`), which enforces acts.
    Builtin = 2,
}

/// The gateway's word on each endpoint of an [`Offer`], in no particular order. Since 1.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct OfferAnswer {
    /// URLs that callers can now reach; at most 256.
    #[prost(string, repeated, tag = "1")]
    pub accepted: Vec<String>,
    /// URLs that stay closed, and why; at most 256.
    #[prost(message, repeated, tag = "2")]
    pub refused: Vec<RefusedOffer>,
}

/// One endpoint that the gateway does not take. Since 1.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct RefusedOffer {
    /// The URL as offered; at most 256 bytes.
    #[prost(string, tag = "1")]
    pub url: String,
    /// A [`crate::refusal::Reason`]'s number, never 0.
    #[prost(uint32, tag = "2")]
    pub reason: u32,
}

/// Asks for a [`Pong`]. Since 1.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub struct Ping {
    /// Any number.
    #[prost(uint64, tag = "1")]
    pub nonce: u64,
}

/// Answers a [`Ping`]. Since 1.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub struct Pong {
    /// The number of the ping.
    #[prost(uint64, tag = "1")]
    pub nonce: u64,
}

/// The gateway is about to stop: link elsewhere or again, leave running sessions on this link. Since 1.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub struct Drain {
    /// Milliseconds to wait before the new link; spread by the gateway so that agents do not come all at once.
    #[prost(uint64, tag = "1")]
    pub reconnect_in_ms: u64,
    /// Milliseconds until this link ends, sessions or not.
    #[prost(uint64, tag = "2")]
    pub within_ms: u64,
}

/// The agent asks for a host certificate for its own SSH server. Names come from the agent's certificate. Since 1.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct HostKeyRequest {
    /// One OpenSSH public key line; at most 2 KiB.
    #[prost(string, tag = "1")]
    pub public_key: String,
}

/// The host certificate. Since 1.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct HostCertificate {
    /// One OpenSSH certificate line; at most 8 KiB.
    #[prost(string, tag = "1")]
    pub certificate: String,
    /// Seconds from now until it expires, at least 1; a duration, so that the agent's clock does not matter.
    #[prost(uint64, tag = "2")]
    pub valid_seconds: u64,
}

/// The agent asks for a new certificate for the key it linked with; the running link goes on with the old one. Since 1.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Renew {
    /// A PKCS #10 request in DER, at most 4 KiB. Only its key is looked at, which must be the link's own.
    #[prost(bytes = "vec", tag = "1")]
    pub csr_der: Vec<u8>,
}

/// The new certificate. Since 1.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Renewed {
    /// DER: leaf, issuing CA, root; at most 4, each at most 4 KiB.
    #[prost(bytes = "vec", repeated, tag = "1")]
    pub certificate_chain: Vec<Vec<u8>>,
}

/// Which SSH host keys the servers behind some of the agent's endpoints showed it. Since 1.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct HostKeyReport {
    /// At most 32 endpoints; a further message carries further ones.
    #[prost(message, repeated, tag = "1")]
    pub endpoints: Vec<EndpointHostKeys>,
}

/// All host keys of one endpoint of a [`HostKeyReport`], read from the server itself. Since 1.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct EndpointHostKeys {
    /// The endpoint's canonical URL, as offered; at most 256 bytes.
    #[prost(string, tag = "1")]
    pub url: String,
    /// OpenSSH public key lines of at most 1 KiB, without comments; 1 to 8.
    #[prost(string, repeated, tag = "2")]
    pub public_keys: Vec<String>,
}

mod bounds;

#[cfg(test)]
mod tests;
