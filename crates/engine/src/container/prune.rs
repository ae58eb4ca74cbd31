//! `container prune`.

use crate::filters;
use crate::model::{Filters, Pruned, RemoveOptions};
use crate::{Engine, Result};

impl Engine {
    /// Removes containers that do not run: filters label, label!, until.
    ///
    /// # Errors
    /// For filters that are wrong.
    pub async fn prune_containers(&self, f: &Filters) -> Result<Pruned> {
        filters::check_known(f, &["label", "label!", "until"])?;
        let until = filters::until(f)?;
        let mut pruned = Pruned::default();
        for c in self.all() {
            let wanted = {
                let r = &c.read().record;
                !r.is_active()
                    && until.is_none_or(|u| r.created < u)
                    && filters::labels(f, "label", r.labels())
                    && filters::not_labels(f, r.labels())
            };
            if !wanted {
                continue;
            }
            let options = RemoveOptions { measure: true, ..RemoveOptions::default() };
            match self.remove_telling(&c.id, options).await {
                Ok(freed) => {
                    pruned.deleted.push(c.id.clone());
                    pruned.reclaimed += freed;
                }
                Err(e) => tracing::warn!(container = c.id, "not pruned: {e}"),
            }
        }
        let freed = pruned.reclaimed.to_string();
        self.event("container", "prune", "", &[("reclaimed", &freed)]);
        Ok(pruned)
    }
}
