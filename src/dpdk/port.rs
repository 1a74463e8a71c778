//! A network device: opened, configured, started, watched, closed.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::ffi::{CStr, CString};
use std::marker::PhantomData;
use std::ptr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use thiserror::Error;

use super::ffi;
use super::rss::{self, Rss};
use super::{Device, Eal, Errno, Pool, RxQueue, TxQueue};

/// How a port is opened.
#[derive(Clone, Debug)]
pub struct PortConfig {
    /// Which device.
    pub device: Device,
    /// Receive queues, and as many transmit queues: one of each per worker.
    pub queues: u16,
    /// Descriptors of each receive queue; the driver may round.
    pub rx_descriptors: u16,
    /// Descriptors of each transmit queue; the driver may round.
    pub tx_descriptors: u16,
    /// The largest IPv6 packet of the link, in bytes.
    pub mtu: u16,
    /// Whether to receive frames for any MAC address. An inline appliance has to.
    pub promiscuous: bool,
    /// How packets are spread over receive queues.
    pub rss: Rss,
}

/// Why a port could not be opened.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PortError {
    /// DPDK has no port for the device.
    #[error("no port for {device}: {errno}; {advice}")]
    NotFound {
        /// The device.
        device: String,
        /// DPDK's reason.
        errno: Errno,
        /// What to do.
        advice: String,
    },
    /// The same device twice.
    #[error("{device} is already open as another port")]
    InUse {
        /// The device.
        device: String,
    },
    /// The device has fewer queues than workers.
    #[error(
        "{device} has at most {rx} receive and {tx} transmit queues, {wanted} of each were asked for"
    )]
    Queues {
        /// The device.
        device: String,
        /// Queues asked for.
        wanted: u16,
        /// Receive queues it has.
        rx: u16,
        /// Transmit queues it has.
        tx: u16,
    },
    /// The driver refused a step that the port cannot do without; its log says more.
    #[error("{device} does not {step}: {errno}")]
    Step {
        /// The device.
        device: String,
        /// What it was asked to do.
        step: &'static str,
        /// The driver's reason.
        errno: Errno,
    },
}

/// State of the cable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Whether frames can pass.
    pub up: bool,
    /// Megabits a second; 0 if the driver does not know.
    pub speed_mbps: u32,
}

/// What the driver counted since the port was started. Not every driver counts everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortStats {
    /// Packets received.
    pub ipackets: u64,
    /// Bytes received.
    pub ibytes: u64,
    /// Packets lost because receive queues were full.
    pub imissed: u64,
    /// Packets received damaged.
    pub ierrors: u64,
    /// Packets lost because the pool was exhausted.
    pub rx_nombuf: u64,
    /// Packets sent.
    pub opackets: u64,
    /// Bytes sent.
    pub obytes: u64,
    /// Packets that could not be sent.
    pub oerrors: u64,
}

/// A started port without its queues. It is stopped and closed when this and all its queues have been dropped, and cannot
/// be opened again in the same process then.
#[derive(Debug)]
pub struct Port {
    opened: Arc<Opened>,
    device: Device,
    driver: String,
    mac: [u8; 6],
    /// Drivers gather their counters without a lock: one thread at a time.
    _not_sync: PhantomData<Cell<()>>,
}

/// A port and its queues, to be handed out to whoever polls them.
#[derive(Debug)]
pub struct OpenPort {
    /// The port.
    pub port: Port,
    /// Its receive queues in order.
    pub rx: Vec<RxQueue>,
    /// Its transmit queues in order.
    pub tx: Vec<TxQueue>,
}

/// Its sockets hear every interface of the machine between their making and being bound to one. Forwarding what they heard would
/// return frames to where they came from, and make bridges look for the senders on the wrong side.
const AF_PACKET: &str = "net_af_packet";

/// Bytes of an Ethernet header and the check sequence.
const ETHERNET_AND_CRC: u32 = 14 + 4;

/// The ports that are open. Held while one is opened or closed, as DPDK wants these serialised.
static OPEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

fn open_ports() -> MutexGuard<'static, BTreeSet<u16>> {
    OPEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Entry in `OPEN`, and the port's end.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) id: u16,
}

