//! Tokens to an expression. Macros become nodes of their own here.

use std::sync::{Arc, OnceLock};

use super::{
    Mistake, Value,
    ast::{Expr, HEIGHT_LIMIT, Loop, LoopKind, Node, too_deep},
    lexer::{Token, tokens},
    library,
};

/// How long an expression may be, in characters, as upstream.
const SIZE_LIMIT: usize = 100_000;
/// How many patterns may stand in an expression: each is compiled, and kept.
const MOST_PATTERNS: usize = 100;

/// Parses an expression.
pub(super) fn parse(source: &str) -> Result<Expr, Mistake> {
    let size = source.chars().count();
    if size > SIZE_LIMIT {
        let what = format!("expression code point size exceeds limit: size: {size}, limit {SIZE_LIMIT}");
        return Err(Mistake { at: 0, what });
    }
    let tokens = tokens(source)?;
    let mut parser = Parser { tokens, next: 0, depth: 0 };
    let expr = parser.expression()?;
    match parser.peek() {
        Token::End => compile_patterns(&expr).map(|()| expr),
        _ => parser.unexpected("<EOF>"),
    }
}

struct Parser {
    tokens: Vec<(usize, Token)>,
    next: usize,
    depth: usize,
}

impl Parser {
    fn peek(&self) -> &Token {
        &self.tokens[self.next].1
    }

    fn at(&self) -> usize {
        self.tokens[self.next].0
    }

    fn advance(&mut self) -> Token {
        let token = self.peek().clone();
        self.next = (self.next + 1).min(self.tokens.len() - 1);
        token
    }

    fn takes(&mut self, symbol: &str) -> bool {
        let is_there = matches!(self.peek(), Token::Symbol(found) if *found == symbol);
        if is_there {
            self.advance();
        }
        is_there
    }

    fn expect(&mut self, symbol: &str) -> Result<(), Mistake> {
        if self.takes(symbol) { Ok(()) } else { self.unexpected(&format!("'{symbol}'")) }
    }

    fn unexpected<T>(&self, expected: &str) -> Result<T, Mistake> {
        let found = match self.peek() {
            Token::End => "<EOF>".to_string(),
            Token::Symbol(symbol) => symbol.to_string(),
            Token::Ident(name) => name.clone(),
            Token::Text(text) => format!("{text:?}"),
            Token::Int(number) => number.to_string(),
            Token::Uint(number) => format!("{number}u"),
            Token::Double(number) => number.to_string(),
            Token::Bytes(_) => "bytes".into(),
        };
        let what = format!("Syntax error: mismatched input '{found}' expecting {expected}");
        Err(Mistake { at: self.at(), what })
    }

    fn expression(&mut self) -> Result<Expr, Mistake> {
        self.depth += 1;
        if self.depth > HEIGHT_LIMIT {
            return Err(too_deep(self.at()));
        }
        let result = self.choice();
        self.depth -= 1;
        result
    }

    fn choice(&mut self) -> Result<Expr, Mistake> {
        let condition = self.joined(0)?;
        let at = self.at();
        if !self.takes("?") {
            return Ok(condition);
        }
        let yes = self.joined(0)?;
        self.expect(":")?;
        let no = self.expression()?;
        Expr::new(at, Node::Choice { condition: condition.into(), yes: yes.into(), no: no.into() })
    }

    /// Parts joined by operators that bind at least as tightly as `tightness` says.
    fn joined(&mut self, tightness: usize) -> Result<Expr, Mistake> {
        let mut left = self.unary()?;
        loop {
            let at = self.at();
            let Some((symbol, own)) = self.operator().filter(|(_, own)| *own >= tightness) else {
                return Ok(left);
            };
            // However many parts are joined by `&&` or `||`, they are one node.
            if matches!(symbol, "&&" | "||") {
                let mut parts = vec![left];
                while self.operator().is_some_and(|(found, _)| found == symbol) {
                    self.advance();
                    parts.push(self.joined(own + 1)?);
                }
                left = Expr::new(at, if symbol == "&&" { Node::And(parts) } else { Node::Or(parts) })?;
                continue;
            }
            self.advance();
            let right = self.joined(own + 1)?;
            let function = if symbol == "in" { "@in".to_string() } else { format!("_{symbol}_") };
            left = call(at, &function, vec![left, right])?;
        }
    }

