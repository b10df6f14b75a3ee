//! The parts of an expression joined by `&&`: their text and their trees.

use super::{Expr, IdedExpr};
use crate::guard;
use cel_interpreter::common::ast::EntryExpr;

/// The text of the part at `place` among those of `tree`; the whole text where brackets hide where it stands.
pub(super) fn text<'t>(text: &'t str, tree: &IdedExpr, place: usize) -> &'t str {
    let mut count = 0_usize;
    guard::each_conjunct(tree, &mut |_| count += 1);
    let pieces = split(text);
    let found = if pieces.len() == count { pieces.get(place) } else { None };
    found.copied().unwrap_or(text).trim()
}

/// Cuts at each `&&` outside of quotes and brackets.
fn split(text: &str) -> Vec<&str> {
    let (mut pieces, mut from, mut depth) = (Vec::new(), 0, 0_usize);
    let mut quote: Option<char> = None;
    let mut letters = text.char_indices().peekable();
    while let Some((at, letter)) = letters.next() {
        match (quote, letter) {
            (Some(_), '\\') => {
                letters.next();
            }
            (Some(open), _) if letter == open => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(letter),
            (None, '(' | '[' | '{') => depth += 1,
            (None, ')' | ']' | '}') => depth = depth.saturating_sub(1),
            // Where one of these joins parts, `&&` binds tighter and the parts are no chain.
            (None, '?') if depth == 0 => return Vec::new(),
            (None, '&') if depth == 0 && letters.peek().is_some_and(|(_, next)| *next == '&') => {
                pieces.extend(text.get(from..at));
                letters.next();
                from = at.saturating_add(2);
            }
            _ => {}
        }
    }
    pieces.extend(text.get(from..));
    pieces
}

/// Calls `visit` for each part directly inside `tree`.
pub(super) fn each_child<'t>(tree: &'t IdedExpr, visit: &mut impl FnMut(&'t IdedExpr)) {
    match &tree.expr {
        Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) | Expr::Struct(_) => {}
        Expr::Select(select) => visit(&select.operand),
        Expr::List(list) => list.elements.iter().for_each(visit),
        Expr::Call(call) => call.target.iter().map(|t| &**t).chain(&call.args).for_each(visit),
        Expr::Map(map) => {
            for entry in &map.entries {
                if let EntryExpr::MapEntry(entry) = &entry.expr {
                    visit(&entry.key);
                    visit(&entry.value);
                }
            }
        }
        Expr::Comprehension(c) => {
            [&c.iter_range, &c.accu_init, &c.loop_cond, &c.loop_step, &c.result]
                .into_iter()
                .for_each(visit);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn a_chain_is_cut_where_it_is_joined() {
        assert_eq!(split("a == 'x && y' && b"), ["a == 'x && y' ", " b"]);
        assert_eq!(split("(a && b) && c['&&'] && d.exists(x, x && y)").len(), 3);
        assert_eq!(split("'it\\'s' == a && \"'\" == b").len(), 2);
        assert!(split("a ? b && c : d").is_empty());
        assert_eq!(split("a"), ["a"]);
    }
}
