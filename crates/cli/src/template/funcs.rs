//! Functions, and how values are shown, compared and judged.

use std::cmp::Ordering;

use serde_json::Value;

/// What may be called.
pub(super) const KNOWN: &[&str] = &[
    "and", "or", "not", "len", "index", "slice", "print", "printf", "println", "eq", "ne", "lt", "le", "gt",
    "ge", "json", "split", "join", "title", "lower", "upper", "pad", "truncate",
];

/// Go's, of no use here.
pub(super) const REFUSED: &[&str] = &["html", "js", "urlquery", "call"];

type Result<T> = std::result::Result<T, String>;

pub(super) fn type_of(v: &Value) -> &'static str {
    match v {
        Value::Null => "nil",
        Value::Bool(_) => "bool",
        Value::Number(_) => "float64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

/// Go's `%v`.
pub(super) fn show(v: &Value) -> String {
    match v {
        Value::Null => "<nil>".into(),
        Value::Bool(b) => b.to_string(),
        Value::Number(n) => match n.as_f64() {
            Some(f) if n.is_f64() && f.fract() == 0.0 && f.abs() < 1e21 => format!("{f:.0}"),
            _ => n.to_string(),
        },
        Value::String(s) => s.clone(),
        Value::Array(list) => format!("[{}]", list.iter().map(show).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => {
            if let Some(fields) = super::types::fields_of(map) {
                let shown: Vec<String> =
                    fields.iter().map(|f| map.get(*f).map(show).unwrap_or_default()).collect();
                return format!("{{{}}}", shown.join(" "));
            }
            let mut pairs: Vec<(&String, &Value)> = map.iter().collect();
            pairs.sort_by_key(|(k, _)| k.as_str());
            let shown: Vec<String> = pairs.iter().map(|(k, v)| format!("{k}:{}", show(v))).collect();
            format!("map[{}]", shown.join(" "))
        }
    }
}

/// JSON with the characters written out that mean something in HTML, as Go does by itself.
pub(crate) fn escaped_json(v: &Value) -> String {
    escape_html(&v.to_string())
}

/// The same for JSON that is text already.
pub(crate) fn escape_html(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out
}

/// Whether `if` takes it for true.
pub(super) fn truth(v: &Value) -> bool {
    match v {
        Value::Null => false,
        Value::Bool(b) => *b,
        Value::Number(n) => n.as_f64() != Some(0.0),
        Value::String(s) => !s.is_empty(),
        Value::Array(l) => !l.is_empty(),
        Value::Object(m) => !m.is_empty(),
    }
}

pub(super) fn call(name: &str, args: &[Value]) -> Result<Value> {
    let need = |n: usize| {
        if args.len() == n {
            Ok(())
        } else {
            Err(format!("wrong number of args for {name}: want {n} got {}", args.len()))
        }
    };
    let text = |i: usize| {
        args[i]
            .as_str()
            .ok_or_else(|| format!("wrong type for value; expected string; got {}", type_of(&args[i])))
    };
    Ok(match name {
        "not" => {
            need(1)?;
            Value::from(!truth(&args[0]))
        }
        "len" => {
            need(1)?;
            match &args[0] {
                Value::String(s) => Value::from(s.len()),
                Value::Array(l) => Value::from(l.len()),
                Value::Object(m) => Value::from(m.len()),
                v => return Err(format!("len of type {}", type_of(v))),
            }
        }
        "index" => index(args)?,
        "slice" => slice(args)?,
        "print" => Value::from(print(args)),
        "println" => Value::from(args.iter().map(show).collect::<Vec<_>>().join(" ") + "\n"),
        "printf" => {
            let format = args.first().and_then(Value::as_str).ok_or("printf wants a format")?;
            Value::from(printf(format, &args[1..]))
        }
        "eq" | "ne" | "lt" | "le" | "gt" | "ge" => compare(name, args)?,
        "json" => {
            need(1)?;
            Value::from(args[0].to_string())
        }
        "split" => {
            need(2)?;
            text(0)?.split(text(1)?).collect()
        }
        "join" => {
            need(2)?;
            let Value::Array(list) = &args[0] else {
                return Err(format!("wrong type for value; expected []string; got {}", type_of(&args[0])));
            };
            Value::from(list.iter().map(show).collect::<Vec<_>>().join(text(1)?))
        }
        "title" => {
            need(1)?;
            let mut up = true;
            let title = |c: char| {
                let out: String = if up { c.to_uppercase().collect() } else { c.to_string() };
                up = c.is_whitespace();
                out
            };
            Value::from(text(0)?.chars().map(title).collect::<String>())
        }
        "lower" => {
            need(1)?;
            Value::from(text(0)?.to_lowercase())
        }
        "upper" => {
            need(1)?;
            Value::from(text(0)?.to_uppercase())
        }
        "pad" => {
            need(3)?;
            let spaces = |i: usize| {
                args[i]
                    .as_u64()
                    .and_then(|n| usize::try_from(n.min(10_000)).ok())
                    .map(|n| " ".repeat(n))
                    .ok_or("pad wants numbers")
            };
            let body = text(0)?;
            Value::from(if body.is_empty() {
                String::new()
            } else {
                format!("{}{body}{}", spaces(1)?, spaces(2)?)
            })
        }
        "truncate" => {
            need(2)?;
            let n =
                args[1].as_u64().and_then(|n| usize::try_from(n).ok()).ok_or("truncate wants a number")?;
            Value::from(text(0)?.chars().take(n).collect::<String>())
        }
        _ => return Err("not defined".into()),
    })
}

/// Between arguments that are no strings there is a space.
fn print(args: &[Value]) -> String {
    let mut out = String::new();
    for (i, arg) in args.iter().enumerate() {
        if i > 0 && !arg.is_string() && !args[i - 1].is_string() {
            out.push(' ');
        }
        out.push_str(&show(arg));
    }
    out
}

fn position(v: &Value, len: usize, inclusive: bool) -> Result<usize> {
    let n = v.as_i64().ok_or_else(|| format!("cannot index slice/array with type {}", type_of(v)))?;
    let bad = || format!("index out of range: {n}");
    let at = usize::try_from(n).map_err(|_| bad())?;
    if at < len || (inclusive && at == len) { Ok(at) } else { Err(bad()) }
}

fn index(args: &[Value]) -> Result<Value> {
    let (first, keys) = args.split_first().ok_or("index wants a value")?;
    let mut value = first.clone();
    for key in keys {
        value = match value {
            Value::Array(mut list) => {
                let at = position(key, list.len(), false)?;
                list.swap_remove(at)
            }
            Value::Object(mut map) => {
                let key = key
                    .as_str()
                    .ok_or_else(|| format!("value has type {}; should be string", type_of(key)))?;
                // A map of texts has the empty text for what it has not.
                let texts = map.values().all(Value::is_string);
                map.remove(key).unwrap_or(if texts { Value::from("") } else { Value::Null })
            }
            Value::String(s) => Value::from(s.as_bytes()[position(key, s.len(), false)?]),
            Value::Null => return Err("index of untyped nil".into()),
            v => return Err(format!("can't index item of type {}", type_of(&v))),
        };
    }
    Ok(value)
}

fn slice(args: &[Value]) -> Result<Value> {
    let (value, bounds) = args.split_first().ok_or("slice wants a value")?;
    let len = match value {
        Value::String(s) => s.len(),
        Value::Array(l) => l.len(),
        v => return Err(format!("can't slice item of type {}", type_of(v))),
    };
    let from = bounds.first().map_or(Ok(0), |b| position(b, len, true))?;
    let to = bounds.get(1).map_or(Ok(len), |b| position(b, len, true))?;
    if from > to || bounds.len() > 2 {
        return Err(format!("invalid slice index: {from} > {to}"));
    }
    Ok(match value {
        Value::Array(l) => Value::from(l[from..to].to_vec()),
        Value::String(s) => Value::from(String::from_utf8_lossy(&s.as_bytes()[from..to]).into_owned()),
        _ => Value::Null,
    })
}

fn order(a: &Value, b: &Value) -> Result<Ordering> {
    let wrong = || "incompatible types for comparison".to_owned();
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => match (a.as_i64(), b.as_i64()) {
            (Some(a), Some(b)) => Ok(a.cmp(&b)),
            _ => a.as_f64().zip(b.as_f64()).and_then(|(a, b)| a.partial_cmp(&b)).ok_or_else(wrong),
        },
        (Value::String(a), Value::String(b)) => Ok(a.cmp(b)),
        (Value::Bool(a), Value::Bool(b)) => Ok(a.cmp(b)),
        (Value::Null, Value::Null) => Ok(Ordering::Equal),
        _ => Err(wrong()),
    }
}

fn compare(name: &str, args: &[Value]) -> Result<Value> {
    let (first, rest) = args.split_first().ok_or("missing argument for comparison")?;
    if rest.is_empty() || (name != "eq" && rest.len() > 1) {
        return Err("wrong number of args for comparison".into());
    }
    let same = |b: &Value| {
        if first.is_null() != b.is_null() { Ok(false) } else { order(first, b).map(|o| o == Ordering::Equal) }
    };
    if name == "eq" {
        for b in rest {
            if same(b)? {
                return Ok(Value::from(true));
            }
        }
        return Ok(Value::from(false));
    }
    let second = &rest[0];
    Ok(Value::from(match name {
        "ne" => !same(second)?,
        "lt" => order(first, second)?.is_lt(),
        "le" => order(first, second)?.is_le(),
        "gt" => order(first, second)?.is_gt(),
        _ => order(first, second)?.is_ge(),
    }))
}

/// Go's verbs `%v %s %d %q %t %x %f %%` with width, precision, `-` and `0`.
fn printf(format: &str, args: &[Value]) -> String {
    let mut out = String::new();
    let mut args = args.iter();
    let mut chars = format.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let (mut left, mut zero, mut width, mut precision) = (false, false, 0usize, None);
        while let Some(f) = chars.peek().filter(|f| "-+# 0".contains(**f)) {
            left |= *f == '-';
            zero |= *f == '0';
            chars.next();
        }
        while let Some(d) = chars.peek().and_then(|d| d.to_digit(10)) {
            width = (width * 10 + d as usize).min(10_000);
            chars.next();
        }
        if chars.peek() == Some(&'.') {
            chars.next();
            let mut p = 0usize;
            while let Some(d) = chars.peek().and_then(|d| d.to_digit(10)) {
                p = (p * 10 + d as usize).min(1000);
                chars.next();
            }
            precision = Some(p);
        }
        let verb = match chars.next() {
            None => {
                out.push_str("%!(NOVERB)");
                break;
            }
            Some('%') => {
                out.push('%');
                continue;
            }
            Some(v) => v,
        };
        let Some(arg) = args.next() else {
            out.push_str(&format!("%!{verb}(MISSING)"));
            continue;
        };
        let text = verb_text(verb, arg, precision);
        let missing = width.saturating_sub(text.chars().count());
        let numeric = arg.is_number();
        match (left, zero && numeric) {
            (true, _) => out.extend([text.as_str(), &" ".repeat(missing)]),
            (false, true) => out.extend([&"0".repeat(missing), text.as_str()]),
            (false, false) => out.extend([&" ".repeat(missing), text.as_str()]),
        }
    }
    let extra: Vec<String> = args.map(|a| format!("{}={}", type_of(a), show(a))).collect();
    if !extra.is_empty() {
        out.push_str(&format!("%!(EXTRA {})", extra.join(", ")));
    }
    out
}

fn verb_text(verb: char, arg: &Value, precision: Option<usize>) -> String {
    let cut = |s: String| precision.map_or(s.clone(), |p| s.chars().take(p).collect());
    match (verb, arg) {
        ('v', _) => show(arg),
        ('s', Value::String(s)) => cut(s.clone()),
        ('s', Value::Array(_) | Value::Object(_)) => show(arg),
        ('q', Value::String(s)) => format!("{s:?}"),
        ('t', Value::Bool(b)) => b.to_string(),
        ('d', Value::Number(n)) if !n.is_f64() => n.to_string(),
        ('x', Value::Number(n)) if n.is_i64() => format!("{:x}", n.as_i64().unwrap_or(0)),
        ('x', Value::String(s)) => s.bytes().map(|b| format!("{b:02x}")).collect(),
        ('f', Value::Number(n)) => format!("{:.*}", precision.unwrap_or(6), n.as_f64().unwrap_or(0.0)),
        _ => format!("%!{verb}({}={})", type_of(arg), show(arg)),
    }
}
