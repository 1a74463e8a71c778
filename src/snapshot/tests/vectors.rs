//! Keys from configuration to packet, against the known answers.

use super::*;

#[test]
fn session_keys_are_those_of_the_vectors() {
    let path = std::env::var_os("PDMGATE_VECTORS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/pdmv2-draft02.json"),
        Into::into,
    );
    let text = std::fs::read_to_string(path).expect("the vectors");
    let vectors: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let mut checked = 0;
    for case in vectors["cases"].as_array().expect("cases") {
        let word = |name: &str| case[name].as_str().unwrap_or_default().to_owned();
        let number = |name: &str| case[name].as_u64().expect("a number");
        let mode = word("mode");
        if mode != "trusted-servers" && mode != "asymmetric-poll" {
            continue;
        }
        let kem = match number("kem_id") {
            0x20 => "x25519",
            _ => "p-256",
        };
        let aead = match number("aead_id") {
            1 => "aes-128-gcm",
            2 => "aes-256-gcm",
            _ => "chacha20-poly1305",
        };
        let (src, dst) = (address(&word("src")), address(&word("dst")));
        let tuple = FiveTuple {
            src,
            dst,
            sport: number("sport") as u16,
            dport: number("dport") as u16,
            protocol: number("protocol") as u8,
        };
        // A packet may go either way; the generations of its ends go with it.
        let text = |forth: bool| {
            let (src, dst) = (number("generation_src"), number("generation_dst"));
            let (client, server) = if forth { (src, dst) } else { (dst, src) };
            format!(
                "- name: v\n  mode: {mode}\n  suite: {{ kem: {kem}, aead: {aead} }}\n  salt: {}\n  pms: {}\n  \
                 clients: [ {{ prefix: '{}', generation: {client} }} ]\n  \
                 servers: [ {{ prefix: '{}', generation: {server}, group: '{}' }} ]\n",
                word("salt"),
                word("pms"),
                word("client_entry"),
                word("server_entry"),
                word("group"),
            )
        };
        let kri = number("kri") as u32;
        let probe = build(&config(&text(true)), &mut State::in_memory(), None);
        let forth = probe.resolve(&src, &dst).expect("a route").local_is_client;
        let snapshot = build(&config(&text(forth)), &mut State::in_memory(), None);

        let sender = snapshot.resolve(&src, &dst).expect("a route");
        let epoch = snapshot.send_epoch(&sender);
        let sent = snapshot
            .session_key(&sender, &epoch, &tuple, kri)
            .expect("a key");
        // The receiver's likeliest epoch gives the same.
        let receiver = snapshot.resolve(&dst, &src).expect("a route");
        let expected = snapshot.receive_epochs(&receiver).next().expect("an epoch");
        assert_eq!(epoch, expected);
        let received = snapshot
            .session_key(&receiver, &expected, &tuple, kri)
            .expect("a key");
        for key in [sent, received] {
            let digits = hex::encode(key.key());
            assert!(digits.starts_with(&word("session_key")), "{case}");
            assert_eq!(hex::encode(key.base_nonce()), word("base_nonce"), "{case}");
        }
        checked += 1;
    }
    assert!(checked > 0);
}
