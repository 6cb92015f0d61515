//! Frames of a stack that was kept: from its registers outwards, by the unwind tables of the loaded modules.
//!
//! Release builds keep no frame pointers, and a fault may come at any instruction, so each step evaluates the DWARF row
//! for the exact address (`.eh_frame`, found through `.eh_frame_hdr`). The stack's words come from the copy
//! ([`Snapshot`]), everything else from the process: the tables are mapped, read-only memory of its modules.
//!
//! **Context.** The scheduler's stack, or any other with room; allocates.
//! **Invariants.** UNWIND-1: a module's segments stay mapped: nothing here unloads one.
#![allow(unsafe_code)]

use super::module::Module;
use gimli::{
    BaseAddresses, CfaRule, EhFrame, EhFrameHdr, EhFrameOffset, Encoding, EndianSlice,
    EvaluationResult, Format, Location, NativeEndian, Pointer, Reader, Register, RegisterRule,
    UnwindContext, UnwindExpression, UnwindSection, Value,
};
use highwater_engine::stack::{IP, Registers, SP, Snapshot};

type Slice = EndianSlice<'static, NativeEndian>;

/// No chain has more frames: a table that loops ends here.
const FRAMES_MAX: usize = 512;
const ENCODING: Encoding = Encoding {
    address_size: 8,
    format: Format::Dwarf32,
    version: 4,
};

/// One frame: where it was, and where its caller's part of the stack begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Step {
    /// The instruction: of the innermost frame the one that ran, of the others the one returned to.
    pub ip: u64,
    /// The canonical frame address: the stack pointer of the caller once this frame has returned.
    pub cfa: u64,
}

/// The frames of `snapshot`, innermost first, as far as the tables lead within its stack.
pub(super) fn frames(snapshot: &Snapshot, modules: &[Module]) -> Vec<Step> {
    let mut frames: Vec<Step> = Vec::new();
    let mut registers = snapshot.registers;
    let mut context = UnwindContext::new();
    while frames.len() < FRAMES_MAX {
        let ip = registers[IP];
        // A return address may be the first byte after its function: the call is before it.
        let within = if frames.is_empty() {
            ip
        } else {
            ip.saturating_sub(1)
        };
        let Some(module) = modules.iter().find(|m| m.contains(within)) else {
            break;
        };
        let Some(outer) = step(snapshot, module, &mut context, within, &registers) else {
            break;
        };
        let cfa = outer[SP];
        let inner = frames.last().map_or(registers[SP], |f| f.cfa);
        frames.push(Step { ip, cfa });
        if cfa <= inner || cfa >= snapshot.top as u64 || outer[IP] == 0 {
            break;
        }
        registers = outer;
    }
    frames
}

/// The registers of the caller.
fn step(
    snapshot: &Snapshot,
    module: &Module,
    context: &mut UnwindContext<usize>,
    within: u64,
    registers: &Registers,
) -> Option<Registers> {
    let header = module.eh_frame_hdr;
    let bases = BaseAddresses::default().set_eh_frame_hdr(header.as_ptr() as u64);
    let parsed = EhFrameHdr::new(header, NativeEndian)
        .parse(&bases, ENCODING.address_size)
        .ok()?;
    let Pointer::Direct(address) = parsed.eh_frame_ptr() else {
        return None;
    };
    let bases = bases.set_eh_frame(address);
    let section = EhFrame::new(module.from(address)?, NativeEndian);
    let row = parsed
        .table()?
        .unwind_info_for_address(
            &section,
            &bases,
            context,
            within,
            |section: &EhFrame<Slice>, bases: &BaseAddresses, at: EhFrameOffset<usize>| {
                section.cie_from_offset(bases, at)
            },
        )
        .ok()?;
    let machine = Machine {
        snapshot,
        section,
        registers,
    };
    let cfa = match row.cfa() {
        CfaRule::RegisterAndOffset { register, offset } => {
            machine.register(*register)?.wrapping_add_signed(*offset)
        }
        CfaRule::Expression(e) => machine.evaluate(e, None)?,
    };
    let mut outer = *registers;
    outer[SP] = cfa;
    for (register, rule) in row.registers() {
        let place = outer.get_mut(usize::from(register.0))?;
        *place = match rule {
            // An undefined return address is the outermost frame's.
            RegisterRule::Undefined => 0,
            RegisterRule::SameValue => continue,
            RegisterRule::Offset(n) => machine.word(cfa.wrapping_add_signed(*n))?,
            RegisterRule::ValOffset(n) => cfa.wrapping_add_signed(*n),
            RegisterRule::Register(r) => machine.register(*r)?,
            RegisterRule::Expression(e) => machine.word(machine.evaluate(e, Some(cfa))?)?,
            RegisterRule::ValExpression(e) => machine.evaluate(e, Some(cfa))?,
            RegisterRule::Constant(n) => *n,
            _ => return None,
        };
    }
    Some(outer)
}

/// What a rule is evaluated on.
struct Machine<'a> {
    snapshot: &'a Snapshot,
    section: EhFrame<Slice>,
    registers: &'a Registers,
}

impl Machine<'_> {
    fn register(&self, register: Register) -> Option<u64> {
        self.registers.get(usize::from(register.0)).copied()
    }

    /// A word of the kept stack. Beyond its ends nothing is read: what is there now is not what was there then.
    fn word(&self, address: u64) -> Option<u64> {
        self.snapshot.word(address)
    }

    fn evaluate(&self, expression: &UnwindExpression<usize>, cfa: Option<u64>) -> Option<u64> {
        let mut evaluation = expression.get(&self.section).ok()?.evaluation(ENCODING);
        if let Some(cfa) = cfa {
            evaluation.set_initial_value(cfa);
        }
        let mut state = evaluation.evaluate().ok()?;
        loop {
            state = match state {
                EvaluationResult::Complete => break,
                EvaluationResult::RequiresRegister { register, .. } => evaluation
                    .resume_with_register(Value::Generic(self.register(register)?))
                    .ok()?,
                EvaluationResult::RequiresMemory {
                    address, size: 8, ..
                } => evaluation
                    .resume_with_memory(Value::Generic(self.word(address)?))
                    .ok()?,
                _ => return None,
            };
        }
        match evaluation.as_result().last()?.location {
            Location::Address { address } => Some(address),
            Location::Value { value } => value.to_u64(u64::MAX).ok(),
            _ => None,
        }
    }
}

/// Keeps the reader's trait in use where only its methods are.
const _: fn() = || {
    fn is_reader<R: Reader>() {}
    is_reader::<Slice>();
};
