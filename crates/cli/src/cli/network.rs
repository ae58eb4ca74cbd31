//! `network`: networks, and containers on them.

use super::Action;
use super::tree::{Command, Group, MANY, Names, command};
use crate::args::networks as n;
use crate::args::{object as o, system as s};
use crate::flags::Count::{AtLeast, Exactly};
use crate::flags::Options;

const CREATE: Command = command(
    "create",
    "[OPTIONS] NETWORK",
    "Create a network",
    Exactly(1),
    &[n::NetworkCreateArgs::FLAGS, n::NETWORK_CREATE_OTHERS],
    |m| Action::NetworkCreate(Box::new(Options::from_matches(m))),
);

const CONNECT: Command = command(
    "connect",
    "[OPTIONS] NETWORK CONTAINER",
    "Connect a container to a network",
    Exactly(2),
    &[n::NetworkConnectArgs::FLAGS],
    |m| Action::NetworkConnect(Options::from_matches(m)),
)
.names(Names::Networks, 1);

const DISCONNECT: Command = command(
    "disconnect",
    "[OPTIONS] NETWORK CONTAINER",
    "Disconnect a container from a network",
    Exactly(2),
    &[n::NetworkDisconnectArgs::FLAGS],
    |m| Action::NetworkDisconnect(Options::from_matches(m)),
)
.names(Names::Networks, 1);

const RM: Command = command(
    "rm",
    "NETWORK [NETWORK...]",
    "Remove one or more networks",
    AtLeast(1),
    &[n::NetworkRmArgs::FLAGS],
    |m| Action::NetworkRm(Options::from_matches(m)),
)
.called("rm", &["remove"])
.also(&["network rm", "network remove"])
.names(Names::Networks, MANY);

const LS: Command =
    command("ls", "[OPTIONS]", "List networks", Exactly(0), &[o::NetworkLsArgs::FLAGS], |m| {
        Action::NetworkLs(Options::from_matches(m))
    })
    .called("ls", &["list"])
    .also(&["network ls", "network list"]);

const INSPECT: Command = command(
    "inspect",
    "[OPTIONS] NETWORK [NETWORK...]",
    "Display detailed information on one or more networks",
    AtLeast(1),
    &[o::NetworkInspectArgs::FLAGS],
    |m| Action::NetworkInspect(Options::from_matches(m)),
)
.names(Names::Networks, MANY);

const PRUNE: Command = command(
    "prune",
    "[OPTIONS]",
    "Remove all unused networks",
    Exactly(0),
    &[s::NetworkPruneArgs::FLAGS],
    |m| Action::NetworkPrune(Options::from_matches(m)),
);

/// `ports`, which is ours alone.
pub(super) const PORTS: Command = command(
    "ports",
    "[OPTIONS] [CONTAINER...]",
    "Show who can reach what of running containers, and what lets them in",
    AtLeast(0),
    &[n::PortsArgs::FLAGS],
    |m| Action::Ports(Options::from_matches(m)),
)
.names(Names::Running, MANY)
.long(
    "Show who can reach what of running containers, and what lets them in\n\n\
     A line for each way in: the container's port, where it is reached, by whom, and through what: a\n\
     rule of nftables (\"nft list table inet ...\" shows it), a listener of the daemon, or the bridge\n\
     that the container is connected to. Where another program's firewall forwards nothing by\n\
     default, the chain with our exception is named. Longshore's daemon only.",
);

/// `network`.
pub(super) const NETWORK: Group = Group {
    name: "network",
    about: "Manage networks",
    usage: "",
    commands: &[&CONNECT, &CREATE, &DISCONNECT, &INSPECT, &LS, &PRUNE, &RM],
    later: &[],
};
