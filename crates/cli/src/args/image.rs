//! Options of the commands about images.

use super::kinds::{FORMAT, OBJECT_FORMAT};
use crate::flags::{BOOL, FILTER, LIST, STRING, STRINGS, flag, options};

options! {
    /// `images`.
    ImagesArgs {
        all: bool = flag("all", BOOL, "Show all images (default hides intermediate images)").short('a'),
        digests: bool = flag("digests", BOOL, "Show digests"),
        filter: Vec<String> = flag("filter", FILTER, "Filter output based on conditions provided").short('f'),
        format: Option<String> = flag("format", STRING, FORMAT),
        no_trunc: bool = flag("no-trunc", BOOL, "Don't truncate output"),
        quiet: bool = flag("quiet", BOOL, "Only show image IDs").short('q'),
        tree: bool = flag("tree", BOOL, "List multi-platform images as a tree (EXPERIMENTAL)"),
        ; repository: Option<String>
    }
}

options! {
    /// `load`.
    LoadArgs {
        input: Option<String> =
            flag("input", STRING, "Read from tar archive file, instead of STDIN").short('i'),
        platform: String =
            flag("platform", STRING, "Load only the given platform variant. Formatted as \"os[/arch[/variant]]\" (e.g., \"linux/amd64\")"),
        quiet: bool = flag("quiet", BOOL, "Suppress the load output").short('q'),
        ;
    }
}

options! {
    /// `save`.
    SaveArgs {
        output: Option<String> = flag("output", STRING, "Write to a file, instead of STDOUT").short('o'),
        platform: String =
            flag("platform", STRING, "Save only the given platform variant. Formatted as \"os[/arch[/variant]]\" (e.g., \"linux/amd64\")"),
        ; images: Vec<String>
    }
}

options! {
    /// `import`.
    ImportArgs {
        change: Vec<String> =
            flag("change", LIST, "Apply Dockerfile instruction to the created image").short('c'),
        message: String = flag("message", STRING, "Set commit message for imported image").short('m'),
        platform: Option<String> =
            flag("platform", STRING, "Set platform if server is multi-platform capable"),
        ; file: String, reference: Option<String>
    }
}

options! {
    /// `tag`.
    TagArgs {
        ; source: String, target: String
    }
}

options! {
    /// `rmi`.
    RmiArgs {
        force: bool = flag("force", BOOL, "Force removal of the image").short('f'),
        no_prune: bool = flag("no-prune", BOOL, "Do not delete untagged parents"),
        platform: Vec<String> =
            flag("platform", STRINGS, "Remove only the given platform variant. Formatted as \"os[/arch[/variant]]\" (e.g., \"linux/amd64\")"),
        ; images: Vec<String>
    }
}

options! {
    /// `history`.
    HistoryArgs {
        format: Option<String> = flag("format", STRING, FORMAT),
        human: bool =
            flag("human", BOOL, "Print sizes and dates in human readable format").short('H').default("true"),
        no_trunc: bool = flag("no-trunc", BOOL, "Don't truncate output"),
        platform: String =
            flag("platform", STRING, "Show history for the given platform. Formatted as \"os[/arch[/variant]]\" (e.g., \"linux/amd64\")"),
        quiet: bool = flag("quiet", BOOL, "Only show image IDs").short('q'),
        ; image: String
    }
}

options! {
    /// `image prune`.
    ImagePruneArgs {
        all: bool = flag("all", BOOL, "Remove all unused images, not just dangling ones").short('a'),
        filter: Vec<String> = flag("filter", FILTER, "Provide filter values (e.g. \"until=<timestamp>\")"),
        force: bool = flag("force", BOOL, "Do not prompt for confirmation").short('f'),
        ;
    }
}

options! {
    /// `image inspect`.
    ImageInspectArgs {
        format: Option<String> = flag("format", STRING, OBJECT_FORMAT).short('f'),
        platform: String = flag("platform", STRING, concat!(
            "Inspect a specific platform of the multi-platform image.\n",
            "If the image or the server is not multi-platform capable, the command will error out if the platform does not match.\n",
            "'os[/arch[/variant]]': Explicit platform (eg. linux/amd64)",
        )),
        ; names: Vec<String>
    }
}
