//! Options of the commands about the engine's store.

use super::kinds::{DURATION, FORMAT};
use crate::flags::{BOOL, FILTER, STRING, flag, options};

options! {
    /// `system df`.
    DfArgs {
        format: Option<String> = flag("format", STRING, FORMAT),
        verbose: bool = flag("verbose", BOOL, "Show detailed information on space usage").short('v'),
        ;
    }
}

options! {
    /// `system prune`.
    SystemPruneArgs {
        all: bool = flag("all", BOOL, "Remove all unused images not just dangling ones").short('a'),
        compressed: bool =
            flag("compressed", BOOL, "Drop the compressed forms of layers that can be made or fetched again (Longshore's daemon only)"),
        filter: Vec<String> = flag("filter", FILTER, "Provide filter values (e.g. \"label=<key>=<value>\")"),
        force: bool = flag("force", BOOL, "Do not prompt for confirmation").short('f'),
        volumes: bool = flag("volumes", BOOL, "Prune anonymous volumes"),
        ;
    }
}

options! {
    /// `network prune`.
    NetworkPruneArgs {
        filter: Vec<String> = flag("filter", FILTER, "Provide filter values (e.g. \"until=<timestamp>\")"),
        force: bool = flag("force", BOOL, "Do not prompt for confirmation").short('f'),
        ;
    }
}

options! {
    /// `system gc`.
    GcArgs {
        dry_run: bool = flag("dry-run", BOOL, "Only show what would be removed, and why"),
        format: Option<String> = flag("format", STRING, FORMAT),
        keep_last_used: String =
            flag("keep-last-used", DURATION, "With --limit: keep images that were used so recently (default 24h)"),
        keep_tagged: bool = flag("keep-tagged", BOOL, "With --limit: keep images that have a name").default("true"),
        limit: String =
            flag("limit", STRING, "What everything may take on the disk (e.g. \"20GB\"); default: the daemon's disk budget"),
        ;
    }
}

options! {
    /// `system check`.
    CheckArgs {
        format: Option<String> = flag("format", STRING, FORMAT),
        quick: bool = flag("quick", BOOL, "Do not read contents: only records, sizes, and what stands beside layers"),
        repair: bool = flag("repair", BOOL, "Mend what can be mended, and remove leftovers"),
        ;
    }
}
