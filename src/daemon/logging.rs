//! The daemon's own log, on standard error.

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::prelude::*;

use super::settings::Settings;

/// Starts logging at the level that the settings ask for; `RUST_LOG` refines it (`target=level,...`).
pub(super) fn start(settings: &Settings) {
    let level = if settings.debug { "debug" } else { settings.log_level.as_str() };
    let level = level.parse().unwrap_or(LevelFilter::INFO);
    let refined: Targets = std::env::var("RUST_LOG").ok().and_then(|t| t.parse().ok()).unwrap_or_default();
    let filter = if refined.default_level().is_some() { refined } else { refined.with_default(level) };
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_target(settings.debug);
    tracing_subscriber::registry().with(lines.with_filter(filter)).init();
}
