//! The disk budget: what is to go so that the data root takes no more than it may. The plan is a pure function of what
//! is there and of the policy; carrying it out is another's business, and looks again at each thing before it goes.

mod state;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use longshore_oci::Digest;

pub use self::state::{FormState, ImageState, LayerState, State};

/// What the data root may take, and what is kept even so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Bytes of the disk (blocks) that everything under the data root may take together.
    pub limit: u64,
    /// Images that were used (a container was made from them, they were tagged, loaded or pulled) so recently are kept.
    pub keep_last_used: Duration,
    /// Images with a name are kept.
    pub keep_tagged: bool,
}

/// What a line of a plan is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Candidate {
    /// By its path from the data root.
    Leftover(String),
    /// By its digest.
    Compressed(Digest),
    /// By its id.
    Image(Digest),
}

/// A line of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    #[allow(missing_docs)]
    pub candidate: Candidate,
    /// What a person calls it.
    pub called: String,
    /// Bytes that dropping it frees once everything before it is gone; of what is kept, that dropping it alone would.
    pub bytes: u64,
    /// Whether it goes.
    pub drop: bool,
    /// Why.
    pub reason: String,
}

/// What goes and what stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// In the order in which they go; then what stays.
    pub decisions: Vec<Decision>,
    /// Bytes that are taken now.
    pub total: u64,
    /// Bytes that what goes will free.
    pub freed: u64,
}

impl Plan {
    /// Bytes that are over `limit` when all of the plan is done.
    #[must_use]
    pub fn over(&self, limit: u64) -> u64 {
        self.total.saturating_sub(self.freed).saturating_sub(limit)
    }
}

/// Decides. What costs least to have back goes first: leftovers, which nobody misses; compressed forms that can be made
/// or fetched again; images without a name, then those with one, the one that was used last going last.
#[must_use]
pub fn plan(state: &State, budget: &Budget) -> Plan {
    let mut planner = Planner {
        state,
        limit: budget.limit,
        users: users(state),
        forms_left: state.forms.keys().copied().collect(),
        layers_of: layers_of(state),
        gone: BTreeSet::new(),
        plan: Plan { total: state.total, ..Plan::default() },
        kept: Vec::new(),
    };
    for (path, bytes) in &state.leftovers {
        let candidate = Candidate::Leftover(path.clone());
        planner.decide(candidate, path.clone(), *bytes, Ok("nothing names it".into()));
    }
    for (digest, form) in &state.forms {
        let bytes = form.bytes;
        let dropped =
            planner.decide(Candidate::Compressed(*digest), digest.to_string(), bytes, form.may_go.clone());
        if dropped {
            planner.forms_left.remove(digest);
        }
    }
    let mut images: Vec<&ImageState> = state.images.iter().collect();
    images.sort_by_key(|i| (i.named, i.last_used, i.id));
    // One that others were made from can go once they are gone: round by round.
    let mut waiting = images;
    loop {
        let (blocked, ready): (Vec<_>, Vec<_>) = waiting.iter().partition(|i| planner.child(i).is_some());
        let ended = ready.is_empty();
        for image in ready {
            planner.image(image, budget);
        }
        waiting = blocked;
        if ended || waiting.is_empty() {
            break;
        }
    }
    for image in waiting {
        let child = planner.child(image).unwrap_or_default().to_owned();
        planner.keep(image, format!("{child} was made from it"));
    }
    let mut plan = planner.plan;
    plan.decisions.append(&mut planner.kept);
    plan
}

/// How many images have each layer.
fn users(state: &State) -> BTreeMap<Digest, usize> {
    let mut users = BTreeMap::new();
    for image in &state.images {
        for layer in image.layers.iter().collect::<BTreeSet<_>>() {
            *users.entry(*layer).or_default() += 1;
        }
    }
    users
}

/// The layers that each compressed form is of.
fn layers_of(state: &State) -> BTreeMap<Digest, Vec<Digest>> {
    let mut layers: BTreeMap<Digest, Vec<Digest>> = BTreeMap::new();
    for (chain, layer) in &state.layers {
        if let Some(form) = layer.form {
            layers.entry(form).or_default().push(*chain);
        }
    }
    layers
}

struct Planner<'a> {
    state: &'a State,
    limit: u64,
    /// Images that still have each layer.
    users: BTreeMap<Digest, usize>,
    forms_left: BTreeSet<Digest>,
    layers_of: BTreeMap<Digest, Vec<Digest>>,
    /// Images that go, and those that were decided to stay.
    gone: BTreeSet<Digest>,
    plan: Plan,
    kept: Vec<Decision>,
}

impl<'a> Planner<'a> {
    fn is_over(&self) -> bool {
        self.plan.over(self.limit) > 0
    }

