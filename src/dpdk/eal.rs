//! DPDK's environment: memory, cores, buses.
//!
//! The thread that starts EAL becomes its main core: EAL pins it to the management core, and every thread it starts later
//! inherits that. Each worker is a thread of EAL's own ("lcore"), pinned to its core, with a cache of packet buffers.
//! Logical cores are numbered by their role, 0 for management and 1 … n for the workers, and mapped to CPU cores, so that
//! several may share a core on small machines.

use std::cell::RefCell;
use std::convert::Infallible;
use std::ffi::{CString, c_char, c_int, c_void};
use std::marker::PhantomData;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak, mpsc};

use thiserror::Error;

use super::ffi;
use super::hugepages::{self, Hugepages};
use super::{Calibration, Cores, Device, Errno, PoolConfig, log};

/// What EAL is told when it starts.
#[derive(Clone, Debug)]
pub struct EalConfig {
    /// Where management and workers run.
    pub cores: Cores,
    /// Whether to use hugepages.
    pub hugepages: Hugepages,
    /// The pool that will be created: how much memory is needed.
    pub pool: PoolConfig,
    /// All devices that will be opened as ports. EAL leaves other PCI devices alone.
    pub devices: Vec<Device>,
    /// Arguments added to those made from the fields above; among contradicting ones EAL takes the last.
    pub extra_args: Vec<String>,
}

/// Why EAL did not start.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum EalError {
    /// EAL starts once in a process, whether that succeeded or not.
    #[error("EAL can be started only once in a process, and was")]
    Again,
    /// More workers than DPDK has logical cores.
    #[error("at most {} workers are possible, {wanted} were asked for", ffi::RTE_MAX_LCORE - 1)]
    Workers {
        /// Workers asked for.
        wanted: usize,
    },
    /// Hugepages are required and not there.
    #[error("hugepages are required: {needed_mb} MB needed, {free_mb} MB free or not permitted; reserve them with `echo {} > /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages`", needed_mb.div_ceil(2))]
    Hugepages {
        /// Megabytes needed.
        needed_mb: usize,
        /// Megabytes free, of the page size that has most.
        free_mb: usize,
    },
    /// A zero byte in an argument.
    #[error("the EAL argument {argument:?} holds a zero byte")]
    Argument {
        /// The argument.
        argument: String,
    },
    /// EAL's own verdict; its log says more.
    #[error("EAL does not start with the arguments {arguments:?}: {errno}")]
    Init {
        /// What it was given.
        arguments: Vec<String>,
        /// Its reason.
        errno: Errno,
    },
}

/// Why work could not be given to a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum LaunchError {
    /// No worker of that number.
    #[error("there is no worker {worker}, only {workers} from 0 on")]
    NoSuchWorker {
        /// Number asked for.
        worker: usize,
        /// How many there are.
        workers: usize,
    },
    /// It is still at its previous work.
    #[error("worker {worker} is busy")]
    Busy {
        /// Number asked for.
        worker: usize,
    },
}

/// EAL, running. It stays with the thread that started it; dropping it waits until all workers are done.
#[derive(Debug)]
pub struct Eal {
    /// For each worker, what lives as long as the work that it was given last.
    given: RefCell<Vec<Weak<mpsc::Sender<Infallible>>>>,
    hugepages: bool,
    tsc_hz: u64,
    /// DPDK's main core is a thread: neither sent nor shared.
    _main_thread: PhantomData<*const ()>,
}

impl Eal {
    /// Starts EAL, and pins the calling thread to the management core.
    ///
    /// DPDK's log goes to `tracing` from here on, so a subscriber should be set.
    ///
    /// # Errors
    /// See [`EalError`]. EAL cannot be started again after an error of its own.
    pub fn init(config: &EalConfig) -> Result<Self, EalError> {
        static STARTED: AtomicBool = AtomicBool::new(false);

        let workers = config.cores.workers.len();
        if workers >= ffi::RTE_MAX_LCORE as usize {
            return Err(EalError::Workers { wanted: workers });
        }
        let hugepages = decide(config.hugepages, config.pool.memory())?;
        let arguments = arguments(config, hugepages);
        let mut pointers = terminated(&arguments)?;
        let count = pointers.len() as c_int;
        pointers.push(std::ptr::null_mut()); // as the argv of a process ends
        if STARTED.swap(true, Ordering::SeqCst) {
            return Err(EalError::Again);
        }
        let failed = |errno| EalError::Init {
            arguments: arguments.clone(),
            errno,
        };
        log::route().map_err(failed)?;
        tracing::debug!(target: "dpdk", ?arguments, "starting EAL");
        // Most of the time that this takes goes by in EAL.
        let calibration = Calibration::begin();
        // Leaked: EAL may keep pointers into what it was given, and reorders the array.
        let argv = Vec::leak(pointers).as_mut_ptr();
        // SAFETY: `argv` points to `count` terminated strings and a null pointer, all writable and never freed. No other
        // thread is inside EAL, because STARTED lets only one thread here, ever.
        if unsafe { ffi::rte_eal_init(count, argv) } < 0 {
            return Err(failed(Errno::last()));
        }
        Ok(Self {
            given: RefCell::new((0..workers).map(|_| Weak::new()).collect()),
            hugepages,
            tsc_hz: calibration.hz(),
            _main_thread: PhantomData,
        })
    }

