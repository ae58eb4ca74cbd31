//! Contexts that clients share, file by file: the store's pool has what they sent.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::Read;
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use longshore_oci::Digest;

use crate::context::sync::{self, Ask, Use};
use crate::context::{Context, DigestCache};
use crate::{Builder, Result};

/// A context that nobody used for so long is forgotten.
const KEPT: Duration = Duration::from_secs(7 * 24 * 3600);
/// How often what nobody needs is looked for.
const SWEEP: Duration = Duration::from_secs(3600);

/// Who uses the pool.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// Read by builds, written by who removes files.
    users: RwLock<()>,
    swept: Mutex<Option<Instant>>,
}

/// While it lives nothing is removed from the pool.
#[derive(Debug)]
pub struct PoolUse<'a>(#[expect(dead_code, reason = "held, not read")] RwLockReadGuard<'a, ()>);

/// A context that was shared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedContext {
    /// What it is known by.
    pub key: Digest,
    /// Bytes of its files.
    pub size: u64,
    /// When it was last used, nanoseconds since 1970.
    pub used: i64,
    /// A build uses the pool now.
    pub in_use: bool,
}

impl Builder {
    /// Keeps the pool as it is; for as long as a build uses contexts of it.
    pub fn use_pool(&self) -> PoolUse<'_> {
        PoolUse(self.shared.users.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes over what steps take of a context that a client shares under `key`; see [`sync`].
    ///
    /// # Errors
    /// As [`sync::receive`].
    pub fn receive(
        &self,
        _held: &PoolUse<'_>,
        key: &Digest,
        uses: &[Use],
        from: &mut dyn Read,
        ask: &dyn Fn(Ask),
    ) -> Result<Context> {
        let pool = self.store().pool();
        let record = pool.record(key);
        let context = sync::receive(&pool, &record, uses, from, ask)?;
        // There is none while all files are too new to be remembered.
        if let Ok(file) = File::open(&record) {
            let _ = file.set_modified(SystemTime::now());
        }
        Ok(context)
    }

    /// Forgets what was sent of a context: it is sent anew the next time.
    pub fn distrust(&self, key: &Digest) {
        let _ = fs::remove_file(self.store().pool().record(key));
    }

    /// All contexts that were shared and are remembered.
    ///
    /// # Errors
    /// When the pool cannot be read.
    pub fn shared_contexts(&self) -> Result<Vec<SharedContext>> {
        let pool = self.store().pool();
        let in_use = self.shared.users.try_write().is_err();
        let mut all = Vec::new();
        for key in pool.records()? {
            let path = pool.record(&key);
            let Ok(meta) = fs::metadata(&path) else { continue };
            let size = DigestCache::load(&path).files().collect::<HashMap<_, _>>().values().sum();
            let used = meta.modified().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
            let used = used.and_then(|at| i64::try_from(at.as_nanos()).ok()).unwrap_or(0);
            all.push(SharedContext { key, size, used, in_use });
        }
        Ok(all)
    }

    /// Forgets contexts, and removes the files that no other one has; gives the bytes of the disk that this freed. While a
    /// build uses the pool, everything stays.
    ///
    /// # Errors
    /// When something cannot be removed.
    pub fn drop_contexts(&self, keys: &[Digest]) -> Result<u64> {
        let keys: HashSet<&Digest> = keys.iter().collect();
        self.retain(|key, _| !keys.contains(key))
    }

    /// Forgets what nobody used for a week, and removes files that no context has any more; seldom, and only while no
    /// build uses the pool.
    ///
    /// # Errors
    /// As [`Builder::drop_contexts`].
    pub fn sweep_contexts(&self) -> Result<()> {
        let mut swept = self.shared.swept.lock().unwrap_or_else(PoisonError::into_inner);
        if swept.is_some_and(|at| at.elapsed() < SWEEP) {
            return Ok(());
        }
        *swept = Some(Instant::now());
        let oldest = SystemTime::now().checked_sub(KEPT).unwrap_or(UNIX_EPOCH);
        self.retain(|_, meta| meta.modified().is_ok_and(|at| at >= oldest)).map(drop)
    }

    fn retain(&self, keep: impl Fn(&Digest, &fs::Metadata) -> bool) -> Result<u64> {
        let Ok(_nobody) = self.shared.users.try_write() else { return Ok(0) };
        let pool = self.store().pool();
        let (mut kept, mut files) = (HashSet::new(), HashSet::new());
        for key in pool.records()? {
            let path = pool.record(&key);
            let Ok(meta) = fs::metadata(&path) else { continue };
            if keep(&key, &meta) {
                files.extend(DigestCache::load(&path).digests());
                kept.insert(key);
            }
        }
        Ok(pool.retain(&kept, &files)?)
    }
}
