//! Links, addresses and routes: the bridge, veth pairs, and a container's side of one.

use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use ipnet::IpNet;
use netlink_packet_core::{DefaultNla, Emitable as _, NLA_F_NESTED, NetlinkHeader, NetlinkMessage};
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::link::{
    AfSpecInet, AfSpecInet6, AfSpecUnspec, BridgePortState, In6AddrGenMode, InfoBridgePort, InfoData,
    InfoIpVlan, InfoKind, InfoMacVlan, InfoPortData, InfoPortKind, InfoVeth, InfoVlan, IpVlanFlags,
    IpVlanMode, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, MacVlanMode,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rustix::io::Errno;

use super::socket::{Dumped, Protocol, Request, Socket};
use crate::error::{Error, Result};
use crate::plan::{BridgePlan, EndpointPlan, Route, Side};
use crate::{IpvlanFlag, IpvlanMode, MacvlanMode, ParentConfig, ParentKind};

const NLM_F_REPLACE: u16 = 0x100;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_CREATE: u16 = 0x400;
const IFLA_PROTINFO: u16 = 12;
const IFLA_INET_CONF: u16 = 1;
const IPV4_DEVCONF_ROUTE_LOCALNET: u16 = 26;
const HEADER: usize = 16;
/// The alias of interfaces that are ours to delete again.
const OURS: &str = "longshore";

/// A link as far as this crate looks at it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) master: Option<u32>,
    pub(crate) is_bridge: bool,
    pub(crate) is_veth: bool,
    /// What somebody wrote to it.
    pub(crate) alias: String,
}

/// The host's links, through one socket.
#[derive(Debug)]
pub(crate) struct HostLinks {
    socket: Socket,
}

impl HostLinks {
    pub(crate) fn open() -> Result<Self> {
        Ok(HostLinks { socket: Socket::open(Protocol::Route)? })
    }

