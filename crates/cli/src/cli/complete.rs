//! What may come next on a command line: the answer to a shell's question, in cobra's form.

use std::fmt::Write as _;

use serde_json::Value;

use super::{Command, GLOBAL, Names, tree};
use crate::client::Client;
use crate::flags::Flag;

/// Cobra's directives: nothing special, no space after, no files.
const DEFAULT: u8 = 0;
const NO_SPACE: u8 = 2;
const NO_FILES: u8 = 4;

/// Candidates, each with a word about it, and how the shell takes them.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Answer {
    items: Vec<(String, String)>,
    directive: u8,
}

impl Answer {
    /// As a shell's script reads it.
    pub(crate) fn text(&self, describe: bool) -> String {
        let mut out = String::new();
        for (name, about) in &self.items {
            match about.lines().next().filter(|a| describe && !a.is_empty()) {
                Some(about) => drop(writeln!(out, "{name}\t{about}")),
                None => drop(writeln!(out, "{name}")),
            }
        }
        let _ = writeln!(out, ":{}", self.directive);
        out
    }

    fn none(directive: u8) -> Self {
        Self { items: Vec::new(), directive }
    }
}

/// Where in a command line the cursor is.
#[derive(Debug, PartialEq)]
pub(crate) enum Place {
    /// Among things that need no daemon.
    Known(Answer),
    /// Names of these things, without those already given.
    Names(Names, Vec<String>),
}

/// Finds the place of the last word.
pub(crate) fn place(words: &[String]) -> Place {
    let (current, before) = words.split_last().map_or(("", words), |(c, b)| (c.as_str(), b));
    let (at, waiting) = skip(GLOBAL, before, false);
    if let Some(flag) = waiting {
        return value(flag, current);
    }
    let rest = &before[at.min(before.len())..];
    let Some((word, rest)) = rest.split_first() else {
        return Place::Known(if current.starts_with('-') {
            options(GLOBAL, current)
        } else {
            commands(current)
        });
    };
    if word == "help" {
        return Place::Known(commands(current));
    }
    if word == "completion" {
        return Place::Known(named(["bash", "fish", "zsh"].into_iter().map(|s| (s, "")), current));
    }
    match (tree::top(word), tree::group(word)) {
        (Some(command), _) => inside(command, rest, current),
        (None, Some(group)) => match rest.split_first() {
            None => Place::Known(named(group.commands.iter().map(|c| (c.name, c.about)), current)),
            Some((word, rest)) => match group.find(word) {
                Some(command) => inside(command, rest, current),
                None => Place::Known(Answer::none(NO_FILES)),
            },
        },
        (None, None) => Place::Known(Answer::none(NO_FILES)),
    }
}

/// Where the arguments start (or how many there are), and the option that waits for its value.
fn skip<'a>(flags: &'a [Flag], words: &[String], mixed: bool) -> (usize, Option<&'a Flag>) {
    let mut at = 0;
    let mut args = 0;
    while at < words.len() {
        let word = &words[at];
        at += 1;
        if word == "--" {
            args += words.len() - at;
            break;
        }
        let flag = match word.strip_prefix("--") {
            Some(long) if !long.contains('=') => flags.iter().find(|f| f.long == long),
            Some(_) => None,
            None if word.starts_with('-') && word.len() > 1 => last_letter(flags, &word[1..]),
            None => {
                if !mixed {
                    return (at - 1, None);
                }
                args += 1;
                None
            }
        };
        if let Some(flag) = flag.filter(|f| !f.kind.is_bool()) {
            if at == words.len() {
                return (args, Some(flag));
            }
            at += 1;
        }
    }
    (if mixed { args } else { at }, None)
}

/// The option of a cluster's last letter, if the ones before take no value.
fn last_letter<'a>(flags: &'a [Flag], cluster: &str) -> Option<&'a Flag> {
    let find = |c: char| flags.iter().find(|f| f.short == Some(c));
    let last = cluster.chars().last()?;
    let before = &cluster[..cluster.len() - last.len_utf8()];
    before.chars().all(|c| find(c).is_some_and(|f| f.kind.is_bool())).then(|| find(last)).flatten()
}

