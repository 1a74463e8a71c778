//! Traffic between two hosts in which every byte is known to both ends.

use crate::random::Random;
use clap::Args;
use serde_json::json;
use std::collections::HashSet;
use std::io::{self, BufReader, Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

/// Opens a stream: which bytes follow, and how many.
const MAGIC: &[u8; 8] = b"pdmlab01";
/// Bytes made and compared at once.
const CHUNK: usize = 1 << 16;

/// Receives and checks byte streams
#[derive(Args)]
pub struct TcpServe {
    /// Port to listen on, on all addresses
    #[arg(long)]
    port: u16,
}

/// Sends a byte stream
#[derive(Args)]
pub struct TcpSend {
    /// Where tcp-serve listens
    #[arg(long)]
    to: SocketAddr,
    /// Bytes to send
    #[arg(long)]
    bytes: u64,
    /// Which bytes
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Receives numbered datagrams until none has come for a while
#[derive(Args)]
pub struct UdpSink {
    /// Port to listen on, on all addresses
    #[arg(long)]
    port: u16,
    /// Ends when this long has passed since the last datagram
    #[arg(long, default_value = "1s", value_parser = crate::duration)]
    idle: Duration,
    /// Ends when the first datagram has not come by then
    #[arg(long, default_value = "30s", value_parser = crate::duration)]
    first: Duration,
    /// Sends each datagram back
    #[arg(long)]
    echo: bool,
    /// How long it takes over each datagram before it sends it back
    #[arg(long, default_value = "0ms", value_parser = crate::duration)]
    delay: Duration,
}

/// Sends numbered datagrams
#[derive(Args)]
pub struct UdpSend {
    /// Where udp-sink listens
    #[arg(long)]
    to: SocketAddr,
    /// Port to send from
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Datagrams to send
    #[arg(long)]
    count: u64,
    /// Datagrams per second
    #[arg(long, default_value_t = 1000)]
    rate: u64,
    /// Bytes of a datagram's payload, at least 8
    #[arg(long, default_value_t = 200)]
    size: usize,
}

/// Serves until it is killed; prints one JSON line a stream.
///
/// # Errors
/// The port cannot be listened on.
pub fn tcp_serve(options: &TcpServe) -> io::Result<()> {
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, options.port))?;
    eprintln!("tcp-serve: ready");
    for stream in listener.incoming() {
        let stream = stream?;
        thread::spawn(move || {
            if let Err(error) = receive_stream(stream) {
                println!("{}", json!({ "error": error.to_string() }));
            }
        });
    }
    Ok(())
}

fn receive_stream(stream: TcpStream) -> io::Result<()> {
    let mut input = BufReader::with_capacity(CHUNK, stream.try_clone()?);
    let mut head = [0; 24];
    input.read_exact(&mut head)?;
    let (magic, rest) = head.split_at(8);
    if magic != MAGIC {
        return Err(io::Error::other(format!(
            "expected a stream of tcp-send, found {magic:02x?}"
        )));
    }
    let number = |bytes: &[u8]| bytes.iter().fold(0, |n, &b| n << 8 | u64::from(b));
    let (seed, bytes) = (number(&rest[..8]), number(&rest[8..]));
    let mut random = Random::at(seed, 0, 0);
    let (mut expected, mut found) = (vec![0; CHUNK], vec![0; CHUNK]);
    let mut at = 0;
    let mut intact = true;
    while at < bytes && intact {
        let length = CHUNK.min((bytes - at) as usize);
        random.fill(&mut expected);
        input.read_exact(&mut found[..length])?;
        intact = expected[..length] == found[..length];
        at += length as u64;
    }
    intact &= input.read(&mut found)? == 0;
    let verdict = json!({ "bytes": at, "intact": intact });
    writeln!(&stream, "{verdict}")?;
    println!("{verdict}");
    Ok(())
}

