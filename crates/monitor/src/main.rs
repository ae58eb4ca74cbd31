//! The monitor: the small program beside each container.
//!
//! One thread, one poll loop, static and without relocations, because there is one of it for every
//! container. It makes the container's first process, owns its standard streams and log, writes down
//! how it ended, and serves the daemon on a socket (`longshore_monitor::proto`). It outlives the
//! daemon. It decides nothing: what to do comes as a complete plan.

#![no_std]
#![cfg_attr(feature = "bare", no_main)]

extern crate alloc;
// As the daemon carries it, it has no library below it (`bare`); lints and tests of the whole project
// build it as a common program.
#[cfg(not(feature = "bare"))]
extern crate std;

#[cfg(feature = "bare")]
mod bare;
mod child;
mod conn;
mod fd;
mod last_word;
mod launch;
mod log;
mod os;
mod process;
mod program;
mod rootfs;
mod serve;
mod start;

/// What every module uses of `alloc`, where the standard library would have it in scope by itself.
mod prelude {
    pub(crate) use alloc::borrow::ToOwned;
    pub(crate) use alloc::boxed::Box;
    pub(crate) use alloc::format;
    pub(crate) use alloc::string::{String, ToString};
    pub(crate) use alloc::vec;
    pub(crate) use alloc::vec::Vec;
}

/// Exit code when there was nothing to watch over.
const FAILED: i32 = 1;

#[cfg(not(feature = "bare"))]
fn main() {
    main_loop()
}

fn main_loop() -> ! {
    let code = match start::start() {
        Some(mut monitor) => {
            monitor.run();
            0
        }
        None => FAILED,
    };
    os::exit(code)
}
