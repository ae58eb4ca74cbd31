//! `update`: what of a container may change once it is made, and while it runs.

use std::sync::Arc;

use super::{Container, port_ranges, validate};
use crate::model::UpdateContainer;
use crate::{Engine, Error, Result};

impl Engine {
    /// Changes the published ports and the restart policy of a container. One that runs goes on running: ports that it
    /// keeps are not disturbed, connections over others end.
    ///
    /// # Errors
    /// For what is asked wrongly, and ports that are in use; then nothing is changed.
    pub async fn update(&self, name: &str, change: UpdateContainer) -> Result<()> {
        self.change(self.find(name)?, move |e, c| e.update_blocking(c, change)).await
    }

    /// Changes a container while nobody else does, to the end, unless it has been removed meanwhile.
    pub(crate) async fn change(
        &self,
        c: Arc<Container>,
        work: impl FnOnce(&Self, &Arc<Container>) -> Result<()> + Send + 'static,
    ) -> Result<()> {
        let engine = self.clone();
        self.to_the_end(async move {
            let _op = c.op.lock().await;
            if c.life.borrow().removed {
                return Err(Error::no_such_container(&c.id));
            }
            let inner = c.clone();
            engine.blocking(move |e| work(e, &inner)).await
        })
        .await
    }

    fn update_blocking(&self, c: &Arc<Container>, change: UpdateContainer) -> Result<()> {
        let mut record = c.record();
        if let Some(restart) = change.restart {
            if record.host.auto_remove && !["", "no"].contains(&restart.name.as_str()) {
                return Err(Error::invalid(
                    "Restart policy cannot be updated because AutoRemove is enabled for the container",
                ));
            }
            record.host.restart = restart;
        }
        let new_ports = change.ports.is_some();
        if new_ports {
            record.host.port_bindings = change.ports;
            record.host.port_bindings.iter_mut().for_each(port_ranges::compact_bindings);
        }
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        validate::host(&record.host, validate::Machine { cpus })?;
        if new_ports && c.task().is_some() && !record.sandbox.is_empty() {
            self.change_ports(c, &mut record).map_err(|e| e.context("changing the published ports"))?;
        }
        self.store_record(&record)?;
        let mut data = c.write();
        data.record.host.restart = record.host.restart;
        data.record.host.port_bindings = record.host.port_bindings;
        drop(data);
        self.container_event(c, "update", &[]);
        Ok(())
    }
}
