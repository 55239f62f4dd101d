/// Bytes held without an allocation: what an id of ours needs, and most of its peers'.
const SHORT_BYTES_MAX: usize = 22;
/// The longest connection id (RFC 9146 §3).
pub const CONNECTION_ID_BYTES_MAX: usize = 255;

/// What a peer wants to read on each record, to tell by it which association the record belongs to
/// (RFC 9146 §3). Up to [`CONNECTION_ID_BYTES_MAX`] bytes; an empty one stands for "none, thanks".
///
/// Not a secret: it travels in clear, and whoever reads along can follow an association by it from
/// one address to the next.
#[derive(Clone, PartialEq, Eq)]
pub struct ConnectionId(Repr);

#[derive(Clone, PartialEq, Eq)]
enum Repr {
    Short { length: u8, bytes: [u8; SHORT_BYTES_MAX] },
    Long(Box<[u8]>),
}

impl ConnectionId {
    /// The id of nobody: records that are sent to its owner carry none.
    pub const EMPTY: Self = Self(Repr::Short { length: 0, bytes: [0; SHORT_BYTES_MAX] });

    /// An id of these bytes; `None` if there are more than [`CONNECTION_ID_BYTES_MAX`].
    #[must_use]
    pub fn new(id: &[u8]) -> Option<Self> {
        let mut bytes = [0; SHORT_BYTES_MAX];
        match bytes.get_mut(..id.len()) {
            Some(short) => {
                short.copy_from_slice(id);
                Some(Self(Repr::Short { length: id.len() as u8, bytes }))
            }
            None if id.len() <= CONNECTION_ID_BYTES_MAX => Some(Self(Repr::Long(id.into()))),
            None => None,
        }
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Repr::Short { length, bytes } => &bytes[..usize::from(*length)],
            Repr::Long(bytes) => bytes,
        }
    }

    /// How many bytes it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.as_bytes().len()
    }

    /// True if records carry no id.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Default for ConnectionId {
    fn default() -> Self {
        Self::EMPTY
    }
}

impl From<[u8; 8]> for ConnectionId {
    fn from(id: [u8; 8]) -> Self {
        let mut bytes = [0; SHORT_BYTES_MAX];
        bytes[..8].copy_from_slice(&id);
        Self(Repr::Short { length: 8, bytes })
    }
}

impl std::fmt::Display for ConnectionId {
    /// In hexadecimal; `-` if it is empty.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.is_empty() {
            return f.write_str("-");
        }
        self.as_bytes().iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl std::fmt::Debug for ConnectionId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ConnectionId({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_every_length_keep_their_bytes() {
        for length in 0..=CONNECTION_ID_BYTES_MAX {
            let bytes: Vec<u8> = (0..length).map(|i| i as u8).collect();
            let id = ConnectionId::new(&bytes).unwrap();
            assert_eq!((id.as_bytes(), id.is_empty()), (&bytes[..], length == 0));
        }
        assert_eq!(ConnectionId::new(&[0; CONNECTION_ID_BYTES_MAX + 1]), None);
        assert_eq!(ConnectionId::from([1; 8]), ConnectionId::new(&[1; 8]).unwrap());
        assert_eq!(ConnectionId::EMPTY, ConnectionId::new(&[]).unwrap());
    }

    #[test]
    fn an_id_takes_no_more_than_three_words() {
        assert!(size_of::<ConnectionId>() <= 24);
    }

    #[test]
    fn ids_are_printed_in_hexadecimal() {
        assert_eq!(ConnectionId::new(&[0, 0xab]).unwrap().to_string(), "00ab");
        assert_eq!(ConnectionId::EMPTY.to_string(), "-");
    }
}
