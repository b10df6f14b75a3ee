//! The metrics registry of a program, its text form, and the counter of panics.
//!
//! Each room defines and registers its own metrics; names are those of the product's contract.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, Once, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
pub use prometheus_client::registry::Registry;

/// The content type of [`Metrics::encode`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Bytes of a panic's message that reach the log, at most.
const MAX_PANIC_TEXT: usize = 256;

static PANICS: AtomicU64 = AtomicU64::new(0);

/// The metrics of one program.
#[derive(Debug)]
pub struct Metrics {
    registry: Mutex<Registry>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Makes a registry that holds `fairlead_panics_total`.
    pub fn new() -> Self {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(PanicCollector));
        Self {
            registry: Mutex::new(registry),
        }
    }

    /// Lets a room register its metrics. Counters are registered without `_total`, which the text form adds.
    pub fn register<T>(&self, add: impl FnOnce(&mut Registry) -> T) -> T {
        add(&mut self.registry.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns the present values in the OpenMetrics text form, to be served as [`CONTENT_TYPE`].
    ///
    /// # Errors
    /// A metric of a room that cannot be written as text.
    pub fn encode(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        prometheus_client::encoding::text::encode(&mut text, &registry)?;
        Ok(text)
    }
}

/// How many panics this process has had since it started.
pub fn panics() -> u64 {
    PANICS.load(Ordering::Relaxed)
}

/// Makes every panic of the process count and appear in the log as one line with its place. Before logging has started
/// the output is the usual one. A second call changes nothing.
pub fn install_panic_hook() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            PANICS.fetch_add(1, Ordering::Relaxed);
            if !tracing::dispatcher::has_been_set() {
                return usual(panic);
            }
            let message = panic.payload_as_str().unwrap_or("no message");
            let said: String = message.chars().take(MAX_PANIC_TEXT).collect();
            let place = panic.location().map(ToString::to_string);
            tracing::error!(
                place = place.as_deref().unwrap_or("unknown"),
                said,
                "the program has a fault"
            );
        }));
    });
}

/// Reads the process-wide counter into whichever registry asks.
#[derive(Debug)]
struct PanicCollector;

impl Collector for PanicCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let counter = ConstCounter::new(panics());
        let metric = encoder.encode_descriptor(
            "fairlead_panics",
            "Faults of the program that were caught",
            None,
            counter.metric_type(),
        )?;
        counter.encode(metric)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::metrics::counter::Counter;

    #[test]
    fn panics_are_counted_and_shown() {
        install_panic_hook();
        install_panic_hook();
        let before = panics();
        std::panic::catch_unwind(|| panic!("on purpose")).unwrap_err();
        // Other tests of this process may panic at the same time.
        assert!(panics() > before);
        let text = Metrics::new().encode().unwrap();
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("fairlead_panics_total "))
            .unwrap();
        assert!(line.parse::<u64>().unwrap() > before, "{text}");
    }

    #[test]
    fn a_room_registers_its_own() {
        let metrics = Metrics::new();
        let counter = metrics.register(|registry| {
            let counter = Counter::<u64>::default();
            registry.register("fairlead_room_things", "Things", counter.clone());
            counter
        });
        counter.inc();
        let text = metrics.encode().unwrap();
        assert!(text.contains("fairlead_room_things_total 1\n"), "{text}");
        assert!(text.ends_with("# EOF\n"));
    }
}
