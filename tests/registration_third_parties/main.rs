//! What a third Secondary of a pairing can make of a flow between two others.
//!
//! Two appliances register, real hosts behind them talk, and what crosses between the appliances is captured. A third Secondary
//! registers over TLS, with a certificate and an entry of its own, and is listed like the others: a process that was written apart
//! from pdmgate's, so that every byte that a Primary tells it is at hand. All that can be derived from those bytes is tried on each
//! sealed option of the capture, under each pair of generations that its lists name.
//!
//! Why that proves the claim: an appliance would not even try, since the flow is between entries of others; so the attempt is made by the
//! test, which knows what any appliance in that place would know, and is bound by none of an appliance's rules. The control is that the
//! very same attempt opens every option with what the Primaries tell a Secondary of either end's own entry, so if none opens, it
//! is for want of the right secret and of nothing else.

#[path = "../common/mod.rs"]
mod common;
#[path = "../wirepeer/mod.rs"]
mod wirepeer;

use common::capture::Packet;
use common::lab::{Datagrams, Lab, Place, Shape, Side};
use common::process::Process;
use common::site::{self, Terms};
use pdmgate::crypto::{
    EntryId, IbcClientKey, IbcServerKey, Kernel, OpenJob, PairClientSecret, PairDeviceKey,
    PairServerSecret, SessionInfo, SharedSecret, Suite,
};
use pdmgate::wire::FiveTuple;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use wirepeer::cbor::Cbor;
use wirepeer::conn::{ALPN, Came, Conn, client_config};
use wirepeer::ends::{Secondary, entry, grant, seals};
use wirepeer::secret::random;

const CLIENTS: &str = "2001:db8:1::/64";
const SERVERS: &str = "2001:db8:2::/64";
const THIRD_CLIENT: &str = "2001:db8:11::/64";
const THIRD_SERVER: &str = "2001:db8:22::/64";
const OTHER_SERVER: &str = "2001:db8:33::/64";
/// What a Secondary's process is to do, as JSON.
const ORDER: &str = "PDMGATE_TEST_SECONDARY";
/// How long a key that was asked for may take.
const ANSWER: Duration = Duration::from_millis(700);
/// Keys of a flow that are tried.
const KRIS: u32 = 3;
const STREAM: Datagrams = Datagrams {
    count: 50,
    rate: 500,
    size: 100,
    echo: true,
};

/// The pairing, as the Primary of a side calls it.
fn pairing(side: Side) -> &'static str {
    match side {
        Side::A => "branch",
        Side::B => "hq",
    }
}

/// Not a test of its own: the process of a Secondary, which writes what it was told into a file and stays.
#[test]
#[ignore = "the other tests run it in a namespace"]
fn secondary() {
    let Ok(order) = std::env::var(ORDER) else {
        return;
    };
    let order: serde_json::Value = serde_json::from_str(&order).unwrap();
    let text = |key: &str| order[key].as_str().unwrap().to_owned();
    let (dir, own, pairing) = (text("dir"), text("entry"), text("pairing"));
    let certificate = client_config(dir.as_ref(), Some(&text("certificate")), &[ALPN]);
    let name: &'static str = text("primary").leak();
    let address = text("address").parse().unwrap();
    let conn = Conn::connect_to(certificate, address, name).unwrap();
    let mut secondary = Secondary::register(conn, random(), &[&own]);
    let given = secondary.until(|grants| {
        let grant = grant(grants, &pairing).filter(|_| seals(grants, &pairing))?;
        Some(grant.clone())
    });
    let mut keys = Vec::new();
    for master in given.get("masters").items() {
        for (own, peer) in [
            (own.as_str(), CLIENTS),
            (&own, SERVERS),
            // It serves neither of these.
            (SERVERS, CLIENTS),
            (CLIENTS, SERVERS),
        ] {
            let poll = Cbor::message("poll")
                .with("pairing", pairing.as_str())
                .with("master", master.get("id").clone())
                .with("own", entry(own).bytes())
                .with("peer", entry(peer).bytes());
            secondary.conn.send(&poll);
        }
    }
    loop {
        match secondary.conn.next(ANSWER) {
            Came::Message(message, _) if message.kind() == "poll-key" => {
                keys.push(message.get("key").clone());
            }
            Came::Message(message, _) if message.kind() == "share" => {
                let serial = message.get("serial").clone();
                let ack = Cbor::message("ack").with("serial", serial);
                secondary.conn.send(&ack);
            }
            Came::Nothing => break,
            other => panic!("expected keys, found {other:?}"),
        }
    }
    let told = Cbor::map().with("grant", given).with("keys", keys);
    let (file, draft) = (text("file"), text("file") + ".draft");
    std::fs::write(&draft, told.encode()).unwrap();
    std::fs::rename(draft, file).unwrap();
    let _stays = secondary.in_background();
    std::thread::sleep(Duration::from_secs(120));
}

