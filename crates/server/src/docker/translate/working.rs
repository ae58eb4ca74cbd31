//! Working containers.

use longshore_api::time::rfc3339_nano;
use longshore_api::working as wire;
use longshore_engine::model;

use super::image;

/// A working container.
pub(crate) fn working(w: model::WorkingView) -> wire::Working {
    let text = |t: Option<String>| t.unwrap_or_default();
    wire::Working {
        id: w.id,
        name: w.name,
        created: rfc3339_nano(w.created),
        image: w.image.map(|id| id.to_string()).unwrap_or_default(),
        image_name: w.image_name,
        os: w.about.os,
        architecture: w.about.architecture,
        variant: text(w.about.variant),
        author: text(w.about.author),
        comment: text(w.about.comment),
        created_by: text(w.about.created_by),
        hostname: w.about.hostname,
        domainname: w.about.domainname,
        config: w.config,
        history: w.history,
        mount_point: text(w.mounted),
        doing: text(w.doing),
        interrupted: text(w.interrupted),
        size: w.size,
    }
}

/// A line of the answer to making one.
pub(crate) fn line(event: model::WorkingEvent) -> wire::WorkingLine {
    match event {
        model::WorkingEvent::Pull(e) => wire::WorkingLine::Pull { progress: image::progress(e) },
        model::WorkingEvent::Made { id, name } => wire::WorkingLine::Made { id, name },
        model::WorkingEvent::Failed(message) => wire::WorkingLine::Failed { message },
    }
}

/// A change of the configuration.
pub(crate) fn change(c: wire::WorkingChange) -> model::WorkingChange {
    model::WorkingChange {
        author: c.author,
        comment: c.comment,
        created_by: c.created_by,
        hostname: c.hostname,
        domainname: c.domainname,
        os: c.os,
        architecture: c.architecture,
        variant: c.variant,
        os_version: c.os_version,
        cmd: c.cmd,
        entrypoint: c.entrypoint,
        shell: c.shell,
        user: c.user,
        working_dir: c.working_dir,
        stop_signal: c.stop_signal,
        env: c.env,
        annotations: c.annotations,
        labels: c.labels,
        ports: c.ports,
        volumes: c.volumes,
        on_build: c.on_build,
        health: c.health,
        health_interval: c.health_interval,
        health_timeout: c.health_timeout,
        health_start_period: c.health_start_period,
        health_start_interval: c.health_start_interval,
        health_retries: c.health_retries,
        add_history: c.add_history,
    }
}

/// How a command fares.
pub(crate) fn run_state(view: model::WorkingRunView) -> wire::RunState {
    wire::RunState { running: view.running, exit_code: view.code, error: view.error.unwrap_or_default() }
}
