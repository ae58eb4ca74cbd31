//! What options say of networks below an interface of the host's: macvlan and ipvlan.

use longshore_net::{ParentConfig, ParentKind, Subnet};

use super::Record;
use crate::{Error, Result};

/// The drivers.
pub(super) const DRIVERS: [&str; 2] = ["macvlan", "ipvlan"];

/// Reads the options of a network.
///
/// # Errors
/// For one that is wrong or unknown, in Docker's words where it has any.
pub(super) fn config(record: &Record, subnets: Vec<Subnet>) -> Result<ParentConfig> {
    let (mut parent, mut mode, mut flag, mut mtu) = ("", "", "", None);
    for (key, value) in &record.options {
        match (record.driver.as_str(), key.as_str()) {
            (_, "parent") => parent = value.as_str(),
            ("macvlan", "macvlan_mode") | ("ipvlan", "ipvlan_mode") => mode = value.as_str(),
            ("ipvlan", "ipvlan_flag") => flag = value.as_str(),
            (_, "com.docker.network.driver.mtu") => {
                let wrong =
                    || Error::invalid(format!("invalid value {value:?} of option {key}: want a number"));
                mtu = Some(value.parse().map_err(|_| wrong())?);
            }
            (driver, _) => {
                return Err(Error::unimplemented(format!("network option {key}={value} of driver {driver}")));
            }
        }
    }
    let kind = match record.driver.as_str() {
        "macvlan" => ParentKind::Macvlan(mode.parse()?),
        _ => ParentKind::Ipvlan(mode.parse()?, flag.parse()?),
    };
    if parent.is_empty() {
        let driver = &record.driver;
        let text = format!("a network of driver {driver} needs an interface of the host's: -o parent=eth0");
        return Err(Error::invalid(text));
    }
    Ok(ParentConfig { parent: parent.to_owned(), kind, subnets, mtu, internal: record.internal })
}

#[cfg(test)]
mod tests {
    use longshore_net::{IpvlanFlag, IpvlanMode, MacvlanMode};

    use super::*;

    #[test]
    fn options_are_read_or_refused() {
        let read = |driver: &str, options: &[(&str, &str)]| {
            let mut record = Record::new("mine", driver).expect("record");
            record.options = options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            config(&record, Vec::new())
        };
        let mac = read("macvlan", &[("parent", "eth0"), ("macvlan_mode", "vepa")]).expect("options");
        assert_eq!((mac.parent.as_str(), mac.kind), ("eth0", ParentKind::Macvlan(MacvlanMode::Vepa)));
        let ip = read("ipvlan", &[("parent", "eth0.5"), ("com.docker.network.driver.mtu", "1400")]);
        let ip = ip.expect("options");
        assert_eq!(ip.kind, ParentKind::Ipvlan(IpvlanMode::L2, IpvlanFlag::Bridge));
        assert_eq!(ip.mtu, Some(1400));
        for (driver, options) in [
            ("macvlan", &[][..]),
            ("macvlan", &[("parent", "eth0"), ("ipvlan_mode", "l2")]),
            ("macvlan", &[("parent", "eth0"), ("macvlan_mode", "l2")]),
            ("ipvlan", &[("parent", "eth0"), ("ipvlan_flag", "x")]),
            ("ipvlan", &[("parent", "eth0"), ("com.docker.network.driver.mtu", "x")]),
        ] {
            assert!(read(driver, options).is_err(), "{driver} {options:?}");
        }
    }
}
