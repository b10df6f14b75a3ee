//! One CEL expression: from text to something that can be evaluated on a request, and its evaluation.
//!
//! The evaluator has neither a type checker nor a limit on cost, and overflows the stack on deep input. So what reaches it
//! is bounded here: text of at most [`MAX_EXPRESSION_BYTES`] before it is parsed, a tree of at most [`MAX_NODES`] nodes and
//! [`MAX_DEPTH`] levels with loops one level deep, checked by check.rs. [`Engine::compile`] recurses as deep as the text
//! allows: it must run on the loader's large stack (policy.rs). Evaluation at the limits takes less than
//! 100 KiB of stack in a release build and 1.5 MiB in a debug build (tests/bounds.rs).

use crate::check::Checker;
use crate::facts::{Facts, View};
use crate::functions;
use crate::mistake::{At, Report};
use crate::place;
use cel_interpreter::common::ast::{EntryExpr, Expr, IdedExpr};
use cel_interpreter::common::functions::Function;
use cel_interpreter::common::types::{CelBool, CelInt, CelString};
use cel_interpreter::common::value::{CowVal, Val};
use cel_interpreter::{Context, Env, ExecutionError, Value};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

pub(crate) use crate::functions::Constant;

/// Longest expression, in bytes.
pub const MAX_EXPRESSION_BYTES: usize = 2048;
/// Most nodes of an expression's tree. `caller.name == 'alice'` has 4.
pub const MAX_NODES: usize = 256;
/// Most levels of an expression's tree.
pub const MAX_DEPTH: usize = 32;

/// What all expressions of a policy share: the functions.
pub(crate) struct Engine {
    env: Arc<Env>,
    /// CEL's `timestamp(int)`: makes values of a type that is not ours to construct.
    timestamp: Option<Function>,
}

/// A compiled, checked expression.
pub(crate) struct Expression {
    /// As written.
    text: String,
    tree: IdedExpr,
    constants: Vec<Constant>,
    /// Indices into [`crate::table::VARIABLES`].
    pub(crate) reads: Vec<usize>,
}

/// What an evaluation came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    True,
    False,
    /// It hangs on a fact that is not known here.
    Unknown,
    Failed,
}

impl Engine {
    pub(crate) fn new() -> Self {
        let mut env = Env::stdlib().with_optional_support(false);
        functions::register(&mut env);
        let timestamp = env.find_overload("timestamp", &[CowVal::owned(CelInt::from(0))]);
        Self {
            env: Arc::new(env),
            timestamp,
        }
    }

    /// The CEL timestamp of whole seconds since 1970; `None` outside the years 1 to 9999.
    pub(crate) fn timestamp(&self, seconds: i64) -> Option<Box<dyn Val>> {
        let make = self.timestamp?;
        make(vec![CowVal::owned(CelInt::from(seconds))])
            .ok()
            .map(CowVal::into_owned)
    }

    /// Compiles `text`, spelt at `at`; on failure the report holds every mistake in it.
    pub(crate) fn compile(&self, text: &str, at: At, report: &mut Report<'_>) -> Option<Expression> {
        if text.len() > MAX_EXPRESSION_BYTES {
            let help = Some("split it: all expressions of a rule must be true".to_owned());
            report.mistake(
                at,
                format!(
                    "the expression has {} bytes; at most {MAX_EXPRESSION_BYTES} are read",
                    text.len()
                ),
                help,
            );
            return None;
        }
        if text.trim().is_empty() {
            report.mistake(at, "the expression is empty", None);
            return None;
        }
        // INVARIANT: nothing that the parser says in a panic or in its own Display is shown; both can panic again.
        let result = catch_unwind(AssertUnwindSafe(|| self.parse_and_check(text)));
        match result {
            Ok(Ok(expression)) => Some(expression),
            Ok(Err(problems)) => {
                for problem in problems {
                    let place = place::inside(report.text(), at, text, problem.offset);
                    report.mistake(place, problem.message, problem.help);
                }
                None
            }
            Err(_) => {
                report.mistake(
                    at,
                    "the expression cannot be read",
                    Some("write it more simply".to_owned()),
                );
                None
            }
        }
    }

