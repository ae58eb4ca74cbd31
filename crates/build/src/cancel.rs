//! Calling a build off.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

type Callback = Box<dyn FnOnce() + Send>;

/// A build's switch: once called off it stays so. Clones are the same switch.
#[derive(Clone, Default)]
pub struct Cancel {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    off: bool,
    next: u64,
    callbacks: BTreeMap<u64, Callback>,
}

impl fmt::Debug for Cancel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cancel").field("off", &self.is_off()).finish_non_exhaustive()
    }
}

/// A callback that is waiting; dropped, it is taken back.
#[derive(Debug)]
pub struct Armed {
    cancel: Cancel,
    id: u64,
}

impl Drop for Armed {
    fn drop(&mut self) {
        self.cancel.state().callbacks.remove(&self.id);
    }
}

impl Cancel {
    /// Not called off yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls it off, and runs what waits for that.
    pub fn call_off(&self) {
        let callbacks = {
            let mut state = self.state();
            state.off = true;
            std::mem::take(&mut state.callbacks)
        };
        // Without the lock: they may look at the switch.
        for callback in callbacks.into_values() {
            callback();
        }
    }

    /// Whether it was called off.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.state().off
    }

    /// Runs `callback` when it is called off, at once if it was; never after the guard is gone.
    pub fn on_call(&self, callback: impl FnOnce() + Send + 'static) -> Armed {
        let mut state = self.state();
        let id = state.next;
        state.next += 1;
        if state.off {
            drop(state);
            callback();
        } else {
            state.callbacks.insert(id, Box::new(callback));
        }
        Armed { cancel: self.clone(), id }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn callbacks_run_once_and_only_while_armed() {
        let (cancel, count) = (Cancel::new(), Arc::new(AtomicU32::new(0)));
        let add = |n| {
            let count = count.clone();
            move || {
                count.fetch_add(n, Ordering::SeqCst);
            }
        };
        drop(cancel.on_call(add(100)));
        let _armed = cancel.on_call(add(1));
        assert!(!cancel.is_off());
        cancel.call_off();
        cancel.call_off();
        assert!(cancel.is_off());
        let _late = cancel.on_call(add(10));
        assert_eq!(count.load(Ordering::SeqCst), 11);
    }
}
