//! A container's processes where it has no cgroup: its monitor is the parent of all of them, or has become that.

use std::collections::BTreeMap;

use longshore_sys::pidfd;

/// How often is looked for processes that were made while others were killed.
const ROUNDS: u32 = 20;

/// All processes below `monitor`, in order of their numbers.
pub(crate) fn below(monitor: u32) -> Vec<u32> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // It may be gone meanwhile.
        let Ok(stat) = std::fs::read(entry.path().join("stat")) else { continue };
        if let Some(parent) = parent_of(&stat) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut found = Vec::new();
    let mut next = vec![monitor];
    while let Some(of) = next.pop() {
        let own = children.remove(&of).unwrap_or_default();
        next.extend(&own);
        found.extend(own);
    }
    found.sort_unstable();
    found
}

/// Field 4 of /proc/pid/stat; the name (field 2) may hold anything, so count after its last `)`. What has ended and only
/// waits to be reaped is nobody's child any more.
fn parent_of(stat: &[u8]) -> Option<u32> {
    let after = stat.get(stat.iter().rposition(|b| *b == b')')? + 1..)?;
    let mut fields = std::str::from_utf8(after).ok()?.split_ascii_whitespace();
    (fields.next()? != "Z").then(|| fields.next()?.parse().ok()).flatten()
}

/// Sends SIGKILL to all of them, also to those that are made meanwhile.
pub(crate) fn kill_below(monitor: u32) {
    for _ in 0..ROUNDS {
        let mut left = false;
        for pid in below(monitor) {
            // Opened first, then found to be (still) one of them: the number cannot be another's.
            let Ok(fd) = pidfd::open(pid) else { continue };
            if below(monitor).contains(&pid) {
                left = true;
                // It may be gone by itself.
                let _ = pidfd::send_signal(&fd, libc::SIGKILL);
                let _ = pidfd::wait_exit(&fd, Some(100));
            }
        }
        if !left {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents_are_read_whatever_a_process_is_called() {
        assert_eq!(parent_of(b"7 (a) Z (b)) S 42 7 7 0"), Some(42));
        assert_eq!((parent_of(b"7 (a) Z 42 7"), parent_of(b"7")), (None, None));
    }

    #[test]
    fn children_and_theirs_are_found_and_killed() {
        let script = "sleep 600 & sh -c 'sleep 600 & wait' & wait";
        let mut shell = std::process::Command::new("sh").args(["-c", script]).spawn().unwrap();
        while below(shell.id()).len() < 3 {
            std::thread::yield_now();
        }
        assert!(below(std::process::id()).contains(&shell.id()));
        kill_below(shell.id());
        assert!(below(shell.id()).is_empty());
        shell.wait().unwrap();
    }
}