    fn parse_and_check(&self, text: &str) -> Result<Expression, Vec<Problem>> {
        let program = self.env.compile(text).map_err(|errors| vec![syntax(text, &errors)])?;
        measure(program.expression()).map_err(|message| vec![Problem::new(0, message)])?;
        let checked = Checker::new(self, text, program.source_info()).run(program.expression())?;
        Ok(Expression {
            text: text.to_owned(),
            tree: checked.tree,
            constants: checked.constants,
            reads: checked.reads,
        })
    }

    /// Evaluates a tree without variables; `Err` tells why it always fails.
    pub(crate) fn constant(&self, tree: &IdedExpr, constants: &[Constant]) -> Result<(), String> {
        let view = View {
            facts: None,
            act: None,
            constants,
        };
        let mut context = Context::with_env(Arc::clone(&self.env));
        context.set_variable_resolver(&view);
        Value::resolve_val(tree, &context).map(drop).map_err(reason)
    }
}

impl Expression {
    /// The checked tree.
    pub(crate) fn tree(&self) -> &IdedExpr {
        &self.tree
    }

    /// The expression as written.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Evaluates on `facts`, with the act bound where the decision is about one.
    pub(crate) fn evaluate(&self, engine: &Engine, facts: &Facts<'_>, act: Option<&CelString<'_>>) -> Outcome {
        match self.resolve(&self.tree, engine, facts, act) {
            Ok(true) => Outcome::True,
            Ok(false) => Outcome::False,
            Err(Some(ExecutionError::UndeclaredReference(_))) => Outcome::Unknown,
            Err(_) => Outcome::Failed,
        }
    }

    /// Evaluates a part of the tree that is true or false, and says why it failed or what is not known.
    pub(crate) fn evaluate_part(
        &self,
        part: &IdedExpr,
        engine: &Engine,
        facts: &Facts<'_>,
        act: Option<&CelString<'_>>,
    ) -> (Outcome, Option<String>) {
        match self.resolve(part, engine, facts, act) {
            Ok(true) => (Outcome::True, None),
            Ok(false) => (Outcome::False, None),
            Err(Some(ExecutionError::UndeclaredReference(name))) => {
                (Outcome::Unknown, Some(format!("`{name}` is not known here")))
            }
            Err(Some(error)) => (Outcome::Failed, Some(reason(error))),
            Err(None) => (Outcome::Failed, None),
        }
    }

    /// `Err(None)` where the evaluator itself failed, or gave what is neither true nor false.
    fn resolve(
        &self,
        tree: &IdedExpr,
        engine: &Engine,
        facts: &Facts<'_>,
        act: Option<&CelString<'_>>,
    ) -> Result<bool, Option<ExecutionError>> {
        let view = View {
            facts: Some(facts),
            act,
            constants: &self.constants,
        };
        let mut context = Context::with_env(Arc::clone(&engine.env));
        context.set_variable_resolver(&view);
        // A panic inside the evaluator is a failed evaluation of one rule, never the end of the caller's task.
        let result = catch_unwind(AssertUnwindSafe(|| {
            Value::resolve_val(tree, &context).map(|value| value.downcast_ref::<CelBool>().map(|b| *b.inner()))
        }));
        match result {
            Ok(Ok(Some(value))) => Ok(value),
            Ok(Err(error)) => Err(Some(error)),
            Ok(Ok(None)) | Err(_) => Err(None),
        }
    }
}

/// An error of the evaluator in few words.
fn reason(error: ExecutionError) -> String {
    match error {
        ExecutionError::FunctionError { message, .. } => message,
        ExecutionError::DivisionByZero(_) | ExecutionError::RemainderByZero(_) => "division by zero".to_owned(),
        ExecutionError::Overflow(..) => "the result is out of range".to_owned(),
        other => other.to_string(),
    }
}

