//! `Unwinder`, `Backtrace` and `Frame`.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use pyo3::exceptions::{PyKeyError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use xenkdump::addr::{VirtAddr, Word};
use xenkdump::alloc;
use xenkdump::tracer::{Start, Tracer};
use xenkdump::unwind::{self, Method, Reg, Registers};

use crate::errors;
use crate::fork::detach;
use crate::image::Image;
use crate::space::AddressSpace;
use crate::symbols::Symbols;
use crate::types::Types;

/// Unwinds the stacks of one kernel, or of Xen.
#[pyclass(frozen, module = "xenkdump_fast._native")]
pub struct Unwinder {
    tracer: RwLock<Tracer>,
    symbols: Py<Symbols>,
    memory: Py<AddressSpace>,
    word: Word,
}

#[pymethods]
impl Unwinder {
    #[new]
    #[pyo3(signature = (image, symbols, memory, *, types=None, version="", methods=None))]
    fn new(
        image: Option<&Image>,
        symbols: Py<Symbols>,
        memory: Py<AddressSpace>,
        types: Option<&Types>,
        version: &str,
        methods: Option<Vec<String>>,
    ) -> PyResult<Self> {
        // The image determines the word size: a 32-bit kernel may be read through page tables of a
        // 64-bit Xen.
        let space = memory.get().as_virtual()?;
        let word = match (image, space.format().width) {
            (Some(image), _) => image.inner.word(),
            (None, 32) => Word::W32,
            (None, _) => Word::W64,
        };
        let methods = methods
            .map(|names| names.iter().map(|name| method(name)).collect())
            .transpose()?;
        let methods: Option<Vec<Method>> = methods;
        let tracer = errors::catch(|| {
            Tracer::new(
                image.map(|image| &image.inner),
                word,
                space,
                &symbols.get().snapshot(),
                types.map(|types| &*types.inner),
                version,
                methods.as_deref(),
            )
        })?;
        Ok(Self {
            tracer: RwLock::new(tracer),
            symbols,
            memory,
            word,
        })
    }

    /// The methods in use, the most reliable first.
    #[getter]
    fn methods(&self) -> Vec<&'static str> {
        let tracer = self.tracer.read().unwrap_or_else(PoisonError::into_inner);
        tracer.methods().map(Method::name).collect()
    }

    /// Warnings about missing or invalid tables.
    #[getter]
    fn warnings(&self) -> Vec<String> {
        let tracer = self.tracer.read().unwrap_or_else(PoisonError::into_inner);
        tracer.warnings().map(str::to_owned).collect()
    }

    /// Adds the code of a module.
    fn add_text(&self, start: u64, end: u64) {
        self.tracer
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .add_text(VirtAddr(start)..VirtAddr(end));
    }

    /// Adds the ORC tables of a module, as in the kernel's memory.
    fn add_orc(
        &self,
        start: u64,
        end: u64,
        orc_ip: &[u8],
        orc_ip_address: u64,
        orc: &[u8],
    ) -> PyResult<()> {
        let memory = self.memory.get().as_virtual()?;
        let mut tracer = self.tracer.write().unwrap_or_else(PoisonError::into_inner);
        errors::catch(|| {
            tracer.add_module_orc(
                memory,
                &self.symbols.get().snapshot(),
                VirtAddr(start)..VirtAddr(end),
                alloc::copied(orc_ip),
                VirtAddr(orc_ip_address),
                alloc::copied(orc),
            );
        })
    }

    /// The frames of one stack, from the registers of its innermost frame. The pc and the stack
    /// pointer are required; unknown registers may be left out. `exact`: the pc is the next
    /// instruction to execute, not a return address. `stacks`: ranges known to be stacks, lowest
    /// address and first address past the end. `slot`: the address of the pc on the stack, if not just
    /// below the stack pointer.
    #[pyo3(signature = (registers, *, stacks=Vec::new(), exact=false, slot=None, limit=256))]
    fn unwind(
        &self,
        py: Python<'_>,
        registers: HashMap<String, u64>,
        stacks: Vec<(u64, u64)>,
        exact: bool,
        slot: Option<u64>,
        limit: usize,
    ) -> PyResult<Backtrace> {
        let mut start = Registers::new();
        for (name, value) in registers {
            // Notes have registers that the unwinder does not use.
            if let Some(reg) = Reg::from_name(&name) {
                start.set(reg, value);
            }
        }
        let bounds: Vec<_> = stacks
            .into_iter()
            .map(|(low, high)| (VirtAddr(low), VirtAddr(high)))
            .collect();
        let symbols = self.symbols.get().snapshot();
        let space = self.memory.get();
        let memory = space.as_virtual()?;
        let found = detach(py, || {
            let tracer = self.tracer.read().unwrap_or_else(PoisonError::into_inner);
            tracer.trace(
                memory,
                &symbols,
                Start {
                    registers: start,
                    exact,
                    bounds: &bounds,
                    limit,
                },
            )
        })?;
        space.count_reads(1);
        let frames = found
            .frames
            .iter()
            .enumerate()
            .map(|(i, frame)| {
                let slot = slot.filter(|_| i == 0);
                let frame = errors::catch(|| Frame::of(frame, &symbols, self.word, slot))?;
                Py::new(py, frame)
            })
            .collect::<PyResult<_>>()?;
        Ok(Backtrace {
            frames,
            stopped: found.stopped.map(|stop| stop.to_string()),
        })
    }

    fn __repr__(&self) -> String {
        format!("<Unwinder: {}>", self.methods().join(", "))
    }
}

