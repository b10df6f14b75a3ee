//! YAML text to a typed value, strictly: unknown keys come from the type (`deny_unknown_fields`), everything else that
//! could be read in two ways is refused here.

use serde::de::DeserializeOwned;
use serde_yaml::options::{DuplicateKeyPolicy, MergeKeyPolicy};

use super::Mistake;
use super::explain::explain;

/// Nesting of lists and maps; the deepest file of ours needs about ten.
pub(super) const MAX_DEPTH: usize = 32;
/// Scalars, lists and maps in one file.
pub(super) const MAX_NODES: usize = 400_000;

/// Reads `text` as a `T`. `file` is its name in mistakes.
///
/// Refused whatever the type says: a key written twice, anchors and aliases, merge keys, tags, several documents, `yes`
/// and `no` as truth values, NUL bytes, and more than 400,000 values or 32 levels. The size of `text` is the caller's to
/// bound ([`super::read`] does).
///
/// # Errors
/// The first mistake, with its place; a list, so that what the caller checks afterwards can be added to it.
pub fn parse<T: DeserializeOwned>(file: &str, text: &str) -> Result<T, Vec<Mistake>> {
    if text.contains('\0') {
        return Err(vec![Mistake::about(file, "a NUL byte: this is not a text file")]);
    }
    serde_yaml::from_str_with_options(text, options()).map_err(|error| vec![explain(file, text, &error)])
}

fn options() -> serde_yaml::Options {
    serde_yaml::options! {
        budget: serde_yaml::budget! {
            max_depth: MAX_DEPTH,
            flow_nesting_limit: MAX_DEPTH,
            max_nodes: MAX_NODES,
            max_events: 3 * MAX_NODES,
            max_aliases: 0,
            max_anchors: 0,
            max_documents: 1,
        },
        duplicate_keys: DuplicateKeyPolicy::Error,
        merge_keys: MergeKeyPolicy::Error,
        strict_booleans: true,
        reject_unsupported_tags: true,
        with_snippet: false,
    }
}