/// Something wrong at a byte of an expression.
#[derive(Debug)]
pub(crate) struct Problem {
    pub(crate) offset: usize,
    pub(crate) message: String,
    pub(crate) help: Option<String>,
}

impl Problem {
    pub(crate) fn new(offset: usize, message: impl Into<String>) -> Self {
        Self {
            offset,
            message: message.into(),
            help: None,
        }
    }
}

/// The first syntax error, in few words.
fn syntax(text: &str, errors: &cel_interpreter::ParseErrors) -> Problem {
    let Some(error) = errors.errors.first() else {
        return Problem::new(0, "the expression cannot be read");
    };
    let (line, column) = (
        usize::try_from(error.pos.0).unwrap_or(1),
        usize::try_from(error.pos.1).unwrap_or(1),
    );
    let message = error.msg.trim_start_matches("Syntax error: ");
    // The parser lists every token it would have taken: thirty of them help nobody.
    let message = message.split(" expecting {").next().unwrap_or(message);
    let message: String = message.chars().take(200).collect();
    let mut problem = Problem::new(
        byte_of(text, line, column),
        format!("not a CEL expression: {}", message.replace("<EOF>", "end of text")),
    );
    if text.contains(" and ") || text.contains(" or ") || text.contains(" = ") {
        problem.help = Some("CEL writes `&&`, `||` and `==`".to_owned());
    }
    problem
}

/// The byte offset of a line and column, both from 1.
fn byte_of(text: &str, line: usize, column: usize) -> usize {
    let start: usize = text
        .split_inclusive('\n')
        .take(line.saturating_sub(1))
        .map(str::len)
        .sum();
    let rest = text.get(start..).unwrap_or("");
    start
        + rest
            .chars()
            .take(column.saturating_sub(1))
            .map(char::len_utf8)
            .sum::<usize>()
}

/// Refuses trees that would take long to check or to evaluate, and stops walking at the first limit.
fn measure(tree: &IdedExpr) -> Result<(), String> {
    let mut nodes = 0;
    walk(tree, 1, 0, &mut nodes)
}

fn walk(tree: &IdedExpr, depth: usize, loops: usize, nodes: &mut usize) -> Result<(), String> {
    *nodes += 1;
    if *nodes > MAX_NODES {
        return Err(format!("the expression has more than {MAX_NODES} parts"));
    }
    if depth > MAX_DEPTH {
        return Err(format!("the expression is nested deeper than {MAX_DEPTH} levels"));
    }
    let mut each = |part: &IdedExpr, loops: usize| walk(part, depth + 1, loops, nodes);
    match &tree.expr {
        Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) => Ok(()),
        Expr::Select(select) => each(&select.operand, loops),
        Expr::List(list) => list.elements.iter().try_for_each(|e| each(e, loops)),
        Expr::Call(call) => call
            .target
            .iter()
            .map(|t| &**t)
            .chain(&call.args)
            .try_for_each(|e| each(e, loops)),
        Expr::Map(map) => entries(&map.entries).try_for_each(|e| each(e, loops)),
        Expr::Struct(structure) => entries(&structure.entries).try_for_each(|e| each(e, loops)),
        Expr::Comprehension(comprehension) => {
            if loops > 0 {
                return Err("a loop (all, exists, map, filter) inside a loop".to_owned());
            }
            let inside = [
                &comprehension.loop_cond,
                &comprehension.loop_step,
                &comprehension.result,
            ];
            each(&comprehension.iter_range, loops)?;
            each(&comprehension.accu_init, loops)?;
            inside.into_iter().try_for_each(|part| each(part, loops + 1))
        }
    }
}

fn entries(entries: &[cel_interpreter::common::ast::IdedEntryExpr]) -> impl Iterator<Item = &IdedExpr> {
    entries
        .iter()
        .flat_map(|entry| match &entry.expr {
            EntryExpr::StructField(field) => [None, Some(&field.value)],
            EntryExpr::MapEntry(entry) => [Some(&entry.key), Some(&entry.value)],
        })
        .flatten()
}
