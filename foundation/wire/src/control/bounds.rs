//! The bounds of each control message, and the few conversions their fields need.

use super::{
    Authority, Body, BootId, CheckError, Checker, Control, EndpointHostKeys, Hello, HostCertificate, HostKeyReport,
    HostKeyRequest, Offer, OfferAnswer, OfferedEndpoint, RefusedOffer, Renew, Renewed, RootsKept, Welcome, check,
};
use crate::check::Problem;
use crate::refusal::Reason;

/// A day is more than any gateway waits for its sessions.
const MAX_DRAIN_MS: u64 = 24 * 60 * 60 * 1000;

/// Ten years, beyond every certificate that is issued.
const MAX_VALID_SECONDS: u64 = 10 * 366 * 24 * 60 * 60;

impl From<Body> for Control {
    fn from(body: Body) -> Self {
        Self { body: Some(body) }
    }
}

impl Control {
    /// Bounds every field of the message inside. A kind that this build does not know passes, to be skipped.
    ///
    /// # Errors
    /// [`CheckError`] naming the first field out of bounds.
    pub fn check(&self) -> Result<(), CheckError> {
        match &self.body {
            None | Some(Body::Ping(_) | Body::Pong(_)) => Ok(()),
            Some(Body::Hello(hello)) => hello.check(),
            Some(Body::Welcome(welcome)) => welcome.check(),
            Some(Body::Offer(offer)) => offer.check(),
            Some(Body::OfferAnswer(answer)) => answer.check(),
            Some(Body::Drain(drain)) => drain.check(),
            Some(Body::HostKeyRequest(request)) => request.check(),
            Some(Body::HostCertificate(certificate)) => certificate.check(),
            Some(Body::Refused(refused)) => refused.check(),
            Some(Body::Renew(renew)) => renew.check(),
            Some(Body::Renewed(renewed)) => renewed.check(),
            Some(Body::HostKeyReport(report)) => report.check(),
            Some(Body::Authority(authority)) => authority.check(),
            Some(Body::RootsKept(kept)) => kept.check(),
        }
    }
}

impl Hello {
    /// The agent's boot id as a type.
    ///
    /// # Errors
    /// [`CheckError`] when it is not 16 bytes.
    pub fn boot_id(&self) -> Result<BootId, CheckError> {
        BootId::try_from(self.boot_id.as_slice()).map_err(|_| {
            Checker::of("Hello").error(
                "boot_id",
                Problem::WrongLength {
                    bytes: self.boot_id.len(),
                    expected: 16,
                },
            )
        })
    }

    /// Bounds every field.
    ///
    /// # Errors
    /// [`CheckError`] naming the first field out of bounds.
    pub fn check(&self) -> Result<(), CheckError> {
        let fields = Checker::of("Hello");
        fields.versions(self.version_min, self.version_max)?;
        fields.requires(&self.requires)?;
        self.boot_id()?;
        fields.full_text("software", &self.software, check::MAX_SOFTWARE_BYTES)?;
        fields.reported(&self.reported)?;
        fields.digests("roots_sha256", &self.roots_sha256, check::MAX_ROOTS)?;
        fields.count(
            "link",
            usize::try_from(self.link).unwrap_or(usize::MAX),
            check::MAX_LINK,
        )
    }
}

impl Welcome {
    /// Bounds every field.
    ///
    /// # Errors
    /// [`CheckError`] naming the first field out of bounds.
    pub fn check(&self) -> Result<(), CheckError> {
        let fields = Checker::of("Welcome");
        fields.present("version", self.version != 0)?;
        fields.requires(&self.requires)?;
        fields.full_text("gateway", &self.gateway, check::MAX_NAME_BYTES)?;
        fields.texts(
            "ssh_user_ca",
            &self.ssh_user_ca,
            check::MAX_FEW,
            check::MAX_SSH_KEY_BYTES,
        )?;
        fields.full_text("domain", &self.domain, check::MAX_DOMAIN_BYTES)?;
        self.authority.as_ref().map_or(Ok(()), Authority::check)
    }
}

impl Authority {
    /// Bounds every field.
    ///
    /// # Errors
    /// [`CheckError`] naming the first field out of bounds.
    pub fn check(&self) -> Result<(), CheckError> {
        let fields = Checker::of("Authority");
        fields.present("roots", !self.roots.is_empty())?;
        fields.certificates("roots", &self.roots, check::MAX_ROOTS)?;
        fields.exactly("issuing_sha256", &self.issuing_sha256, check::DIGEST_BYTES)
    }
}

impl RootsKept {
    /// Bounds every field.
    ///
    /// # Errors
    /// [`CheckError`] naming the first field out of bounds.
    pub fn check(&self) -> Result<(), CheckError> {
        let fields = Checker::of("RootsKept");
        fields.present("roots_sha256", !self.roots_sha256.is_empty())?;
        fields.digests("roots_sha256", &self.roots_sha256, check::MAX_ROOTS)
    }
}

impl Offer {
    /// Bounds the list and every endpoint in it.
    ///
    /// # Errors
    /// [`CheckError`] naming the first field out of bounds.
    pub fn check(&self) -> Result<(), CheckError> {
        Checker::of("Offer").count("endpoints", self.endpoints.len(), check::MAX_LIST)?;
        self.endpoints.iter().try_for_each(OfferedEndpoint::check)
    }
}

