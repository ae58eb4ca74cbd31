//! Sizes of trees.

use std::collections::HashSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Bytes of the regular files below `path`; a file with several names counts once, links are not followed.
pub(crate) fn tree_size(path: &Path) -> u64 {
    let mut seen = HashSet::new();
    let mut todo = vec![path.to_owned()];
    let mut total: u64 = 0;
    while let Some(dir) = todo.pop() {
        let Ok(entries) = std::fs::read_dir(&dir) else { continue };
        for entry in entries.flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            if meta.is_dir() {
                todo.push(entry.path());
            } else if meta.is_file() && (meta.nlink() < 2 || seen.insert((meta.dev(), meta.ino()))) {
                total = total.saturating_add(meta.len());
            }
        }
    }
    total
}
