//! MQTT topic filters as sets of topics (MQTT 5.0 section 4.7).
//!
//! A SUBSCRIBE is read by its filter, so "may receive what stands below `plant-7/`" is a question about sets: [`holds`] for
//! what is allowed, [`touches`] for what is forbidden. A name is the filter that matches itself alone.

/// Most bytes and most levels of a filter that is written in a policy.
const MAX_FILTER: (usize, usize) = (4096, 128);

/// Checks that `text` is a topic name or filter; `Err` says why not.
pub(crate) fn filter(text: &str) -> Result<&str, String> {
    let whole = text;
    let text = shared(text);
    let (before, last) = text
        .rsplit_once('/')
        .map_or((None, text), |(before, last)| (Some(before), last));
    let plain = |level: &str| level == "+" || !level.contains(['+', '#']);
    let bounded = text.len() <= MAX_FILTER.0 && text.split('/').count() <= MAX_FILTER.1;
    let good = !text.is_empty() && (last == "#" || plain(last)) && before.is_none_or(|all| all.split('/').all(plain));
    if good && bounded {
        return Ok(text);
    }
    let shown: String = whole.chars().take(80).collect();
    Err(format!(
        "`{shown}` is no topic filter: `+` stands for one whole level, `#` for all that follow, as in `plant-7/+/state/#`"
    ))
}

/// The filter of a shared subscription (section 4.8.2): which messages it matches does not depend on its group.
fn shared(text: &str) -> &str {
    let inner = text.strip_prefix("$share/").and_then(|rest| rest.split_once('/'));
    inner.map_or(text, |(_, filter)| filter)
}

/// Whether `outer` matches every topic that `inner`, a filter or a name, matches. False where either is neither.
pub(crate) fn holds(outer: &str, inner: &str) -> bool {
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
pub(crate) fn touches(one: &str, other: &str) -> bool {
    let Some((one, other)) = both(one, other) else {
        return true;
    };
    // Brokers give names of their own a meaning (`$queue/F`, `$delayed/5/T`): only what both write is known to differ.
    let own = |text: &str| text.starts_with('$') && !text.starts_with("$SYS/");
    let first = |text: &str| text.split('/').next().unwrap_or_default().to_owned();
    if (own(one) || own(other)) && first(one) != first(other) {
        return true;
    }
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
    Some((filter(one).ok()?, filter(other).ok()?))
}

#[cfg(test)]
mod tests;
