//! A request's query parameters, and percent encoding.

use longshore_api::Filters;

use crate::errors::ApiError;

/// Most parameters that are read.
const MAX_PARAMETERS: usize = 4096;

/// Parameters in their order, decoded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    pub(crate) fn parse(text: &str) -> Result<Self, ApiError> {
        let mut pairs = Vec::new();
        for part in text.split('&').filter(|p| !p.is_empty()) {
            if pairs.len() == MAX_PARAMETERS {
                return Err(ApiError::invalid("too many query parameters"));
            }
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let decode = |s: &str| percent_decode(s, true).ok_or_else(|| bad_escape(s));
            pairs.push((decode(name)?, decode(value)?));
        }
        Ok(Self(pairs))
    }

    /// The first value, if it was given at all.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// The first value; empty when not given.
    pub(crate) fn text(&self, name: &str) -> &str {
        self.get(name).unwrap_or_default()
    }

    /// The first value unless it is empty.
    pub(crate) fn given(&self, name: &str) -> Option<&str> {
        self.get(name).filter(|v| !v.is_empty())
    }

    /// All values.
    pub(crate) fn all(&self, name: &str) -> Vec<String> {
        self.0.iter().filter(|(n, _)| n == name).map(|(_, v)| v.clone()).collect()
    }

    /// Everything is true but nothing, `0`, `no`, `false` and `none`.
    pub(crate) fn flag(&self, name: &str) -> bool {
        truth(self.text(name))
    }

    /// The same, with another meaning of "not given".
    pub(crate) fn flag_or(&self, name: &str, default: bool) -> bool {
        self.get(name).map_or(default, truth)
    }

    /// A whole number.
    pub(crate) fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, ApiError> {
        let Some(text) = self.given(name) else { return Ok(None) };
        let bad =
            |_| ApiError::invalid(format!("invalid value for parameter {name}: {text:?} is not a number"));
        text.parse().map(Some).map_err(bad)
    }

    /// The `filters` parameter.
    pub(crate) fn filters(&self) -> Result<Filters, ApiError> {
        longshore_api::filters::parse(self.text("filters")).map_err(|_| ApiError::invalid("invalid filter"))
    }
}

fn truth(text: &str) -> bool {
    !matches!(text.trim().to_ascii_lowercase().as_str(), "" | "0" | "no" | "false" | "none")
}

fn bad_escape(text: &str) -> ApiError {
    let at = text.find('%').unwrap_or(0);
    let shown: String = text[at..].chars().take(3).collect();
    ApiError::invalid(format!("invalid URL escape {shown:?}"))
}

/// Decodes `%41`, and `+` where it means a space. Bad UTF-8 is replaced; a bad escape is `None`.
pub(crate) fn percent_decode(text: &str, plus: bool) -> Option<String> {
    if !text.contains(['%', '+']) {
        return Some(text.to_owned());
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(b) = rest.next() {
        bytes.push(match b {
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                let code = digit()? * 16 + digit()?;
                u8::try_from(code).ok()?
            }
            b'+' if plus => b' ',
            b => b,
        });
    }
    Some(String::from_utf8(bytes).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_read_as_forms() {
        let q =
            Query::parse("a=1&b=x%20y+z&a=2&flag&no=False&filters=%7B%22n%22%3A%5B%22v%22%5D%7D").unwrap();
        assert_eq!((q.get("a"), q.text("b")), (Some("1"), "x y z"));
        assert_eq!(q.all("a"), ["1", "2"]);
        assert_eq!(
            (q.get("flag"), q.flag("flag"), q.flag("no"), q.flag("a")),
            (Some(""), false, false, true)
        );
        assert!(q.flag_or("missing", true) && !q.flag_or("no", true));
        assert_eq!(q.filters().unwrap()["n"], ["v"]);
        assert_eq!(q.number::<u32>("a").unwrap(), Some(1));
        assert!(q.number::<u32>("b").is_err() && q.number::<u32>("c").unwrap().is_none());
        assert!(Query::parse("a=%zz").is_err() && Query::parse("a=%4").is_err());
        assert!(Query::parse(&"a&".repeat(5000)).is_err());
    }
}
