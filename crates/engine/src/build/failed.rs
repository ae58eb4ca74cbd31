//! What a failed command left, as an image to look into.

use std::sync::{Mutex, PoisonError};

use longshore_build::FailedRun;
use longshore_build::plan::Plan;
use longshore_oci::Platform;
use longshore_oci::image::{ImageDocument, RunConfig};
use longshore_store::archive;

use crate::model::BuildEvent;
use crate::{Engine, Result};

/// Its shell where the command was run by none.
const SHELL: &str = "/bin/sh";

impl Engine {
    /// Makes an image without a name of what a command left, and tells it; nothing where no command failed.
    pub(super) fn tell_failed(
        &self,
        plan: &Plan,
        failed: &Mutex<Option<FailedRun>>,
        send: &(dyn Fn(BuildEvent) + Send + Sync),
    ) -> Result<()> {
        let Some(failed) = failed.lock().unwrap_or_else(PoisonError::into_inner).take() else {
            return Ok(());
        };
        let run = failed.run;
        let shell = match run.args.as_slice() {
            [shell, flag, _] if flag == "-c" => shell.clone(),
            _ => SHELL.to_owned(),
        };
        let platform = plan.images.first().map_or_else(Platform::host, |image| image.platform.clone());
        let document = ImageDocument {
            architecture: platform.architecture,
            os: platform.os,
            variant: platform.variant,
            config: Some(RunConfig {
                user: run.user,
                env: Some(run.env.into_iter().chain(run.quiet_env).collect()),
                cmd: Some(vec![shell]),
                working_dir: run.cwd,
                ..RunConfig::default()
            }),
            ..ImageDocument::default()
        };
        let store = &self.inner.store;
        let id = archive::record(store, failed.chain, &[], document);
        // The image has its layer now, or nobody has.
        store.drop_steps(&[failed.key])?;
        send(BuildEvent::Left(id?));
        Ok(())
    }
}
