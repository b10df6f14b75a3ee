//! Topic names and filters (section 4.7): what a filter matches, what another filter holds, and whether two have anything in
//! common.
//!
//! Policy reads a SUBSCRIBE by its filter, so "may receive what stands below `plant-7/`" is a question about sets of topics:
//! [`holds`] for what is allowed, [`touches`] for what is forbidden.

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

/// Whether `outer` matches every topic that `inner`, a filter or a name, matches. False where either is neither.
#[must_use]
pub fn holds(outer: &str, inner: &str) -> bool {
    let Some((outer, inner)) = both(outer, inner) else {
        return false;
    };
    // Wildcards at the beginning match no topics of the broker's own, which begin with `$` (section 4.7.2).
    if inner.starts_with('$') && outer.starts_with(['+', '#']) {
        return false;
    }
    let (mut outer, mut inner) = (outer.split('/'), inner.split('/'));
    loop {
        match (outer.next(), inner.next()) {
            // `a/#` matches `a` too.
            (Some("#"), _) | (None, None) => return true,
            // `a/#` is more than `a/+` and more than `a`.
            (Some(_), Some("#")) => return false,
            (Some("+"), Some(_)) => {}
            (Some(left), Some(right)) if left == right => {}
            _ => return false,
        }
    }
}

/// Whether some topic is matched by both, each a filter or a name. True where either is neither: whoever forbids does not
/// let pass what cannot be read.
#[must_use]
pub fn touches(one: &str, other: &str) -> bool {
    let Some((one, other)) = both(one, other) else {
        return true;
    };
    let wild = |text: &str| text.starts_with(['+', '#']);
    if one.starts_with('$') && wild(other) || other.starts_with('$') && wild(one) {
        return false;
    }
    let (mut one, mut other) = (one.split('/'), other.split('/'));
    loop {
        match (one.next(), other.next()) {
            (Some("#"), _) | (_, Some("#")) | (None, None) => return true,
            (Some(left), Some(right)) if left == right || left == "+" || right == "+" => {}
            _ => return false,
        }
    }
}

fn both<'a>(one: &'a str, other: &'a str) -> Option<(&'a str, &'a str)> {
    (is_filter(one) && is_filter(other)).then(|| (shared(one).unwrap_or(one), shared(other).unwrap_or(other)))
}
