//! Who uses which cache mount: one that is locked waits, one that is private gets another directory.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::cancel::Cancel;
use crate::graph::Sharing;
use crate::{Error, Result};

/// How often those who wait look whether they were called off.
const LOOK: Duration = Duration::from_millis(50);
/// Directories that one private cache may have.
const MAX_PRIVATE: u32 = 1000;

/// The caches that are in use.
#[derive(Debug, Default)]
pub(crate) struct Caches {
    users: Mutex<BTreeMap<String, User>>,
    left: Condvar,
}

#[derive(Debug)]
struct User {
    count: usize,
    alone: bool,
}

/// A cache that is in use, by its name.
#[derive(Debug)]
pub(crate) struct InUse<'a> {
    caches: &'a Caches,
    /// Its name; with a number where a private one has several directories.
    pub(crate) name: String,
}

impl Drop for InUse<'_> {
    fn drop(&mut self) {
        let mut users = self.caches.users();
        if let Some(user) = users.get_mut(&self.name) {
            user.count -= 1;
            if user.count == 0 {
                users.remove(&self.name);
            }
        }
        drop(users);
        self.caches.left.notify_all();
    }
}

impl Caches {
    fn users(&self) -> MutexGuard<'_, BTreeMap<String, User>> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether somebody uses it.
    pub(crate) fn is_used(&self, name: &str) -> bool {
        self.users().contains_key(name)
    }

    /// Takes a cache for oneself, if nobody uses it.
    pub(crate) fn take_now(&self, name: &str) -> Option<InUse<'_>> {
        let mut users = self.users();
        if users.contains_key(name) {
            return None;
        }
        users.insert(name.to_owned(), User { count: 1, alone: true });
        Some(InUse { caches: self, name: name.to_owned() })
    }

    /// Takes a cache into use; waits where it has to.
    ///
    /// # Errors
    /// [`Error::Cancelled`] while waiting.
    pub(crate) fn take(&self, name: &str, sharing: Sharing, cancel: &Cancel) -> Result<InUse<'_>> {
        let mut users = self.users();
        if sharing == Sharing::Private {
            let names =
                (1..=MAX_PRIVATE).map(|n| if n == 1 { name.to_owned() } else { format!("{name}#{n}") });
            let free = names.into_iter().find(|n| !users.contains_key(n));
            let name =
                free.ok_or_else(|| Error::TooLarge(format!("more than {MAX_PRIVATE} uses of cache {name}")))?;
            users.insert(name.clone(), User { count: 1, alone: true });
            return Ok(InUse { caches: self, name });
        }
        let alone = sharing == Sharing::Locked;
        while users.get(name).is_some_and(|user| alone || user.alone) {
            if cancel.is_off() {
                return Err(Error::Cancelled);
            }
            users = self.left.wait_timeout(users, LOOK).unwrap_or_else(PoisonError::into_inner).0;
        }
        users.entry(name.to_owned()).or_insert(User { count: 0, alone }).count += 1;
        Ok(InUse { caches: self, name: name.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sharing_locking_and_privacy() {
        let (caches, cancel) = (Caches::default(), Cancel::new());
        let a = caches.take("a", Sharing::Shared, &cancel).unwrap();
        let b = caches.take("a", Sharing::Shared, &cancel).unwrap();
        let c = caches.take("a", Sharing::Private, &cancel).unwrap();
        let d = caches.take("a", Sharing::Private, &cancel).unwrap();
        assert_eq!([&a.name, &b.name, &c.name, &d.name], ["a", "a", "a#2", "a#3"]);
        drop((a, b, c, d));
        let locked = caches.take("a", Sharing::Locked, &cancel).unwrap();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| caches.take("a", Sharing::Locked, &cancel).map(|u| u.name.clone()));
            std::thread::sleep(LOOK * 2);
            assert!(!waiting.is_finished());
            drop(locked);
            assert_eq!(waiting.join().unwrap().unwrap(), "a");
        });
        let _locked = caches.take("a", Sharing::Locked, &cancel).unwrap();
        cancel.call_off();
        assert!(matches!(caches.take("a", Sharing::Shared, &cancel), Err(Error::Cancelled)));
    }
}
