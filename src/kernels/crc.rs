//! CRC-32 (IEEE 802.3, as zlib computes it): what guards the frames and the index of a pack, and tells tables apart.
//!
//! Limit: finds damage, not malice; two tables may have one CRC by a chance of 2^-32.

/// Four bytes a step.
pub(super) fn crc32(data: &[u8]) -> u32 {
    const TABLES: [[u32; 256]; 4] = crc_tables();
    let mut crc = !0u32;
    let mut chunks = data.chunks_exact(4);
    for c in &mut chunks {
        crc ^= u32::from_le_bytes([c[0], c[1], c[2], c[3]]);
        crc = TABLES[3][(crc & 255) as usize]
            ^ TABLES[2][(crc >> 8 & 255) as usize]
            ^ TABLES[1][(crc >> 16 & 255) as usize]
            ^ TABLES[0][(crc >> 24) as usize];
    }
    for &b in chunks.remainder() {
        crc = crc >> 8 ^ TABLES[0][((crc ^ u32::from(b)) & 255) as usize];
    }
    !crc
}

const fn crc_tables() -> [[u32; 256]; 4] {
    let mut t = [[0u32; 256]; 4];
    let mut i = 0;
    while i < 256 {
        let mut c = i as u32;
        let mut bit = 0;
        while bit < 8 {
            c = if c & 1 == 1 { c >> 1 ^ 0xEDB8_8320 } else { c >> 1 };
            bit += 1;
        }
        t[0][i] = c;
        i += 1;
    }
    let mut k = 1;
    while k < 4 {
        let mut i = 0;
        while i < 256 {
            t[k][i] = t[k - 1][i] >> 8 ^ t[0][(t[k - 1][i] & 255) as usize];
            i += 1;
        }
        k += 1;
    }
    t
}

#[cfg(test)]
mod tests {
    use super::crc32;

    #[test]
    fn the_checksum_is_zlibs() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
        assert_eq!(crc32(b""), 0);
    }
}
