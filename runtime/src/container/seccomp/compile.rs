//! From a filter to classic BPF.

use super::{Action, Comparison, Condition, Filter, Rule};

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;

/// Calls of the x32 convention have this bit; their numbers would pass for others.
const X32: u32 = 0x4000_0000;

const LOAD: u16 = 0x20;
const RETURN: u16 = 0x06;
const JUMP: u16 = 0x05;
const AND: u16 = 0x54;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER: u16 = 0x25;
const JUMP_GREATER_OR_EQUAL: u16 = 0x35;

const OFFSET_NUMBER: u32 = 0;
const OFFSET_ARCHITECTURE: u32 = 4;
const OFFSET_ARGUMENTS: u32 = 16;

/// The most instructions that the kernel takes.
const MOST_INSTRUCTIONS: usize = 4096;

#[derive(Clone, Copy, Debug, PartialEq)]
struct Instruction {
    code: u16,
    if_true: u8,
    if_false: u8,
    operand: u32,
}

fn plain(code: u16, operand: u32) -> Instruction {
    Instruction { code, if_true: 0, if_false: 0, operand }
}

fn branch(code: u16, operand: u32, if_true: usize, if_false: usize) -> Instruction {
    Instruction { code, if_true: if_true as u8, if_false: if_false as u8, operand }
}

/// The program as the bytes of the kernel's `struct sock_filter` array.
pub fn compile(filter: &Filter) -> Result<Vec<u8>, String> {
    let mut program = vec![
        plain(LOAD, OFFSET_ARCHITECTURE),
        branch(JUMP_EQUAL, ARCHITECTURE, 1, 0),
        plain(RETURN, Action::KillProcess.code()),
        plain(LOAD, OFFSET_NUMBER),
        branch(JUMP_GREATER_OR_EQUAL, X32, 0, 1),
        plain(RETURN, Action::Fail(libc::ENOSYS as u16).code()),
    ];
    program.extend(search(&ranges(filter), filter.default));
    if program.len() > MOST_INSTRUCTIONS {
        return Err(format!(
            "the profile needs {} instructions, the kernel takes {MOST_INSTRUCTIONS}",
            program.len()
        ));
    }
    let bytes = program.iter().flat_map(|instruction| {
        let mut bytes = [0u8; 8];
        bytes[0..2].copy_from_slice(&instruction.code.to_ne_bytes());
        bytes[2] = instruction.if_true;
        bytes[3] = instruction.if_false;
        bytes[4..8].copy_from_slice(&instruction.operand.to_ne_bytes());
        bytes
    });
    Ok(bytes.collect())
}

/// Neighbouring numbers with the same answer: where each begins, and its rules.
fn ranges(filter: &Filter) -> Vec<(u32, Vec<Rule>)> {
    let otherwise = || vec![Rule { action: filter.default, conditions: Vec::new() }];
    let mut ranges: Vec<(u32, Vec<Rule>)> = vec![(0, otherwise())];
    let mut push = |begin: u32, rules: Vec<Rule>| match ranges.last_mut() {
        Some((_, last)) if *last == rules => {}
        Some((last_begin, last)) if *last_begin == begin => *last = rules,
        _ => ranges.push((begin, rules)),
    };
    let mut next = 0;
    for (number, rules) in &filter.rules {
        if *number > next {
            push(next, otherwise());
        }
        push(*number, rules.clone());
        next = number + 1;
    }
    push(next, otherwise());
    ranges
}

/// Finds the range of the number in the accumulator by halving.
fn search(ranges: &[(u32, Vec<Rule>)], default: Action) -> Vec<Instruction> {
    if let [(_, rules)] = ranges {
        return answer(rules, default);
    }
    let (lower, upper) = ranges.split_at(ranges.len() / 2);
    let lower = search(lower, default);
    // A conditional jump reaches 255 instructions; the unconditional one reaches everywhere.
    let mut program = vec![branch(JUMP_GREATER_OR_EQUAL, upper[0].0, 0, 1), plain(JUMP, lower.len() as u32)];
    program.extend(lower);
    program.extend(search(upper, default));
    program
}

fn answer(rules: &[Rule], default: Action) -> Vec<Instruction> {
    let mut program = Vec::new();
    for rule in rules {
        let mut tail = vec![plain(RETURN, rule.action.code())];
        // From the last to the first, so that each knows how far it is to the next rule.
        for condition in rule.conditions.iter().rev() {
            let mut block = compare(condition);
            block.push(plain(JUMP, tail.len() as u32));
            block.extend(tail);
            tail = block;
        }
        program.extend(tail);
    }
    program.push(plain(RETURN, default.code()));
    program
}

