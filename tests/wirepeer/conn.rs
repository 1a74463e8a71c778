//! A TLS connection that carries frames, with blocking reads that end.

use super::SOON;
use super::cbor::Cbor;
use super::rules;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned,
};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub const ALPN: &[u8] = b"pdmv2-reg/1";

trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

/// One connection.
pub struct Conn {
    stream: Box<dyn Stream>,
    pub tcp: TcpStream,
    buffer: Vec<u8>,
    closed: bool,
}

/// What came.
#[derive(Debug)]
pub enum Came {
    /// A message, and its bytes.
    Message(Cbor, Vec<u8>),
    /// The other end closed the connection.
    End,
    /// Nothing in time.
    Nothing,
}

fn roots(path: &Path) -> Arc<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).unwrap() {
        roots.add(certificate.unwrap()).unwrap();
    }
    Arc::new(roots)
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

type Credentials = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn credentials(dir: &Path, name: &str) -> Credentials {
    let chain = CertificateDer::pem_file_iter(dir.join(format!("{name}.pem"))).unwrap();
    let key = PrivateKeyDer::from_pem_file(dir.join(format!("{name}.key"))).unwrap();
    (chain.map(Result::unwrap).collect(), key)
}

/// How a client connects; `dir` has `ca.pem`, `NAME.pem` and `NAME.key`.
pub fn client_config(dir: &Path, name: Option<&str>, alpn: &[&[u8]]) -> Arc<ClientConfig> {
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots(&dir.join("ca.pem")));
    let mut config = match name {
        Some(name) => {
            let (chain, key) = credentials(dir, name);
            config.with_client_auth_cert(chain, key).unwrap()
        }
        None => config.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Arc::new(config)
}

fn server_config(dir: &Path, name: &str) -> Arc<ServerConfig> {
    let verifier =
        WebPkiClientVerifier::builder_with_provider(roots(&dir.join("ca.pem")), provider());
    let (chain, key) = credentials(dir, name);
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(chain, key)
        .unwrap();
    config.alpn_protocols = vec![ALPN.to_vec()];
    Arc::new(config)
}

fn tcp(address: SocketAddr) -> TcpStream {
    let tcp = TcpStream::connect(address).unwrap();
    tcp.set_nodelay(true).unwrap();
    tcp
}

fn bounded(tcp: &TcpStream, limit: Duration) {
    tcp.set_read_timeout(Some(limit)).unwrap();
    tcp.set_write_timeout(Some(SOON)).unwrap();
}

impl Conn {
    /// Connects to `hq.example` with the certificate `name`.
    pub fn connect(dir: &Path, name: &str, port: u16) -> Self {
        Self::try_connect(client_config(dir, Some(name), &[ALPN]), port).unwrap()
    }

    /// Connects, which may be refused in the handshake.
    pub fn try_connect(config: Arc<ClientConfig>, port: u16) -> io::Result<Self> {
        Self::connect_to(config, ([127, 0, 0, 1], port).into(), "hq.example")
    }

    /// Connects to a Primary of that name somewhere else.
    pub fn connect_to(
        config: Arc<ClientConfig>,
        address: SocketAddr,
        name: &'static str,
    ) -> io::Result<Self> {
        let tcp = tcp(address);
        bounded(&tcp, SOON);
        let name = ServerName::try_from(name).unwrap();
        let mut tls = ClientConnection::new(config, name).map_err(io::Error::other)?;
        let mut through = tcp.try_clone()?;
        while tls.is_handshaking() {
            tls.complete_io(&mut through)?;
        }
        assert_eq!(tls.alpn_protocol(), tls.alpn_protocol().map(|_| ALPN));
        Ok(Self::over(StreamOwned::new(tls, through), tcp))
    }

    fn over(stream: impl Stream + 'static, tcp: TcpStream) -> Self {
        Self {
            stream: Box::new(stream),
            tcp,
            buffer: Vec::new(),
            closed: false,
        }
    }

    /// Sends a message; returns its bytes.
    pub fn send(&mut self, message: &Cbor) -> Vec<u8> {
        let bytes = message.encode();
        self.send_bytes(&bytes);
        bytes
    }

    /// Sends a frame that holds `bytes`.
    pub fn send_bytes(&mut self, bytes: &[u8]) {
        let frame = [&(bytes.len() as u32).to_be_bytes(), bytes].concat();
        self.send_raw(&frame);
    }

    /// Sends bytes as they are. That the other end is gone shows when something is received.
    pub fn send_raw(&mut self, bytes: &[u8]) {
        let written = self
            .stream
            .write_all(bytes)
            .and_then(|()| self.stream.flush());
        if written.is_err() {
            self.closed = true;
        }
    }

