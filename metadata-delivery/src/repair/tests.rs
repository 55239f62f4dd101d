use super::*;
use crate::testing::body;

fn block(offset: u64, end: u64, symbol_bytes: usize) -> Block {
    Block::new(offset, end, symbol_bytes).expect("within the limits")
}

/// Recovers a form whose source symbols are missing where `lost` says so, with these repair symbols.
fn recover(block: &Block, form: &[u8], lost: &[usize], repairs: &[usize]) -> Option<Vec<u8>> {
    let symbols = block.encode(form, 0..block.repairs());
    assert_eq!(symbols.len(), block.repairs());
    let bytes = |range: Range<u64>| &form[range.start as usize..range.end as usize];
    let source = |nth: usize| (!lost.contains(&nth)).then(|| bytes(block.symbol(nth)).to_vec());
    let repair = |nth: usize| repairs.contains(&nth).then(|| symbols[nth].as_ref());
    let recovered = block.decode(source, repair)?;
    assert_eq!(recovered.len(), lost.len());
    let mut out = form.to_vec();
    lost.iter().for_each(|nth| {
        let Range { start, end } = block.symbol(*nth);
        out[start as usize..end as usize].fill(0xaa);
    });
    for (offset, bytes) in recovered {
        out[offset as usize..offset as usize + bytes.len()].copy_from_slice(&bytes);
    }
    Some(out)
}

/// The library's tables are addressed by these numbers: every one that a peer can name is tried.
#[test]
fn every_number_of_symbols_can_be_lost_and_repaired() {
    for count in 1..=REPAIR_SYMBOLS_MAX {
        let form = body(count as u64, 7 + 5 * count - 2);
        let block = block(7, form.len() as u64, 5);
        assert_eq!(block.count(), count);
        let all: Vec<usize> = (0..count).collect();
        let last: Vec<usize> = (block.repairs() - count..block.repairs()).collect();
        assert_eq!(recover(&block, &form, &all, &last).as_deref(), Some(&form[..]), "{count}");
        assert_eq!(recover(&block, &form, &all[..1], &last[..1]).as_deref(), Some(&form[..]));
        assert_eq!(recover(&block, &form, &all, &last[1..]), None, "one too few of {count}");
    }
}

#[test]
fn limits_are_kept() {
    assert!(Block::new(0, 0, 10).is_none() && Block::new(5, 5, 10).is_none());
    assert!(Block::new(6, 5, 10).is_none() && Block::new(0, 10, 0).is_none());
    assert!(Block::new(0, 10, REPAIR_SYMBOL_BYTES_MAX + 1).is_none());
    assert!(Block::new(0, 128 * 10, 10).is_some() && Block::new(0, 128 * 10 + 1, 10).is_none());
    assert!(Block::new(0, u64::MAX >> 2, 1).is_none());
    let even = Block::even(100, 4196, 1100).unwrap();
    assert_eq!((even.count(), even.symbol_bytes), (4, 1024));
}

#[test]
fn pieces_end_where_symbols_do() {
    let block = block(100, 1050, 100);
    for (at, end) in [(0, 100), (99, 100), (100, 200), (199, 200), (1000, 1050), (1049, 1050)] {
        assert_eq!(block.boundary(at), end, "{at}");
    }
    assert_eq!(block.symbols_of(&(0..100)), 0..0);
    assert_eq!(block.symbols_of(&(0..101)), 0..1);
    assert_eq!(block.symbols_of(&(250..300)), 1..2);
    assert_eq!(block.symbols_of(&(250..301)), 1..3);
    assert_eq!(block.symbols_of(&(100..1050)), 0..10);
}

proptest::proptest! {
    #[test]
    fn any_as_many_symbols_as_there_are_source_symbols_give_the_source(
        count in 1usize..=40,
        symbol_bytes in 1usize..200,
        short in 0usize..200,
        shuffle in proptest::collection::vec(0u32.., 128),
    ) {
        let length = (count * symbol_bytes - short % symbol_bytes) as u64;
        let form = body(length, length as usize);
        let block = block(0, length, symbol_bytes);
        let mut numbers: Vec<usize> = (0..count + block.repairs()).collect();
        numbers.sort_by_key(|nth| shuffle[*nth]);
        let (there, _) = numbers.split_at(count);
        let lost: Vec<usize> = (0..count).filter(|nth| !there.contains(nth)).collect();
        let repairs: Vec<usize> = there.iter().filter_map(|nth| nth.checked_sub(count)).collect();
        let recovered = recover(&block, &form, &lost, &repairs);
        assert_eq!(recovered.as_deref(), Some(&form[..]));
    }
}
