//! The methods of `Dump`, and `Note`.

use std::path::PathBuf;
use std::sync::Arc;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};

use xenkdump::dump::{self, DomainKind};
use xenkdump::notes::{self, Decoded, PrStatus, Registers};
use xenkdump::space::Tables;

use crate::bare::{self, FrameTableTuple, PageTables};
use crate::errors;
use crate::fork::detach;
use crate::gate::Gate;
use crate::handle::{CoreDump, Dump};
use crate::p2m::P2M;
use crate::space::AddressSpace;

/// What the parts of the split dump have in common that the file at `path` is a part of; None if it is none,
/// or cannot be read.
#[pyfunction]
pub fn split_identity<'py>(
    py: Python<'py>,
    path: PathBuf,
) -> PyResult<Option<Bound<'py, PyBytes>>> {
    let identity = detach(py, || dump::Dump::split_identity(&path))?;
    Ok(identity.map(|bytes| PyBytes::new(py, &bytes)))
}

#[pymethods]
impl Dump {
    /// Opens the file at `path`, or the files of a split dump: OSError if one cannot be opened, DumpError if
    /// it is not a dump. `format` "raw" takes it for a raw image of memory; by default the file says what it
    /// is. `cache_size` limits the bytes of decompressed pages that are kept.
    #[new]
    #[pyo3(signature = (path, *, format=None, cache_size=None))]
    fn new(
        py: Python<'_>,
        path: &Bound<'_, PyAny>,
        format: Option<&str>,
        cache_size: Option<usize>,
    ) -> PyResult<Self> {
        let paths = match path.extract::<PathBuf>() {
            Ok(path) => vec![path],
            Err(error) => path.extract::<Vec<PathBuf>>().map_err(|_| error)?,
        };
        if paths.is_empty() {
            return Err(PyValueError::new_err("path: at least one file is needed"));
        }
        let mut options = dump::Options {
            is_raw: match format {
                None => false,
                Some("raw") => true,
                Some(other) => {
                    let text = format!("format: \"raw\" or None is needed, not {other:?}");
                    return Err(PyValueError::new_err(text));
                }
            },
            ..dump::Options::default()
        };
        if let Some(size) = cache_size {
            options.cache_size = size;
        }
        let open = || dump::Dump::open_with(&paths, &options);
        let inner = detach(py, open)?.map_err(errors::from_core)?;
        Ok(Self {
            inner: Arc::new(inner),
            gate: Gate::default(),
        })
    }

    /// The file's path.
    #[getter]
    fn path(&self) -> String {
        self.inner.path().display().to_string()
    }

    /// The format's name.
    #[getter]
    fn format(&self) -> &str {
        self.inner.format()
    }

    /// Size of the file in bytes.
    #[getter]
    fn size(&self) -> u64 {
        self.inner.file_size()
    }

    /// Bytes of machine memory that the dump holds, uncompressed. Limits on work scale with it. Bytes
    /// of the file that are mapped at many addresses count once.
    #[getter]
    fn memory_held(&self) -> u64 {
        self.inner.memory_held()
    }

    /// Bytes of memory of the machine according to the headers, including excluded pages.
    #[getter]
    fn memory_size(&self) -> u64 {
        self.inner.memory_size()
    }

    /// How many pages were decompressed so far, each as often as it was. 0 for formats with plain bytes.
    #[getter]
    fn pages_decoded(&self) -> u64 {
        self.inner.pages_decoded()
    }

    /// Which kinds of pages makedumpfile excluded, as its option `-d`; None if it is not recorded.
    #[getter]
    fn dump_level(&self) -> Option<i32> {
        self.inner.dump_level()
    }

    /// `e_machine` of the ELF header: 3 is EM_386, 62 is EM_X86_64.
    #[getter]
    fn machine_type(&self) -> u16 {
        self.inner.machine_type()
    }

    /// Word size of the headers, in bytes.
    #[getter]
    fn word(&self) -> usize {
        self.inner.word().bytes()
    }

    /// Defects that do not prevent its use, as far as they are known: some are found when memory is
    /// read.
    #[getter]
    fn warnings(&self) -> Vec<String> {
        self.inner.warnings()
    }

    /// All notes, in file order.
    #[getter]
    fn notes(slf: &Bound<'_, Self>) -> PyResult<Vec<Note>> {
        let dump = slf.get();
        let notes = dump.inner.notes();
        errors::probe(notes.len(), LISTED_NOTE)?;
        Ok(notes
            .iter()
            .map(|note| Note {
                dump: dump.inner.clone(),
                inner: note.clone(),
            })
            .collect())
    }

