//! Words to options and arguments, as pflag reads them.

use std::collections::{BTreeMap, VecDeque};

use super::Flag;

/// What was given on a command line.
#[derive(Clone, Debug, Default)]
pub(crate) struct Matches {
    values: BTreeMap<&'static str, Vec<String>>,
    defaults: BTreeMap<&'static str, &'static str>,
    args: Vec<String>,
    /// `--help` or `-h` was given.
    pub(crate) help: bool,
    /// Told to the user before anything else.
    pub(crate) notes: Vec<String>,
}

impl Matches {
    /// The value that counts.
    pub(crate) fn last(&self, long: &str) -> &str {
        let given = self.values.get(long).and_then(|v| v.last()).map(String::as_str);
        given.unwrap_or_else(|| self.defaults.get(long).copied().unwrap_or_default())
    }

    /// Every value.
    pub(crate) fn all(&self, long: &str) -> &[String] {
        self.values.get(long).map_or(&[], Vec::as_slice)
    }

    /// Whether the option was given.
    pub(crate) fn given(&self, long: &str) -> bool {
        self.values.contains_key(long)
    }

    /// The arguments.
    pub(crate) fn args(&self) -> VecDeque<String> {
        self.args.clone().into()
    }

    /// How many arguments there are.
    pub(crate) fn count(&self) -> usize {
        self.args.len()
    }
}

/// Reads words. Without `mixed`, the first argument ends the options: what follows belongs to another program.
pub(crate) fn parse(flags: &[Flag], words: &[String], mixed: bool) -> Result<Matches, String> {
    let mut parser = Parser { flags, out: Matches::default() };
    parser.out.defaults = flags.iter().map(|f| (f.long, f.default)).collect();
    let mut words: VecDeque<String> = words.iter().cloned().collect();
    while let Some(word) = words.pop_front() {
        if word == "--" {
            parser.out.args.extend(words);
            break;
        }
        if let Some(long) = word.strip_prefix("--") {
            parser.long(&word, long, &mut words)?;
        } else if word.len() > 1 && word.starts_with('-') {
            parser.letters(&word[1..], &mut words)?;
        } else {
            parser.out.args.push(word);
            if !mixed {
                parser.out.args.extend(words);
                break;
            }
        }
    }
    Ok(parser.out)
}

struct Parser<'a> {
    flags: &'a [Flag],
    out: Matches,
}

