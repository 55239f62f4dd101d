use super::connection_id::CONNECTION_ID_BYTES_MAX;
use crate::wire::ContentType;
use crate::wire::ids::VERSION_1_2;

/// RFC 6347 §4.1: type 1, version 2, epoch 2, sequence number 6, length 2.
pub(crate) const HEADER_LEN: usize = 13;
/// Where the connection id stands in a record that has one (RFC 9146 §4); its length is nowhere on
/// the wire.
pub(crate) const ID_AT: usize = 11;

/// One record of a datagram, its body not yet opened.
#[derive(Debug)]
pub(crate) struct Record<'a> {
    pub(crate) content_type: ContentType,
    pub(crate) version: u16,
    pub(crate) epoch: u16,
    /// 48 bits.
    pub(crate) sequence: u64,
    /// The connection id; empty unless the type is tls12_cid.
    pub(crate) id: &'a [u8],
    pub(crate) body: &'a mut [u8],
}

impl Record<'_> {
    /// Epoch and sequence number as the 64-bit number of nonces and MACs.
    pub(crate) fn number(&self) -> u64 {
        number(self.epoch, self.sequence)
    }

    /// The whole record as it came in.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let (number, length) = (self.number(), self.body.len());
        let mut bytes = Vec::with_capacity(self.len());
        write_header(&mut bytes, self.content_type, self.version, number, self.id, length);
        bytes.extend_from_slice(self.body);
        bytes
    }

    /// How many bytes of the datagram it takes.
    pub(crate) fn len(&self) -> usize {
        HEADER_LEN + self.id.len() + self.body.len()
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
    id_length: usize,
}

impl<'a> Records<'a> {
    /// The records of a datagram to somebody who has no connection id.
    pub(crate) fn new(datagram: &'a mut [u8]) -> Self {
        Self::with_id_length(datagram, 0)
    }

    /// The records of a datagram to somebody whose connection id has `id_length` bytes. The first
    /// records of a handshake's datagrams carry none, so each record's type decides.
    pub(crate) fn with_id_length(datagram: &'a mut [u8], id_length: usize) -> Self {
        Self { rest: datagram, id_length }
    }

    /// True if bytes are left that form no record.
    pub(crate) fn has_rest(&self) -> bool {
        !self.rest.is_empty()
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Record<'a>;

    fn next(&mut self) -> Option<Record<'a>> {
        let header: [u8; ID_AT] = *self.rest.first_chunk()?;
        let [content_type, v0, v1, e0, e1, s0, s1, s2, s3, s4, s5] = header;
        let content_type = ContentType(content_type);
        let id_length = if content_type == ContentType::TLS12_CID { self.id_length } else { 0 };
        let length = *self.rest.get(ID_AT + id_length..)?.first_chunk::<2>()?;
        let start = HEADER_LEN + id_length;
        let end = start + usize::from(u16::from_be_bytes(length));
        if end > self.rest.len() {
            return None;
        }
        let (record, rest) = std::mem::take(&mut self.rest).split_at_mut(end);
        self.rest = rest;
        let (head, body) = record.split_at_mut(start);
        Some(Record {
            content_type,
            version: u16::from_be_bytes([v0, v1]),
            epoch: u16::from_be_bytes([e0, e1]),
            sequence: u64::from_be_bytes([0, 0, s0, s1, s2, s3, s4, s5]),
            id: &head[ID_AT..ID_AT + id_length],
            body,
        })
    }
}