    /// The operator that stands here, and how tightly it binds.
    fn operator(&self) -> Option<(&'static str, usize)> {
        match self.peek() {
            Token::Ident(word) if word == "in" => Some(("in", 2)),
            Token::Symbol(symbol) => match *symbol {
                "||" => Some((symbol, 0)),
                "&&" => Some((symbol, 1)),
                "==" | "!=" | "<" | "<=" | ">" | ">=" => Some((symbol, 2)),
                "+" | "-" => Some((symbol, 3)),
                "*" | "/" | "%" => Some((symbol, 4)),
                _ => None,
            },
            _ => None,
        }
    }

    fn unary(&mut self) -> Result<Expr, Mistake> {
        let at = self.at();
        let mut operators = Vec::new();
        while let Token::Symbol(symbol @ ("!" | "-")) = self.peek() {
            operators.push(*symbol);
            self.advance();
        }
        if operators.last() == Some(&"-") {
            let negative = match self.peek() {
                Token::Int(number) => Some(Value::Int(number.wrapping_neg())),
                Token::Double(number) => Some(Value::Double(-number)),
                _ => None,
            };
            if let Some(value) = negative {
                operators.pop();
                self.advance();
                let literal = Expr::new(at, Node::Literal(value))?;
                let operand = self.members(literal)?;
                return apply(at, operators, operand);
            }
        }
        if matches!(self.peek(), Token::Int(i64::MIN)) {
            return Err(Mistake { at, what: "Syntax error: invalid int literal".into() });
        }
        let primary = self.primary()?;
        let operand = self.members(primary)?;
        apply(at, operators, operand)
    }

    fn members(&mut self, mut of: Expr) -> Result<Expr, Mistake> {
        loop {
            let at = self.at();
            if self.takes(".") {
                let name = self.name()?;
                if self.takes("(") {
                    let arguments = self.arguments(")")?;
                    of = method(at, of, name, arguments)?;
                } else {
                    of = Expr::new(at, Node::Select { of: of.into(), field: name, is_optional: false })?;
                }
            } else if self.takes(".?") {
                let field = self.name()?;
                of = Expr::new(at, Node::Select { of: of.into(), field, is_optional: true })?;
            } else if self.takes("[?") {
                let key = self.expression()?;
                self.expect("]")?;
                of = Expr::new(at, Node::Index { of: of.into(), key: key.into(), is_optional: true })?;
            } else if self.takes("[") {
                let key = self.expression()?;
                self.expect("]")?;
                of = Expr::new(at, Node::Index { of: of.into(), key: key.into(), is_optional: false })?;
            } else if matches!(self.peek(), Token::Symbol("{"))
                && let Some(name) = name_of(&of)
            {
                of = self.message(of.at, name)?;
            } else {
                return Ok(of);
            }
        }
    }

    fn name(&mut self) -> Result<String, Mistake> {
        match self.peek() {
            Token::Ident(_) => match self.advance() {
                Token::Ident(name) => Ok(name),
                _ => self.unexpected("IDENTIFIER"),
            },
            _ => self.unexpected("IDENTIFIER"),
        }
    }

    fn arguments(&mut self, end: &str) -> Result<Vec<Expr>, Mistake> {
        let mut arguments = Vec::new();
        while !self.takes(end) {
            if !arguments.is_empty() {
                self.expect(",")?;
            }
            arguments.push(self.expression()?);
        }
        Ok(arguments)
    }

