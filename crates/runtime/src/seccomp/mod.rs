//! System call filters: profiles, the default one, and their compilation without outside help.

mod bpf;
mod default_profile;
mod numbers;
mod profile;

use std::sync::{Arc, Mutex, PoisonError};

pub use profile::{Circumstances, Profile};

use crate::caps::CapSet;
use crate::error::{Error, Result};
use crate::spec::{LinuxSeccomp, LinuxSeccompFilterFlag};

/// A filter as the kernel takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// `SECCOMP_FILTER_FLAG_*`.
    pub flags: u32,
    /// `struct sock_filter` items.
    pub bytes: Vec<u8>,
}

/// How many filters are kept: one per profile and set of capabilities in use.
const KEPT: usize = 16;

static COMPILED: Mutex<Vec<(LinuxSeccomp, Arc<Program>)>> = Mutex::new(Vec::new());
static SETTLED: Mutex<Vec<(Circumstances, Arc<LinuxSeccomp>)>> = Mutex::new(Vec::new());

/// The default filter of a container with these capabilities.
#[must_use]
pub fn default_filter(caps: CapSet) -> Arc<LinuxSeccomp> {
    let here = Circumstances::here(caps);
    let mut kept = SETTLED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, settled)) = kept.iter().find(|(c, _)| *c == here) {
        return Arc::clone(settled);
    }
    // Without a filter at all the default refuses everything, it never lets everything through.
    let refuse_all = || {
        let mut all = LinuxSeccomp::default();
        all.set_default_action(crate::spec::LinuxSeccompAction::ScmpActErrno);
        all
    };
    let settled = Profile::default_profile().settle(here).ok().flatten().unwrap_or_else(refuse_all);
    let settled = Arc::new(settled);
    keep(&mut kept, (here, Arc::clone(&settled)));
    settled
}

/// Compiles a filter, or takes it from the last ones.
///
/// # Errors
/// When a rule is nonsense, or needs what is not built.
pub fn compile(seccomp: &LinuxSeccomp) -> Result<Arc<Program>> {
    let find = |kept: &[(LinuxSeccomp, Arc<Program>)]| {
        kept.iter().find(|(s, _)| s == seccomp).map(|(_, program)| Arc::clone(program))
    };
    if let Some(program) = find(&COMPILED.lock().unwrap_or_else(PoisonError::into_inner)) {
        return Ok(program);
    }
    let program = Arc::new(build(seccomp)?);
    let mut kept = COMPILED.lock().unwrap_or_else(PoisonError::into_inner);
    if find(&kept).is_none() {
        keep(&mut kept, (seccomp.clone(), Arc::clone(&program)));
    }
    Ok(program)
}

fn build(seccomp: &LinuxSeccomp) -> Result<Program> {
    if !cfg!(target_arch = "x86_64") {
        return Err(Error::Unsupported("compiling seccomp filters for this machine".to_owned()));
    }
    if seccomp.listener_path().is_some() {
        return Err(Error::Unsupported("a seccomp listener".to_owned()));
    }
    Ok(Program { flags: flags(seccomp), bytes: bpf::compile(seccomp)? })
}

fn keep<T>(kept: &mut Vec<T>, new: T) {
    if kept.len() >= KEPT {
        kept.remove(0);
    }
    kept.push(new);
}

fn flags(seccomp: &LinuxSeccomp) -> u32 {
    use LinuxSeccompFilterFlag::*;
    let Some(flags) = seccomp.flags() else {
        // As other runtimes do: a filter does not by itself slow every branch of its process down.
        return 4;
    };
    flags.iter().fold(0, |all, flag| {
        all | match flag {
            // Threads are alike anyway: the process that installs it has one.
            SeccompFilterFlagTsync => 1,
            SeccompFilterFlagLog => 2,
            SeccompFilterFlagSpecAllow => 4,
        }
    })
}

#[cfg(test)]
mod tests;