    /// How many workers there are.
    #[must_use]
    pub fn workers(&self) -> usize {
        self.given.borrow().len()
    }

    /// Whether memory is on hugepages.
    #[must_use]
    pub fn has_hugepages(&self) -> bool {
        self.hugepages
    }

    /// Ticks of the time stamp counter (`_rdtsc`) in a second, as [`Calibration`] counted them at the start.
    #[must_use]
    pub fn tsc_hz(&self) -> u64 {
        self.tsc_hz
    }

    /// Has worker `worker` (from 0 on) run `work` on its core. A panic in `work` aborts the process.
    ///
    /// # Errors
    /// See [`LaunchError`]; `work` is dropped then.
    pub fn launch<F>(&self, worker: usize, work: F) -> Result<Worker, LaunchError>
    where
        F: FnOnce() + Send + 'static,
    {
        let mut given = self.given.borrow_mut();
        let workers = given.len();
        let Some(given) = given.get_mut(worker) else {
            return Err(LaunchError::NoSuchWorker { worker, workers });
        };
        if given.strong_count() > 0 {
            return Err(LaunchError::Busy { worker });
        }
        // SAFETY: the lcore exists (checked above), and this is the main thread, which `Eal` cannot leave. What it was given is done,
        // so this waits for the few instructions that DPDK has behind it.
        unsafe { ffi::rte_eal_wait_lcore(lcore(worker)) };
        let (alive, done) = mpsc::channel::<Infallible>();
        // It counts as gone before the channel closes, so the worker takes new work from whoever hears that it is done.
        let alive = Arc::new(alive);
        *given = Arc::downgrade(&alive);
        let job = Box::into_raw(Box::new(Job {
            work,
            _alive: alive,
        }));
        // SAFETY: the lcore and the thread are as above. `run::<F>` is the function that knows what `job` points to, and calls for no
        // more than that.
        let refused = unsafe {
            ffi::rte_eal_remote_launch(Some(run::<F>), job.cast::<c_void>(), lcore(worker))
        };
        if refused != 0 {
            // SAFETY: made by `Box::into_raw` above and not taken over by the lcore, which is busy.
            drop(unsafe { Box::from_raw(job) });
            return Err(LaunchError::Busy { worker });
        }
        Ok(Worker { done })
    }
}

impl Drop for Eal {
    fn drop(&mut self) {
        for worker in 0..self.workers() {
            // SAFETY: the lcore exists, and this is the main thread, which `Eal` cannot leave.
            unsafe { ffi::rte_eal_wait_lcore(lcore(worker)) };
        }
        // No rte_eal_cleanup: it unmaps memory that packets may still refer to. The room's page says more.
    }
}

/// Work that a worker was given.
#[derive(Debug)]
pub struct Worker {
    /// Never carries anything: disconnected when the work is done.
    done: mpsc::Receiver<Infallible>,
}

impl Worker {
    /// Sleeps until the work is done.
    pub fn wait(&self) {
        let _disconnected = self.done.recv();
    }

    /// Whether the work is done.
    #[must_use]
    pub fn is_done(&self) -> bool {
        matches!(self.done.try_recv(), Err(mpsc::TryRecvError::Disconnected))
    }
}

struct Job<F> {
    work: F,
    _alive: Arc<mpsc::Sender<Infallible>>,
}

/// Runs on the worker's lcore. A panic cannot leave an `extern "C"` function: it aborts.
unsafe extern "C" fn run<F: FnOnce()>(job: *mut c_void) -> c_int {
    // SAFETY: `launch::<F>` made this pointer by `Box::into_raw` of a `Job<F>` and gave it to this call alone.
    let job = unsafe { Box::from_raw(job.cast::<Job<F>>()) };
    let Job { work, _alive } = *job;
    work();
    0
}

fn lcore(worker: usize) -> u32 {
    worker as u32 + 1 // fewer than RTE_MAX_LCORE
}

