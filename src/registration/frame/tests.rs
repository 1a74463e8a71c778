use std::{
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{DuplexStream, ReadBuf, duplex},
    select,
    time::sleep,
};

use super::*;
use crate::{
    config::Prefix,
    registration::message::{ListRequest, Ping, Register, VERSION},
    snapshot::grant::Listed,
};

const SOON: Duration = Duration::from_millis(100);

/// Runs a test in a runtime of its own.
fn run<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap()
        .block_on(test)
}

fn ping(number: u64) -> Message {
    Ping { number }.into()
}

fn frame(body: &[u8]) -> Vec<u8> {
    let mut frame = u32::try_from(body.len()).unwrap().to_be_bytes().to_vec();
    frame.extend(body);
    frame
}

fn number(received: &Received) -> u64 {
    match &received.message {
        Message::Ping(ping) => ping.number,
        other => panic!("{other:?}"),
    }
}

/// A message of a little more than `bytes`.
fn large(bytes: usize) -> Message {
    let listed = |at: usize| Listed {
        prefix: Prefix::holding((at as u128).to_be_bytes(), 128).unwrap(),
        group: "g".repeat(250),
        generations: Vec::new(),
    };
    let entries = (0..=bytes / 300).map(listed).collect();
    ListRequest {
        serial: 1,
        pms: None,
        entries,
    }
    .into()
}

fn pair(room: usize) -> (Writer<DuplexStream>, Reader<DuplexStream>) {
    let (near, far) = duplex(room);
    (Writer::new(near), Reader::new(far))
}

#[test]
fn messages_arrive_with_their_bytes() {
    run(async {
        let (mut to, mut from) = pair(1 << 16);
        for message in [ping(1), ping(2), large(20_000)] {
            let sent = to.send(&message).await.unwrap();
            let received = from.next().await.unwrap();
            assert_eq!(*received.bytes, *sent);
            assert_eq!(*sent, *message.encode());
            assert_eq!(format!("{:?}", received.message), format!("{message:?}"));
        }
        to.close().await.unwrap();
        assert!(matches!(from.next().await, Err(FrameError::Closed)));
    });
}

#[test]
fn bytes_are_the_peers_own() {
    // Indefinite map, number in eight bytes: legal, and not what this end would write.
    let body = b"\xbf\x64type\x64ping\x66number\x1b\0\0\0\0\0\0\0\x05\xff";
    run(async {
        let mut from = Reader::new(&*frame(body).leak());
        let received = from.next().await.unwrap();
        assert_eq!(number(&received), 5);
        assert_eq!(*received.bytes, body);
    });
}

#[test]
fn a_byte_at_a_time() {
    run(async {
        let (mut near, far) = duplex(1);
        let mut from = Reader::new(far);
        let bytes = [frame(&ping(1).encode()), frame(&large(9000).encode())].concat();
        let write = async { near.write_all(&bytes).await.unwrap() };
        let read = async {
            assert_eq!(number(&from.next().await.unwrap()), 1);
            assert!(from.next().await.unwrap().bytes.len() > 9000);
        };
        tokio::join!(write, read);
    });
}

#[test]
fn lengths_that_no_message_has() {
    for length in [0, 1 + (1 << 20), 0x0100_0000, u32::MAX] {
        run(async {
            let bytes = length.to_be_bytes();
            let mut from = Reader::new(&bytes[..]);
            let error = from.next().await.unwrap_err();
            let FrameError::Length { found } = error else {
                panic!("{error}");
            };
            assert_eq!(found, length as usize);
        });
    }
}

#[test]
fn the_longest_message_there_may_be() {
    run(async {
        let mut longest = None;
        let mut too_long = None;
        for bytes in (1_040_000..1_090_000).step_by(300) {
            let message = large(bytes);
            match message.encode().len() {
                0..=MAX_LENGTH => longest = Some(message),
                _ => {
                    too_long = Some(message);
                    break;
                }
            }
        }
        let (mut to, mut from) = pair(4 << 20);
        let error = to.send(&too_long.unwrap()).await.unwrap_err();
        assert!(matches!(error, FrameError::Length { found } if found > MAX_LENGTH));
        // Nothing of it was sent.
        to.send(&longest.unwrap()).await.unwrap();
        assert!(from.next().await.unwrap().bytes.len() > MAX_LENGTH - 1000);
    });
}

#[test]
fn what_is_no_message() {
    run(async {
        let bytes = frame(b"\xa0");
        let error = Reader::new(&bytes[..]).next().await.unwrap_err();
        assert!(matches!(error, FrameError::Decode(_)), "{error}");
        assert_eq!(error.reason(), "malformed");
    });
}

#[test]
fn a_connection_that_ends_within_a_message() {
    run(async {
        let bytes = frame(&ping(1).encode());
        for length in 1..bytes.len() {
            let error = Reader::new(&bytes[..length]).next().await.unwrap_err();
            assert!(matches!(error, FrameError::Truncated), "{length}: {error}");
        }
        let nothing: &[u8] = &[];
        let error = Reader::new(nothing).next().await.unwrap_err();
        assert!(matches!(error, FrameError::Closed));
    });
}

