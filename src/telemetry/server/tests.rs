//! Both servers and the client over real sockets.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::Instant;

use super::*;
use crate::telemetry::client::{Client, ClientError};
use crate::telemetry::records::FlowSort;
use crate::telemetry::records::tests::sample_flow;
use crate::telemetry::{Counter, Direction, Gauges, Telemetry};

struct Sample(Telemetry);

impl Source for Sample {
    fn stats(&self) -> Stats {
        self.0.stats(Gauges::default())
    }

    fn flows(&self, query: &FlowQuery) -> Vec<FlowRecord> {
        query.select(|take| (0..300).map(sample_flow).for_each(take))
    }

    fn metrics(&self) -> String {
        self.0.metrics(Gauges::default())
    }
}

fn start(socket: Option<&Path>) -> Server {
    let telemetry = Telemetry::new(1);
    telemetry.workers[0]
        .of(Direction::Out)
        .add(Counter::MarkedSealed, 3);
    let listen = Listen {
        prometheus: Some("[::1]:0".parse().unwrap()),
        socket: socket.map(Path::to_owned),
    };
    Server::start(&listen, Arc::new(Sample(telemetry))).unwrap()
}

fn http_get(server: &Server, path: &str) -> String {
    let mut stream = TcpStream::connect(server.prometheus().unwrap()).unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn prometheus_is_served_over_tcp() {
    let server = start(None);
    let answer = http_get(&server, "/metrics");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("text/plain; version=0.0.4"), "{answer}");
    assert!(answer.contains("pdmgate_marked_total{protection=\"sealed\"} 3"));
    assert!(http_get(&server, "/healthz").ends_with("ok\n"));
    assert!(http_get(&server, "/v1/stats").starts_with("HTTP/1.1 404"));
}

#[test]
fn records_are_served_over_the_socket() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("run/pdmgate.sock");
    let server = start(Some(&path));
    let client = Client::new(&path).unwrap();
    assert_eq!(client.stats().unwrap().workers.len(), 1);
    assert_eq!(client.flows(&FlowQuery::default()).unwrap().len(), 100);
    let query = FlowQuery {
        limit: 2,
        sort: FlowSort::Rtt,
        pairing: Some("odd".to_owned()),
    };
    let flows = client.flows(&query).unwrap();
    assert_eq!(flows, [sample_flow(1), sample_flow(3)]);
    let strange = FlowQuery {
        pairing: Some("a b&limit=ü%".to_owned()),
        ..FlowQuery::default()
    };
    assert_eq!(client.flows(&strange).unwrap(), []);
    server.stop();
    assert!(!path.exists());
    let error = client.stats().unwrap_err();
    assert!(matches!(error, ClientError::Unreachable { .. }), "{error}");
}

#[test]
fn a_question_that_makes_no_sense_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("s");
    let _server = start(Some(&path));
    let mut stream = std::os::unix::net::UnixStream::connect(&path).unwrap();
    stream
        .write_all(b"GET /v1/flows?order=rtt HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert!(answer.contains("order"), "{answer}");
}

#[test]
fn a_connection_left_open_does_not_hold_up_the_stop() {
    let server = start(None);
    let idle = TcpStream::connect(server.prometheus().unwrap()).unwrap();
    http_get(&server, "/healthz");
    let before = Instant::now();
    server.stop();
    assert!(before.elapsed() < GRACE + Duration::from_secs(1));
    drop(idle);
}

#[test]
fn an_address_in_use_is_an_error() {
    let first = start(None);
    let listen = Listen {
        prometheus: first.prometheus(),
        socket: None,
    };
    let error = Server::start(&listen, Arc::new(Sample(Telemetry::new(1)))).unwrap_err();
    assert!(matches!(error, StartError::Address { .. }), "{error}");
}