impl Parser<'_> {
    fn long(&mut self, word: &str, text: &str, words: &mut VecDeque<String>) -> Result<(), String> {
        if text.starts_with(['-', '=']) {
            return Err(format!("bad flag syntax: {word}"));
        }
        let (name, value) = text.split_once('=').map_or((text, None), |(n, v)| (n, Some(v.to_owned())));
        if name == "help" {
            self.out.help = super::values::truth(value.as_deref().unwrap_or("true")).unwrap_or(true);
            return Ok(());
        }
        let Some(flag) = self.flags.iter().find(|f| f.long == name).copied() else {
            return Err(format!("unknown flag: --{name}"));
        };
        let value = match value {
            Some(v) => v,
            None if flag.kind.is_bool() => "true".into(),
            None => words.pop_front().ok_or_else(|| format!("flag needs an argument: --{name}"))?,
        };
        self.set(flag, value)
    }

    /// `-abc`, `-n5`, `-n=5`, `-n 5`.
    fn letters(&mut self, cluster: &str, words: &mut VecDeque<String>) -> Result<(), String> {
        let mut rest = cluster;
        while let Some(letter) = rest.chars().next() {
            let shown = rest;
            rest = &rest[letter.len_utf8()..];
            let Some(flag) = self.flags.iter().find(|f| f.short == Some(letter)).copied() else {
                if letter == 'h' {
                    self.out.help = true;
                    self.out.notes.push("Flag shorthand -h has been deprecated, use --help".into());
                    continue;
                }
                return Err(format!("unknown shorthand flag: {letter:?} in -{shown}"));
            };
            if let Some(value) = rest.strip_prefix('=').filter(|_| rest.len() > 1) {
                return self.set(flag, value.to_owned());
            }
            if flag.kind.is_bool() {
                self.set(flag, "true".into())?;
                continue;
            }
            let value = if rest.is_empty() {
                words.pop_front().ok_or_else(|| format!("flag needs an argument: {letter:?} in -{shown}"))?
            } else {
                rest.to_owned()
            };
            return self.set(flag, value);
        }
        Ok(())
    }

    fn set(&mut self, flag: Flag, value: String) -> Result<(), String> {
        if let Err(e) = (flag.kind.check)(&value) {
            return Err(format!("invalid argument {value:?} for \"{}\" flag: {e}", flag.called()));
        }
        if !flag.refused.is_empty() {
            return Err(format!("--{} {}", flag.long, flag.refused));
        }
        if !flag.deprecated.is_empty() {
            self.out.notes.push(format!("Flag --{} has been deprecated, {}", flag.long, flag.deprecated));
        }
        let key = if flag.same_as.is_empty() { flag.long } else { flag.same_as };
        let values = self.out.values.entry(key).or_default();
        if !flag.kind.many {
            values.clear();
        }
        if flag.kind.name == "strings" {
            values.extend(value.split(',').map(str::to_owned));
        } else {
            values.push(value);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{BOOL, INT, LIST, STRING, flag};
    use super::*;

    const FLAGS: &[Flag] = &[
        flag("all", BOOL, "").short('a'),
        flag("rm", BOOL, ""),
        flag("last", INT, "").short('n').default("-1"),
        flag("env", LIST, "").short('e'),
        flag("name", STRING, ""),
        flag("net", STRING, "").same_as("name"),
        flag("gone", BOOL, "").refused("is not implemented yet"),
    ];

    fn read(line: &str, mixed: bool) -> Result<Matches, String> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        parse(FLAGS, &words, mixed)
    }

    #[test]
    fn words_are_read_as_docker_reads_them() {
        let m = read("-an5 x --env=A=1 -eB=2 -e C --name one --net two --rm=f y", true).unwrap();
        assert_eq!((m.last("all"), m.last("last"), m.last("name"), m.last("rm")), ("true", "5", "two", "f"));
        assert_eq!(m.all("env"), ["A=1", "B=2", "C"]);
        assert_eq!(m.args(), ["x", "y"]);
        assert!(!read("", true).unwrap().given("last"));
        assert_eq!(read("", true).unwrap().last("last"), "-1");
        let m = read("--rm img -a --rm=maybe -- x", false).unwrap();
        assert_eq!(m.args(), ["img", "-a", "--rm=maybe", "--", "x"]);
        assert_eq!(read("a -- -b --c", true).unwrap().args(), ["a", "-b", "--c"]);
        assert_eq!(read("-n=7 -", true).unwrap().last("last"), "7");
        assert!(read("x --help --rm", true).unwrap().help);
    }

    #[test]
    fn errors_are_dockers() {
        for (line, want) in [
            ("--nope", "unknown flag: --nope"),
            ("-xa", "unknown shorthand flag: 'x' in -xa"),
            ("-ax", "unknown shorthand flag: 'x' in -x"),
            ("--name", "flag needs an argument: --name"),
            ("-n", "flag needs an argument: 'n' in -n"),
            ("--=x", "bad flag syntax: --=x"),
            (
                "-n x",
                "invalid argument \"x\" for \"-n, --last\" flag: strconv.ParseInt: parsing \"x\": invalid syntax",
            ),
            (
                "--rm=maybe",
                "invalid argument \"maybe\" for \"--rm\" flag: strconv.ParseBool: parsing \"maybe\": invalid syntax",
            ),
            ("--gone", "--gone is not implemented yet"),
        ] {
            assert_eq!(read(line, true).unwrap_err(), want, "{line}");
        }
    }
}
