//! Composition root of the daemon: settings, then the engine, then its doors; shut down in the opposite order.

mod idle;
mod listen;
mod logging;
mod pidfile;
mod registries;
mod settings;

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use longshore_engine::{Engine, EngineOptions};
use longshore_server::{Server, ServerConfig};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::rootless;
use settings::Settings;

/// Runs the daemon with `args` (without the program's name) until it is told to stop.
pub(crate) fn main(args: impl Iterator<Item = OsString>) -> ExitCode {
    let settings = match Settings::resolve(args) {
        Ok(Some(s)) => s,
        Ok(None) => return ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("longshore daemon: {e:#}");
            return ExitCode::FAILURE;
        }
    };
    // Before there is a second thread. In its own world an ordinary user is root, too.
    let entered = match settings::is_root() {
        true => None,
        false => match rootless::enter(&settings.exec_root) {
            Ok(entered) => Some(entered),
            Err(e) => {
                eprintln!("longshore daemon: {e:#}");
                return ExitCode::FAILURE;
            }
        },
    };
    logging::start(&settings);
    let world = entered.map(rootless::Entered::open);
    let options = match &world {
        None => settings.engine_options(),
        Some(world) => settings.rootless_options(world),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .worker_threads(settings.workers())
        .enable_all()
        .build()
    {
        Ok(r) => r,
        Err(e) => {
            eprintln!("longshore daemon: cannot start its threads: {e}");
            return ExitCode::FAILURE;
        }
    };
    let outcome = runtime.block_on(serve(&settings, options));
    // Blocking work that is still under way (a stuck file system) must not hold the daemon back.
    runtime.shutdown_timeout(Duration::from_secs(2));
    if let Some(world) = world {
        world.leave();
    }
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            tracing::error!("{e:#}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(settings: &Settings, options: EngineOptions) -> Result<()> {
    let _pidfile = pidfile::Pidfile::create(&settings.pidfile)?;
    // Bound before recovery, so that a second daemon fails at once; served after it.
    let listeners = listen::bind(settings)?;
    let engine = Engine::open(options).await.context("cannot open the engine")?;
    let (stop, stopped) = watch::channel(false);
    let server = Server::new(engine.clone(), ServerConfig::default());
    let mut doors = JoinSet::new();
    for listener in listeners.sockets {
        let (server, mut stopped) = (server.clone(), stopped.clone());
        doors.spawn(async move {
            // An error means that the daemon is going anyway.
            let told = async { drop(stopped.wait_for(|s| *s).await) };
            server.serve(listener, told).await;
        });
    }
    tracing::info!(hosts = ?settings.hosts, root = %settings.data_root.display(), "listening");
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = term.recv() => tracing::info!("stopping: SIGTERM"),
        _ = int.recv() => tracing::info!("stopping: SIGINT"),
        () = idle::idle(settings.idle_exit, &server, &engine, doors.len()) => tracing::info!("stopping: nothing to do"),
    }
    stop.send_replace(true);
    while doors.join_next().await.is_some() {}
    engine.shutdown().await;
    Ok(())
}