impl Drop for Opened {
    fn drop(&mut self) {
        let mut open = open_ports();
        // SAFETY: EAL is initialised, or there would be no port. This is the last handle, so nobody uses a queue of it.
        // Stopping a port that was never started is allowed, and closing needs no more than that it is stopped.
        unsafe {
            ffi::rte_eth_dev_stop(self.id);
            ffi::rte_eth_dev_close(self.id);
        }
        open.remove(&self.id);
    }
}

impl Port {
    /// Finds the device, sets it up with `config.queues` queues in each direction that receive into `pool`, and starts it.
    ///
    /// What a driver received before it listened to the device alone is discarded.
    ///
    /// Offloads stay off: no VLAN stripping, no checksums, no coalescing, no scattering. What a driver can do without
    /// (MTU, promiscuous mode, RSS) is logged when it refuses, and no error.
    ///
    /// # Errors
    /// See [`PortError`].
    pub fn open(_eal: &Eal, config: &PortConfig, pool: &Pool) -> Result<OpenPort, PortError> {
        let device = &config.device;
        let opened = {
            let mut open = open_ports();
            let id = find(device)?;
            if !open.insert(id) {
                return Err(PortError::InUse {
                    device: device.to_string(),
                });
            }
            Arc::new(Opened { id })
        };
        let setup = Setup {
            id: opened.id,
            config,
        };
        let info = setup.info()?;
        setup.configure(&info)?;
        setup.queues(pool)?;
        setup.optional(&info);
        // SAFETY: the port is configured with all its queues set up, and not started.
        setup.step("start", unsafe { ffi::rte_eth_dev_start(opened.id) })?;

        let (mut rx, mut tx) = (Vec::new(), Vec::new());
        for queue in 0..config.queues {
            // SAFETY: the port is started, has `config.queues` queues in each direction, and each gets one handle here.
            unsafe {
                rx.push(RxQueue::new(Arc::clone(&opened), queue));
                tx.push(TxQueue::new(Arc::clone(&opened), queue));
            }
        }
        let driver = if info.driver_name.is_null() {
            String::new()
        } else {
            // SAFETY: ethdev fills in the driver's name: a static, terminated string.
            let name = unsafe { CStr::from_ptr(info.driver_name) };
            name.to_string_lossy().into_owned()
        };
        if driver == AF_PACKET {
            rx.iter_mut().for_each(RxQueue::discard);
        }
        let port = Self {
            mac: mac(opened.id),
            opened,
            device: device.clone(),
            driver,
            _not_sync: PhantomData,
        };
        tracing::info!(device = %port.device, driver = port.driver, queues = config.queues, "port started");
        Ok(OpenPort { port, rx, tx })
    }

    /// The device it was opened for.
    #[must_use]
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Name of the driver, such as `net_ixgbe`.
    #[must_use]
    pub fn driver(&self) -> &str {
        &self.driver
    }

    /// MAC address; all zero if the driver has none.
    #[must_use]
    pub fn mac(&self) -> [u8; 6] {
        self.mac
    }

    /// The link's state as the driver knows it now, without waiting; `None` if it cannot tell.
    #[must_use]
    pub fn link(&self) -> Option<Link> {
        let mut link = ffi::rte_eth_link::default();
        // SAFETY: the port is open as long as `self.opened` is held; `link` is written to.
        let returned = unsafe { ffi::rte_eth_link_get_nowait(self.opened.id, &raw mut link) };
        Errno::check(returned).ok()?;
        Some(Link {
            up: link.link_status() != 0,
            speed_mbps: match link.link_speed {
                u32::MAX => 0, // RTE_ETH_SPEED_NUM_UNKNOWN
                speed => speed,
            },
        })
    }

    /// What the driver counted; `None` if it does not count.
    #[must_use]
    pub fn stats(&self) -> Option<PortStats> {
        let mut stats = ffi::rte_eth_stats::default();
        // SAFETY: the port is open as long as `self.opened` is held; `stats` is written to. `Port` is not `Sync` and there is
        // one per port, so no other thread gathers its counters now.
        let returned = unsafe { ffi::rte_eth_stats_get(self.opened.id, &raw mut stats) };
        Errno::check(returned).ok()?;
        Some(PortStats {
            ipackets: stats.ipackets,
            ibytes: stats.ibytes,
            imissed: stats.imissed,
            ierrors: stats.ierrors,
            rx_nombuf: stats.rx_nombuf,
            opackets: stats.opackets,
            obytes: stats.obytes,
            oerrors: stats.oerrors,
        })
    }
}

