//! `WWW-Authenticate` (RFC 9110, 11.6.1; RFC 6750, 3), read with a limit on everything.

/// One challenge of a server. Names are in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// `bearer`, `basic`...
    pub scheme: String,
    /// Parameters in their order; no name twice.
    pub params: Vec<(String, String)>,
}

/// Bytes of one header.
const MAX_HEADER: usize = 8 << 10;
const MAX_CHALLENGES: usize = 8;
const MAX_PARAMS: usize = 16;

impl Challenge {
    /// A parameter by its name in lower case.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.params.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
}

/// The challenges in the value of one header. What follows a mistake is not read; a challenge that says one thing
/// twice is dropped, because two readers may take either.
#[must_use]
pub fn parse_challenges(header: &str) -> Vec<Challenge> {
    let mut out = Vec::new();
    if header.len() > MAX_HEADER {
        return out;
    }
    let mut input = Input(header);
    while out.len() < MAX_CHALLENGES {
        input.separators();
        let Some(scheme) = input.token() else { break };
        let mut challenge = Challenge { scheme: scheme.to_ascii_lowercase(), params: Vec::new() };
        let whole = input.space() && input.params(&mut challenge.params);
        let over = input.0.is_empty() || input.0.starts_with(',');
        let twice = (1..challenge.params.len())
            .any(|i| challenge.params[..i].iter().any(|(name, _)| *name == challenge.params[i].0));
        if !twice {
            out.push(challenge);
        }
        // After parameters comes the next scheme; after a scheme alone the end or a comma.
        if !(whole || over) {
            break;
        }
    }
    out
}

struct Input<'a>(&'a str);

impl<'a> Input<'a> {
    /// Skips white space; whether there was any.
    fn space(&mut self) -> bool {
        let rest = self.0.trim_start_matches([' ', '\t']);
        let some = rest.len() < self.0.len();
        self.0 = rest;
        some
    }

    fn separators(&mut self) {
        self.0 = self.0.trim_start_matches([' ', '\t', ',']);
    }

    fn take(&mut self, len: usize) -> Option<&'a str> {
        if len == 0 {
            return None;
        }
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn token(&mut self) -> Option<&'a str> {
        let known = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        let len = self.0.bytes().position(|b| !known(b)).unwrap_or(self.0.len());
        self.take(len)
    }

    /// Reads parameters up to the next scheme or the end; `false` after a mistake.
    fn params(&mut self, out: &mut Vec<(String, String)>) -> bool {
        if self.token68() {
            return true;
        }
        loop {
            self.separators();
            let before = self.0;
            let Some(name) = self.token() else { return self.0.is_empty() };
            self.space();
            let Some(rest) = self.0.strip_prefix('=') else {
                // No parameter but the next scheme.
                self.0 = before;
                return true;
            };
            self.0 = rest;
            self.space();
            let Some(value) = self.value() else { return false };
            if out.len() == MAX_PARAMS {
                return false;
            }
            out.push((name.to_ascii_lowercase(), value));
            self.space();
            if !(self.0.is_empty() || self.0.starts_with(',')) {
                return false;
            }
        }
    }

    /// The other form of a challenge, which nothing here answers: one word in base 64.
    fn token68(&mut self) -> bool {
        let known = |b: u8| b.is_ascii_alphanumeric() || b"-._~+/".contains(&b);
        let end = self.0.find([',', ' ', '\t']).unwrap_or(self.0.len());
        let (word, rest) = self.0.split_at(end);
        let rest = rest.trim_start_matches([' ', '\t']);
        let body = word.trim_end_matches('=');
        // `a=` before a value is a parameter; `a` alone before `=` too.
        let is = !body.is_empty()
            && body.bytes().all(known)
            && (rest.is_empty() || rest.starts_with(','))
            && (word.len() > body.len() || rest.is_empty());
        if is {
            self.0 = rest;
        }
        is
    }

    fn value(&mut self) -> Option<String> {
        let Some(quoted) = self.0.strip_prefix('"') else { return self.bare().map(str::to_owned) };
        let mut out = String::new();
        let mut chars = quoted.char_indices();
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    self.0 = &quoted[at + 1..];
                    return Some(out);
                }
                '\\' => out.push(chars.next()?.1),
                c => out.push(c),
            }
        }
        None
    }

    /// A value without quotation marks; more characters than a token may have are in use.
    fn bare(&mut self) -> Option<&'a str> {
        let len = self.0.find([',', ' ', '\t', '"']).unwrap_or(self.0.len());
        self.take(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flat(header: &str) -> Vec<String> {
        let one = |c: Challenge| {
            let params: Vec<String> = c.params.into_iter().map(|(n, v)| format!("{n}={v}")).collect();
            format!("{} {}", c.scheme, params.join("|")).trim_end().to_owned()
        };
        parse_challenges(header).into_iter().map(one).collect()
    }

    #[test]
    fn what_registries_send() {
        assert_eq!(
            flat(
                r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#
            ),
            [
                "bearer realm=https://auth.docker.io/token|service=registry.docker.io|scope=repository:a/b:pull,push"
            ]
        );
        assert_eq!(flat(r#"Basic realm="Registry Realm""#), ["basic realm=Registry Realm"]);
        assert_eq!(flat("BASIC"), ["basic"]);
        assert_eq!(
            flat(
                r#"Bearer realm=https://r.example/t , error="invalid_token" , Basic realm="x, y=\"z\"", Negotiate"#
            ),
            ["bearer realm=https://r.example/t|error=invalid_token", r#"basic realm=x, y="z""#, "negotiate"]
        );
        assert_eq!(flat("Negotiate abc+/==, Basic realm=r"), ["negotiate", "basic realm=r"]);
        assert_eq!(flat("Bearer realm = \"a\" , service= b"), ["bearer realm=a|service=b"]);
    }

    #[test]
    fn what_is_broken_gives_what_came_before_it() {
        assert_eq!(flat(r#"Basic realm="a", Bearer realm="unterminated"#), ["basic realm=a", "bearer"]);
        assert_eq!(flat(r#"Bearer realm="a",realm="b", Basic realm=c"#), ["basic realm=c"]);
        assert!(flat("").is_empty());
        assert!(flat(", ,, ").is_empty());
        assert!(flat("\"x\"").is_empty());
        assert!(flat(&format!("Bearer realm={}", "x".repeat(MAX_HEADER))).is_empty());
        assert_eq!(parse_challenges(&"Basic, ".repeat(100)).len(), MAX_CHALLENGES);
        let many: Vec<String> = (0..100).map(|i| format!("p{i}=1")).collect();
        assert_eq!(parse_challenges(&format!("Bearer {}", many.join(",")))[0].params.len(), MAX_PARAMS);
        assert_eq!(flat(r#"Bearer realm="é\"#), ["bearer"]);
    }
}
