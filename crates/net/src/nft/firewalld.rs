//! firewalld keeps its table to itself: nobody else may add a rule there. What it forwards is decided by the zone of an
//! interface, so it is asked, over D-Bus, to have a bridge in the zone that may do everything. Our own table decides what
//! of that containers may.

use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use longshore_sys::dbus::{Answer, Connection, Method, Reader, Writer};
use rustix::io::Errno;

const BUS: &str = "/run/dbus/system_bus_socket";
const DESTINATION: &str = "org.fedoraproject.FirewallD1";
const PATH: &str = "/org/fedoraproject/FirewallD1";
const CONFIG_PATH: &str = "/org/fedoraproject/FirewallD1/config";
const ZONE: &str = "org.fedoraproject.FirewallD1.zone";
/// The zone.
const TRUSTED: &str = "trusted";
/// While it starts or reloads, it answers nobody.
const PATIENCE: Duration = Duration::from_secs(25);

/// Has a bridge in a zone that forwards; where an administrator has put it into one already, it stays there. Whether it is
/// in the zone that we choose.
///
/// # Errors
/// In words that say what can be done.
pub(crate) fn trust(bridge: &str) -> Result<bool, String> {
    let failed = |error: longshore_sys::Error| {
        format!(
            "the table is firewalld's alone, and it cannot be asked to trust the bridge ({error}): run `firewall-cmd \
             --permanent --zone={TRUSTED} --add-interface={bridge}` and `firewall-cmd --reload`"
        )
    };
    let (zone, strict) = Firewalld::connect()
        .and_then(|mut firewalld| Ok((firewalld.trust(bridge)?, firewalld.is_strict()?)))
        .map_err(failed)?;
    match strict {
        true => Err("firewalld is set to StrictForwardPorts=yes: publish with --publish-mode local and open the port \
             with `firewall-cmd --add-port`, or change /etc/firewalld/firewalld.conf"
            .to_owned()),
        false => Ok(zone == TRUSTED),
    }
}

/// Takes a bridge that is gone out of the zone again.
pub(crate) fn forget(bridge: &str) {
    let forgotten = Firewalld::connect()
        .and_then(|mut firewalld| firewalld.ask(PATH, ZONE, "removeInterface", &[TRUSTED, bridge]).map(drop));
    if let Err(error) = forgotten {
        tracing::debug!(%error, bridge, "firewalld still knows the bridge");
    }
}

/// Where the machine's bus is.
fn bus() -> PathBuf {
    let address = std::env::var("DBUS_SYSTEM_BUS_ADDRESS").unwrap_or_default();
    let path = address.strip_prefix("unix:path=").and_then(|rest| rest.split([',', ';']).next());
    path.unwrap_or(BUS).into()
}

struct Firewalld(Connection<UnixStream>);

impl Firewalld {
    fn connect() -> longshore_sys::Result<Self> {
        let mut connection = Connection::open(&bus(), PATIENCE)?;
        connection.hello()?;
        Ok(Self(connection))
    }

    /// The zone that the bridge is in, then.
    fn trust(&mut self, bridge: &str) -> longshore_sys::Result<String> {
        let zone = self.ask(PATH, ZONE, "getZoneOfInterface", &[bridge])?;
        let zone = Reader::new(&zone).text()?;
        if !zone.is_empty() {
            return Ok(zone.to_owned());
        }
        self.ask(PATH, ZONE, "addInterface", &[TRUSTED, bridge])?;
        tracing::info!(bridge, "put the bridge into firewalld's zone {TRUSTED}");
        Ok(TRUSTED.to_owned())
    }

    /// Whether only what firewalld itself translates may come in. Before 2.3 there was no such setting.
    fn is_strict(&mut self) -> longshore_sys::Result<bool> {
        let property = [&format!("{DESTINATION}.config"), "StrictForwardPorts"];
        match self.ask(CONFIG_PATH, "org.freedesktop.DBus.Properties", "Get", &property) {
            Ok(value) => Ok(Reader::new(&value).text_variant()? == "yes"),
            Err(_) => Ok(false),
        }
    }

    /// Calls a method that takes texts.
    fn ask(
        &mut self,
        path: &str,
        interface: &str,
        member: &str,
        texts: &[&str],
    ) -> longshore_sys::Result<Vec<u8>> {
        let mut body = Writer::default();
        texts.iter().for_each(|text| body.text(text));
        let method = Method { destination: DESTINATION, path, interface, member };
        match self.0.call(method, &"s".repeat(texts.len()), &body)? {
            Answer::Values(values) => Ok(values),
            Answer::Refused(name, text) => {
                Err(longshore_sys::Error::new(format!("{member}: {text} ({name})"), Errno::ACCESS))
            }
        }
    }
}
