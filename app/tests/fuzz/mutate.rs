//! Changes inputs: bytes at random, or the values of a JSON document while it stays one.

use serde_json::{Map, Value, json};

/// The generator SplitMix64 (Steele, Lea and Flood, 2014).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        x ^ (x >> 31)
    }

    /// A number below `n`, which must not be 0.
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
}

/// Bytes and words that parsers treat in a special way.
const WORDS: [&[u8]; 24] = [
    b"{",
    b"}",
    b"[",
    b"]",
    b"\"",
    b"\\",
    b"\n",
    b"\0",
    b"\xFF",
    b"\xEF\xBB\xBF",
    b"null",
    b"1e999",
    b"-1",
    b"NaN",
    b"18446744073709551616",
    b"../",
    b"{{ ",
    b" }}",
    b"{% ",
    b" %}",
    b" = ",
    b"\r\n",
    b"\xED\xA0\x80",
    b"0.0",
];

/// A changed copy of `input`. `other` is another input of the corpus.
pub fn mutate(input: &[u8], other: &[u8], json: bool, random: &mut Random) -> Vec<u8> {
    if json
        && random.below(4) > 0
        && let Ok(mut value) = serde_json::from_slice::<Value>(input)
    {
        for _ in 0..=random.below(3) {
            change(&mut value, random);
        }
        return value.to_string().into_bytes();
    }
    let mut bytes = input.to_vec();
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len() + 1);
        match random.below(7) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            1 if at < bytes.len() => bytes[at] = random.next() as u8,
            2 => bytes.truncate(at),
            3 => {
                let end = (at + random.below(16)).min(bytes.len());
                bytes.drain(at..end);
            }
            4 => {
                let start = random.below(other.len() + 1);
                let end = (start + random.below(64)).min(other.len());
                bytes.splice(at..at, other[start..end].iter().copied());
            }
            5 => {
                let end = (at + random.below(64)).min(bytes.len());
                let copy = bytes[at..end].repeat(1 + random.below(8));
                bytes.splice(at..at, copy);
            }
            _ => {
                bytes.splice(at..at, WORDS[random.below(WORDS.len())].iter().copied());
            }
        }
    }
    bytes
}

/// Changes one value of the document.
fn change(value: &mut Value, random: &mut Random) {
    match value {
        Value::Object(fields) if !fields.is_empty() && random.below(8) > 0 => {
            let key = fields.keys().nth(random.below(fields.len())).expect("a key").clone();
            match random.below(8) {
                0 => drop(fields.shift_remove(&key)),
                1 => drop(fields.insert(format!("{key}x"), strange(random))),
                _ => change(&mut fields[&key], random),
            }
        }
        Value::Array(list) if !list.is_empty() && random.below(8) > 0 => {
            let at = random.below(list.len());
            match random.below(8) {
                0 => drop(list.remove(at)),
                1 => list.insert(at, list[at].clone()),
                _ => change(&mut list[at], random),
            }
        }
        _ => *value = strange(random),
    }
}

fn strange(random: &mut Random) -> Value {
    let values = [
        json!(null),
        json!(true),
        json!(0),
        json!(-1),
        json!(1e308),
        json!(5e-324),
        json!(0.5),
        json!(u64::MAX),
        json!(i64::MIN),
        json!(1_u64 << 31),
        json!(""),
        json!("x"),
        json!("../../x"),
        json!("\u{0}\u{1b}[2J"),
        json!("é".repeat(300)),
        json!([]),
        json!({}),
        json!([[[[[[[[1]]]]]]]]),
        json!(["a", 1, null]),
        Value::Object(Map::from_iter([("a".to_string(), json!({"a": {"a": {}}}))])),
    ];
    values[random.below(values.len())].clone()
}
