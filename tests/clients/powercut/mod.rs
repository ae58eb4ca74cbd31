//! Power cuts. A daemon works on a file system of its own; again and again the disk below is copied at one instant, as if
//! the power had gone. On every copy a daemon is started: what was acknowledged before the cut is there and whole, what
//! was not is there or not, nothing is half made, and work goes on. `LONGSHORE_LONG=1` makes 200 cuts, else a few.

pub(crate) mod check;
mod disk;
mod work;
mod world;

use std::time::Duration;

use self::disk::{Disks, Kind};
use self::work::{Dice, Worker};
use self::world::World;
use crate::harness::Daemon;

/// That work at the same time.
const WORKERS: u64 = 2;

fn cuts() -> usize {
    if std::env::var_os("LONGSHORE_LONG").is_some() { 67 } else { 5 }
}

fn seed() -> u64 {
    let given = std::env::var("LONGSHORE_SEED").ok().and_then(|s| s.parse().ok());
    given.unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
        u64::from(now.subsec_nanos()) ^ now.as_secs()
    })
}

fn power_cuts(kind: Kind) {
    let (seed, cuts) = (seed(), cuts());
    eprintln!("{kind:?}: LONGSHORE_SEED={seed}");
    let disks = Disks::new(kind);
    let world = World::default();
    let moments = work_and_cut(&disks, &world, seed, cuts);
    let mut wrong = Vec::new();
    for (n, (began, ended)) in moments.into_iter().enumerate() {
        disks.forget();
        let image = disks.cut(n);
        let d = Daemon::start_on_disk(&["-o", "loop", image.to_str().expect("utf-8")]);
        let found = check::check(&d, &world.after(began, ended));
        if !found.is_empty() {
            let log = d.log();
            let log: Vec<&str> = log.lines().filter(|line| !line.contains(" DEBUG ")).collect();
            let (found, log) = (found.join("\n  "), log.join("\n    "));
            wrong.push(format!("cut {n} (moments {began} to {ended}):\n  {found}\n  the log:\n    {log}"));
        }
        d.finish();
        std::fs::remove_file(image).expect("copy");
    }
    assert!(
        wrong.is_empty(),
        "{kind:?}, LONGSHORE_SEED={seed}: {} of {cuts} cuts\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

/// Lets a daemon work and cuts its power so often; the moments before and after each cut.
fn work_and_cut(disks: &Disks, world: &World, seed: u64, cuts: usize) -> Vec<(u64, u64)> {
    let live = disks.live();
    let d = Daemon::start_on_disk(&["-o", "loop", live.to_str().expect("utf-8")]);
    d.load("busybox");
    let registry = crate::pull::registry(&d);
    let registry = &registry;
    let (socket, mut dice) = (d.socket(), Dice::new(seed));
    let moments = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS)
            .map(|n| {
                let worker = Worker::new(&socket, registry, world, n, seed);
                scope.spawn(move || {
                    // Also when it fails.
                    let _stop = Stop(world);
                    worker.work();
                })
            })
            .collect();
        let mut moments = Vec::new();
        while moments.len() < cuts && !world.stopped() {
            std::thread::sleep(Duration::from_millis(dice.roll(250)));
            // Half of them at once after an answer, when it is known the least.
            if dice.roll(2) == 0 {
                world.wait(Duration::from_secs(5));
            }
            let began = world.now();
            disks.cut_power(moments.len());
            moments.push((began, world.now()));
        }
        world.stop();
        for worker in workers {
            if let Err(failure) = worker.join() {
                std::panic::resume_unwind(failure);
            }
        }
        moments
    });
    let mut d = d;
    d.kill9();
    moments
}

struct Stop<'a>(&'a World);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.stop();
    }
}

#[test]
fn privileged_atk_53_power_cuts_on_ext4() {
    power_cuts(Kind::Ext4);
}

#[test]
fn privileged_atk_53_power_cuts_on_xfs() {
    power_cuts(Kind::Xfs);
}

#[test]
fn privileged_atk_53_power_cuts_on_btrfs() {
    power_cuts(Kind::Btrfs);
}

/// What a crash at any step of making or removing a volume leaves is settled, and nobody's data goes.
#[test]
fn privileged_volumes_agree_with_their_records_after_a_crash() {
    let mut d = Daemon::start();
    for name in ["kept", "lost", "halfway"] {
        d.docker(["volume", "create", name]).ok();
    }
    d.kill9();
    let volumes = d.data_root().join("volumes");
    let dir = |name: &str| volumes.join(name).join("_data");
    std::fs::write(dir("kept").join("file"), "data").expect("file");
    // Lost with the power; a removal that had not got to its record, and one that had; two without a record.
    std::fs::remove_dir_all(volumes.join("lost")).expect("remove");
    std::fs::rename(volumes.join("halfway"), volumes.join(".removing-halfway")).expect("rename");
    std::fs::create_dir_all(dir(".removing-gone")).expect("folder");
    std::fs::create_dir_all(dir("empty")).expect("folder");
    std::fs::create_dir_all(dir("somebodys")).expect("folder");
    std::fs::write(dir("somebodys").join("file"), "data").expect("file");
    d.launch();
    assert_eq!(d.docker(["volume", "ls", "-q"]).ok(), "halfway\nkept\nlost");
    let mut there: Vec<String> = std::fs::read_dir(&volumes)
        .expect("volumes")
        .map(|e| e.expect("entry").file_name().to_string_lossy().into_owned())
        .collect();
    there.sort_unstable();
    assert_eq!(there, ["halfway", "kept", "lost", "somebodys"]);
    assert!(
        dir("lost").is_dir() && dir("kept").join("file").exists() && dir("somebodys").join("file").exists()
    );
    for name in ["kept", "lost", "halfway"] {
        d.docker(["volume", "rm", name]).ok();
    }
    assert_eq!(std::fs::read_dir(&volumes).expect("volumes").count(), 1);
    d.finish();
}
