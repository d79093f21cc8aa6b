//! The prefix table answers what a linear search for all prefixes of an address answers, at every step of every change.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use foobar_common::prefixes::{
    Allocator, Memory, OutOfMemory, Prefixes, ROOT_WORDS, Roots, Table, Words, build, look_up4, look_up6,
};
use ipnet::IpNet;
use proptest::prelude::*;

/// For a few small tables beside each other.
const ROOMY: u32 = 10 * ROOT_WORDS;

/// The value of a prefix is the union of the bits of all that hold it.
fn union(inherited: u32, own: u32) -> u32 {
    inherited | own
}

/// Every prefix with its own bits; the search tries them all.
type Linear = BTreeMap<IpNet, u32>;

fn search(linear: &Linear, address: IpAddr) -> u32 {
    linear.iter().filter(|(prefix, _)| prefix.contains(&address)).fold(0, |value, (_, own)| value | own)
}

fn look_up<T: Words + ?Sized>(words: &T, roots: Roots, address: IpAddr) -> u32 {
    match address {
        IpAddr::V4(v4) => look_up4(words, roots.v4, v4.into()),
        IpAddr::V6(v6) => look_up6(words, roots.v6, v6.into()),
    }
}

fn table(prefixes: impl IntoIterator<Item = (IpNet, u32)>, words: u32) -> (Vec<u64>, Table) {
    let mut memory = vec![0; words as usize];
    let table = Table::new(&mut memory, Allocator::new(0..words), prefixes.into_iter().collect(), union);
    (memory, table.expect("the words are enough"))
}

/// Addresses at and beside the ends of the prefixes.
fn probes<'a>(prefixes: impl IntoIterator<Item = &'a IpNet>) -> Vec<IpAddr> {
    let beside = |prefix: &IpNet| match prefix {
        IpNet::V4(v4) => [v4.network(), v4.broadcast()]
            .iter()
            .flat_map(|end| [-1, 0, 1].map(|by| Ipv4Addr::from_bits(end.to_bits().wrapping_add_signed(by)).into()))
            .collect::<Vec<_>>(),
        IpNet::V6(v6) => [v6.network(), v6.broadcast()]
            .iter()
            .flat_map(|end| [-1, 0, 1].map(|by| Ipv6Addr::from_bits(end.to_bits().wrapping_add_signed(by)).into()))
            .collect(),
    };
    prefixes.into_iter().flat_map(beside).collect()
}

/// Few distinct bits at both ends of the strides, so that prefixes nest and share blocks.
fn prefix() -> impl Strategy<Value = IpNet> {
    let bits = || prop::collection::vec(prop::sample::select(vec![0_u8, 1, 2, 127, 128, 255]), 16);
    let top = prop::sample::select(vec![[0_u8, 0], [10, 0], [10, 1], [255, 255]]);
    (any::<bool>(), top, bits(), 0_u8..=128, 0_u8..=32).prop_map(|(v4, top, bits, length6, length4)| {
        let mut bytes: [u8; 16] = bits.try_into().expect("16 bytes");
        bytes[..2].copy_from_slice(&top);
        let (address, length) = if v4 {
            (IpAddr::from([bytes[0], bytes[1], bytes[2], bytes[3]]), length4)
        } else {
            (IpAddr::from(bytes), length6)
        };
        IpNet::new(address, length).expect("the length fits").trunc()
    })
}

fn own() -> impl Strategy<Value = u32> {
    (0_u32..31).prop_map(|bit| 1 << bit)
}

fn linear() -> impl Strategy<Value = Linear> {
    prop::collection::btree_map(prefix(), own(), 0..24)
}

#[derive(Clone, Debug)]
enum Step {
    Insert(IpNet, u32),
    /// The prefix at this place among those there are.
    Remove(prop::sample::Index),
    Replace(Linear),
    Reclaim,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (prefix(), own()).prop_map(|(prefix, own)| Step::Insert(prefix, own)),
        4 => any::<prop::sample::Index>().prop_map(Step::Remove),
        1 => linear().prop_map(Step::Replace),
        2 => Just(Step::Reclaim),
    ]
}

