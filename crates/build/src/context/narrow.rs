//! Of a tree of a hundred thousand files a copy mostly takes a few: only what its sources lead to is walked.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

use longshore_sys::root::Root;
use rustix::fs::FileType;

use super::error::Result;
use crate::pattern::{clean_in_root, has_wildcards};

/// Links that are followed, as by the kernel.
const MAX_LINKS: usize = 40;

/// The paths of the tree `root` of which each that `sources` can name is one, or is below one; `None`: any path.
///
/// # Errors
/// When a link cannot be read.
pub(super) fn leads<S: AsRef<[u8]>>(root: &Root, sources: &[S]) -> Result<Option<Vec<Vec<u8>>>> {
    let mut leads = Vec::new();
    for source in sources {
        let clean = clean_in_root(source.as_ref());
        let fixed: Vec<&[u8]> = clean.split(|&b| b == b'/').take_while(|part| !has_wildcards(part)).collect();
        trace(root, &fixed, &mut leads)?;
    }
    Ok(if leads.iter().any(Vec::is_empty) { None } else { Some(leads) })
}

/// The path that `parts` lead to, and every link on the way.
fn trace(root: &Root, parts: &[&[u8]], leads: &mut Vec<Vec<u8>>) -> Result<()> {
    let mut todo: Vec<Vec<u8>> = parts.iter().rev().map(|p| p.to_vec()).collect();
    let (mut at, mut links) = (Vec::new(), 0);
    while let Some(part) = todo.pop() {
        let parent = at.clone();
        if !at.is_empty() {
            at.push(b'/');
        }
        at.extend_from_slice(&part);
        let Ok(stat) = root.stat(OsStr::from_bytes(&at)) else { break };
        if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
            continue;
        }
        leads.push(at.clone());
        links += 1;
        if links > MAX_LINKS {
            break;
        }
        let target = root.readlink(OsStr::from_bytes(&at))?;
        let target = target.as_os_str().as_bytes();
        let whole = if target.starts_with(b"/") {
            target.to_vec()
        } else {
            [parent.as_slice(), b"/", target].concat()
        };
        let clean = clean_in_root(&whole);
        todo.extend(clean.split(|&b| b == b'/').filter(|p| !p.is_empty()).rev().map(<[u8]>::to_vec));
        at.clear();
    }
    leads.push(at);
    Ok(())
}
