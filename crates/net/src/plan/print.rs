//! A ruleset in `nft`'s notation.

use std::fmt;

use super::Ruleset;
use super::rules::{
    Action, ChainKind, Data, Element, Field, Hook, Load, Match, Part, Rule, Set, Table, Target,
};

impl Hook {
    fn name(self) -> &'static str {
        match self {
            Hook::Prerouting => "prerouting",
            Hook::Forward => "forward",
            Hook::Output => "output",
            Hook::Postrouting => "postrouting",
        }
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Field::Ipv4 => "ipv4_addr",
            Field::Ipv6 => "ipv6_addr",
            Field::Protocol => "inet_proto",
            Field::Service => "inet_service",
            Field::Interface => "ifname",
            Field::Ether => "ether_addr",
        })
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Part::Address(ip) => write!(f, "{ip}"),
            Part::Net(net) => write!(f, "{net}"),
            Part::Protocol(transport) => write!(f, "{transport}"),
            Part::Ports(first, last) if first == last => write!(f, "{first}"),
            Part::Ports(first, last) => write!(f, "{first}-{last}"),
            Part::Interface(name) => write!(f, "\"{name}\""),
            Part::Ether(mac) => f.write_str(&crate::format_mac(*mac)),
        }
    }
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&joined(&self.key))?;
        match &self.target {
            Target::Nothing => Ok(()),
            Target::Jump(chain) => write!(f, " : jump {chain}"),
            Target::Address(ip) => write!(f, " : {ip}"),
            Target::Port(ip, port) => write!(f, " : {ip} . {port}"),
        }
    }
}

impl fmt::Display for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&joined(self.key))?;
        match self.data {
            Data::Nothing => Ok(()),
            Data::Verdict => write!(f, " : verdict"),
            Data::Fields(fields) => write!(f, " : {}", joined(fields)),
        }
    }
}

fn joined<T: fmt::Display>(parts: &[T]) -> String {
    parts.iter().map(T::to_string).collect::<Vec<_>>().join(" . ")
}

impl fmt::Display for Ruleset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = match self.chains.first().map(|chain| chain.table) {
            Some(Table::Bridge) => "bridge",
            _ => "inet",
        };
        writeln!(f, "table {family} {} {{", self.table)?;
        for set in &self.sets {
            let kind = if set.data == Data::Nothing { "set" } else { "map" };
            writeln!(f, "\t{kind} {} {{\n\t\ttype {set}", set.name)?;
            if set.interval {
                writeln!(f, "\t\tflags interval")?;
            }
            let own: Vec<String> =
                self.elements.iter().filter(|e| e.set == *set).map(Element::to_string).collect();
            if !own.is_empty() {
                writeln!(f, "\t\telements = {{ {} }}", own.join(",\n\t\t\t     "))?;
            }
            writeln!(f, "\t}}\n")?;
        }
        for (i, chain) in self.chains.iter().enumerate() {
            let blank = if i == 0 { "" } else { "\n" };
            writeln!(f, "{blank}\tchain {} {{", chain.name)?;
            if let Some(base) = chain.hook {
                let kind = match base.kind {
                    ChainKind::Filter => "filter",
                    ChainKind::Nat => "nat",
                };
                let priority = match (base.priority, base.hook, chain.table) {
                    (-300, _, Table::Bridge) => "dstnat",
                    (-300, ..) => "raw",
                    // At output nft has no name for this one.
                    (-100, Hook::Output, _) => "-100",
                    (-100, ..) => "dstnat",
                    (100, ..) => "srcnat",
                    _ => "filter",
                };
                let hook = base.hook.name();
                writeln!(f, "\t\ttype {kind} hook {hook} priority {priority}; policy accept;")?;
            }
            for rule in &chain.rules {
                writeln!(f, "\t\t{rule}")?;
            }
            writeln!(f, "\t}}")?;
        }
        writeln!(f, "}}")
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, m) in self.matches.iter().enumerate() {
            // `nft` leaves it out where what follows says it as well.
            if matches!(m, Match::Family { .. } | Match::EtherType(_)) && self.is_said_again(n) {
                continue;
            }
            write!(f, "{m} ")?;
        }
        match self.action {
            Action::Accept => write!(f, "accept"),
            Action::Drop => write!(f, "drop"),
            Action::Masquerade => write!(f, "masquerade"),
            Action::Jump(load, set) => write!(f, "{load} vmap @{}", set.name),
            Action::Dnat(ip, port) => write!(f, "dnat ip to {ip}:{port}"),
            Action::DnatMap(map) => {
                let family = family(map.is_ipv6());
                let address = if map.by_address() { format!("{family} daddr . ") } else { String::new() };
                write!(f, "dnat {family} to {address}meta l4proto . th dport map @{}", map.name)
            }
        }
    }
}

