//! A list of patterns of which the last that matches a path, or a directory above it, decides.

use super::nfa::{Nfa, Token};
use super::{Error, MAX_PATTERNS, SLASH, clean, ignore_pattern, trim, units};

#[derive(Clone, Debug)]
struct Rule {
    nfa: Nfa,
    /// Written with `!`: what it matches is let in again.
    exception: bool,
}

/// Patterns in their order, those with `!` being exceptions.
#[derive(Clone, Debug, Default)]
pub struct PatternList {
    rules: Vec<Rule>,
}

/// What a list says about a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The last pattern that matches the path or a directory above it is no exception.
    pub matched: bool,
    /// What is below the path may have another verdict.
    pub open_below: bool,
}

/// What is known of a directory: for a walk, which need not match each path from its start.
#[derive(Clone, Debug)]
pub struct Scope {
    live: Vec<Live>,
    states: Vec<u64>,
}

/// A pattern that matches the directory, or may match something in it.
#[derive(Clone, Debug)]
struct Live {
    rule: usize,
    matched: bool,
    /// Where its state is.
    at: usize,
}

impl PatternList {
    /// Compiles patterns; each is cleaned, and empty ones are left out.
    ///
    /// # Errors
    /// When one is malformed or a limit is exceeded.
    pub fn new<P: AsRef<[u8]>>(patterns: impl IntoIterator<Item = P>) -> Result<Self, Error> {
        let mut list = Self::default();
        for pattern in patterns {
            list.push(pattern.as_ref())?;
        }
        Ok(list)
    }

    /// Adds a pattern after the others.
    ///
    /// # Errors
    /// As [`PatternList::new`].
    pub fn push(&mut self, pattern: &[u8]) -> Result<(), Error> {
        let pattern = trim(pattern);
        if pattern.is_empty() {
            return Ok(());
        }
        if self.rules.len() == MAX_PATTERNS {
            return Err(Error::TooMany);
        }
        let cleaned = clean(pattern);
        let (exception, pattern) = match cleaned.strip_prefix(b"!") {
            Some(b"") => return Err(Error::EmptyException),
            Some(rest) => (true, rest),
            None => (false, cleaned.as_slice()),
        };
        self.rules.push(Rule { nfa: ignore_pattern(pattern)?, exception });
        Ok(())
    }

    /// Adds an exception for one path, which is taken as it is.
    ///
    /// # Errors
    /// [`Error::TooMany`].
    pub fn push_exact_exception(&mut self, path: &[u8]) -> Result<(), Error> {
        if self.rules.len() == MAX_PATTERNS {
            return Err(Error::TooMany);
        }
        let nfa = Nfa::new(units(path).map(Token::Unit).collect());
        self.rules.push(Rule { nfa, exception: true });
        Ok(())
    }

    /// Adds the patterns of another list after its own.
    ///
    /// # Errors
    /// [`Error::TooMany`].
    pub fn extend(&mut self, other: &Self) -> Result<(), Error> {
        if self.rules.len() + other.rules.len() > MAX_PATTERNS {
            return Err(Error::TooMany);
        }
        self.rules.extend_from_slice(&other.rules);
        Ok(())
    }

    /// Without any pattern, nothing matches.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// What the list says about a path, which is cleaned first. The root matches nothing.
    #[must_use]
    pub fn verdict(&self, path: &[u8]) -> Verdict {
        let path = clean(path);
        if path == b"." {
            return Verdict { matched: false, open_below: !self.is_empty() };
        }
        let (parent, name) = match path.iter().rposition(|b| *b == b'/') {
            Some(slash) => (path.get(..slash).unwrap_or_default(), path.get(slash + 1..).unwrap_or_default()),
            None => (&[][..], path.as_slice()),
        };
        let mut scope = self.scope();
        if !parent.is_empty() || path.starts_with(b"/") {
            for part in parent.split(|b| *b == b'/') {
                scope = self.enter(&scope, part).0;
            }
        }
        self.enter(&scope, name).1
    }

    /// The root.
    #[must_use]
    pub fn scope(&self) -> Scope {
        let mut scope = Scope { live: Vec::with_capacity(self.rules.len()), states: Vec::new() };
        for (rule, Rule { nfa, .. }) in self.rules.iter().enumerate() {
            scope.live.push(Live { rule, matched: false, at: scope.states.len() });
            scope.states.extend_from_slice(nfa.start());
        }
        scope
    }

    /// What the list says about the directory `name` of `scope`, and what is known in it.
    #[must_use]
    pub fn enter(&self, scope: &Scope, name: &[u8]) -> (Scope, Verdict) {
        let mut inner = Scope { live: Vec::new(), states: Vec::new() };
        let mut verdict = Verdict { matched: false, open_below: false };
        for live in &scope.live {
            let Some(rule) = self.rules.get(live.rule) else { continue };
            let at = inner.states.len();
            let mut matched = live.matched;
            let mut alive = false;
            if !matched {
                inner.states.extend_from_slice(scope.state(live, &rule.nfa));
                let state = inner.states.get_mut(at..).unwrap_or_default();
                alive = units(name).all(|unit| rule.nfa.step(state, unit));
                matched = alive && rule.nfa.accepts(state);
                alive = alive && !matched && rule.nfa.step(state, SLASH);
            }
            if matched {
                verdict = Verdict { matched: !rule.exception, open_below: false };
            } else if alive {
                verdict.open_below |= rule.exception == verdict.matched;
            }
            if !alive {
                inner.states.truncate(at);
            }
            if matched || alive {
                inner.live.push(Live { rule: live.rule, matched, at });
            }
        }
        (inner, verdict)
    }

    /// Whether `name` in `scope` matches, where what is below it does not matter. `state` is room to work in.
    #[must_use]
    pub fn matches_in(&self, scope: &Scope, name: &[u8], state: &mut Vec<u64>) -> bool {
        for live in scope.live.iter().rev() {
            let Some(rule) = self.rules.get(live.rule) else { continue };
            let matched = live.matched || {
                state.clear();
                state.extend_from_slice(scope.state(live, &rule.nfa));
                units(name).all(|unit| rule.nfa.step(state, unit)) && rule.nfa.accepts(state)
            };
            if matched {
                return !rule.exception;
            }
        }
        false
    }
}

impl Scope {
    fn state(&self, live: &Live, nfa: &Nfa) -> &[u64] {
        self.states.get(live.at..live.at + nfa.words()).unwrap_or_default()
    }

    /// Whether no pattern says anything about what is below.
    #[must_use]
    pub fn is_silent(&self) -> bool {
        self.live.is_empty()
    }
}
