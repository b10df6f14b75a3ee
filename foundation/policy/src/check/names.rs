//! Names: variables, fields of labels, loop variables, and what was probably meant by the others.

use super::{ACCUMULATOR, Checker, Part, with_article};
use crate::suggest;
use crate::table::{Type, VARIABLES};
use cel_interpreter::common::ast::{CallExpr, Expr, IdedExpr, LiteralValue, SelectExpr, operators as op};

impl Checker<'_> {
    pub(super) fn name(&mut self, tree: &IdedExpr, name: &str) -> Part {
        if let Some((_, of)) = self.locals.iter().rev().find(|(local, _)| local == name) {
            return Part {
                of: of.clone(),
                tree: tree.clone(),
                fixed: false,
                variable: None,
            };
        }
        if is_root(name) {
            let help = format!("write one of its fields: {}", fields_of(name).join(", "));
            return self.wrong(tree, format!("`{name}` is a group of variables"), Some(help));
        }
        let mut known: Vec<&str> = roots().collect();
        let locals = self.locals.iter().map(|(local, _)| local.as_str());
        known.extend(locals.filter(|local| *local != ACCUMULATOR));
        let help = suggest::help(name, &known);
        self.wrong(tree, format!("unknown variable `{name}`"), Some(help))
    }

    pub(super) fn select(&mut self, tree: &IdedExpr, select: &SelectExpr) -> Part {
        if select.test {
            return self.presence(tree, select);
        }
        if let Some(path) = dotted(tree)
            && path
                .split('.')
                .next()
                .is_some_and(|root| is_root(root) && !self.is_local(root))
        {
            if let Some(index) = VARIABLES.iter().position(|v| v.name == path) {
                return self.variable(tree, index);
            }
            // What stands before the last word may be a variable, and that word a label.
            if !starts_with_variable(&path) {
                return self.unknown_variable(tree, &path);
            }
        }
        let operand = self.part(&select.operand);
        let of = match &operand.of {
            Type::Labels => Type::Text,
            Type::Map(key, value) if matches!(**key, Type::Text | Type::Any) => (**value).clone(),
            Type::Any => Type::Any,
            other => {
                let message = format!("{} has no field `{}`", with_article(other), select.field);
                return self.wrong(tree, message, None);
            }
        };
        let rewritten = SelectExpr {
            operand: Box::new(operand.tree),
            field: select.field.clone(),
            test: false,
        };
        Part {
            of,
            tree: IdedExpr {
                id: tree.id,
                expr: Expr::Select(rewritten),
            },
            fixed: operand.fixed,
            variable: None,
        }
    }

    fn unknown_variable(&mut self, tree: &IdedExpr, path: &str) -> Part {
        if is_prefix(path) {
            let help = format!("write one of its fields: {}", fields_of(path).join(", "));
            return self.wrong(tree, format!("`{path}` is a group of variables"), Some(help));
        }
        let help = suggest::nearest(path, VARIABLES.iter().map(|v| v.name)).map_or_else(
            || {
                format!(
                    "known here: {}",
                    fields_of(path.split('.').next().unwrap_or(path)).join(", ")
                )
            },
            |near| format!("did you mean `{near}`?"),
        );
        self.wrong(tree, format!("unknown variable `{path}`"), Some(help))
    }

    fn variable(&mut self, tree: &IdedExpr, index: usize) -> Part {
        let Some(variable) = VARIABLES.get(index) else {
            return self.wrong(tree, "unknown variable", None);
        };
        if !self.reads.contains(&index) {
            self.reads.push(index);
        }
        let tree = IdedExpr {
            id: tree.id,
            expr: Expr::Ident(variable.name.to_owned()),
        };
        Part {
            of: variable.is.into(),
            tree,
            fixed: false,
            variable: Some(index),
        }
    }

    /// `has(labels.key)`, as `'key' in labels`.
    fn presence(&mut self, tree: &IdedExpr, select: &SelectExpr) -> Part {
        let group = dotted(&select.operand).is_some_and(|path| is_prefix(&path) && !self.is_local(&path));
        let operand = if group { None } else { Some(self.part(&select.operand)) };
        match operand {
            Some(Part {
                of: Type::Labels | Type::Map(..) | Type::Any,
                tree: container,
                fixed,
                ..
            }) => {
                let key = LiteralValue::String(select.field.clone().into());
                let key = IdedExpr {
                    id: tree.id,
                    expr: Expr::Literal(key),
                };
                let call = CallExpr {
                    func_name: op::IN.to_owned(),
                    target: None,
                    args: vec![key, container],
                };
                Part {
                    of: Type::Bool,
                    tree: IdedExpr {
                        id: tree.id,
                        expr: Expr::Call(call),
                    },
                    fixed,
                    variable: None,
                }
            }
            _ => {
                let help = Some(
                    "use it as has(caller.labels.NAME) or has(agent.labels.NAME); every other variable is always there"
                        .to_owned(),
                );
                self.wrong(tree, "has() works on labels", help)
            }
        }
    }

    pub(super) fn is_local(&self, name: &str) -> bool {
        self.locals.iter().any(|(local, _)| local == name)
    }
}

/// The dotted name that a chain of fields spells.
pub(super) fn dotted(tree: &IdedExpr) -> Option<String> {
    match &tree.expr {
        Expr::Ident(name) => Some(name.clone()),
        Expr::Select(select) if !select.test => Some(format!("{}.{}", dotted(&select.operand)?, select.field)),
        _ => None,
    }
}

/// `caller`, `agent`, …
fn roots() -> impl Iterator<Item = &'static str> {
    let root = |name: &'static str| name.split('.').next().unwrap_or(name);
    let mut before = "";
    VARIABLES
        .iter()
        .map(move |v| root(v.name))
        .filter(move |r| std::mem::replace(&mut before, r) != *r)
}

pub(super) fn is_root(name: &str) -> bool {
    roots().any(|root| root == name)
}

/// Whether variables stand below this name: `conn`, `conn.tls`.
fn is_prefix(path: &str) -> bool {
    VARIABLES
        .iter()
        .any(|v| v.name.strip_prefix(path).is_some_and(|rest| rest.starts_with('.')))
}

/// Whether a variable's whole name is the beginning of this path.
fn starts_with_variable(path: &str) -> bool {
    VARIABLES
        .iter()
        .any(|v| path.strip_prefix(v.name).is_some_and(|rest| rest.starts_with('.')))
}

fn fields_of(group: &str) -> Vec<&'static str> {
    VARIABLES
        .iter()
        .map(|v| v.name)
        .filter(|name| name.strip_prefix(group).is_some_and(|rest| rest.starts_with('.')))
        .collect()
}
