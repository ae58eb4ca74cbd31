//! Tokens to a tree.

use super::funcs;
use super::lex::Token;
use super::{Error, Result};

/// Actions inside actions.
const MAX_DEPTH: usize = 100;

#[derive(Clone, Debug)]
pub(super) enum Node {
    Text(String),
    /// A pipeline whose value is printed.
    Print(Pipeline),
    /// A pipeline that only sets a variable.
    Set(Pipeline),
    If(Pipeline, Vec<Node>, Vec<Node>),
    With(Pipeline, Vec<Node>, Vec<Node>),
    Range(Pipeline, Vec<Node>, Vec<Node>),
    Break,
    Continue,
}

#[derive(Clone, Debug)]
pub(super) struct Pipeline {
    /// Variables that it sets; two only in `range`.
    pub(super) variables: Vec<String>,
    /// `:=` rather than `=`.
    pub(super) declares: bool,
    pub(super) commands: Vec<Vec<Operand>>,
}

#[derive(Clone, Debug)]
pub(super) enum Operand {
    Field(Vec<String>),
    Variable(String, Vec<String>),
    String(String),
    Int(i64),
    Float(f64),
    Bool(bool),
    Nil,
    Function(String),
    /// In parentheses, and fields read from its value.
    Pipeline(Box<Pipeline>, Vec<String>),
}

struct Parser {
    tokens: std::vec::IntoIter<Token>,
    ahead: Option<Token>,
    depth: usize,
    loops: usize,
    /// Variables that may be used.
    variables: Vec<String>,
}

/// What ended a list of nodes.
#[derive(PartialEq)]
enum Stop {
    End,
    Else,
    Eof,
}

pub(super) fn template(tokens: Vec<Token>) -> Result<Vec<Node>> {
    let mut p = Parser { tokens: tokens.into_iter(), ahead: None, depth: 0, loops: 0, variables: Vec::new() };
    let (nodes, stop) = p.list()?;
    match stop {
        Stop::Eof => Ok(nodes),
        Stop::End => Err(fail("unexpected {{end}}")),
        Stop::Else => Err(fail("unexpected {{else}}")),
    }
}

fn fail(text: &str) -> Error {
    Error(format!("template: :1: {text}"))
}

impl Parser {
    fn next(&mut self) -> Option<Token> {
        self.ahead.take().or_else(|| self.tokens.next())
    }

    fn peek(&mut self) -> Option<&Token> {
        if self.ahead.is_none() {
            self.ahead = self.tokens.next();
        }
        self.ahead.as_ref()
    }

