//! The subjects of the benches: synthetic guests, access orders, and memflow over the same file.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use memflow::prelude::v1::*;
use xenkdump::addr::{MachineAddr, Mfn, Pfn, VirtAddr, Word};
use xenkdump::dump::Dump;
use xenkdump::p2m::P2m;
use xenkdump::paging::{Translator, Virtual, X86_64, X86_PAE};
use xenkdump::status::Status;

/// An opened synthetic guest.
pub struct Guest {
    pub dump: Arc<Dump>,
    pub p2m: P2m<Arc<Dump>>,
    pub path: PathBuf,
    pages: u64,
    present: u64,
    root: u64,
    pae_root: u64,
}

/// A mapping of a guest's memory, and its page tables.
pub struct Mapped {
    /// "4k", "2m", "pae-4k" or "pae-2m".
    pub pages: &'static str,
    pub space: Virtual<Arc<Dump>>,
    /// The address of the first page, and the number of pages.
    base: u64,
    count: u64,
}

impl Guest {
    /// Opens the guest of this name in the folder that XKDUMP_BENCH names.
    pub fn open(name: &str) -> Self {
        let folder =
            std::env::var("XKDUMP_BENCH").expect("XKDUMP_BENCH is not set: see benches/run.py");
        let folder = Path::new(&folder);
        let about = std::fs::read(folder.join(format!("guest-{name}.json"))).unwrap();
        let about: serde_json::Value = serde_json::from_slice(&about).unwrap();
        let number = |key: &str| about[key].as_u64().unwrap();
        let path = folder.join(format!("guest-{name}.vmcore"));
        let dump = Arc::new(Dump::open(&path).unwrap());
        let list = Mfn(number("frame_list"));
        Self {
            p2m: P2m::frame_list(dump.clone(), list, Word::W64, None).unwrap(),
            dump,
            path,
            pages: number("pages"),
            present: number("present"),
            root: number("root"),
            pae_root: number("pae_root"),
        }
    }

    /// The mappings that `synthetic.py` writes.
    pub fn spaces(&self) -> Vec<Mapped> {
        let long = Virtual::new(self.dump.clone(), &X86_64, MachineAddr(self.root));
        let pae = Virtual::new(self.dump.clone(), &X86_PAE, MachineAddr(self.pae_root));
        let mapped = |pages, space: &Virtual<_>, base, count| Mapped {
            pages,
            space: space.clone(),
            base,
            count,
        };
        let mut spaces = vec![
            mapped("4k", &long, 0xffff_8880_0000_0000, self.pages),
            mapped("2m", &long, 0xffff_c000_0000_0000, self.pages),
        ];
        if self.pae_root != 0 {
            spaces.push(mapped("pae-4k", &pae, 0, 1 << 19));
            spaces.push(mapped("pae-2m", &pae, 0x8000_0000, 1 << 19));
        }
        spaces
    }

    /// Resolves a batch.
    pub fn resolve(&self, pfns: &[Pfn], out: &mut [Mfn], status: &mut [Status]) {
        self.p2m.resolve_many(pfns, out, status);
    }

    /// The pfn with this number among those that have a frame.
    fn present(&self, number: u64) -> Pfn {
        let run = 1 << 18;
        let step = (self.pages / run).max(1) / (self.present / run).max(1);
        Pfn((number / run) * step * run + number % run)
    }

    /// `count` pfns that have a frame, in the given order.
    pub fn pfns(&self, order: Order, count: usize) -> Vec<Pfn> {
        let numbers = order.numbers(self.present, count);
        numbers.into_iter().map(|n| self.present(n)).collect()
    }

    /// Addresses of such pfns in one of the spaces, with varying page offsets.
    pub fn addrs(&self, mapped: &Mapped, order: Order, count: usize) -> Vec<VirtAddr> {
        let pfns = self.pfns(order, count).into_iter();
        pfns.map(|pfn| pfn.0 % mapped.count)
            .map(|pfn| VirtAddr(mapped.base + (pfn << 12) + (pfn * 72) % 4096))
            .collect()
    }

