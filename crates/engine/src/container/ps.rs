//! `top`: what `ps` would say about a container's processes, read from `/proc`.

use std::collections::BTreeSet;
use std::fs;

use crate::model::Processes;
use crate::{Error, Result};

/// Columns of `-ef`.
const FULL: [&str; 8] = ["uid", "pid", "ppid", "c", "stime", "tty", "time", "cmd"];
/// Columns of `aux`.
const USER: [&str; 11] =
    ["user", "pid", "%cpu", "%mem", "vsz", "rss", "tty", "stat", "start", "time", "command"];
/// Longest command line that is shown.
const MAX_CMD: usize = 4096;

/// What `ps` arguments ask for: columns with their titles.
///
/// # Errors
/// For arguments that are not understood: they would be ignored otherwise.
pub(crate) fn columns(args: &str) -> Result<Vec<(String, String)>> {
    let known = |name: &str| titled(name).map(|t| (name.to_owned(), t.to_owned()));
    let set = |names: &[&str]| names.iter().filter_map(|n| known(n)).collect::<Vec<_>>();
    let mut words = args.split_whitespace();
    let mut out = Vec::new();
    let mut plain: Vec<(String, String)> = Vec::new();
    while let Some(word) = words.next() {
        let bare = word.strip_prefix('-').unwrap_or(word);
        if let Some(list) = word.strip_prefix("--format=") {
            formats(list, &mut out)?;
        } else if let Some((flags, rest)) =
            bare.split_once('o').filter(|(f, _)| f.chars().all(|c| "eAaxf".contains(c)))
        {
            if flags.contains('f') {
                plain = set(&FULL);
            }
            match if rest.is_empty() { words.next() } else { Some(rest) } {
                Some(list) => formats(list, &mut out)?,
                None => return Err(Error::invalid("ps: -o needs a list of columns")),
            }
        } else if bare.chars().all(|c| "eAaxfluw".contains(c)) && !bare.is_empty() {
            plain = match bare {
                _ if bare.contains('u') && !word.starts_with('-') => set(&USER),
                _ if bare.contains('f') && word.starts_with('-') => set(&FULL),
                _ => {
                    if bare.contains('l') || bare.contains('u') {
                        return Err(Error::unimplemented(format!("the ps option {word}")));
                    }
                    set(&["pid", "tty", "time", "cmd"])
                }
            };
        } else {
            return Err(Error::unimplemented(format!("the ps option {word}")));
        }
    }
    if !out.is_empty() {
        if !out.iter().any(|(n, _)| n == "pid") {
            return Err(Error::internal("Couldn't find PID field in ps output"));
        }
        return Ok(out);
    }
    Ok(if plain.is_empty() { set(&FULL) } else { plain })
}

/// `pid,comm=NAME`.
fn formats(list: &str, out: &mut Vec<(String, String)>) -> Result<()> {
    let list = list.trim_matches(['"', '\'']);
    for item in list.split(',').filter(|i| !i.is_empty()) {
        let (name, title) = match item.split_once('=') {
            Some((n, t)) => (n, Some(t)),
            None => (item, None),
        };
        let default = titled(name).ok_or_else(|| Error::unimplemented(format!("the ps column {name}")))?;
        out.push((name.to_owned(), title.unwrap_or(default).to_owned()));
    }
    Ok(())
}

fn titled(name: &str) -> Option<&'static str> {
    Some(match name {
        "uid" => "UID",
        "user" | "euser" => "USER",
        "pid" => "PID",
        "ppid" => "PPID",
        "pgid" => "PGID",
        "sid" => "SID",
        "c" => "C",
        "stime" => "STIME",
        "start" => "START",
        "tty" | "tt" | "tname" => "TTY",
        "time" | "cputime" => "TIME",
        "etime" => "ELAPSED",
        "etimes" => "ELAPSED",
        "cmd" => "CMD",
        "args" | "command" => "COMMAND",
        "comm" | "ucmd" => "COMMAND",
        "stat" => "STAT",
        "s" | "state" => "S",
        "vsz" => "VSZ",
        "rss" => "RSS",
        "nlwp" => "NLWP",
        "ni" => "NI",
        "pri" => "PRI",
        "%cpu" | "pcpu" => "%CPU",
        "%mem" | "pmem" => "%MEM",
        "group" | "gid" => "GID",
        _ => return None,
    })
}

