//! What sealing and opening cost, beside bare AES-256-GCM of aws-lc-rs and the bare cipher that the vault uses, over the
//! same bytes in the same run.
//!
//! `cargo bench -p clawbernetes-vault --bench seal` for the figures; `-- --quick` (and `cargo test --benches`) only
//! shows that it runs. Nothing is asserted as a time.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark ends where something fails, and prints its figures"
)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use chacha20poly1305::aead::AeadInOut;
use chacha20poly1305::{KeyInit, XChaCha20Poly1305};
use jiff::Timestamp;
use vault::chain::{Head, append};
use vault::secret::{Context, KdfParams, Lock, MasterKey, Value, open, rewrap, seal};

/// The median time of one call, over `rounds` rounds of `calls` calls.
fn median(rounds: usize, calls: u32, mut call: impl FnMut()) -> Duration {
    let mut times: Vec<Duration> = (0..rounds)
        .map(|_| {
            let started = Instant::now();
            for _ in 0..calls {
                call();
            }
            started.elapsed() / calls
        })
        .collect();
    times.sort_unstable();
    times[rounds / 2]
}

fn report(what: &str, time: Duration) {
    let seconds = time.as_secs_f64();
    println!("{what:<58} {:>10.2} us {:>12.0} /s", seconds * 1e6, 1.0 / seconds);
}

fn main() {
    let full = std::env::args().any(|argument| argument == "--bench");
    let quick = !full || std::env::args().any(|argument| argument == "--quick");
    // Rounds of about a millisecond, and many: the median is then of rounds that nothing else broke into.
    let (rounds, calls) = if quick { (1, 1) } else { (501, 50) };

    let now = Timestamp::UNIX_EPOCH;
    let (lock, old) = Lock::new(MasterKey::generate().unwrap(), None, now).unwrap();
    let context = Context::secret(&"default".parse().unwrap(), &"database.password".parse().unwrap(), 7);

    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &[7; 32]).unwrap());
    for (name, length, calls) in [("1 KiB", 1 << 10, calls), ("1 MiB", 1 << 20, 1)] {
        let value = Value::new(vec![0x5a; length]).unwrap();
        let mut nonce = [0; 12];
        let mut buffer = Vec::with_capacity(length + 16);
        report(
            &format!("AES-256-GCM (aws-lc-rs), {name}: seal"),
            median(rounds, calls, || {
                getrandom::fill(&mut nonce).unwrap();
                buffer.clear();
                buffer.extend_from_slice(value.expose());
                let nonce = Nonce::assume_unique_for_key(nonce);
                key.seal_in_place_append_tag(nonce, Aad::from(b"context"), &mut buffer)
                    .unwrap();
                black_box(&buffer);
            }),
        );
        let sealed = buffer.clone();
        report(
            &format!("AES-256-GCM (aws-lc-rs), {name}: open"),
            median(rounds, calls, || {
                buffer.clear();
                buffer.extend_from_slice(&sealed);
                let nonce = Nonce::assume_unique_for_key(nonce);
                black_box(key.open_in_place(nonce, Aad::from(b"context"), &mut buffer).unwrap());
            }),
        );
        let cipher = XChaCha20Poly1305::new(&[7; 32].into());
        report(
            &format!("XChaCha20-Poly1305 (chacha20poly1305), {name}: seal"),
            median(rounds, calls, || {
                let mut nonce = [0; 24];
                getrandom::fill(&mut nonce).unwrap();
                buffer.clear();
                buffer.extend_from_slice(value.expose());
                cipher
                    .encrypt_in_place((&nonce).into(), b"context", &mut buffer)
                    .unwrap();
                black_box(&buffer);
            }),
        );
        report(
            &format!("vault, {name}: seal (data key, value, wrapped key)"),
            median(rounds, calls, || {
                black_box(seal(&old, &context, &value).unwrap());
            }),
        );
        let (wrapped, sealed) = seal(&old, &context, &value).unwrap();
        report(
            &format!("vault, {name}: open"),
            median(rounds, calls, || {
                black_box(open(&old, &context, &wrapped, &sealed).unwrap());
            }),
        );
    }

    let (_, both) = lock
        .begin_rekey(&old, MasterKey::generate().unwrap(), None, now)
        .unwrap();
    let value = Value::new("x").unwrap();
    let (wrapped, _) = seal(&old, &context, &value).unwrap();
    report(
        "vault: data key to the new master key",
        median(rounds, calls, || {
            black_box(rewrap(&both, &context, &wrapped).unwrap());
        }),
    );

    let record = vec![b'x'; 300];
    let mut head = Head::START;
    report(
        "chain: record of 300 bytes appended",
        median(rounds, calls, || head = append(&head, &record)),
    );

    if !quick {
        let params = KdfParams::generate().unwrap();
        report(
            "master key from a passphrase",
            median(5, 1, || {
                black_box(MasterKey::from_passphrase("correct horse battery staple", &params).unwrap());
            }),
        );
    }
}
