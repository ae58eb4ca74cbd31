//! The monitor: the small program beside each container.
//!
//! One thread, one poll loop, static and without relocations, because there is one of it for every
//! container. It makes the container's first process, owns its standard streams and log, writes down
//! how it ended, and serves the daemon on a socket (`longshore_monitor::proto`). It outlives the
//! daemon. It decides nothing: what to do comes as a complete plan.

mod child;
mod conn;
mod launch;
mod log;
mod os;
mod process;
mod rootfs;
mod serve;
mod start;

/// Exit code when there was nothing to watch over.
const FAILED: i32 = 1;

fn main() {
    let code = match start::start() {
        Some(mut monitor) => {
            monitor.run();
            0
        }
        None => FAILED,
    };
    os::exit(code);
}
