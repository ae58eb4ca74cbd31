//! Options of `network create`, `connect`, `disconnect` and `rm`, and what they ask of the daemon.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::{Map, Value, json};

use super::kinds::{FORMAT, LABEL, LINK, SWARM};
use super::network::Network;
use super::pairs;
use crate::flags::{BOOL, Flag, INT, MAP, STRING, STRINGS, flag, options};

options! {
    /// `ports`.
    PortsArgs {
        format: Option<String> = flag("format", STRING, FORMAT),
        no_trunc: bool = flag("no-trunc", BOOL, "Don't truncate output"),
        ; containers: Vec<String>
    }
}

options! {
    /// `network create`.
    NetworkCreateArgs {
        attachable: bool = flag("attachable", BOOL, "Enable manual container attachment"),
        aux_address: Vec<String> =
            flag("aux-address", MAP, "Auxiliary IPv4 or IPv6 addresses used by Network driver").shows("map[]"),
        driver: String = flag("driver", STRING, "Driver to manage the Network").short('d').default("bridge"),
        gateway: Vec<String> = flag("gateway", STRINGS, "IPv4 or IPv6 Gateway for the master subnet"),
        internal: bool = flag("internal", BOOL, "Restrict external access to the network"),
        ip_range: Vec<String> = flag("ip-range", STRINGS, "Allocate container ip from a sub-range"),
        ipam_driver: String =
            flag("ipam-driver", STRING, "IP Address Management Driver").default("default"),
        ipam_opt: Vec<String> = flag("ipam-opt", MAP, "Set IPAM driver specific options").shows("map[]"),
        ipv4: bool = flag("ipv4", BOOL, "Enable or disable IPv4 address assignment").default("true"),
        ipv6: bool = flag("ipv6", BOOL, "Enable or disable IPv6 address assignment"),
        label: Vec<String> = flag("label", LABEL, "Set metadata on a network"),
        opt: Vec<String> = flag("opt", MAP, "Set driver specific options").short('o').shows("map[]"),
        scope: String = flag("scope", STRING, "Control the network's scope"),
        subnet: Vec<String> = flag("subnet", STRINGS, "Subnet in CIDR format that represents a network segment"),
        ; name: String
    }
}

const CONFIG_ONLY: &str = "is not implemented yet";

/// Options of `network create` for other kinds of networks.
pub(crate) const NETWORK_CREATE_OTHERS: &[Flag] = &[
    flag("config-from", STRING, "The network from which to copy the configuration").refused(CONFIG_ONLY),
    flag("config-only", BOOL, "Create a configuration only network").refused(CONFIG_ONLY),
    flag("ingress", BOOL, "Create swarm routing-mesh network").refused(SWARM),
];

options! {
    /// `network connect`.
    NetworkConnectArgs {
        alias: Vec<String> = flag("alias", STRINGS, "Add network-scoped alias for the container"),
        driver_opt: Vec<String> = flag("driver-opt", STRINGS, "driver options for the network"),
        gw_priority: Option<i64> = flag(
            "gw-priority", INT,
            "Highest gw-priority provides the default gateway. Accepts positive and negative values.",
        ),
        ip: String = flag("ip", STRING, "IPv4 address (e.g., \"172.30.100.104\")"),
        ip6: String = flag("ip6", STRING, "IPv6 address (e.g., \"2001:db8::33\")"),
        link: Vec<String> = flag("link", LINK, "Add link to another container"),
        link_local_ip: Vec<String> = flag("link-local-ip", STRINGS, "Add a link-local address for the container"),
        ; names: Vec<String>
    }
}

options! {
    /// `network disconnect`.
    NetworkDisconnectArgs {
        force: bool = flag("force", BOOL, "Force the container to disconnect from a network").short('f'),
        ; names: Vec<String>
    }
}

options! {
    /// `network rm`.
    NetworkRmArgs {
        force: bool = flag("force", BOOL, "Do not error if the network does not exist").short('f'),
        ; names: Vec<String>
    }
}

impl NetworkCreateArgs {
    /// The request that the options make.
    ///
    /// # Errors
    /// For ranges, gateways and addresses of no subnet.
    pub(crate) fn body(&self) -> Result<Value, String> {
        Ok(json!({
            "Name": self.name, "Driver": self.driver, "Scope": self.scope, "Internal": self.internal,
            "Attachable": self.attachable, "EnableIPv4": self.ipv4, "EnableIPv6": self.ipv6,
            "IPAM": {"Driver": self.ipam_driver, "Options": pairs(&self.ipam_opt), "Config": self.pools()?},
            "Options": pairs(&self.opt), "Labels": pairs(&self.label),
        }))
    }

