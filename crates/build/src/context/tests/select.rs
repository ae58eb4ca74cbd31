use super::*;

#[track_caller]
fn check_select(files: &[&str], options: &SelectOptions, sources: &[&str], expected: &[&str]) {
    let (_dir, context) = tree(files);
    let got = match select(context.tree(), sources, options) {
        Ok(selected) => selected.iter().map(|one| shown(context.tree(), one)).collect(),
        Err(e) => vec![e.to_string()],
    };
    assert_eq!(got, expected, "{sources:?}");
}

/// `name` for a file, `/: a b/ c` for a directory; `=path` where a link led elsewhere.
fn shown(tree: &Tree, selected: &Selected) -> String {
    let items: Vec<_> = selected.items(tree).map(|(name, ..)| text(name)).collect();
    if selected.is_dir(tree) {
        return format!("/:{}", items.join(" "));
    }
    let real = text(&tree.get(selected.source).unwrap().path);
    format!("{}={real}", text(&selected.name))
}

#[test]
fn sources_are_taken_from_the_root() {
    let check = |sources: &[&str], expected: &[&str]| {
        check_select(FILES, &SelectOptions::default(), sources, expected);
    };
    check(&["a.c"], &["a.c=a.c"]);
    check(&["/a.c"], &["a.c=a.c"]);
    check(&["../../a.c"], &["a.c=a.c"]);
    check(&["./src/../a.c/"], &["a.c=a.c"]);
    check(&["b.c", "a.c"], &["b.c=b.c", "a.c=a.c"]);
    check(&["src"], &["/: in in/n.c m.c m.h"]);
    check(&["src/"], &["/: in in/n.c m.c m.h"]);
    check(&["src/m.c"], &["m.c=src/m.c"]);
    for root in [".", "/", "", "..", "./"] {
        check(&[root], &["/: a.c b.c l lf src src/in src/in/n.c src/m.c src/m.h x x/src x/src/o.c"]);
    }
    check(&["none"], &["\"/none\": not found"]);
    check(&["src/none/x"], &["\"/src/none/x\": not found"]);
    check(&["../none"], &["\"/none\": not found"]);
    check(&["a.c/x"], &["\"/a.c/x\": not found"]);
}

#[test]
fn wildcards_give_what_they_match_in_order() {
    let check = |sources: &[&str], expected: &[&str]| {
        check_select(FILES, &SelectOptions::default(), sources, expected);
    };
    check(&["*.c"], &["a.c=a.c", "b.c=b.c"]);
    check(&["src/*.?"], &["m.c=src/m.c", "m.h=src/m.h"]);
    check(&["*/m.c"], &["m.c=src/m.c"]);
    check(&["s*"], &["/: in in/n.c m.c m.h"]);
    check(&["*/src"], &["/: o.c"]);
    check(&["l/*.c"], &["m.c=src/m.c"]);
    check(&["l*"], &["/: in in/n.c m.c m.h", "lf=src/m.c"]);
    check(&["[ab].c"], &["a.c=a.c", "b.c=b.c"]);
    check(&["*.none"], &[]);
    check(&["none/*"], &["\"/none\": not found"]);
    check(&["*.none", "a.c"], &["a.c=a.c"]);
    check(&["["], &["pattern \"[\": syntax error in pattern"]);
    check_select(&["a[1]", "a1"], &SelectOptions::default(), &["a[[]1]"], &["a[1]=a[1]"]);
}

#[test]
fn links_are_followed_inside_only() {
    let check = |files: &[&str], source: &str, expected: &str| {
        check_select(files, &SelectOptions::default(), &[source], &[expected]);
    };
    check(FILES, "l", "/: in in/n.c m.c m.h");
    check(FILES, "l/m.c", "m.c=src/m.c");
    check(FILES, "lf", "lf=src/m.c");
    check(&["f", "d/up->../../../f"], "d/up", "up=f");
    check(&["f", "d/abs->/f"], "d/abs", "abs=f");
    check(&["etc/passwd", "e->/etc"], "e/passwd", "passwd=etc/passwd");
    check(&["e->/etc/passwd"], "e", "\"/e\": not found");
    check(&["e->/etc/passwd"], "e*", "\"/e\": not found");
    check(&["a->b", "b->a"], "a", "\"/a\": too many links");
    check(&["a->a/x"], "a", "\"/a\": too many links");
    // Links in a directory are taken as links.
    check(&["d/l->../f", "f"], "d", "/: l");
}

#[test]
fn excludes_count_from_the_source_on() {
    let check = |excludes: &[&str], source: &str, expected: &[&str]| {
        let excludes = excludes.iter().map(|e| e.as_bytes().to_vec()).collect();
        check_select(FILES, &SelectOptions { excludes, ..SelectOptions::default() }, &[source], expected);
    };
    check(&["*.c"], "src", &["/: in in/n.c m.h"]);
    check(&["**/*.c"], "src", &["/: in m.h"]);
    check(&["in"], "src", &["/: m.c m.h"]);
    check(&["src"], "src", &["/: in in/n.c m.c m.h"]);
    check(&["*"], "src", &["/:"]);
    check(&["*", "!in/n.c"], "src", &["/: in in/n.c"]);
    check(&["a*"], "*.c", &["b.c=b.c"]);
    check(&["*.c"], "a.c", &[]);
    check(&["["], "a.c", &["pattern \"[\": syntax error in pattern"]);
}

#[test]
fn parents_are_kept_from_the_pivot_on() {
    let options = SelectOptions { parents: true, ..SelectOptions::default() };
    let check = |source: &str, expected: &[&str]| check_select(FILES, &options, &[source], expected);
    check("src/in/n.c", &["/: src src/in src/in/n.c"]);
    check("./src/in/n.c", &["/: src src/in src/in/n.c"]);
    check("src/./in/n.c", &["/: in in/n.c"]);
    check("src/./in/./n.c", &["/: in in/n.c"]);
    check("src/in/./n.c", &["/: n.c"]);
    check("l/./in", &["/: in in/n.c"]);
    check("src/in", &["/: src src/in src/in/n.c"]);
    check("src/in/.", &["/: src src/in src/in/n.c"]);
    check("**/*.c", &["/: a.c b.c src src/in src/in/n.c src/m.c x x/src x/src/o.c"]);
    check("*/src/./*.c", &["/: o.c"]);
    check("*/./*.h", &["/: m.h", "/: m.h", "/:"]);
    check("src/./none*", &["/:"]);
    check(".", &["/: a.c b.c l lf src src/in src/in/n.c src/m.c src/m.h x x/src x/src/o.c"]);
    check("src/./", &["/: in in/n.c m.c m.h"]);
    check("none/x", &["\"/none/x\": not found"]);
    check("src/./none", &["\"/src/none\": not found"]);
    check("none/./x", &["\"/none\": not found"]);
    check("a.c/./x", &["\"/a.c/x\": not found"]);
    let both = SelectOptions { parents: true, excludes: vec![b"**/m.c".to_vec()] };
    check_select(FILES, &both, &["src/*.?"], &["/: src src/m.h"]);
}
