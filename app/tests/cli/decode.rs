//! Readers of the trackers' files, written from the specifications of the formats. They share no code with the writers.

use std::collections::BTreeMap;
use std::path::Path;

/// The value of a field on the wire.
#[derive(Clone, Debug, PartialEq)]
pub enum Wire {
    Number(u64),
    Fixed64(f64),
    Fixed32(f32),
    Bytes(Vec<u8>),
}

impl Wire {
    pub fn message(&self) -> Vec<(u64, Wire)> {
        match self {
            Wire::Bytes(bytes) => message(bytes),
            other => panic!("no message: {other:?}"),
        }
    }

    pub fn text(&self) -> String {
        match self {
            Wire::Bytes(bytes) => String::from_utf8(bytes.clone()).expect("UTF-8"),
            other => panic!("no text: {other:?}"),
        }
    }
}

/// The fields of a message.
fn message(bytes: &[u8]) -> Vec<(u64, Wire)> {
    let mut at = 0;
    let varint = |at: &mut usize| {
        let mut value = 0;
        for shift in 0.. {
            let byte = bytes[*at];
            *at += 1;
            value |= u64::from(byte % 128) << (7 * shift);
            if byte < 128 {
                break;
            }
        }
        value
    };
    let mut fields = Vec::new();
    while at < bytes.len() {
        let tag = varint(&mut at);
        let value = match tag % 8 {
            0 => Wire::Number(varint(&mut at)),
            1 => {
                at += 8;
                Wire::Fixed64(f64::from_le_bytes(bytes[at - 8..at].try_into().expect("8 bytes")))
            }
            2 => {
                let length = varint(&mut at) as usize;
                at += length;
                Wire::Bytes(bytes[at - length..at].to_vec())
            }
            5 => {
                at += 4;
                Wire::Fixed32(f32::from_le_bytes(bytes[at - 4..at].try_into().expect("4 bytes")))
            }
            kind => panic!("wire type {kind}"),
        };
        fields.push((tag / 8, value));
    }
    fields
}

/// The first value of a field.
pub fn get(fields: &[(u64, Wire)], number: u64) -> Option<Wire> {
    fields.iter().find(|(n, _)| *n == number).map(|(_, value)| value.clone())
}

/// A CRC of 32 bits, bit by bit.
fn crc(polynomial: u32, bytes: &[u8]) -> u32 {
    let mut crc = !0;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc % 2 == 1 { (crc / 2) ^ polynomial } else { crc / 2 };
        }
    }
    !crc
}

/// The contents of an event file.
#[derive(Debug, Default)]
pub struct Events {
    /// Scalars by tag: (step, value).
    pub scalars: BTreeMap<String, Vec<(u64, f32)>>,
    /// Texts by tag.
    pub texts: BTreeMap<String, String>,
    /// Steps of the session's starts.
    pub starts: Vec<u64>,
}

/// Reads the event file at `path`.
pub fn events(path: &Path) -> Events {
    let bytes = std::fs::read(path).expect("an event file");
    let mut found = Events::default();
    let mut rest = &bytes[..];
    let mut first = true;
    while !rest.is_empty() {
        let masked = |data: &[u8]| {
            let c = crc(0x82F63B78, data);
            c.rotate_right(15).wrapping_add(0xA282EAD8).to_le_bytes()
        };
        let length = u64::from_le_bytes(rest[..8].try_into().expect("8 bytes")) as usize;
        assert_eq!(rest[8..12], masked(&rest[..8]));
        let data = &rest[12..12 + length];
        assert_eq!(rest[12 + length..16 + length], masked(data));
        rest = &rest[16 + length..];
        let event = message(data);
        assert!(matches!(get(&event, 1), Some(Wire::Fixed64(time)) if time > 1.7e9), "wall time");
        let version = get(&event, 3).map(|v| v.text());
        assert_eq!(version.as_deref(), first.then_some("brain.Event:2"));
        first = false;
        let step = match get(&event, 2) {
            Some(Wire::Number(step)) => step,
            _ => 0,
        };
        if let Some(log) = get(&event, 7) {
            assert_eq!(log.message(), [(1, Wire::Number(1))], "START");
            found.starts.push(step);
        }
        for (number, value) in get(&event, 5).map(|summary| summary.message()).unwrap_or_default() {
            assert_eq!(number, 1);
            let value = value.message();
            let tag = get(&value, 1).expect("a tag").text();
            match get(&value, 2) {
                Some(Wire::Fixed32(x)) => found.scalars.entry(tag).or_default().push((step, x)),
                _ => {
                    let tensor = get(&value, 8).expect("a tensor").message();
                    found.texts.insert(tag, get(&tensor, 8).expect("a string").text());
                }
            }
        }
    }
    found
}

/// The contents of a W&B log.
#[derive(Debug, Default)]
pub struct WandbRun {
    pub id: String,
    pub project: String,
    pub name: String,
    pub config: BTreeMap<String, String>,
    /// One map of JSON values for each step.
    pub history: Vec<BTreeMap<String, String>>,
    pub summary: BTreeMap<String, String>,
    /// Exit codes.
    pub exits: Vec<u64>,
}

/// Reads the log at `path`.
pub fn wandb(path: &Path) -> WandbRun {
    let bytes = std::fs::read(path).expect("a log");
    assert_eq!(bytes[..7], [b':', b'W', b'&', b'B', 0xE1, 0xBE, 0]);
    let mut run = WandbRun::default();
    let (mut at, mut record, mut number) = (7, Vec::new(), 0);
    while at < bytes.len() {
        let left = 32768 - at % 32768;
        if left < 7 {
            at += left;
            continue;
        }
        let length = usize::from(u16::from_le_bytes([bytes[at + 4], bytes[at + 5]]));
        assert!(7 + length <= left, "a fragment crosses a border");
        let kind = bytes[at + 6];
        assert_eq!(bytes[at..at + 4], crc(0xEDB88320, &bytes[at + 6..at + 7 + length]).to_le_bytes());
        assert_eq!(matches!(kind, 1 | 2), record.is_empty(), "fragment {kind}");
        record.extend(&bytes[at + 7..at + 7 + length]);
        at += 7 + length;
        if matches!(kind, 1 | 4) {
            number += 1;
            run.add(&message(&std::mem::take(&mut record)), number);
        }
    }
    run
}

impl WandbRun {
    fn add(&mut self, record: &[(u64, Wire)], number: u64) {
        assert_eq!(get(record, 1), Some(Wire::Number(number)));
        let items = |fields: &[(u64, Wire)]| -> Vec<(String, String)> {
            let items = fields.iter().filter(|(n, v)| *n == 1 && matches!(v, Wire::Bytes(_)));
            let items = items.map(|(_, item)| item.message());
            let key = |item: &[(u64, Wire)]| get(item, 1).or(get(item, 2)).expect("a key").text();
            items.map(|item| (key(&item), get(&item, 16).expect("JSON").text())).collect()
        };
        match &record[1] {
            (2, history) => self.history.push(items(&history.message()).into_iter().collect()),
            (3, summary) => self.summary.extend(items(&summary.message())),
            (17, run) => {
                let run = run.message();
                let text = |number| get(&run, number).expect("a field").text();
                (self.id, self.project, self.name) = (text(1), text(3), text(8));
                self.config.extend(items(&get(&run, 4).expect("the configuration").message()));
            }
            (18, exit) => match get(&exit.message(), 1) {
                Some(Wire::Number(code)) => self.exits.push(code),
                other => panic!("{other:?}"),
            },
            (7 | 12 | 21, _) => {}
            other => panic!("unexpected record {other:?}"),
        }
    }
}