    /// Makes the bridge, or brings the one that exists to the plan; returns its index.
    pub(crate) fn ensure_bridge(&mut self, plan: &BridgePlan) -> Result<u32> {
        let found = self.existing_bridge(&plan.name)?;
        if found.is_none() {
            let mut message = named(&plan.name);
            // With an address of its own the bridge keeps it while ports come and go.
            message.attributes.push(LinkAttribute::Address(plan.mac.to_vec()));
            message.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge)]));
            let request = request(
                RouteNetlinkMessage::NewLink(message),
                NLM_F_CREATE | NLM_F_EXCL,
                format!("create bridge {}", plan.name),
            );
            self.socket.run(&[request.tolerating(Errno::EXIST)])?;
        }
        let index = self.index(&plan.name)?;
        let configured = self.configure_bridge(plan, index);
        if configured.is_err() && found.is_none() {
            // Only what this call made is taken back.
            let _ = self.delete(&plan.name);
        }
        configured.map(|()| index)
    }

    /// The bridge of that name, if there is one; an interface that is something else is in the way.
    pub(crate) fn existing_bridge(&mut self, name: &str) -> Result<Option<Link>> {
        match self.link(name)? {
            Some(link) if !link.is_bridge => Err(Error::Conflict(format!(
                "interface {name} exists and is not a bridge: choose another bridge name"
            ))),
            found => Ok(found),
        }
    }

    fn configure_bridge(&mut self, plan: &BridgePlan, index: u32) -> Result<()> {
        let mut up = LinkMessage::default();
        up.header.index = index;
        up.header.flags = LinkFlags::Up;
        up.header.change_mask = LinkFlags::Up;
        up.attributes.push(LinkAttribute::Mtu(plan.mtu));
        // Published ports answer on the host's loopback: its packets may leave by the bridge.
        let conf = nested_u32(IPV4_DEVCONF_ROUTE_LOCALNET, 1);
        up.attributes.push(LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet(vec![AfSpecInet::Other(
            DefaultNla::new(IFLA_INET_CONF, conf),
        )])]));
        if plan.addresses.iter().any(|address| address.addr().is_ipv6()) {
            // Some hosts give new interfaces none.
            crate::procfs::set_lenient(&format!("ipv6/conf/{}/disable_ipv6", plan.name), "0");
        }
        let addresses = plan.addresses.iter();
        let mut requests: Vec<Request> = addresses
            .map(|address| new_address(index, *address, &plan.name).tolerating(Errno::EXIST))
            .collect();
        requests.push(request(RouteNetlinkMessage::SetLink(up), 0, format!("set bridge {} up", plan.name)));
        self.socket.run(&requests)
    }

    /// Makes a veth pair: one end a port of the bridge, the other already in `netns` with its final name.
    pub(crate) fn create_veth(
        &mut self,
        plan: &EndpointPlan,
        bridge: u32,
        netns: BorrowedFd<'_>,
    ) -> Result<()> {
        let peer = inside(&plan.side.ifname, &plan.side, netns);
        let mut host = named(&plan.host_if);
        host.attributes.extend(plan.side.mtu.map(LinkAttribute::Mtu));
        host.attributes.push(LinkAttribute::Controller(bridge));
        host.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]));
        let create = request(
            RouteNetlinkMessage::NewLink(host),
            NLM_F_CREATE | NLM_F_EXCL,
            format!("create veth {}", plan.host_if),
        );
        // Alone: were the name taken, what follows would change somebody else's link.
        self.socket.run(&[create])?;

        // A port needs no IPv6 address of its own. A kernel without IPv6 has nothing to be told.
        let mut quiet = named(&plan.host_if);
        quiet.attributes.push(LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![
            AfSpecInet6::AddrGenMode(In6AddrGenMode::None),
        ])]));
        let action = format!("set IPv6 address generation of {}", plan.host_if);
        let quiet = request(RouteNetlinkMessage::SetLink(quiet), 0, action).tolerating(Errno::AFNOSUPPORT);
        let mut up = named(&plan.host_if);
        up.header.flags = LinkFlags::Up;
        up.header.change_mask = LinkFlags::Up;
        let mut requests = vec![quiet];
        let mut settings = Vec::new();
        if plan.hairpin {
            settings.push(InfoBridgePort::HairpinMode(true));
        }
        if plan.isolated {
            settings.push(InfoBridgePort::Isolated(true));
        }
        if !settings.is_empty() {
            let mut port = named(&plan.host_if);
            port.attributes.push(LinkAttribute::LinkInfo(vec![
                LinkInfo::PortKind(InfoPortKind::Bridge),
                LinkInfo::PortData(InfoPortData::BridgePort(settings)),
            ]));
            let action = format!("set up bridge port {}", plan.host_if);
            requests.push(request(RouteNetlinkMessage::NewLink(port), 0, action));
        }
        requests.push(request(RouteNetlinkMessage::SetLink(up), 0, format!("set {} up", plan.host_if)));
        self.socket.run(&requests).inspect_err(|_| {
            let _ = self.delete(&plan.host_if);
        })
    }

    /// Makes an interface below one of the host's, in `netns`. `name` must be free here, too: the kernel looks for it on
    /// this side.
    pub(crate) fn create_child(
        &mut self,
        name: &str,
        side: &Side,
        config: &ParentConfig,
        netns: BorrowedFd<'_>,
    ) -> Result<()> {
        let mut child = inside(name, side, netns);
        child.attributes.push(LinkAttribute::Link(self.index(&config.parent)?));
        let (kind, data) = match config.kind {
            ParentKind::Macvlan(mode) => {
                let mode = match mode {
                    MacvlanMode::Bridge => MacVlanMode::Bridge,
                    MacvlanMode::Private => MacVlanMode::Private,
                    MacvlanMode::Vepa => MacVlanMode::Vepa,
                    MacvlanMode::Passthru => MacVlanMode::Passthrough,
                };
                (InfoKind::MacVlan, InfoData::MacVlan(vec![InfoMacVlan::Mode(mode)]))
            }
            ParentKind::Ipvlan(mode, flag) => {
                let mode = match mode {
                    IpvlanMode::L2 => IpVlanMode::L2,
                    IpvlanMode::L3 => IpVlanMode::L3,
                    IpvlanMode::L3s => IpVlanMode::L3S,
                };
                let flag = match flag {
                    IpvlanFlag::Bridge => IpVlanFlags::empty(),
                    IpvlanFlag::Private => IpVlanFlags::Private,
                    IpvlanFlag::Vepa => IpVlanFlags::Vepa,
                };
                let data = vec![InfoIpVlan::Mode(mode), InfoIpVlan::Flags(flag)];
                (InfoKind::IpVlan, InfoData::IpVlan(data))
            }
        };
        child.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind), LinkInfo::Data(data)]));
        let action = format!("create {} {} of {}", config.kind.driver(), side.ifname, config.parent);
        self.socket.run(&[request(RouteNetlinkMessage::NewLink(child), NLM_F_CREATE | NLM_F_EXCL, action)])
    }

    /// Gives an interface that is down another name.
    pub(crate) fn rename(&mut self, name: &str, to: &str) -> Result<()> {
        let mut link = named(to);
        link.header.index = self.index(name)?;
        let action = format!("rename {name} to {to}");
        self.socket.run(&[request(RouteNetlinkMessage::SetLink(link), 0, action)])
    }

    /// Makes a VLAN of an interface, marked as ours, and sets it up; `false`: there is an interface of that name.
    pub(crate) fn ensure_vlan(&mut self, name: &str, of: &str, id: u16) -> Result<bool> {
        if self.link(name)?.is_some() {
            return Ok(false);
        }
        let mut vlan = named(name);
        vlan.attributes.push(LinkAttribute::Link(self.index(of)?));
        vlan.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Vlan),
            LinkInfo::Data(InfoData::Vlan(vec![InfoVlan::Id(id)])),
        ]));
        let mut up = named(name);
        up.header.flags = LinkFlags::Up;
        up.header.change_mask = LinkFlags::Up;
        up.attributes.push(LinkAttribute::IfAlias(OURS.to_owned()));
        let action = format!("create VLAN {name}");
        let create = request(RouteNetlinkMessage::NewLink(vlan), NLM_F_CREATE | NLM_F_EXCL, action);
        self.socket.run(&[create])?;
        let up = request(RouteNetlinkMessage::SetLink(up), 0, format!("set {name} up"));
        self.socket.run(&[up]).inspect_err(|_| {
            let _ = self.delete(name);
        })?;
        Ok(true)
    }

    /// Deletes an interface that was marked as ours; another one is left alone.
    pub(crate) fn delete_ours(&mut self, name: &str) -> Result<()> {
        match self.link(name)? {
            Some(link) if link.alias == OURS => self.delete(name),
            _ => Ok(()),
        }
    }

    /// Waits until a new port and its bridge really pass packets. The kernel notices a link that came up in a work queue
    /// of its own, and takes up to a second over a bridge that just was without ports; whoever asks for a link's state
    /// (from Linux 6.8 on) has that done at once.
    pub(crate) fn settle(&mut self, port: &str, bridge: &str) -> Result<()> {
        self.link(port)?;
        self.link(bridge)?;
        Ok(())
    }

    /// Takes a bridge port out of service and forgets the addresses learned on it. This costs next to nothing, where a
    /// deletion waits for the kernel's grace periods.
    pub(crate) fn silence(&mut self, name: &str) -> Result<()> {
        let Some(link) = self.link(name)? else { return Ok(()) };
        let settings = [InfoBridgePort::State(BridgePortState::Disabled), InfoBridgePort::Flush];
        let mut bytes = vec![0; settings.as_slice().buffer_len()];
        settings.as_slice().emit(&mut bytes);
        // In the bridge's own family: a change through the generic one counts as news of the link, upon which the
        // bridge would enable its port again.
        let mut port = LinkMessage::default();
        port.header.interface_family = AddressFamily::Bridge;
        port.header.index = link.index;
        let settings = DefaultNla::new(IFLA_PROTINFO | NLA_F_NESTED, bytes);
        port.attributes.push(LinkAttribute::ProtoInfoUnknown(settings));
        let silence = request(RouteNetlinkMessage::SetLink(port), 0, format!("disable bridge port {name}"));
        self.socket.run(&[silence.tolerating(Errno::NODEV)])
    }

    /// Deletes a link; one that is gone already is fine.
    pub(crate) fn delete(&mut self, name: &str) -> Result<()> {
        let delete =
            request(RouteNetlinkMessage::DelLink(named(name)), 0, format!("delete interface {name}"));
        self.socket.run(&[delete.tolerating(Errno::NODEV)])
    }

    /// Deletes the link that has an address, if there is one.
    pub(crate) fn delete_with(&mut self, ip: IpAddr) -> Result<()> {
        let list = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        for answer in self.socket.dump(&request(list, 0, "list addresses".to_owned()))? {
            let RouteNetlinkMessage::NewAddress(found) = parse(&answer, "list addresses")? else { continue };
            let has = |a: &AddressAttribute| matches!(a, AddressAttribute::Address(own) if *own == ip);
            if found.attributes.iter().any(has) {
                let mut link = LinkMessage::default();
                link.header.index = found.header.index;
                let action = format!("delete the interface with address {ip}");
                let delete = request(RouteNetlinkMessage::DelLink(link), 0, action);
                return self.socket.run(&[delete.tolerating(Errno::NODEV)]);
            }
        }
        Ok(())
    }

    /// Deletes a bridge; an interface of that name that is none is left alone.
    pub(crate) fn delete_bridge(&mut self, name: &str) -> Result<()> {
        match self.link(name)? {
            Some(link) if link.is_bridge => self.delete(name),
            _ => Ok(()),
        }
    }

    pub(crate) fn link(&mut self, name: &str) -> Result<Option<Link>> {
        let get = request(RouteNetlinkMessage::GetLink(named(name)), 0, format!("look up interface {name}"));
        match self.socket.get(&get) {
            Ok(Some(answer)) => parse_link(&answer).map(Some),
            Ok(None) => Ok(None),
            Err(error) if error.is_errno(Errno::NODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn index(&mut self, name: &str) -> Result<u32> {
        let link = self.link(name)?;
        link.map(|l| l.index).ok_or_else(|| Error::system(format!("look up interface {name}"), Errno::NODEV))
    }

    /// The veth ports of a bridge.
    pub(crate) fn ports_of(&mut self, bridge: u32) -> Result<Vec<Link>> {
        let list =
            request(RouteNetlinkMessage::GetLink(LinkMessage::default()), 0, "list interfaces".to_owned());
        let mut found = Vec::new();
        for answer in self.socket.dump(&list)? {
            let link = parse_link(&answer)?;
            if link.is_veth && link.master == Some(bridge) {
                found.push(link);
            }
        }
        Ok(found)
    }
}

/// A container's side, changed by a thread inside its network namespace.
pub(crate) struct ContainerLinks {
    links: HostLinks,
    index: u32,
}

impl ContainerLinks {
    /// Sets loopback and interface up, with address and route.
    pub(crate) fn set_up(side: &Side) -> Result<Self> {
        let mut links = HostLinks::open()?;
        let index = links.index(&side.ifname)?;
        let mut up = LinkMessage::default();
        up.header.index = index;
        up.header.flags = LinkFlags::Up;
        up.header.change_mask = LinkFlags::Up;
        let mut requests = vec![loopback_up()];
        requests.extend(side.addresses.iter().map(|address| new_address(index, *address, &side.ifname)));
        requests.push(request(RouteNetlinkMessage::SetLink(up), 0, format!("set {} up", side.ifname)));
        requests.extend(side.routes.iter().map(|route| default_route(Some(index), *route, NLM_F_EXCL)));
        links.socket.run(&requests)?;
        Ok(Self { links, index })
    }

    /// Tells the neighbours the hardware address, for those who knew another container under the same address: with
    /// the interface's `arp_notify` set, the kernel does so when the address is set, even to what it was.
    pub(crate) fn announce(&mut self, side: &Side) -> Result<()> {
        let Some(mac) = side.mac else { return Ok(()) };
        let mut same = LinkMessage::default();
        same.header.index = self.index;
        same.attributes.push(LinkAttribute::Address(mac.to_vec()));
        let announce = request(RouteNetlinkMessage::SetLink(same), 0, format!("announce {}", side.ifname));
        self.links.socket.run(&[announce])
    }
}

/// Sets the loopback interface of this thread's network namespace up.
pub(crate) fn set_loopback_up() -> Result<()> {
    Socket::open(Protocol::Route)?.run(&[loopback_up()])
}

/// The names of all interfaces of this thread's network namespace.
pub(crate) fn interfaces() -> Result<Vec<String>> {
    let mut socket = Socket::open(Protocol::Route)?;
    let list = request(RouteNetlinkMessage::GetLink(LinkMessage::default()), 0, "list interfaces".to_owned());
    socket.dump(&list)?.iter().map(|answer| Ok(parse_link(answer)?.name)).collect()
}

/// Sets default routes over gateways that are on the interfaces' networks, in place of those of their families.
pub(crate) fn set_default_routes(gateways: &[IpAddr]) -> Result<()> {
    let routes = gateways.iter().map(|ip| default_route(None, Route::Via(*ip), NLM_F_REPLACE));
    Socket::open(Protocol::Route)?.run(&routes.collect::<Vec<_>>())
}

/// Every network that this host has an address in or a route to; default routes do not count.
pub(crate) fn host_networks() -> Result<Vec<IpNet>> {
    let mut socket = Socket::open(Protocol::Route)?;
    let mut networks = Vec::new();
    let list =
        request(RouteNetlinkMessage::GetAddress(AddressMessage::default()), 0, "list addresses".to_owned());
    for answer in socket.dump(&list)? {
        if let RouteNetlinkMessage::NewAddress(message) = parse(&answer, "list addresses")? {
            let address = message.attributes.iter().find_map(|a| match a {
                AddressAttribute::Address(ip) => Some(*ip),
                _ => None,
            });
            networks.extend(address.and_then(|ip| IpNet::new(ip, message.header.prefix_len).ok()));
        }
    }
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut routes = RouteMessage::default();
        routes.header.address_family = family;
        let list = request(RouteNetlinkMessage::GetRoute(routes), 0, "list routes".to_owned());
        for answer in socket.dump(&list)? {
            if let RouteNetlinkMessage::NewRoute(message) = parse(&answer, "list routes")?
                && message.header.kind == RouteType::Unicast
            {
                let destination = message.attributes.iter().find_map(|a| match a {
                    RouteAttribute::Destination(RouteAddress::Inet(ip)) => Some(IpAddr::V4(*ip)),
                    RouteAttribute::Destination(RouteAddress::Inet6(ip)) => Some(IpAddr::V6(*ip)),
                    _ => None,
                });
                let length = message.header.destination_prefix_length;
                networks.extend(destination.and_then(|ip| IpNet::new(ip, length).ok()));
            }
        }
    }
    Ok(networks)
}

/// The container's side of a link, to be made in its network namespace.
fn inside(name: &str, side: &Side, netns: BorrowedFd<'_>) -> LinkMessage {
    let mut link = named(name);
    link.attributes.extend(side.mac.map(|mac| LinkAttribute::Address(mac.to_vec())));
    link.attributes.extend(side.mtu.map(LinkAttribute::Mtu));
    link.attributes.push(LinkAttribute::NetNsFd(netns.as_raw_fd()));
    link
}

fn named(name: &str) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    message
}

