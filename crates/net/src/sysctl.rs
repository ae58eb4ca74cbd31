//! Kernel settings of one interface, as an endpoint's options name them.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// A setting of an interface, written `net.ipv4.conf.IFNAME.log_martians=1`, where IFNAME is that word and stands for the
/// interface, as with Docker (`com.docker.network.endpoint.sysctls`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceSysctl {
    /// Below /proc/sys/net: `ipv4/conf`.
    table: String,
    name: String,
    value: String,
}

impl InterfaceSysctl {
    /// Its file below /proc/sys/net.
    pub(crate) fn path(&self, interface: &str) -> String {
        format!("{}/{interface}/{}", self.table, self.name)
    }

    pub(crate) fn value(&self) -> &str {
        &self.value
    }
}

impl FromStr for InterfaceSysctl {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || {
            Error::Invalid(format!(
                "unrecognised network interface sysctl {text:?}: want net.F.T.IFNAME.NAME=VALUE, F being ipv4, ipv6 or \
                 mpls, T conf or neigh, and IFNAME that word"
            ))
        };
        let (key, value) = text.split_once('=').ok_or_else(wrong)?;
        let ["net", family, table, "IFNAME", name] = key.split('.').collect::<Vec<_>>()[..] else {
            return Err(wrong());
        };
        let word = |text: &str| {
            !text.is_empty()
                && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        };
        let known = ["ipv4", "ipv6", "mpls"].contains(&family) && ["conf", "neigh"].contains(&table);
        if !known || !word(name) || value.is_empty() {
            return Err(wrong());
        }
        Ok(Self { table: format!("{family}/{table}"), name: name.to_owned(), value: value.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_those_of_one_interface() {
        let good: InterfaceSysctl = "net.ipv4.conf.IFNAME.log_martians=1".parse().unwrap();
        assert_eq!((good.path("eth0").as_str(), good.value()), ("ipv4/conf/eth0/log_martians", "1"));
        for bad in [
            "",
            "net.ipv4.conf.IFNAME.log_martians",
            "net.ipv4.conf.eth0.log_martians=1",
            "net.ipv4.conf.IFNAME.../x=1",
            "net.ipv4.conf.IFNAME.a/b=1",
            "net.ipv4.ip_forward=1",
            "net.core.conf.IFNAME.x=1",
            "kernel.ipv4.conf.IFNAME.x=1",
            "net.ipv4.conf.IFNAME.x=",
        ] {
            assert!(bad.parse::<InterfaceSysctl>().is_err(), "{bad}");
        }
    }
}