/// Reads the processes `pids`; those that have ended meanwhile are left out.
pub(crate) fn read(pids: &[u32], columns: &[(String, String)]) -> Processes {
    let host = Host::read();
    let unique: BTreeSet<u32> = pids.iter().copied().collect();
    let rows = unique
        .into_iter()
        .filter_map(Process::read)
        .map(|p| columns.iter().map(|(name, _)| p.value(name, &host)).collect())
        .collect();
    Processes { titles: columns.iter().map(|(_, t)| t.clone()).collect(), rows }
}

struct Host {
    users: Vec<(u32, String)>,
    boot: i64,
    uptime: f64,
    memory_kib: u64,
}

/// The kernel's unit of time in `/proc`.
const TICKS: u64 = 100;

impl Host {
    fn read() -> Self {
        let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let users = passwd
            .lines()
            .filter_map(|l| {
                let mut f = l.split(':');
                let name = f.next()?;
                Some((f.nth(1)?.parse().ok()?, name.to_owned()))
            })
            .collect();
        let word = |path: &str, key: &str| {
            let text = fs::read_to_string(path).unwrap_or_default();
            let line = text.lines().find_map(|l| l.strip_prefix(key).map(str::to_owned));
            line.and_then(|l| l.split_whitespace().next().map(str::to_owned))
        };
        Self {
            users,
            boot: word("/proc/stat", "btime ").and_then(|w| w.parse().ok()).unwrap_or(0),
            uptime: word("/proc/uptime", "").and_then(|w| w.parse().ok()).unwrap_or(0.0),
            memory_kib: word("/proc/meminfo", "MemTotal:").and_then(|w| w.parse().ok()).unwrap_or(0),
        }
    }
}

struct Process {
    pid: u32,
    uid: u32,
    gid: u32,
    comm: String,
    args: String,
    /// `stat` from field 3 on.
    stat: Vec<String>,
}

impl Process {
    fn read(pid: u32) -> Option<Self> {
        let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
        let stat = String::from_utf8_lossy(&stat).into_owned();
        // The name may hold spaces and parentheses: it ends at the last one.
        let (open, close) = (stat.find('(')?, stat.rfind(')')?);
        let comm = printable(stat.get(open + 1..close)?);
        let fields = stat.get(close + 1..)?.split_whitespace().map(str::to_owned).collect();
        let status = fs::read(format!("/proc/{pid}/status")).ok()?;
        let status = String::from_utf8_lossy(&status).into_owned();
        let id = |key: &str| {
            let line = status.lines().find_map(|l| l.strip_prefix(key))?;
            line.split_whitespace().nth(1)?.parse().ok()
        };
        let raw = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let text = String::from_utf8_lossy(&raw[..raw.len().min(MAX_CMD)]).into_owned();
        let args = printable(text.trim_end_matches('\0').replace('\0', " ").trim_end());
        let args = if args.is_empty() { format!("[{comm}]") } else { args };
        Some(Self { pid, uid: id("Uid:")?, gid: id("Gid:")?, comm, args, stat: fields })
    }

    /// Field `n` of stat, counted from 1 as in proc(5).
    fn number(&self, n: usize) -> u64 {
        self.stat.get(n - 3).and_then(|f| f.parse().ok()).unwrap_or(0)
    }

