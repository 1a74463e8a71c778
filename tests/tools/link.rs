//! One end of the wire: a packet socket bound to an interface.
//!
//! std has no packet sockets, so one is made by hand and then handed to `UdpSocket`, whose `send` and `recv` are plain
//! send(2) and recv(2) and do for any socket of packets.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::io;
use std::mem::size_of;
use std::net::UdpSocket;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

/// Bytes of a socket's buffer: a burst of a fast TCP must not overrun it while the wire sleeps.
const BUFFER: libc::c_int = 64 << 20;

/// A packet socket: whole Ethernet frames of one interface, without those that this host sends.
pub struct Link {
    socket: UdpSocket,
}

impl Link {
    /// Opens the interface in promiscuous mode.
    ///
    /// # Errors
    /// The interface does not exist, or the process lacks `CAP_NET_RAW`.
    pub fn open(interface: &str) -> io::Result<Self> {
        let name = CString::new(interface)?;
        // SAFETY: `name` is a NUL-terminated string that lives through the call.
        let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
        if index == 0 {
            return Err(io::Error::other(format!(
                "no interface {interface}: {}",
                io::Error::last_os_error()
            )));
        }
        let kind = libc::SOCK_RAW | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        // Protocol 0: nothing is received before bind names the interface, so nothing of another interface slips in.
        // SAFETY: socket(2) takes no pointers.
        let fd = unsafe { libc::socket(libc::AF_PACKET, kind, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `fd` was just returned by socket(2), is open, and nothing else owns it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let index = index.cast_signed();
        set(&fd, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &BUFFER)?;
        set(&fd, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, &BUFFER)?;
        set(
            &fd,
            libc::SOL_PACKET,
            libc::PACKET_IGNORE_OUTGOING,
            &(1 as libc::c_int),
        )?;
        let promiscuous = libc::packet_mreq {
            mr_ifindex: index,
            mr_type: libc::PACKET_MR_PROMISC as u16,
            mr_alen: 0,
            mr_address: [0; 8],
        };
        set(
            &fd,
            libc::SOL_PACKET,
            libc::PACKET_ADD_MEMBERSHIP,
            &promiscuous,
        )?;
        let address = libc::sockaddr_ll {
            sll_family: libc::AF_PACKET as u16,
            sll_protocol: (libc::ETH_P_ALL as u16).to_be(),
            sll_ifindex: index,
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 0,
            sll_addr: [0; 8],
        };
        let size = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        // SAFETY: `address` is a whole sockaddr_ll, `size` is its size, and the kernel only reads it during the call.
        let bound = unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), size) };
        if bound < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self {
            socket: UdpSocket::from(fd),
        })
    }

    /// The next frame, if one waits.
    pub fn receive(&self, buffer: &mut [u8]) -> Option<usize> {
        // An interface that goes down is reported as an error once; the frames that follow its return are read as before.
        self.socket.recv(buffer).ok()
    }

    /// Sends a frame; waits a little for a full queue.
    ///
    /// # Errors
    /// The interface is down, the frame is larger than its MTU, or its queue stayed full.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        for _ in 0..50 {
            match self.socket.send(frame) {
                Ok(_) => return Ok(()),
                Err(error)
                    if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::ENOBUFS)) =>
                {
                    std::thread::sleep(Duration::from_micros(20));
                }
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::from_raw_os_error(libc::ENOBUFS))
    }

    /// Frames that the kernel dropped because this end was read too slowly, since the last call.
    pub fn overrun(&self) -> u64 {
        let mut counts = libc::tpacket_stats {
            tp_packets: 0,
            tp_drops: 0,
        };
        let mut size = size_of::<libc::tpacket_stats>() as libc::socklen_t;
        // SAFETY: `counts` and `size` are valid for writes, and `size` tells the kernel how much room `counts` has.
        let read = unsafe {
            libc::getsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                (&raw mut counts).cast(),
                &raw mut size,
            )
        };
        if read < 0 {
            0
        } else {
            u64::from(counts.tp_drops)
        }
    }
}

impl AsRawFd for Link {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

fn set<T>(fd: &OwnedFd, level: libc::c_int, option: libc::c_int, value: &T) -> io::Result<()> {
    // SAFETY: the kernel reads `size_of::<T>()` bytes from `value`, which is a live reference to a T; every caller passes the
    // type that the option's manual page names.
    let done = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            option,
            std::ptr::from_ref(value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    if done < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Sleeps until one of the descriptors can be read or the time is over; `None` waits without end. poll(2) counts in
/// milliseconds, which is too coarse for a delay that is to be exact.
pub fn wait<const N: usize>(descriptors: [RawFd; N], timeout: Option<Duration>) {
    let mut polls = descriptors.map(|fd| libc::pollfd {
        fd,
        events: libc::POLLIN,
        revents: 0,
    });
    let timeout = timeout.map(|t| libc::timespec {
        tv_sec: t.as_secs().min(3600) as libc::time_t,
        tv_nsec: libc::c_long::from(t.subsec_nanos()),
    });
    let timeout = timeout
        .as_ref()
        .map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: `polls` holds N pollfd; `timeout` is null or points to a timespec that lives to the end of this function; a null
    // mask leaves signals alone. A failure (EINTR) means an early return, which every caller copes with.
    unsafe {
        libc::ppoll(
            polls.as_mut_ptr(),
            N as libc::nfds_t,
            timeout,
            std::ptr::null(),
        )
    };
}

/// Lets timers of this thread fire within a microsecond instead of the kernel's usual 50.
pub fn precise_timers() {
    // SAFETY: this operation of prctl(2) takes a number and no pointer.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1 as libc::c_ulong) };
}