    /// The PT_LOAD segments of an ELF dump: machine address, size in the file, size in memory.
    #[getter]
    fn segments(&self) -> PyResult<Vec<(u64, u64, u64)>> {
        let segments = self.inner.segments().iter();
        errors::probe(segments.len(), LISTED_SEGMENT)?;
        Ok(segments
            .map(|s| (s.start.0, s.file_size, s.memory_size))
            .collect())
    }

    /// The registers of every vCPU, in order; only files of a single domain have any. Each has `id`,
    /// `source` (where the file has them), `word`, `flags`, `registers`, `cr` (as stored), `root` (the table
    /// of cr3, unfolded) and `efer` (None unless it is recorded).
    #[getter]
    fn vcpu_contexts<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyDict>>> {
        let contexts = errors::catch(|| self.inner.vcpu_contexts())?.into_iter();
        contexts
            .map(|context| {
                let dict = PyDict::new(py);
                dict.set_item("id", context.id)?;
                dict.set_item("source", context.source)?;
                dict.set_item("word", context.word.bytes())?;
                dict.set_item("flags", context.flags)?;
                dict.set_item("registers", registers(py, &context.registers)?)?;
                dict.set_item("cr", context.cr)?;
                dict.set_item("root", context.root.0)?;
                dict.set_item("efer", context.efer)?;
                Ok(dict)
            })
            .collect()
    }

    /// The domain's shared_info page, if the file has it separately.
    #[getter]
    fn shared_info<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let page = errors::catch(|| self.inner.shared_info())?;
        Ok(page.map(|page| PyBytes::new(py, page)))
    }

    /// "pv" or "translated" (HVM, PVH) if the file is of a single domain, else None.
    #[getter]
    fn domain_kind(&self) -> Option<&'static str> {
        self.inner.domain_kind().map(|kind| match kind {
            DomainKind::Pv => "pv",
            DomainKind::Translated => "translated",
        })
    }

    /// Whether page tables and cr3 of a PV guest hold pfns in place of mfns, and memory is listed by pfn.
    #[getter]
    fn is_normalised(&self) -> bool {
        self.inner.is_normalised()
    }

    /// Whether the dump is of a translated guest (HVM, PVH), so that frame numbers are pfns.
    #[getter]
    fn auto_translated(&self) -> bool {
        self.inner.auto_translated()
    }

    /// Machine memory.
    #[getter]
    fn machine(&self) -> AddressSpace {
        AddressSpace::machine(self)
    }

    /// The pseudo-physical memory of a domain or, without a P2M, of a host without Xen.
    #[pyo3(signature = (p2m))]
    fn physical(&self, p2m: Option<&P2M>) -> AddressSpace {
        AddressSpace::physical(self, p2m.map(|p2m| p2m.inner.clone()))
    }

    /// A translated guest (HVM, PVH) with this P2M as a dump of its own: its machine addresses are the
    /// guest's physical ones, and it has no notes. `size` is that of the guest's memory in bytes, for
    /// limits on work. Closing it closes this dump too.
    fn guest(&self, p2m: &P2M, size: u64) -> Self {
        let memory = Tables::Guest(p2m.inner.clone());
        Self {
            inner: Arc::new(self.inner.guest(memory, size)),
            gate: self.gate.inner(),
        }
    }

    /// A PV domain with this P2M as a dump of its own, as if it ran on a bare machine: its machine addresses
    /// are the domain's physical ones, and page tables of layout `paging` hold pfns. It has no notes. Tables
    /// are found below `roots` (machine addresses) and by `frame_table`: Xen's virtual memory, the address
    /// of the frame table, its number of elements, the size of one, offset and size of `type_info` in it.
    /// `altered` are words that differ: physical address, value, size. Without a P2M machine addresses are
    /// the physical ones, and nothing else differs. Closing it closes this dump too.
    #[pyo3(signature = (p2m, paging, roots, *, frame_table=None, altered=None))]
    fn bare(
        &self,
        py: Python<'_>,
        p2m: Option<&P2M>,
        paging: &str,
        roots: Vec<u64>,
        frame_table: Option<FrameTableTuple<'_>>,
        altered: Option<Vec<(u64, u64, usize)>>,
    ) -> PyResult<(Self, PageTables)> {
        let (table, altered) = (frame_table.as_ref(), altered.unwrap_or_default());
        bare::open(py, self, p2m, paging, &roots, table, &altered)
    }

    /// The virtual memory of the page tables at `root` (a cr3); `paging` is "x86", "x86-pae",
    /// "x86_64" or "x86_64-la57". `encryption_mask` is the bit of AMD SME in its entries, by default
    /// that in the dump's VMCOREINFO; 0 if there is none. With `p2m` they are those of a translated
    /// guest: `root` and the addresses in them are its physical ones.
    #[pyo3(signature = (root, paging, *, encryption_mask=None, p2m=None))]
    fn r#virtual(
        &self,
        root: u64,
        paging: &str,
        encryption_mask: Option<u64>,
        p2m: Option<&P2M>,
    ) -> PyResult<AddressSpace> {
        let p2m = p2m.map(|p2m| p2m.inner.clone());
        AddressSpace::virtual_memory(self, root, paging, encryption_mask, p2m)
    }

    /// Gives back memory that only caches bytes of the file, as after a search of much memory. Later
    /// reads read them again.
    fn release(&self) -> PyResult<()> {
        self.gate.check()?;
        self.inner.release();
        Ok(())
    }

    /// Closes the dump. Every later use of its address spaces and P2Ms raises ValueError, and batches
    /// in other threads stop. The file is unmapped when the last object made from the dump is freed.
    fn close(&self) {
        self.gate.close_dump();
    }

    fn __repr__(&self) -> String {
        format!("<Dump {:?}: {}>", self.path(), self.format())
    }
}