fn loopback_up() -> Request {
    let mut up = named("lo");
    up.header.flags = LinkFlags::Up;
    up.header.change_mask = LinkFlags::Up;
    request(RouteNetlinkMessage::SetLink(up), 0, "set lo up".to_owned())
}

fn new_address(index: u32, address: IpNet, name: &str) -> Request {
    let mut message = AddressMessage::default();
    message.header.prefix_len = address.prefix_len();
    message.header.index = index;
    message.header.family = family(&address.addr());
    message.attributes.push(AddressAttribute::Local(address.addr()));
    message.attributes.push(AddressAttribute::Address(address.addr()));
    match address {
        IpNet::V4(net) => message.attributes.push(AddressAttribute::Broadcast(net.broadcast())),
        // Nobody else has it: that is known, and need not be waited for.
        IpNet::V6(_) => message.header.flags = AddressHeaderFlags::Nodad,
    }
    request(
        RouteNetlinkMessage::NewAddress(message),
        NLM_F_CREATE | NLM_F_EXCL,
        format!("add address {address} to {name}"),
    )
}

fn family(ip: &IpAddr) -> AddressFamily {
    if ip.is_ipv6() { AddressFamily::Inet6 } else { AddressFamily::Inet }
}

/// Without an interface the kernel finds the one whose network the gateway is in.
fn default_route(index: Option<u32>, route: Route, flag: u16) -> Request {
    let (ipv6, way) = match route {
        Route::Via(gateway) => (gateway.is_ipv6(), format!("by {gateway}")),
        Route::Link { ipv6 } => (ipv6, "by the interface".to_owned()),
    };
    let mut message = RouteMessage::default();
    message.header.address_family = if ipv6 { AddressFamily::Inet6 } else { AddressFamily::Inet };
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Boot;
    message.header.scope = RouteScope::Universe;
    message.header.kind = RouteType::Unicast;
    match route {
        Route::Via(IpAddr::V4(ip)) => {
            message.attributes.push(RouteAttribute::Gateway(RouteAddress::Inet(ip)));
        }
        Route::Via(IpAddr::V6(ip)) => {
            message.attributes.push(RouteAttribute::Gateway(RouteAddress::Inet6(ip)));
        }
        Route::Link { .. } => message.header.scope = RouteScope::Link,
    }
    message.attributes.extend(index.map(RouteAttribute::Oif));
    request(RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE | flag, format!("add default route {way}"))
}

