//! Known answers of `tests/vectors/pdmv2-draft02.json`, or of the file that `PDMGATE_VECTORS` names, for the formats.

use pdmgate::wire::pdmv2::{
    CLEAR_SIZE, HEADER_LEN, METRICS_LEN, SEALED_LEN, SEALED_SIZE, option_header, write_clear,
};
use pdmgate::wire::{Metrics, OptionHeader, Prseq, ScaledDelta};
use serde::Deserialize;

#[derive(Deserialize)]
struct Vectors {
    cases: Vec<Case>,
    time_scaling: Vec<TimeScaling>,
}

#[derive(Deserialize)]
struct Case {
    prseq: u16,
    f: u8,
    metrics: CaseMetrics,
    #[serde(with = "hex")]
    clear_option: Vec<u8>,
    #[serde(with = "hex")]
    sealed_option: Vec<u8>,
}

#[derive(Deserialize)]
struct CaseMetrics {
    scale_dtlr: u8,
    scale_dtls: u8,
    global_pointer: u32,
    psntp: u16,
    psnlr: u16,
    delta_tlr: u16,
    delta_tls: u16,
}

#[derive(Deserialize)]
struct TimeScaling {
    /// A number beyond 64 bits, hence a string.
    attoseconds: String,
    delta: u16,
    scale: u8,
}

fn vectors() -> Vectors {
    let path = std::env::var_os("PDMGATE_VECTORS").unwrap_or_else(|| {
        concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/vectors/pdmv2-draft02.json"
        )
        .into()
    });
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let vectors: Vectors =
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    assert!(!vectors.cases.is_empty() && !vectors.time_scaling.is_empty());
    vectors
}

#[test]
fn options_in_the_clear() {
    for (i, case) in vectors().cases.iter().enumerate() {
        let m = &case.metrics;
        let metrics = Metrics {
            dtlr: ScaledDelta {
                delta: m.delta_tlr,
                scale: m.scale_dtlr,
            },
            dtls: ScaledDelta {
                delta: m.delta_tls,
                scale: m.scale_dtls,
            },
            global_pointer: m.global_pointer,
            psntp: m.psntp,
            psnlr: m.psnlr,
        };
        let prseq = Prseq::new(case.prseq).unwrap();
        let f = case.f == 1;
        let clear: [u8; CLEAR_SIZE] = case.clear_option[..].try_into().unwrap();
        assert_eq!(write_clear(clear[0], prseq, f, &metrics), clear, "case {i}");

        let (header, body) = clear.split_first_chunk::<HEADER_LEN>().unwrap();
        let body: &[u8; METRICS_LEN] = body.try_into().unwrap();
        let sealed = false;
        assert_eq!(
            OptionHeader::from_bytes(header),
            Ok(OptionHeader { sealed, prseq, f })
        );
        assert_eq!(Metrics::from_bytes(body), metrics, "case {i}");
    }
}

#[test]
fn headers_of_sealed_options() {
    for (i, case) in vectors().cases.iter().enumerate() {
        let option: [u8; SEALED_SIZE] = case.sealed_option[..].try_into().unwrap();
        let header = option.first_chunk::<HEADER_LEN>().unwrap();
        let prseq = Prseq::new(case.prseq).unwrap();
        let f = case.f == 1;
        assert_eq!(
            option_header(header[0], SEALED_LEN, prseq, f),
            *header,
            "case {i}"
        );
        let sealed = true;
        assert_eq!(
            OptionHeader::from_bytes(header),
            Ok(OptionHeader { sealed, prseq, f })
        );
    }
}

#[test]
fn time_scaling() {
    for case in vectors().time_scaling {
        let attoseconds: u128 = case.attoseconds.parse().unwrap();
        let expected = ScaledDelta {
            delta: case.delta,
            scale: case.scale,
        };
        assert_eq!(
            ScaledDelta::from_attoseconds(attoseconds),
            expected,
            "{attoseconds}"
        );
        let back = expected.attoseconds();
        assert!(
            back <= attoseconds && attoseconds - back < 1 << case.scale,
            "{attoseconds}"
        );
    }
}
