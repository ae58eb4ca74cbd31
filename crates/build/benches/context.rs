//! What it costs to look at a context again: a walk, what is known of the files, and the digest of all of it.
//!
//! `context DIR [FILES]` makes FILES small files (100000) in the new directory DIR, and prints milliseconds.
#![allow(missing_docs, clippy::unwrap_used)]

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use longshore_build::context::sync::{self, Ask, Use};
use longshore_build::context::{Context, Options, SelectOptions, select};
use longshore_build::ignore::Ignore;
use longshore_store::{Pool, Store, StoreOptions};
use longshore_sys::root::Root;

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
    let pool = Store::open(&dir.join("data"), &StoreOptions::default()).unwrap().pool();
    let ignore = Ignore::parse(b"**/*.o\n**/target\n.git\n**/node_modules\n*.md\n!README.md\n").unwrap();
    println!("cold: {}", run(&tree, &pool, &ignore));
    for _ in 0..5 {
        println!("warm: {}", run(&tree, &pool, &ignore));
    }
}

fn run(tree: &Path, pool: &Pool, ignore: &Ignore) -> String {
    let start = Instant::now();
    let (asks, asked) = std::sync::mpsc::channel();
    let (mut here, there) = UnixStream::pair().unwrap();
    let uses = [Use { sources: vec![b".".to_vec()], ..Use::default() }];
    let context = std::thread::scope(|scope| {
        scope.spawn(|| {
            let there = std::io::BufWriter::new(there);
            client(tree, ignore, asked, there);
        });
        let record = pool.record(&longshore_oci::Digest::of(b"bench"));
        let ask = move |ask| asks.send(ask).unwrap();
        sync::receive(pool, &record, &uses, &mut here, &ask).unwrap()
    });
    let shared = start.elapsed();
    let selected = select(context.tree(), &["."], &SelectOptions::default()).unwrap();
    context.hash(&selected).unwrap();
    let ms = |took: Duration| took.as_secs_f64() * 1e3;
    format!("{:.0} ms ({} entries: sharing {:.0})", ms(start.elapsed()), context.entries().len(), ms(shared))
}

/// Answers a builder.
fn client(tree: &Path, ignore: &Ignore, asked: Receiver<Ask>, mut out: impl Write) {
    let mut context = None;
    for ask in asked {
        match ask {
            Ask::Tree(sources) => {
                let root = Root::open(tree).unwrap();
                let walked = Context::walk_for(root, ignore, &sources, &Options::default()).unwrap();
                sync::send_tree(context.insert(walked), &mut out).unwrap();
            }
            Ask::Files(files) => sync::send_files(context.as_ref().unwrap(), &files, &mut out).unwrap(),
        }
    }
}