/// An attribute that holds one number, as the value of the attribute around it.
fn nested_u32(kind: u16, value: u32) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(8);
    bytes.extend_from_slice(&8u16.to_ne_bytes());
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(&value.to_ne_bytes());
    bytes
}

fn request(message: RouteNetlinkMessage, flags: u16, action: String) -> Request {
    let mut message = NetlinkMessage::new(NetlinkHeader::default(), message.into());
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    Request::new(message.header.message_type, flags, bytes.split_off(HEADER.min(bytes.len())), action)
}

fn parse(answer: &Dumped, action: &str) -> Result<RouteNetlinkMessage> {
    use netlink_packet_core::NetlinkDeserializable as _;
    let mut header = NetlinkHeader::default();
    header.message_type = answer.kind;
    RouteNetlinkMessage::deserialize(&header, &answer.payload)
        .map_err(|e| Error::Malformed { action: action.to_owned(), reason: e.to_string() })
}

fn parse_link(answer: &Dumped) -> Result<Link> {
    let RouteNetlinkMessage::NewLink(message) = parse(answer, "look up interfaces")? else {
        return Err(Error::Malformed {
            action: "look up interfaces".to_owned(),
            reason: format!("unexpected message {}", answer.kind),
        });
    };
    let mut link = Link { index: message.header.index, ..Link::default() };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Controller(master) => link.master = Some(master),
            LinkAttribute::IfAlias(alias) => link.alias = alias,
            LinkAttribute::LinkInfo(infos) => {
                link.is_bridge |= infos.contains(&LinkInfo::Kind(InfoKind::Bridge));
                link.is_veth |= infos.contains(&LinkInfo::Kind(InfoKind::Veth));
            }
            _ => {}
        }
    }
    Ok(link)
}