/// Makes a step in the table and in the oracle.
fn apply<M: Memory + ?Sized>(step: &Step, memory: &mut M, table: &mut Table, linear: &mut Linear) {
    let done = match step {
        Step::Insert(prefix, own) => {
            linear.insert(*prefix, *own);
            table.insert(memory, *prefix, *own, union)
        }
        Step::Remove(_) if linear.is_empty() => Ok(()),
        Step::Remove(index) => {
            let prefix = *index.get(&linear.keys().copied().collect::<Vec<_>>());
            linear.remove(&prefix);
            table.remove(memory, prefix, union)
        }
        Step::Replace(with) => {
            linear.clone_from(with);
            table.replace(memory, with.iter().map(|(prefix, own)| (*prefix, *own)).collect(), union).map(drop)
        }
        Step::Reclaim => {
            table.reclaim();
            Ok(())
        }
    };
    done.expect("the memory is roomy");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_built_table_answers_what_the_search_answers(linear in linear(), more in prop::collection::vec(prefix(), 8)) {
        let (memory, table) = table(linear.clone(), ROOMY);
        for address in probes(linear.keys().chain(&more)) {
            prop_assert_eq!(look_up(&memory, table.roots(), address), search(&linear, address), "{}", address);
        }
    }

    #[test]
    fn every_change_is_in_force(steps in prop::collection::vec(step(), 1..32), more in prop::collection::vec(prefix(), 4)) {
        let (mut memory, mut table) = table([], ROOMY);
        let mut linear = Linear::new();
        let mut seen = more;
        for step in &steps {
            if let Step::Insert(prefix, _) = step {
                seen.push(*prefix);
            }
            apply(step, &mut memory, &mut table, &mut linear);
            if let Step::Replace(_) = step {
                table.reclaim();
            }
            for address in probes(linear.keys().chain(&seen)) {
                prop_assert_eq!(look_up(&memory, table.roots(), address), search(&linear, address), "{}", address);
            }
            prop_assert_eq!(table.prefixes().len(), linear.len());
        }
        // Changes leave what a table built at once takes, and nothing else.
        table.reclaim();
        let (_, fresh) = self::table(linear.clone(), ROOMY);
        prop_assert_eq!(table.words_in_use(), fresh.words_in_use());
        for prefix in linear.keys() {
            table.remove(&mut memory, *prefix, union).expect("the memory is roomy");
        }
        table.reclaim();
        prop_assert_eq!(table.words_in_use(), 2 * ROOT_WORDS);
    }

    /// A reader that stands still between two of its words while the writer changes the table, as often as it likes.
    #[test]
    fn a_reader_beside_changes_has_an_answer_of_some_instant(
        linear in linear(),
        steps in prop::collection::vec(step(), 1..4),
        probe in prefix(),
        place in any::<prop::sample::Index>(),
        after_words in 0_u32..24,
    ) {
        // Most often an address that a change touches.
        let touched = steps.iter().filter_map(|step| if let Step::Insert(prefix, _) = step { Some(prefix) } else { None });
        let address = *place.get(&probes(linear.keys().chain(touched).chain([&probe])));
        let (memory, table) = table(linear.clone(), ROOMY);
        let roots = table.roots();
        let answers = RefCell::new(vec![search(&linear, address)]);
        let state = RefCell::new((memory, table, linear.clone()));
        let change = || {
            let (memory, table, linear) = &mut *state.borrow_mut();
            for step in steps.iter().filter(|step| !matches!(step, Step::Reclaim)) {
                apply(step, memory, table, linear);
                answers.borrow_mut().push(search(linear, address));
            }
        };
        let answer = look_up(&Interrupted { state: &state, left: Cell::new(after_words), change }, roots, address);
        prop_assert!(answers.borrow().contains(&answer), "{}: {} not in {:?}", address, answer, answers);
    }

    /// Readers between any two stores of one change have the old answer, and once they have the new one keep it.
    #[test]
    fn a_change_is_in_force_at_one_store(linear in linear(), step in step(), probe in prefix()) {
        let mut after = linear.clone();
        let (mut memory, mut table) = table(linear.clone(), ROOMY);
        let roots = table.roots();
        let mut recorder = Recorder { stores: Vec::new(), words: memory.clone() };
        apply(&step, &mut recorder, &mut table, &mut after);
        let addresses = probes(linear.keys().chain([&probe]));
        let mut answers: Vec<_> = addresses.iter().map(|address| search(&linear, *address)).collect();
        for (index, word) in recorder.stores {
            memory.write(index, word);
            for (address, answer) in addresses.iter().zip(&mut answers) {
                let now = look_up(&memory, roots, *address);
                if now != *answer {
                    prop_assert_eq!(now, search(&after, *address), "{}", address);
                    *answer = now;
                }
            }
        }
        for address in addresses {
            prop_assert_eq!(look_up(&memory, table.roots(), address), search(&after, address), "{}", address);
        }
    }

    #[test]
    fn without_room_nothing_changes(linear in linear(), steps in prop::collection::vec(step(), 1..16)) {
        let (_, fresh) = table(linear.clone(), ROOMY);
        let words = fresh.words_in_use();
        let (mut memory, mut table) = table(linear.clone(), words + 20);
        let mut linear = linear;
        for step in &steps {
            let Step::Insert(prefix, own) = step else { continue };
            let before = table.words_in_use();
            match table.insert(&mut memory, *prefix, *own, union) {
                Ok(()) => drop(linear.insert(*prefix, *own)),
                Err(OutOfMemory { needed_words }) => {
                    prop_assert!(needed_words > words + 20);
                    prop_assert_eq!(table.words_in_use(), before);
                    let mut elsewhere = vec![0; ROOMY as usize];
                    let mut moved = table.clone();
                    moved.rebuild(&mut elsewhere, Allocator::new(0..ROOMY), union).expect("room");
                    moved.insert(&mut elsewhere, *prefix, *own, union).expect("room");
                    prop_assert_eq!(look_up(&elsewhere, moved.roots(), prefix.addr()) & own, *own);
                }
            }
            prop_assert_eq!(table.prefixes().len(), linear.len());
        }
        for address in probes(linear.keys()) {
            prop_assert_eq!(look_up(&memory, table.roots(), address), search(&linear, address), "{}", address);
        }
    }
}