/// What a Secondary was told, and its process.
struct Told {
    grant: Cbor,
    keys: Vec<Vec<u8>>,
    _process: Process,
}

/// Registers a Secondary at a side's Primary.
fn register(lab: &Lab, side: Side, certificate: &str, own: &str) -> Told {
    let file = lab.dir().join(format!("{certificate}.told"));
    let order = serde_json::json!({
        "dir": lab.dir(), "certificate": certificate, "entry": own, "pairing": pairing(side),
        "primary": site::primary_name(side), "address": site::primary_address(side), "file": file,
    });
    let mut command = lab
        .gate_netns(side)
        .command(std::env::current_exe().unwrap());
    command.args(["--exact", "secondary", "--ignored", "--nocapture"]);
    command.env(ORDER, order.to_string());
    let mut process = Process::start(command);
    let told = process.wait_until("be told", Duration::from_secs(20), |_| {
        std::fs::read(&file).ok()
    });
    let told = Cbor::decode(&told);
    let keys = told.get("keys").items().iter();
    Told {
        grant: told.get("grant").clone(),
        keys: keys.map(|key| key.bytes().to_vec()).collect(),
        _process: process,
    }
}

fn id(entry: &[u8]) -> EntryId {
    EntryId::new(entry[..16].try_into().unwrap(), entry[16]).unwrap()
}

impl Told {
    fn entries(&self, list: &str) -> Vec<EntryId> {
        let entries = self.grant.get(list).items().iter();
        entries.map(|e| id(e.get("entry").bytes())).collect()
    }

    fn generations(&self) -> BTreeSet<u32> {
        let lists = ["clients", "servers"].map(|list| self.grant.get(list).items());
        let listed = lists.into_iter().flatten();
        let numbers = listed.flat_map(|listed| listed.get("generations").items());
        numbers.map(|number| number.uint() as u32).collect()
    }

    /// Every secret of a pair of entries that comes from what it was told, with any entry of the lists in each place.
    fn secrets(&self, suite: &Suite) -> Vec<SharedSecret> {
        let key = |key: &[u8]| <[u8; 32]>::try_from(key).unwrap();
        let (clients, servers) = (self.entries("clients"), self.entries("servers"));
        let mut secrets = Vec::new();
        let polled = self.keys.iter().map(|k| PairDeviceKey::from_bytes(key(k)));
        secrets.extend(polled.map(SharedSecret::from));
        let masters = self.grant.get("masters").items().iter();
        for material in masters.flat_map(|master| master.get("material").items()) {
            let own = || material.get("key").bytes();
            match material.get("kind").text() {
                "server" => {
                    let server = PairServerSecret::from_bytes(key(own()));
                    let of = |client| SharedSecret::from(server.client_secret(suite, client));
                    secrets.extend(clients.iter().map(of));
                }
                "client" => {
                    let groups = material.get("groups").items().iter();
                    let keys = groups.map(|group| key(group.get("key").bytes()));
                    let keys = keys.map(PairClientSecret::from_bytes);
                    secrets.extend(keys.map(SharedSecret::from));
                }
                "poll-client" => {
                    let client = PairClientSecret::from_bytes(key(own()));
                    let of = |server| SharedSecret::from(client.pair_device_key(suite, server));
                    secrets.extend(servers.iter().map(of));
                }
                "pair-keys" => {
                    let keys = material.get("keys").items().iter();
                    let keys = keys.map(|pair| key(pair.get("key").bytes()));
                    let keys = keys.map(PairDeviceKey::from_bytes);
                    secrets.extend(keys.map(SharedSecret::from));
                }
                "ibc-client" => {
                    let client = IbcClientKey::from_bytes(own().try_into().unwrap());
                    let of = |server| client.shared_secret(suite, server).unwrap();
                    secrets.extend(servers.iter().map(of));
                }
                "ibc-server" => {
                    let server = IbcServerKey::from_bytes(own().try_into().unwrap());
                    let of = |client| server.shared_secret(suite, client).unwrap();
                    secrets.extend(clients.iter().map(of));
                }
                other => panic!("no material {other}"),
            }
        }
        assert!(!secrets.is_empty(), "it was told no secret at all");
        secrets
    }

    /// How many of the sealed options it opens.
    fn opens(&self, packets: &[Packet]) -> usize {
        let (suite, kernel) = (Suite::default(), Kernel::detect());
        let (secrets, generations) = (self.secrets(&suite), self.generations());
        let opens = |packet: &&Packet| {
            let Some((tuple, option, f)) = sealed(packet) else {
                return false;
            };
            let tries = |secret: &SharedSecret, src_generation, dst_generation, kri| {
                let info = SessionInfo {
                    tuple: &tuple,
                    src_generation,
                    dst_generation,
                    kri,
                };
                let session = secret.session_key(&suite, &info);
                let mut job = [OpenJob::new(&session, &option)];
                kernel.open(suite.aead, &mut job);
                job[0].opened.metrics().is_some()
            };
            let kris = || (0..KRIS).filter(|kri| (kri & 1 == 1) == f);
            let pairs = || {
                let each = generations.iter();
                each.flat_map(|s| generations.iter().map(move |d| (*s, *d)))
            };
            let mut secrets = secrets.iter();
            secrets.any(|secret| {
                pairs().any(|(src, dst)| kris().any(|kri| tries(secret, src, dst, kri)))
            })
        };
        packets.iter().filter(opens).count()
    }
}

