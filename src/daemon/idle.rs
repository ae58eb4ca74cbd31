//! A daemon that the command line started leaves when it has had nothing to do for a while.

use std::time::{Duration, Instant};

use longshore_engine::Engine;
use longshore_engine::model::ListContainers;
use longshore_server::Server;

/// Resolves when nobody was connected and no container ran for `limit`; never without a limit. `waiting` listeners
/// count as connections of the server although nobody is there.
pub(super) async fn idle(limit: Option<Duration>, server: &Server, engine: &Engine, waiting: usize) {
    let Some(limit) = limit else { return std::future::pending().await };
    let mut since = Instant::now();
    let mut tick = tokio::time::interval(Duration::from_secs(1).min(limit));
    loop {
        tick.tick().await;
        let running = engine.list(ListContainers::default()).await.is_ok_and(|l| !l.is_empty());
        if running || server.connections() > waiting {
            since = Instant::now();
        } else if since.elapsed() >= limit {
            return;
        }
    }
}
