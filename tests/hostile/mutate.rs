//! Damage, as accidents and attackers do it; the same number always does the same.

use moue::random::{RngExt, Stream, Streams};

/// What length fields are overwritten with.
const EXTREMES: [u64; 8] = [0, 1, 0x7f, 0xffff, 0x7fff_ffff, 0xffff_ffff, 1 << 60, u64::MAX];
/// What numbers in text are replaced by.
const NUMBERS: [&str; 12] =
    ["-1", "0", "65536", "4294967295", "18446744073709551616", "99999999999999999999999", "1e999", "1e18", "NaN", "inf", "0.5", "\"x\""];
/// What is put in between.
const TOKENS: [&str; 14] = ["[", "{\"", "\"", ",", "\n", "\0", "\r\n", "../", "\\u0000", "\u{1b}[2J", "\u{feff}", "null", "[[", "="];

/// Mutation `number` of a sample; `others` are crossed with it now and then.
pub fn mutated(name: &str, number: u64, sample: &[u8], others: &[&[u8]]) -> Vec<u8> {
    let name: Vec<u64> = name.bytes().map(u64::from).chain([number]).collect();
    let rng = &mut Streams::new(1).at("hostile", &name);
    let mut bytes = sample.to_vec();
    for _ in 0..rng.random_range(1..=3) {
        damage(&mut bytes, others, rng);
    }
    bytes
}

fn damage(bytes: &mut Vec<u8>, others: &[&[u8]], rng: &mut Stream) {
    if bytes.is_empty() {
        return bytes.extend(TOKENS[0].bytes());
    }
    let at = rng.random_range(0..bytes.len());
    let end = (at + rng.random_range(1..=64)).min(bytes.len());
    match rng.random_range(0..11) {
        0 => bytes[at] ^= 1 << rng.random_range(0..8),
        1 => bytes[at] = rng.random(),
        2 => bytes.truncate(at),
        3 => drop(bytes.drain(at..end)),
        4 => drop(bytes.splice(at..at, (0..rng.random_range(1..32)).map(|_| rng.random()).collect::<Vec<u8>>())),
        5 => {
            let part = bytes[at..end].repeat(rng.random_range(1..200));
            bytes.splice(at..at, part);
        }
        6 => {
            // As a length field of two, four or eight bytes, either end first.
            let (value, width) = (EXTREMES[rng.random_range(0..EXTREMES.len())], [2, 4, 8][rng.random_range(0..3)]);
            let field = if rng.random() { value.to_le_bytes()[..width].to_vec() } else { value.to_be_bytes()[8 - width..].to_vec() };
            bytes.iter_mut().skip(at).zip(field).for_each(|(byte, new)| *byte = new);
        }
        7 => {
            let other = rng.random_range(0..bytes.len());
            bytes.swap(at, other);
        }
        8 => {
            let other = if others.is_empty() { sample_of(bytes) } else { others[rng.random_range(0..others.len())].to_vec() };
            let from = rng.random_range(0..other.len().max(1)).min(other.len());
            bytes.truncate(at);
            bytes.extend(&other[from..]);
        }
        9 => {
            let digits = |i: usize| bytes[i..].iter().take_while(|b| b.is_ascii_digit()).count();
            if let Some(start) = (at..bytes.len()).find(|i| bytes[*i].is_ascii_digit()) {
                let number = NUMBERS[rng.random_range(0..NUMBERS.len())];
                drop(bytes.splice(start..start + digits(start), number.bytes()));
            }
        }
        _ => {
            let token = TOKENS[rng.random_range(0..TOKENS.len())];
            let times = if rng.random_range(0..4) == 0 { 2000 } else { 1 };
            drop(bytes.splice(at..at, token.repeat(times).into_bytes()));
        }
    }
}

fn sample_of(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().rev().copied().collect()
}

#[test]
fn the_same_number_does_the_same_and_another_something_else() {
    let sample: Vec<u8> = (0..200).collect();
    let all: Vec<Vec<u8>> = (0..500).map(|n| mutated("x", n, &sample, &[&sample])).collect();
    assert_eq!(all[7], mutated("x", 7, &sample, &[&sample]));
    let changed = all.iter().filter(|m| **m != sample).count();
    let different: std::collections::HashSet<_> = all.iter().collect();
    assert!(changed > 480 && different.len() > 480, "{changed} {}", different.len());
}