    fn primary(&mut self) -> Result<Expr, Mistake> {
        let at = self.at();
        let node = match self.peek().clone() {
            Token::Symbol("(") => {
                self.advance();
                let inner = self.expression()?;
                self.expect(")")?;
                return Ok(inner);
            }
            Token::Symbol("[" | "[?") => return self.list(at),
            Token::Symbol("{") => return self.map(at),
            Token::Symbol(".") => {
                self.advance();
                return match self.peek() {
                    Token::Ident(_) => self.primary(),
                    _ => self.unexpected("IDENTIFIER"),
                };
            }
            Token::Ident(name) => {
                self.advance();
                match name.as_str() {
                    "true" => Node::Literal(Value::Bool(true)),
                    "false" => Node::Literal(Value::Bool(false)),
                    "null" => Node::Literal(Value::Null),
                    "in" => return self.unexpected("an expression"),
                    _ if self.takes("(") => {
                        let arguments = self.arguments(")")?;
                        return function(at, name, arguments);
                    }
                    _ => Node::Ident(name),
                }
            }
            Token::Int(number) => self.literal(Value::Int(number)),
            Token::Uint(number) => self.literal(Value::Uint(number)),
            Token::Double(number) => self.literal(Value::Double(number)),
            Token::Text(text) => self.literal(Value::text(text)),
            Token::Bytes(bytes) => self.literal(Value::Bytes(bytes.into())),
            _ => {
                return self.unexpected("{'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}");
            }
        };
        Expr::new(at, node)
    }

    fn literal(&mut self, value: Value<'static>) -> Node {
        self.advance();
        Node::Literal(value)
    }

    fn list(&mut self, at: usize) -> Result<Expr, Mistake> {
        let mut items = Vec::new();
        let mut is_first_optional = matches!(self.advance(), Token::Symbol("[?"));
        while !self.takes("]") {
            if !items.is_empty() {
                self.expect(",")?;
                if self.takes("]") {
                    break;
                }
            }
            let is_optional = std::mem::take(&mut is_first_optional) || self.takes("?");
            items.push((self.expression()?, is_optional));
        }
        Expr::new(at, Node::List(items))
    }

    fn message(&mut self, at: usize, name: String) -> Result<Expr, Mistake> {
        self.advance();
        let mut fields = Vec::new();
        while !self.takes("}") {
            if !fields.is_empty() {
                self.expect(",")?;
                if self.takes("}") {
                    break;
                }
            }
            let is_optional = self.takes("?");
            let field = self.name()?;
            self.expect(":")?;
            fields.push((field, self.expression()?, is_optional));
        }
        Expr::new(at, Node::Message { name, fields })
    }

    fn map(&mut self, at: usize) -> Result<Expr, Mistake> {
        self.advance();
        let mut entries = Vec::new();
        while !self.takes("}") {
            if !entries.is_empty() {
                self.expect(",")?;
                if self.takes("}") {
                    break;
                }
            }
            let is_optional = self.takes("?");
            let key = self.expression()?;
            self.expect(":")?;
            entries.push((key, self.expression()?, is_optional));
        }
        Expr::new(at, Node::Map(entries))
    }
}

fn call(at: usize, function: &str, arguments: Vec<Expr>) -> Result<Expr, Mistake> {
    named_call(at, function.into(), None, arguments)
}

fn named_call(
    at: usize,
    function: String,
    target: Option<Box<Expr>>,
    arguments: Vec<Expr>,
) -> Result<Expr, Mistake> {
    Expr::new(at, Node::Call { function, target, arguments, pattern: OnceLock::new() })
}

/// Patterns that stand in an expression are compiled with it, and refused with it.
fn compile_patterns(expr: &Expr) -> Result<(), Mistake> {
    let mut count = 0;
    expr.visit(&mut |part| count += usize::from(constant_pattern(part).is_some()));
    if count > MOST_PATTERNS {
        let what =
            format!("an expression may have at most {MOST_PATTERNS} constant patterns, this one has {count}");
        return Err(Mistake { at: expr.at, what });
    }
    let mut result = Ok(());
    expr.visit(&mut |part| {
        if let (Some((at, text)), Node::Call { pattern, .. }, Ok(())) =
            (constant_pattern(part), &part.node, &result)
        {
            match library::constant_regex(text) {
                Ok(regex) => drop(pattern.set(Arc::new(regex))),
                Err(_) => result = Err(Mistake { at, what: "invalid matches argument".into() }),
            }
        }
    });
    result
}

