use super::*;

/// A context whose files count as old at once.
fn settled(dir: &Path) -> Context {
    std::thread::sleep(Duration::from_millis(20));
    let mut context = Context::open(dir, &Ignore::default()).unwrap();
    context.settled = Duration::ZERO;
    context
}

fn all(context: &Context) -> Vec<Selected> {
    select(context.tree(), &["."], &SelectOptions::default()).unwrap()
}

const SOME: &[(&str, &str)] = &[("a", "1"), ("d/b", "22"), ("d/e/c", "333"), ("z", ""), ("l->a", "")];

#[test]
fn only_what_changed_is_read_again() {
    let dir = tempfile::tempdir().unwrap();
    make(dir.path(), SOME);
    let context = settled(dir.path());
    let selected = all(&context);
    let mut cache = DigestCache::default();
    let cold = context.hash_cached(&selected, &mut cache).unwrap();
    assert_eq!(cold, context.hash(&selected).unwrap());
    // Files and directories, not links.
    assert_eq!(cache.len(), 7);
    let file = dir.path().join("cache");
    cache.save(&file).unwrap();
    let mut cache = DigestCache::load(&file);
    assert_eq!(cache.len(), 7);
    fs::remove_file(&file).unwrap();
    cache.save(&file).unwrap();
    assert!(!file.exists(), "nothing was added");
    assert_eq!(context.hash_cached(&selected, &mut cache).unwrap(), cold);
    // A lie that is believed shows that the file is not read.
    cache.lie_about(b"d/b");
    assert_ne!(context.hash_cached(&selected, &mut cache).unwrap(), cold);
    fs::write(dir.path().join("d/b"), "44").unwrap();
    let context = settled(dir.path());
    let selected = all(&context);
    let changed = context.hash_cached(&selected, &mut cache).unwrap();
    assert_eq!(changed, context.hash(&selected).unwrap());
    assert_ne!(changed, cold);
}

#[test]
fn a_file_that_was_just_written_is_not_remembered() {
    let dir = tempfile::tempdir().unwrap();
    make(dir.path(), SOME);
    let context = Context::open(dir.path(), &Ignore::default()).unwrap();
    let mut cache = DigestCache::default();
    context.hash_cached(&all(&context), &mut cache).unwrap();
    assert!(cache.is_empty());
    // Nor one from the future.
    let context = settled(dir.path());
    let future = std::time::SystemTime::now() + Duration::from_secs(3600);
    fs::File::open(dir.path().join("a")).unwrap().set_modified(future).unwrap();
    let context = Context { tree: settled(dir.path()).tree, ..context };
    context.hash_cached(&all(&context), &mut cache).unwrap();
    assert_eq!(cache.len(), 6);
}

#[test]
fn a_file_that_changed_after_the_walk_is_not_remembered() {
    let dir = tempfile::tempdir().unwrap();
    make(dir.path(), SOME);
    let context = settled(dir.path());
    fs::write(dir.path().join("a"), "2").unwrap();
    std::thread::sleep(Duration::from_millis(20));
    let mut cache = DigestCache::default();
    context.hash_cached(&all(&context), &mut cache).unwrap();
    assert_eq!(cache.len(), 6);
}

#[test]
fn a_cache_that_is_damaged_or_foreign_is_an_empty_one() {
    let dir = tempfile::tempdir().unwrap();
    make(&dir.path().join("c"), SOME);
    let context = settled(&dir.path().join("c"));
    let mut cache = DigestCache::default();
    context.hash_cached(&all(&context), &mut cache).unwrap();
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
    assert!(cache.clone().save(&dir.path().join("none/cache")).is_ok(), "nothing to save");
}

#[test]
fn what_is_gone_is_forgotten_once_it_is_much() {
    let dir = tempfile::tempdir().unwrap();
    let old: Vec<_> = (0..1200).map(|n| (format!("old/{n}"), n.to_string())).collect();
    let old: Vec<_> = old.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
    make(dir.path(), &old);
    make(dir.path(), SOME);
    let mut cache = DigestCache::default();
    let hash = |cache: &mut DigestCache| {
        let context = settled(dir.path());
        context.hash_cached(&all(&context), cache).unwrap()
    };
    hash(&mut cache);
    assert_eq!(cache.len(), 1208);
    fs::remove_dir_all(dir.path().join("old")).unwrap();
    let after = hash(&mut cache);
    assert_eq!(cache.len(), 7);
    assert_eq!(hash(&mut DigestCache::default()), after);
}
