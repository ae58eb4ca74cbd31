//! Commands that see into layers: our own, in docker's group `image`.

use super::{Command, Names, command};
use crate::args::layers::{CatArgs, DiffArgs, ExploreArgs, LayersArgs, Look, WhichArgs};
use crate::cli::Action;
use crate::flags::{Count, Options};

pub(super) const LAYERS: Command = command(
    "layers",
    "[OPTIONS] IMAGE",
    "Show what each layer of an image adds, changes, deletes and wastes",
    Count::Exactly(1),
    &[LayersArgs::FLAGS],
    |m| Action::Look(Look::Layers(Options::from_matches(m))),
)
.names(Names::Images, 1)
.long(
    "Show what each layer of an image adds, changes, deletes and wastes\n\n\
     Layers are numbered from 1, the lowest first, as the steps stand in a Dockerfile: a layer\n\
     keeps its number when others are put on top. WASTED are the bytes of its files that a\n\
     higher layer replaces or deletes; no container can see them, and they are stored all the same.",
);

pub(super) const WHICH: Command = command(
    "which",
    "[OPTIONS] IMAGE|CONTAINER PATH",
    "Show which layer and which step wrote a file, and what it hides",
    Count::Exactly(2),
    &[WhichArgs::FLAGS],
    |m| Action::Look(Look::Which(Options::from_matches(m))),
)
.names(Names::Images, 1)
.long(
    "Show which layer and which step wrote a file, and what it hides\n\n\
     The last change comes first. Symbolic links are followed inside the image. Of a container\n\
     its own layer is looked at first; what is mounted in it is not in a layer.",
);

pub(super) const DIFF: Command = command(
    "diff",
    "[OPTIONS] IMAGE IMAGE",
    "Show the files that differ between two images",
    Count::Exactly(2),
    &[DiffArgs::FLAGS],
    |m| Action::Look(Look::Diff(Options::from_matches(m))),
)
.names(Names::Images, 2)
.long(
    "Show the files that differ between two images\n\n\
     A was added, C changed, D deleted from the first to the second. Files of the same size,\n\
     mode, owner and modification time are taken for equal; --content compares their bytes,\n\
     and does not look at times. Directories are shown where they themselves differ.",
);

pub(super) const CAT: Command = command(
    "cat",
    "[OPTIONS] IMAGE PATH",
    "Write a file of an image to STDOUT",
    Count::Exactly(2),
    &[CatArgs::FLAGS],
    |m| Action::Look(Look::Cat(Options::from_matches(m))),
)
.names(Names::Images, 1);

pub(super) const EXPLORE: Command = command(
    "explore",
    "IMAGE",
    "Explore the layers and files of an image on the terminal",
    Count::Exactly(1),
    &[ExploreArgs::FLAGS],
    |m| Action::Look(Look::Explore(Options::from_matches(m))),
)
.names(Names::Images, 1)
.long(
    "Explore the layers and files of an image on the terminal\n\n\
     Layers on the left, the tree of the selected layer on the right. ? shows the keys.",
);