fn method(name: &str) -> PyResult<Method> {
    Method::ALL
        .into_iter()
        .find(|method| method.name() == name)
        .ok_or_else(|| {
            let names = Method::ALL.map(Method::name).join(", ");
            PyValueError::new_err(format!("no unwind method {name:?}; there are {names}"))
        })
}

/// The frames of one stack.
#[pyclass(frozen, module = "xenkdump_fast._native")]
pub struct Backtrace {
    frames: Vec<Py<Frame>>,
    /// Why the unwind stopped; None at the end of the stack.
    #[pyo3(get)]
    stopped: Option<String>,
}

#[pymethods]
impl Backtrace {
    /// The frames, from the innermost outwards.
    #[getter]
    fn frames(&self, py: Python<'_>) -> Vec<Py<Frame>> {
        self.frames
            .iter()
            .map(|frame| frame.clone_ref(py))
            .collect()
    }

    fn __repr__(&self) -> String {
        let stopped = self.stopped.as_deref();
        let stopped = stopped.map_or_else(String::new, |why| format!(", stopped: {why}"));
        format!("<Backtrace: {} frames{stopped}>", self.frames.len())
    }
}

/// One frame of a stack, of a kernel or of Xen.
#[pyclass(frozen, eq, get_all, module = "xenkdump_fast._native")]
#[derive(Debug, Default, PartialEq)]
pub struct Frame {
    /// The next instruction to execute.
    pc: u64,
    /// The stack pointer in this frame, after the return from the callee.
    sp: u64,
    /// The address of the pc on the stack, if it is a return address.
    slot: u64,
    /// The symbol whose size covers the pc, else the nearest one below.
    symbol: Option<String>,
    /// Distance of the pc from the symbol.
    offset: u64,
    /// The symbol's size; 0 if unknown.
    size: u64,
    /// The nearest symbol at or below the pc, as in crash. It may be a label within `symbol`.
    label: Option<String>,
    /// The module that defines the symbol; None for the kernel itself.
    module: Option<String>,
    /// How the frame was found.
    how: Cow<'static, str>,
    /// The frame is unreliable: no unwind data leads to it.
    guess: bool,
    /// The frame was interrupted: the pc is exact, not a return address.
    interrupted: bool,
    /// User space or, for Xen, a guest; always the last frame.
    user: bool,
    /// All registers of this frame, if they are known.
    registers: Option<NamedRegisters>,
    /// The address of the saved registers on the stack.
    registers_at: Option<u64>,
}

