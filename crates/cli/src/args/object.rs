//! Options of the commands about volumes, networks, the system, and objects of any kind.

use super::kinds::{BYTES, FORMAT, LABEL, OBJECT_FORMAT, SWARM};
use crate::flags::{BOOL, FILTER, Flag, LIST, MAP, STRING, flag, options};

options! {
    /// `container prune`.
    ContainerPruneArgs {
        filter: Vec<String> = flag("filter", FILTER, "Provide filter values (e.g. \"until=<timestamp>\")"),
        force: bool = flag("force", BOOL, "Do not prompt for confirmation").short('f'),
        ;
    }
}

options! {
    /// `container inspect`.
    ContainerInspectArgs {
        format: Option<String> = flag("format", STRING, OBJECT_FORMAT).short('f'),
        size: bool = flag("size", BOOL, "Display total file sizes").short('s'),
        ; names: Vec<String>
    }
}

options! {
    /// `inspect`.
    InspectArgs {
        format: Option<String> = flag("format", STRING, OBJECT_FORMAT).short('f'),
        size: bool = flag("size", BOOL, "Display total file sizes if the type is container").short('s'),
        kind: String = flag("type", STRING, "Only inspect objects of the given type"),
        ; names: Vec<String>
    }
}

options! {
    /// `events`.
    EventsArgs {
        filter: Vec<String> = flag("filter", FILTER, "Filter output based on conditions provided").short('f'),
        format: Option<String> = flag("format", STRING, OBJECT_FORMAT),
        since: String = flag("since", STRING, "Show all events created since timestamp"),
        until: String = flag("until", STRING, "Stream events until this timestamp"),
        ;
    }
}

options! {
    /// `version` and `info`.
    FormatArgs {
        format: Option<String> = flag("format", STRING, OBJECT_FORMAT).short('f'),
        ;
    }
}

options! {
    /// `volume create`.
    VolumeCreateArgs {
        driver: String = flag("driver", STRING, "Specify volume driver name").short('d').default("local"),
        label: Vec<String> = flag("label", LABEL, "Set metadata for a volume"),
        opt: Vec<String> = flag("opt", MAP, "Set driver specific options").short('o').shows("map[]"),
        ; name: Option<String>
    }
}

options! {
    /// `volume ls`.
    VolumeLsArgs {
        filter: Vec<String> =
            flag("filter", FILTER, "Provide filter values (e.g. \"dangling=true\")").short('f'),
        format: Option<String> = flag("format", STRING, FORMAT),
        quiet: bool = flag("quiet", BOOL, "Only display volume names").short('q'),
        ;
    }
}

options! {
    /// `volume inspect`.
    VolumeInspectArgs {
        format: Option<String> = flag("format", STRING, OBJECT_FORMAT).short('f'),
        ; names: Vec<String>
    }
}

options! {
    /// `volume rm`.
    VolumeRmArgs {
        force: bool = flag("force", BOOL, "Force the removal of one or more volumes").short('f'),
        ; volumes: Vec<String>
    }
}

options! {
    /// `volume prune`.
    VolumePruneArgs {
        all: bool = flag("all", BOOL, "Remove all unused volumes, not just anonymous ones").short('a'),
        filter: Vec<String> = flag("filter", FILTER, "Provide filter values (e.g. \"label=<label>\")"),
        force: bool = flag("force", BOOL, "Do not prompt for confirmation").short('f'),
        ;
    }
}

options! {
    /// `network ls`.
    NetworkLsArgs {
        filter: Vec<String> =
            flag("filter", FILTER, "Provide filter values (e.g. \"driver=bridge\")").short('f'),
        format: Option<String> = flag("format", STRING, FORMAT),
        no_trunc: bool = flag("no-trunc", BOOL, "Do not truncate the output"),
        quiet: bool = flag("quiet", BOOL, "Only display network IDs").short('q'),
        ;
    }
}

options! {
    /// `network inspect`.
    NetworkInspectArgs {
        format: Option<String> = flag("format", STRING, OBJECT_FORMAT).short('f'),
        verbose: bool = flag("verbose", BOOL, "Verbose output for diagnostics").short('v'),
        ; names: Vec<String>
    }
}

/// Options of `volume create` for cluster volumes.
pub(crate) const VOLUME_CLUSTER: &[Flag] = &[
    flag("availability", STRING, "Cluster Volume availability").refused(SWARM),
    flag("group", STRING, "Cluster Volume group").refused(SWARM),
    flag("limit-bytes", BYTES, "Minimum size of the Cluster Volume in bytes").refused(SWARM),
    flag("required-bytes", BYTES, "Maximum size of the Cluster Volume in bytes").refused(SWARM),
    flag("scope", STRING, "Cluster Volume access scope").refused(SWARM),
    flag("secret", MAP, "Cluster Volume secrets").refused(SWARM),
    flag("sharing", STRING, "Cluster Volume access sharing").refused(SWARM),
    flag("topology-preferred", LIST, "A topology that the Cluster Volume would be preferred in")
        .refused(SWARM),
    flag("topology-required", LIST, "A topology that the Cluster Volume must be accessible from")
        .refused(SWARM),
    flag("type", STRING, "Cluster Volume access type").refused(SWARM),
];

/// An option of `volume ls` for cluster volumes.
pub(crate) const VOLUME_LS_CLUSTER: &[Flag] =
    &[flag("cluster", BOOL, "Display only cluster volumes").refused(SWARM)];