    /// The subnets, each with the range, the gateway and the addresses that are in it.
    fn pools(&self) -> Result<Vec<Value>, String> {
        let mut subnets: Vec<(IpNet, Map<String, Value>)> = Vec::new();
        for text in &self.subnet {
            let net: IpNet =
                text.parse().map_err(|_| format!("invalid subnet {text}: invalid CIDR block notation"))?;
            if subnets.iter().any(|(other, _)| other.contains(&net) || net.contains(other)) {
                return Err("multiple overlapping subnet configuration is not supported".into());
            }
            subnets.push((net, Map::from_iter([("Subnet".to_owned(), json!(text))])));
        }
        if self.ip_range.len().max(self.gateway.len()) > subnets.len() {
            return Err("every ip-range or gateway must have a corresponding subnet".into());
        }
        let mut put = |what: &str, key: &str, text: &str, at: Option<IpNet>| {
            let at = at.ok_or_else(|| format!("invalid {what} {text}"))?;
            let of = subnets.iter_mut().find(|(net, _)| net.contains(&at));
            let (net, pool) = of.ok_or_else(|| format!("no matching subnet for {what} {text}"))?;
            match pool.insert(key.to_owned(), json!(text)) {
                Some(old) => Err(format!(
                    "cannot configure multiple {what}s ({text}, {old}) on the same subnet ({net})"
                )),
                None => Ok(()),
            }
        };
        for text in &self.ip_range {
            put("range", "IPRange", text, text.parse().ok())?;
        }
        for text in &self.gateway {
            put("gateway", "Gateway", text, text.parse::<IpAddr>().ok().map(IpNet::from))?;
        }
        for text in &self.aux_address {
            let (name, address) = text.split_once('=').unwrap_or((text, ""));
            let ip: IpAddr =
                address.parse().map_err(|_| format!("invalid aux-address {text}: want name=address"))?;
            let of = subnets.iter_mut().find(|(net, _)| net.contains(&ip));
            let (_, pool) = of.ok_or_else(|| format!("no matching subnet for aux-address {address}"))?;
            let all = pool.entry("AuxiliaryAddresses").or_insert_with(|| json!({}));
            all[name] = json!(address);
        }
        Ok(subnets.into_iter().map(|(_, pool)| Value::Object(pool)).collect())
    }
}

impl NetworkConnectArgs {
    /// What the container is to be on the network.
    pub(crate) fn endpoint(&self) -> Value {
        let options = self.driver_opt.iter().map(|o| o.split_once('=').unwrap_or((o, "")));
        let network = Network {
            aliases: self.alias.clone(),
            ip: self.ip.clone(),
            ip6: self.ip6.clone(),
            link_local: self.link_local_ip.clone(),
            options: options.map(|(key, value)| (key.to_owned(), json!(value))).collect(),
            priority: self.gw_priority.unwrap_or_default(),
            ..Network::default()
        };
        network.endpoint(&self.link)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_gateways_and_addresses_belong_to_their_subnets() {
        let args = |subnets: &[&str], range: &str, gateway: &str, other: &str| {
            let list = |text: &str| Vec::from_iter((!text.is_empty()).then(|| text.to_owned()));
            NetworkCreateArgs {
                subnet: subnets.iter().map(|s| (*s).to_owned()).collect(),
                ip_range: list(range),
                gateway: list(gateway),
                aux_address: list(other),
                ..NetworkCreateArgs::default()
            }
        };
        let both = ["10.1.0.0/16", "fd00::/64"];
        let made = args(&both, "10.1.2.0/24", "fd00::9", "nas=10.1.0.7").pools();
        assert_eq!(
            made.expect("pools"),
            [
                json!({"Subnet": "10.1.0.0/16", "IPRange": "10.1.2.0/24", "AuxiliaryAddresses": {"nas": "10.1.0.7"}}),
                json!({"Subnet": "fd00::/64", "Gateway": "fd00::9"}),
            ]
        );
        for (wrong, want) in [
            (args(&both, "10.2.0.0/24", "", ""), "no matching subnet for range 10.2.0.0/24"),
            (args(&both, "", "10.2.0.1", ""), "no matching subnet for gateway 10.2.0.1"),
            (args(&both, "", "", "nas=10.2.0.1"), "no matching subnet for aux-address 10.2.0.1"),
            (args(&both, "", "x", ""), "invalid gateway x"),
            (
                args(&["10.1.0.0/16", "10.1.1.0/24"], "", "", ""),
                "multiple overlapping subnet configuration is not supported",
            ),
            (args(&["10.1"], "", "", ""), "invalid subnet 10.1: invalid CIDR block notation"),
        ] {
            assert_eq!(wrong.pools().expect_err("it is wrong"), want);
        }
    }
}
