//! `disassemble`.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use xenkdump::addr::{VirtAddr, Word};
use xenkdump::disassembly::{self, Notation};

use crate::errors;

/// Disassembles x86 code: `(address, size, text, target)` of each instruction, at most `limit`.
#[pyfunction]
#[pyo3(signature = (code, address, word, *, notation="att", limit=4096))]
#[allow(clippy::type_complexity)]
pub fn disassemble(
    code: &[u8],
    address: u64,
    word: usize,
    notation: &str,
    limit: usize,
) -> PyResult<Vec<(u64, usize, String, Option<u64>)>> {
    let word = match word {
        4 => Word::W32,
        8 => Word::W64,
        _ => return Err(PyValueError::new_err("word: 4 or 8 is needed")),
    };
    let notation = match notation {
        "att" => Notation::Att,
        "intel" => Notation::Intel,
        _ => {
            return Err(PyValueError::new_err(
                "notation: \"att\" or \"intel\" is needed",
            ))
        }
    };
    let lines =
        errors::catch(|| disassembly::disassemble(code, VirtAddr(address), word, notation, limit))?;
    Ok(lines
        .into_iter()
        .map(|line| {
            (
                line.address.0,
                line.size,
                line.text,
                line.target.map(|at| at.0),
            )
        })
        .collect())
}