    /// An image that stays so far, and was made from this one.
    fn child(&self, image: &ImageState) -> Option<&'a str> {
        let made = |i: &&ImageState| i.parent == Some(image.id) && !self.gone.contains(&i.id);
        self.state.images.iter().find(made).map(|i| i.called.as_str())
    }

    fn decide(
        &mut self,
        candidate: Candidate,
        called: String,
        bytes: u64,
        may_go: std::result::Result<String, String>,
    ) -> bool {
        let (drop, reason) = match may_go {
            Ok(_) if !self.is_over() => (false, "the budget is kept without".to_owned()),
            Ok(why) => (true, why),
            Err(why) => (false, why),
        };
        let decision = Decision { candidate, called, bytes, drop, reason };
        if drop {
            self.plan.freed += bytes;
            self.plan.decisions.push(decision);
        } else {
            self.kept.push(decision);
        }
        drop
    }

    fn image(&mut self, image: &ImageState, budget: &Budget) {
        let bytes = self.frees(image);
        let called = image.called.clone();
        if !self.decide(Candidate::Image(image.id), called, bytes, may_go(image, self.state.now, budget)) {
            return;
        }
        self.gone.insert(image.id);
        for layer in image.layers.iter().collect::<BTreeSet<_>>() {
            if let Some(users) = self.users.get_mut(layer) {
                *users = users.saturating_sub(1);
            }
        }
        let forms: Vec<Digest> = image.layers.iter().filter_map(|l| self.state.layers.get(l)?.form).collect();
        let gone: Vec<Digest> = forms.into_iter().filter(|f| !self.stays(f, &BTreeSet::new())).collect();
        self.forms_left.retain(|form| !gone.contains(form));
    }

    fn keep(&mut self, image: &ImageState, reason: String) {
        let (candidate, called) = (Candidate::Image(image.id), image.called.clone());
        self.kept.push(Decision { candidate, called, bytes: self.frees(image), drop: false, reason });
    }

    /// The layer, if nothing but `users` images needs it.
    fn is_free(&self, layer: &Digest, users: usize) -> Option<&'a LayerState> {
        let state = self.state.layers.get(layer).filter(|l| !l.needed)?;
        (self.users.get(layer).copied().unwrap_or(0) <= users).then_some(state)
    }

    /// Whether layers besides `those` need a form: it may be of several.
    fn stays(&self, form: &Digest, those: &BTreeSet<&Digest>) -> bool {
        let mut layers = self.layers_of.get(form).into_iter().flatten();
        layers.any(|chain| !those.contains(chain) && self.is_free(chain, 0).is_none())
    }

    /// Bytes that go with an image: its documents, the layers that no other image has, and their compressed forms.
    fn frees(&self, image: &ImageState) -> u64 {
        let own: BTreeSet<&Digest> = image.layers.iter().collect();
        let free: Vec<&LayerState> = own.iter().filter_map(|layer| self.is_free(layer, 1)).collect();
        let forms: BTreeSet<Digest> =
            free.iter().filter_map(|l| l.form).filter(|f| self.forms_left.contains(f)).collect();
        let forms =
            forms.iter().filter(|form| !self.stays(form, &own)).filter_map(|f| self.state.forms.get(f));
        image.bytes + free.iter().map(|l| l.bytes).sum::<u64>() + forms.map(|f| f.bytes).sum::<u64>()
    }
}

/// Whether the policy lets an image go, and why.
fn may_go(image: &ImageState, now: i64, budget: &Budget) -> std::result::Result<String, String> {
    if let Some(container) = &image.container {
        return Err(format!("container {container} uses it"));
    }
    if image.held {
        return Err("it is in use".into());
    }
    let idle = Duration::from_nanos(u64::try_from(now.saturating_sub(image.last_used)).unwrap_or(0));
    if image.last_used > 0 && idle < budget.keep_last_used {
        return Err(format!("used {} ago, and kept for {}", words(idle), words(budget.keep_last_used)));
    }
    if image.named && budget.keep_tagged {
        return Err("it has a name".into());
    }
    let name = if image.named { "" } else { "without a name, " };
    Ok(match image.last_used {
        0 => format!("{name}never used here"),
        _ => format!("{name}last used {} ago", words(idle)),
    })
}

/// A duration in its largest whole unit: `3 days`.
fn words(time: Duration) -> String {
    let seconds = time.as_secs();
    let (n, unit) = match seconds {
        s if s >= 2 * 86400 => (s / 86400, "days"),
        s if s >= 2 * 3600 => (s / 3600, "hours"),
        s if s >= 120 => (s / 60, "minutes"),
        1 => (1, "second"),
        s => (s, "seconds"),
    };
    format!("{n} {unit}")
}

#[cfg(test)]
mod tests;
