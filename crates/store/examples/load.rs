//! Loads an image archive into a data root and says how long it took: load DATA-ROOT ARCHIVE
//! For profiling; the daemon must not have the root open.

use std::fs::File;
use std::path::Path;
use std::time::Instant;

use longshore_store::{Store, StoreOptions, archive};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().collect();
    let [_, root, file] = args.as_slice() else { return Err("usage: load DATA-ROOT ARCHIVE".into()) };
    let store = Store::open(Path::new(root), &StoreOptions::default())?;
    let start = Instant::now();
    for image in archive::load(&store, File::open(file)?, &|_| {})? {
        println!("{} {:?}", image.id, image.tags);
    }
    println!("{:.3} s", start.elapsed().as_secs_f64());
    Ok(())
}