impl Rule {
    /// Whether an address of the same family is looked at behind the `n`th match.
    fn is_said_again(&self, n: usize) -> bool {
        let of_address = |load: &Load| matches!(load, Load::Source { .. } | Load::Destination { .. });
        let in_matches = self.matches.iter().skip(n + 1).any(|m| match m {
            Match::In(loads, _) | Match::NotIn(loads, _) => {
                loads.iter().any(|load| of_address(load) || matches!(load, Load::ArpAddress))
            }
            Match::FrameSource(_) | Match::ArpProbe | Match::Icmpv6(_) | Match::Transport(_) => true,
            _ => false,
        });
        in_matches
            || match &self.action {
                Action::DnatMap(map) => map.by_address(),
                Action::Jump(load, _) => of_address(load),
                _ => false,
            }
    }
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Load::Input => f.write_str("iifname"),
            Load::Output => f.write_str("oifname"),
            Load::EtherSource => f.write_str("ether saddr"),
            Load::Source { ipv6 } => write!(f, "{} saddr", family(*ipv6)),
            Load::Destination { ipv6 } => write!(f, "{} daddr", family(*ipv6)),
            Load::Protocol => f.write_str("meta l4proto"),
            Load::DestinationPort => f.write_str("th dport"),
            Load::ArpEther => f.write_str("arp saddr ether"),
            Load::ArpAddress => f.write_str("arp saddr ip"),
            Load::NeighbourTarget => f.write_str("icmpv6 taddr"),
        }
    }
}

impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Match::Input(name) => write!(f, "iifname \"{name}\""),
            Match::InputNot(name) => write!(f, "iifname != \"{name}\""),
            Match::Output(name) => write!(f, "oifname \"{name}\""),
            Match::OutputNot(name) => write!(f, "oifname != \"{name}\""),
            Match::Source(net) | Match::FrameSource(net) => {
                write!(f, "{} saddr {}", family(net.addr().is_ipv6()), plain(net))
            }
            Match::Destination(net) => write!(f, "{} daddr {net}", family(net.addr().is_ipv6())),
            Match::Family { ipv6: false } => write!(f, "meta nfproto ipv4"),
            Match::Family { ipv6: true } => write!(f, "meta nfproto ipv6"),
            Match::Transport(1) => write!(f, "meta l4proto icmp"),
            Match::Transport(58) => write!(f, "meta l4proto ipv6-icmp"),
            Match::Transport(number) => write!(f, "meta l4proto {number}"),
            Match::DestinationPort(transport, port) => write!(f, "{transport} dport {port}"),
            Match::DestinationLocal => write!(f, "fib daddr type local"),
            Match::NotLoopback6 => write!(f, "ip6 daddr != ::1"),
            Match::Established => write!(f, "ct state established,related"),
            Match::Dnat => write!(f, "ct status dnat"),
            Match::In(loads, set) => write!(f, "{} @{}", joined(loads), set.name),
            Match::NotIn(loads, set) => write!(f, "{} != @{}", joined(loads), set.name),
            Match::EtherType(0x0800) => write!(f, "meta protocol ip"),
            Match::EtherType(0x0806) => write!(f, "meta protocol arp"),
            Match::EtherType(0x86dd) => write!(f, "meta protocol ip6"),
            Match::EtherType(number) => write!(f, "meta protocol {number:#06x}"),
            Match::Icmpv6(134) => write!(f, "icmpv6 type nd-router-advert"),
            Match::Icmpv6(136) => write!(f, "icmpv6 type nd-neighbor-advert"),
            Match::Icmpv6(137) => write!(f, "icmpv6 type nd-redirect"),
            Match::Icmpv6(number) => write!(f, "icmpv6 type {number}"),
            Match::ArpProbe => write!(f, "arp saddr ip 0.0.0.0"),
            Match::NeighbourTarget(net) => write!(f, "icmpv6 taddr {}", plain(net)),
        }
    }
}

/// A net, or an address where that is all of it.
fn plain(net: &ipnet::IpNet) -> String {
    match net.prefix_len() == net.max_prefix_len() {
        true => net.addr().to_string(),
        false => net.to_string(),
    }
}

/// A family in `nft`'s notation.
fn family(ipv6: bool) -> &'static str {
    if ipv6 { "ip6" } else { "ip" }
}
