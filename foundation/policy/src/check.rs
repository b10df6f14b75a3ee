//! The load-time checker: every name, field, function and type of an expression, before it may be evaluated.
//!
//! CEL finds a misspelt field only when it is read, and `nosuch || true` is true: a typing mistake could pass for years. Here it
//! is a load error with a suggestion. The checker also rewrites the tree for evaluation: a dotted variable becomes one name,
//! `has(x.labels.y)` asks for presence (reading an absent label gives `''`), and literal patterns and address ranges become
//! constants compiled once.

mod call;
mod names;

use crate::expression::{Engine, Problem};
use crate::functions::Constant;
use crate::operators;
use crate::table::Type;
use cel_interpreter::common::ast::{
    ComprehensionExpr, EntryExpr, Expr, IdedEntryExpr, IdedExpr, ListExpr, LiteralValue, MapEntryExpr, MapExpr,
    SourceInfo,
};
use names::is_root;

/// The name that CEL's macros give to the value a loop builds up; no author can write it.
const ACCUMULATOR: &str = "@result";

/// An expression that passed.
pub(crate) struct Checked {
    pub(crate) tree: IdedExpr,
    pub(crate) constants: Vec<Constant>,
    /// Indices into [`crate::table::VARIABLES`], without repetition.
    pub(crate) reads: Vec<usize>,
}

/// A checked part: its type, its rewritten tree, and what is known about its value.
struct Part {
    of: Type,
    tree: IdedExpr,
    /// It reads no variable: its value can be tried at load.
    fixed: bool,
    /// It is this variable itself.
    variable: Option<usize>,
}

pub(crate) struct Checker<'e> {
    engine: &'e Engine,
    text: &'e str,
    places: &'e SourceInfo,
    problems: Vec<Problem>,
    constants: Vec<Constant>,
    reads: Vec<usize>,
    /// Variables of the loops around the part being checked, innermost last.
    locals: Vec<(String, Type)>,
}

impl<'e> Checker<'e> {
    pub(crate) fn new(engine: &'e Engine, text: &'e str, places: &'e SourceInfo) -> Self {
        let (problems, constants, reads, locals) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self {
            engine,
            text,
            places,
            problems,
            constants,
            reads,
            locals,
        }
    }

    pub(crate) fn run(mut self, tree: &IdedExpr) -> Result<Checked, Vec<Problem>> {
        let whole = self.part(tree);
        if !matches!(whole.of, Type::Bool | Type::Any) {
            self.problem(
                tree,
                format!(
                    "the expression must be true or false, but is {}",
                    with_article(&whole.of)
                ),
            );
        }
        if self.problems.is_empty() {
            Ok(Checked {
                tree: whole.tree,
                constants: self.constants,
                reads: self.reads,
            })
        } else {
            Err(self.problems)
        }
    }

    fn part(&mut self, tree: &IdedExpr) -> Part {
        match &tree.expr {
            Expr::Literal(value) => self.literal(tree, value),
            Expr::Ident(name) => self.name(tree, name),
            Expr::Select(select) => self.select(tree, select),
            Expr::Call(call) => self.call(tree, call),
            Expr::List(list) => self.list(tree, list),
            Expr::Map(map) => self.map(tree, map),
            Expr::Comprehension(comprehension) => self.comprehension(tree, comprehension),
            Expr::Struct(_) => self.wrong(tree, "messages cannot be built here", None),
            Expr::Unspecified => self.wrong(tree, "the expression is incomplete", None),
        }
    }

    fn literal(&mut self, tree: &IdedExpr, value: &LiteralValue) -> Part {
        let of = match value {
            LiteralValue::Boolean(_) => Type::Bool,
            LiteralValue::Bytes(_) => Type::Bytes,
            LiteralValue::Double(_) => Type::Double,
            LiteralValue::Int(_) => Type::Int,
            LiteralValue::UInt(_) => Type::Uint,
            LiteralValue::String(_) => Type::Text,
            LiteralValue::Null => {
                return self.wrong(
                    tree,
                    "nothing is ever null here",
                    Some("an absent label reads as ''".to_owned()),
                );
            }
        };
        Part {
            of,
            tree: tree.clone(),
            fixed: true,
            variable: None,
        }
    }

    fn list(&mut self, tree: &IdedExpr, list: &ListExpr) -> Part {
        let parts: Vec<Part> = list.elements.iter().map(|e| self.part(e)).collect();
        let mut of = Type::Any;
        for (part, written) in parts.iter().zip(&list.elements) {
            match operators::common(&of, &part.of) {
                Some(both) => of = both,
                None => {
                    let message = format!("this list mixes {of} and {}", part.of);
                    self.problem(written, message);
                }
            }
        }
        let fixed = parts.iter().all(|p| p.fixed);
        let expr = Expr::List(ListExpr::new(parts.into_iter().map(|p| p.tree).collect()));
        Part {
            of: Type::List(Box::new(of)),
            tree: IdedExpr { id: tree.id, expr },
            fixed,
            variable: None,
        }
    }