/// Registers by name, in the order of the source.
#[derive(Clone, Debug, PartialEq)]
struct NamedRegisters(Vec<(Cow<'static, str>, u64)>);

impl NamedRegisters {
    fn get(&self, wanted: &str) -> Option<u64> {
        let found = self.0.iter().find(|(name, _)| name == wanted);
        found.map(|(_, value)| *value)
    }
}

impl<'py> IntoPyObject<'py> for &NamedRegisters {
    type Target = PyDict;
    type Output = Bound<'py, PyDict>;
    type Error = PyErr;

    fn into_pyobject(self, py: Python<'py>) -> PyResult<Self::Output> {
        let dict = PyDict::new(py);
        for (name, value) in &self.0 {
            dict.set_item(name.as_ref(), value)?;
        }
        Ok(dict)
    }
}

/// The address of a return address, given the stack pointer after the return.
fn slot_below(sp: u64, word: Word) -> u64 {
    sp.wrapping_sub(word.bytes() as u64) & word.max()
}

impl Frame {
    /// An unwound frame with its symbols.
    fn of(
        frame: &unwind::Frame,
        symbols: &xenkdump::symbols::Symbols,
        word: Word,
        slot: Option<u64>,
    ) -> Self {
        let at = frame.lookup_pc();
        let symbol = (!frame.user).then(|| symbols.lookup(at)).flatten();
        let nearest = (!frame.user).then(|| symbols.nearest(at)).flatten();
        let registers = frame.registers.map(|saved| {
            let named = saved.iter().map(|(reg, value)| (reg.name(word), value));
            NamedRegisters(named.map(|(name, value)| (name.into(), value)).collect())
        });
        Self {
            pc: frame.pc.0,
            sp: frame.sp.0,
            slot: slot.unwrap_or_else(|| slot_below(frame.sp.0, word)),
            symbol: symbol.map(|symbol| symbol.name.to_owned()),
            offset: symbol.map_or(0, |symbol| frame.pc.0.saturating_sub(symbol.address.0)),
            size: symbol.map_or(0, |symbol| symbol.size),
            label: nearest.or(symbol).map(|symbol| symbol.name.to_owned()),
            module: symbol.and_then(|symbol| symbol.module).map(str::to_owned),
            how: frame.how.name().into(),
            guess: frame.guess,
            interrupted: frame.interrupted,
            user: frame.user,
            registers,
            registers_at: frame.registers_at.map(|addr| addr.0),
        }
    }
}

#[pymethods]
impl Frame {
    /// A frame with these registers, without symbols. `how` is the source of the registers.
    #[new]
    #[pyo3(signature = (registers, how, *, user=false))]
    fn new(registers: &Bound<'_, PyDict>, how: String, user: bool) -> PyResult<Self> {
        let named = registers
            .iter()
            .map(|(name, value)| Ok((name.extract::<String>()?.into(), value.extract()?)))
            .collect::<PyResult<_>>();
        let registers = NamedRegisters(named?);
        let (ip, sp, word) = match registers.get("rip") {
            Some(_) => ("rip", "rsp", Word::W64),
            None => ("eip", "esp", Word::W32),
        };
        let needed = |name| registers.get(name).ok_or(PyKeyError::new_err(name));
        let (pc, sp) = (needed(ip)?, needed(sp)?);
        Ok(Self {
            pc,
            sp,
            slot: slot_below(sp, word),
            how: how.into(),
            interrupted: true,
            user,
            registers: Some(registers),
            ..Self::default()
        })
    }

    fn __repr__(&self) -> String {
        let name = self.symbol.as_deref().unwrap_or("?");
        format!(
            "<Frame {:#x} {name}+{:#x} ({})>",
            self.pc, self.offset, self.how
        )
    }
}
