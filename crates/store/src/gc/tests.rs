use super::*;

const HOUR: i64 = 3600 * 1_000_000_000;
const NOW: i64 = 1000 * HOUR;

fn id(name: &str) -> Digest {
    Digest::of(name.as_bytes())
}

/// An image of these layers, used so many hours ago; a capital letter means that it has a name.
fn image(name: &str, layers: &[&str], hours: i64) -> ImageState {
    ImageState {
        id: id(name),
        called: name.to_owned(),
        named: name.starts_with(char::is_uppercase),
        last_used: NOW - hours * HOUR,
        container: None,
        held: false,
        parent: None,
        layers: layers.iter().map(|l| id(l)).collect(),
        bytes: 1,
    }
}

fn state(images: Vec<ImageState>) -> State {
    let layers = images.iter().flat_map(|i| i.layers.clone());
    let layers = layers.map(|l| (l, LayerState { bytes: 100, ..LayerState::default() })).collect();
    State { total: 1000, now: NOW, images, layers, ..State::default() }
}

fn budget(limit: u64) -> Budget {
    Budget { limit, keep_last_used: Duration::from_secs(3 * 3600), keep_tagged: false }
}

type Gone = Vec<(String, u64)>;
type Kept = Vec<(String, String)>;

/// What goes, with what it frees, and what stays, with why.
fn decided(plan: &Plan) -> (Gone, Kept) {
    let (drop, keep): (Vec<_>, Vec<_>) = plan.decisions.iter().cloned().partition(|d| d.drop);
    assert_eq!(plan.freed, drop.iter().map(|d| d.bytes).sum::<u64>());
    (
        drop.into_iter().map(|d| (d.called, d.bytes)).collect(),
        keep.into_iter().map(|d| (d.called, d.reason)).collect(),
    )
}

fn gone(plan: &Plan) -> Gone {
    decided(plan).0
}

fn pairs(list: &[(&str, u64)]) -> Gone {
    list.iter().map(|(n, b)| ((*n).to_owned(), *b)).collect()
}

#[test]
fn within_the_budget_nothing_goes() {
    let mut state = state(vec![image("a", &["l"], 500)]);
    state.leftovers.push(("content/ingest/x".into(), 10));
    let plan = plan(&state, &budget(1000));
    assert_eq!(gone(&plan), []);
    assert!(decided(&plan).1.iter().all(|(_, why)| why == "the budget is kept without"));
}

#[test]
fn the_cheapest_to_have_back_goes_first_and_no_more_than_needed() {
    let mut state = state(vec![
        image("New", &["1"], 5),
        image("old", &["2"], 50),
        image("older", &["3"], 60),
        image("Old", &["4"], 70),
    ]);
    state.leftovers.push(("left".into(), 10));
    let form = |may_go: std::result::Result<&str, &str>| FormState {
        bytes: 20,
        may_go: may_go.map(str::to_owned).map_err(str::to_owned),
    };
    state.forms = [(id("f"), form(Ok("made"))), (id("g"), form(Err("from a file")))].into();
    let wanted = [
        ("left", 10),
        (id("f").to_string().as_str(), 20),
        ("older", 101),
        ("old", 101),
        ("Old", 101),
        ("New", 101),
    ]
    .map(|(n, b)| (n.to_owned(), b));
    let mut limit = 1000;
    for n in 0..=wanted.len() {
        assert_eq!(gone(&plan(&state, &budget(limit))), wanted[..n], "{limit}");
        limit = limit.min(1000 - wanted[..n].iter().map(|(_, b)| b).sum::<u64>()) - 1;
    }
    let all = plan(&state, &budget(0));
    assert_eq!(all.over(0), 1000 - all.freed);
    let kept = decided(&all).1;
    assert_eq!(kept, [(id("g").to_string(), "from a file".to_owned())]);
}

#[test]
fn shared_layers_go_with_the_last_image_that_has_them() {
    let state = state(vec![image("a", &["base", "1"], 90), image("b", &["base", "2"], 80)]);
    assert_eq!(gone(&plan(&state, &budget(0))), pairs(&[("a", 101), ("b", 201)]));
    let mut needed = state.clone();
    needed.layers.get_mut(&id("base")).unwrap().needed = true;
    assert_eq!(gone(&plan(&needed, &budget(0))), pairs(&[("a", 101), ("b", 101)]));
}

#[test]
fn compressed_forms_go_with_their_layers_once() {
    let mut state = state(vec![image("a", &["1"], 90), image("b", &["2"], 80)]);
    let form = FormState { bytes: 20, may_go: Err("from a file".into()) };
    state.forms.insert(id("f"), form);
    // One form of two layers (the same content on two chains).
    for layer in state.layers.values_mut() {
        layer.form = Some(id("f"));
    }
    assert_eq!(gone(&plan(&state, &budget(0))), pairs(&[("a", 101), ("b", 121)]));
}

#[test]
fn what_is_used_held_named_or_needed_stays_and_says_why() {
    let mut images = vec![
        image("container", &["1"], 90),
        image("held", &["2"], 90),
        image("Named", &["3"], 90),
        image("recent", &["4"], 2),
        image("parent", &["5"], 90),
        image("Child", &["5", "6"], 90),
    ];
    images[0].container = Some("web".into());
    images[1].held = true;
    images[4].parent = None;
    images[5].parent = Some(id("parent"));
    let state = state(images);
    let strict = Budget { keep_tagged: true, ..budget(0) };
    let (drop, mut keep) = decided(&plan(&state, &strict));
    assert_eq!(drop, []);
    keep.sort();
    let want = [
        ("Child", "it has a name"),
        ("Named", "it has a name"),
        ("container", "container web uses it"),
        ("held", "it is in use"),
        ("parent", "Child was made from it"),
        ("recent", "used 2 hours ago, and kept for 3 hours"),
    ];
    assert_eq!(keep, want.map(|(n, w)| (n.to_owned(), w.to_owned())));
    // A parent goes after what was made from it, though it is older.
    let (drop, _) = decided(&plan(&state, &budget(0)));
    assert_eq!(drop, pairs(&[("Child", 101), ("Named", 101), ("parent", 101)]));
}

#[test]
fn every_layer_is_counted_once_whatever_the_order() {
    // All images of up to three of four layers: what all of them free is what they take.
    let names = ["1", "2", "3", "4"];
    let mut images = Vec::new();
    for n in 1..15u32 {
        let layers: Vec<&str> =
            names.iter().enumerate().filter(|(i, _)| n >> i & 1 == 1).map(|(_, l)| *l).collect();
        images.push(image(&format!("i{n}"), &layers, i64::from(n * 7 % 13) + 10));
    }
    let state = state(images);
    let all = plan(&state, &budget(0));
    assert_eq!(all.freed, 4 * 100 + 14);
    assert_eq!(gone(&all).len(), 14);
}
