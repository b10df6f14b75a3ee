//! CONNECT (section 3.1).

use super::fields::{Fields, put};
use super::frame::{packet, write_length};
use super::properties::{Place, Properties};
use super::{Broken, QoS, Version, topic};

/// What a client says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connect<'a> {
    /// The version that every later packet has.
    pub version: Version,
    /// Whether an earlier session's state is thrown away.
    pub clean_start: bool,
    /// Seconds after which silence is death; 0 for never.
    pub keep_alive: u16,
    /// Its name; empty where the broker shall choose one.
    pub client_id: &'a str,
    /// What the broker says when the client is lost.
    pub will: Option<Will<'a>>,
    /// User name and password as sent.
    pub login: Login<'a>,
    /// How many messages it takes before it acknowledges them (version 5).
    pub receive_maximum: Option<u16>,
    /// Whether it takes reasons in words (version 5, Request Problem Information).
    pub takes_words: bool,
    /// Whether it wants the enhanced authentication of version 5, in which this side takes no part.
    pub authentication: bool,
    properties: &'a [u8],
}

/// What a client logs in with.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Login<'a> {
    /// The user name, where one was sent.
    pub username: Option<&'a str>,
    /// The password, where one was sent.
    pub password: Option<&'a [u8]>,
}

impl std::fmt::Debug for Login<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login")
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

/// A message that the broker publishes in the client's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Will<'a> {
    /// Where to, without wildcards.
    pub topic: &'a str,
    /// How surely.
    pub qos: QoS,
    /// Whether the broker keeps it.
    pub retain: bool,
    payload: &'a [u8],
    properties: &'a [u8],
}

const PROTOCOL: &[u8] = b"MQTT";

impl<'a> Connect<'a> {
    /// Reads the body of a CONNECT.
    ///
    /// # Errors
    /// One variant per cause.
    pub fn read(body: &'a [u8]) -> Result<Self, Broken> {
        let mut fields = Fields(body);
        if fields.binary()? != PROTOCOL {
            return Err(Broken::Malformed("the protocol's name is not MQTT"));
        }
        let version = match fields.byte()? {
            4 => Version::V4,
            5 => Version::V5,
            other => return Err(Broken::Version(other)),
        };
        let flags = fields.byte()?;
        let bit = |number: u8| flags & (1 << number) != 0;
        if bit(0) {
            return Err(Broken::Malformed("the reserved flag of CONNECT"));
        }
        let keep_alive = fields.two()?;
        let properties = match version {
            Version::V4 => Properties::default(),
            Version::V5 => Properties::read(&mut fields, Place::Connect)?,
        };
        let client_id = fields.text()?;
        let will = if bit(2) {
            Some(Will::read(&mut fields, version, (flags >> 3) & 3, bit(5))?)
        } else if flags & 0b0011_1000 != 0 {
            return Err(Broken::Malformed("flags of a will without a will"));
        } else {
            None
        };
        let username = if bit(7) { Some(fields.text()?) } else { None };
        let password = if bit(6) { Some(fields.binary()?) } else { None };
        fields.end()?;
        if version == Version::V4 && password.is_some() && username.is_none() {
            return Err(Broken::Malformed("a password without a user name"));
        }
        Ok(Self {
            version,
            clean_start: bit(1),
            keep_alive,
            client_id,
            will,
            login: Login { username, password },
            receive_maximum: properties.receive_maximum,
            takes_words: !properties.wordless,
            authentication: properties.authentication,
            properties: properties.raw,
        })
    }

    /// The packet with another login in place of what was sent, and a clean start: a broker that kept a session would deliver
    /// by subscriptions that nobody on this way has judged. Texts beyond 65,535 bytes are cut; whoever reads them from
    /// a file checks that before.
    #[must_use]
    pub fn to_bytes(&self, login: Login<'_>) -> Vec<u8> {
        let mut body = Vec::with_capacity(256);
        put(&mut body, PROTOCOL);
        body.push(match self.version {
            Version::V4 => 4,
            Version::V5 => 5,
        });
        let mut flags = 1 << 1;
        if let Some(will) = &self.will {
            flags |= 1 << 2 | will.qos.number() << 3 | u8::from(will.retain) << 5;
        }
        flags |= u8::from(login.password.is_some()) << 6 | u8::from(login.username.is_some()) << 7;
        body.push(flags);
        body.extend_from_slice(&self.keep_alive.to_be_bytes());
        let list = |body: &mut Vec<u8>, raw: &[u8]| {
            if self.version == Version::V5 {
                write_length(body, raw.len());
                body.extend_from_slice(raw);
            }
        };
        list(&mut body, self.properties);
        put(&mut body, self.client_id.as_bytes());
        if let Some(will) = &self.will {
            list(&mut body, will.properties);
            put(&mut body, will.topic.as_bytes());
            put(&mut body, will.payload);
        }
        for text in [login.username.map(str::as_bytes), login.password]
            .into_iter()
            .flatten()
        {
            put(&mut body, text);
        }
        packet(0x10, &body)
    }
}

impl<'a> Will<'a> {
    fn read(fields: &mut Fields<'a>, version: Version, qos: u8, retain: bool) -> Result<Self, Broken> {
        let properties = match version {
            Version::V4 => &[],
            Version::V5 => Properties::read(fields, Place::Will)?.raw,
        };
        let topic = fields.text()?;
        if !topic::is_name(topic) {
            return Err(Broken::Malformed("the will's topic is no topic name"));
        }
        Ok(Self {
            topic,
            qos: QoS::of(qos)?,
            retain,
            payload: fields.binary()?,
            properties,
        })
    }
}
