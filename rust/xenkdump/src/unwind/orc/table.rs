//! ORC tables, searched by address.
//!
//! `.orc_unwind_ip` holds an `i32` for each row: the distance from this `i32` to the first instruction
//! that the row of the same index in `.orc_unwind` describes. Both are used in place.

use crate::addr::{Address, VirtAddr};
use crate::alloc;
use crate::ranges::Ranges;
use crate::unwind::section::Section;

use super::format::{OrcEntry, OrcFormat, OrcKind, Row, ENTRY_SIZE};

/// The ORC table of a kernel or of a module.
pub struct OrcTable {
    ip: Section,
    ip_address: VirtAddr,
    entries: Section,
    format: OrcFormat,
    /// The code that the table describes.
    range: (VirtAddr, VirtAddr),
    rows: usize,
    /// The order of the rows by ascending address, unless the table is already sorted. Before Linux
    /// 5.6 (f14bf6a350df, "x86/unwind/orc: Remove boot-time ORC unwind tables sorting") the kernel
    /// sorted the table at boot, so that in a file it is in the linker's order.
    order: Option<Vec<u32>>,
}

impl OrcTable {
    /// A table whose `.orc_unwind_ip` is at `ip_address` in the running kernel (including the KASLR
    /// offset), for the code in `range`.
    pub fn new(
        ip: Section,
        ip_address: VirtAddr,
        entries: Section,
        format: OrcFormat,
        range: (VirtAddr, VirtAddr),
    ) -> Self {
        let rows = ((*ip).as_ref().len() / 4)
            .min((*entries).as_ref().len() / ENTRY_SIZE)
            .min(u32::MAX as usize);
        let mut table = Self {
            ip,
            ip_address,
            entries,
            format,
            range,
            rows,
            order: None,
        };
        table.order = table.sorted_order();
        table
    }

    /// The order of the rows, or `None` if they are in order.
    fn sorted_order(&self) -> Option<Vec<u32>> {
        let ip = (*self.ip).as_ref();
        if self.is_in_order(ip) {
            return None;
        }
        let mut order = alloc::collect(0..self.rows as u32);
        // Of two rows for one address, one is empty: the end of the previous unit. The other one must
        // be last, because the search returns the last one.
        order.sort_unstable_by_key(|&number| {
            let row = number as usize;
            // In every version an empty row has no flags.
            let has_flags = self
                .row(row)
                .is_some_and(|[.., low, high]| (low, high) != (0, 0));
            (self.row_pc(ip, row), has_flags, number)
        });
        Some(order)
    }

    fn is_in_order(&self, ip: &[u8]) -> bool {
        let distance = |bytes: &[u8; 4]| i64::from(i32::from_le_bytes(*bytes));
        let (distances, _) = ip.as_chunks();
        let mut start = self.ip_address.raw();
        let mut last = 0;
        let mut sorted = true;
        for bytes in distances.iter().take(self.rows) {
            let pc = start.wrapping_add_signed(distance(bytes));
            sorted &= last <= pc;
            last = pc;
            start = start.wrapping_add(4);
        }
        sorted
    }

    fn row_pc(&self, ip: &[u8], row: usize) -> u64 {
        let at = row * 4;
        let distance = ip
            .get(at..)
            .and_then(|rest| rest.first_chunk())
            .map_or(0, |bytes| i32::from_le_bytes(*bytes));
        self.ip_address
            .raw()
            .wrapping_add(at as u64)
            .wrapping_add_signed(distance.into())
    }

    fn row(&self, row: usize) -> Option<Row> {
        let bytes = (*self.entries).as_ref().get(row * ENTRY_SIZE..)?;
        bytes.first_chunk().copied()
    }

    /// At most `count` addresses that the table describes, spread evenly over its rows.
    pub(in crate::unwind) fn spread(&self, count: usize) -> impl Iterator<Item = VirtAddr> + '_ {
        let ip = (*self.ip).as_ref();
        let step = self.rows.div_ceil(count.max(1)).max(1);
        (0..self.rows)
            .step_by(step)
            .map(move |row| VirtAddr(self.row_pc(ip, row)))
    }

    /// Sets the format of the rows.
    pub fn set_format(&mut self, format: OrcFormat) {
        self.format = format;
    }

    /// The format of the rows.
    pub fn format(&self) -> &OrcFormat {
        &self.format
    }

    /// The number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Whether the table describes this code.
    pub fn covers(&self, pc: VirtAddr) -> bool {
        (self.range.0..self.range.1).contains(&pc)
    }

    /// The row for this instruction; `None` if there is none or it is empty.
    pub fn find(&self, pc: VirtAddr) -> Option<OrcEntry> {
        let entry = self.format.decode(self.find_row(pc)?);
        (entry.kind != OrcKind::Undefined).then_some(entry)
    }

    /// The row for this instruction, undecoded.
    pub(in crate::unwind) fn find_row(&self, pc: VirtAddr) -> Option<Row> {
        if !self.covers(pc) {
            return None;
        }
        let ip = (*self.ip).as_ref();
        let at = |index: usize| match &self.order {
            None => Some(index),
            Some(order) => order.get(index).map(|&row| row as usize),
        };
        let (mut low, mut high) = (0, self.rows);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.row_pc(ip, at(middle)?) <= pc.raw() {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        self.row(at(low.checked_sub(1)?)?)
    }
}