    fn value(&self, name: &str, host: &Host) -> String {
        let ticks = self.number(14) + self.number(15);
        let started = self.number(22) / TICKS;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "seconds of uptime, rounded down"
        )]
        let age = (host.uptime as u64).saturating_sub(started);
        let text = |n: usize| self.stat.get(n - 3).cloned().unwrap_or_default();
        match name {
            "uid" | "user" | "euser" => host
                .users
                .iter()
                .find(|(u, _)| *u == self.uid)
                .map_or_else(|| self.uid.to_string(), |(_, n)| n.clone()),
            "gid" | "group" => self.gid.to_string(),
            "pid" => self.pid.to_string(),
            "ppid" => text(4),
            "pgid" => text(5),
            "sid" => text(6),
            "c" => (ticks * 100 / TICKS / age.max(1)).min(99).to_string(),
            "%cpu" | "pcpu" => {
                let tenths = ticks * 1000 / TICKS / age.max(1);
                format!("{}.{}", tenths / 10, tenths % 10)
            }
            "%mem" | "pmem" => {
                let tenths = self.number(24) * 4 * 1000 / host.memory_kib.max(1);
                format!("{}.{}", tenths / 10, tenths % 10)
            }
            "stime" | "start" => clock(host.boot.saturating_add_unsigned(started), age),
            "tty" | "tt" | "tname" => tty(self.number(7)),
            "time" | "cputime" => hms(ticks / TICKS),
            "etime" => elapsed(age),
            "etimes" => age.to_string(),
            "cmd" | "args" | "command" => self.args.clone(),
            "comm" | "ucmd" => self.comm.clone(),
            "stat" | "s" | "state" => text(3),
            "vsz" => (self.number(23) / 1024).to_string(),
            "rss" => (self.number(24) * 4).to_string(),
            "nlwp" => text(20),
            "ni" => text(19),
            "pri" => text(18),
            _ => String::new(),
        }
    }
}

/// Control characters of a hostile command line never reach a terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

fn tty(device: u64) -> String {
    let (major, minor) = ((device >> 8) & 0xfff, (device & 0xff) | ((device >> 12) & 0xfff00));
    match major {
        0 => "?".into(),
        4 if minor < 64 => format!("tty{minor}"),
        4 => format!("ttyS{}", minor - 64),
        136..=143 => format!("pts/{}", (major - 136) * 256 + minor),
        _ => "?".into(),
    }
}

fn hms(seconds: u64) -> String {
    let (d, h, m, s) = (seconds / 86400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    if d > 0 { format!("{d}-{h:02}:{m:02}:{s:02}") } else { format!("{h:02}:{m:02}:{s:02}") }
}

fn elapsed(seconds: u64) -> String {
    let text = hms(seconds);
    text.strip_prefix("00:").map_or(text.clone(), str::to_owned)
}

/// Time of the day for what is younger than one, else the date.
fn clock(at: i64, age: u64) -> String {
    let Ok(t) = jiff::Timestamp::from_second(at) else { return "?".into() };
    let z = t.to_zoned(jiff::tz::TimeZone::system());
    if age < 86400 { z.strftime("%H:%M").to_string() } else { z.strftime("%b%d").to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn titles(args: &str) -> Vec<String> {
        columns(args).expect(args).into_iter().map(|(_, t)| t).collect()
    }

    #[test]
    fn titles_as_ps_has_them() {
        let full = ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"];
        assert_eq!(titles(""), full);
        assert_eq!(titles("-ef"), full);
        assert_eq!(titles("-eo pid,comm"), ["PID", "COMMAND"]);
        assert_eq!(titles("-o pid,comm=X"), ["PID", "X"]);
        assert_eq!(titles("aux")[0], "USER");
        assert!(columns("-eo comm").is_err() && columns("--forest").is_err() && columns("-o").is_err());
    }

    #[test]
    fn reads_this_process() {
        let me = std::process::id();
        let p = read(&[me, me, u32::MAX], &columns("-eo pid,ppid,user,time,args").expect("columns"));
        assert_eq!(p.rows.len(), 1);
        assert_eq!(p.rows[0][0], me.to_string());
        assert!(p.rows[0][3].starts_with("00:0"), "{:?}", p.rows[0]);
    }

    #[test]
    fn atk_40_control_characters_are_replaced() {
        assert_eq!(printable("a\x1b[2Jb\n"), "a?[2Jb?");
        assert_eq!(
            (hms(90061), elapsed(61), tty(0x8803)),
            ("1-01:01:01".into(), "01:01".into(), "pts/3".into())
        );
    }
}
