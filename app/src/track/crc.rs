//! The two CRCs of the trackers' file formats.

/// Lookup table of a 32-bit CRC with reflected input and output, as both formats use it.
pub struct Crc32([u32; 256]);

/// CRC-32 (IEEE 802.3, as in zlib), for the records of W&B's log.
pub const IEEE: Crc32 = Crc32::new(0xEDB8_8320);
/// CRC-32C (Castagnoli), for the records of TensorFlow's event files.
pub const CASTAGNOLI: Crc32 = Crc32::new(0x82F6_3B78);

impl Crc32 {
    /// Builds the table of a reflected polynomial.
    const fn new(polynomial: u32) -> Self {
        let mut table = [0; 256];
        let mut byte = 0;
        while byte < 256 {
            let mut crc = byte as u32;
            let mut bit = 0;
            while bit < 8 {
                crc = if crc & 1 == 1 { crc >> 1 ^ polynomial } else { crc >> 1 };
                bit += 1;
            }
            table[byte] = crc;
            byte += 1;
        }
        Self(table)
    }

    /// The CRC of the concatenation of `parts`.
    pub fn of(&self, parts: &[&[u8]]) -> u32 {
        let step = |crc: u32, byte: &u8| self.0[(crc as u8 ^ byte) as usize] ^ crc >> 8;
        !parts.iter().copied().flatten().fold(!0, step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_check_values_of_the_catalogs() {
        assert_eq!(IEEE.of(&[b"123456789"]), 0xCBF4_3926);
        assert_eq!(CASTAGNOLI.of(&[b"1234", b"56789"]), 0xE306_9283);
    }
}
