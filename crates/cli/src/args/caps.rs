//! `--cap-add` and `--cap-drop`.

use std::collections::BTreeSet;

const ALL: &str = "ALL";

/// What is added and dropped in the end: names in full, each once, in order.
pub(super) fn effective(add: &[String], drop: &[String]) -> (Vec<String>, Vec<String>) {
    let (mut add, mut drop) = (names(add), names(drop));
    // With all of them, one more or less says nothing.
    for set in [&mut add, &mut drop] {
        if set.contains(ALL) {
            set.retain(|c| c == ALL);
        }
    }
    // What is wanted wins.
    drop.retain(|c| !add.contains(c));
    (add.into_iter().collect(), drop.into_iter().collect())
}

fn names(values: &[String]) -> BTreeSet<String> {
    values
        .iter()
        .map(|v| v.trim().to_ascii_uppercase())
        .map(|v| if v == ALL || v.starts_with("CAP_") { v } else { format!("CAP_{v}") })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_full_and_what_is_wanted_wins() {
        let list = |t: &str| t.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let effective = |add, drop| effective(&list(add), &list(drop));
        assert_eq!(
            effective("net_admin CAP_CHOWN NET_ADMIN", "ALL kill"),
            (list("CAP_CHOWN CAP_NET_ADMIN"), list("ALL"))
        );
        assert_eq!(effective("chown", "chown kill"), (list("CAP_CHOWN"), list("CAP_KILL")));
        assert_eq!(effective("all kill", ""), (list("ALL"), list("")));
    }
}
