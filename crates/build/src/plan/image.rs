//! The configuration of the image that a build makes.

use longshore_oci::image::{History, ImageDocument, RootFs};

use crate::graph::{Stamp, StepId};
use crate::solve::Outcome;

use super::Image;

/// Something that was done on the way to an image: a line of its history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// What.
    pub by: String,
    /// The step whose layer it is; `None` where only the configuration changed.
    pub step: Option<StepId>,
}

/// The document of an image, once its steps are done. Times are those of the
/// files in it and of the image below: the same steps give the same document, whenever that is.
#[must_use]
pub fn document(image: &Image, outcomes: &[Option<Outcome>]) -> ImageDocument {
    let base = image.base.as_ref().map(|b| b.document.clone()).unwrap_or_default();
    let mut newest = base.created.as_deref().and_then(nanoseconds).unwrap_or(0);
    let mut history = base.history;
    let mut diff_ids = base.rootfs.diff_ids;
    for made in &image.made {
        let outcome = made.step.and_then(|s| outcomes.get(s.0)?.as_ref());
        let diff_id = outcome.and_then(|o| o.diff_id);
        diff_ids.extend(diff_id);
        newest = newest.max(outcome.map_or(0, |o| o.newest));
        history.push(History {
            created: Some(created(image, newest)),
            created_by: Some(made.by.clone()),
            author: image.author.clone(),
            comment: None,
            empty_layer: diff_id.is_none(),
        });
    }
    ImageDocument {
        created: Some(created(image, newest)),
        author: image.author.clone(),
        architecture: image.platform.architecture.clone(),
        os: image.platform.os.clone(),
        variant: image.platform.variant.clone(),
        os_version: base.os_version,
        config: Some((*image.config).clone()),
        rootfs: RootFs { kind: "layers".into(), diff_ids },
        history,
        container: None,
        docker_version: None,
        comment: None,
        build_cache: None,
    }
}

fn created(image: &Image, newest: i64) -> String {
    let nanos = match image.stamp {
        Stamp::Fixed(seconds) => seconds.saturating_mul(1_000_000_000),
        Stamp::Inherited(_) => newest,
    };
    jiff::Timestamp::from_nanosecond(i128::from(nanos)).unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_string()
}

/// Nanoseconds since 1970 of an RFC 3339 time.
pub(super) fn nanoseconds(text: &str) -> Option<i64> {
    let time: jiff::Timestamp = text.parse().ok()?;
    i64::try_from(time.as_nanosecond()).ok()
}