fn decide(wish: Hugepages, bytes: usize) -> Result<bool, EalError> {
    if wish == Hugepages::Off {
        return Ok(false);
    }
    if hugepages::available(bytes) {
        return Ok(true);
    }
    let needed_mb = bytes.div_ceil(1 << 20);
    let free_mb = hugepages::free_bytes() >> 20;
    if wish == Hugepages::Require {
        return Err(EalError::Hugepages { needed_mb, free_mb });
    }
    tracing::warn!(
        needed_mb,
        free_mb,
        "not enough hugepages, going on without: slower, and only for virtual devices"
    );
    Ok(false)
}

fn arguments(config: &EalConfig, hugepages: bool) -> Vec<String> {
    let mut lcores = format!("0@{}", config.cores.management);
    for (worker, core) in config.cores.workers.iter().enumerate() {
        lcores.push_str(&format!(",{}@{core}", lcore(worker)));
    }
    let mut arguments: Vec<String> = ["pdmgate", "--no-telemetry", "--lcores"]
        .map(String::from)
        .to_vec();
    arguments.push(lcores);
    arguments.extend(["--main-lcore".into(), "0".into()]);
    // Nothing is shared with other processes, so any number of them can run beside each other, and nothing is left on disk.
    if hugepages {
        arguments.push("--in-memory".into());
    } else {
        let megabytes = config.pool.memory().div_ceil(1 << 20);
        arguments.extend(["--no-shconf", "--no-huge", "-m"].map(String::from));
        arguments.push(megabytes.to_string());
    }
    let mut pci = config
        .devices
        .iter()
        .filter(|device| device.is_pci())
        .peekable();
    if pci.peek().is_none() {
        arguments.push("--no-pci".into());
    }
    for device in pci {
        arguments.extend(["-a".into(), device.to_string()]);
    }
    arguments.extend(config.extra_args.iter().cloned());
    arguments
}

/// The arguments as C has them, leaked.
fn terminated(arguments: &[String]) -> Result<Vec<*mut c_char>, EalError> {
    arguments
        .iter()
        .map(|argument| {
            CString::new(argument.as_str())
                .map(CString::into_raw)
                .map_err(|_| EalError::Argument {
                    argument: argument.clone(),
                })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(devices: &[&str]) -> EalConfig {
        EalConfig {
            cores: Cores {
                management: 0,
                workers: vec![1, 1],
            },
            hugepages: Hugepages::Auto,
            pool: PoolConfig {
                mbufs: 4096,
                size: 2048,
                socket: None,
            },
            devices: devices.iter().map(|text| text.parse().unwrap()).collect(),
            extra_args: vec!["--iova-mode=va".into()],
        }
    }

    #[test]
    fn arguments_for_virtual_devices() {
        let arguments = arguments(&config(&["net_ring0"]), false).join(" ");
        assert!(arguments.contains("--lcores 0@0,1@1,2@1 --main-lcore 0 "));
        assert!(
            arguments.contains(" --no-shconf --no-huge -m 74 "),
            "{arguments}"
        );
        assert!(arguments.contains(" --no-pci "));
        assert!(!arguments.contains("net_ring0"), "opened later");
        assert!(arguments.ends_with(" --iova-mode=va"));
    }

    #[test]
    fn arguments_for_cards() {
        let arguments = arguments(&config(&["03:00.0", "03:00.1", "net_ring0"]), true).join(" ");
        assert!(arguments.contains(" -a 0000:03:00.0 -a 0000:03:00.1 "));
        assert!(!arguments.contains("--no-pci"));
        assert!(arguments.contains(" --in-memory "));
        assert!(!arguments.contains("--no-huge"));
    }

    #[test]
    fn errors_before_eal_is_touched() {
        let mut many = config(&[]);
        many.cores.workers = vec![0; 200];
        assert_eq!(
            Eal::init(&many).unwrap_err(),
            EalError::Workers { wanted: 200 }
        );
        let mut zero = config(&[]);
        zero.hugepages = Hugepages::Off;
        zero.extra_args = vec!["a\0b".into()];
        assert!(matches!(
            Eal::init(&zero).unwrap_err(),
            EalError::Argument { .. }
        ));
    }

    #[test]
    fn hugepages_are_refused_required_or_done_without() {
        assert_eq!(decide(Hugepages::Off, 1), Ok(false));
        assert_eq!(decide(Hugepages::Auto, usize::MAX), Ok(false));
        let error = decide(Hugepages::Require, 1 << 50).unwrap_err();
        assert!(error.to_string().contains("nr_hugepages"), "{error}");
    }
}
