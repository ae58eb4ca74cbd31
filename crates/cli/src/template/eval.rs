//! A tree on data.

use serde_json::Value;

use super::parse::{Node, Operand, Pipeline};
use super::{Error, Result, Style, funcs, types};

/// What a template may print.
const MAX_OUTPUT: usize = 64 << 20;

struct State<'a> {
    root: &'a Value,
    style: Style<'a>,
    /// The value last read is a pointer to nothing rather than nothing.
    nil: bool,
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

pub(super) fn render(nodes: &[Node], data: &Value, style: Style<'_>) -> Result<String> {
    let mut state = State { root: data, style, nil: false, variables: Vec::new(), out: String::new() };
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
                self.nil = false;
                let value = self.pipeline(p, dot, top)?;
                match value {
                    Value::Null if self.nil => self.out.push_str("<nil>"),
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
            return self.call(name, &args);
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
            Operand::Function(name) => self.call(name, args),
            Operand::Pipeline(p, names) => {
                let value = self.pipeline(p, dot, top)?;
                self.fields(&value, names, args, false)
            }
        }
    }

    fn call(&self, name: &str, args: &[Value]) -> Result<Value> {
        const LEFT_ALONE: &[&str] = &["join", "json", "lower", "split", "title", "truncate", "upper"];
        match (self.style, args) {
            (Style::Headers { .. }, [header, ..]) if LEFT_ALONE.contains(&name) => return Ok(header.clone()),
            // Docker writes rows with another encoder than everything else.
            (Style::Row { json, .. }, [row]) if name == "json" && row == self.root => {
                return Ok(Value::from(funcs::escaped_json(json)));
            }
            (Style::Typed { json, .. }, [value]) if name == "json" => {
                let named = self.with_json_names(value, json);
                return Ok(Value::from(named.unwrap_or(value).to_string()));
            }
            _ => {}
        }
        funcs::call(name, args).map_err(|e| fail(name, &format!("error calling {name}: {e}")))
    }

    /// The object, or one of its fields, as its JSON has it.
    fn with_json_names<'v>(&self, value: &Value, json: &'v Value) -> Option<&'v Value> {
        if value == self.root {
            return Some(json);
        }
        let fields = self.root.as_object()?;
        fields.iter().find(|(_, v)| *v == value).and_then(|(name, _)| json.get(name))
    }

    /// `.Label "name"` of a list.
    fn label(&self, name: &str, args: &[Value]) -> Option<Value> {
        let ("Label", [Value::String(key)]) = (name, args) else { return None };
        match self.style {
            Style::Row { labels, .. } => Some(labels.get(key).cloned().unwrap_or_else(|| Value::from(""))),
            Style::Headers { .. } => Some(Value::from(key.as_str())),
            _ => None,
        }
    }

    /// Reads fields one after the other.
    fn fields(&mut self, value: &Value, names: &[String], args: &[Value], top: bool) -> Result<Value> {
        if let [name] = names
            && top
            && let Some(label) = self.label(name, args)
        {
            return Ok(label);
        }
        let at = || format!(".{}", names.join("."));
        let mut value = value.clone();
        for (i, name) in names.iter().enumerate() {
            if i + 1 == names.len() && !args.is_empty() {
                return Err(fail(&at(), &format!("{name} is not a method but has arguments")));
            }
            value = match value {
                Value::Object(mut map) => match map.remove(name).or_else(|| self.renamed(&mut map, name)) {
                    Some(Value::Null) | None if i > 0 && types::is_map(&names[i - 1]) => Value::Null,
                    Some(Value::Null) => {
                        self.nil = true;
                        self.empty(name).unwrap_or(Value::Null)
                    }
                    Some(v) => v,
                    None => match self.empty(name) {
                        Some(v) => {
                            self.nil = true;
                            v
                        }
                        None => return Err(self.missing(&at(), name, top && i == 0)),
                    },
                },
                Value::Null => Value::Null,
                v => {
                    return Err(fail(
                        &at(),
                        &format!("can't evaluate field {name} in type {}", funcs::type_of(&v)),
                    ));
                }
            };
        }
        Ok(value)
    }

    /// A field under the name that Go's type has for it.
    fn renamed(&self, map: &mut serde_json::Map<String, Value>, name: &str) -> Option<Value> {
        matches!(self.style, Style::Object).then(|| map.remove(types::in_json(name)?)).flatten()
    }

    fn empty(&self, name: &str) -> Option<Value> {
        if matches!(self.style, Style::Object | Style::Typed { .. }) { types::empty(name) } else { None }
    }

    fn missing(&self, at: &str, name: &str, top: bool) -> Error {
        let in_type = |kind: &str| format!("can't evaluate field {name} in type {kind}");
        match self.style {
            Style::Row { kind, .. } | Style::Headers { kind } if top => fail(at, &in_type(kind)),
            Style::Typed { name: template, kind, .. } if top => {
                let text = in_type(kind);
                Error(format!("template: {template}:1:2: executing {template:?} at <{at}>: {text}"))
            }
            _ => fail(at, &format!("map has no entry for key {name:?}")),
        }
    }
}