/// The ORC tables of a kernel and of its modules.
#[derive(Debug, Default)]
pub(in crate::unwind) struct OrcTables {
    all: Vec<OrcTable>,
    /// The indices in `all` of the modules' tables; the first is the kernel's.
    modules: Ranges<usize>,
}

impl OrcTables {
    pub fn push(&mut self, table: OrcTable) {
        let (start, end) = table.range;
        if !self.all.is_empty() {
            self.modules.add(start..end, self.all.len());
        }
        alloc::push(&mut self.all, table);
    }

    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// The row for this instruction, and the format of its table.
    pub fn find(&self, pc: VirtAddr) -> Option<(&OrcFormat, OrcEntry)> {
        let module = self.modules.find(pc).and_then(|&i| self.all.get(i));
        let mut tables = self.all.first().into_iter().chain(module);
        tables.find_map(|table| Some((table.format(), table.find(pc)?)))
    }
}

impl std::fmt::Debug for OrcTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OrcTable")
            .field("range", &self.range)
            .field("rows", &self.rows)
            .field("format", &self.format)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    /// A table at 0x1000 with one row for each pc; the sp offset is the row's number.
    fn table(pcs: &[u64], undefined: &[usize]) -> OrcTable {
        let mut ip = Vec::new();
        let mut entries = Vec::new();
        for (row, pc) in pcs.iter().enumerate() {
            let at = 0x1000 + 4 * row as u64;
            ip.extend_from_slice(&(pc.wrapping_sub(at) as i32).to_le_bytes());
            entries.extend_from_slice(&(row as i16).to_le_bytes());
            let flags: u16 = if undefined.contains(&row) { 0 } else { 0x015 };
            entries.extend_from_slice(&[0, 0]);
            entries.extend_from_slice(&flags.to_le_bytes());
        }
        OrcTable::new(
            Arc::new(ip),
            VirtAddr(0x1000),
            Arc::new(entries),
            OrcFormat::V5_12,
            (VirtAddr(0), VirtAddr(u64::MAX)),
        )
    }

    fn found(table: &OrcTable, pc: u64) -> Option<i16> {
        table.find(VirtAddr(pc)).map(|entry| entry.sp_offset)
    }

    #[test]
    fn the_row_at_or_below_the_pc_is_found() {
        let table = table(&[0x5000, 0x5010, 0x5010, 0x5020], &[1, 3]);
        assert!(table.order.is_none());
        assert_eq!(found(&table, 0x4fff), None);
        assert_eq!(found(&table, 0x5000), Some(0));
        assert_eq!(found(&table, 0x500f), Some(0));
        assert_eq!(found(&table, 0x5010), Some(2));
        assert_eq!(found(&table, 0x5020), None);
    }

    #[test]
    fn an_unsorted_table_is_searched_by_address() {
        // Before Linux 5.6: .init.text may come first, and the row that ends a unit second.
        let table = table(
            &[0x9000, 0x9010, 0x5000, 0x5010, 0x5010, 0x5020],
            &[1, 4, 5],
        );
        assert!(table.order.is_some());
        assert_eq!(found(&table, 0x9005), Some(0));
        assert_eq!(found(&table, 0x5005), Some(2));
        assert_eq!(found(&table, 0x5010), Some(3));
        assert_eq!(found(&table, 0x5021), None);
        assert_eq!(found(&table, 0x9010), None);
    }

    #[test]
    fn each_module_has_its_own_table() {
        let mut tables = OrcTables::default();
        assert!(tables.is_empty());
        for (pcs, range) in [
            (&[0x5000, 0x5800][..], (0x5000, 0x6000)),
            (&[0x8000, 0x8800, 0x8900], (0x8000, 0x9000)),
            (&[0x7000, 0x7800], (0x7000, 0x8000)),
            (&[0x5000], (0, u64::MAX)),
        ] {
            let mut table = table(pcs, &[1]);
            table.range = (VirtAddr(range.0), VirtAddr(range.1));
            tables.push(table);
        }
        let found = |pc| tables.find(VirtAddr(pc)).map(|(_, entry)| entry.sp_offset);
        assert_eq!(found(0x5100), Some(0));
        assert_eq!(found(0x5900), None, "the kernel's row is empty");
        assert_eq!(found(0x8950), Some(2));
        assert_eq!(found(0x7100), Some(0));
        assert_eq!(found(0x9100), None, "after the last module");
    }

    #[test]
    fn a_lookup_does_not_depend_on_the_number_of_modules() {
        const COUNT: u64 = 100_000;
        let start = |i: u64| 0x1000 + i * 0x1000;
        let mut tables = OrcTables::default();
        for i in 0..COUNT {
            let mut table = table(&[start(i)], &[]);
            table.range = (VirtAddr(start(i)), VirtAddr(start(i + 1)));
            tables.push(table);
        }
        for i in 0..COUNT {
            assert!(tables.find(VirtAddr(start(i))).is_some());
        }
    }

    #[test]
    fn the_shorter_section_limits_the_number_of_rows() {
        let table = OrcTable::new(
            Arc::new(vec![0; 9]),
            VirtAddr(u64::MAX),
            Arc::new(vec![0; 7]),
            OrcFormat::V6_4,
            (VirtAddr(0), VirtAddr(u64::MAX)),
        );
        assert_eq!(table.rows(), 1);
        assert_eq!(table.find(VirtAddr(5)), None);
    }
}
