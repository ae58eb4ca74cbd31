use std::sync::Arc;

use longshore_oci::Reference;

use crate::{Config, Credentials, Error, Repository, Result};

/// The client of all registries: connections, tokens, and what was learnt of each host. Cloning is cheap, and
/// clones share all of it. Nothing is read or opened before the first use.
#[derive(Clone, Debug)]
pub struct Client {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    #[allow(dead_code)]
    config: Config,
}

/// What a login gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// A token to keep in the password's place ([`Credentials::IdentityToken`]), from registries that give one.
    pub identity_token: Option<String>,
}

/// One repository that a search found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SearchHit {
    /// `busybox`, `library/x`...
    pub name: String,
    /// One line, as the registry has it.
    pub description: String,
    /// How many users like it.
    pub stars: u64,
    /// Kept by the registry's owner.
    pub official: bool,
    /// Built by the registry from sources; no registry does so any more.
    pub automated: bool,
}

impl Client {
    /// A client with `config`.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the configuration contradicts itself.
    pub fn new(config: Config) -> Result<Self> {
        for mirror in &config.mirrors {
            mirror.base()?;
        }
        Ok(Self { inner: Arc::new(Inner { config }) })
    }

    /// The repository of `name`; its tag and digest, if any, are kept in [`Repository::name`] and mean nothing
    /// else. Performs no I/O.
    #[must_use]
    pub fn repository(&self, name: &Reference, credentials: Credentials) -> Repository {
        Repository::new(self.clone(), name.clone(), credentials)
    }

    /// Checks `credentials` at `registry` (`docker.io`, `host:port`, or Docker's `https://index.docker.io/v1/`).
    ///
    /// # Errors
    /// Kind `Unauthorized` when the registry does not take them.
    pub async fn login(&self, registry: &str, credentials: Credentials) -> Result<Login> {
        let _ = credentials;
        Err(Error::Unsupported(format!("login at {registry} is not built yet")))
    }

    /// Repositories of `registry` whose names or descriptions have `term`, at most `limit` of them.
    ///
    /// # Errors
    /// When the registry has no search, or refuses.
    pub async fn search(
        &self,
        registry: &str,
        term: &str,
        limit: u32,
        credentials: Credentials,
    ) -> Result<Vec<SearchHit>> {
        let _ = (term, limit, credentials);
        Err(Error::Unsupported(format!("search at {registry} is not built yet")))
    }
}