/// The sizes of a listed note, and of a listed segment, in Python and here.
const LISTED_NOTE: usize = 768;
const LISTED_SEGMENT: usize = 256;

/// One ELF note.
#[pyclass(frozen, module = "xenkdump_fast._native")]
pub struct Note {
    dump: CoreDump,
    inner: dump::Note,
}

#[pymethods]
impl Note {
    /// Its name.
    #[getter]
    fn name(&self) -> String {
        String::from_utf8_lossy(&self.inner.name).into_owned()
    }

    /// `n_namesz`: size of the name in the file, including the final NUL.
    #[getter]
    fn name_size(&self) -> u32 {
        self.inner.name_size
    }

    /// `n_type`.
    #[getter(r#type)]
    fn note_type(&self) -> u32 {
        self.inner.note_type
    }

    /// The name of the constant for its type; None if unknown.
    #[getter]
    fn type_name(&self) -> Option<&'static str> {
        notes::type_name(&self.inner.name, self.inner.note_type)
    }

    /// `n_descsz` in bytes.
    #[getter]
    fn size(&self) -> u64 {
        self.inner.desc_size
    }

    /// Offset of its header in the file.
    #[getter]
    fn offset(&self) -> u64 {
        self.inner.offset
    }

    /// Its descriptor. MemoryError if there is no memory for it: a device dump may be large.
    #[getter]
    fn data<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let descriptor = detach(py, || self.dump.desc(&self.inner))?;
        PyBytes::new_with(py, descriptor.len(), |buf| {
            buf.copy_from_slice(&descriptor);
            Ok(())
        })
    }

    /// The layout of its descriptor; "raw" if unknown.
    #[getter]
    fn kind(&self) -> PyResult<&'static str> {
        Ok(match errors::catch(|| self.dump.decode(&self.inner))? {
            Decoded::PrStatus(_) => "prstatus",
            Decoded::XenKdumpCr3(_) => "xen_kdump_cr3",
            Decoded::CrashInfo(_) => "crash_info",
            Decoded::CrashRegs(_) => "crash_regs",
            Decoded::VmcoreInfo(_) => "vmcoreinfo",
            Decoded::VmcoreInfoXen(_) => "vmcoreinfo_xen",
            Decoded::EraseInfo(_) => "eraseinfo",
            Decoded::Export(_) => "export",
            Decoded::Qemu(_) => "qemu",
            Decoded::DeviceDump(_) => "device_dump",
            Decoded::DumpCoreHeader(_) => "dumpcore_header",
            Decoded::DumpCoreXenVersion(_) => "dumpcore_xen_version",
            Decoded::DumpCoreFormat(_) => "dumpcore_format",
            Decoded::SaveHeader(_) => "save_header",
            Decoded::SaveConfig(_) => "save_config",
            _ => "raw",
        })
    }

    /// The fields of its descriptor by name, in order.
    #[getter]
    fn fields<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let fields = PyDict::new(py);
        match errors::catch(|| self.dump.decode(&self.inner))? {
            Decoded::PrStatus(status) => prstatus_fields(&fields, &status)?,
            Decoded::XenKdumpCr3(mfn) => fields.set_item("mfn", mfn.0)?,
            Decoded::CrashInfo(info) => {
                fields.set_item("word", info.word.bytes())?;
                fields.set_item("xen_major_version", info.version.0)?;
                fields.set_item("xen_minor_version", info.version.1)?;
                for (name, addr) in notes::CRASH_INFO_STRINGS.iter().zip(info.strings) {
                    fields.set_item(name, addr.0)?;
                }
                fields.set_item("tainted", info.tainted)?;
                if let Some(start) = info.xen_phys_start {
                    fields.set_item("xen_phys_start", start.0)?;
                }
                if let Some(mfn) = info.frame_list_list {
                    fields.set_item("dom0_pfn_to_mfn_frame_list_list", mfn.0)?;
                }
            }
            Decoded::CrashRegs(regs) => {
                fields.set_item("word", regs.word.bytes())?;
                fields.set_item("cr0", regs.cr0)?;
                fields.set_item("cr2", regs.cr2)?;
                fields.set_item("cr3", regs.cr3)?;
                fields.set_item("cr4", regs.cr4)?;
            }
            Decoded::SaveHeader(header) => {
                fields.set_item("version", header.version)?;
                fields.set_item("domain_type", header.domain_type)?;
                fields.set_item("page_size", header.page_size)?;
                fields.set_item("xen_major_version", header.xen_version.0)?;
                fields.set_item("xen_minor_version", header.xen_version.1)?;
            }
            Decoded::VmcoreInfo(text)
            | Decoded::VmcoreInfoXen(text)
            | Decoded::EraseInfo(text)
            | Decoded::Export(text)
            | Decoded::SaveConfig(text) => {
                // The kernel pads the text to a page with NULs.
                let text = String::from_utf8_lossy(text);
                fields.set_item("text", text.trim_end_matches('\0'))?;
            }
            Decoded::Qemu(cpu) => {
                fields.set_item("version", cpu.version)?;
                fields.set_item("size", cpu.size)?;
                fields.set_item("registers", registers(py, &cpu.registers)?)?;
                for (name, value) in ["cr0", "cr1", "cr2", "cr3", "cr4"].iter().zip(cpu.cr) {
                    fields.set_item(name, value)?;
                }
            }
            Decoded::DeviceDump(name) => {
                fields.set_item("dump_name", String::from_utf8_lossy(&name))?;
            }
            Decoded::DumpCoreHeader(words) => {
                let names = ["magic", "nr_vcpus", "nr_pages", "page_size"];
                for (name, value) in names.iter().zip(words) {
                    fields.set_item(name, value)?;
                }
            }
            Decoded::DumpCoreXenVersion(xen) => {
                fields.set_item("xen_major_version", xen.version.0)?;
                fields.set_item("xen_minor_version", xen.version.1)?;
                for (name, text) in notes::XEN_VERSION_STRINGS.iter().zip(xen.strings) {
                    fields.set_item(name, String::from_utf8_lossy(text))?;
                }
                fields.set_item("virt_start", xen.virt_start.0)?;
                fields.set_item("page_size", xen.page_size)?;
            }
            Decoded::DumpCoreFormat(version) => fields.set_item("version", version)?,
            _ => {}
        }
        Ok(fields)
    }

    /// The fields of an NT_PRSTATUS with the descriptor `data`, which need not be from the dump's
    /// notes; None if the size is unknown.
    #[staticmethod]
    fn prstatus<'py>(py: Python<'py>, data: &[u8]) -> PyResult<Option<Bound<'py, PyDict>>> {
        let Decoded::PrStatus(status) = notes::decode(b"CORE", notes::NT_PRSTATUS, data) else {
            return Ok(None);
        };
        let fields = PyDict::new(py);
        prstatus_fields(&fields, &status)?;
        Ok(Some(fields))
    }

    fn __repr__(&self) -> String {
        let kind = self.type_name().unwrap_or("unknown type");
        let (name, number, size) = (self.name(), self.inner.note_type, self.inner.desc_size);
        format!("<Note {name:?} {number:#x} ({kind}), {size} bytes>")
    }
}

fn prstatus_fields(fields: &Bound<'_, PyDict>, status: &PrStatus) -> PyResult<()> {
    for (name, value) in ["si_signo", "si_code", "si_errno"]
        .iter()
        .zip(status.signal_info)
    {
        fields.set_item(name, value)?;
    }
    fields.set_item("cursig", status.current_signal)?;
    for (name, value) in ["pid", "ppid", "pgrp", "sid"].iter().zip(status.ids) {
        fields.set_item(name, value)?;
    }
    fields.set_item("registers", registers(fields.py(), &status.registers)?)
}

fn registers<'py>(py: Python<'py>, registers: &Registers) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    for (name, value) in registers.iter() {
        dict.set_item(name, value)?;
    }
    Ok(dict)
}
