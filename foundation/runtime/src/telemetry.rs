//! Logs on standard error: text for people, JSON lines for machines, entries with fields where journald listens.
//!
//! Audit is not logging: it has its own room and its own file.

mod journal;

use std::io::IsTerminal;

use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// The environment variable that chooses what is logged, e.g. `debug` or `info,quinn=warn`.
pub const FILTER_VARIABLE: &str = "FAIRLEAD_LOG";

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// One line of text, coloured only on a terminal; as a service under systemd, journald entries with fields.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// Why logging could not start.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter cannot be read.
    #[error("{FILTER_VARIABLE} cannot be understood: {0}; write a level such as `debug`, or `info,quinn=warn`")]
    Filter(String),
    /// Another subscriber is there already.
    #[error("logging was started twice in this process")]
    AlreadyStarted,
}

/// Starts logging to standard error with the filter of [`FILTER_VARIABLE`], `info` when it is unset or empty.
///
/// # Errors
/// [`TelemetryError`]; nothing is logged then.
pub fn init(format: Format) -> Result<(), TelemetryError> {
    let filter = filter(std::env::var(FILTER_VARIABLE).ok().as_deref())?;
    let registry = tracing_subscriber::registry().with(filter);
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let started = match format {
        Format::Text if systemd::logging::connected_to_journal() => registry.with(journal::Journal).try_init(),
        Format::Text => registry
            .with(layer.with_ansi(std::io::stderr().is_terminal()))
            .try_init(),
        Format::Json => registry
            .with(layer.json().flatten_event(true).with_current_span(false))
            .try_init(),
    };
    started.map_err(|_| TelemetryError::AlreadyStarted)
}

/// By level and target, which takes no regular expressions: those of `EnvFilter` weigh 300 KiB in a device's program.
fn filter(written: Option<&str>) -> Result<Targets, TelemetryError> {
    let text = written.map(str::trim).filter(|text| !text.is_empty()).unwrap_or("info");
    text.parse()
        .map_err(|error: tracing_subscriber::filter::ParseError| TelemetryError::Filter(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::own_process;

    #[test]
    fn the_filter_defaults_to_info_and_names_its_variable_when_wrong() {
        assert_eq!(filter(None).unwrap().to_string(), "info");
        assert_eq!(filter(Some(" ")).unwrap().to_string(), "info");
        assert_eq!(filter(Some("warn")).unwrap().to_string(), "warn");
        assert_eq!(filter(Some("info,quinn=warn")).unwrap().to_string(), "quinn=warn,info");
        let error = filter(Some("quinn=loud")).unwrap_err().to_string();
        assert!(error.contains(FILTER_VARIABLE), "{error}");
    }

    fn stderr_of(format: &str, level: &str) -> String {
        let output = own_process::command("telemetry::tests::logs")
            .env("FAIRLEAD_TEST_FORMAT", format)
            .env(FILTER_VARIABLE, level)
            .output()
            .unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stderr).unwrap()
    }

    #[test]
    fn json_lines_carry_fields_and_spans_and_go_to_standard_error() {
        let stderr = stderr_of("json", "info");
        let lines: Vec<serde_json::Value> = stderr.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2, "{stderr}");
        assert_eq!((&lines[0]["level"], &lines[0]["count"]), (&"INFO".into(), &3.into()));
        assert_eq!(lines[0]["spans"][0]["session"], "s-1");
        assert!(lines[1]["message"].as_str().unwrap().contains("fault"), "{stderr}");
    }

    #[test]
    fn text_has_no_colours_where_nobody_looks_and_follows_the_filter() {
        let stderr = stderr_of("text", "debug");
        assert!(stderr.contains("a detail") && stderr.contains("count=3"), "{stderr}");
        assert!(!stderr.contains('\u{1b}'), "{stderr}");
    }

    #[test]
    #[ignore = "needs a process of its own; run by the tests above"]
    fn logs() {
        let format = match std::env::var("FAIRLEAD_TEST_FORMAT").as_deref() {
            Ok("json") => Format::Json,
            Ok(_) => Format::Text,
            Err(_) => return,
        };
        init(format).unwrap();
        assert!(matches!(init(format), Err(TelemetryError::AlreadyStarted)));
        crate::metrics::install_panic_hook();
        let _span = tracing::info_span!("session", session = "s-1").entered();
        tracing::debug!("a detail");
        tracing::info!(count = 3, "a change");
        std::panic::catch_unwind(|| panic!("on purpose")).unwrap_err();
    }
}
