//! The daemon is killed at any moment of a pull.

use super::registry;
use crate::harness::Daemon;
use crate::kills::{image_of, kill_at_all_moments};

#[test]
fn privileged_atk_55_pulls_killed_at_any_moment() {
    let mut d = Daemon::start();
    let registry = registry(&d);
    let pushed = image_of(6, 1).put(&registry, "zoo/lion", "1");
    let name = registry.reference("zoo/lion", "1");
    kill_at_all_moments(&mut d, &["pull", "-q", &name], &pushed.config.to_string());
    d.finish();
}