/// Appends a record header.
pub(crate) fn write_header(
    out: &mut Vec<u8>,
    content_type: ContentType,
    version: u16,
    number: u64,
    id: &[u8],
    length: usize,
) {
    debug_assert!(length <= usize::from(u16::MAX));
    let ([v0, v1], [l0, l1]) = (version.to_be_bytes(), (length as u16).to_be_bytes());
    let [e0, e1, s0, s1, s2, s3, s4, s5] = number.to_be_bytes();
    let head = [content_type.0, v0, v1, e0, e1, s0, s1, s2, s3, s4, s5, l0, l1];
    if id.is_empty() {
        return out.extend_from_slice(&head);
    }
    out.extend_from_slice(&head[..ID_AT]);
    out.extend_from_slice(id);
    out.extend_from_slice(&head[ID_AT..]);
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

/// What the AEAD authenticates of a record with a connection id (RFC 9146 §5.3).
pub(crate) struct AdditionalDataWithId {
    bytes: [u8; Self::FIXED_LEN + CONNECTION_ID_BYTES_MAX],
    length: usize,
}

impl AdditionalDataWithId {
    /// seq_num_placeholder 8, type 1, length of the id 1, type 1, version 2, epoch and sequence
    /// number 8, length 2.
    const FIXED_LEN: usize = 23;

    /// `length` is that of the whole inner plaintext: content, type and padding.
    pub(crate) fn new(number: u64, id: &[u8], length: u16) -> Self {
        let mut this = Self { bytes: [0xff; Self::FIXED_LEN + CONNECTION_ID_BYTES_MAX], length: 8 };
        let [v0, v1] = VERSION_1_2.to_be_bytes();
        let kind = ContentType::TLS12_CID.0;
        this.push(&[kind, id.len() as u8, kind, v0, v1]);
        this.push(&number.to_be_bytes());
        this.push(id);
        this.push(&length.to_be_bytes());
        this
    }

    fn push(&mut self, part: &[u8]) {
        self.bytes[self.length..self.length + part.len()].copy_from_slice(part);
        self.length += part.len();
    }
}

impl AsRef<[u8]> for AdditionalDataWithId {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_is_split_into_records_and_a_torn_tail_is_left() {
        let mut datagram = Vec::new();
        write_header(&mut datagram, ContentType::HANDSHAKE, VERSION_1_2, number(0, 5), &[], 3);
        datagram.extend_from_slice(b"abc");
        write_header(
            &mut datagram,
            ContentType::APPLICATION_DATA,
            VERSION_1_2,
            number(1, 0x0102_0304_0506),
            &[],
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

    #[test]
    fn only_records_of_the_cid_type_have_an_id_and_it_has_the_length_agreed_on() {
        let mut datagram = Vec::new();
        let plain = ContentType::CHANGE_CIPHER_SPEC;
        write_header(&mut datagram, plain, VERSION_1_2, number(0, 5), &[], 1);
        datagram.push(1);
        let kind = ContentType::TLS12_CID;
        write_header(&mut datagram, kind, VERSION_1_2, number(1, 0), b"name", 3);
        datagram.extend_from_slice(b"abc");
        for cut in 0..=datagram.len() {
            let mut torn = datagram[..cut].to_vec();
            let mut records = Records::with_id_length(&mut torn, 4);
            let whole = usize::from(cut >= 14) + usize::from(cut == datagram.len());
            assert_eq!(records.by_ref().count(), whole, "cut at {cut}");
            assert_eq!(records.has_rest(), !matches!(cut, 0 | 14 | 34), "cut at {cut}");
        }
        let copy = datagram.clone();
        let mut records = Records::with_id_length(&mut datagram, 4);
        let (first, second) = (records.next().unwrap(), records.next().unwrap());
        assert_eq!((first.id, &*first.body), (&b""[..], &[1][..]));
        assert_eq!((second.id, &*second.body), (&b"name"[..], &b"abc"[..]));
        assert_eq!((second.len(), second.to_bytes()), (20, copy[14..].to_vec()));
    }

    /// RFC 9146 §5.3, field by field.
    #[test]
    fn the_additional_data_of_a_record_with_an_id_is_laid_out_as_the_rfc_says() {
        let got = AdditionalDataWithId::new(number(1, 0x0203), &[0xaa, 0xbb, 0xcc], 0x0123);
        let mut expected = vec![0xff; 8]; // seq_num_placeholder
        expected.extend([25, 3, 25]); // tls12_cid, cid_length, tls12_cid
        expected.extend([0xfe, 0xfd]); // version
        expected.extend([0, 1]); // epoch
        expected.extend([0, 0, 0, 0, 2, 3]); // sequence number
        expected.extend([0xaa, 0xbb, 0xcc]); // cid
        expected.extend([1, 0x23]); // length_of_DTLSInnerPlaintext
        assert_eq!(got.as_ref(), expected);
        let longest = AdditionalDataWithId::new(0, &[7; CONNECTION_ID_BYTES_MAX], 1);
        assert_eq!(longest.as_ref().len(), 23 + 255);
    }
}
