use super::*;
use crate::context::cache::Record;
use crate::context::files::{Content, NONE};

const SOME: &[(&str, &str)] = &[("a", "1"), ("d/b", "22"), ("d/e/c", "333"), ("z", ""), ("l->a", "")];

/// A cache that knows all of a directory.
fn knows(dir: &Path, cache: &mut DigestCache) {
    let context = Context::open(dir, &Ignore::default()).unwrap();
    let content = |path: &[u8]| Content { bytes: longshore_oci::Digest::of(path), xattrs: NONE };
    let records = context.tree().entries().iter().map(|e| Record::new(e, content(&e.path))).collect();
    cache.add(records, context.tree());
}

#[test]
fn what_is_known_outlives_a_process() {
    let dir = tempfile::tempdir().unwrap();
    make(&dir.path().join("c"), SOME);
    let mut cache = DigestCache::default();
    knows(&dir.path().join("c"), &mut cache);
    let file = dir.path().join("cache");
    cache.save(&file).unwrap();
    let mut again = DigestCache::load(&file);
    assert_eq!((again.len(), &again), (8, &cache));
    fs::remove_file(&file).unwrap();
    again.save(&file).unwrap();
    assert!(!file.exists(), "nothing was added");
    let context = Context::open(&dir.path().join("c"), &Ignore::default()).unwrap();
    let mut lookup = again.lookup();
    for entry in context.tree().entries() {
        assert_eq!(lookup.get(entry).unwrap().bytes, longshore_oci::Digest::of(&entry.path));
    }
    // In any order, and not for what looks otherwise.
    let mut changed = context.tree().entries()[1].clone();
    assert!(again.lookup().get(&changed).is_some());
    changed.size += 1;
    assert!(again.lookup().get(&changed).is_none());
}

#[test]
fn a_cache_that_is_damaged_or_foreign_is_an_empty_one() {
    let dir = tempfile::tempdir().unwrap();
    make(&dir.path().join("c"), SOME);
    let mut cache = DigestCache::default();
    knows(&dir.path().join("c"), &mut cache);
    let file = dir.path().join("cache");
    cache.save(&file).unwrap();
    let good = fs::read(&file).unwrap();
    assert_eq!(DigestCache::load(&file), cache);
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        fs::write(&file, &bad).unwrap();
        assert!(DigestCache::load(&file).is_empty(), "byte {at}");
        fs::write(&file, &good[..at]).unwrap();
        assert!(DigestCache::load(&file).is_empty(), "cut at {at}");
    }
    // With a right sum, too: whatever stands in it.
    let body = good.len() - 32;
    for at in 20..body {
        let mut bad = good[..body].to_vec();
        bad[at] = 0xff;
        let sum = longshore_oci::Digest::of(&bad);
        bad.extend_from_slice(sum.as_bytes());
        fs::write(&file, &bad).unwrap();
        let _ = DigestCache::load(&file);
    }
    for foreign in [dir.path().join("c"), dir.path().join("none"), dir.path().join("c/z")] {
        assert!(DigestCache::load(&foreign).is_empty());
    }
}

#[test]
fn what_is_gone_is_forgotten_once_it_is_much() {
    let tree = |files: std::ops::Range<u32>| {
        let mut entries = vec![Entry::new(Vec::new(), EntryKind::Dir)];
        entries.extend(files.map(|n| Entry::new(format!("{n:06}").into_bytes(), EntryKind::File)));
        Tree::new(entries)
    };
    let mut cache = DigestCache::default();
    let mut add = |tree: &Tree| {
        let records = tree.entries().iter().map(|e| Record::new(e, Content::EMPTY)).collect();
        cache.add(records, tree);
        cache.len()
    };
    assert_eq!(add(&tree(0..70_000)), 70_001);
    // Who looks at a part only does not forget the rest.
    assert_eq!(add(&tree(0..50_000)), 70_001);
    assert_eq!(add(&tree(0..100)), 101);
}
