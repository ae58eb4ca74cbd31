//! Options of the commands about the engine's store.

use super::kinds::FORMAT;
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
