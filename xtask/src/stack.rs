//! The deepest combined stack of each program, computed from the object.
//!
//! Linux 6.1 refuses a program whose chain of calls takes more than 512 bytes, each frame rounded
//! up to 32 (`check_max_stack_depth`, kernel/bpf/verifier.c). Later kernels round up to 16, so that
//! only the oldest supported kernel notices. A tail call begins with an empty stack, but only 256
//! bytes may lie before a function that makes one. Callbacks count as calls.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use object::read::elf::ElfFile64;
use object::{
    Endianness, Object, ObjectSection, ObjectSymbol, RelocationTarget, SectionKind, SymbolKind,
};

/// `MAX_BPF_STACK`.
const LIMIT: u32 = 512;
/// What may lie before a function with a tail call.
const TAIL_LIMIT: u32 = 256;
/// `MAX_CALL_FRAMES`.
const FRAMES: usize = 8;
const ROUND: u32 = 32;

// Linux, Documentation/bpf/standardization/instruction-set.rst.
const CALL: u8 = 0x85;
const LOAD_WIDE: u8 = 0x18;
const MOVE: u8 = 0xbf;
const ADD: u8 = 0x07;
const FRAME_POINTER: u8 = 10;
const PSEUDO_CALL: u8 = 1;
const TAIL_CALL: i32 = 12;

/// Where a function begins: the number of its section, and its offset there.
type Place = (usize, u64);

#[derive(Default)]
struct Function {
    name: String,
    /// Bytes of its own frame.
    frame: u32,
    calls: BTreeSet<Place>,
    tail_calls: bool,
}

/// A chain of calls from a program, deepest of all.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Chain {
    /// The functions with their own frames.
    pub frames: Vec<(String, u32)>,
    pub bytes: u32,
}

/// The deepest chain of each program of an object, by the program's name.
pub(crate) fn deepest(object: &[u8]) -> Result<Vec<Chain>> {
    let (functions, programs) = read(object)?;
    programs
        .iter()
        .map(|place| descend(&functions, *place, 0, 0))
        .collect()
}

/// The chains that Linux 6.1 refuses, one sentence each.
pub(crate) fn faults(chains: &[Chain]) -> Vec<String> {
    let too_deep = chains.iter().filter(|chain| chain.bytes > LIMIT);
    too_deep
        .map(|chain| {
            let steps = chain
                .frames
                .iter()
                .map(|(name, own)| format!("{name} {own}"));
            format!(
                "Linux 6.1 would refuse {}: its combined stack is {} bytes of {LIMIT}: {}",
                chain.frames.first().map_or("", |(name, _)| name),
                chain.bytes,
                steps.collect::<Vec<_>>().join(", ")
            )
        })
        .collect()
}

/// The deepest chain from here on.
fn descend(
    functions: &BTreeMap<Place, Function>,
    place: Place,
    before: u32,
    level: usize,
) -> Result<Chain> {
    let function = functions.get(&place).context("a call leads nowhere")?;
    let name = &function.name;
    ensure!(
        level < FRAMES,
        "{name} is called at a depth of more than {FRAMES} frames"
    );
    ensure!(
        level == 0 || !function.tail_calls || before < TAIL_LIMIT,
        "{name} has a tail call behind {before} bytes of stack; {TAIL_LIMIT} are too many"
    );
    let own = function.frame.max(1).next_multiple_of(ROUND);
    let mut deepest = Chain {
        frames: Vec::new(),
        bytes: 0,
    };
    for call in &function.calls {
        let chain = descend(functions, *call, before + own, level + 1)?;
        if chain.bytes > deepest.bytes {
            deepest = chain;
        }
    }
    deepest.frames.insert(0, (name.clone(), function.frame));
    deepest.bytes += own;
    Ok(deepest)
}

/// All functions of an object, and which of them are programs: those outside of `.text`.
fn read(object: &[u8]) -> Result<(BTreeMap<Place, Function>, Vec<Place>)> {
    let file = ElfFile64::<Endianness>::parse(object).context("this is not an eBPF object")?;
    let mut functions = BTreeMap::new();
    let mut programs = Vec::new();
    for symbol in file
        .symbols()
        .filter(|symbol| symbol.kind() == SymbolKind::Text)
    {
        let (Some(index), size) = (symbol.section_index(), symbol.size()) else {
            continue;
        };
        let section = file.section_by_index(index)?;
        let place = (index.0, symbol.address());
        let code = section.data()?;
        let code = code.get(symbol.address() as usize..(symbol.address() + size) as usize);
        let code = code.with_context(|| format!("{:?} ends outside", symbol.name()))?;
        let mut function = decode(code, place);
        function.name = symbol.name()?.to_owned();
        if section.name()? != ".text" {
            programs.push(place);
        }
        functions.insert(place, function);
    }
    for section in file
        .sections()
        .filter(|section| section.kind() == SectionKind::Text)
    {
        for (offset, relocation) in section.relocations() {
            let RelocationTarget::Symbol(index) = relocation.target() else {
                continue;
            };
            let symbol = file.symbol_by_index(index)?;
            let Some(target) = symbol.section_index() else {
                continue;
            };
            if file.section_by_index(target)?.kind() != SectionKind::Text {
                continue;
            }
            let instruction = Instruction::at(section.data()?, offset as usize)
                .context("a relocation ends outside")?;
            let to = match (symbol.kind(), instruction.code) {
                (SymbolKind::Text, _) => symbol.address(),
                (_, CALL) => (i64::from(instruction.value) + 1) as u64 * 8,
                _ => instruction.value as u64,
            };
            let caller = functions
                .range_mut(..=(section.index().0, offset))
                .next_back();
            let (_, caller) = caller.context("a call is in no function")?;
            caller.calls.insert((target.0, to));
        }
    }
    Ok((functions, programs))
}

