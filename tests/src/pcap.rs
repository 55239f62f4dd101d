use std::net::SocketAddrV4;
use std::path::Path;
use std::time::Duration;

/// LINKTYPE_RAW: packets begin with their IP header.
const RAW_IP: u32 = 101;
/// Bytes of an IPv4 header without options, and of a UDP header.
const IPV4_HEADER_LEN: usize = 20;
const UDP_HEADER_LEN: usize = 8;
const UDP: u8 = 17;

/// A capture file of datagrams that never were on a network (pcap 2.4), for programs that read such.
#[derive(Debug)]
pub struct Pcap(Vec<u8>);

impl Pcap {
    /// One without datagrams.
    #[must_use]
    pub fn new() -> Self {
        let mut bytes = Vec::new();
        bytes.extend(0xa1b2_c3d4_u32.to_le_bytes());
        bytes.extend(2_u16.to_le_bytes());
        bytes.extend(4_u16.to_le_bytes());
        // Time zone and accuracy, which nobody uses; the longest packet; the kind of packets.
        for word in [0, 0, 65_535, RAW_IP] {
            bytes.extend(word.to_le_bytes());
        }
        Self(bytes)
    }

    /// Adds a UDP datagram that was seen `at`, since any beginning.
    ///
    /// # Panics
    /// If it is longer than UDP allows.
    pub fn datagram(&mut self, at: Duration, from: SocketAddrV4, to: SocketAddrV4, payload: &[u8]) {
        let udp_len = u16::try_from(UDP_HEADER_LEN + payload.len()).expect("a UDP datagram");
        let ip_len = u16::try_from(IPV4_HEADER_LEN + usize::from(udp_len)).expect("an IP packet");
        let length = u32::from(ip_len);
        for word in [at.as_secs() as u32, at.subsec_micros(), length, length] {
            self.0.extend(word.to_le_bytes());
        }
        // Version and header length, service; identification and fragment; lifetime, protocol.
        self.0.extend([0x45, 0]);
        self.0.extend(ip_len.to_be_bytes());
        self.0.extend([0, 0, 0, 0, 64, UDP]);
        // No checksum: readers do not look at it unless asked.
        self.0.extend([0, 0]);
        self.0.extend(from.ip().octets());
        self.0.extend(to.ip().octets());
        for word in [from.port(), to.port(), udp_len, 0] {
            self.0.extend(word.to_be_bytes());
        }
        self.0.extend(payload);
    }

    /// Writes the file.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn write(&self, path: &Path) {
        std::fs::write(path, &self.0).expect("a capture file");
    }
}

impl Default for Pcap {
    fn default() -> Self {
        Self::new()
    }
}
