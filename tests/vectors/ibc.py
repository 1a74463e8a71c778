"""Writes pdmv2-ibc.json and rfc9380.json with py_ecc 8.0, an implementation apart from the one that the project uses.

    python3 -m pip install py_ecc==8.0.0 && python3 tests/vectors/ibc.py

Protocol section 6; `src/crypto/ibc.rs` says which pairing it is and how its result is written.
"""

import hashlib
import hmac
import ipaddress
import json
import pathlib

from py_ecc.bls.g2_primitives import G1_to_pubkey, G2_to_signature
from py_ecc.bls.hash_to_curve import hash_to_G1, hash_to_G2
from py_ecc.optimized_bls12_381 import curve_order, field_modulus, multiply, normalize, pairing

SUITES = [(kem, aead) for kem in (0x20, 0x10) for aead in (1, 2, 3)]
G1 = b"BLS12381G1_XMD:SHA-256_SSWU_RO_"
G2 = b"BLS12381G2_XMD:SHA-256_SSWU_RO_"


def suite_id(kem, aead):
    return b"HPKE" + b"".join(number.to_bytes(2, "big") for number in (kem, 1, aead))


def labeled_extract(suite, salt, label, ikm):
    return hmac.digest(salt or bytes(32), b"HPKE-v1" + suite + label + ikm, "sha256")


def labeled_expand(prk, suite, label, info, length):
    info = length.to_bytes(2, "big") + b"HPKE-v1" + suite + label + info
    okm, block = b"", b""
    while len(okm) < length:
        block = hmac.digest(prk, block + info + bytes([len(okm) // 32 + 1]), "sha256")
        okm += block
    return okm[:length]


def entry(text):
    network = ipaddress.ip_network(text, strict=False)
    return network.network_address.packed + bytes([network.prefixlen])


def gt_bytes(element):
    """py_ecc has Fp12 = Fp[w] / (w¹² - 2w⁶ + 2), where u = w⁶ - 1: the coefficients k and k + 6 make c_k = a + b·u."""
    coefficients = [int(c) for c in element.coeffs]
    out = b""
    for low, high in zip(coefficients[:6], coefficients[6:]):
        for part in ((low + high) % field_modulus, high):
            out += part.to_bytes(48, "big")
    return out


def ibc():
    cases = []
    for number, (kem, aead) in enumerate(SUITES):
        suite = suite_id(kem, aead)
        prk = hashlib.sha256(b"pdmv2 ibc vector %d" % number).digest()
        client = f"2001:db8:1::{number:x}/128" if number % 2 else f"2001:db8:1:{number:x}::/64"
        server = f"2001:db8:2::{number:x}/{128 - 16 * number}"
        s = int.from_bytes(labeled_expand(prk, suite, b"pdmv2 ibc", b"", 48), "big") % curve_order
        h1 = hash_to_G1(entry(client), b"PDMV2-V01-CS01-with-" + G1, hashlib.sha256)
        h2 = hash_to_G2(entry(server), b"PDMV2-V01-CS01-with-" + G2, hashlib.sha256)
        client_key, server_key = multiply(h1, s), multiply(h2, s)
        # py_ecc raises to (p¹² - 1) / r, and does not conjugate for the negative x: a conjugate is an inverse there.
        gt = gt_bytes((pairing(h2, client_key) ** 3).inv())
        assert gt == gt_bytes((pairing(server_key, h1) ** 3).inv())
        cases.append({
            "kem_id": kem,
            "aead_id": aead,
            "pairing_prk": prk.hex(),
            "client_entry": client,
            "server_entry": server,
            "client_key": G1_to_pubkey(client_key).hex(),
            "server_key": G2_to_signature(server_key).hex(),
            "gt": gt.hex(),
            "shared_secret": labeled_extract(suite, b"", b"pdmv2 ibc pair", gt).hex(),
        })
    return cases


def hash_to_curve():
    """RFC 9380 appendices J.9.1 and J.10.1."""
    cases = []
    for message in (b"", b"abc", b"abcdef0123456789", b"q128_" + b"q" * 128, b"a512_" + b"a" * 512):
        g1 = hash_to_G1(message, b"QUUX-V01-CS02-with-" + G1, hashlib.sha256)
        g2 = hash_to_G2(message, b"QUUX-V01-CS02-with-" + G2, hashlib.sha256)
        number = lambda n: int(n).to_bytes(48, "big").hex()
        (x1, y1), (x2, y2) = normalize(g1), normalize(g2)
        cases.append({
            "msg": message.decode(),
            "g1": {"x": number(x1), "y": number(y1)},
            "g2": {"x": [number(c) for c in x2.coeffs], "y": [number(c) for c in y2.coeffs]},
        })
    return cases


folder = pathlib.Path(__file__).parent
for name, cases in (("pdmv2-ibc.json", ibc()), ("rfc9380.json", hash_to_curve())):
    (folder / name).write_text(json.dumps(cases, indent=1) + "\n")
