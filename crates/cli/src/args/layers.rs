//! Options of the commands that see into layers: our own, below `image`.

use super::kinds::{FORMAT, OBJECT_FORMAT};
use crate::flags::{BOOL, INT, Kind, STRING, flag, options};

const TYPE: Kind = Kind::one("string", |v| match v {
    "" | "image" | "container" => Ok(()),
    _ => Err(format!("{v:?} is neither image nor container")),
});

options! {
    /// `image layers`.
    LayersArgs {
        format: Option<String> = flag("format", STRING, FORMAT),
        no_trunc: bool = flag("no-trunc", BOOL, "Show steps whole and as the image tells them"),
        quiet: bool = flag("quiet", BOOL, "Only show digests (diff IDs)").short('q'),
        ; image: String
    }
}

options! {
    /// `image which`.
    WhichArgs {
        format: Option<String> = flag("format", STRING, OBJECT_FORMAT).short('f'),
        no_resolve: bool = flag("no-resolve", BOOL, "Do not follow symbolic links").short('P'),
        no_trunc: bool = flag("no-trunc", BOOL, "Show steps whole and as the image tells them"),
        kind: String = flag("type", TYPE, "Only look for an \"image\" or a \"container\" of that name"),
        ; name: String, path: String
    }
}

options! {
    /// `image diff`.
    DiffArgs {
        content: bool = flag("content", BOOL, "Compare the bytes of files instead of their modification times"),
        format: Option<String> = flag("format", STRING, OBJECT_FORMAT),
        size: bool = flag("size", BOOL, "Show sizes").short('s'),
        stat: bool = flag("stat", BOOL, "Show how much differs, not what"),
        ; from: String, to: String
    }
}

options! {
    /// `image cat`.
    CatArgs {
        layer: Option<i64> = flag("layer", INT, "Take the image without the layers above this number"),
        ; image: String, path: String
    }
}

options! {
    /// `image explore`.
    ExploreArgs {
        ; image: String
    }
}

/// What is to be seen.
#[derive(Clone, Debug)]
pub(crate) enum Look {
    Layers(LayersArgs),
    Which(WhichArgs),
    Diff(DiffArgs),
    Cat(CatArgs),
    Explore(ExploreArgs),
}
