//! The runtimes that a daemon has, by name.

use std::collections::BTreeMap;

use crate::embedded::{Embedded, RuntimeOptions};
use crate::error::{Error, Result};
use crate::external::{External, Registered};
use crate::task::Runtime;

/// Names that clients of Docker know for the runtime that is always there.
const ALIASES: [&str; 2] = ["runc", "io.containerd.runc.v2"];

/// The embedded launcher and what was registered beside it.
#[derive(Debug)]
pub struct Runtimes {
    embedded: Embedded,
    registered: BTreeMap<String, External>,
    default: String,
}

impl Runtimes {
    /// Prepares all of them. `default`: the one that is taken when none is named.
    ///
    /// # Errors
    /// When the launcher cannot be prepared, a name is malformed or taken, or the default is unknown.
    pub fn open(options: RuntimeOptions, registered: &[Registered], default: Option<&str>) -> Result<Self> {
        let embedded = Embedded::new(options.clone())?;
        let mut all = BTreeMap::new();
        for one in registered {
            check_name(&one.name)?;
            let external = External::new(&embedded, &options, one);
            if all.insert(one.name.clone(), external).is_some() {
                return Err(Error::Invalid(format!("runtime {:?} was already registered", one.name)));
            }
        }
        let default = default.filter(|d| !d.is_empty()).unwrap_or(Embedded::NAME).to_owned();
        let this = Self { embedded, registered: all, default };
        if this.get(&this.default).is_none() {
            return Err(Error::Invalid(format!(
                "specified default runtime '{}' does not exist",
                this.default
            )));
        }
        Ok(this)
    }

    /// The runtime of that name; an empty one is the default.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&dyn Runtime> {
        let name = if name.is_empty() { &self.default } else { name };
        match self.registered.get(name) {
            Some(external) => Some(external),
            None if name == Embedded::NAME || ALIASES.contains(&name) => Some(&self.embedded),
            None => None,
        }
    }

    /// What finds and ends any container: its own state says who made it, also when that runtime is
    /// not registered any more.
    #[must_use]
    pub fn any(&self) -> &dyn Runtime {
        &self.embedded
    }

    /// Tidies up when the daemon leaves: containers may run on.
    ///
    /// # Errors
    /// When no cgroups are mounted.
    pub fn leave(&self) -> Result<()> {
        self.embedded.home().leave()
    }

    /// The name of the default.
    #[must_use]
    pub fn default_name(&self) -> &str {
        &self.default
    }

    /// Names with the programs that they stand for.
    #[must_use]
    pub fn list(&self) -> Vec<(String, String)> {
        let own = (Embedded::NAME.to_owned(), Embedded::NAME.to_owned());
        let others = self.registered.iter().map(|(name, e)| (name.clone(), e.path().display().to_string()));
        std::iter::once(own).chain(others).collect()
    }
}

fn check_name(name: &str) -> Result<()> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    if name.is_empty() || name.starts_with('.') || !name.bytes().all(plain) {
        return Err(Error::Invalid(format!("runtime name {name:?} is malformed")));
    }
    if name == Embedded::NAME {
        return Err(Error::Invalid(format!("runtime name '{name}' is reserved")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(names: &[&str], default: Option<&str>) -> Result<Runtimes> {
        let dir = tempfile::tempdir().unwrap();
        let options = RuntimeOptions { exec_root: dir.path().into(), cgroup_parent: "p".into(), slice: None };
        let list: Vec<_> = names
            .iter()
            .map(|n| Registered { name: (*n).into(), path: "/bin/oci".into(), args: Vec::new() })
            .collect();
        Runtimes::open(options, &list, default)
    }

    #[test]
    fn names_lead_to_runtimes() {
        let all = open(&["crun"], Some("crun")).unwrap();
        assert_eq!(all.get("").unwrap().name(), "crun");
        assert_eq!(all.get("runc").unwrap().name(), Embedded::NAME);
        assert!(all.get("nosuch").is_none());
        let all = open(&["runc"], None).unwrap();
        assert_eq!(all.get("runc").unwrap().name(), "runc");
        assert_eq!(all.get("").unwrap().name(), Embedded::NAME);
    }

    #[test]
    fn wrong_registrations_are_refused() {
        let says = |names: &[&str], default| open(names, default).unwrap_err().to_string();
        assert!(says(&["longshore"], None).contains("reserved"));
        assert!(says(&["a/b"], None).contains("malformed"));
        assert!(says(&["a", "a"], None).contains("already registered"));
        assert_eq!(says(&[], Some("x")), "specified default runtime 'x' does not exist");
    }
}