    /// The next frame, whatever it is.
    pub fn next(&mut self, limit: Duration) -> Came {
        let until = Instant::now() + limit;
        loop {
            if let Some(bytes) = self.frame() {
                let message = Cbor::decode(&bytes);
                rules::check(&message);
                return Came::Message(message, bytes);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Came::Nothing;
            }
            bounded(&self.tcp, left);
            let mut some = [0; 16384];
            match self.stream.read(&mut some) {
                Ok(0) => return Came::End,
                Ok(read) => self.buffer.extend(&some[..read]),
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Came::End,
            }
        }
    }

    fn frame(&mut self) -> Option<Vec<u8>> {
        let length = self.buffer.first_chunk()?;
        let end = 4 + u32::from_be_bytes(*length) as usize;
        assert!((5..=4 + (1 << 20)).contains(&end), "a frame of {end} bytes");
        if self.buffer.len() < end {
            return None;
        }
        let bytes = self.buffer[4..end].to_vec();
        self.buffer.drain(..end);
        Some(bytes)
    }

    /// The next message besides pings, which are answered; and its bytes.
    pub fn message(&mut self) -> (Cbor, Vec<u8>) {
        let until = Instant::now() + SOON;
        loop {
            match self.next(until.saturating_duration_since(Instant::now())) {
                Came::Message(ping, _) if ping.kind() == "ping" => {
                    let number = ping.get("number").clone();
                    self.send(&Cbor::message("pong").with("number", number));
                }
                Came::Message(message, bytes) => return (message, bytes),
                other => panic!("expected a message, found {other:?}"),
            }
        }
    }

    /// The next message, which is of that kind.
    pub fn expect(&mut self, kind: &str) -> Cbor {
        let (message, _) = self.message();
        assert_eq!(message.kind(), kind, "{message:?}");
        message
    }

    /// Asserts that nothing but pings comes for a while.
    pub fn expect_nothing(&mut self, limit: Duration) {
        match self.next(limit) {
            Came::Nothing => {}
            other => panic!("expected nothing, found {other:?}"),
        }
    }

    /// Asserts that the other end closes, and says no more.
    pub fn expect_end(&mut self) {
        match self.next(SOON) {
            Came::End => {}
            other => panic!("expected the end, found {other:?}"),
        }
    }

    /// Asserts that the other end closes, and says nothing besides shares and pings.
    pub fn expect_end_after_shares(&mut self) {
        loop {
            match self.next(SOON) {
                Came::End => return,
                Came::Message(message, _) if ["share", "ping"].contains(&message.kind()) => {}
                other => panic!("expected the end, found {other:?}"),
            }
        }
    }

    /// Asserts that the other end says why it closes, and closes.
    pub fn expect_refused(&mut self, reason: &str) {
        let refused = self.expect("refused");
        assert_eq!(refused.get("reason").text(), reason);
        self.expect_end();
    }

    /// Sends a ping and returns what came before its pong.
    pub fn ping(&mut self, number: u64) -> Vec<Cbor> {
        self.send(&Cbor::message("ping").with("number", number));
        let mut before = Vec::new();
        loop {
            let (message, _) = self.message();
            if message.kind() == "pong" {
                assert_eq!(message.get("number").uint(), number);
                return before;
            }
            before.push(message);
        }
    }
}

/// Where a Primary Client of the appliance connects to.
pub struct Door {
    listener: TcpListener,
    config: Arc<ServerConfig>,
}

impl Door {
    /// Listens with the certificate `name`.
    pub fn open(dir: &Path, name: &str) -> Self {
        Self {
            listener: TcpListener::bind("127.0.0.1:0").unwrap(),
            config: server_config(dir, name),
        }
    }

    pub fn port(&self) -> u16 {
        self.listener.local_addr().unwrap().port()
    }

    /// The next connection whose handshake succeeds: one that waited for long may have been given up.
    pub fn accept(&self) -> Conn {
        let until = Instant::now() + SOON;
        loop {
            match self.try_accept() {
                Ok(conn) => return conn,
                Err(error) => assert!(Instant::now() < until, "{error}"),
            }
        }
    }

    /// Whether anybody connects within `limit`; whoever does is turned away.
    pub fn knocks(&self, limit: Duration) -> bool {
        self.knock(limit).is_some()
    }

    fn knock(&self, limit: Duration) -> Option<TcpStream> {
        self.listener.set_nonblocking(true).unwrap();
        let until = Instant::now() + limit;
        while Instant::now() < until {
            if let Ok((tcp, _)) = self.listener.accept() {
                return Some(tcp);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        None
    }

    /// The next connection, which may end in the handshake.
    pub fn try_accept(&self) -> io::Result<Conn> {
        let tcp = self.knock(SOON).expect("nobody connects");
        tcp.set_nonblocking(false)?;
        tcp.set_nodelay(true)?;
        bounded(&tcp, SOON);
        let mut tls = ServerConnection::new(Arc::clone(&self.config)).map_err(io::Error::other)?;
        let mut through = tcp.try_clone()?;
        while tls.is_handshaking() {
            tls.complete_io(&mut through)?;
        }
        assert_eq!(tls.alpn_protocol(), Some(ALPN));
        Ok(Conn::over(StreamOwned::new(tls, through), tcp))
    }
}
