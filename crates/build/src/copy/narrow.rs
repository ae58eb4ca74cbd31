//! Of a tree of a hundred thousand files a copy mostly takes a few: only what its sources lead to is walked.

use std::os::unix::ffi::OsStrExt as _;

use longshore_sys::root::Root;
use rustix::fs::FileType;

use super::escaped;
use super::place::path;
use crate::ignore::Ignore;
use crate::pattern::{clean_in_root, has_wildcards};
use crate::{Error, Result};

/// Links that are followed, as by the kernel.
const MAX_LINKS: usize = 40;

/// An ignore file that leaves out what `sources` cannot name in the tree `root`.
///
/// # Errors
/// When a link cannot be read.
pub(super) fn only(root: &Root, sources: &[Vec<u8>]) -> Result<Ignore> {
    only_and(root, sources, b"")
}

/// The same, and what an ignore file of the text `more` leaves out.
///
/// # Errors
/// When a link cannot be read, or the text is no ignore file.
pub(super) fn only_and(root: &Root, sources: &[Vec<u8>], more: &[u8]) -> Result<Ignore> {
    Ignore::parse(more).map_err(|e| Error::Invalid(e.to_string()))?;
    let text = [leading_to(root, sources)?.as_slice(), more].concat();
    Ignore::parse(&text).map_err(|e| Error::Internal(format!("a copy's sources cannot be told apart: {e}")))
}

/// The lines of that ignore file; none where a source may be anything.
fn leading_to(root: &Root, sources: &[Vec<u8>]) -> Result<Vec<u8>> {
    let mut text = b"**\n".to_vec();
    for source in sources {
        let clean = clean_in_root(source);
        let fixed: Vec<&[u8]> = clean.split(|&b| b == b'/').take_while(|part| !has_wildcards(part)).collect();
        let mut leads = Vec::new();
        trace(root, &fixed, &mut leads)?;
        for lead in leads {
            if lead.is_empty() {
                return Ok(Vec::new());
            }
            text.push(b'!');
            text.extend(escaped(&lead));
            text.push(b'\n');
        }
    }
    Ok(text)
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
        let Ok(stat) = root.stat(path(&at)) else { break };
        if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
            continue;
        }
        leads.push(at.clone());
        links += 1;
        if links > MAX_LINKS {
            break;
        }
        let target = root.readlink(path(&at))?;
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