    fn list(&mut self) -> Result<(Vec<Node>, Stop)> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(fail("actions are nested too deeply"));
        }
        let mut nodes = Vec::new();
        let scope = self.variables.len();
        let stop = loop {
            match self.next() {
                None => break Stop::Eof,
                Some(Token::Text(text)) => nodes.push(Node::Text(text)),
                Some(Token::Open) => {
                    let word = match self.peek() {
                        Some(Token::Word(w)) => w.clone(),
                        _ => String::new(),
                    };
                    match word.as_str() {
                        "end" => {
                            self.next();
                            self.close()?;
                            break Stop::End;
                        }
                        // Whoever asked for a list reads what follows `else`.
                        "else" => {
                            self.next();
                            break Stop::Else;
                        }
                        "if" | "with" | "range" => {
                            self.next();
                            nodes.push(self.branch(&word)?);
                        }
                        "break" | "continue" => {
                            self.next();
                            self.close()?;
                            if self.loops == 0 {
                                return Err(fail(&format!("{{{{{word}}}}} outside {{{{range}}}}")));
                            }
                            nodes.push(if word == "break" { Node::Break } else { Node::Continue });
                        }
                        "define" | "block" | "template" => {
                            return Err(fail(&format!("{word} is not supported here")));
                        }
                        _ => {
                            let pipeline = self.pipeline(false)?;
                            self.close()?;
                            nodes.push(if pipeline.variables.is_empty() {
                                Node::Print(pipeline)
                            } else {
                                Node::Set(pipeline)
                            });
                        }
                    }
                }
                Some(_) => return Err(fail("unexpected token")),
            }
        };
        self.variables.truncate(scope);
        self.depth -= 1;
        Ok((nodes, stop))
    }

    fn branch(&mut self, word: &str) -> Result<Node> {
        if self.peek() == Some(&Token::Close) {
            return Err(fail(&format!("missing value for {word}")));
        }
        let scope = self.variables.len();
        let node = self.branch_with(word);
        self.variables.truncate(scope);
        node
    }

    fn branch_with(&mut self, word: &str) -> Result<Node> {
        let pipeline = self.pipeline(word == "range")?;
        self.close()?;
        self.loops += usize::from(word == "range");
        let (then, stop) = self.list()?;
        self.loops -= usize::from(word == "range");
        let otherwise = match stop {
            Stop::End => Vec::new(),
            Stop::Eof => return Err(fail("unexpected EOF")),
            Stop::Else => self.otherwise(word)?,
        };
        Ok(match word {
            "if" => Node::If(pipeline, then, otherwise),
            "with" => Node::With(pipeline, then, otherwise),
            _ => Node::Range(pipeline, then, otherwise),
        })
    }

    /// After `else`: another branch (`else if`), or a list up to `end`.
    fn otherwise(&mut self, word: &str) -> Result<Vec<Node>> {
        if let Some(Token::Word(w)) = self.peek()
            && w == word
            && word != "range"
        {
            self.next();
            self.depth += 1;
            if self.depth > MAX_DEPTH {
                return Err(fail("actions are nested too deeply"));
            }
            let node = self.branch(word)?;
            self.depth -= 1;
            return Ok(vec![node]);
        }
        self.close()?;
        match self.list()? {
            (nodes, Stop::End) => Ok(nodes),
            (_, Stop::Else) => Err(fail("expected end; found {{else}}")),
            (_, Stop::Eof) => Err(fail("unexpected EOF")),
        }
    }

    fn close(&mut self) -> Result<()> {
        match self.next() {
            Some(Token::Close) => Ok(()),
            Some(Token::Right) => Err(fail("unexpected right paren")),
            Some(t) => Err(fail(&format!("unexpected {t:?} in command"))),
            None => Err(fail("unclosed action")),
        }
    }

    fn pipeline(&mut self, range: bool) -> Result<Pipeline> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(fail("actions are nested too deeply"));
        }
        let (variables, declares, mut first) = self.variables(range)?;
        let mut commands = Vec::new();
        loop {
            let command = self.command(first.take())?;
            if command.is_empty() {
                return Err(fail("missing value for command"));
            }
            if !commands.is_empty()
                && !matches!(
                    command.first(),
                    Some(Operand::Function(_) | Operand::Field(_) | Operand::Variable(..))
                )
            {
                return Err(fail("non executable command in pipeline stage 2"));
            }
            commands.push(command);
            if self.peek() != Some(&Token::Pipe) {
                break;
            }
            self.next();
        }
        self.depth -= 1;
        for name in &variables {
            if declares {
                self.variables.push(name.clone());
            } else {
                self.known(name)?;
            }
        }
        Ok(Pipeline { variables, declares, commands })
    }

    /// `$x :=`, `$x =`, `$i, $x :=`; a variable that turns out to be a value is given back.
    fn variables(&mut self, range: bool) -> Result<(Vec<String>, bool, Option<Token>)> {
        let Some(Token::Variable(name, fields)) = self.peek().cloned() else {
            return Ok((Vec::new(), false, None));
        };
        let token = self.next();
        if !fields.is_empty() {
            return Ok((Vec::new(), false, token));
        }
        match self.peek() {
            Some(Token::Declare | Token::Assign) => {
                let declares = self.next() == Some(Token::Declare);
                Ok((vec![name], declares, None))
            }
            Some(Token::Comma) if range => {
                self.next();
                let Some(Token::Variable(second, _)) = self.next() else {
                    return Err(fail("range can only initialize variables"));
                };
                match self.next() {
                    Some(t @ (Token::Declare | Token::Assign)) => {
                        Ok((vec![name, second], t == Token::Declare, None))
                    }
                    _ => Err(fail("expected := in range")),
                }
            }
            _ => Ok((Vec::new(), false, token)),
        }
    }

    fn command(&mut self, first: Option<Token>) -> Result<Vec<Operand>> {
        let mut out = Vec::new();
        if let Some(Token::Variable(name, fields)) = first {
            self.known(&name)?;
            out.push(Operand::Variable(name, fields));
        }
        loop {
            match self.peek() {
                None | Some(Token::Close | Token::Pipe | Token::Right) => return Ok(out),
                _ => {}
            }
            let operand = match self.next() {
                Some(Token::Field(names)) => Operand::Field(names),
                Some(Token::Variable(name, fields)) => {
                    self.known(&name)?;
                    Operand::Variable(name, fields)
                }
                Some(Token::String(s)) => Operand::String(s),
                Some(Token::Int(n)) => Operand::Int(n),
                Some(Token::Float(n)) => Operand::Float(n),
                Some(Token::Left) => self.parenthesis()?,
                Some(Token::Word(word)) => match word.as_str() {
                    "true" => Operand::Bool(true),
                    "false" => Operand::Bool(false),
                    "nil" => Operand::Nil,
                    w if funcs::REFUSED.contains(&w) => {
                        return Err(fail(&format!("function {w:?} is not supported here")));
                    }
                    w if funcs::KNOWN.contains(&w) => Operand::Function(word),
                    _ => return Err(fail(&format!("function {word:?} not defined"))),
                },
                Some(t) => return Err(fail(&format!("unexpected {t:?} in operand"))),
                None => return Err(fail("unclosed action")),
            };
            out.push(operand);
        }
    }

    /// `$` alone is always there.
    fn known(&self, name: &String) -> Result<()> {
        if name.is_empty() || self.variables.contains(name) {
            return Ok(());
        }
        Err(fail(&format!("undefined variable \"${name}\"")))
    }

    fn parenthesis(&mut self) -> Result<Operand> {
        let inner = self.pipeline(false)?;
        match self.next() {
            Some(Token::Right) => {}
            _ => return Err(fail("unclosed left paren")),
        }
        let fields = match self.peek() {
            Some(Token::Field(names)) if !names.is_empty() => names.clone(),
            _ => Vec::new(),
        };
        if !fields.is_empty() {
            self.next();
        }
        Ok(Operand::Pipeline(Box::new(inner), fields))
    }
}
