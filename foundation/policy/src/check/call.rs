//! Operators and function calls: their types, and what is tried out when the policy is loaded.

use super::{ACCUMULATOR, Checker, Part, text_of, with_article};
use crate::functions;
use crate::operators;
use crate::suggest;
use crate::table::{FUNCTIONS, Function, Is, Type, VARIABLES};
use crate::topics;
use cel_interpreter::common::ast::{CallExpr, Expr, IdedExpr, LiteralValue, operators as op};

/// Macros, for suggestions and for telling a wrong number of arguments from an unknown name.
const MACROS: &[&str] = &["has", "all", "exists", "exists_one", "map", "filter"];

impl Checker<'_> {
    pub(super) fn call(&mut self, tree: &IdedExpr, call: &CallExpr) -> Part {
        match operators::symbol(&call.func_name) {
            Some(symbol) => self.operator(tree, call, symbol),
            None => self.function(tree, call),
        }
    }

    fn operator(&mut self, tree: &IdedExpr, call: &CallExpr, symbol: &str) -> Part {
        let parts: Vec<Part> = call.args.iter().map(|a| self.part(a)).collect();
        let of = match self.loop_step(call, &parts) {
            Some(of) => of,
            None => {
                let types: Vec<&Type> = parts.iter().map(|p| &p.of).collect();
                match operators::result(&call.func_name, &types) {
                    Some(of) => of,
                    None => return self.operands_refused(tree, call, symbol, &parts),
                }
            }
        };
        self.closed_values(call, &parts);
        let fixed = parts.iter().all(|p| p.fixed);
        let args = parts.into_iter().map(|p| p.tree).collect();
        let tree = IdedExpr {
            id: tree.id,
            expr: Expr::Call(CallExpr {
                func_name: call.func_name.clone(),
                target: None,
                args,
            }),
        };
        let arithmetic = !matches!(
            call.func_name.as_str(),
            op::LOGICAL_AND | op::LOGICAL_OR | op::CONDITIONAL
        );
        let works = self.try_out(&tree, fixed && arithmetic);
        Part {
            of,
            tree,
            fixed: fixed && works,
            variable: None,
        }
    }

    /// The one sum of lists that is allowed: the step of `map` and `filter`, which adds one element.
    fn loop_step(&self, call: &CallExpr, parts: &[Part]) -> Option<Type> {
        let [accumulator, item] = call.args.as_slice() else {
            return None;
        };
        let ours = call.func_name == op::ADD && matches!(&accumulator.expr, Expr::Ident(name) if name == ACCUMULATOR);
        let step = ours && matches!(item.expr, Expr::List(_));
        step.then(|| parts.get(1).map(|p| p.of.clone())).flatten()
    }

    fn operands_refused(&mut self, tree: &IdedExpr, call: &CallExpr, symbol: &str, parts: &[Part]) -> Part {
        let folded = matches!(call.args.first().map(|a| &a.expr), Some(Expr::Ident(name)) if name == ACCUMULATOR);
        let inner = matches!(
            call.func_name.as_str(),
            op::LOGICAL_AND | op::LOGICAL_OR | op::CONDITIONAL
        );
        let message = match parts {
            [_, body] if folded && inner => format!(
                "the condition of the loop must be true or false, but is {}",
                with_article(&body.of)
            ),
            [one] => format!("`{symbol}` does not take {}", with_article(&one.of)),
            [item, container] if call.func_name == op::IN => format!(
                "`in` does not find {} in {}",
                with_article(&item.of),
                with_article(&container.of)
            ),
            [container, key] if call.func_name == op::INDEX => format!(
                "{} cannot be indexed with {}",
                with_article(&container.of),
                with_article(&key.of)
            ),
            [a, b] => format!(
                "`{symbol}` does not work on {} and {}",
                with_article(&a.of),
                with_article(&b.of)
            ),
            _ => format!("`{symbol}` needs a condition and two values of one type"),
        };
        let lists = parts.iter().any(|p| matches!(p.of, Type::List(_))) && call.func_name == op::ADD;
        self.wrong(
            tree,
            message,
            lists.then(|| "lists are not added; test them one by one with ||".to_owned()),
        )
    }

    /// `caller.kind == 'usr'` can never be true: the values of some variables are few and known.
    fn closed_values(&mut self, call: &CallExpr, parts: &[Part]) {
        let ([first, second], [a, b]) = (call.args.as_slice(), parts) else {
            return;
        };
        let (variable, others) = match (call.func_name.as_str(), a.variable, b.variable) {
            (op::EQUALS | op::NOT_EQUALS | op::IN, Some(variable), None) => (variable, second),
            (op::EQUALS | op::NOT_EQUALS, None, Some(variable)) => (variable, first),
            _ => return,
        };
        let Some(variable) = VARIABLES.get(variable).filter(|v| !v.values.is_empty()) else {
            return;
        };
        let written = match &others.expr {
            Expr::List(list) => list.elements.iter().collect(),
            _ => vec![others],
        };
        for value in written {
            if let Some(text) = text_of(value)
                && !variable.values.contains(&text)
            {
                let message = format!("`{}` is never '{text}'", variable.name);
                self.wrong(value, message, Some(suggest::help(text, variable.values)));
            }
        }
    }

    fn function(&mut self, tree: &IdedExpr, call: &CallExpr) -> Part {
        let name = call.func_name.as_str();
        let overloads: Vec<&Function> = FUNCTIONS.iter().filter(|f| f.name == name).collect();
        if overloads.is_empty() {
            return self.unknown_function(tree, call);
        }
        let target = call.target.as_ref().map(|t| self.part(t));
        let mut parts: Vec<Part> = call.args.iter().map(|a| self.part(a)).collect();
        let fits = |f: &&&Function| {
            f.target
                .map_or(target.is_none(), |is| target.as_ref().is_some_and(|t| is.takes(&t.of)))
                && f.params.len() == parts.len()
                && f.params.iter().zip(&parts).all(|(is, part)| is.takes(&part.of))
        };
        let Some(function) = overloads.iter().find(fits) else {
            let given: Vec<String> = parts.iter().map(|p| p.of.to_string()).collect();
            let on = target.as_ref().map_or_else(String::new, |t| format!("{}.", t.of));
            let forms: Vec<String> = overloads.iter().map(|f| form(f)).collect();
            let message = format!("there is no `{on}{name}({})`", given.join(", "));
            return self.wrong_call(tree, name, message, Some(format!("forms: {}", forms.join(", "))));
        };
        for (is, (part, written)) in function.params.iter().zip(parts.iter_mut().zip(&call.args)) {
            self.compiled(*is, part, written, name);
        }
        let fixed = target.as_ref().is_none_or(|t| t.fixed) && parts.iter().all(|p| p.fixed);
        let args = parts.into_iter().map(|p| p.tree).collect();
        let target = target.map(|t| Box::new(t.tree));
        let tree = IdedExpr {
            id: tree.id,
            expr: Expr::Call(CallExpr {
                func_name: name.to_owned(),
                target,
                args,
            }),
        };
        let works = self.try_out(&tree, fixed);
        Part {
            of: function.gives.into(),
            tree,
            fixed: fixed && works,
            variable: None,
        }
    }

    fn unknown_function(&mut self, tree: &IdedExpr, call: &CallExpr) -> Part {
        let name = call.func_name.as_str();
        if MACROS.contains(&name) {
            let help =
                "write LIST.exists(x, CONDITION); likewise all, exists_one, map, filter; and has(caller.labels.NAME)";
            return self.wrong_call(
                tree,
                name,
                format!("`{name}` is not used like this"),
                Some(help.to_owned()),
            );
        }
        let mut known: Vec<&str> = FUNCTIONS.iter().map(|f| f.name).chain(MACROS.iter().copied()).collect();
        known.sort_unstable();
        known.dedup();
        self.wrong_call(
            tree,
            name,
            format!("unknown function `{name}`"),
            Some(suggest::help(name, &known)),
        )
    }

    /// Compiles or tries out a parameter that is written out.
    fn compiled(&mut self, is: Is, part: &mut Part, written: &IdedExpr, function: &str) {
        let text = text_of(written);
        let made = match (is, text) {
            (Is::Pattern, None) => {
                let help =
                    Some("write the pattern itself, in quotes: it is compiled when the policy is loaded".to_owned());
                *part = self.wrong(written, "the pattern of `matches` must be written out", help);
                return;
            }
            (Is::Pattern, Some(text)) => functions::pattern(text).map(Some),
            (Is::Network, Some(text)) => functions::network(text).map(Some),
            (Is::Address, Some(text)) => functions::address(text).map(|_| None),
            (Is::TopicFilter, Some(text)) => topics::filter(text).map(|_| None),
            (Is::Zone, Some(_)) => self.zone(part, function).map(|()| None),
            _ => return,
        };
        match made {
            Ok(Some(constant)) => {
                let name = format!("@{}", self.constants.len());
                self.constants.push(constant);
                part.tree = IdedExpr {
                    id: part.tree.id,
                    expr: Expr::Ident(name),
                };
            }
            Ok(None) => {}
            Err(why) => *part = self.wrong(written, why, None),
        }
    }

    /// Asks the zone for its clock at 1970.
    fn zone(&self, part: &Part, function: &str) -> Result<(), String> {
        let node = |expr| IdedExpr { id: 0, expr };
        let zero = node(Expr::Literal(LiteralValue::Int(0.into())));
        let call = |func_name: &str, target, args| {
            Expr::Call(CallExpr {
                func_name: func_name.to_owned(),
                target,
                args,
            })
        };
        let moment = node(call("timestamp", None, vec![zero]));
        let asked = node(call(function, Some(Box::new(moment)), vec![part.tree.clone()]));
        self.engine.constant(&asked, &self.constants)
    }

    /// Evaluates what reads no variable: what fails now fails always.
    fn try_out(&mut self, tree: &IdedExpr, fixed: bool) -> bool {
        let Err(why) = (if fixed {
            self.engine.constant(tree, &self.constants)
        } else {
            Ok(())
        }) else {
            return true;
        };
        // What CEL's own parsers say about a bad duration or time is not for people.
        let (place, message) = match literal_argument(tree) {
            Some(("duration", place, text)) => (place, format!("`{text}` is not a duration such as 8h, 30m or 1h30m")),
            Some(("timestamp", place, text)) => (place, format!("`{text}` is not a time such as 2026-01-31T23:00:00Z")),
            _ => (tree, format!("this always fails: {why}")),
        };
        self.wrong(place, message, None);
        false
    }
}

/// The function, the place and the text of a call with one literal text.
fn literal_argument(tree: &IdedExpr) -> Option<(&str, &IdedExpr, &str)> {
    match &tree.expr {
        Expr::Call(call) => match call.args.as_slice() {
            [only] => Some((call.func_name.as_str(), only, text_of(only)?)),
            _ => None,
        },
        _ => None,
    }
}

fn form(function: &Function) -> String {
    let params: Vec<String> = function.params.iter().map(|p| Type::from(*p).to_string()).collect();
    let on = function
        .target
        .map_or_else(String::new, |t| format!("{}.", Type::from(t)));
    format!("{on}{}({})", function.name, params.join(", "))
}