#[test]
fn memory_comes_with_the_bytes() {
    run(async {
        let (mut near, far) = duplex(1 << 20);
        let mut from = Reader::new(far);
        let mut sent = 0;
        near.write_all(&(1u32 << 20).to_be_bytes()).await.unwrap();
        for step in [1, 4000, 10_000, 100_000] {
            near.write_all(&vec![0; step]).await.unwrap();
            sent += step;
            select! {
                biased;
                _ = from.next() => panic!("not yet"),
                () = sleep(Duration::from_millis(10)) => {}
            }
            assert_eq!(from.body_filled, sent);
            assert!(from.body.len() <= FIRST_ROOM.max(2 * sent), "{sent}");
            assert_eq!(from.body.len(), from.body.capacity());
        }
    });
}

#[test]
fn waiting_for_a_message_has_no_end_but_a_message_has() {
    run(async {
        let (mut near, far) = duplex(64);
        let mut from = Reader::with_limit(far, SOON);
        // Nothing at all for longer than the limit.
        select! {
            _ = from.next() => panic!("nothing was sent"),
            () = sleep(3 * SOON) => {}
        }
        // A whole message is fine then.
        near.write_all(&frame(&ping(3).encode())).await.unwrap();
        assert_eq!(number(&from.next().await.unwrap()), 3);
        // One that trickles is not, however often it is asked for.
        let trickle = async {
            for byte in frame(&large(3000).encode()) {
                near.write_all(&[byte]).await.unwrap();
                sleep(SOON / 10).await;
            }
        };
        let started = Instant::now();
        let read = async {
            loop {
                select! {
                    read = from.next() => break read,
                    () = sleep(SOON / 7) => {}
                }
            }
        };
        select! {
            error = read => {
                assert!(matches!(error, Err(FrameError::Late { limit }) if limit == SOON));
                assert!(started.elapsed() >= SOON);
            }
            () = trickle => panic!("all of it was taken"),
        }
    });
}

#[test]
fn a_length_alone_is_late_too() {
    run(async {
        let (mut near, far) = duplex(64);
        let mut from = Reader::with_limit(far, SOON);
        near.write_all(&[0]).await.unwrap();
        assert!(matches!(from.next().await, Err(FrameError::Late { .. })));
    });
}

/// Gives at most one byte, and only every second time it is asked.
struct Hesitant {
    bytes: Vec<u8>,
    at: usize,
    ready: bool,
}

impl AsyncRead for Hesitant {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        to: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.ready = !self.ready;
        if self.ready {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let at = self.at;
        if let Some(byte) = self.bytes.get(at..=at)
            && to.remaining() > 0
        {
            to.put_slice(byte);
            self.at += 1;
        }
        Poll::Ready(Ok(()))
    }
}

#[test]
fn nothing_is_lost_when_reading_is_given_up() {
    run(async {
        let messages = [ping(1), large(9000), ping(2)];
        let bytes: Vec<u8> = messages
            .iter()
            .flat_map(|message| frame(&message.encode()))
            .collect();
        let mut from = Reader::new(Hesitant {
            bytes,
            at: 0,
            ready: false,
        });
        for message in messages {
            let received = loop {
                // Ready at once: every pending read is dropped.
                select! {
                    biased;
                    received = from.next() => break received.unwrap(),
                    () = std::future::ready(()) => {}
                }
            };
            assert_eq!(*received.bytes, *message.encode());
        }
        assert!(matches!(from.next().await, Err(FrameError::Closed)));
    });
}

#[test]
fn a_peer_that_takes_nothing() {
    run(async {
        let (near, _far) = duplex(16);
        let mut to = Writer::with_limit(near, SOON);
        let error = to.send(&large(1000)).await.unwrap_err();
        assert!(matches!(error, FrameError::Late { .. }));
        // Half a message is out there, so nothing can follow.
        let error = to.send(&ping(1)).await.unwrap_err();
        assert!(matches!(error, FrameError::Broken));
    });
}

#[test]
fn sending_that_was_given_up() {
    run(async {
        let (near, _far) = duplex(16);
        let mut to = Writer::new(near);
        let message = large(1000);
        select! {
            biased;
            _ = to.send(&message) => panic!("there is no room"),
            () = std::future::ready(()) => {}
        }
        let error = to.send(&ping(1)).await.unwrap_err();
        assert!(matches!(error, FrameError::Broken));
    });
}

#[test]
fn a_peer_that_went_away() {
    run(async {
        let (near, far) = duplex(16);
        drop(far);
        let error = Writer::new(near).send(&ping(1)).await.unwrap_err();
        assert!(matches!(error, FrameError::Io(_)));
    });
}

#[test]
fn every_entry_of_a_secondary_fits() {
    let entries = (0..crate::registration::message::MAX_OWN)
        .map(|at| Prefix::holding((at as u128).to_be_bytes(), 128).unwrap())
        .collect();
    let register = Register {
        version: VERSION,
        instance: [0; 16],
        entries,
    };
    assert!(Message::from(register).encode().len() < MAX_LENGTH);
}