impl OfferedEndpoint {
    /// Bounds every field. The mode is left to the receiver, who refuses the one endpoint.
    ///
    /// # Errors
    /// [`CheckError`] naming the first field out of bounds.
    pub fn check(&self) -> Result<(), CheckError> {
        Checker::of("OfferedEndpoint").full_text("url", &self.url, check::MAX_URL_BYTES)
    }
}

impl OfferAnswer {
    /// Bounds both lists and every entry in them.
    ///
    /// # Errors
    /// [`CheckError`] naming the first field out of bounds.
    pub fn check(&self) -> Result<(), CheckError> {
        let fields = Checker::of("OfferAnswer");
        fields.texts("accepted", &self.accepted, check::MAX_LIST, check::MAX_URL_BYTES)?;
        fields.count("refused", self.refused.len(), check::MAX_LIST)?;
        self.refused.iter().try_for_each(RefusedOffer::check)
    }
}

impl RefusedOffer {
    /// The reason, where a number this build does not know reads as [`Reason::Internal`].
    #[must_use]
    pub fn known_reason(&self) -> Reason {
        Reason::from_code(self.reason).unwrap_or(Reason::Internal)
    }

    /// Bounds every field.
    ///
    /// # Errors
    /// [`CheckError`] naming the first field out of bounds.
    pub fn check(&self) -> Result<(), CheckError> {
        let fields = Checker::of("RefusedOffer");
        fields.full_text("url", &self.url, check::MAX_URL_BYTES)?;
        fields.present("reason", self.reason != 0)
    }
}

impl super::Ping {
    /// Any number is a ping.
    ///
    /// # Errors
    /// None today.
    pub fn check(&self) -> Result<(), CheckError> {
        Ok(())
    }
}

impl super::Pong {
    /// Any number is a pong; whether it answers a ping is the receiver's to know.
    ///
    /// # Errors
    /// None today.
    pub fn check(&self) -> Result<(), CheckError> {
        Ok(())
    }
}

impl super::Drain {
    /// Bounds both waits to one day.
    ///
    /// # Errors
    /// [`CheckError`] naming the first field out of bounds.
    pub fn check(&self) -> Result<(), CheckError> {
        let fields = Checker::of("Drain");
        fields.holds(
            "reconnect_in_ms",
            self.reconnect_in_ms <= MAX_DRAIN_MS,
            "at most one day",
        )?;
        fields.holds("within_ms", self.within_ms <= MAX_DRAIN_MS, "at most one day")
    }
}

impl HostKeyRequest {
    /// Bounds every field.
    ///
    /// # Errors
    /// [`CheckError`] naming the first field out of bounds.
    pub fn check(&self) -> Result<(), CheckError> {
        Checker::of("HostKeyRequest").full_text("public_key", &self.public_key, check::MAX_SSH_KEY_BYTES)
    }
}

impl HostCertificate {
    /// Bounds every field.
    ///
    /// # Errors
    /// [`CheckError`] naming the first field out of bounds.
    pub fn check(&self) -> Result<(), CheckError> {
        let fields = Checker::of("HostCertificate");
        fields.full_text("certificate", &self.certificate, check::MAX_SSH_CERTIFICATE_BYTES)?;
        let in_range = (1..=MAX_VALID_SECONDS).contains(&self.valid_seconds);
        fields.holds("valid_seconds", in_range, "from 1 second to 10 years")
    }
}

impl Renew {
    /// Bounds every field.
    ///
    /// # Errors
    /// [`CheckError`] naming the first field out of bounds.
    pub fn check(&self) -> Result<(), CheckError> {
        Checker::of("Renew").bytes("csr_der", &self.csr_der, check::MAX_CSR_BYTES)
    }
}

impl Renewed {
    /// Bounds every field.
    ///
    /// # Errors
    /// [`CheckError`] naming the first field out of bounds.
    pub fn check(&self) -> Result<(), CheckError> {
        Checker::of("Renewed").chain(&self.certificate_chain)
    }
}

impl HostKeyReport {
    /// Bounds the list and every endpoint in it.
    ///
    /// # Errors
    /// [`CheckError`] naming the first field out of bounds.
    pub fn check(&self) -> Result<(), CheckError> {
        let fields = Checker::of("HostKeyReport");
        fields.count("endpoints", self.endpoints.len(), check::MAX_REPORT)?;
        self.endpoints.iter().try_for_each(EndpointHostKeys::check)
    }
}

impl EndpointHostKeys {
    /// Bounds every field.
    ///
    /// # Errors
    /// [`CheckError`] naming the first field out of bounds.
    pub fn check(&self) -> Result<(), CheckError> {
        let fields = Checker::of("EndpointHostKeys");
        fields.full_text("url", &self.url, check::MAX_URL_BYTES)?;
        fields.present("public_keys", !self.public_keys.is_empty())?;
        fields.texts(
            "public_keys",
            &self.public_keys,
            check::MAX_HOST_KEYS,
            check::MAX_HOST_KEY_BYTES,
        )
    }
}
