use super::MasterSecret;
use super::prf::Randoms;

/// Derives keying material bound to one association (RFC 5705).
///
/// Holds the master secret: use it when the association opens, then drop it, which wipes it.
pub struct Exporter {
    master: MasterSecret,
    randoms: Randoms,
}

impl Exporter {
    pub(crate) fn new(master: MasterSecret, randoms: Randoms) -> Self {
        Self { master, randoms }
    }

    /// Fills `out` with bytes that only both ends of this association can compute.
    ///
    /// `label` is printable ASCII, by RFC 5705 §4 beginning with `EXPORTER`; `context` is at most
    /// 65,535 bytes, longer ones are cut.
    pub fn export(&self, label: &str, context: &[u8], out: &mut [u8]) {
        let context = &context[..context.len().min(usize::from(u16::MAX))];
        self.master.export(&self.randoms, label, Some(context), out);
    }

    /// As [`export`](Self::export), without a context: by RFC 5705 not the same as an empty one.
    pub fn export_without_context(&self, label: &str, out: &mut [u8]) {
        self.master.export(&self.randoms, label, None, out);
    }
}

impl std::fmt::Debug for Exporter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Exporter(hidden)")
    }
}