/// Sends one stream, and prints what the receiver says of it.
///
/// # Errors
/// No connection, a broken one, or a stream that did not arrive intact.
pub fn tcp_send(options: &TcpSend) -> io::Result<()> {
    let start = Instant::now();
    let mut stream = TcpStream::connect_timeout(&options.to, Duration::from_secs(15))?;
    stream.write_all(MAGIC)?;
    stream.write_all(&options.seed.to_be_bytes())?;
    stream.write_all(&options.bytes.to_be_bytes())?;
    let mut random = Random::at(options.seed, 0, 0);
    let mut chunk = vec![0; CHUNK];
    let mut left = options.bytes;
    while left > 0 {
        let length = CHUNK.min(left as usize);
        random.fill(&mut chunk);
        stream.write_all(&chunk[..length])?;
        left -= length as u64;
    }
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut verdict = String::new();
    stream.read_to_string(&mut verdict)?;
    let verdict: serde_json::Value = serde_json::from_str(&verdict)?;
    let intact = verdict["intact"] == true && verdict["bytes"] == options.bytes;
    let seconds = start.elapsed().as_secs_f64();
    let megabits = options.bytes as f64 * 8e-6 / seconds;
    println!(
        "{}",
        json!({ "bytes": options.bytes, "intact": intact, "seconds": seconds, "mbit_per_s": megabits.round() })
    );
    if intact {
        Ok(())
    } else {
        Err(io::Error::other(format!(
            "the stream did not arrive intact: {verdict}"
        )))
    }
}

fn payload(number: u64, bytes: &mut [u8]) {
    Random::at(number, 1, 0).fill(bytes);
    let head = bytes.len().min(8);
    bytes[..head].copy_from_slice(&number.to_be_bytes()[..head]);
}

/// Receives datagrams, and prints how many came, came twice, came late or came changed.
///
/// # Errors
/// The port is taken, or no datagram came in time.
pub fn udp_sink(options: &UdpSink) -> io::Result<()> {
    let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, options.port))?;
    socket.set_read_timeout(Some(options.first))?;
    eprintln!("udp-sink: ready");
    let (mut buffer, mut expected) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    let mut seen = HashSet::new();
    let (mut received, mut copies, mut reordered, mut changed, mut newest) =
        (0u64, 0u64, 0u64, 0u64, None);
    loop {
        let (length, from) = match socket.recv_from(&mut buffer) {
            Ok(datagram) => datagram,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && received > 0 => break,
            Err(error) => return Err(error),
        };
        if received == 0 {
            socket.set_read_timeout(Some(options.idle))?;
        }
        received += 1;
        thread::sleep(options.delay);
        if options.echo {
            socket.send_to(&buffer[..length], from)?;
        }
        let number = buffer[..length]
            .first_chunk()
            .map_or(0, |head| u64::from_be_bytes(*head));
        payload(number, &mut expected[..length]);
        if length < 8 || expected[..length] != buffer[..length] {
            changed += 1;
        } else if !seen.insert(number) {
            copies += 1;
        } else {
            reordered += u64::from(newest.is_some_and(|newest| number < newest));
            newest = newest.max(Some(number));
        }
    }
    println!(
        "{}",
        json!({ "received": received, "distinct": seen.len(), "copies": copies, "reordered": reordered, "changed": changed,
                "newest": newest })
    );
    Ok(())
}

/// Sends datagrams, and prints how many went out and how many came back.
///
/// # Errors
/// A send fails.
pub fn udp_send(options: &UdpSend) -> io::Result<()> {
    let any = if options.to.is_ipv6() {
        IpAddr::V6(Ipv6Addr::UNSPECIFIED)
    } else {
        IpAddr::V4([0; 4].into())
    };
    let socket = UdpSocket::bind((any, options.port))?;
    socket.connect(options.to)?;
    let back = socket.try_clone()?;
    back.set_read_timeout(Some(Duration::from_millis(500)))?;
    let echoes = thread::spawn(move || {
        let mut buffer = [0; 1 << 16];
        let mut count = 0u64;
        let mut last = Instant::now();
        // Silence before the first echo counts from the first datagram, so the limit also covers a long stream without any.
        while last.elapsed() < Duration::from_secs(2) {
            if back.recv(&mut buffer).is_ok() {
                count += 1;
                last = Instant::now();
            }
        }
        count
    });
    let mut bytes = vec![0; options.size.max(8)];
    let start = Instant::now();
    for number in 0..options.count {
        let due = Duration::from_nanos(number.saturating_mul(1_000_000_000) / options.rate.max(1));
        if let Some(early) = due.checked_sub(start.elapsed()) {
            thread::sleep(early);
        }
        payload(number, &mut bytes);
        match socket.send(&bytes) {
            // Said of a datagram before this one: the network was not there for a while, or the receiver has had enough. Who counts what
            // arrived finds out.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::HostUnreachable | io::ErrorKind::ConnectionRefused
                ) => {}
            sent => _ = sent?,
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    let echoes = echoes.join().unwrap_or(0);
    println!(
        "{}",
        json!({ "sent": options.count, "echoes": echoes, "seconds": seconds })
    );
    Ok(())
}
