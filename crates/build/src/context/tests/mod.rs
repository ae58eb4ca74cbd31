use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::*;
use crate::ignore::Ignore;

mod cache;
mod hash;
mod pack;
mod select;
mod sync;
mod unpack;
mod walk;

/// Files by path and content; a path that ends in a slash is a directory, `->` in a path makes a link.
fn make(dir: &Path, files: &[(&str, &str)]) {
    for (path, content) in files {
        if let Some((link, target)) = path.split_once("->") {
            fs::create_dir_all(dir.join(link).parent().unwrap()).unwrap();
            symlink(target, dir.join(link)).unwrap();
            continue;
        }
        let at = dir.join(path);
        if path.ends_with('/') {
            fs::create_dir_all(at).unwrap();
        } else {
            fs::create_dir_all(at.parent().unwrap()).unwrap();
            fs::write(at, content).unwrap();
        }
    }
}

fn tree(files: &[&str]) -> (tempfile::TempDir, Context) {
    let dir = tempfile::tempdir().unwrap();
    let files: Vec<_> = files.iter().map(|path| (*path, *path)).collect();
    make(dir.path(), &files);
    let context = Context::open(dir.path(), &Ignore::default()).unwrap();
    (dir, context)
}

fn text(path: &[u8]) -> String {
    String::from_utf8(path.to_vec()).unwrap()
}

fn paths(context: &Context) -> Vec<String> {
    context.entries().iter().map(|e| text(&e.path)).collect()
}

const FILES: &[&str] =
    &["a.c", "b.c", "src/m.c", "src/m.h", "src/in/n.c", "x/src/o.c", "l->src", "lf->src/m.c"];
