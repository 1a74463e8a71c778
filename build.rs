//! Generates the DPDK bindings from `ffi/dpdk.h`, compiles `ffi/shim.c`, and links the DPDK libraries the crate calls.
//!
//! DPDK is linked shared: only then does EAL load the drivers from its plugin directory by itself.

use std::env;
use std::panic;
use std::path::PathBuf;
use std::process::{Command, exit};

/// The libraries the bindings below come from; what these need they bring along themselves.
const LIBRARIES: [&str; 4] = ["rte_eal", "rte_ethdev", "rte_mbuf", "rte_mempool"];

const FUNCTIONS: &[&str] = &[
    "pdmgate_.*",
    "rte_dev_probe",
    "rte_eal_init",
    "rte_eal_remote_launch",
    "rte_eal_wait_lcore",
    "rte_eth_dev_adjust_nb_rx_tx_desc",
    "rte_eth_dev_close",
    "rte_eth_dev_configure",
    "rte_eth_dev_get_port_by_name",
    "rte_eth_dev_info_get",
    "rte_eth_dev_set_mtu",
    "rte_eth_dev_socket_id",
    "rte_eth_dev_start",
    "rte_eth_dev_stop",
    "rte_eth_link_get_nowait",
    "rte_eth_macaddr_get",
    "rte_eth_promiscuous_enable",
    "rte_eth_rx_queue_setup",
    "rte_eth_stats_get",
    "rte_eth_tx_queue_setup",
    "rte_mempool_avail_count",
    "rte_pktmbuf_free_bulk",
    "rte_pktmbuf_pool_create",
];

const CONSTANTS: &[&str] = &[
    "PDMGATE_.*",
    "RTE_LOG_(ERR|WARNING|INFO)",
    "RTE_MAX_LCORE",
    "RTE_PKTMBUF_HEADROOM",
];

fn main() {
    println!("cargo:rerun-if-changed=ffi");
    println!("cargo:rerun-if-env-changed=PKG_CONFIG_PATH");

    let dpdk = pkg_config::Config::new()
        .atleast_version("22.11")
        .cargo_metadata(false)
        .probe("libdpdk")
        .unwrap_or_else(|error| give_up(&format!("DPDK 22.11 or later was not found: {error}")));
    for path in &dpdk.link_paths {
        println!("cargo:rustc-link-search=native={}", path.display());
    }
    for library in LIBRARIES {
        println!("cargo:rustc-link-lib=dylib={library}");
    }

    let flags = compiler_flags();
    bindings(&flags);
    let mut shim = cc::Build::new();
    shim.file("ffi/shim.c").warnings(true);
    for flag in &flags {
        shim.flag(flag);
    }
    if let Err(error) = shim.try_compile("pdmgate_shim") {
        give_up(&format!("ffi/shim.c does not compile: {error}"));
    }
}

/// All of `pkg-config --cflags`: the crate of that name drops `-include` and `-march`, which DPDK's headers rely on.
fn compiler_flags() -> Vec<String> {
    let program = env::var_os("PKG_CONFIG").unwrap_or_else(|| "pkg-config".into());
    let output = match Command::new(program).args(["--cflags", "libdpdk"]).output() {
        Ok(output) if output.status.success() => output,
        Ok(output) => give_up(&String::from_utf8_lossy(&output.stderr)),
        Err(error) => give_up(&format!("pkg-config does not run: {error}")),
    };
    // System headers, so that warnings are about our own code.
    String::from_utf8_lossy(&output.stdout)
        .split_whitespace()
        .map(|flag| match flag.strip_prefix("-I") {
            Some(path) => format!("-isystem{path}"),
            None => flag.to_owned(),
        })
        .collect()
}

fn bindings(flags: &[String]) {
    let mut builder = bindgen::Builder::default()
        .header("ffi/dpdk.h")
        .clang_args(flags)
        .use_core()
        .derive_default(true)
        // Only pointers to these are used. (Types that are packed and aligned at once, which Rust cannot express, such as
        // rte_arp_hdr, are not reached from the names above.)
        .opaque_type("rte_mempool")
        .opaque_type("rte_device")
        .parse_callbacks(Box::new(bindgen::CargoCallbacks::new()));
    for name in FUNCTIONS {
        builder = builder.allowlist_function(name);
    }
    for name in CONSTANTS {
        builder = builder.allowlist_var(name);
    }

    // bindgen panics when libclang is missing; its advice is not about this project.
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let generated = panic::catch_unwind(panic::AssertUnwindSafe(|| builder.generate()));
    panic::set_hook(hook);
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default()).join("dpdk.rs");
    match generated {
        Err(_) => give_up("libclang was not found"),
        Ok(Err(error)) => give_up(&format!("ffi/dpdk.h does not translate: {error}")),
        Ok(Ok(bindings)) => {
            if let Err(error) = bindings.write_to_file(&out) {
                give_up(&format!("cannot write {}: {error}", out.display()));
            }
        }
    }
}

fn give_up(reason: &str) -> ! {
    eprintln!("{}\n", reason.trim_end());
    eprintln!("pdmgate needs DPDK, clang and a C compiler. On Debian or Ubuntu:\n");
    eprintln!("    apt-get install libdpdk-dev dpdk clang libclang-dev pkg-config gcc\n");
    eprintln!("or let `make setup` do it.");
    exit(1)
}