/// A packet's flow, its whole sealed option, and F.
fn sealed(packet: &Packet) -> Option<(FiveTuple, [u8; 36], bool)> {
    let ip = packet.ipv6()?;
    let sealed = ip.sealed()?;
    let (src, dst, sport, dport, protocol) = ip.tuple();
    let tuple = FiveTuple {
        src: src.octets(),
        dst: dst.octets(),
        sport,
        dport,
        protocol,
    };
    let option = [&[0x0f, 0x22][..], &sealed.data].concat();
    Some((tuple, option.try_into().unwrap(), sealed.f))
}

/// Who opens what two sites say to each other.
#[derive(Debug, PartialEq, Eq)]
struct Opened {
    /// Another server, of the same group.
    server: bool,
    /// A server of another group.
    other_group: bool,
    /// Another client.
    client: bool,
}

/// Runs it; asserts that whoever serves either end's entry opens all, and that a third party opens all or nothing.
fn who_opens(mode: &'static str) -> Option<Opened> {
    let lab = Lab::new(Shape::default())?;
    let authority = site::prepare(&lab);
    let thirds = [
        (Side::A, "third-client.example", THIRD_CLIENT, None),
        (Side::B, "third-server.example", THIRD_SERVER, Some("web")),
        (Side::B, "other-server.example", OTHER_SERVER, Some("mail")),
    ];
    let terms = Terms {
        mode,
        ..Terms::default()
    };
    let gate_a = site::embedded(&lab, Side::A, &terms);
    let gate_b = site::embedded(&lab, Side::B, &terms);
    site::wait_until_registered(&lab);
    let thirds = thirds.map(|(side, name, own, group)| {
        authority.certificate(name);
        let mut add = vec!["lists", "add", pairing(side), own, "--secondary", name];
        add.extend(group.into_iter().flat_map(|group| ["--group", group]));
        site::operate(&lab, side, &add).success();
        register(&lab, side, name, own)
    });
    // All five send by now.
    let until = Instant::now() + Duration::from_secs(20);
    while [Side::A, Side::B].map(|side| sending(&lab, side)) != [2, 3] {
        assert!(Instant::now() < until, "not all are registered");
        std::thread::sleep(Duration::from_millis(100));
    }

    // The pair's keys come with the first packets.
    lab.ping(Side::A, 5, "0.2");
    let failed = || [&gate_a, &gate_b].map(|gate| gate.failed());
    let before = failed();
    let between = lab.capture(Place::Outside(Side::A), "ip6");
    assert_eq!(lab.ping(Side::A, 10, "0.02").len(), 10);
    lab.udp(Side::A, 6001, &STREAM);
    let mut packets = between.packets();
    packets.retain(|packet| sealed(packet).is_some());
    let all = packets.len();
    assert!(all >= 110, "{all} were sealed");
    assert_eq!(failed(), before, "{}\n{}", gate_a.log(), gate_b.log());

    for (side, own) in [(Side::A, CLIENTS), (Side::B, SERVERS)] {
        let control = register(&lab, side, site::secondary_name(side), own);
        assert_eq!(control.opens(&packets), all, "{mode}: {own} itself");
    }
    let [client, server, other_group] = thirds.map(|third| match third.opens(&packets) {
        0 => false,
        opened => {
            assert_eq!(opened, all);
            true
        }
    });
    gate_a.stop();
    gate_b.stop();
    Some(Opened {
        server,
        other_group,
        client,
    })
}

/// Secondaries that send, at a side's Primary.
fn sending(lab: &Lab, side: Side) -> usize {
    let status = site::registrations(lab, side);
    let own = status["pairings"][0]["own"].as_array().unwrap().iter();
    let all = own.flat_map(|own| own["secondaries"].as_array().unwrap());
    all.filter(|s| s["state"] == "sending").count()
}

const NOBODY: Opened = Opened {
    server: false,
    other_group: false,
    client: false,
};

#[test]
fn trusted_servers_open_what_their_group_receives() {
    if let Some(opened) = who_opens("trusted-servers") {
        let group = Opened {
            server: true,
            ..NOBODY
        };
        assert_eq!(opened, group);
    }
}

#[test]
fn asymmetric_poll_is_between_two() {
    if let Some(opened) = who_opens("asymmetric-poll") {
        assert_eq!(opened, NOBODY);
    }
}

#[test]
fn identity_based_is_between_two() {
    if let Some(opened) = who_opens("ibc") {
        assert_eq!(opened, NOBODY);
    }
}
