//! The receiver's side: repair symbols that wait for enough others.

use std::collections::BTreeMap;

use super::Block;
use crate::assembly::{Assembly, NoRoom};

/// Repair symbols of one transfer: fewer than source symbols are missing.
#[derive(Debug)]
pub(crate) struct Received {
    block: Block,
    symbols: BTreeMap<usize, Box<[u8]>>,
}

/// What became of an attempt to put the rest together.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Recovered {
    /// Too little is there yet, or nothing is missing.
    Nothing,
    /// Everything is there now.
    All,
    /// Enough is there, and no document comes out.
    Failed,
}

impl Received {
    pub(crate) fn new(block: Block) -> Self {
        Self { block, symbols: BTreeMap::new() }
    }

    pub(crate) fn block(&self) -> &Block {
        &self.block
    }

    /// Bytes held.
    pub(crate) fn held_bytes(&self) -> usize {
        self.symbols.len() * self.block.symbol_bytes()
    }

    /// Takes a symbol; `nth` is below [`Block::repairs`].
    pub(crate) fn insert(&mut self, nth: usize, symbol: &[u8]) {
        self.symbols.entry(nth).or_insert_with(|| symbol.into());
    }

    /// Puts the missing source symbols into their places, once enough is there.
    pub(crate) fn recover(&mut self, assembly: &mut Assembly) -> Result<Recovered, NoRoom> {
        let block = self.block;
        let missing = (0..block.count()).filter(|nth| !assembly.has(block.symbol(*nth))).count();
        if missing == 0 {
            self.symbols.clear();
        }
        if missing == 0 || self.symbols.len() < missing {
            return Ok(Recovered::Nothing);
        }
        let source = |nth| assembly.read(block.symbol(nth));
        let repair = |nth| self.symbols.get(&nth).map(AsRef::as_ref);
        let Some(recovered) = block.decode(source, repair) else {
            self.symbols.clear();
            return Ok(Recovered::Failed);
        };
        for (offset, bytes) in recovered {
            assembly.insert(offset, &bytes)?;
        }
        self.symbols.clear();
        Ok(Recovered::All)
    }
}