/// Words whose reader is interrupted by a change after so many of its words.
struct Interrupted<'a, F> {
    state: &'a RefCell<(Vec<u64>, Table, Linear)>,
    left: Cell<u32>,
    change: F,
}

impl<F: Fn()> Words for Interrupted<'_, F> {
    fn word(&self, index: u32) -> Option<u64> {
        if self.left.get() == 0 {
            (self.change)();
        }
        self.left.set(self.left.get().wrapping_sub(1));
        self.state.borrow().0.word(index)
    }
}

/// Memory that keeps its stores in their order.
struct Recorder {
    stores: Vec<(u32, u64)>,
    words: Vec<u64>,
}

impl Memory for Recorder {
    fn read(&self, index: u32) -> u64 {
        self.words.read(index)
    }

    fn write(&mut self, index: u32, word: u64) {
        self.stores.push((index, word));
        self.words.write(index, word);
    }

    fn size(&self) -> u32 {
        self.words.size()
    }
}

#[test]
fn lengths_at_the_edges_of_strides() {
    let texts = [
        "0.0.0.0/0",
        "10.0.0.0/15",
        "10.1.0.0/16",
        "10.1.128.0/17",
        "10.1.129.0/24",
        "10.1.129.254/31",
        "10.1.129.255/32",
        "255.255.255.255/32",
        "0.0.0.0/32",
        "::/0",
        "2001:db8::/32",
        "2001:db8::/48",
        "2001:db8::/127",
        "2001:db8::1/128",
        "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128",
        "::/128",
    ];
    let linear: Linear =
        texts.iter().zip(0..).map(|(text, bit)| (text.parse().expect("a prefix"), 1_u32 << bit)).collect();
    let (mut memory, mut changed) = table([], ROOMY);
    for (prefix, own) in &linear {
        changed.insert(&mut memory, *prefix, *own, union).expect("room");
    }
    let (fresh_memory, fresh) = table(linear.clone(), ROOMY);
    for address in probes(linear.keys()) {
        assert_eq!(look_up(&memory, changed.roots(), address), search(&linear, address), "{address}");
        assert_eq!(look_up(&fresh_memory, fresh.roots(), address), search(&linear, address), "{address}");
    }
}

