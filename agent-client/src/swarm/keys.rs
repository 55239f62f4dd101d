//! The agents' keys: made once, kept in one file, so that every run of a swarm has the same agents.

use std::num::NonZero;
use std::path::Path;
use std::thread;

use anyhow::{Context, bail, ensure};
use certs::file::{PRIVATE_FILE_MODE, read_private, write_atomic};
use certs::identity::COMMON_NAME;
use certs::{Fingerprint, Identity};
use zeroize::Zeroizing;

use super::fleet::agent_id;

/// The keys and certificates, one after the other: two bytes of length and the key as PKCS#8, two bytes
/// of length and the certificate.
const KEYS_FILE: &str = "keys";
/// What the server has to know of them: a line for each, the agent's id and the fingerprint.
pub(super) const PINS_FILE: &str = "pins.txt";
/// Of a million agents, with room to spare.
const FILE_BYTES_MAX: u64 = 2 << 30;

/// One agent's key.
pub(super) struct Key {
    /// Its certificate.
    pub(super) certificate_der: Vec<u8>,
    /// The key as PKCS#8.
    pub(super) pkcs8: Zeroizing<Vec<u8>>,
}

/// Keys for so many agents: those in the directory, and new ones, which are kept there, with the pins of
/// all, before this returns. The second value says how many are new.
///
/// # Errors
/// The files cannot be read or written, or are not what was written.
pub(super) fn load_or_make(
    directory: &Path,
    name: &str,
    agents: u32,
) -> anyhow::Result<(Vec<Key>, usize)> {
    let path = directory.join(KEYS_FILE);
    let bytes = match read_private(&path, FILE_BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(error) if error.is_not_found() => Zeroizing::default(),
        Err(error) => return Err(error.into()),
    };
    let mut keys = read(&bytes)
        .with_context(|| format!("{} is no file of keys of a swarm", path.display()))?;
    let wanted = agents as usize;
    let missing = wanted.saturating_sub(keys.len());
    if missing > 0 {
        keys.extend(make(missing)?);
        let mut file = Zeroizing::new(Vec::with_capacity(keys.len() * 640));
        for part in keys.iter().flat_map(|key| [&key.pkcs8[..], &key.certificate_der]) {
            let length = u16::try_from(part.len()).context("a key of more than 64 KiB")?;
            file.extend_from_slice(&length.to_be_bytes());
            file.extend_from_slice(part);
        }
        write_atomic(&path, &file, PRIVATE_FILE_MODE)?;
    }
    // Always, as the name may be another than the last time.
    let mut pins = String::with_capacity(keys.len() * 96);
    keys.truncate(wanted);
    for (number, key) in keys.iter().enumerate() {
        let fingerprint = Fingerprint::of_der(&key.certificate_der);
        pins.push_str(&agent_id(name, number));
        pins.push(' ');
        pins.push_str(&data_encoding::HEXLOWER.encode(fingerprint.as_bytes()));
        pins.push('\n');
    }
    write_atomic(&directory.join(PINS_FILE), pins.as_bytes(), PRIVATE_FILE_MODE)?;
    Ok((keys, missing))
}

fn read(mut bytes: &[u8]) -> anyhow::Result<Vec<Key>> {
    let mut part = || -> anyhow::Result<Option<Vec<u8>>> {
        if bytes.is_empty() {
            return Ok(None);
        }
        let (length, rest) = bytes.split_first_chunk().context("it ends in a length")?;
        let length = usize::from(u16::from_be_bytes(*length));
        let (part, rest) = rest.split_at_checked(length).context("it ends in a key")?;
        bytes = rest;
        Ok(Some(part.to_vec()))
    };
    let mut keys = Vec::new();
    while let Some(pkcs8) = part()? {
        let Some(certificate_der) = part()? else { bail!("the last key has no certificate") };
        keys.push(Key { certificate_der, pkcs8: pkcs8.into() });
    }
    Ok(keys)
}

/// Makes keys on all processors.
fn make(count: usize) -> anyhow::Result<Vec<Key>> {
    let threads = thread::available_parallelism().map_or(1, NonZero::get).min(count.max(1));
    let part = count.div_ceil(threads);
    let made = thread::scope(|scope| -> anyhow::Result<Vec<Key>> {
        let makers: Vec<_> = (0..threads)
            .map(|thread| part.min(count.saturating_sub(thread * part)))
            .map(|count| scope.spawn(move || (0..count).map(|_| one()).collect::<Vec<_>>()))
            .collect();
        let mut keys = Vec::with_capacity(count);
        for maker in makers {
            let Ok(made) = maker.join() else { bail!("a thread that makes keys has panicked") };
            for key in made {
                keys.push(key?);
            }
        }
        Ok(keys)
    })?;
    ensure!(made.len() == count, "{} keys were made, not {count}", made.len());
    Ok(made)
}

fn one() -> anyhow::Result<Key> {
    let identity = Identity::generate(COMMON_NAME)?;
    Ok(Key {
        certificate_der: identity.certificate_der().to_vec(),
        pkcs8: Zeroizing::new(identity.pkcs8().to_vec()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fingerprints(keys: &[Key]) -> Vec<Fingerprint> {
        keys.iter().map(|key| Fingerprint::of_der(&key.certificate_der)).collect()
    }

    #[test]
    fn a_second_run_has_the_same_agents_and_more_if_asked_for() {
        let directory = tempfile::tempdir().unwrap();
        let (first, new) = load_or_make(directory.path(), "s-", 3).unwrap();
        assert_eq!(new, 3);
        let (more, new) = load_or_make(directory.path(), "s-", 5).unwrap();
        assert_eq!(new, 2);
        assert_eq!(fingerprints(&more)[..3], fingerprints(&first));
        let (fewer, new) = load_or_make(directory.path(), "t-", 2).unwrap();
        assert_eq!((fewer.len(), new), (2, 0));
        let pins = std::fs::read_to_string(directory.path().join(PINS_FILE)).unwrap();
        let lines: Vec<&str> = pins.lines().collect();
        assert_eq!(lines.len(), 2);
        let (id, fingerprint) = lines[1].split_once(' ').unwrap();
        assert_eq!(id, "t-000001");
        assert_eq!(fingerprint.parse::<Fingerprint>().unwrap(), fingerprints(&first)[1]);
        let (all, new) = load_or_make(directory.path(), "s-", 5).unwrap();
        assert_eq!((fingerprints(&all), new), (fingerprints(&more), 0), "those left out are kept");
    }

    #[test]
    fn a_file_that_was_cut_is_refused_wherever_the_cut_is() {
        let directory = tempfile::tempdir().unwrap();
        load_or_make(directory.path(), "s-", 2).unwrap();
        let path = directory.path().join(KEYS_FILE);
        let whole = std::fs::read(&path).unwrap();
        let entries = [read(&whole).unwrap().len(), 2];
        assert_eq!(entries[0], entries[1]);
        let good = (0..whole.len()).filter(|cut| read(&whole[..*cut]).is_ok()).count();
        assert_eq!(good, 2, "empty, and after the first agent");
    }
}