    /// The mfn of every pfn in one array: a prepared table for plain lookups.
    pub fn table(&self) -> Vec<u64> {
        (0..self.pages)
            .map(|pfn| self.p2m.resolve(Pfn(pfn)))
            .map(|entry| entry.mfn().map_or(u64::MAX, |mfn| mfn.0))
            .collect()
    }

    /// memflow over the same file and the same tables.
    pub fn memflow(&self, mapped: &Mapped) -> Memflow {
        let mut map = MemoryMap::new();
        for segment in self.dump.segments() {
            map.push_remap(
                segment.start.0.into(),
                segment.file_size,
                segment.offset.into(),
            );
        }
        let file = std::fs::File::open(&self.path).unwrap();
        let root = mapped.space.root().0.into();
        Memflow {
            memory: MmapInfo::try_with_filemap(file, map)
                .unwrap()
                .into_connector(),
            translator: if mapped.pages.starts_with("pae") {
                memflow::architecture::x86::x32_pae::new_translator(root)
            } else {
                memflow::architecture::x86::x64::new_translator(root)
            },
            direct: DirectTranslate::new(),
        }
    }
}

impl Mapped {
    /// Translates a batch.
    pub fn translate(&self, addrs: &[VirtAddr], out: &mut [MachineAddr], status: &mut [Status]) {
        Translator::new(&self.space, addrs.len()).translate(addrs, out, status);
    }
}

/// memflow's own batch translation.
pub struct Memflow {
    memory: ReadMappedFilePhysicalMemory<'static>,
    translator: memflow::architecture::x86::X86VirtualTranslate,
    direct: DirectTranslate,
}

impl Memflow {
    /// Writes the machine address of each address to `out`.
    pub fn translate(&mut self, addrs: &[VirtAddr], out: &mut [u64]) {
        let mut found = |CTup3(physical, place, _): CTup3<PhysicalAddress, Address, umem>| {
            out[place.to_umem() as usize] = physical.address().to_umem();
            true
        };
        let mut failed = |_: (Error, CTup3<Address, Address, umem>)| true;
        self.direct.virt_to_phys_iter(
            &mut self.memory,
            &self.translator,
            addrs
                .iter()
                .enumerate()
                .map(|(i, addr)| CTup3(addr.0.into(), (i as u64).into(), 1)),
            &mut (&mut found).into(),
            &mut (&mut failed).into(),
        );
    }
}

/// CPU time of this process.
pub fn cpu_ns() -> f64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is a valid place for the result.
    let done = unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) };
    assert_eq!(done, 0);
    time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
}

/// An order of access.
#[derive(Clone, Copy, Debug)]
pub enum Order {
    Sequential,
    Random,
    /// Short runs in 2 MiB regions, with some regions much hotter than others.
    Kernel,
}

impl Order {
    pub const ALL: [Order; 3] = [Order::Sequential, Order::Random, Order::Kernel];

    pub fn name(self) -> &'static str {
        match self {
            Order::Sequential => "sequential",
            Order::Random => "random",
            Order::Kernel => "kernel",
        }
    }

    /// `count` numbers below `limit`.
    pub fn numbers(self, limit: u64, count: usize) -> Vec<u64> {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        match self {
            Order::Sequential => (0..count as u64).map(|i| i % limit).collect(),
            Order::Random => (0..count).map(|_| random() % limit).collect(),
            Order::Kernel => {
                let regions = (limit / 512).max(1);
                let mut numbers = Vec::with_capacity(count);
                while numbers.len() < count {
                    let unit = (random() >> 11) as f64 / (1_u64 << 53) as f64;
                    let rank = (regions as f64 * unit.powi(4)) as u64;
                    let region = rank.wrapping_mul(0x9e37_79b1) % regions;
                    let (start, run) = (random() % 512, 1 + random() % 16);
                    let pages = (start..start + run).map(|page| (region * 512 + page) % limit);
                    numbers.extend(pages.take(count - numbers.len()));
                }
                numbers
            }
        }
    }
}
