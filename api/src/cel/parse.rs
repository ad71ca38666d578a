//! Tokens to an expression. Macros become nodes of their own here.

use super::{
    Mistake, Value,
    ast::{Expr, Loop, LoopKind, Node},
    lexer::{Token, tokens},
};

/// How deep expressions may nest; upstream's parser stops at 250, ours at less stack.
const DEPTH_LIMIT: usize = 100;

/// How long an expression may be, in tokens.
const TOKEN_LIMIT: usize = 100_000;

/// Parses an expression.
pub(super) fn parse(source: &str) -> Result<Expr, Mistake> {
    let tokens = tokens(source)?;
    if tokens.len() > TOKEN_LIMIT {
        return Err(Mistake { at: 0, what: "expression is too long".into() });
    }
    let mut parser = Parser { tokens, next: 0, depth: 0 };
    let expr = parser.expression()?;
    match parser.peek() {
        Token::End => Ok(expr),
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
        if self.depth > DEPTH_LIMIT {
            let what = format!("expression recursion limit exceeded: {DEPTH_LIMIT}");
            return Err(Mistake { at: self.at(), what });
        }
        let result = self.choice();
        self.depth -= 1;
        result
    }

    fn choice(&mut self) -> Result<Expr, Mistake> {
        let condition = self.or()?;
        let at = self.at();
        if !self.takes("?") {
            return Ok(condition);
        }
        let yes = self.or()?;
        self.expect(":")?;
        let no = self.expression()?;
        let node = Node::Choice { condition: condition.into(), yes: yes.into(), no: no.into() };
        Ok(Expr { at, node })
    }

    fn or(&mut self) -> Result<Expr, Mistake> {
        let first = self.and()?;
        let at = self.at();
        let mut parts = vec![first];
        while self.takes("||") {
            parts.push(self.and()?);
        }
        Ok(if parts.len() > 1 { Expr { at, node: Node::Or(parts) } } else { parts.remove(0) })
    }

    fn and(&mut self) -> Result<Expr, Mistake> {
        let first = self.relation()?;
        let at = self.at();
        let mut parts = vec![first];
        while self.takes("&&") {
            parts.push(self.relation()?);
        }
        Ok(if parts.len() > 1 { Expr { at, node: Node::And(parts) } } else { parts.remove(0) })
    }

    /// A chain of operators is a tree as deep as the chain is long.
    fn limit_chain(&self, count: &mut usize) -> Result<(), Mistake> {
        *count += 1;
        match *count > DEPTH_LIMIT {
            true => Err(Mistake { at: self.at(), what: "expression is too long".into() }),
            false => Ok(()),
        }
    }

    fn relation(&mut self) -> Result<Expr, Mistake> {
        let mut left = self.sum()?;
        let mut count = 0;
        loop {
            let at = self.at();
            let function = match self.peek() {
                Token::Symbol(symbol @ ("==" | "!=" | "<" | "<=" | ">" | ">=")) => format!("_{symbol}_"),
                Token::Ident(word) if word == "in" => "@in".to_string(),
                _ => return Ok(left),
            };
            self.advance();
            self.limit_chain(&mut count)?;
            let right = self.sum()?;
            left = call(at, &function, vec![left, right]);
        }
    }

    fn sum(&mut self) -> Result<Expr, Mistake> {
        let mut left = self.product()?;
        let mut count = 0;
        loop {
            let at = self.at();
            let symbol = match self.peek() {
                Token::Symbol(symbol @ ("+" | "-")) => *symbol,
                _ => return Ok(left),
            };
            self.advance();
            self.limit_chain(&mut count)?;
            let right = self.product()?;
            left = call(at, &format!("_{symbol}_"), vec![left, right]);
        }
    }

    fn product(&mut self) -> Result<Expr, Mistake> {
        let mut left = self.unary()?;
        let mut count = 0;
        loop {
            let at = self.at();
            let symbol = match self.peek() {
                Token::Symbol(symbol @ ("*" | "/" | "%")) => *symbol,
                _ => return Ok(left),
            };
            self.advance();
            self.limit_chain(&mut count)?;
            let right = self.unary()?;
            left = call(at, &format!("_{symbol}_"), vec![left, right]);
        }
    }

    fn unary(&mut self) -> Result<Expr, Mistake> {
        let at = self.at();
        let mut operators = Vec::new();
        while let Token::Symbol(symbol @ ("!" | "-")) = self.peek() {
            operators.push(*symbol);
            self.advance();
        }
        if operators.len() > DEPTH_LIMIT {
            return Err(Mistake { at, what: "expression is too long".into() });
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
                let literal = Expr { at, node: Node::Literal(value) };
                let operand = self.members(literal)?;
                return Ok(apply(at, operators, operand));
            }
        }
        if matches!(self.peek(), Token::Int(i64::MIN)) {
            return Err(Mistake { at, what: "Syntax error: invalid int literal".into() });
        }
        let primary = self.primary()?;
        let operand = self.members(primary)?;
        Ok(apply(at, operators, operand))
    }

    fn members(&mut self, mut of: Expr) -> Result<Expr, Mistake> {
        let mut count = 0;
        loop {
            let at = self.at();
            self.limit_chain(&mut count)?;
            if self.takes(".") {
                let name = self.name()?;
                if self.takes("(") {
                    let arguments = self.arguments(")")?;
                    of = method(at, of, name, arguments)?;
                } else {
                    of = Expr { at, node: Node::Select { of: of.into(), field: name, is_optional: false } };
                }
            } else if self.takes(".?") {
                let field = self.name()?;
                of = Expr { at, node: Node::Select { of: of.into(), field, is_optional: true } };
            } else if self.takes("[?") {
                let key = self.expression()?;
                self.expect("]")?;
                of = Expr { at, node: Node::Index { of: of.into(), key: key.into(), is_optional: true } };
            } else if self.takes("[") {
                let key = self.expression()?;
                self.expect("]")?;
                of = Expr { at, node: Node::Index { of: of.into(), key: key.into(), is_optional: false } };
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
            Token::Text(text) => self.literal(Value::Text(text.into())),
            Token::Bytes(bytes) => self.literal(Value::Bytes(bytes.into())),
            _ => {
                return self.unexpected("{'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}");
            }
        };
        Ok(Expr { at, node })
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
        Ok(Expr { at, node: Node::List(items) })
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
        Ok(Expr { at, node: Node::Map(entries) })
    }
}

