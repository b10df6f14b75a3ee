//! The one name a certificate carries: a SPIFFE URI, parsed strictly.
//!
//! A principal says who; never what it may do. Groups and labels live in the gateway's store and
//! change at once, so they are not part of it.

use std::{fmt, str::FromStr};

use thiserror::Error;

use crate::name::{INTERNAL_SUFFIX, Label, NameError, printable};

/// Longest trust domain in bytes.
pub const MAX_TRUST_DOMAIN_BYTES: usize = 128;
/// Longest principal URI read, in bytes.
pub const MAX_PRINCIPAL_BYTES: usize = 256;

/// Why a text is not a principal.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PrincipalError {
    /// The text does not have one of the four shapes.
    #[error(
        "`{0}` is not a principal; expected spiffe://TRUST-DOMAIN/ followed by \
         site/SITE/agent/NAME, [site/SITE/]user/NAME, [site/SITE/]workload/NAME or gateway/NAME"
    )]
    UnknownShape(String),
    /// The trust domain is not a lower-case domain name.
    #[error(
        "`{0}` is not a trust domain: lower-case letters, digits, - and ., as in gw.example.com, \
         at most {MAX_TRUST_DOMAIN_BYTES} bytes"
    )]
    BadTrustDomain(String),
    /// A site or a name breaks the rules for labels.
    #[error(transparent)]
    BadLabel(#[from] NameError),
    /// An agent without a site, or a gateway with one.
    #[error("{0} {1}")]
    SiteMismatch(Kind, &'static str),
}

/// What kind of party a principal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// The daemon on a device or in a customer network; always of a site.
    Agent,
    /// A person; of a site or not.
    User,
    /// A program that calls; of a site or not.
    Workload,
    /// A gateway; never of a site.
    Gateway,
}

impl Kind {
    /// The word in the URI, which is also the value of `caller.kind` in rules.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::User => "user",
            Self::Workload => "workload",
            Self::Gateway => "gateway",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Who somebody is, within a trust domain. [`fmt::Display`] writes the SPIFFE URI.
///
/// Invariant: an agent has a site, a gateway has none; every part is canonical, so two principals
/// are the same exactly when their URIs are.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Principal {
    trust_domain: String,
    site: Option<Label>,
    kind: Kind,
    name: Label,
}

impl Principal {
    /// Puts a principal together.
    ///
    /// # Errors
    /// When the trust domain is not one, or the site does not fit the kind.
    pub fn new(trust_domain: &str, site: Option<Label>, kind: Kind, name: Label) -> Result<Self, PrincipalError> {
        check_trust_domain(trust_domain)?;
        match (kind, &site) {
            (Kind::Agent, None) => Err(PrincipalError::SiteMismatch(kind, "needs a site")),
            (Kind::Gateway, Some(_)) => Err(PrincipalError::SiteMismatch(kind, "cannot belong to a site")),
            (_, Some(site)) if site == INTERNAL_SUFFIX => Err(NameError::ReservedSite(site.to_string()).into()),
            _ => Ok(Self {
                trust_domain: trust_domain.to_owned(),
                site,
                kind,
                name,
            }),
        }
    }

    /// The trust domain; fixed when the gateway was initialised.
    #[must_use]
    pub fn trust_domain(&self) -> &str {
        &self.trust_domain
    }

    /// The site, if it belongs to one.
    #[must_use]
    pub fn site(&self) -> Option<&Label> {
        self.site.as_ref()
    }

    /// The kind of party.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The name within kind and site.
    #[must_use]
    pub fn name(&self) -> &Label {
        &self.name
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}/", self.trust_domain)?;
        if let Some(site) = &self.site {
            write!(f, "site/{site}/")?;
        }
        write!(f, "{}/{}", self.kind, self.name)
    }
}

impl FromStr for Principal {
    type Err = PrincipalError;

    /// Reads exactly what [`fmt::Display`] writes: no upper case, no escapes, no empty parts.
    fn from_str(text: &str) -> Result<Self, PrincipalError> {
        let unknown = || PrincipalError::UnknownShape(printable(text));
        if text.len() > MAX_PRINCIPAL_BYTES {
            return Err(unknown());
        }
        let path = text.strip_prefix("spiffe://").ok_or_else(unknown)?;
        let parts: Vec<&str> = path.split('/').collect();
        let (trust_domain, site, kind, name) = match parts.as_slice() {
            [domain, "site", site, kind, name] => (domain, Some(site.parse()?), kind, name),
            [domain, kind, name] => (domain, None, kind, name),
            _ => return Err(unknown()),
        };
        let kind = match *kind {
            "agent" => Kind::Agent,
            "user" => Kind::User,
            "workload" => Kind::Workload,
            "gateway" => Kind::Gateway,
            _ => return Err(unknown()),
        };
        Self::new(trust_domain, site, kind, name.parse()?)
    }
}

/// Checks that a text can be a trust domain: labels of `a-z`, `0-9` and `-` joined by dots.
///
/// # Errors
/// When it is anything else, upper case included.
pub fn check_trust_domain(text: &str) -> Result<(), PrincipalError> {
    if text.len() <= MAX_TRUST_DOMAIN_BYTES && is_dns_name(text) {
        Ok(())
    } else {
        Err(PrincipalError::BadTrustDomain(printable(text)))
    }
}

/// True for a lower-case DNS name (RFC 1123 labels), without wildcard or trailing dot.
pub(crate) fn is_dns_name(text: &str) -> bool {
    let label = |l: &str| {
        let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        (1..=63).contains(&l.len()) && l.bytes().all(inner) && !l.starts_with('-') && !l.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(label)
}

#[cfg(test)]
mod tests;
