//! The daemon's own log, on standard error.

use tracing_subscriber::EnvFilter;

use super::settings::Settings;

/// Starts logging at the level that the settings ask for; `RUST_LOG` refines it.
pub(super) fn start(settings: &Settings) {
    let level = if settings.debug { "debug" } else { settings.log_level.as_str() };
    let filter = EnvFilter::builder()
        .with_default_directive(level.parse().unwrap_or(tracing::Level::INFO.into()))
        .from_env_lossy();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_target(settings.debug)
        .init();
}