fn call(at: usize, function: &str, arguments: Vec<Expr>) -> Expr {
    Expr { at, node: Node::Call { function: function.into(), target: None, arguments } }
}

fn apply(at: usize, operators: Vec<&str>, operand: Expr) -> Expr {
    let function = |operator: &str| if operator == "!" { "!_" } else { "-_" };
    operators.into_iter().rev().fold(operand, |operand, operator| call(at, function(operator), vec![operand]))
}

fn function(at: usize, name: String, arguments: Vec<Expr>) -> Result<Expr, Mistake> {
    if name == "has" && arguments.len() == 1 {
        return match arguments.into_iter().next().map(|argument| argument.node) {
            Some(Node::Select { of, field, is_optional: false }) => {
                Ok(Expr { at, node: Node::Has { of, field } })
            }
            _ => Err(Mistake { at, what: "invalid argument to has() macro".into() }),
        };
    }
    Ok(Expr { at, node: Node::Call { function: name, target: None, arguments } })
}

/// A call on a value; macros and functions in a name space (`cel.bind`, `optional.of`, ...) among them.
fn method(at: usize, target: Expr, name: String, mut arguments: Vec<Expr>) -> Result<Expr, Mistake> {
    if let Node::Ident(space) = &target.node {
        if space == "cel" && name == "bind" && arguments.len() == 3 {
            let (body, value) = (arguments.pop(), arguments.pop());
            let variable = variable_of(&arguments[0])?;
            if let (Some(body), Some(value)) = (body, value) {
                return Ok(Expr {
                    at,
                    node: Node::Bind { variable, value: value.into(), body: body.into() },
                });
            }
        }
        if matches!(space.as_str(), "optional" | "sets" | "math" | "format" | "cel") {
            let function = format!("{space}.{name}");
            return Ok(Expr { at, node: Node::Call { function, target: None, arguments } });
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
            let target = Some(Box::new(target));
            return Ok(Expr { at, node: Node::Call { function: name, target, arguments } });
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
    Ok(Expr { at, node: Node::Loop(inner.into()) })
}

fn variable_of(expr: &Expr) -> Result<String, Mistake> {
    match &expr.node {
        Node::Ident(name) => Ok(name.clone()),
        _ => Err(Mistake { at: expr.at, what: "argument must be a simple name".into() }),
    }
}
