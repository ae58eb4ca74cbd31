//! A tree on data.

use serde_json::Value;

use super::parse::{Node, Operand, Pipeline};
use super::{Error, Methods, Result, funcs};

/// What a template may print.
const MAX_OUTPUT: usize = 64 << 20;

struct State<'a> {
    root: &'a Value,
    methods: Methods<'a>,
    strict: bool,
    variables: Vec<(String, Value)>,
    out: String,
}

/// Whether a loop goes on.
#[derive(PartialEq)]
enum Flow {
    Next,
    Break,
    Continue,
}

pub(super) fn render(nodes: &[Node], data: &Value, methods: Methods<'_>, strict: bool) -> Result<String> {
    let mut state = State { root: data, methods, strict, variables: Vec::new(), out: String::new() };
    state.nodes(nodes, data, true)?;
    Ok(state.out)
}

fn fail(at: &str, text: &str) -> Error {
    Error(format!("template: :1:2: executing \"\" at <{at}>: {text}"))
}

impl State<'_> {
    fn nodes(&mut self, nodes: &[Node], dot: &Value, top: bool) -> Result<Flow> {
        let scope = self.variables.len();
        for node in nodes {
            let flow = self.node(node, dot, top)?;
            if flow != Flow::Next {
                self.variables.truncate(scope);
                return Ok(flow);
            }
            if self.out.len() > MAX_OUTPUT {
                return Err(Error("template: :1: the output is too long".into()));
            }
        }
        self.variables.truncate(scope);
        Ok(Flow::Next)
    }

    fn node(&mut self, node: &Node, dot: &Value, top: bool) -> Result<Flow> {
        match node {
            Node::Text(text) => self.out.push_str(text),
            Node::Print(p) => {
                let value = self.pipeline(p, dot, top)?;
                match value {
                    Value::Null => self.out.push_str("<no value>"),
                    v => self.out.push_str(&funcs::show(&v)),
                }
            }
            Node::Set(p) => {
                let value = self.pipeline(p, dot, top)?;
                self.assign(&p.variables[0], value, p.declares)?;
            }
            Node::If(p, then, otherwise) => {
                let scope = self.variables.len();
                let value = self.bound(p, dot, top)?;
                let flow = self.nodes(if funcs::truth(&value) { then } else { otherwise }, dot, top)?;
                self.variables.truncate(scope);
                return Ok(flow);
            }
            Node::With(p, then, otherwise) => {
                let scope = self.variables.len();
                let value = self.bound(p, dot, top)?;
                let flow = if funcs::truth(&value) {
                    self.nodes(then, &value, false)?
                } else {
                    self.nodes(otherwise, dot, top)?
                };
                self.variables.truncate(scope);
                return Ok(flow);
            }
            Node::Range(p, body, otherwise) => return self.range(p, body, otherwise, dot, top),
            Node::Break => return Ok(Flow::Break),
            Node::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::Next)
    }

    fn bound(&mut self, p: &Pipeline, dot: &Value, top: bool) -> Result<Value> {
        let value = self.pipeline(p, dot, top)?;
        if let Some(name) = p.variables.first() {
            self.assign(name, value.clone(), p.declares)?;
        }
        Ok(value)
    }

    fn range(
        &mut self,
        p: &Pipeline,
        body: &[Node],
        otherwise: &[Node],
        dot: &Value,
        top: bool,
    ) -> Result<Flow> {
        let value = self.pipeline(p, dot, top)?;
        let items: Vec<(Value, Value)> = match value {
            Value::Array(list) => list.into_iter().enumerate().map(|(i, v)| (Value::from(i), v)).collect(),
            Value::Object(map) => {
                let mut all: Vec<(String, Value)> = map.into_iter().collect();
                all.sort_by(|a, b| a.0.cmp(&b.0));
                all.into_iter().map(|(k, v)| (Value::from(k), v)).collect()
            }
            Value::Number(n) => {
                let count = n.as_i64().ok_or_else(|| fail("range", "range can't iterate over a fraction"))?;
                if count > 1_000_000 {
                    return Err(fail("range", "the range is too long"));
                }
                (0..count).map(|i| (Value::from(i), Value::from(i))).collect()
            }
            Value::Null => Vec::new(),
            v => return Err(fail("range", &format!("range can't iterate over {}", funcs::show(&v)))),
        };
        if items.is_empty() {
            return self.nodes(otherwise, dot, top);
        }
        for (key, item) in items {
            let scope = self.variables.len();
            match p.variables.as_slice() {
                [] => {}
                [one] => self.assign(one, item.clone(), p.declares)?,
                [first, second, ..] => {
                    self.assign(first, key, p.declares)?;
                    self.assign(second, item.clone(), p.declares)?;
                }
            }
            let flow = self.nodes(body, &item, false)?;
            if p.declares {
                self.variables.truncate(scope);
            }
            if flow == Flow::Break {
                break;
            }
        }
        Ok(Flow::Next)
    }

    fn assign(&mut self, name: &str, value: Value, declares: bool) -> Result<()> {
        if declares {
            self.variables.push((name.to_owned(), value));
            return Ok(());
        }
        match self.variables.iter_mut().rev().find(|(n, _)| n == name) {
            Some(slot) => {
                slot.1 = value;
                Ok(())
            }
            None => Err(Error(format!("template: :1: undefined variable \"${name}\""))),
        }
    }

    fn pipeline(&mut self, p: &Pipeline, dot: &Value, top: bool) -> Result<Value> {
        let mut value = None;
        for command in &p.commands {
            value = Some(self.command(command, value, dot, top)?);
        }
        Ok(value.unwrap_or(Value::Null))
    }

    fn command(
        &mut self,
        operands: &[Operand],
        piped: Option<Value>,
        dot: &Value,
        top: bool,
    ) -> Result<Value> {
        let Some((first, rest)) = operands.split_first() else { return Ok(Value::Null) };
        if let Operand::Function(name) = first {
            if matches!(name.as_str(), "and" | "or") {
                return self.shortcut(name == "and", rest, piped, dot, top);
            }
            let mut args = rest.iter().map(|o| self.operand(o, &[], dot, top)).collect::<Result<Vec<_>>>()?;
            args.extend(piped);
            return funcs::call(name, &args).map_err(|e| fail(name, &format!("error calling {name}: {e}")));
        }
        let mut args = rest.iter().map(|o| self.operand(o, &[], dot, top)).collect::<Result<Vec<_>>>()?;
        args.extend(piped);
        self.operand(first, &args, dot, top)
    }

    /// `and` and `or` give one of their arguments and look no further than they must.
    fn shortcut(
        &mut self,
        and: bool,
        rest: &[Operand],
        piped: Option<Value>,
        dot: &Value,
        top: bool,
    ) -> Result<Value> {
        let mut last = Value::Null;
        for operand in rest {
            last = self.operand(operand, &[], dot, top)?;
            if funcs::truth(&last) != and {
                return Ok(last);
            }
        }
        Ok(piped.unwrap_or(last))
    }

    fn operand(&mut self, operand: &Operand, args: &[Value], dot: &Value, top: bool) -> Result<Value> {
        let plain = |v: Value| {
            if args.is_empty() {
                Ok(v)
            } else {
                Err(fail(&funcs::show(&v), "can't give argument to non-function"))
            }
        };
        match operand {
            Operand::Field(names) => self.fields(dot, names, args, top),
            Operand::Variable(name, names) if name.is_empty() => {
                let root = self.root;
                self.fields(root, names, args, true)
            }
            Operand::Variable(name, names) => {
                let value = self.variables.iter().rev().find(|(n, _)| n == name).map(|(_, v)| v.clone());
                let value =
                    value.ok_or_else(|| Error(format!("template: :1: undefined variable \"${name}\"")))?;
                self.fields(&value, names, args, false)
            }
            Operand::String(s) => plain(Value::from(s.as_str())),
            Operand::Int(n) => plain(Value::from(*n)),
            Operand::Float(n) => plain(Value::from(*n)),
            Operand::Bool(b) => plain(Value::from(*b)),
            Operand::Nil => Err(Error("template: :1: nil is not a command".into())),
            Operand::Function(name) => {
                funcs::call(name, args).map_err(|e| fail(name, &format!("error calling {name}: {e}")))
            }
            Operand::Pipeline(p, names) => {
                let value = self.pipeline(p, dot, top)?;
                self.fields(&value, names, args, false)
            }
        }
    }

    /// Reads fields one after the other. The top object is asked for methods first, and is strict.
    fn fields(&self, value: &Value, names: &[String], args: &[Value], top: bool) -> Result<Value> {
        let mut value = value.clone();
        for (i, name) in names.iter().enumerate() {
            if i == 0
                && top
                && let Some(made) = (self.methods)(name, args)
            {
                value = made.map_err(|e| fail(&format!(".{name}"), &e))?;
                continue;
            }
            if i + 1 == names.len() && !args.is_empty() {
                return Err(fail(&format!(".{name}"), &format!("{name} is not a method but has arguments")));
            }
            value = match value {
                Value::Object(mut map) => match map.remove(name) {
                    Some(v) => v,
                    None if top && i == 0 && self.strict => {
                        return Err(fail(&format!(".{name}"), &format!("map has no entry for key {name:?}")));
                    }
                    None => Value::Null,
                },
                Value::Null => Value::Null,
                v => {
                    return Err(fail(
                        &format!(".{name}"),
                        &format!("can't evaluate field {name} in type {}", funcs::type_of(&v)),
                    ));
                }
            };
        }
        Ok(value)
    }
}
