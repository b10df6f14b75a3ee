//! Expressions as trees of this test's own, and how CEL spells them.

use std::fmt::Write;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Infix {
    Or,
    And,
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    In,
    Plus,
    Minus,
    Times,
    Over,
    Rest,
}

impl Infix {
    fn word(self) -> &'static str {
        match self {
            Self::Or => "||",
            Self::And => "&&",
            Self::Equal => "==",
            Self::NotEqual => "!=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
            Self::In => "in",
            Self::Plus => "+",
            Self::Minus => "-",
            Self::Times => "*",
            Self::Over => "/",
            Self::Rest => "%",
        }
    }

    /// How tightly it binds.
    fn level(self) -> u8 {
        match self {
            Self::Or => 2,
            Self::And => 3,
            Self::Plus | Self::Minus => 5,
            Self::Times | Self::Over | Self::Rest => 6,
            _ => 4,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Loop {
    All,
    Exists,
    ExistsOne,
    Filter,
    Map,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Tree {
    Bool(bool),
    Int(i64),
    Text(String),
    /// `timestamp('…')`, in seconds.
    Moment(i64),
    /// `duration('…s')`.
    Span(i64),
    List(Vec<Tree>),
    /// A variable by its whole name, or a loop's variable.
    Name(&'static str),
    /// `labels.key`.
    Field(&'static str, &'static str),
    /// `has(labels.key)`.
    Has(&'static str, &'static str),
    Index(Box<Tree>, Box<Tree>),
    Not(Box<Tree>),
    Choice(Box<Tree>, Box<Tree>, Box<Tree>),
    Infix(Infix, Box<Tree>, Box<Tree>),
    /// `name(arguments)`.
    Call(&'static str, Vec<Tree>),
    /// `target.name(arguments)`.
    Method(Box<Tree>, &'static str, Vec<Tree>),
    /// Over the first, with `x`.
    Loop(Loop, Box<Tree>, Box<Tree>),
}

impl Tree {
    pub(crate) fn infix(operator: Infix, left: Tree, right: Tree) -> Self {
        Self::Infix(operator, Box::new(left), Box::new(right))
    }

    /// The CEL text, with no more brackets than it takes.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        self.write(0, &mut text);
        text
    }

    fn level(&self) -> u8 {
        match self {
            Self::Choice(..) => 1,
            Self::Infix(operator, ..) => operator.level(),
            Self::Not(_) => 7,
            Self::Int(number) if *number < 0 => 7,
            _ => 8,
        }
    }

    fn write(&self, above: u8, out: &mut String) {
        let bracketed = self.level() < above;
        if bracketed {
            out.push('(');
        }
        self.write_bare(out);
        if bracketed {
            out.push(')');
        }
    }

    fn write_bare(&self, out: &mut String) {
        match self {
            Self::Bool(value) => write!(out, "{value}").unwrap(),
            Self::Int(number) => write!(out, "{number}").unwrap(),
            Self::Text(text) => quoted(text, out),
            Self::Moment(seconds) => write!(out, "timestamp('{}')", super::calendar::rfc3339(*seconds)).unwrap(),
            Self::Span(seconds) => write!(out, "duration('{seconds}s')").unwrap(),
            Self::List(items) => {
                out.push('[');
                arguments(items, out);
                out.push(']');
            }
            Self::Name(name) => out.push_str(name),
            Self::Field(labels, key) => write!(out, "{labels}.{key}").unwrap(),
            Self::Has(labels, key) => write!(out, "has({labels}.{key})").unwrap(),
            Self::Index(container, key) => {
                container.write(8, out);
                out.push('[');
                key.write(0, out);
                out.push(']');
            }
            Self::Not(inner) => {
                out.push('!');
                inner.write(8, out);
            }
            Self::Choice(condition, yes, no) => {
                condition.write(2, out);
                out.push_str(" ? ");
                yes.write(2, out);
                out.push_str(" : ");
                no.write(1, out);
            }
            Self::Infix(operator, left, right) => {
                left.write(operator.level(), out);
                write!(out, " {} ", operator.word()).unwrap();
                right.write(operator.level() + 1, out);
            }
            Self::Call(name, given) => {
                write!(out, "{name}(").unwrap();
                arguments(given, out);
                out.push(')');
            }
            Self::Method(target, name, given) => {
                target.write(8, out);
                write!(out, ".{name}(").unwrap();
                arguments(given, out);
                out.push(')');
            }
            Self::Loop(kind, over, body) => {
                over.write(8, out);
                let name = match kind {
                    Loop::All => "all",
                    Loop::Exists => "exists",
                    Loop::ExistsOne => "exists_one",
                    Loop::Filter => "filter",
                    Loop::Map => "map",
                };
                write!(out, ".{name}(x, ").unwrap();
                body.write(0, out);
                out.push(')');
            }
        }
    }
}

fn arguments(given: &[Tree], out: &mut String) {
    for (place, argument) in given.iter().enumerate() {
        if place > 0 {
            out.push_str(", ");
        }
        argument.write(0, out);
    }
}

fn quoted(text: &str, out: &mut String) {
    out.push('\'');
    for letter in text.chars() {
        if matches!(letter, '\'' | '\\') {
            out.push('\\');
        }
        out.push(letter);
    }
    out.push('\'');
}
