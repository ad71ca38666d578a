//! Device rules for version 2, which has no file for them: a small program that the kernel asks.

use super::DeviceRule;

/// An instruction of the kernel's machine, as it is laid out in memory.
pub(super) type Instruction = [u8; 8];

// Registers: the answer, the context given, and what is taken from it.
const ANSWER: u8 = 0;
const CONTEXT: u8 = 1;
const KIND: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;
const SCRATCH: u8 = 6;

const LOAD_WORD: u8 = 0x61;
const MOVE: u8 = 0xbf;
const MOVE_CONSTANT: u8 = 0xb7;
const AND_CONSTANT: u8 = 0x57;
const SHIFT_RIGHT: u8 = 0x77;
const JUMP_UNLESS_EQUAL: u8 = 0x55;
const EXIT: u8 = 0x95;

const BLOCK: i32 = 1;
const CHARACTER: i32 = 2;

/// The program that allows these devices and no other.
pub(super) fn program(rules: &[DeviceRule]) -> Vec<Instruction> {
    // The context: access << 16 | kind, major, minor.
    let mut program = vec![
        instruction(LOAD_WORD, KIND, CONTEXT, 0, 0),
        instruction(MOVE, ACCESS, KIND, 0, 0),
        instruction(SHIFT_RIGHT, ACCESS, 0, 0, 16),
        instruction(AND_CONSTANT, KIND, 0, 0, 0xffff),
        instruction(LOAD_WORD, MAJOR, CONTEXT, 4, 0),
        instruction(LOAD_WORD, MINOR, CONTEXT, 8, 0),
    ];
    for rule in rules {
        program.extend(allow(rule));
        if *rule == DeviceRule::all() {
            // The kernel takes no program with instructions that nothing leads to.
            return program;
        }
    }
    program.push(instruction(MOVE_CONSTANT, ANSWER, 0, 0, 0));
    program.push(instruction(EXIT, 0, 0, 0, 0));
    program
}

/// Allows what the rule does, and goes on behind itself otherwise.
fn allow(rule: &DeviceRule) -> Vec<Instruction> {
    let mut conditions = Vec::new();
    match rule.kind {
        'a' => {}
        kind => conditions.push((None, KIND, if kind == 'b' { BLOCK } else { CHARACTER })),
    }
    let refused = !access_bits(&rule.access) & 0b111;
    if refused != 0 {
        conditions.push((Some(refused), ACCESS, 0));
    }
    conditions.extend(rule.major.map(|major| (None, MAJOR, major as i32)));
    conditions.extend(rule.minor.map(|minor| (None, MINOR, minor as i32)));

    let mut program = vec![instruction(MOVE_CONSTANT, ANSWER, 0, 0, 1), instruction(EXIT, 0, 0, 0, 0)];
    for (mask, register, value) in conditions.into_iter().rev() {
        let behind = program.len() as i16;
        let mut condition = Vec::new();
        let compared = match mask {
            Some(mask) => {
                condition.push(instruction(MOVE, SCRATCH, register, 0, 0));
                condition.push(instruction(AND_CONSTANT, SCRATCH, 0, 0, mask));
                SCRATCH
            }
            None => register,
        };
        condition.push(instruction(JUMP_UNLESS_EQUAL, compared, 0, behind, value));
        condition.append(&mut program);
        program = condition;
    }
    program
}

fn access_bits(access: &str) -> i32 {
    access.chars().fold(0, |bits, letter| {
        bits | match letter {
            'm' => 1,
            'r' => 2,
            'w' => 4,
            _ => 0,
        }
    })
}

fn instruction(code: u8, target: u8, source: u8, offset: i16, constant: i32) -> Instruction {
    let mut bytes = [0; 8];
    bytes[0] = code;
    // Both of our architectures are little-endian: the target is the lower half.
    bytes[1] = source << 4 | target;
    bytes[2..4].copy_from_slice(&offset.to_le_bytes());
    bytes[4..8].copy_from_slice(&constant.to_le_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel would answer.
    fn answer(program: &[Instruction], kind: u32, access: u32, major: u32, minor: u32) -> bool {
        let context = [access << 16 | kind, major, minor];
        let (mut registers, mut at) = ([0i64; 11], 0);
        loop {
            let [code, registers_used, low, high, ..] = program[at];
            let (target, source) = ((registers_used & 15) as usize, (registers_used >> 4) as usize);
            let constant = i32::from_le_bytes(program[at][4..8].try_into().unwrap()) as i64;
            let offset = i16::from_le_bytes([low, high]);
            at += 1;
            match code {
                LOAD_WORD => registers[target] = context[offset as usize / 4] as i64,
                MOVE => registers[target] = registers[source],
                MOVE_CONSTANT => registers[target] = constant,
                AND_CONSTANT => registers[target] &= constant,
                SHIFT_RIGHT => registers[target] >>= constant,
                JUMP_UNLESS_EQUAL if registers[target] != constant => at += offset as usize,
                JUMP_UNLESS_EQUAL => {}
                EXIT => return registers[0] != 0,
                other => panic!("unknown instruction {other:#x}"),
            }
        }
    }

    #[test]
    fn only_what_is_allowed_is_allowed() {
        let program = program(&DeviceRule::defaults());
        let (make, read, write) = (1, 2, 4);
        assert!(answer(&program, 2, read | write, 1, 3), "/dev/null");
        assert!(answer(&program, 2, read, 136, 77), "any terminal");
        assert!(answer(&program, 1, make, 8, 0), "making a node of a disk");
        assert!(!answer(&program, 1, read, 8, 0), "reading the disk");
        assert!(!answer(&program, 2, make | read, 1, 1), "/dev/mem");
        let everything = super::program(&[DeviceRule::all(), DeviceRule::character(1, Some(3), "rw")]);
        assert!(answer(&everything, 1, 7, 8, 0), "everything for the privileged");
        assert_eq!(everything.last().map(|end| end[0]), Some(EXIT));
        assert_eq!(everything.iter().filter(|one| one[0] == EXIT).count(), 1, "nothing is out of reach");
    }
}
