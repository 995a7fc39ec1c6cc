//! The part of the protobuf wire format that a `.model` file needs: varints, 32-bit, 64-bit and length-delimited
//! fields. Reading borrows from the input and never allocates, so a hostile length cannot exhaust memory.

use crate::error::{Error, Result};

/// The value of a field.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Value<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    Bytes(&'a [u8]),
}

/// Iterates over the fields of a message.
pub(crate) struct ProtoFields<'a> {
    bytes: &'a [u8],
    at: usize,
    /// The message's name, for errors.
    message: &'static str,
}

impl<'a> ProtoFields<'a> {
    pub(crate) fn new(bytes: &'a [u8], message: &'static str) -> Self {
        Self { bytes, at: 0, message }
    }

    /// The next field's number and value; `None` at the end of the message.
    #[inline]
    pub(crate) fn next(&mut self) -> Result<Option<(u32, Value<'a>)>> {
        if self.at == self.bytes.len() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).ok().filter(|n| (1..1 << 29).contains(n));
        let number = number.ok_or_else(|| self.broken(&format!("field tag {tag}")))?;
        let value = match tag & 7 {
            0 => Value::Varint(self.varint()?),
            1 => Value::Fixed64(u64::from_le_bytes(self.array()?)),
            2 => {
                let len = self.varint()?;
                let len = usize::try_from(len).map_err(|_| self.broken("a length"))?;
                Value::Bytes(self.take(len)?)
            }
            5 => Value::Fixed32(u32::from_le_bytes(self.array()?)),
            // This format never used groups (3, 4); 6 and 7 do not exist.
            kind => return Err(self.broken(&format!("wire type {kind} of field {number}"))),
        };
        Ok(Some((number, value)))
    }

    #[inline]
    fn varint(&mut self) -> Result<u64> {
        // Most numbers are below 128.
        if let Some(&byte) = self.bytes.get(self.at).filter(|b| **b < 0x80) {
            self.at += 1;
            return Ok(byte.into());
        }
        self.long_varint()
    }

    fn long_varint(&mut self) -> Result<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let [byte] = self.array()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(self.broken("a number of more than ten bytes"))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        let rest = &self.bytes[self.at..];
        let taken = rest.get(..len).ok_or_else(|| {
            let left = rest.len();
            self.broken(&format!("a length of {len} with {left} bytes left"))
        })?;
        self.at += len;
        Ok(taken)
    }

    fn broken(&self, what: &str) -> Error {
        Error::malformed(format!("{what} at byte {} of {} is invalid", self.at, self.message))
    }
}

impl<'a> Value<'a> {
    pub(crate) fn bytes(self, field: &str) -> Result<&'a [u8]> {
        match self {
            Value::Bytes(bytes) => Ok(bytes),
            _ => Err(wrong_type(field, "a string")),
        }
    }
    pub(crate) fn text(self, field: &str) -> Result<&'a str> {
        std::str::from_utf8(self.bytes(field)?).map_err(|_| Error::malformed(format!("{field} is not valid UTF-8")))
    }
    pub(crate) fn number(self, field: &str) -> Result<u64> {
        match self {
            Value::Varint(number) => Ok(number),
            _ => Err(wrong_type(field, "a number")),
        }
    }
    pub(crate) fn float(self, field: &str) -> Result<f32> {
        match self {
            Value::Fixed32(bits) => Ok(f32::from_bits(bits)),
            _ => Err(wrong_type(field, "a float")),
        }
    }
    pub(crate) fn flag(self, field: &str) -> Result<bool> {
        Ok(self.number(field)? != 0)
    }
}

fn wrong_type(field: &str, expected: &str) -> Error {
    Error::malformed(format!("{field} is not {expected}"))
}

/// Appends fields to a message.
#[derive(Default)]
pub(crate) struct Writer {
    pub(crate) bytes: Vec<u8>,
}

impl Writer {
    pub(crate) fn varint(&mut self, field: u32, value: u64) {
        self.raw_varint(u64::from(field) << 3);
        self.raw_varint(value);
    }
    pub(crate) fn float(&mut self, field: u32, value: f32) {
        self.raw_varint(u64::from(field) << 3 | 5);
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }
    pub(crate) fn bytes(&mut self, field: u32, value: &[u8]) {
        self.raw_varint(u64::from(field) << 3 | 2);
        self.raw_varint(value.len() as u64);
        self.bytes.extend_from_slice(value);
    }
    fn raw_varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let mut w = Writer::default();
        w.varint(3, 300);
        w.varint(4, u64::MAX);
        w.float(2, -1.5);
        w.bytes(31, "▁a".as_bytes());
        let mut f = ProtoFields::new(&w.bytes, "Test");
        assert_eq!(f.next().unwrap(), Some((3, Value::Varint(300))));
        assert_eq!(f.next().unwrap(), Some((4, Value::Varint(u64::MAX))));
        assert_eq!(f.next().unwrap().unwrap().1.float("score").unwrap(), -1.5);
        assert_eq!(f.next().unwrap().unwrap().1.text("piece").unwrap(), "▁a");
        assert_eq!(f.next().unwrap(), None);
    }

    #[test]
    fn hostile_bytes_are_errors() {
        let cases: [&[u8]; 6] = [
            &[0x0a, 0x05, b'a'],                                              // longer than what is left
            &[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1],       // 2^64 bytes
            &[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 1], // endless varint
            &[0x0b],                                                          // a group
            &[0x00, 0x01],                                                    // field 0
            &[0x15, 1, 2],                                                    // half a float
        ];
        for bytes in cases {
            assert!(ProtoFields::new(bytes, "Test").next().is_err(), "{bytes:?}");
        }
    }
}
