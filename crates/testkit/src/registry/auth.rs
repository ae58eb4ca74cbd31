//! Who may do what: nobody asked, a password (Basic), or tokens (Bearer) with a token server at `/token`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use longshore_oci::Digest;
use serde_json::json;

use super::http::{Answer, Request, form};

/// How a registry knows its clients.
#[derive(Clone, Debug, Default)]
pub(super) enum Auth {
    /// Anybody may do everything.
    #[default]
    Open,
    /// A user with a password.
    Basic(Account),
    /// A token of the token server there.
    Token { realm: String, tokens: Tokens },
}

/// The one user of a registry.
#[derive(Clone, Debug)]
pub(super) struct Account {
    pub(super) user: String,
    pub(super) password: String,
}

impl Account {
    /// Whether a header `Authorization` is this user's.
    fn is(&self, header: Option<&str>) -> bool {
        let encoded = BASE64_STANDARD.encode(format!("{}:{}", self.user, self.password));
        header
            .and_then(|h| h.split_once(' '))
            .is_some_and(|(scheme, rest)| scheme.eq_ignore_ascii_case("basic") && rest.trim() == encoded)
    }
}

/// The tokens that a token server gave, and to whom it gives them.
#[derive(Clone, Debug)]
pub(super) struct Tokens {
    account: Account,
    /// Whether nobody in particular may pull.
    anonymous: bool,
    given: Arc<Mutex<Given>>,
}

#[derive(Debug, Default)]
struct Given {
    /// How many there were.
    count: u64,
    /// What each allows: scopes, `repository:<name>:<action>,<action>`.
    scopes: BTreeMap<String, Vec<String>>,
}

/// Instead of a password, at `POST /token`.
pub const REFRESH_TOKEN: &str = "a-refresh-token";

impl Tokens {
    pub(super) fn new(account: Account, anonymous: bool) -> Self {
        Self { account, anonymous, given: Arc::default() }
    }

    /// Makes all tokens so far worthless.
    pub(super) fn expire(&self) {
        self.given.lock().unwrap_or_else(PoisonError::into_inner).scopes.clear();
    }

    fn give(&self, scopes: Vec<String>) -> Answer {
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        given.count += 1;
        let token = Digest::of(format!("{} {}", given.count, self.account.password).as_bytes()).hex();
        given.scopes.insert(token.clone(), scopes);
        Answer::new(200).json(&json!({"token": token, "access_token": token, "expires_in": 300}))
    }

    fn allows(&self, header: Option<&str>, need: Option<&Need>) -> bool {
        let Some(token) = header.and_then(|h| h.strip_prefix("Bearer ")) else { return false };
        let given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(scopes) = given.scopes.get(token) else { return false };
        need.is_none_or(|need| {
            scopes.iter().any(|scope| {
                let rest = scope.strip_prefix("repository:").and_then(|s| s.rsplit_once(':'));
                rest.is_some_and(|(name, actions)| {
                    name == need.repo && need.actions.iter().all(|a| actions.split(',').any(|b| a == &b))
                })
            })
        })
    }

    /// The token server.
    pub(super) fn serve(&self, request: &Request, body: &str) -> Answer {
        let known = if request.method == "POST" {
            let field = |name| form(body, name).pop().unwrap_or_default();
            match field("grant_type").as_str() {
                "refresh_token" => field("refresh_token") == REFRESH_TOKEN,
                _ => field("username") == self.account.user && field("password") == self.account.password,
            }
        } else {
            self.account.is(request.header("authorization"))
        };
        // A wrong password is refused, and none is nobody in particular.
        if !known
            && (!self.anonymous || request.header("authorization").is_some() || request.method == "POST")
        {
            return Answer::error(401, "UNAUTHORIZED", "authentication required");
        }
        let asked = if request.method == "POST" { form(body, "scope") } else { request.queries("scope") };
        let asked = asked.iter().flat_map(|s| s.split(' ')).filter(|s| !s.is_empty());
        let allowed = asked.map(|scope| match scope.rsplit_once(':') {
            Some((name, actions)) if !known => {
                let pull = actions.split(',').filter(|a| *a == "pull").collect::<Vec<_>>().join(",");
                format!("{name}:{pull}")
            }
            _ => scope.to_owned(),
        });
        self.give(allowed.collect())
    }
}

/// What a request needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Need {
    pub(super) repo: String,
    pub(super) actions: &'static [&'static str],
}

impl Auth {
    /// Refuses a request that may not be made.
    pub(super) fn check(&self, request: &Request, need: Option<&Need>) -> Result<(), Box<Answer>> {
        let header = request.header("authorization");
        let challenge = match self {
            Self::Open => return Ok(()),
            Self::Basic(account) if account.is(header) => return Ok(()),
            Self::Token { tokens, .. } if tokens.allows(header, need) => return Ok(()),
            Self::Basic(_) => "Basic realm=\"test\"".to_owned(),
            Self::Token { realm, .. } => {
                let mut challenge = format!("Bearer realm=\"{realm}\",service=\"test\"");
                if let Some(need) = need {
                    challenge.push_str(&format!(
                        ",scope=\"repository:{}:{}\"",
                        need.repo,
                        need.actions.join(",")
                    ));
                }
                challenge
            }
        };
        let answer = Answer::error(401, "UNAUTHORIZED", "authentication required");
        Err(Box::new(answer.with("WWW-Authenticate", challenge)))
    }

    /// Whether the bearer of this request may pull from there, too.
    pub(super) fn may_mount_from(&self, request: &Request, repo: &str) -> bool {
        self.check(request, Some(&Need { repo: repo.to_owned(), actions: &["pull"] })).is_ok()
    }
}