#[test]
fn the_longest_prefix_can_be_in_force_alone() {
    let prefixes: Prefixes = [("10.0.0.0/8", 1), ("10.1.2.0/24", 0), ("10.1.2.3/32", 7)]
        .map(|(text, own)| (text.parse().expect("a prefix"), own))
        .into_iter()
        .collect();
    let mut memory = vec![0; ROOMY as usize];
    let mut allocator = Allocator::new(100..ROOMY);
    let roots = build(&mut memory, &mut allocator, &prefixes, |_, own| own).expect("room");
    for (address, value) in [([10, 9, 9, 9], 1), ([10, 1, 2, 4], 0), ([10, 1, 2, 3], 7), ([11, 0, 0, 0], 0)] {
        assert_eq!(look_up(&memory, roots, address.into()), value);
    }
}

#[test]
fn words_that_are_no_table_have_no_answer() {
    // Every entry is a block at word 2^31 - 1, or the same block again and again.
    for word in [u64::MAX, 1 << 31 | 1 << 63] {
        let words = vec![word; 2 * ROOT_WORDS as usize];
        for address in [IpAddr::from([1, 2, 3, 4]), IpAddr::from([0xab; 16])] {
            assert_eq!(look_up(&words, Roots { v4: 0, v6: ROOT_WORDS }, address), 0);
        }
    }
    assert_eq!(look_up4(&[][..], u32::MAX, Ipv4Addr::LOCALHOST.into()), 0);
}

/// SplitMix64.
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

#[test]
fn a_million_random_addresses_fit_in_64_mib() {
    // Code that is not optimised takes ten times as long; there a tenth of them makes do with a quarter of the memory.
    const QUICK: bool = cfg!(debug_assertions);
    const COUNT: u32 = if QUICK { 100_000 } else { 1_000_000 };
    const WORDS: u32 = (if QUICK { 16 } else { 64 }) * 1024 * 1024 / 8;
    let mut state = 1;
    let addresses: Vec<u32> = (0..COUNT).map(|_| random(&mut state) as u32).collect();
    let prefix = |bits: u32, length| IpNet::new(Ipv4Addr::from_bits(bits).into(), length).expect("the length fits");
    let started = std::time::Instant::now();
    let hosts = addresses.iter().map(|address| (prefix(*address, 32), 1));
    let prefixes: Prefixes =
        hosts.chain((8..32).map(|length| (prefix(addresses[length as usize], length), 2))).collect();
    let sorted = started.elapsed();
    let mut memory = vec![0; WORDS as usize];
    let mut table = Table::new(&mut memory, Allocator::new(0..WORDS), prefixes, union).expect("64 MiB are enough");
    let built = started.elapsed() - sorted;
    println!("sorted in {sorted:?}, built in {built:?}, {} words", table.words_in_use());
    let found =
        |memory: &Vec<u64>, table: &Table, bits: u32| look_up4(memory, table.roots().v4, Ipv4Addr::from(bits).into());
    assert!(addresses.iter().step_by(97).all(|address| found(&memory, &table, *address) & 1 == 1));
    // A change among them touches a few blocks only.
    let before = table.words_in_use();
    for address in &addresses[..1_000] {
        table.remove(&mut memory, prefix(*address, 32), union).expect("room");
        assert_eq!(found(&memory, &table, *address) & 1, 0);
        table.insert(&mut memory, prefix(*address, 32), 1, union).expect("room");
        assert_eq!(found(&memory, &table, *address) & 1, 1);
        table.reclaim();
    }
    assert_eq!(table.words_in_use(), before);
}