fn inside(command: &Command, words: &[String], current: &str) -> Place {
    let flags = command.all_flags();
    let (args, waiting) = skip(&flags, words, command.mixed);
    if let Some(flag) = waiting {
        return value(flag, current);
    }
    let args = if command.mixed { args } else { words.len() - args.min(words.len()) };
    let ended = words.iter().any(|w| w == "--") || (!command.mixed && args > 0);
    if current.starts_with('-') && !ended {
        if let Some((name, start)) = current.split_once('=')
            && let Some(flag) = flags.iter().find(|f| name.strip_prefix("--") == Some(f.long))
        {
            return value(flag, start);
        }
        return Place::Known(options(&flags, current));
    }
    if args >= command.named {
        // What another program takes, this one cannot know.
        return Place::Known(Answer::none(if command.mixed { NO_FILES } else { DEFAULT }));
    }
    match command.names {
        Names::Nothing => Place::Known(Answer::none(NO_FILES)),
        Names::Files => Place::Known(Answer::none(DEFAULT)),
        names => Place::Names(names, words.to_vec()),
    }
}

/// Values of an option.
fn value(flag: &Flag, current: &str) -> Place {
    let words = |all: &[&'static str]| Place::Known(named(all.iter().map(|v| (*v, "")), current));
    match flag.long {
        "network" | "net" => Place::Names(Names::Networks, Vec::new()),
        "volumes-from" | "link" => Place::Names(Names::Containers, Vec::new()),
        "signal" | "stop-signal" => {
            words(&["HUP", "INT", "KILL", "QUIT", "STOP", "CONT", "TERM", "USR1", "USR2", "WINCH"])
        }
        "restart" => words(&["always", "no", "on-failure", "unless-stopped"]),
        "pull" => words(&["always", "missing", "never"]),
        "platform" => words(PLATFORMS),
        "log-level" => words(&["debug", "info", "warn", "error", "fatal"]),
        "context" => words(&["default"]),
        "cap-add" | "cap-drop" => {
            words(&["ALL", "NET_ADMIN", "NET_RAW", "SYS_ADMIN", "SYS_PTRACE", "SYS_TIME"])
        }
        "progress" => words(&["auto", "plain", "tty", "quiet", "rawjson"]),
        "file" | "iidfile" | "metadata-file" | "env-file" | "label-file" | "cidfile" | "input" | "output"
        | "config" => Place::Known(Answer::none(DEFAULT)),
        "type" => words(&["container", "image", "network", "volume"]),
        "filter" => filters(current),
        _ => Place::Known(Answer::none(NO_FILES)),
    }
}

/// Those that docker offers.
const PLATFORMS: &[&str] = &[
    "linux/386",
    "linux/amd64",
    "linux/arm",
    "linux/arm/v5",
    "linux/arm/v6",
    "linux/arm/v7",
    "linux/arm64",
    "linux/arm64/v8",
    "linux/ppc64le",
    "linux/s390x",
    "linux/riscv64",
    "windows/amd64",
    "wasip1/wasm",
];

fn filters(current: &str) -> Place {
    let keys = [
        "ancestor",
        "before",
        "dangling",
        "driver",
        "exited",
        "id",
        "label",
        "name",
        "network",
        "reference",
        "since",
        "status",
        "until",
        "volume",
    ];
    let items = keys.iter().map(|k| format!("{k}=")).filter(|k| k.starts_with(current));
    Place::Known(Answer {
        items: items.map(|k| (k, String::new())).collect(),
        directive: NO_FILES | NO_SPACE,
    })
}

fn commands(current: &str) -> Answer {
    let single = tree::COMMON.iter().chain(tree::OTHERS).map(|c| (c.name, c.about));
    let all = single.chain(tree::GROUPS.iter().map(|g| (g.name, g.about)));
    named(all.chain([("completion", super::COMPLETION), ("help", "Help about any command")]), current)
}

fn named(all: impl Iterator<Item = (&'static str, &'static str)>, current: &str) -> Answer {
    let mut items: Vec<_> =
        all.filter(|(n, _)| n.starts_with(current)).map(|(n, a)| (n.to_owned(), a.to_owned())).collect();
    items.sort();
    Answer { items, directive: NO_FILES }
}

fn options(flags: &[Flag], current: &str) -> Answer {
    let mut items: Vec<(String, String)> = flags
        .iter()
        .filter(|f| f.is_shown())
        .map(|f| (format!("--{}", f.long), f.usage.to_owned()))
        .filter(|(n, _)| n.starts_with(current))
        .collect();
    items.sort();
    Answer { items, directive: NO_FILES }
}

/// Names that are known without a daemon.
pub(crate) fn chosen(names: Vec<String>, given: &[String], current: &str) -> Answer {
    let fits = names.into_iter().filter(|n| n.starts_with(current) && !given.contains(n));
    Answer { items: fits.map(|n| (n, String::new())).collect(), directive: NO_FILES }
}

/// Asks the daemon for names; without an answer there are none.
pub(crate) async fn ask(c: &Client, what: Names, given: &[String], current: &str) -> Answer {
    let items = match what {
        Names::Images => images(c).await,
        Names::Volumes => column(c, "/volumes", "Volumes", "Name").await,
        Names::Networks => column(c, "/networks", "", "Name").await,
        Names::Working => column(c, "/longshore/working", "", "Name").await,
        Names::Objects => {
            let mut all = containers(c, what).await;
            all.extend(images(c).await);
            all.extend(column(c, "/volumes", "Volumes", "Name").await);
            all.extend(column(c, "/networks", "", "Name").await);
            all
        }
        _ => containers(c, what).await,
    };
    chosen(items, given, current)
}

fn texts<'a>(list: &'a Value, key: &'a str) -> impl Iterator<Item = String> + 'a {
    list.as_array().into_iter().flatten().filter_map(move |v| v[key].as_str().map(str::to_owned))
}

async fn column(c: &Client, path: &str, list: &str, key: &str) -> Vec<String> {
    let answer = c.value(path).await.unwrap_or_default();
    let list = if list.is_empty() { &answer } else { &answer[list] };
    texts(list, key).collect()
}

async fn containers(c: &Client, what: Names) -> Vec<String> {
    let list = c.value("/containers/json?all=1").await.unwrap_or_default();
    let fits = |v: &&Value| {
        let state = v["State"].as_str().unwrap_or_default();
        match what {
            Names::Running => state == "running",
            Names::Paused => state == "paused",
            Names::Stopped => ["created", "exited"].contains(&state),
            _ => true,
        }
    };
    let name = |v: &Value| v["Names"][0].as_str().map(|n| n.trim_start_matches('/').to_owned());
    list.as_array().into_iter().flatten().filter(fits).filter_map(name).collect()
}

async fn images(c: &Client) -> Vec<String> {
    let list = c.value("/images/json").await.unwrap_or_default();
    let tags = list.as_array().into_iter().flatten().filter_map(|v| v["RepoTags"].as_array()).flatten();
    let mut out: Vec<String> = tags.filter_map(|t| t.as_str().map(str::to_owned)).collect();
    // A name alone means its latest.
    let latest: Vec<String> =
        out.iter().filter_map(|t| t.strip_suffix(":latest").map(str::to_owned)).collect();
    out.extend(latest);
    out.sort();
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(line: &str) -> Place {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        place(&words)
    }

    fn names(line: &str) -> Vec<String> {
        match at(line) {
            Place::Known(answer) => answer.items.into_iter().map(|(n, _)| n).collect(),
            Place::Names(what, _) => vec![format!("{what:?}")],
        }
    }

    #[test]
    fn every_place_of_a_line_is_known() {
        for (line, want) in [
            ("im", &["image", "images", "import"][..]),
            ("-H unix:///x ren", &["rename"]),
            ("container r", &["rename", "restart", "rm", "run"]),
            ("ps --no", &["--no-trunc"]),
            ("run --cap-a", &["--cap-add"]),
            ("run ", &["Images"]),
            ("run --network ", &["Networks"]),
            ("run -it --name x ", &["Images"]),
            ("run busybox ", &[]),
            ("rm a ", &["Containers"]),
            ("kill -s K", &["KILL"]),
            ("start ", &["Stopped"]),
            ("exec -it ", &["Running"]),
            ("exec box --", &[]),
            ("image rm ", &["Images"]),
            ("volume inspect ", &["Volumes"]),
            ("logs a ", &[]),
            ("run --pull=al", &["always"]),
            (
                "pull --platform linux/ar",
                &[
                    "linux/arm",
                    "linux/arm/v5",
                    "linux/arm/v6",
                    "linux/arm/v7",
                    "linux/arm64",
                    "linux/arm64/v8",
                ],
            ),
            ("pull ", &[]),
            ("push -q ", &["Images"]),
            ("logout ", &["Registries"]),
            ("manifest ", &["inspect", "referrers"]),
            ("working co", &["commit", "config", "copy"]),
            ("working from ", &["Images"]),
            ("working rm a ", &["Working"]),
            ("working run x --", &[]),
            ("nonsense ", &[]),
            ("ps -f sta", &["status="]),
        ] {
            assert_eq!(names(line), want, "{line}");
        }
    }

    #[test]
    fn answers_have_cobras_form() {
        let answer = Answer {
            items: vec![("a".into(), "one\ntwo".into()), ("b".into(), String::new())],
            directive: 4,
        };
        assert_eq!(answer.text(true), "a\tone\nb\n:4\n");
        assert_eq!(answer.text(false), "a\nb\n:4\n");
    }
}
