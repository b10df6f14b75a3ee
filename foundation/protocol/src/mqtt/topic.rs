//! What a topic name and a topic filter are (section 4.7). What filters match is the policy's to say.

/// Longest topic or filter, in bytes.
pub const MAX_TOPIC: usize = 4096;
/// Most levels of a topic or filter.
pub const MAX_LEVELS: usize = 128;

/// Whether `text` names a topic: not empty, within bounds, without wildcards, and nothing that reads as a shared
/// subscription.
#[must_use]
pub fn is_name(text: &str) -> bool {
    bounded(text) && !text.contains(['+', '#']) && !text.starts_with("$share/")
}

/// Whether `text` is a filter, `$share/GROUP/FILTER` included: wildcards stand for whole levels, `#` only for the last.
#[must_use]
pub fn is_filter(text: &str) -> bool {
    let inner = match (text.strip_prefix("$share/"), shared(text)) {
        (Some(_), None) => return false,
        (_, Some(inner)) => inner,
        (None, None) => text,
    };
    let plain = |level: &str| level == "+" || !level.contains(['+', '#']);
    let (before, last) = inner
        .rsplit_once('/')
        .map_or((None, inner), |(before, last)| (Some(before), last));
    bounded(text)
        && !inner.is_empty()
        && (last == "#" || plain(last))
        && before.is_none_or(|levels| levels.split('/').all(plain))
}

/// The filter of a shared subscription (section 4.8.2): what messages it matches does not depend on its group.
#[must_use]
pub fn shared(text: &str) -> Option<&str> {
    let (group, filter) = text.strip_prefix("$share/")?.split_once('/')?;
    (!group.is_empty() && !group.contains(['+', '#']) && !filter.is_empty()).then_some(filter)
}

fn bounded(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_TOPIC && text.split('/').count() <= MAX_LEVELS && !text.contains('\0')
}