/// Reads a function's own frame and the calls that need no relocation.
fn decode(code: &[u8], place: Place) -> Function {
    let mut function = Function::default();
    // The registers that hold the frame pointer itself.
    let mut pointers = 1u16 << FRAME_POINTER;
    let mut at = 0;
    while let Some(instruction) = Instruction::at(code, at) {
        let Instruction {
            code: operation,
            target,
            source,
            offset,
            value,
        } = instruction;
        let below = match operation & 7 {
            1 if source == FRAME_POINTER => -i32::from(offset),
            2 | 3 if target == FRAME_POINTER => -i32::from(offset),
            7 if operation == ADD && pointers >> target & 1 != 0 => -value,
            _ => 0,
        };
        function.frame = function.frame.max(u32::try_from(below).unwrap_or(0));
        if operation == MOVE && source == FRAME_POINTER {
            pointers |= 1 << target;
        } else if matches!(operation & 7, 0 | 1 | 4 | 7) && target != FRAME_POINTER {
            pointers &= !(1 << target);
        }
        if operation == CALL && source == PSEUDO_CALL && value != -1 {
            let to = place.1 as i64 + at as i64 + 8 + i64::from(value) * 8;
            function.calls.insert((place.0, to as u64));
        }
        function.tail_calls |= operation == CALL && source == 0 && value == TAIL_CALL;
        at += if operation == LOAD_WIDE { 16 } else { 8 };
    }
    function
}

struct Instruction {
    code: u8,
    target: u8,
    source: u8,
    offset: i16,
    value: i32,
}

impl Instruction {
    fn at(code: &[u8], at: usize) -> Option<Self> {
        let bytes: [u8; 8] = code.get(at..at + 8)?.try_into().ok()?;
        let [operation, registers, a, b, value @ ..] = bytes;
        Some(Self {
            code: operation,
            target: registers & 15,
            source: registers >> 4,
            offset: i16::from_le_bytes([a, b]),
            value: i32::from_le_bytes(value),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::place;

    #[test]
    fn no_program_exceeds_the_stack_of_the_oldest_kernel() {
        for name in place::OBJECTS {
            let chains = deepest(&fs::read(place::object(name)).unwrap()).unwrap();

            assert!(!chains.is_empty());
            assert_eq!(faults(&chains), [""; 0]);
        }
    }

    #[test]
    fn a_frame_is_as_large_as_its_lowest_access() {
        // r1 = *(u64 *)(r10 - 24); *(u32 *)(r10 - 40) = r1; r2 = r10; r2 += -64; exit
        let code = [
            [0x79, 0xa1, 0xe8, 0xff, 0, 0, 0, 0],
            [0x63, 0x1a, 0xd8, 0xff, 0, 0, 0, 0],
            [0xbf, 0xa2, 0, 0, 0, 0, 0, 0],
            [0x07, 2, 0, 0, 0xc0, 0xff, 0xff, 0xff],
            [0x95, 0, 0, 0, 0, 0, 0, 0],
        ];
        let place = (1, 0);

        assert_eq!(decode(code.as_flattened(), place).frame, 64);
        assert_eq!(decode(code[..3].as_flattened(), place).frame, 40);
    }

    #[test]
    fn frames_are_rounded_up_and_the_deepest_chain_counts() {
        let functions = chain(&[
            (8, &[1, 2], false),
            (33, &[], false),
            (0, &[3], false),
            (40, &[], false),
        ]);

        let deepest = descend(&functions, at(0), 0, 0).unwrap();

        assert_eq!(deepest.bytes, 32 + 32 + 64);
        let names: Vec<_> = deepest.frames.iter().map(|(name, _)| &**name).collect();
        assert_eq!(names, ["0", "2", "3"]);
    }

    #[test]
    fn a_chain_above_the_limit_is_named_with_its_frames() {
        let functions = chain(&[(300, &[1], false), (200, &[], false)]);

        let deepest = descend(&functions, at(0), 0, 0).unwrap();

        assert_eq!(
            faults(&[deepest]),
            ["Linux 6.1 would refuse 0: its combined stack is 544 bytes of 512: 0 300, 1 200"]
        );
    }

    #[test]
    fn a_tail_call_of_a_function_wants_half_the_stack_free() {
        assert!(descend(&chain(&[(224, &[1], false), (8, &[], true)]), at(0), 0, 0).is_ok());
        assert!(descend(&chain(&[(225, &[1], false), (8, &[], true)]), at(0), 0, 0).is_err());
        assert!(descend(&chain(&[(512, &[], true)]), at(0), 0, 0).is_ok());
    }

    #[test]
    fn a_program_that_calls_itself_is_refused() {
        assert!(descend(&chain(&[(8, &[0], false)]), at(0), 0, 0).is_err());
    }

    fn at(number: u64) -> Place {
        (1, number)
    }

    fn chain(of: &[(u32, &[u64], bool)]) -> BTreeMap<Place, Function> {
        let function = |(number, (frame, calls, tail_calls)): (usize, &(u32, &[u64], bool))| {
            let function = Function {
                name: number.to_string(),
                frame: *frame,
                calls: calls.iter().map(|call| at(*call)).collect(),
                tail_calls: *tail_calls,
            };
            (at(number as u64), function)
        };
        of.iter().enumerate().map(function).collect()
    }
}
