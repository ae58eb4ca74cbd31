//! Options of the commands about the engine's store.

use super::kinds::FORMAT;
use crate::flags::{BOOL, STRING, flag, options};

options! {
    /// `system df`.
    DfArgs {
        format: Option<String> = flag("format", STRING, FORMAT),
        verbose: bool = flag("verbose", BOOL, "Show detailed information on space usage").short('v'),
        ;
    }
}