/// The number of the device's port; a virtual device is created for it.
fn find(device: &Device) -> Result<u16, PortError> {
    let failed = |errno| PortError::NotFound {
        device: device.to_string(),
        errno,
        advice: device.advice(),
    };
    let terminated = |text: &str| CString::new(text).map_err(|_| failed(Errno(libc::EINVAL)));
    let name = terminated(device.name())?;
    let mut id = 0;
    // SAFETY: EAL is initialised, `name` is a terminated string and `id` is written to.
    let mut lookup =
        || Errno::check(unsafe { ffi::rte_eth_dev_get_port_by_name(name.as_ptr(), &raw mut id) });
    let found = match lookup() {
        Err(_) if !device.is_pci() => {
            let arguments = terminated(&device.to_string())?;
            // SAFETY: EAL is initialised, and the string is terminated and only read. The caller holds `OPEN`.
            let returned = unsafe { ffi::rte_dev_probe(arguments.as_ptr()) };
            Errno::check(returned).and_then(|_| lookup())
        }
        found => found,
    };
    found.map_err(failed)?;
    Ok(id)
}

/// The MTU that is nearest to `wanted` among those that the device has and ethdev takes.
fn nearest_mtu(wanted: u16, info: &ffi::rte_eth_dev_info) -> u16 {
    // Drivers that set no limit of the MTU report 0 or 65535. Some of them limit the frame instead, of which ethdev takes the header and
    // the check sequence off. Where there are both limits, their difference is what it takes off.
    let limited = ![0, u16::MAX].contains(&info.max_mtu);
    let most = if limited && info.max_rx_pktlen > u32::from(info.max_mtu) {
        u32::from(info.max_mtu)
    } else {
        info.max_rx_pktlen.saturating_sub(ETHERNET_AND_CRC)
    };
    u32::from(wanted.max(info.min_mtu)).min(most) as u16
}

fn mac(id: u16) -> [u8; 6] {
    let mut address = ffi::rte_ether_addr::default();
    // SAFETY: the port exists; `address` is written to, or left as it is on failure.
    unsafe { ffi::rte_eth_macaddr_get(id, &raw mut address) };
    address.addr_bytes
}

/// A port between being found and being started.
struct Setup<'a> {
    id: u16,
    config: &'a PortConfig,
}

