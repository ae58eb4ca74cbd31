//! What it costs to look at a context again: a walk, the cache of digests, and the digest of all of it.
//!
//! `context DIR [FILES]` makes FILES small files (100000) in the new directory DIR, and prints milliseconds.
#![allow(missing_docs, clippy::unwrap_used)]

use std::path::Path;
use std::time::{Duration, Instant};

use longshore_build::context::{Context, DigestCache, SelectOptions, select};
use longshore_build::ignore::Ignore;

fn main() {
    // `cargo bench` adds --bench.
    let args: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let [dir, rest @ ..] = args.as_slice() else {
        eprintln!("usage: context DIR [FILES]");
        std::process::exit(2);
    };
    let files: usize = rest.first().map_or(100_000, |n| n.parse().unwrap());
    let dir = Path::new(dir);
    let tree = dir.join("tree");
    for n in 0..files {
        let parent = tree.join(format!("package-{}/src/part{}", n / 500, n / 50 % 10));
        std::fs::create_dir_all(&parent).unwrap();
        std::fs::write(parent.join(format!("file{n}.rs")), format!("contents of {n}\n").repeat(20)).unwrap();
    }
    std::thread::sleep(Duration::from_secs(4));
    let cache = dir.join("cache");
    let ignore = Ignore::parse(b"**/*.o\n**/target\n.git\n**/node_modules\n*.md\n!README.md\n").unwrap();
    println!("cold: {}", run(&tree, &cache, &ignore));
    for _ in 0..5 {
        println!("warm: {}", run(&tree, &cache, &ignore));
    }
}

fn run(tree: &Path, file: &Path, ignore: &Ignore) -> String {
    let mut times = Vec::new();
    let mut at = Instant::now();
    let start = at;
    let mut lap = |what: &str| {
        times.push(format!("{what} {:.0}", at.elapsed().as_secs_f64() * 1e3));
        at = Instant::now();
    };
    let mut cache = DigestCache::load(file);
    lap("load");
    let context = Context::open(tree, ignore).unwrap();
    lap("walk");
    let selected = select(context.tree(), &["."], &SelectOptions::default()).unwrap();
    lap("select");
    context.hash_cached(&selected, &mut cache).unwrap();
    lap("hash");
    cache.save(file).unwrap();
    lap("save");
    format!(
        "{:.0} ms ({} entries: {})",
        start.elapsed().as_secs_f64() * 1e3,
        context.entries().len(),
        times.join(", ")
    )
}
