//! Log lines as journald entries with fields, so that `journalctl FAIRLEAD_SESSION=...` finds one session.

use std::fmt::{self, Write as _};
use std::io::Write as _;

use systemd::logging::{Priority, journal_send};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

/// Before each of our field names, so that none takes the place of one of journald's.
const PREFIX: &str = "FAIRLEAD_";
/// Bytes of one value, at most.
const MAX_VALUE: usize = 4 * 1024;

/// Sends every event to journald, with its own fields and those of the spans around it.
pub(super) struct Journal;

/// The fields of a span or event, as journald names them.
#[derive(Default)]
struct Fields {
    message: String,
    named: Vec<(String, String)>,
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Journal {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        span.extensions_mut().insert(fields);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        if let Some(fields) = span.extensions_mut().get_mut::<Fields>() {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut all = Fields::default();
        all.named
            .push(("TARGET".to_owned(), event.metadata().target().to_owned()));
        for span in context.event_scope(event).into_iter().flatten() {
            if let Some(fields) = span.extensions().get::<Fields>() {
                all.named.extend(fields.named.iter().cloned());
            }
        }
        event.record(&mut all);
        let priority = priority(*event.metadata().level());
        let named = all.named.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        if journal_send(priority, &all.message, named).is_err() {
            // Standard error leads to the journal too, without fields. There is no third place.
            drop(writeln!(std::io::stderr(), "{}", all.message));
        }
    }
}

impl Fields {
    fn put(&mut self, field: &Field, value: String) {
        let value = match value.char_indices().nth(MAX_VALUE) {
            Some((end, _)) => value.get(..end).unwrap_or("").to_owned(),
            None => value,
        };
        if field.name() == "message" {
            self.message = value;
        } else {
            self.named.push((name_of(field.name()), value));
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let mut text = String::new();
        // A value that cannot be shown leaves what it wrote so far.
        let _shown = write!(text, "{value:?}");
        self.put(field, text);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.to_owned());
    }
}

/// journald takes capital letters, digits and underscores.
fn name_of(field: &str) -> String {
    let allowed = |letter: char| {
        if letter.is_ascii_alphanumeric() {
            letter.to_ascii_uppercase()
        } else {
            '_'
        }
    };
    PREFIX.chars().chain(field.chars().map(allowed)).collect()
}

fn priority(level: Level) -> Priority {
    match level {
        Level::ERROR => Priority::Error,
        Level::WARN => Priority::Warning,
        Level::INFO => Priority::Info,
        _ => Priority::Debug,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn field_names_are_journalds() {
        assert_eq!(name_of("session"), "FAIRLEAD_SESSION");
        assert_eq!(name_of("otel.kind-x"), "FAIRLEAD_OTEL_KIND_X");
    }
}