impl Setup<'_> {
    fn step(&self, step: &'static str, returned: i32) -> Result<(), PortError> {
        Errno::check(returned).map_err(|errno| PortError::Step {
            device: self.config.device.to_string(),
            step,
            errno,
        })?;
        Ok(())
    }

    /// What the device can do, checked to be enough.
    fn info(&self) -> Result<ffi::rte_eth_dev_info, PortError> {
        let mut info = ffi::rte_eth_dev_info::default();
        // SAFETY: the port exists; `info` is written to.
        let returned = unsafe { ffi::rte_eth_dev_info_get(self.id, &raw mut info) };
        self.step("describe itself", returned)?;
        let wanted = self.config.queues;
        if wanted == 0 || wanted > info.max_rx_queues || wanted > info.max_tx_queues {
            return Err(PortError::Queues {
                device: self.config.device.to_string(),
                wanted,
                rx: info.max_rx_queues,
                tx: info.max_tx_queues,
            });
        }
        Ok(info)
    }

    fn configure(&self, info: &ffi::rte_eth_dev_info) -> Result<(), PortError> {
        let device = &self.config.device;
        let queues = self.config.queues;
        let (mut key, key_length) = rss::key(info.hash_key_size);
        let mut wanted = ffi::rte_eth_conf::default();
        wanted.rxmode.mtu = u32::from(nearest_mtu(self.config.mtu, info));
        if queues > 1 {
            match rss::choose(self.config.rss, info.flow_type_rss_offloads) {
                Some(choice) => {
                    if choice.with_ports {
                        tracing::warn!(%device, "the driver cannot spread by addresses alone, so ports count as well");
                    }
                    wanted.rxmode.mq_mode = ffi::rte_eth_rx_mq_mode_RTE_ETH_MQ_RX_RSS;
                    wanted.rx_adv_conf.rss_conf = ffi::rte_eth_rss_conf {
                        rss_key: key.as_mut_ptr(),
                        rss_key_len: key_length,
                        rss_hf: choice.types,
                    };
                }
                None => tracing::warn!(
                    %device, queues,
                    "the driver has no RSS for IPv6: how packets spread over the workers is up to it"
                ),
            }
        }
        // SAFETY: the port exists and is stopped; ethdev copies `wanted`, and drivers copy the key it points to, which lives
        // until the end of this function.
        let returned =
            unsafe { ffi::rte_eth_dev_configure(self.id, queues, queues, &raw const wanted) };
        self.step("take its configuration", returned)
    }

    fn queues(&self, pool: &Pool) -> Result<(), PortError> {
        let (mut rx, mut tx) = (self.config.rx_descriptors, self.config.tx_descriptors);
        // SAFETY: the port exists; both numbers are read and written.
        let returned =
            unsafe { ffi::rte_eth_dev_adjust_nb_rx_tx_desc(self.id, &raw mut rx, &raw mut tx) };
        self.step("take the numbers of descriptors", returned)?;
        if (rx, tx) != (self.config.rx_descriptors, self.config.tx_descriptors) {
            tracing::info!(device = %self.config.device, rx, tx, "the driver has its own numbers of descriptors");
        }
        // SAFETY: the port exists. -1, if it is on no particular socket, is SOCKET_ID_ANY.
        let socket = unsafe { ffi::rte_eth_dev_socket_id(self.id) } as u32;
        for queue in 0..self.config.queues {
            // SAFETY: the port is configured with this many queues and is stopped. No configuration of its own means the
            // driver's default. The pool outlives the port, as pools are never freed.
            let returned = unsafe {
                ffi::rte_eth_rx_queue_setup(self.id, queue, rx, socket, ptr::null(), pool.as_ptr())
            };
            self.step("set up a receive queue", returned)?;
            // SAFETY: as above.
            let returned =
                unsafe { ffi::rte_eth_tx_queue_setup(self.id, queue, tx, socket, ptr::null()) };
            self.step("set up a transmit queue", returned)?;
        }
        Ok(())
    }

    /// What the port can do without.
    fn optional(&self, info: &ffi::rte_eth_dev_info) {
        let device = &self.config.device;
        let mtu = nearest_mtu(self.config.mtu, info);
        if mtu != self.config.mtu {
            tracing::warn!(%device, wanted = self.config.mtu, mtu, "the device does not have this MTU");
        }
        // SAFETY: the port is configured and stopped.
        if let Err(reason) = Errno::check(unsafe { ffi::rte_eth_dev_set_mtu(self.id, mtu) }) {
            tracing::debug!(%device, mtu, %reason, "the driver does not set the MTU");
        }
        if self.config.promiscuous {
            // SAFETY: the port is configured.
            let returned = unsafe { ffi::rte_eth_promiscuous_enable(self.id) };
            if let Err(reason) = Errno::check(returned) {
                tracing::warn!(%device, %reason, "the driver has no promiscuous mode");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mtu_is_one_that_ethdev_takes() {
        let nearest = |wanted, min_mtu, max_mtu, max_rx_pktlen| {
            let info = ffi::rte_eth_dev_info {
                min_mtu,
                max_mtu,
                max_rx_pktlen,
                ..Default::default()
            };
            nearest_mtu(wanted, &info)
        };
        assert_eq!(nearest(1540, 68, 9710, 9728), 1540);
        assert_eq!(nearest(9702, 68, 1500, 1526), 1500);
        assert_eq!(nearest(1280, 1500, 9000, 9018), 1500);
        assert_eq!(nearest(9702, 68, u16::MAX, u32::MAX), 9702, "no limits");
        assert_eq!(nearest(9702, 68, 0, u32::MAX), 9702, "no limits");
        assert_eq!(nearest(1540, 68, u16::MAX, 1518), 1500, "AF_PACKET, memif");
        assert_eq!(nearest(1540, 68, u16::MAX, 1522), 1504, "TAP");
        assert_eq!(nearest(1500, 68, 9000, 1518), 1500, "a frame below the MTU");
        assert_eq!(nearest(1540, 68, 9000, 1518), 1500, "a frame below the MTU");
    }
}
