//! The part of the protocol buffers wire format that event files and W&B's records need.

/// An encoded message, built field by field. The field numbers come from the `.proto` files of TensorFlow and W&B.
#[derive(Clone, Default)]
pub struct Message(Vec<u8>);

const VARINT: u64 = 0;
const FIXED_64: u64 = 1;
const DELIMITED: u64 = 2;
const FIXED_32: u64 = 5;

impl Message {
    /// An empty message.
    pub fn new() -> Self {
        Self::default()
    }

    fn raw(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    /// Appends a bool, an enum or a nonnegative integer.
    pub fn varint(mut self, field: u64, value: u64) -> Self {
        self.raw(field << 3 | VARINT);
        self.raw(value);
        self
    }

    /// Appends a `double`.
    pub fn double(mut self, field: u64, value: f64) -> Self {
        self.raw(field << 3 | FIXED_64);
        self.0.extend(value.to_le_bytes());
        self
    }

    /// Appends a `float`.
    pub fn float(mut self, field: u64, value: f32) -> Self {
        self.raw(field << 3 | FIXED_32);
        self.0.extend(value.to_le_bytes());
        self
    }

    /// Appends a `string` or `bytes`.
    pub fn bytes(mut self, field: u64, value: impl AsRef<[u8]>) -> Self {
        self.raw(field << 3 | DELIMITED);
        self.raw(value.as_ref().len() as u64);
        self.0.extend(value.as_ref());
        self
    }

    /// Appends a nested message.
    pub fn message(self, field: u64, value: Message) -> Self {
        self.bytes(field, value.0)
    }

    /// The encoded bytes of the message.
    pub fn encoded(&self) -> &[u8] {
        &self.0
    }
}

/// Iterates over the length-delimited fields (strings and messages) of a message as (number, bytes), and skips the
/// others. Stops at the first byte that violates the wire format.
pub fn delimited(mut message: &[u8]) -> impl Iterator<Item = (u64, &[u8])> {
    let next = move || loop {
        let tag = take_varint(&mut message)?;
        match tag & 7 {
            VARINT => {
                take_varint(&mut message)?;
            }
            FIXED_64 => message = message.get(8..)?,
            FIXED_32 => message = message.get(4..)?,
            DELIMITED => {
                let length = usize::try_from(take_varint(&mut message)?).ok()?;
                let (value, rest) = message.split_at_checked(length)?;
                message = rest;
                return Some((tag >> 3, value));
            }
            _ => return None,
        }
    };
    std::iter::from_fn(next)
}

fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7F) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_the_specification() {
        assert_eq!(Message::new().varint(1, 150).encoded(), [0x08, 0x96, 0x01]);
        assert_eq!(Message::new().bytes(2, "testing").encoded(), b"\x12\x07testing");
        let inner = Message::new().varint(1, 150);
        assert_eq!(Message::new().message(3, inner).encoded(), [0x1a, 0x03, 0x08, 0x96, 0x01]);
        assert_eq!(Message::new().float(16, 1.0).encoded(), [0x85, 0x01, 0, 0, 0x80, 0x3f]);
    }

    #[test]
    fn delimited_fields_are_found_and_damage_ends_them() {
        let message = Message::new().double(1, 0.5).bytes(2, "a").varint(3, 300).float(4, 2.0).bytes(2000, "b");
        let whole: Vec<_> = delimited(message.encoded()).collect();
        assert_eq!(whole, [(2, &b"a"[..]), (2000, b"b")]);
        for end in 0..message.encoded().len() {
            assert!(delimited(&message.encoded()[..end]).count() < 2, "cut at {end}");
        }
    }
}
