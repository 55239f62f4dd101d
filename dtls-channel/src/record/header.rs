use crate::wire::ContentType;
use crate::wire::ids::VERSION_1_2;

/// RFC 6347 §4.1: type 1, version 2, epoch 2, sequence number 6, length 2.
pub(crate) const HEADER_LEN: usize = 13;

/// One record of a datagram, its body not yet opened.
#[derive(Debug)]
pub(crate) struct Record<'a> {
    pub(crate) content_type: ContentType,
    pub(crate) version: u16,
    pub(crate) epoch: u16,
    /// 48 bits.
    pub(crate) sequence: u64,
    pub(crate) body: &'a mut [u8],
}

impl Record<'_> {
    /// Epoch and sequence number as the 64-bit number of nonces and MACs.
    pub(crate) fn number(&self) -> u64 {
        number(self.epoch, self.sequence)
    }

    /// The whole record as it came in.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_LEN + self.body.len());
        write_header(&mut bytes, self.content_type, self.version, self.number(), self.body.len());
        bytes.extend_from_slice(self.body);
        bytes
    }
}

pub(crate) fn number(epoch: u16, sequence: u64) -> u64 {
    u64::from(epoch) << 48 | sequence
}

/// Splits a datagram into its records; stops at the first that is not whole (RFC 6347 §4.1.1:
/// records do not span datagrams).
#[derive(Debug)]
pub(crate) struct Records<'a> {
    rest: &'a mut [u8],
}

impl<'a> Records<'a> {
    pub(crate) fn new(datagram: &'a mut [u8]) -> Self {
        Self { rest: datagram }
    }

    /// True if bytes are left that form no record.
    pub(crate) fn has_rest(&self) -> bool {
        !self.rest.is_empty()
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Record<'a>;

    fn next(&mut self) -> Option<Record<'a>> {
        let header: [u8; HEADER_LEN] = *self.rest.first_chunk()?;
        let [content_type, v0, v1, e0, e1, s0, s1, s2, s3, s4, s5, l0, l1] = header;
        let end = HEADER_LEN + usize::from(u16::from_be_bytes([l0, l1]));
        if end > self.rest.len() {
            return None;
        }
        let (record, rest) = std::mem::take(&mut self.rest).split_at_mut(end);
        self.rest = rest;
        Some(Record {
            content_type: ContentType(content_type),
            version: u16::from_be_bytes([v0, v1]),
            epoch: u16::from_be_bytes([e0, e1]),
            sequence: u64::from_be_bytes([0, 0, s0, s1, s2, s3, s4, s5]),
            body: &mut record[HEADER_LEN..],
        })
    }
}

/// Appends a record header.
pub(crate) fn write_header(
    out: &mut Vec<u8>,
    content_type: ContentType,
    version: u16,
    number: u64,
    length: usize,
) {
    debug_assert!(length <= usize::from(u16::MAX));
    out.push(content_type.0);
    out.extend_from_slice(&version.to_be_bytes());
    out.extend_from_slice(&number.to_be_bytes());
    out.extend_from_slice(&(length as u16).to_be_bytes());
}

/// RFC 5246 §6.2.3.3: what the AEAD authenticates beside the content.
pub(crate) fn additional_data(number: u64, content_type: ContentType, length: u16) -> [u8; 13] {
    let mut aad = [0; 13];
    aad[..8].copy_from_slice(&number.to_be_bytes());
    aad[8] = content_type.0;
    aad[9..11].copy_from_slice(&VERSION_1_2.to_be_bytes());
    aad[11..].copy_from_slice(&length.to_be_bytes());
    aad
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_is_split_into_records_and_a_torn_tail_is_left() {
        let mut datagram = Vec::new();
        write_header(&mut datagram, ContentType::HANDSHAKE, VERSION_1_2, number(0, 5), 3);
        datagram.extend_from_slice(b"abc");
        write_header(
            &mut datagram,
            ContentType::APPLICATION_DATA,
            VERSION_1_2,
            number(1, 0x0102_0304_0506),
            0,
        );
        assert_eq!(datagram[..13], [22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 5, 0, 3]);
        for cut in 0..datagram.len() {
            let mut torn = datagram[..cut].to_vec();
            let mut records = Records::new(&mut torn);
            assert_eq!(records.by_ref().count(), usize::from(cut >= 16), "cut at {cut}");
            assert_eq!(records.has_rest(), cut != 0 && cut != 16);
        }
        let mut records = Records::new(&mut datagram);
        let (first, second) = (records.next().unwrap(), records.next().unwrap());
        assert_eq!((first.epoch, first.sequence, &*first.body), (0, 5, &b"abc"[..]));
        assert_eq!((second.epoch, second.sequence), (1, 0x0102_0304_0506));
        assert_eq!(second.number(), 0x0001_0102_0304_0506);
        assert!(records.next().is_none() && !records.has_rest());
    }
}