/// Goes on after the next instruction when the condition holds, with the next when it does not.
fn compare(condition: &Condition) -> Vec<Instruction> {
    let offset = OFFSET_ARGUMENTS + 8 * condition.argument as u32;
    // Both of our architectures are little-endian.
    let (load_low, load_high) = (plain(LOAD, offset), plain(LOAD, offset + 4));
    let (low, high) = (condition.value as u32, (condition.value >> 32) as u32);
    match condition.comparison {
        Comparison::Equal => {
            vec![load_high, branch(JUMP_EQUAL, high, 0, 2), load_low, branch(JUMP_EQUAL, low, 1, 0)]
        }
        Comparison::NotEqual => {
            vec![load_high, branch(JUMP_EQUAL, high, 0, 3), load_low, branch(JUMP_EQUAL, low, 0, 1)]
        }
        Comparison::MaskedEqual(mask) => vec![
            load_high,
            plain(AND, (mask >> 32) as u32),
            branch(JUMP_EQUAL, high, 0, 3),
            load_low,
            plain(AND, mask as u32),
            branch(JUMP_EQUAL, low, 1, 0),
        ],
        Comparison::Greater => ordered(load_high, high, load_low, branch(JUMP_GREATER, low, 1, 0), true),
        Comparison::GreaterOrEqual => {
            ordered(load_high, high, load_low, branch(JUMP_GREATER_OR_EQUAL, low, 1, 0), true)
        }
        Comparison::Less => {
            ordered(load_high, high, load_low, branch(JUMP_GREATER_OR_EQUAL, low, 0, 1), false)
        }
        Comparison::LessOrEqual => ordered(load_high, high, load_low, branch(JUMP_GREATER, low, 0, 1), false),
    }
}

/// Compares the upper halves, and the lower ones by `last` when the upper are equal.
fn ordered(
    load_high: Instruction,
    high: u32,
    load_low: Instruction,
    last: Instruction,
    greater_holds: bool,
) -> Vec<Instruction> {
    let greater =
        if greater_holds { branch(JUMP_GREATER, high, 4, 0) } else { branch(JUMP_GREATER, high, 3, 0) };
    let less = if greater_holds { branch(JUMP_EQUAL, high, 0, 2) } else { branch(JUMP_EQUAL, high, 0, 3) };
    vec![load_high, greater, less, load_low, last]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// What the kernel would do with the program.
    fn run(program: &[u8], number: u32, arguments: [u64; 6]) -> u32 {
        let mut data = Vec::new();
        data.extend(number.to_ne_bytes());
        data.extend(ARCHITECTURE.to_ne_bytes());
        data.extend(0u64.to_ne_bytes());
        data.extend(arguments.iter().flat_map(|argument| argument.to_ne_bytes()));
        let (mut at, mut accumulator) = (0usize, 0u32);
        loop {
            let instruction = &program[8 * at..8 * at + 8];
            let code = u16::from_ne_bytes([instruction[0], instruction[1]]);
            let operand = u32::from_ne_bytes(instruction[4..8].try_into().unwrap());
            let jump = |holds: bool| if holds { instruction[2] as usize } else { instruction[3] as usize };
            at += 1 + match code {
                LOAD => {
                    let offset = operand as usize;
                    accumulator = u32::from_ne_bytes(data[offset..offset + 4].try_into().unwrap());
                    0
                }
                AND => {
                    accumulator &= operand;
                    0
                }
                RETURN => return operand,
                JUMP => operand as usize,
                JUMP_EQUAL => jump(accumulator == operand),
                JUMP_GREATER => jump(accumulator > operand),
                JUMP_GREATER_OR_EQUAL => jump(accumulator >= operand),
                other => panic!("unknown instruction {other:#x}"),
            };
        }
    }

    #[test]
    fn every_call_gets_its_own_answer() {
        let allow = || vec![Rule { action: Action::Allow, conditions: Vec::new() }];
        let rules: BTreeMap<u32, Vec<Rule>> =
            (0..300).filter(|number| number % 3 != 0).map(|number| (number, allow())).collect();
        let program = compile(&Filter { default: Action::Fail(1), rules }).unwrap();
        for number in 0..400 {
            let expected = if number < 300 && number % 3 != 0 { Action::Allow } else { Action::Fail(1) };
            assert_eq!(run(&program, number, [0; 6]), expected.code(), "call {number}");
        }
        assert_eq!(run(&program, X32 | 1, [0; 6]), Action::Fail(libc::ENOSYS as u16).code());
    }

    #[test]
    fn comparisons_see_all_64_bits() {
        let value = 5u64 << 32 | 7;
        let holds = |comparison, argument| {
            let conditions = vec![Condition { argument: 2, comparison, value }];
            let rules = BTreeMap::from([(9, vec![Rule { action: Action::Allow, conditions }])]);
            let program = compile(&Filter { default: Action::Fail(1), rules }).unwrap();
            run(&program, 9, [0, 0, argument, 0, 0, 0]) == Action::Allow.code()
        };
        for argument in [0, 7, value - 1, value, value + 1, 6 << 32, 5 << 32, 4 << 32 | 9, u64::MAX] {
            assert_eq!(holds(Comparison::Equal, argument), argument == value, "{argument:#x} ==");
            assert_eq!(holds(Comparison::NotEqual, argument), argument != value, "{argument:#x} !=");
            assert_eq!(holds(Comparison::Less, argument), argument < value, "{argument:#x} <");
            assert_eq!(holds(Comparison::LessOrEqual, argument), argument <= value, "{argument:#x} <=");
            assert_eq!(holds(Comparison::Greater, argument), argument > value, "{argument:#x} >");
            assert_eq!(holds(Comparison::GreaterOrEqual, argument), argument >= value, "{argument:#x} >=");
            let mask = 0xf_0000_000f;
            assert_eq!(
                holds(Comparison::MaskedEqual(mask), argument),
                argument & mask == value,
                "{argument:#x} &"
            );
        }
    }
}