    fn map(&mut self, tree: &IdedExpr, map: &MapExpr) -> Part {
        let (mut keys, mut values, mut fixed) = (Type::Any, Type::Any, true);
        let mut entries = Vec::new();
        for entry in &map.entries {
            let EntryExpr::MapEntry(written) = &entry.expr else {
                continue;
            };
            let (key, value) = (self.part(&written.key), self.part(&written.value));
            match (operators::common(&keys, &key.of), operators::common(&values, &value.of)) {
                (Some(k), Some(v)) => (keys, values) = (k, v),
                _ => self.problem(&written.key, "this map mixes types".to_owned()),
            }
            if !matches!(key.of, Type::Text | Type::Int | Type::Uint | Type::Bool | Type::Any) {
                self.problem(&written.key, format!("{} cannot be a key", with_article(&key.of)));
            }
            fixed &= key.fixed && value.fixed;
            let expr = EntryExpr::MapEntry(MapEntryExpr {
                key: key.tree,
                value: value.tree,
                optional: false,
            });
            entries.push(IdedEntryExpr { id: entry.id, expr });
        }
        let expr = Expr::Map(MapExpr { entries });
        Part {
            of: Type::Map(Box::new(keys), Box::new(values)),
            tree: IdedExpr { id: tree.id, expr },
            fixed,
            variable: None,
        }
    }

    /// What `all`, `exists`, `exists_one`, `map` and `filter` expand to.
    fn comprehension(&mut self, tree: &IdedExpr, written: &ComprehensionExpr) -> Part {
        let range = self.part(&written.iter_range);
        let of = match &range.of {
            Type::List(of) => (**of).clone(),
            Type::Map(key, _) => (**key).clone(),
            Type::Labels => Type::Text,
            Type::Any => Type::Any,
            other => return self.wrong(tree, format!("cannot loop over {}", with_article(other)), None),
        };
        let name = &written.iter_var;
        if is_root(name) || name.starts_with('.') {
            return self.wrong(
                tree,
                format!("the loop variable `{name}` hides a variable of that name"),
                Some("call it x".to_owned()),
            );
        }
        let start = self.part(&written.accu_init);
        self.locals.push((name.clone(), of));
        self.locals.push((ACCUMULATOR.to_owned(), start.of));
        let go_on = self.part(&written.loop_cond);
        let step = self.part(&written.loop_step);
        if let Some(accumulator) = self.locals.last_mut() {
            accumulator.1 = step.of;
        }
        let result = self.part(&written.result);
        self.locals.truncate(self.locals.len().saturating_sub(2));
        let rewritten = ComprehensionExpr {
            iter_range: range.tree,
            iter_var: name.clone(),
            iter_var2: None,
            accu_var: written.accu_var.clone(),
            accu_init: start.tree,
            loop_cond: go_on.tree,
            loop_step: step.tree,
            result: result.tree,
        };
        let tree = IdedExpr {
            id: tree.id,
            expr: Expr::Comprehension(Box::new(rewritten)),
        };
        Part {
            of: result.of,
            tree,
            fixed: false,
            variable: None,
        }
    }

    fn problem(&mut self, tree: &IdedExpr, message: String) {
        self.wrong(tree, message, None);
    }

    /// Notes a problem and goes on with a part that fits everywhere, so that one mistake is told once.
    fn wrong(&mut self, tree: &IdedExpr, message: impl Into<String>, help: Option<String>) -> Part {
        let offset = self.offset(tree);
        self.note(offset, message.into(), help)
    }

    /// As [`wrong`](Self::wrong), at the name of a called function instead of its bracket.
    fn wrong_call(&mut self, tree: &IdedExpr, name: &str, message: String, help: Option<String>) -> Part {
        let bracket = self.offset(tree);
        let before = self.text.get(..bracket).unwrap_or("").trim_end();
        let offset = if before.ends_with(name) {
            before.len() - name.len()
        } else {
            bracket
        };
        self.note(offset, message, help)
    }

    fn note(&mut self, offset: usize, message: String, help: Option<String>) -> Part {
        self.problems.push(Problem { offset, message, help });
        Part {
            of: Type::Any,
            tree: IdedExpr::default(),
            fixed: false,
            variable: None,
        }
    }

    /// Where a part is written, in bytes: a dotted name at its first word, else the parser's idea.
    fn offset(&self, tree: &IdedExpr) -> usize {
        let first = match &tree.expr {
            Expr::Select(select) => &select.operand,
            _ => {
                return self
                    .places
                    .offset_for(tree.id)
                    .and_then(|(start, _)| usize::try_from(start).ok())
                    .unwrap_or(0);
            }
        };
        self.offset(first)
    }
}

fn text_of(tree: &IdedExpr) -> Option<&str> {
    match &tree.expr {
        Expr::Literal(LiteralValue::String(text)) => Some(text.inner()),
        _ => None,
    }
}

fn with_article(of: &Type) -> String {
    match of {
        Type::Int => "an int".to_owned(),
        Type::Labels | Type::Any | Type::Bytes => of.to_string(),
        _ => format!("a {of}"),
    }
}