/// The pattern of a call that stands there as it is, and where.
fn constant_pattern(expr: &Expr) -> Option<(usize, &str)> {
    let Node::Call { function, target, arguments, .. } = &expr.node else { return None };
    let argument = match (function.as_str(), arguments.as_slice()) {
        ("matches" | "find" | "findAll", [argument, ..]) if target.is_some() => argument,
        ("matches", [_, argument]) => argument,
        _ => return None,
    };
    match &argument.node {
        Node::Literal(Value::Text(text)) => Some((argument.at, text)),
        _ => None,
    }
}

fn apply(at: usize, operators: Vec<&str>, operand: Expr) -> Result<Expr, Mistake> {
    let function = |operator: &str| if operator == "!" { "!_" } else { "-_" };
    let mut operators = operators.into_iter().rev();
    operators.try_fold(operand, |operand, operator| call(at, function(operator), vec![operand]))
}

fn function(at: usize, name: String, arguments: Vec<Expr>) -> Result<Expr, Mistake> {
    if name == "has" && arguments.len() == 1 {
        return match arguments.into_iter().next().map(|argument| argument.node) {
            Some(Node::Select { of, field, is_optional: false }) => Expr::new(at, Node::Has { of, field }),
            _ => Err(Mistake { at, what: "invalid argument to has() macro".into() }),
        };
    }
    named_call(at, name, None, arguments)
}

/// A call on a value; macros and functions in a name space (`cel.bind`, `optional.of`, ...) among them.
fn method(at: usize, target: Expr, name: String, mut arguments: Vec<Expr>) -> Result<Expr, Mistake> {
    if let Node::Ident(space) = &target.node {
        if space == "cel" && name == "bind" && arguments.len() == 3 {
            let (body, value) = (arguments.pop(), arguments.pop());
            let variable = variable_of(&arguments[0])?;
            if let (Some(body), Some(value)) = (body, value) {
                return Expr::new(at, Node::Bind { variable, value: value.into(), body: body.into() });
            }
        }
        let is_space =
            matches!(space.as_str(), "optional" | "sets" | "math" | "format" | "cel" | "jsonpatch");
        if is_space || (space == "ip" && name == "isCanonical") {
            return named_call(at, format!("{space}.{name}"), None, arguments);
        }
    }
    let kind = match (name.as_str(), arguments.len()) {
        ("all", 2 | 3) => LoopKind::All,
        ("exists", 2 | 3) => LoopKind::Exists,
        ("exists_one" | "existsOne", 2 | 3) => LoopKind::ExistsOne,
        ("filter", 2) => LoopKind::Filter,
        ("map", 2 | 3) => LoopKind::Map,
        ("optMap", 2) => LoopKind::OptMap,
        ("optFlatMap", 2) => LoopKind::OptFlatMap,
        ("sortBy", 2) => LoopKind::SortBy,
        ("transformList", 3 | 4) => LoopKind::TransformList,
        ("transformMap", 3 | 4) => LoopKind::TransformMap,
        _ => {
            return named_call(at, name, Some(Box::new(target)), arguments);
        }
    };
    let variable = variable_of(&arguments[0])?;
    let has_two = matches!(kind, LoopKind::TransformList | LoopKind::TransformMap)
        || (arguments.len() == 3 && kind != LoopKind::Map);
    let second = match has_two {
        true => Some(variable_of(&arguments[1])?),
        false => None,
    };
    let mut rest = arguments.split_off(if has_two { 2 } else { 1 });
    let Some(body) = rest.pop() else {
        return Err(Mistake { at, what: format!("{name}() needs an expression") });
    };
    let inner = Loop { kind, range: target, variable, second, filter: rest.pop(), body };
    Expr::new(at, Node::Loop(inner.into()))
}

/// `a.b.c`, where an expression is no more than that.
fn name_of(expr: &Expr) -> Option<String> {
    match &expr.node {
        Node::Ident(name) => Some(name.clone()),
        Node::Select { of, field, is_optional: false } => Some(format!("{}.{field}", name_of(of)?)),
        _ => None,
    }
}

fn variable_of(expr: &Expr) -> Result<String, Mistake> {
    match &expr.node {
        Node::Ident(name) => Ok(name.clone()),
        _ => Err(Mistake { at: expr.at, what: "argument must be a simple name".into() }),
    }
}
