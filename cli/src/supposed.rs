//! What a question supposes that an MQTT client says: flags that `fairlead explain` and `fairlead policy explain` share.

use clap::Args;
use fairlead_identity::name::{EndpointUrl, Protocol};

use crate::command::CommandError;

/// The client's own words, where the question is about an `mqtt://` endpoint.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Supposed {
    /// The client identifier that CONNECT says; of MQTT only, like the following
    #[arg(long, value_name = "ID")]
    pub(crate) client_id: Option<String>,
    /// The user name that CONNECT says
    #[arg(long, value_name = "NAME")]
    pub(crate) username: Option<String>,
    /// The topic of `--act publish`, or the filter of `--act subscribe`
    #[arg(long, requires = "act")]
    pub(crate) topic: Option<String>,
    /// The quality of service [default: 0]
    #[arg(long, requires = "topic", value_parser = clap::value_parser!(u8).range(0..=2))]
    pub(crate) qos: Option<u8>,
    /// The broker is to keep the message
    #[arg(long, requires = "topic")]
    pub(crate) retain: bool,
}

impl Supposed {
    /// Whether anything is supposed.
    pub(crate) fn is_any(&self) -> bool {
        self.client_id.is_some() || self.username.is_some() || self.topic.is_some()
    }

    /// Refuses what the endpoint's protocol does not have.
    ///
    /// # Errors
    /// Usage: the endpoint is not one of MQTT.
    pub(crate) fn check(&self, url: &EndpointUrl) -> Result<(), CommandError> {
        if self.is_any() && url.protocol != Protocol::Mqtt {
            let text = format!(
                "--client-id, --username and --topic are of mqtt, not of {}",
                url.protocol
            );
            return Err(CommandError::usage(text));
        }
        Ok(())
    }
}
